//! What an operator asks for, answered from the spool, the forwarders' reports and the ingest counters.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::watch;

use super::protocol::{IntegrationStatus, Kept, QuarantineEntry, Released, Selection, Status};
use crate::clock::{self, UnixMillis};
use crate::forward::{Report, State};
use crate::ingest::{Counters, Intake};
use crate::spool::{
    Append, AppendError, Content, Item, LaneId, Origin, QuarantineId, Quarantined, ReadError, Spool,
};

/// Entries read at once.
const PAGE: usize = 100;

/// An integration that is delivered.
#[derive(Debug)]
pub struct Delivered {
    /// Its name.
    pub name: String,
    /// Where its pushes go.
    pub endpoint: String,
    /// Its lane.
    pub lane: LaneId,
    /// What its forwarder says.
    pub report: watch::Receiver<Report>,
}

/// What an operator may ask for.
#[derive(Debug)]
pub struct Service {
    spool: Spool,
    integrations: Vec<Delivered>,
    intake: Arc<Intake>,
    counters: Arc<Counters>,
    started_at: UnixMillis,
}

impl Service {
    /// A service over the parts of a daemon.
    #[must_use]
    pub fn new(
        spool: Spool,
        integrations: Vec<Delivered>,
        intake: Arc<Intake>,
        counters: Arc<Counters>,
        started_at: UnixMillis,
    ) -> Service {
        Service { spool, integrations, intake, counters, started_at }
    }

    /// The daemon as a whole.
    ///
    /// # Errors
    /// Never for a damaged lane: its report says so.
    pub async fn status(&self) -> Result<Status, ReadError> {
        let mut integrations = Vec::new();
        for (lane, name, _) in self.spool.lanes() {
            let configured = self.integrations.iter().find(|known| known.lane == lane);
            let mut report =
                configured.map_or_else(Report::default, |known| known.report.borrow().clone());
            let stats = match self.spool.stats(lane).await {
                Ok(stats) => stats,
                Err(error @ ReadError::Damaged { .. }) => {
                    (report.state, report.cause) = (State::Damaged, error.to_string());
                    Default::default()
                }
                Err(error) => return Err(error),
            };
            let endpoint = configured.map(|known| known.endpoint.clone());
            integrations.push(IntegrationStatus { name, endpoint, lane: stats, report });
        }
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at: self.started_at,
            now: clock::now(),
            refusing: self.spool.accepting().err().map(|error| error.to_string()),
            quarantined: self.spool.quarantine_count(),
            ingest: self.counters.counts(),
            integrations,
        })
    }

    /// Up to `limit` entries of the quarantine from `from` on.
    ///
    /// # Errors
    /// When the quarantine cannot be read.
    pub async fn quarantine(
        &self,
        from: QuarantineId,
        limit: usize,
        bodies: bool,
    ) -> Result<Vec<QuarantineEntry>, ReadError> {
        let entries = self.spool.quarantine(from, limit.min(PAGE)).await?;
        Ok(entries.into_iter().map(|(id, entry)| shown(id, entry, bodies)).collect())
    }

    /// Takes entries in again: records go to the end of their lanes with their old ids, events through the mapping.
    ///
    /// # Errors
    /// When the quarantine cannot be read. What the spool refuses stays, and is listed.
    pub async fn retry(&self, selection: Selection) -> Result<Released, ReadError> {
        self.release(selection, true).await
    }

    /// Removes entries for good.
    ///
    /// # Errors
    /// As [`Service::retry`].
    pub async fn drop_entries(&self, selection: Selection) -> Result<Released, ReadError> {
        self.release(selection, false).await
    }

    async fn release(&self, selection: Selection, again: bool) -> Result<Released, ReadError> {
        let mut released = Released::default();
        match selection {
            Selection::Ids(ids) => {
                for id in ids {
                    let found = self.spool.quarantine(id, 1).await?;
                    let found = found.into_iter().find(|(known, _)| *known == id);
                    let ended = match found {
                        Some((_, entry)) => self.release_one(id, entry, again).await,
                        None => Err("there is no such entry".to_owned()),
                    };
                    released.count(id, ended);
                }
            }
            Selection::All(_) => {
                let mut from = QuarantineId(0);
                // Entries that arrive meanwhile are later ones: only what is there now is gone through.
                let mut left = self.spool.quarantine_count();
                while left > 0 {
                    let page = self.spool.quarantine(from, PAGE).await?;
                    let Some((last, _)) = page.last() else { break };
                    from = QuarantineId(last.0 + 1);
                    for (id, entry) in page {
                        released.count(id, self.release_one(id, entry, again).await);
                        left = left.saturating_sub(1);
                    }
                }
            }
        }
        Ok(released)
    }

    async fn release_one(
        &self,
        id: QuarantineId,
        entry: Quarantined,
        again: bool,
    ) -> Result<(), String> {
        let mut append = Append { releases: vec![id], ..Append::default() };
        if again {
            match entry.origin {
                Origin::Record { lane, record_type, .. } => {
                    let record = Bytes::from(entry.body);
                    let content =
                        Content::Record { lane, record_type: Arc::from(record_type), record };
                    append.items.push(Item { once: None, content });
                }
                Origin::Event { integration, .. } => {
                    let replayed =
                        self.intake.replay(&entry.body, integration.as_deref(), entry.at, id).await;
                    return replayed.map_err(|error| error.to_string());
                }
            }
        }
        let appended: Result<_, AppendError> = self.spool.append(append).await;
        appended.map(drop).map_err(|error| error.to_string())
    }
}

impl Released {
    fn count(&mut self, id: QuarantineId, ended: Result<(), String>) {
        match ended {
            Ok(()) => self.released += 1,
            Err(message) => self.kept.push(Kept { id, message }),
        }
    }
}

fn shown(id: QuarantineId, entry: Quarantined, bodies: bool) -> QuarantineEntry {
    #[derive(Deserialize)]
    struct Named {
        #[serde(alias = "messageId")]
        id: String,
    }
    let bytes = entry.body.len();
    let record_id = serde_json::from_slice::<Named>(&entry.body).ok().map(|named| named.id);
    let body = bodies.then(|| body_json(entry.body));
    let Quarantined { origin, reason, detail, status, at, .. } = entry;
    QuarantineEntry { id, reason, detail, status, origin, at, bytes, record_id, body }
}

/// The body as it stands; what is no JSON as a JSON string.
fn body_json(body: Vec<u8>) -> Box<RawValue> {
    let text = String::from_utf8_lossy(&body).into_owned();
    RawValue::from_string(text.clone())
        .unwrap_or_else(|_| serde_json::value::to_raw_value(&text).expect("text always encodes"))
}
