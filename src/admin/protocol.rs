//! PURE. What daemon and commands say to each other.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::clock::UnixMillis;
use crate::forward::Report;
use crate::ingest::Counts;
use crate::spool::{LaneStats, Origin, QuarantineId};

/// The daemon as a whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// When it started.
    pub started_at: UnixMillis,
    /// The daemon's clock when it answered.
    pub now: UnixMillis,
    /// Why producers are refused; `None` while they are served.
    pub refusing: Option<String>,
    /// Entries in the quarantine.
    pub quarantined: u64,
    /// What came in since the start.
    pub ingest: Counts,
    /// Every integration that has a lane.
    pub integrations: Vec<IntegrationStatus>,
}

/// One integration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IntegrationStatus {
    /// Its name.
    pub name: String,
    /// Where it is delivered; `None` when it is no longer configured and only keeps its queue.
    pub endpoint: Option<String>,
    /// What is in its lane, and how the rest of it ended.
    pub lane: LaneStats,
    /// What its forwarder does.
    pub report: Report,
}

/// An entry of the quarantine.
#[derive(Debug, Serialize, Deserialize)]
pub struct QuarantineEntry {
    /// Its number.
    pub id: QuarantineId,
    /// A short code.
    pub reason: String,
    /// What the answer or the parser said.
    pub detail: String,
    /// The answer's status.
    pub status: Option<u16>,
    /// Where it came from.
    pub origin: Origin,
    /// When it was set aside.
    pub at: UnixMillis,
    /// Bytes of its body.
    pub bytes: usize,
    /// The `id` of the record or `messageId` of the event, as far as it can be read.
    pub record_id: Option<String>,
    /// The record or event, byte for byte; only when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Box<RawValue>>,
}

/// Which entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Selection {
    /// These.
    Ids(Vec<QuarantineId>),
    /// Every one that is there when the request arrives.
    All(bool),
}

/// What a retry or a drop came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// Entries that left the quarantine.
    pub released: u64,
    /// Entries that stayed, with the reason.
    pub kept: Vec<Kept>,
}

/// An entry that stayed in the quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its number.
    pub id: QuarantineId,
    /// Why.
    pub message: String,
}

/// The body of every answer that is no 200.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// A short code.
    pub code: String,
    /// What is wrong.
    pub message: String,
}
