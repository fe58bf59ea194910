//! Entries that an export has written, here or on another host, come into the quarantine again, with new ids.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::edited;
use super::protocol::{Imported, RefusedLine};
use super::service::Service;
use crate::clock::UnixMillis;
use crate::spool::{
    Append, AppendError, Content, DETAIL_BYTES_MAX, Item, LaneId, Origin, Quarantined,
};

/// A reason, a type or a name that is longer was not written by an export.
const NAME_BYTES_MAX: usize = 1024;

/// What is read of an exported entry.
#[derive(Deserialize)]
struct Exported {
    reason: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    status: Option<u16>,
    origin: Origin,
    at: UnixMillis,
    /// Exports were written before it was known.
    #[serde(default)]
    first_at: Option<UnixMillis>,
    body: Box<RawValue>,
}

impl Service {
    /// Takes in the `lines` of an export. A line that is none costs the others nothing.
    ///
    /// # Errors
    /// The spool takes none of them.
    pub async fn import(&self, lines: &[u8]) -> Result<Imported, AppendError> {
        let (mut imported, mut items) = (Imported::default(), Vec::new());
        let place = |integration: &str, email: Option<&str>| {
            self.intake().lane(integration, email).filter(|found| self.delivers(*found))
        };
        for (number, line) in (1..).zip(lines.split(|byte| *byte == b'\n')) {
            if line.trim_ascii().is_empty() {
                continue;
            }
            match entry(line, place) {
                Ok(entry) => {
                    items.push(Item { once: None, content: Content::Quarantine(Box::new(entry)) });
                }
                Err(message) => imported.refused.push(RefusedLine { line: number, message }),
            }
        }
        imported.imported = items.len() as u64;
        if !items.is_empty() {
            self.append(Append { items, ..Append::default() }).await?;
        }
        Ok(imported)
    }
}

/// The entry of one line, in the lane that `place` finds for an integration and an address.
fn entry(
    line: &[u8],
    place: impl Fn(&str, Option<&str>) -> Option<LaneId>,
) -> Result<Quarantined, String> {
    let read = serde_json::from_slice::<Exported>(line);
    let mut exported = read.map_err(|error| {
        format!("no entry as `quarantine export` writes them: {error}").replace(" at line 1", "")
    })?;
    let bytes = match &mut exported.origin {
        Origin::Event { kind, integration } => {
            name("kind", kind)?;
            name("integration", integration.as_deref().unwrap_or_default())?;
            // What was no JSON was written as a text.
            let text = serde_json::from_str::<String>(exported.body.get());
            text.unwrap_or_else(|_| exported.body.get().to_owned()).into_bytes()
        }
        Origin::Record { lane, integration, record_type, .. } => {
            let (bytes, email) = edited::read(record_type, exported.body.get())?;
            *lane = place(integration, email.as_deref()).ok_or_else(|| {
                format!("integration {integration:?} is not configured here: configure it, reload, and import again")
            })?;
            bytes.to_vec()
        }
    };
    name("reason", &exported.reason)?;
    if exported.detail.len() > DETAIL_BYTES_MAX {
        return Err(format!("its detail is over {DETAIL_BYTES_MAX} bytes"));
    }
    let Exported { reason, detail, status, origin, at, first_at, .. } = exported;
    let first_at = first_at.unwrap_or(at);
    Ok(Quarantined { origin, reason, detail, status, at, body: bytes, first_at })
}

fn name(what: &str, text: &str) -> Result<(), String> {
    if text.len() <= NAME_BYTES_MAX {
        return Ok(());
    }
    Err(format!("its {what} is over {NAME_BYTES_MAX} bytes"))
}
