//! File + environment + overrides → one checked [`Config`]; the only place with defaults.
//!
//! ```text
//! --set ─────────┐
//! PILLARBOX__… ──┼─▶ document (sections of raw values with places) ─▶ build (types, bounds, rules between keys) ─▶ Config, or all Faults
//! file ──────────┘                                                             state_dir/integrations/*.toml ─▶ beside them
//! ```
//! Precedence: `--set`, environment, file, default. Nothing here prints a key's value: no message quotes the file.

mod accounts;
mod build;
mod document;
mod events;
mod exposure;
mod faults;
pub mod keys;
mod section;
pub mod stored;
pub mod units;
mod way;

#[cfg(test)]
mod events_tests;
#[cfg(test)]
mod override_tests;
#[cfg(test)]
mod secrecy_tests;
#[cfg(test)]
mod tests;

use std::fmt::{self, Write as _};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use self::faults::{Fault, Faults, Place};
pub use self::stored::{SetAside, Why};

use self::document::Override;
use self::faults::Collector;
use crate::draft::Draft;
use crate::forward::way::Proxy;

/// The configuration file unless another is named.
pub const FILE: &str = "/etc/pillarbox/pillarbox.toml";
/// Environment variables that override keys begin with this, in any case: `PILLARBOX__SPOOL__SYNC`.
const ENVIRONMENT_PREFIX: &str = "PILLARBOX__";

/// Where a configuration comes from.
#[derive(Clone, Default)]
pub struct Source {
    /// The file; `None`: [`FILE`].
    pub path: Option<PathBuf>,
    /// `KEY=VALUE` of each `--set`.
    pub set: Vec<String>,
    /// The environment, as far as it overrides keys or names a proxy.
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
    /// Those of the file, in its order, then those that are stored. Names unique; there may be none.
    pub integrations: Vec<Integration>,
    /// Stored ones that are not in force.
    pub set_aside: Vec<SetAside>,
}

/// `[ingest]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingest {
    /// Path of the Unix socket.
    pub socket: PathBuf,
    /// Its permission bits.
    pub socket_mode: u32,
    /// Who may hand over events over it.
    pub producers: crate::ingest::Producers,
    /// Their users as they were written.
    pub allow_users: Vec<String>,
    /// Their groups as they were written.
    pub allow_groups: Vec<String>,
    /// TCP addresses to listen on as well.
    pub listen: Vec<SocketAddr>,
    /// What producers on them must show.
    pub write_keys: crate::ingest::WriteKeys,
    /// Limits of requests and connections.
    pub limits: crate::ingest::Limits,
}

/// `[admin]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Path of the Unix socket, created with mode 0600.
    pub socket: PathBuf,
    /// Loopback address of the web console; port 0 takes a free one.
    pub console: Option<SocketAddr>,
    /// Holds its token, readable and long enough when the configuration was read.
    pub console_token_file: Option<PathBuf>,
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
#[derive(Clone, Debug, PartialEq)]
pub struct Integration {
    /// Unique; letters, digits, `-` and `_`.
    pub name: String,
    /// Where it stands.
    pub origin: Origin,
    /// Which events become which records.
    pub preset: crate::mapping::Preset,
    /// What single events become beside or instead of what the preset says.
    pub events: Vec<crate::mapping::Table>,
    /// Lanes that people are spread over.
    pub lanes: u32,
    /// How its records are delivered.
    pub forward: crate::forward::Settings,
}

/// Where an integration stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In the configuration file.
    File,
    /// In a file of its own, made at run time: see [`stored`].
    Stored {
        /// The file.
        path: PathBuf,
        /// What it says, but its secrets.
        given: Draft,
        /// See [`stored::version`].
        version: String,
    },
}

impl Integration {
    /// Every setting in force, defaults included, but the API key and a proxy's user and password.
    #[must_use]
    pub fn settings(&self) -> Draft {
        stored::settings(&self.effective())
    }

    /// What becomes of its events.
    #[must_use]
    pub fn rules(&self) -> crate::mapping::Rules {
        crate::mapping::Rules::new(self.preset, self.forward.consent.clone())
            .with_tables(self.events.iter().cloned())
    }
}

/// Shows no override: one of them may be the API key (Promise 8).
impl fmt::Debug for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Source")
            .field("path", &self.path)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

impl Source {
    /// The source of a command: its options, and this process's environment.
    #[must_use]
    pub fn of_process(path: Option<PathBuf>, set: Vec<String>) -> Source {
        // A byte that is no UTF-8 becomes U+FFFD, which `overrides` refuses.
        let variables = std::env::vars_os().map(|(name, value)| {
            (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
        });
        Source {
            path,
            set,
            environment: variables
                .filter(|(name, _)| overridden(name).is_some() || Proxy::heeds(name))
                .collect(),
            credentials: std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
        }
    }

    /// The file that is read.
    #[must_use]
    pub fn file(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(FILE))
    }
}

/// Reads and checks a configuration. `running_in`: the state directory of the daemon that reads it again, where its stored
/// integrations are, whatever the file says by now: only a start moves them. `None` at a start: the file says.
///
/// # Errors
/// All faults, not only the first.
pub fn load(source: &Source, running_in: Option<&Path>) -> Result<Config, Faults> {
    let file = source.file();
    let fault = |place: String, message: String| Faults(vec![Fault { place, message }]);
    let bytes = std::fs::read(file).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => {
                ". Name a configuration with -c FILE; `pillarbox demo` needs none"
            }
            _ => "",
        };
        fault(file.display().to_string(), format!("{error}{hint}"))
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes().get(..valid).unwrap_or_default());
        fault(faults::shown(&Place::Byte(valid), file, &text), "not UTF-8".to_owned())
    })?;
    let found = match running_in {
        Some(state_dir) => stored::all(state_dir),
        None => stored::all(&state_dir_of(file, &text, source)),
    };
    parse_beside(file, &text, source, found)
}

/// Reads and checks `text`, the content of `file`, with the overrides of `source`. Opens no file but those of the keys.
#[cfg(any(test, fuzzing))]
pub(crate) fn parse(file: &Path, text: &str, source: &Source) -> Result<Config, Faults> {
    parse_beside(file, text, source, Vec::new())
}

/// Reads and checks `text`, the content of `file`, with the overrides of `source`, beside what was `found` stored.
fn parse_beside(
    file: &Path,
    text: &str,
    source: &Source,
    found: Vec<stored::Found>,
) -> Result<Config, Faults> {
    let mut faults = Collector::new(file, text);
    let overrides = overrides(source, &mut faults);
    let elsewhere: Vec<&str> = found.iter().map(stored::Found::name).collect();
    let mut config = build::build(text, &overrides, &elsewhere, source, faults)?;
    stored::merge(&mut config, found, &overrides, source);
    Ok(config)
}

/// What an operator must be told when others than its owner can read the secrets that stand in the file; no secret is shown.
#[must_use]
pub fn exposed(source: &Source) -> Option<String> {
    exposure::told(source)
}

/// The sockets of a configuration, for commands that only need to reach the daemon: works without the right to read the
/// keys. Falls back to the defaults when there is no file.
#[must_use]
pub fn sockets(source: &Source) -> (PathBuf, PathBuf) {
    let text = std::fs::read_to_string(source.file()).unwrap_or_default();
    let mut ignored = Collector::new(source.file(), &text);
    let overrides = overrides(source, &mut ignored);
    build::sockets(&text, &overrides, ignored)
}

/// The state directory of a configuration, for commands that only need to find the spool. As [`sockets`].
#[must_use]
pub fn state_dir(source: &Source) -> PathBuf {
    let text = std::fs::read_to_string(source.file()).unwrap_or_default();
    state_dir_of(source.file(), &text, source)
}

fn state_dir_of(file: &Path, text: &str, source: &Source) -> PathBuf {
    let mut ignored = Collector::new(file, text);
    let overrides = overrides(source, &mut ignored);
    build::state_dir(text, &overrides, ignored)
}

/// The overrides of a source, in the order in which they apply: environment, then `--set`.
fn overrides(source: &Source, faults: &mut Collector<'_>) -> Vec<Override> {
    let mut overrides = Vec::new();
    for (name, value) in &source.environment {
        if let Some(key) = overridden(name) {
            let key = key.to_ascii_lowercase().replace("__", ".");
            let place = Place::Environment(name.clone());
            overrides.push(Override { key, value: value.clone(), place });
        }
    }
    for set in &source.set {
        if let Some((key, value)) = set.split_once('=') {
            let key = key.trim().to_owned();
            // What is no key may be a secret in the wrong place. An integration's own name may hold digits.
            let ends = [key.split('.').next(), key.rsplit('.').next()];
            let presentable = ends.into_iter().flatten().all(keys::is_presentable);
            let place = Place::Set(if presentable { key.clone() } else { String::new() });
            overrides.push(Override { key, value: value.to_owned(), place });
        } else {
            let message = "must be KEY=VALUE, such as --set spool.sync=500ms";
            faults.add(&Place::Set(String::new()), message);
        }
    }
    overrides.retain(|change| {
        let utf8 = !change.value.contains(char::REPLACEMENT_CHARACTER);
        if !utf8 {
            faults.add(&change.place, "not UTF-8");
        }
        utf8
    });
    overrides
}

/// The key that an environment variable overrides, with `__` for a dot; `None` when it is none of ours.
fn overridden(variable: &str) -> Option<&str> {
    let (prefix, key) = variable.split_at_checked(ENVIRONMENT_PREFIX.len())?;
    prefix.eq_ignore_ascii_case(ENVIRONMENT_PREFIX).then_some(key)
}

impl Config {
    /// The sections in which `other` differs and that only a start reads.
    #[must_use]
    pub fn differs_at_start(&self, other: &Config) -> Vec<String> {
        let Config { state_dir, ingest, admin, spool, integrations: _, set_aside: _ } = self;
        let differs = [
            ("state_dir", *state_dir != other.state_dir),
            ("[ingest]", *ingest != other.ingest),
            ("[admin]", *admin != other.admin),
            ("[spool]", *spool != other.spool),
        ];
        differs
            .into_iter()
            .filter(|(_, differs)| *differs)
            .map(|(name, _)| name.to_owned())
            .collect()
    }

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
        let console = self.admin.console.map_or(String::new(), |at| at.to_string());
        let mut console = format!("console = {}\n", quoted(&console));
        if let Some(file) = &self.admin.console_token_file {
            // Writing into a `String` cannot fail.
            let _ = writeln!(console, "console_token_file = {}", quoted(&file.to_string_lossy()));
        }
        let mut text = format!(
            "state_dir = {}\n\n[ingest]\nsocket = {}\nsocket_mode = \"{:04o}\"\nallow_users = [{}]\nallow_groups = [{}]\nlisten = [{}]\nwrite_keys = [{}]\nmax_request = \"{}\"\nmax_connections = {}\nread_timeout = \"{}\"\n\n\
             [admin]\nsocket = {}\n{console}log = \"{log}\"\n\n\
             [spool]\nsync = \"{sync}\"\nmax_records = {}\nmax_bytes = \"{}\"\nmin_free_disk = \"{}\"\ncache = \"{}\"\nkeep_delivered = {}\nkeep_events = {}\ndedupe_window = {}\nmax_identities = {}\n",
            quoted(&self.state_dir.to_string_lossy()),
            quoted(&self.ingest.socket.to_string_lossy()),
            self.ingest.socket_mode,
            listed(self.ingest.allow_users.iter().map(|name| quoted(name))),
            listed(self.ingest.allow_groups.iter().map(|name| quoted(name))),
            listed(self.ingest.listen.iter().map(|address| format!("\"{address}\""))),
            listed(std::iter::repeat_n("\"********\"".to_owned(), self.ingest.write_keys.len())),
            show_size(limits.request_bytes_max as u64),
            limits.connections_max,
            show_duration(limits.read_timeout),
            quoted(&self.admin.socket.to_string_lossy()),
            spool.records_max,
            show_size(spool.bytes_max),
            show_size(spool.free_disk_min_bytes),
            show_size(spool.cache_bytes),
            spool.keep_delivered,
            spool.keep_events,
            spool.dedupe_window,
            spool.identities_max,
        );
        for integration in &self.integrations {
            text.push('\n');
            if let Origin::Stored { path, .. } = &integration.origin {
                // Writing into a `String` cannot fail.
                let _ = writeln!(text, "# stored in {}", path.to_string_lossy().escape_debug());
            }
            text.push_str(&integration.effective());
        }
        text
    }
}

impl Integration {
    /// What is in force, as TOML; the key is shown as `***`.
    fn effective(&self) -> String {
        use units::show_duration;
        let Integration { name, origin: _, preset, events, lanes, forward } = self;
        let preset = preset.as_str();
        let mut text = format!(
            "[[integration]]\nname = {name:?}\napi_key = \"***\"\nendpoint = {}\npreset = \"{preset}\"\nconsent = [{}]\nbatch = {}\nlinger = \"{}\"\nlanes = {lanes}\n\
             timeout = \"{}\"\nretry = {{ initial = \"{}\", max = \"{}\" }}\nstorm_limit = {}\nmax_pushes_per_second = {}\npoll_errors = \"{}\"\nproxy = {}\n",
            quoted(&forward.endpoint.to_string()),
            listed(forward.consent.iter().map(|category| quoted(category))),
            forward.batch_records_max,
            show_duration(forward.linger),
            show_duration(forward.timeout),
            show_duration(forward.retry.initial),
            show_duration(forward.retry.max),
            forward.storm_limit,
            forward.pace.pushes_per_second_max(),
            show_duration(forward.poll_errors),
            quoted(&forward.way.proxy.as_ref().map_or(way::DIRECT.to_owned(), Proxy::to_string)),
        );
        if let Some(authorities) = &forward.way.authorities {
            // Writing into a `String` cannot fail.
            let _ = writeln!(text, "ca_file = {}", quoted(&authorities.path.to_string_lossy()));
        }
        events::write(&mut text, events);
        text
    }
}

/// What stands between the brackets of an array.
fn listed(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// `text` as TOML writes it.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
