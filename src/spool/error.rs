//! Why the spool says no.

use std::path::{Path, PathBuf};

use super::entry::{LaneId, QuarantineId, Seq};

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
    /// The file system has no room left: try later.
    #[error("there is no room on the spool's disk: {0}")]
    DiskFull(String),
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
    #[error("{path}: {what}. {}", way_out(.path))]
    Damaged {
        /// The file at fault.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// There is no spool to look at.
    #[error("there is no spool in {path}")]
    Absent {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// No room for a copy.
    #[error(
        "{path} has room for {free} bytes, a copy of the spool needs {needed}: name another folder with --temp-dir"
    )]
    NoRoom {
        /// Where the copy was to lie.
        path: PathBuf,
        /// Bytes that the copy needs.
        needed: u64,
        /// Bytes free.
        free: u64,
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

/// The error and what caused it, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    told
}

/// What to do about damage in `path`, which lies below `state_dir/spool`.
#[must_use]
pub(super) fn way_out(path: &Path) -> String {
    let spool =
        path.ancestors().find(|folder| folder.file_name().is_some_and(|name| name == "spool"));
    let state = spool.and_then(Path::parent).map_or("DIR".into(), |state| state.to_string_lossy());
    format!(
        "Nothing was removed: copy its folder away before anything else; `pillarbox spool verify --state-dir {state}` tells all \
         that is damaged, `pillarbox spool salvage --state-dir {state} --output salvaged.ndjson` reads what is left"
    )
}
