//! File + environment + overrides → one checked [`Config`]; the only place with defaults.
//!
//! ```text
//! --set ─┐
//! PILLARBOX__… ─┼─▶ document (raw values with places) ─▶ build (types, bounds, rules between keys) ─▶ Config, or all Faults
//! file ─┘
//! ```
//! Precedence: `--set`, environment, file, default. Nothing here prints a key's value: no message quotes the file.

mod build;
mod document;
mod faults;
pub mod keys;
pub mod units;

#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

pub use self::faults::{Fault, Faults, Place};

use self::document::Override;

/// The configuration file unless another is named.
pub const FILE: &str = "/etc/pillarbox/pillarbox.toml";
/// Environment variables that override keys begin with this: `PILLARBOX__SPOOL__SYNC`.
const ENVIRONMENT_PREFIX: &str = "PILLARBOX__";

/// Where a configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The file; `None`: [`FILE`].
    pub path: Option<PathBuf>,
    /// `KEY=VALUE` of each `--set`.
    pub set: Vec<String>,
    /// The environment.
    pub environment: Vec<(String, String)>,
    /// `$CREDENTIALS_DIRECTORY`, where systemd puts credentials.
    pub credentials: Option<PathBuf>,
}

/// What the daemon runs with: every value in range, every rule between keys kept.
#[derive(Clone, Debug)]
pub struct Config {
    /// Holds the spool.
    pub state_dir: PathBuf,
    /// The producers' socket.
    pub ingest: Ingest,
    /// The operators' socket.
    pub admin: Admin,
    /// The store.
    pub spool: crate::spool::Options,
    /// At least one, names unique.
    pub integrations: Vec<Integration>,
}

/// `[ingest]`.
#[derive(Clone, Debug)]
pub struct Ingest {
    /// Path of the Unix socket.
    pub socket: PathBuf,
    /// Its permission bits.
    pub socket_mode: u32,
    /// Limits of requests and connections.
    pub limits: crate::ingest::Limits,
}

/// `[admin]`.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Path of the Unix socket, created with mode 0600.
    pub socket: PathBuf,
    /// How the daemon logs.
    pub log: LogFormat,
}

/// How the daemon logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people, on stderr.
    #[default]
    Text,
    /// One JSON object a line, on stderr.
    Json,
    /// Structured fields to journald.
    Journald,
}

/// `[[integration]]`.
#[derive(Clone, Debug)]
pub struct Integration {
    /// Unique; letters, digits, `-` and `_`.
    pub name: String,
    /// Which events become which records.
    pub preset: crate::mapping::Preset,
    /// Categories that must all be granted; empty: consent is not asked.
    pub consent: Vec<String>,
    /// How its records are delivered.
    pub forward: crate::forward::Settings,
}

impl Source {
    /// The source of a command: its options, and this process's environment.
    #[must_use]
    pub fn of_process(path: Option<PathBuf>, set: Vec<String>) -> Source {
        let utf8 = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Source {
            path,
            set,
            environment: std::env::vars_os().filter_map(utf8).collect(),
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
        }
    }

    /// The file that is read.
    #[must_use]
    pub fn file(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(FILE))
    }
}

/// Reads and checks a configuration.
///
/// # Errors
/// All faults, not only the first.
pub fn load(source: &Source) -> Result<Config, Faults> {
    let file = source.file();
    let text = std::fs::read_to_string(file).map_err(|error| {
        let message = format!(
            "{error}. Name a configuration with --config FILE; `pillarbox demo` needs none"
        );
        Faults(vec![Fault { place: file.display().to_string(), message }])
    })?;
    build::build(file, &text, &overrides(source)?, source.credentials.as_deref())
}

/// The sockets of a configuration, for commands that only need to reach the daemon: works without the right to read the
/// keys. Falls back to the defaults when there is no file.
#[must_use]
pub fn sockets(source: &Source) -> (PathBuf, PathBuf) {
    let text = std::fs::read_to_string(source.file()).unwrap_or_default();
    let overrides = overrides(source).unwrap_or_default();
    build::sockets(source.file(), &text, &overrides)
}

/// The overrides of a source, in the order in which they apply: environment, then `--set`.
fn overrides(source: &Source) -> Result<Vec<Override>, Faults> {
    let mut overrides = Vec::new();
    for (name, value) in &source.environment {
        if let Some(key) = name.strip_prefix(ENVIRONMENT_PREFIX) {
            let key = key.to_ascii_lowercase().replace("__", ".");
            overrides.push(Override {
                key,
                value: value.clone(),
                place: Place::Environment(name.clone()),
            });
        }
    }
    let mut faults = Vec::new();
    for set in &source.set {
        match set.split_once('=') {
            Some((key, value)) => {
                let key = key.trim().to_owned();
                overrides.push(Override {
                    place: Place::Set(key.clone()),
                    key,
                    value: value.to_owned(),
                });
            }
            None => {
                let message = "must be KEY=VALUE, such as --set spool.sync=500ms".to_owned();
                faults.push(Fault { place: "--set".to_owned(), message });
            }
        }
    }
    if faults.is_empty() { Ok(overrides) } else { Err(Faults(faults)) }
}

impl Config {
    /// The configuration in force, as TOML; the keys are shown as `***`.
    #[must_use]
    pub fn effective(&self) -> String {
        use units::{show_duration, show_size};
        let (spool, limits) = (&self.spool, &self.ingest.limits);
        let sync = match spool.sync {
            crate::spool::SyncMode::Always => "always".to_owned(),
            crate::spool::SyncMode::Every(interval) => show_duration(interval),
        };
        let log = match self.admin.log {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
            LogFormat::Journald => "journald",
        };
        let mut text = format!(
            "state_dir = {:?}\n\n[ingest]\nsocket = {:?}\nsocket_mode = \"{:04o}\"\nmax_request = \"{}\"\nmax_connections = {}\nread_timeout = \"{}\"\n\n\
             [admin]\nsocket = {:?}\nlog = \"{log}\"\n\n\
             [spool]\nsync = \"{sync}\"\nmax_records = {}\nmax_bytes = \"{}\"\nmin_free_disk = \"{}\"\ncache = \"{}\"\nkeep_delivered = {}\ndedupe_window = {}\n",
            self.state_dir,
            self.ingest.socket,
            self.ingest.socket_mode,
            show_size(limits.request_bytes_max as u64),
            limits.connections_max,
            show_duration(limits.read_timeout),
            self.admin.socket,
            spool.records_max,
            show_size(spool.bytes_max),
            show_size(spool.free_disk_min_bytes),
            show_size(spool.cache_bytes),
            spool.keep_delivered,
            spool.dedupe_window,
        );
        for Integration { name, preset, consent, forward } in &self.integrations {
            let preset = match preset {
                crate::mapping::Preset::Retail => "retail",
                crate::mapping::Preset::Default => "default",
            };
            // Writing into a `String` cannot fail.
            let _ = write!(
                text,
                "\n[[integration]]\nname = {name:?}\napi_key = \"***\"\nendpoint = \"{}\"\npreset = \"{preset}\"\nconsent = {consent:?}\nbatch = {}\nlinger = \"{}\"\n\
                 timeout = \"{}\"\nretry = {{ initial = \"{}\", max = \"{}\" }}\nstorm_limit = {}\nmax_pushes_per_second = {}\n",
                forward.endpoint,
                forward.batch_records_max,
                show_duration(forward.linger),
                show_duration(forward.timeout),
                show_duration(forward.retry.initial),
                show_duration(forward.retry.max),
                forward.storm_limit,
                forward.pushes_per_second_max,
            );
        }
        text
    }
}
