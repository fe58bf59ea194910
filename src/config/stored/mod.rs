//! Integrations that were made at run time: `state_dir/integrations/NAME.toml`, one `[[integration]]` each, in the format of
//! the configuration file and checked by the same code.
//!
//! ```text
//! start, reload   configuration file ─▶ its integrations ─▶ stored ones that it has no name of ─▶ Config
//! save            draft ─▶ completed by what is stored ─▶ TOML ─▶ read as any stored file ─▶ written, fsynced, renamed
//! ```
//! | file | owns |
//! |---|---|
//! | `files` (SHELL) | the folder |
//! | `draft` (PURE) | drafts as TOML, and back |
//! | `edit` (PURE) | what a draft takes over from what is stored |
//!
//! - The configuration file wins: a stored integration of a name that it has is overruled, and that is told as a warning.
//! - A broken stored file is told as an error: in the log at each start and reload, by `check`, `status` and the admin API. It
//!   stops neither the daemon nor the others, whereas a fault of the configuration file does. The daemon has written
//!   the file itself, and checked it; when it is broken nevertheless (a disk, an editor, an older version, a `ca_file` that has gone),
//!   nobody may be at hand on an edge host, and a daemon that stays down takes the events of no integration. What comes in
//!   meanwhile is not mapped for the broken one; its queue stays. An integration that runs already goes on with what it runs
//!   with when a reload finds its file broken.
//! - When the folder itself cannot be read, nobody knows what is stored: a reload keeps every one that runs, and a start fails, to
//!   be tried again.
//! - Every file is 0600 and its folder 0700: the API key lies in it. Nothing here tells it (Promise 8).

mod draft;
mod edit;
mod files;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub(super) use self::files::{Found, all};
pub use self::files::{held, put_back, remove, replace, sweep, version};

use super::build;
use super::document::{Document, Override};
use super::faults::{Collector, Place};
use super::{Config, Fault, Faults, Integration, Origin, Source};
use crate::draft::{Draft, Setting};

/// Stored integrations, at most.
const INTEGRATIONS_MAX: usize = 256;
/// What an integration without a name is called while it is tried out.
const UNNAMED: &str = "draft";

/// A stored integration that is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Its name; empty when the whole folder cannot be read.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// See [`version`]; empty when it cannot be read.
    pub version: String,
    /// Why.
    pub why: Why,
}

impl SetAside {
    /// Whether it stands for all that may be stored: their folder cannot be read.
    #[must_use]
    pub fn is_whole_folder(&self) -> bool {
        self.name.is_empty()
    }
}

/// Why a stored integration is not in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The configuration file has an integration of its name.
    Overruled,
    /// Its file has faults.
    Broken(Faults),
}

/// What a draft is checked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// To be stored under a name.
    Saving,
    /// To be sent from once.
    Push,
    /// Its mapping: it needs no key.
    Mapping,
}

/// A draft that has been found good.
#[derive(Debug)]
pub struct Ready {
    /// What is in force with it: what it says, with the overrides of the daemon.
    pub integration: Integration,
    /// Its file.
    pub path: PathBuf,
    /// The content of the file that says so; it holds the key.
    pub text: Secret,
}

/// Text that no `Debug` shows.
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Secret")
    }
}

/// Checks a draft as a stored file is checked: by itself, then with the overrides of `source` that are for it. `name`: what it is to be called; `None`: what it says itself. Reads files,
/// and changes none.
///
/// # Errors
/// All faults; the place of each is the path of its setting.
pub fn check(
    source: &Source,
    state_dir: &Path,
    name: Option<&str>,
    mut draft: Draft,
    purpose: For,
) -> Result<Ready, Faults> {
    let said = draft.text("name").map(str::to_owned);
    let name = name.or(said.as_deref()).unwrap_or(UNNAMED).to_owned();
    if !draft.has("name") {
        draft.set_first("name", Setting::Text(name.clone()));
    }
    let mut faults = Vec::new();
    if said.is_some_and(|said| said != name) {
        faults.push(("name".to_owned(), format!("`name` must be {name:?} here, or be left out")));
    }
    // A name that leads elsewhere is told below, and reads nothing.
    let legal = build::is_name(&name);
    let before = if legal { files::text(state_dir, &name) } else { None };
    if purpose == For::Saving && before.is_none() && files::count(state_dir) >= INTEGRATIONS_MAX {
        let message =
            format!("{INTEGRATIONS_MAX} integrations are stored already: remove one first");
        faults.push((String::new(), message));
    }
    let before = before.and_then(|text| draft::read(&text, None));
    edit::complete(&mut draft, before.as_ref(), purpose == For::Mapping, &mut faults);
    let written = draft::write(&draft);
    if written.text.len() as u64 > files::FILE_BYTES_MAX {
        let message = format!(
            "the integration is too large: its file would have over {} bytes",
            files::FILE_BYTES_MAX
        );
        faults.push((String::new(), message));
    }
    let path = files::path(state_dir, &name);
    let mut collector = Collector::new(&path, &written.text);
    let read = read_one(&name, &path, &written.text, &[], source, &mut collector);
    for (place, message) in collector.into_places() {
        let setting = match &place {
            Place::Environment(variable) => format!("environment {variable}"),
            place => written.setting(place).to_owned(),
        };
        // What was left out and is told above stands nowhere.
        if !faults.iter().any(|(known, _)| *known == setting && !setting.is_empty()) {
            faults.push((setting, message));
        }
    }
    match read {
        Some(integration) if faults.is_empty() => {
            // A mapping that is tried out is that of the draft; what nobody has named, nobody overrides.
            let is_named = purpose != For::Mapping && name != UNNAMED;
            let overridden = is_named.then(|| overridden(&name, &path, &written.text, source));
            let integration = overridden.transpose()?.flatten().unwrap_or(integration);
            Ok(Ready { integration, path, text: Secret(written.text) })
        }
        _ => {
            let fault = |(place, message)| Fault { place, message };
            Err(Faults(faults.into_iter().map(fault).collect()))
        }
    }
}

/// What a stored file that has been found good comes to with the overrides of `source`, as [`merge`] reads it at the next
/// reload; `None` when there are none for it.
///
/// # Errors
/// The faults of the overrides, which would set it aside.
fn overridden(
    name: &str,
    path: &Path,
    text: &str,
    source: &Source,
) -> Result<Option<Integration>, Faults> {
    // What is wrong with others is told by a reload.
    let all = super::overrides(source, &mut Collector::new(path, text));
    let overrides: Vec<&Override> = all.iter().filter(|change| change.is_for(name)).collect();
    if overrides.is_empty() {
        return Ok(None);
    }
    let mut faults = Collector::new(path, text);
    let read = read_one(name, path, text, &overrides, source, &mut faults);
    faults.finish()?;
    Ok(read)
}

/// The stored file of `name`, when there is one, broken or not.
#[must_use]
pub fn find(state_dir: &Path, name: &str) -> Option<PathBuf> {
    let path = files::path(state_dir, name);
    (build::is_name(name) && path.symlink_metadata().is_ok()).then_some(path)
}

/// Adds what is stored to what the configuration file says.
pub(super) fn merge(
    config: &mut Config,
    found: Vec<Found>,
    overrides: &[Override],
    source: &Source,
) {
    for Found { name, path, text } in found {
        let version = text.as_ref().map(|text| version(text.as_bytes())).unwrap_or_default();
        let broken = |path: PathBuf, faults: Faults| SetAside {
            name: name.clone(),
            path,
            version: version.clone(),
            why: Why::Broken(faults),
        };
        if config.integrations.iter().any(|known| known.name == name) {
            config.set_aside.push(SetAside { name, path, version, why: Why::Overruled });
            continue;
        }
        let text = match text {
            Ok(text) => text,
            Err(message) => {
                let place = path.display().to_string();
                config.set_aside.push(broken(path, Faults(vec![Fault { place, message }])));
                continue;
            }
        };
        let mut faults = Collector::new(&path, &text);
        let overrides: Vec<&Override> =
            overrides.iter().filter(|change| change.is_for(&name)).collect();
        let read = read_one(&name, &path, &text, &overrides, source, &mut faults);
        match faults.finish() {
            Ok(()) => config.integrations.extend(read),
            Err(faults) => config.set_aside.push(broken(path, faults)),
        }
    }
}

/// Reads the one integration of a stored file.
fn read_one(
    name: &str,
    path: &Path,
    text: &str,
    overrides: &[&Override],
    source: &Source,
    faults: &mut Collector<'_>,
) -> Option<Integration> {
    let document = Document::read(text, overrides.iter().copied(), &[], faults)?;
    for section in [&document.top, &document.ingest, &document.admin, &document.spool] {
        if let Some(place) = section.first() {
            let message =
                "this belongs into the configuration file: a stored file holds one [[integration]]";
            faults.add(&place, message);
        }
    }
    let [section] = document.integrations.as_slice() else {
        let place = document.integrations.get(1).map_or(Place::File, |second| second.place.clone());
        faults.add(&place, "a stored file holds one [[integration]], and no other");
        return None;
    };
    let read = build::integration(section, source, faults)?;
    if read.name != name {
        let message = format!("a stored file is called by the `name` in it: {}.toml", read.name);
        faults.add(&section.place_of("name"), message);
    }
    let given = edit::presentable(draft::read(text, None).unwrap_or_default());
    let version = version(text.as_bytes());
    Some(Integration { origin: Origin::Stored { path: path.to_owned(), given, version }, ..read })
}

/// The integration of `file`, whose content is `text`, as a draft: the only one in it, or the one called `name`.
///
/// # Errors
/// What can be said of it without the daemon that is to have it: it is no TOML, has unknown keys, or no such integration.
pub fn draft_of(file: &Path, text: &str, name: &str) -> Result<Draft, Faults> {
    let mut faults = Collector::new(file, text);
    let whole = Document::read(text, [], &[], &mut faults);
    let draft = whole.and_then(|_| draft::read(text, Some(name)));
    if draft.is_none() && faults.count() == 0 {
        let message =
            format!("holds neither one [[integration]] alone nor one that is called {name:?}");
        faults.add(&Place::File, message);
    }
    faults.finish()?;
    Ok(draft.unwrap_or_default())
}

/// A draft as the configuration file would say it.
#[must_use]
pub fn to_toml(draft: &Draft) -> String {
    draft::write(draft).text
}

/// The settings in force of an integration, but its key.
pub(super) fn settings(effective: &str) -> Draft {
    let mut settings = draft::read(effective, None).unwrap_or_default();
    settings.remove("api_key");
    settings
}
