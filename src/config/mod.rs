//! File + environment + overrides → one checked [`Config`]; the only place with defaults.

use std::path::PathBuf;

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
    /// Preset and categories of consent.
    pub preset: crate::mapping::Preset,
    /// Categories that must all be granted; empty: consent is not asked.
    pub consent: Vec<String>,
    /// How its records are delivered.
    pub forward: crate::forward::Settings,
}
