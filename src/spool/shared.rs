//! What the handles and the committer share: the store, the published state of the lanes, the failure.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use tokio::sync::watch;

use super::Options;
use super::entry::LaneId;
use super::error::AppendError;
use super::figures::COMMIT_BOUNDS;
use super::health::Health;
use super::identity::{Cache, Identity};
use super::log::Log;
use super::log::segment::GROW_BYTES;
use super::panics;
use super::store::{LaneOnDisk, Store, StoreError, Tallies};
use super::unread::Unread;
use crate::histogram::Histogram;

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    /// As the spool was opened.
    pub(super) options: Options,
    /// The generation's directory.
    pub(super) generation: PathBuf,
    /// Everything that has a key.
    pub(super) store: Store,
    /// The records.
    pub(super) log: Arc<Log>,
    /// Recently used identities.
    pub(super) identities: Cache,
    lanes: RwLock<BTreeMap<LaneId, Arc<LaneView>>>,
    quarantine_entries: AtomicU64,
    quarantine_bytes: AtomicU64,
    /// Entries that were ever added: their numbers have no gaps.
    quarantine_added: AtomicU64,
    /// How long commits take that somebody waits for.
    pub(super) commits: Histogram,
    /// The last group found no room in the log.
    pub(super) without_room: AtomicBool,
    /// The segment under way holds what was erased, and cannot be ended as long as the next has no room.
    pub(super) erasure_waits: AtomicBool,
    /// Answers to appends that were not taken yet.
    pub(super) unread: Arc<Unread>,
    /// Whether it can go on.
    pub(super) health: Health,
}

/// A lane as the last flush left it.
#[derive(Debug)]
pub(super) struct LaneView {
    /// The integration's name.
    pub(super) integration: String,
    /// Which of the integration's lanes.
    pub(super) number: u32,
    /// Newest seq; wakes the forwarder.
    pub(super) newest: watch::Sender<u64>,
    /// The cursor; tells who waits for the end of records.
    pub(super) cursor: watch::Sender<u64>,
    counted: Mutex<Counted>,
}

/// The numbers of a lane, all of the same moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    /// Newest seq.
    pub(super) newest: u64,
    /// Bytes of all records up to it.
    pub(super) bytes: u64,
    /// How the settled ones ended.
    pub(super) tallies: Tallies,
}

impl LaneView {
    /// The view of a lane.
    #[must_use]
    pub(super) fn new(disk: &LaneOnDisk) -> LaneView {
        LaneView {
            integration: disk.integration.clone(),
            number: disk.number,
            newest: watch::Sender::new(disk.newest),
            cursor: watch::Sender::new(disk.tallies.cursor().0),
            counted: Mutex::new(Counted::of(disk)),
        }
    }

    /// The lane's numbers.
    pub(super) fn counted(&self) -> Counted {
        *self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    fn of(disk: &LaneOnDisk) -> Counted {
        Counted { newest: disk.newest, bytes: disk.bytes, tallies: disk.tallies }
    }
}

impl Shared {
    /// The state over an open store.
    #[must_use]
    pub(super) fn new(
        options: Options,
        generation: PathBuf,
        (store, log): (Store, Log),
        identities: Cache,
        lanes: &[LaneOnDisk],
        (entries, bytes, newest): (u64, u64, u64),
        health: Health,
    ) -> Shared {
        let lanes = lanes.iter().map(|disk| (disk.lane, Arc::new(LaneView::new(disk)))).collect();
        Shared {
            options,
            generation,
            store,
            log: Arc::new(log),
            identities,
            lanes: RwLock::new(lanes),
            quarantine_entries: AtomicU64::new(entries),
            quarantine_bytes: AtomicU64::new(bytes),
            quarantine_added: AtomicU64::new(newest),
            commits: Histogram::new(&COMMIT_BOUNDS),
            without_room: AtomicBool::new(false),
            erasure_waits: AtomicBool::new(false),
            unread: Arc::default(),
            health,
        }
    }

    // ── lanes ──

    /// The lanes, in the order of their ids.
    pub(super) fn lanes(&self) -> Vec<(LaneId, Arc<LaneView>)> {
        let lanes = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
        lanes.iter().map(|(lane, view)| (*lane, view.clone())).collect()
    }

    /// One lane.
    ///
    /// # Panics
    /// When `lane` was not given by this spool: the caller's bug.
    pub(super) fn lane(&self, lane: LaneId) -> Arc<LaneView> {
        let lanes = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
        lanes.get(&lane).expect("lane ids come from `Spool::lane`").clone()
    }

    /// Makes a new lane known.
    pub(super) fn add_lane(&self, lane: LaneId, view: LaneView) {
        self.lanes.write().unwrap_or_else(PoisonError::into_inner).insert(lane, Arc::new(view));
    }

    /// Publishes the numbers of a lane after a flush.
    pub(super) fn publish_lane(&self, disk: &LaneOnDisk) {
        let view = self.lane(disk.lane);
        *view.counted.lock().unwrap_or_else(PoisonError::into_inner) = Counted::of(disk);
        for (channel, now) in [(&view.newest, disk.newest), (&view.cursor, disk.tallies.cursor().0)]
        {
            channel.send_if_modified(|before| std::mem::replace(before, now) != now);
        }
    }

    // ── limits ──

    /// Refuses when `records` and `bytes` in the spool would be too many (Promise 7).
    pub(super) fn full(&self, records: u64, bytes: u64) -> Result<(), AppendError> {
        let full = |queued, limit, unit| Err(AppendError::Full { queued, limit, unit });
        if records > self.options.records_max {
            return full(records, self.options.records_max, "records");
        }
        if bytes > self.options.bytes_max {
            return full(bytes, self.options.bytes_max, "bytes");
        }
        Ok(())
    }

    /// Refuses when the disk is low (Promise 7).
    pub(super) fn disk_low(&self) -> Result<(), AppendError> {
        let min = self.options.free_disk_min_bytes;
        match self.free_bytes() {
            Ok(free) if free < min => Err(AppendError::DiskLow { free, min }),
            Ok(_) => Ok(()),
            Err(errno) => {
                tracing::warn!(error = %errno, "the free disk space cannot be read: the append is tried all the same");
                Ok(())
            }
        }
    }

    /// Refuses when the log found no room, as long as there still is none.
    pub(super) fn no_room(&self) -> Result<(), AppendError> {
        if self.without_room.load(Ordering::Acquire) && !self.has_room(GROW_BYTES) {
            return Err(AppendError::DiskFull("the log cannot grow".to_owned()));
        }
        Ok(())
    }

    /// Whether `bytes` more leave on the disk what must stay free.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        let wanted = bytes.saturating_add(self.options.free_disk_min_bytes);
        self.free_bytes().is_ok_and(|free| free >= wanted)
    }

    /// What the disk has free for this process.
    pub(super) fn free_bytes(&self) -> rustix::io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.options.directory)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Entries and stored bytes of the quarantine.
    pub(super) fn quarantine_size(&self) -> (u64, u64) {
        (
            self.quarantine_entries.load(Ordering::Acquire),
            self.quarantine_bytes.load(Ordering::Acquire),
        )
    }

    /// Entries that were ever added.
    pub(super) fn quarantine_added(&self) -> u64 {
        self.quarantine_added.load(Ordering::Acquire)
    }

    /// Counts entries that were added.
    pub(super) fn quarantine_grew(&self, entries: u64, bytes: u64) {
        self.quarantine_added.fetch_add(entries, Ordering::AcqRel);
        self.quarantine_entries.fetch_add(entries, Ordering::AcqRel);
        self.quarantine_bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Counts entries that were removed.
    pub(super) fn quarantine_shrank(&self, entries: u64, bytes: u64) {
        self.quarantine_entries.fetch_sub(entries, Ordering::AcqRel);
        self.quarantine_bytes.fetch_sub(bytes, Ordering::AcqRel);
    }

    // ── identities ──

    /// What is stored for `key`, from the cache or the disk. May block on the disk.
    pub(super) fn identity(&self, key: &str) -> Result<Option<Identity>, StoreError> {
        if let Some(identity) = self.identities.get(key) {
            return Ok(identity);
        }
        let epoch = self.identities.epoch();
        let identity = self.store.identity(key)?;
        self.identities.fill(epoch, key.to_owned(), identity.clone());
        Ok(identity)
    }

    /// The contents of identities that were `found` for events.
    pub(super) fn used(&self, keys: &[String], found: Vec<Option<Identity>>) -> Vec<Option<Bytes>> {
        self.identities.used(keys, &found);
        found.into_iter().map(|identity| Some(identity?.json)).collect()
    }

    // ── failure ──

    /// Takes a step of the engine's, unless the spool has failed; its failure or panic is the spool's, for good.
    pub(super) fn guarded(
        &self,
        step: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(), AppendError> {
        if let Some(reason) = self.health.failure() {
            return Err(AppendError::Failed(reason));
        }
        let reason = match catch_unwind(AssertUnwindSafe(step)) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.0,
            Err(panic) => panics::told(panic.as_ref()),
        };
        Err(self.fail(reason))
    }

    /// Fails the spool, for good.
    pub(super) fn fail(&self, reason: String) -> AppendError {
        tracing::error!(%reason, "the spool failed: nothing is accepted until a restart");
        self.health.fail(&reason);
        AppendError::Failed(reason)
    }
}
