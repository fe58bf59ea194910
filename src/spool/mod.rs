//! Everything on disk.
//!
//! The spool stores bytes: it knows neither events nor upstream. Each lane is a sequence of records
//! numbered by contiguous [`Seq`]s from 1, a cursor (the first seq not yet settled) and tallies of how
//! its records ended. Beside the lanes it keeps the quarantine, the identities, the dedupe window and one
//! small entry for each push that settled records.
//!
//! One committer owns all writes. It drains the waiting requests, packs their records into chunks,
//! inserts them, flushes once and answers them all; a receipt therefore means a true fdatasync.
//! Reading (`peek`) sees only what a flush has made durable.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::clock::UnixMillis;

/// A record's place in its lane, from 1, contiguous, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seq(pub u64);

/// One strictly ordered sequence of records of one integration, as the spool numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LaneId(pub u32);

/// The number of an entry in the quarantine, from 1, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QuarantineId(pub u64);

/// When an append is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// After a flush of its own group: an answer means fdatasync has returned.
    Always,
    /// At once; a flush follows within the interval. A power cut may take what was answered since the last.
    Every(Duration),
}

/// Who runs the committer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drive {
    /// A thread of its own: the shortest way from a request to its flush.
    Thread,
    /// A task that commits in `spawn_blocking`, which keeps a paused clock from jumping during a flush.
    Task,
}

/// How the spool is opened; every limit is checked by the configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// `state_dir/spool`; created when absent, with its parents.
    pub directory: PathBuf,
    /// See [`SyncMode`].
    pub sync: SyncMode,
    /// Target size of the read cache.
    pub cache_bytes: u64,
    /// Records that may be queued, over all lanes.
    pub records_max: u64,
    /// Record bytes that may be queued, over all lanes; the disk use is up to about twice that.
    pub bytes_max: u64,
    /// Appends are refused while the file system has less free than this.
    pub free_disk_min_bytes: u64,
    /// Settled records kept in each lane for the event debugger.
    pub keep_delivered: u64,
    /// Most recent message ids remembered per scope.
    pub dedupe_window: usize,
}

/// What identifies an event for deduplication: a scope (the integration) and a digest of its message id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Once {
    /// Windows are kept per scope.
    pub scope: u32,
    /// The first 16 bytes of the SHA-256 of the message id.
    pub digest: [u8; 16],
}

impl Once {
    /// The key of `message_id` in `scope`.
    #[must_use]
    pub fn new(scope: u32, message_id: &str) -> Once {
        let _ = (scope, message_id);
        unimplemented!()
    }
}

/// What one request wants made durable, whole or not at all. `items` keep their order in their lanes.
#[derive(Clone, Debug, Default)]
pub struct Append {
    /// Records and quarantine entries, in the order of arrival.
    pub items: Vec<Item>,
    /// Traits to merge into stored identities, applied before the items: (key, JSON object).
    pub identities: Vec<(String, Bytes)>,
    /// Quarantine entries that this append replaces (retry) or removes (drop). When one of them no longer
    /// exists nothing is stored.
    pub releases: Vec<QuarantineId>,
}

/// One thing to store.
#[derive(Clone, Debug)]
pub struct Item {
    /// With it, the item is skipped when its digest is still in the window.
    pub once: Option<Once>,
    /// Where it goes.
    pub content: Content,
}

/// Where an item goes.
#[derive(Clone, Debug)]
pub enum Content {
    /// To the end of a lane. At most [`RECORD_BYTES_MAX`].
    Record {
        /// The lane.
        lane: LaneId,
        /// The record's `@type`: a push never mixes two.
        record_type: &'static str,
        /// The exact JSON bytes that will be pushed.
        record: Bytes,
    },
    /// To the quarantine.
    Quarantine(Quarantined),
}

/// The largest record the store may hold: see DESIGN.md section 9 on blob files.
pub const RECORD_BYTES_MAX: usize = 60_000;

/// Something kept aside with its reason, until an operator retries or drops it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// What it was.
    pub origin: Origin,
    /// A short code: `rejected`, `too_large`, `invalid_event`, …
    pub reason: String,
    /// What the answer or the parser said, at most [`DETAIL_BYTES_MAX`].
    pub detail: String,
    /// The status of the answer, for a record that upstream refused.
    pub status: Option<u16>,
    /// When it was set aside.
    pub at: UnixMillis,
    /// The exact bytes of the record or event.
    pub body: Vec<u8>,
}

/// The longest text kept with a quarantine entry or a delivery.
pub const DETAIL_BYTES_MAX: usize = 4096;

/// Where a quarantined body came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// A record of a lane that upstream refused.
    Record {
        /// The lane it was in.
        lane: LaneId,
        /// The integration's name.
        integration: String,
        /// Its seq there.
        seq: Seq,
        /// Its `@type`.
        record_type: String,
    },
    /// An event of a batch that could not become a record.
    Event {
        /// The route's or the item's type: `track`, `page`, …; empty when unknown.
        kind: String,
        /// The integration whose mapping refused it; `None` when no integration could read it.
        integration: Option<String>,
    },
}

/// What an append came to. All of it is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Indices into `Append::items` that were skipped because their digest was in the window.
    pub duplicates: Vec<usize>,
}

/// Why nothing of an append was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The queue's limit is reached: try later.
    #[error("the spool is full: {queued} of {limit} {unit} queued")]
    Full {
        /// How much is queued.
        queued: u64,
        /// The configured limit.
        limit: u64,
        /// `records` or `bytes`.
        unit: &'static str,
    },
    /// The file system has too little room: try later.
    #[error("{free} bytes free on the spool's disk, less than min_free_disk ({min})")]
    DiskLow {
        /// Bytes free.
        free: u64,
        /// The configured minimum.
        min: u64,
    },
    /// A write or a flush failed: nothing is acknowledged any more, the daemon must restart.
    #[error("the spool failed and accepts nothing until a restart: {0}")]
    Failed(String),
    /// The spool was closed.
    #[error("the spool is closed")]
    Closed,
    /// A quarantine entry to release is gone.
    #[error("quarantine entry {} no longer exists", .0.0)]
    Gone(QuarantineId),
}

/// One record as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the lane.
    pub seq: Seq,
    /// Its `@type`.
    pub record_type: std::sync::Arc<str>,
    /// The exact bytes that were appended.
    pub record: Bytes,
}

/// Why entries could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// A chunk is missing or damaged. Nothing after it can be trusted to be in order.
    #[error("the spool is damaged at lane {} seq {}: {what}", .lane.0, .seq.0)]
    Damaged {
        /// The lane.
        lane: LaneId,
        /// The first seq that cannot be read.
        seq: Seq,
        /// What was found.
        what: String,
    },
    /// The store refused to read.
    #[error("read the spool: {0}")]
    Failed(String),
}

/// How the oldest records of a lane ended, in one step that is durable when it returns.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The lane.
    pub lane: LaneId,
    /// The first of the settled records: must be the lane's cursor.
    pub first: Seq,
    /// How many, from `first` on.
    pub records: u64,
    /// Their common end.
    pub end: End,
    /// Copies for the quarantine, durable before the cursor passes the records.
    pub copies: Vec<Quarantined>,
    /// The push that brought it about, for the event debugger.
    pub delivery: Option<Delivery>,
}

/// How a record leaves the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// Upstream answered 202.
    Delivered,
    /// Set aside with its reason.
    Quarantined,
    /// The person's consent was revoked.
    Withheld,
    /// Erased on request.
    Erased,
}

/// One push that settled records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// First settled seq.
    pub first: Seq,
    /// Settled records from `first` on.
    pub records: u64,
    /// How they ended.
    pub end: End,
    /// The answer's status.
    pub status: u16,
    /// The attempt that was answered, from 1.
    pub attempt: u32,
    /// When the push began.
    pub sent_at: UnixMillis,
    /// When the answer had arrived.
    pub answered_at: UnixMillis,
    /// The answer's body, at most [`DETAIL_BYTES_MAX`].
    pub answer: String,
}

/// The state of a lane as the last flush left it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneStats {
    /// The newest seq; 0 when the lane never held one.
    pub newest: u64,
    /// The first seq that is not settled.
    pub cursor: u64,
    /// Records not settled.
    pub queued_records: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// When the oldest of them was committed.
    pub oldest_at: Option<UnixMillis>,
    /// Records settled as delivered, since the lane began.
    pub delivered: u64,
    /// Records settled as quarantined.
    pub quarantined: u64,
    /// Records settled as withheld.
    pub withheld: u64,
    /// Records settled as erased.
    pub erased: u64,
}

/// The spool's handle: cheap to clone; reading and writing may be done from any task.
#[derive(Clone, Debug)]
pub struct Spool {}

/// Why the spool was not opened. Nothing was changed on disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the lock.
    #[error("{path} is in use by another process{holder}: stop it first")]
    Locked {
        /// The spool's directory.
        path: PathBuf,
        /// ` (pid 123)` when known.
        holder: String,
    },
    /// fdatasync does not reach the disk as promised.
    #[error("the replacement of sync_file_range is not in force: a flush would not be durable")]
    NotDurable,
    /// The store is damaged.
    #[error(
        "{path}: {what}. The spool was left as it is; `pillarbox spool salvage` writes what is readable"
    )]
    Damaged {
        /// The file at fault.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The operating system refused.
    #[error("{doing} {path}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl Spool {
    /// Opens or creates the spool. Blocks: call it before the runtime is busy, or in `spawn_blocking`.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(options: Options, drive: Drive) -> Result<Spool, OpenError> {
        let _ = (options, drive);
        unimplemented!()
    }

    /// The lane `number` of `integration`, made durable when it is new.
    ///
    /// # Errors
    /// As [`Spool::append`].
    pub async fn lane(&self, integration: &str, number: u32) -> Result<LaneId, AppendError> {
        let _ = (integration, number);
        unimplemented!()
    }

    /// Stores `append` whole, or nothing of it (Promises 1 and 2).
    ///
    /// # Errors
    /// See [`AppendError`].
    /// # Cancel safety
    /// Dropping the future may leave the append stored without a receipt: the producer re-sends.
    pub async fn append(&self, append: Append) -> Result<Receipt, AppendError> {
        let _ = append;
        unimplemented!()
    }

    /// The durable records of `lane` from `from` on, in order and without a gap: at most `records_max`, and
    /// at most `bytes_max` in all (but at least one). Empty when there is none.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn peek(
        &self,
        lane: LaneId,
        from: Seq,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        let _ = (lane, from, records_max, bytes_max);
        unimplemented!()
    }

    /// Moves the cursor of a lane past `settlement.records`.
    ///
    /// # Errors
    /// [`AppendError::Failed`] or [`AppendError::Closed`]; limits never refuse a settlement.
    /// # Panics
    /// When `first` is not the cursor: the caller's bug.
    pub async fn settle(&self, settlement: Settlement) -> Result<(), AppendError> {
        let _ = settlement;
        unimplemented!()
    }

    /// The newest durable seq of `lane`, as a channel: wakes the forwarder after each commit.
    #[must_use]
    pub fn newest(&self, lane: LaneId) -> watch::Receiver<u64> {
        let _ = lane;
        unimplemented!()
    }

    /// The cursor of `lane`.
    #[must_use]
    pub fn cursor(&self, lane: LaneId) -> Seq {
        let _ = lane;
        unimplemented!()
    }

    /// The lanes known to the spool, with their integration's name and number, in the order of their ids.
    #[must_use]
    pub fn lanes(&self) -> Vec<(LaneId, String, u32)> {
        unimplemented!()
    }

    /// The numbers of `lane`. Reads one chunk for the age of the oldest record.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn stats(&self, lane: LaneId) -> Result<LaneStats, ReadError> {
        let _ = lane;
        unimplemented!()
    }

    /// Whether an append would be refused now, and why: the health of the daemon.
    ///
    /// # Errors
    /// What [`Spool::append`] would return.
    pub fn accepting(&self) -> Result<(), AppendError> {
        unimplemented!()
    }

    /// The stored traits (a JSON object) of each key, in the order of `keys`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn identities(&self, keys: Vec<String>) -> Result<Vec<Option<Bytes>>, ReadError> {
        let _ = keys;
        unimplemented!()
    }

    /// Up to `limit` quarantine entries with ids of at least `from`, oldest first.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn quarantine(
        &self,
        from: QuarantineId,
        limit: usize,
    ) -> Result<Vec<(QuarantineId, Quarantined)>, ReadError> {
        let _ = (from, limit);
        unimplemented!()
    }

    /// How many entries the quarantine holds.
    #[must_use]
    pub fn quarantine_count(&self) -> u64 {
        unimplemented!()
    }

    /// Resolves when the spool has failed for good, with the reason: the daemon must end.
    pub async fn failed(&self) -> String {
        unimplemented!()
    }

    /// Commits what waits, closes the store and releases the lock. Later calls return `Closed`.
    pub async fn close(&self) {
        unimplemented!()
    }
}
