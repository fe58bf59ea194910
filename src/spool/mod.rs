//! Everything on disk.
//!
//! The spool stores bytes: it knows neither events nor upstream. Each lane is a sequence of records
//! numbered by contiguous [`Seq`]s from 1, a cursor (the first seq not yet settled) and tallies of how
//! its records ended. Beside the lanes it keeps the quarantine, the identities, the dedupe window and one
//! small entry for each push that settled records.
//!
//! One committer owns all writes. It drains the waiting requests, packs what they bring into one frame, appends that
//! to the log, flushes once and answers them all; a receipt therefore means a true fdatasync. Records stay in the log
//! until they are settled; everything that has a key is in the store (sled), which follows the log. Reading (`peek`) sees
//! only what a flush has made durable.
//!
//! | file | owns |
//! |---|---|
//! | `entry`, `error` | the words of the interface |
//! | `chunk`, `sealed` (PURE) | records and small values as bytes |
//! | `dedupe` (PURE) | the window of recent message ids |
//! | `consent`, `erasure` (PURE) | what is remembered of a person's consent, and of who was erased |
//! | `log` | the log: frames, segments, reading and writing them, recovery |
//! | `store`, `values`, `quarantine` | the store: sled's trees as typed reads and writes |
//! | `committer`, `work`, `unread` | group commit: the one writer, what it is asked and answers, what it keeps in step |
//! | `shared`, `identity` | what handles and committer share |
//! | `health` | its failure, and whether the disk answers |
//! | `figures` | what is counted of the whole |
//! | `peek` | the records of a lane, in order |
//! | `people` | what is remembered of people, and which records must not be sent |
//! | `opening` | what is found on disk, checked and brought together |
//! | `generation`, `manifest` | directories, lock, fsyncs; what must at least be there |
//! | `offline` | a spool that no daemon runs on: verify, export, salvage |
//! | `panics` | what the engine panics with while it opens |
//! | `durable` | makes sled's flush a true fdatasync |

pub mod chunk;
mod committer;
mod consent;
mod dedupe;
pub mod durable;
mod entry;
mod erasure;
mod error;
mod figures;
mod generation;
mod health;
mod identity;
mod log;
mod manifest;
pub mod offline;
mod opening;
mod panics;
mod peek;
mod people;
mod quarantine;
mod sealed;
mod shared;
mod store;
mod unread;
mod values;
mod work;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

pub use self::dedupe::Once;
pub use self::entry::{
    Append, Consent, Content, DETAIL_BYTES_MAX, Delivery, ENTRY_BYTES_MAX, EVENT_BYTES_MAX, End,
    Entry, Item, LaneId, LaneStats, Origin, PersonKey, PersonKeys, QuarantineId, Quarantined,
    RECORD_BYTES_MAX, Receipt, Seq, Settlement,
};
pub use self::error::{AppendError, OpenError, ReadError};
pub use self::figures::Figures;

#[cfg(any(test, fuzzing))]
pub(crate) use self::log::frame;

use self::committer::{Committer, Driver, Keeper};
use self::health::Health;
use self::identity::Cache;
use self::log::{Prepared, Syncer, Writer};
use self::opening::Recovered;
use self::shared::Shared;
use self::work::{WAITING_MAX, Work};

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `state_dir/spool`; created when absent, with its parents.
    pub directory: PathBuf,
    /// See [`SyncMode`].
    pub sync: SyncMode,
    /// Target size of the read cache.
    pub cache_bytes: u64,
    /// Records that may be queued, over all lanes.
    pub records_max: u64,
    /// Bytes of records and their events that may be queued, over all lanes.
    pub bytes_max: u64,
    /// Appends are refused while the file system has less free than this.
    pub free_disk_min_bytes: u64,
    /// Settled records kept in each lane for the event debugger.
    pub keep_delivered: u64,
    /// What [`Spool::keeps_events`] says: those who append hand over the event with its record.
    pub keep_events: bool,
    /// Most recent message ids remembered per scope.
    pub dedupe_window: usize,
    /// Identities and denials of consent remembered; those not used for the longest time go first, denials last.
    pub identities_max: u64,
}

/// The spool's handle: cheap to clone; reading and writing may be done from any task.
#[derive(Clone, Debug)]
pub struct Spool {
    shared: Arc<Shared>,
    driver: Arc<Driver>,
    work: mpsc::Sender<Work>,
    /// Closed when the committer has ended.
    ended: watch::Receiver<()>,
    _lock: Arc<generation::Lock>,
}

impl Spool {
    /// Opens or creates the spool. Blocks: call it before the runtime is busy, or in `spawn_blocking`.
    ///
    /// With [`Drive::Task`] it must be called within a tokio runtime.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(options: Options, drive: Drive) -> Result<Spool, OpenError> {
        let directory = options.directory.clone();
        generation::create_directory(&directory)?;
        let lock = Arc::new(generation::lock(&directory)?);
        let Recovered { path, store, log, lanes, windows, quarantine, remembered, erased, noted } =
            Recovered::of(&options)?;
        let newest_set_aside = quarantine.2;
        let (log, last, active) = (log.log, log.last, log.active);
        let cache = Cache::new(remembered.newest, erased.is_some(), options.identities_max);
        let threads = || generation::failed("start the threads of", &directory);
        let health = Health::start(drive == Drive::Thread).map_err(threads())?;
        let shared = Shared::new(options, path, (store, log), cache, &lanes, quarantine, health);
        let shared = Arc::new(shared);
        let prepared = Prepared::default();
        let (failing, following) = (shared.clone(), shared.clone());
        let started = Keeper::start(shared.clone(), prepared.clone(), noted).and_then(|keeper| {
            // A failure is told to everyone by itself.
            let beside = move || drop(following.guarded(|| following.store.catch_up()));
            let fail = move |error: &_| drop(failing.fail(format!("flush the log: {error}")));
            Ok((keeper, Syncer::start(beside, fail)?))
        });
        let (keeper, syncer) = started.map_err(threads())?;
        let writer = Writer::new(shared.log.clone(), active, last, prepared, syncer);
        let found = (lanes, windows, newest_set_aside, remembered, erased.unwrap_or_default());
        let committer = Committer::new(shared.clone(), writer, keeper, found);
        let (work, waiting) = mpsc::channel(WAITING_MAX);
        let (end, ended) = watch::channel(());
        let driver = Arc::new(Driver::new(shared.clone(), committer));
        let looped = driver.clone();
        let run = async move {
            looped.run(waiting, drive).await;
            drop(end);
        };
        match drive {
            Drive::Task => drop(tokio::spawn(run)), // ends with `close` or the last handle
            Drive::Thread => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
                let runtime =
                    runtime.map_err(generation::failed("start the committer of", &directory))?;
                let spawned = std::thread::Builder::new()
                    .name("committer".into())
                    .spawn(move || runtime.block_on(run));
                spawned.map_err(generation::failed("start the committer of", &directory))?;
            }
        }
        Ok(Spool { shared, driver, work, ended, _lock: lock })
    }

    /// The lane `number` of `integration`, made durable when it is new.
    ///
    /// # Errors
    /// As [`Spool::append`].
    pub async fn lane(&self, integration: &str, number: u32) -> Result<LaneId, AppendError> {
        self.ask(|to| Work::Lane(integration.to_owned(), number, to)).await
    }

    /// Stores `append` whole, or nothing of it (Promises 1 and 2).
    ///
    /// # Errors
    /// See [`AppendError`].
    /// # Cancel safety
    /// It is handed over by the call, unless the committer is so far behind that it has to wait for a place. Dropping the future
    /// may leave it stored without a receipt: the producer re-sends.
    /// # Panics
    /// When a record is larger than [`RECORD_BYTES_MAX`], its event than [`EVENT_BYTES_MAX`], or its lane unknown: the
    /// caller's bug.
    pub fn append(
        &self,
        append: Append,
    ) -> impl Future<Output = Result<Receipt, AppendError>> + Send {
        let asked = self.ask(|to| Work::Append(append, to));
        async move { asked.await.map(|appended| appended.receipt) }
    }

    /// Moves the cursor of a lane past `settlement.records`. A kill does not undo it; a power cut may, unless it has copies.
    ///
    /// # Errors
    /// [`AppendError::Failed`] or [`AppendError::Closed`]; limits never refuse a settlement. When `first` is not the
    /// cursor the spool fails: the caller's bug must not lose records.
    pub async fn settle(&self, settlement: Settlement) -> Result<(), AppendError> {
        if self.shared.health.callers_may_wait() {
            // A task that this worker is to run next goes first: while the worker waits for the disk nobody else could run it.
            tokio::task::yield_now().await;
        }
        let (to, answer) = oneshot::channel();
        if let Some(work) = self.driver.settle(Work::Settle(settlement, to)) {
            self.hand_over(work).await?;
        }
        self.answered(answer).await
    }

    /// Resolves once the committer has come to this request: a sign that it goes on. Writes nothing.
    ///
    /// # Errors
    /// [`AppendError::Failed`] or [`AppendError::Closed`].
    pub async fn probe(&self) -> Result<(), AppendError> {
        self.ask(Work::Probe).await
    }

    /// Hands work over at once where there is a place for it, so that what waits for the answer holds nothing of the work.
    fn ask<T: Send>(
        &self,
        work: impl FnOnce(oneshot::Sender<Result<T, AppendError>>) -> Work,
    ) -> impl Future<Output = Result<T, AppendError>> + Send {
        let (to, answer) = oneshot::channel();
        let handed = self.hand_over(work(to));
        async move {
            handed.await?;
            self.answered(answer).await
        }
    }

    fn hand_over(&self, work: Work) -> impl Future<Output = Result<(), AppendError>> + Send {
        let waits = match self.work.try_send(work) {
            Ok(()) => Ok(None),
            Err(TrySendError::Closed(_)) => Err(self.closed()),
            // In a box: futures that hold it for a case that is rare would all be larger.
            Err(TrySendError::Full(work)) => Ok(Some(Box::pin(self.work.send(work)))),
        };
        async move {
            match waits? {
                Some(sent) => sent.await.map_err(|_| self.closed()),
                None => Ok(()),
            }
        }
    }

    async fn answered<T>(
        &self,
        answer: oneshot::Receiver<Result<T, AppendError>>,
    ) -> Result<T, AppendError> {
        answer.await.unwrap_or_else(|_| Err(self.closed()))
    }

    fn closed(&self) -> AppendError {
        self.shared.health.failure().map_or(AppendError::Closed, AppendError::Failed)
    }

    /// The newest durable seq of `lane`, as a channel: wakes the forwarder after each commit.
    #[must_use]
    pub fn newest(&self, lane: LaneId) -> watch::Receiver<u64> {
        self.shared.lane(lane).newest.subscribe()
    }

    /// The cursor of `lane`, as a channel: wakes who waits for records to end.
    #[must_use]
    pub fn cursors(&self, lane: LaneId) -> watch::Receiver<u64> {
        self.shared.lane(lane).cursor.subscribe()
    }

    /// The cursor of `lane`.
    #[must_use]
    pub fn cursor(&self, lane: LaneId) -> Seq {
        self.shared.lane(lane).counted().tallies.cursor()
    }

    /// The oldest seq of `lane` that is still kept; the next one when nothing is.
    #[must_use]
    pub fn oldest(&self, lane: LaneId) -> Seq {
        let newest = *self.shared.lane(lane).newest.borrow();
        self.shared.log.oldest(lane).unwrap_or(Seq(newest + 1))
    }

    /// Up to `limit` pushes that settled records of `lane` from `from` on, in their order.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn deliveries(
        &self,
        lane: LaneId,
        from: Seq,
        limit: usize,
    ) -> Result<Vec<Delivery>, ReadError> {
        self.read(move |shared| {
            let caught_up = shared.guarded(|| shared.store.catch_up());
            caught_up.map_err(|error| ReadError::Failed(error.to_string()))?;
            Ok(shared.store.deliveries(lane, from, limit)?)
        })
        .await
    }

    /// The lanes known to the spool, with their integration's name and number, in the order of their ids.
    #[must_use]
    pub fn lanes(&self) -> Vec<(LaneId, String, u32)> {
        let lanes = self.shared.lanes().into_iter();
        lanes.map(|(lane, view)| (lane, view.integration.clone(), view.number)).collect()
    }

    /// The numbers of `lane`. Reads one chunk for the age of the oldest record.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn stats(&self, lane: LaneId) -> Result<LaneStats, ReadError> {
        let (counted, held, oldest_at) = loop {
            let counted = self.shared.lane(lane).counted();
            let cursor = counted.tallies.cursor();
            let held = self.shared.log.held(lane, cursor, counted.newest);
            let oldest_at = if counted.newest < cursor.0 {
                Ok(None)
            } else {
                self.read(move |shared| shared.log.committed_at(lane, cursor).map(Some)).await
            };
            // What was settled meanwhile may have been removed: then there is another cursor to look at.
            if self.cursor(lane) == cursor {
                break (counted, held, oldest_at?);
            }
        };
        Ok(figures::stats(&counted, held, oldest_at))
    }

    /// Whether an append of one record would be refused now, and why: the health of the daemon.
    ///
    /// # Errors
    /// What [`Spool::append`] would return.
    pub fn accepting(&self) -> Result<(), AppendError> {
        if let Some(reason) = self.shared.health.failure() {
            return Err(AppendError::Failed(reason));
        }
        if self.work.is_closed() {
            return Err(AppendError::Closed);
        }
        let (records, bytes) = self.shared.lanes().iter().map(|(_, view)| view.counted()).fold(
            self.shared.quarantine_size(),
            |(records, bytes), counted| {
                let queued = counted.newest - counted.tallies.settled();
                (records + queued, bytes + counted.bytes.saturating_sub(counted.tallies.bytes))
            },
        );
        self.shared.full(records + 1, bytes + 1)?;
        self.shared.disk_low()?;
        self.shared.no_room()
    }

    /// Whether the event that a record is made of is to be kept beside it.
    #[must_use]
    pub fn keeps_events(&self) -> bool {
        self.shared.options.keep_events
    }

    /// Bytes that the spool's file system has free for others than root; `None` when it does not say.
    #[must_use]
    pub fn disk_free(&self) -> Option<u64> {
        let disk = rustix::fs::statvfs(&self.shared.options.directory).ok()?;
        Some(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// What was last noted under `name`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn note(&self, name: &'static str) -> Result<Option<Vec<u8>>, ReadError> {
        self.read(move |shared| Ok(shared.store.note(name)?)).await
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
        self.read(move |shared| shared.store.quarantined(from, limit)).await
    }

    /// How many entries the quarantine holds.
    #[must_use]
    pub fn quarantine_count(&self) -> u64 {
        self.shared.quarantine_size().0
    }

    /// A read that may wait for the disk, off the runtime's threads. A panic of the engine is a failed read.
    fn read<T, F>(
        &self,
        read: F,
    ) -> impl Future<Output = Result<T, ReadError>> + Send + Sync + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce(&Shared) -> Result<T, ReadError> + Send + 'static,
    {
        let shared = self.shared.clone();
        let reading = tokio::task::spawn_blocking(move || read(&shared));
        async move { reading.await.unwrap_or_else(|error| Err(ReadError::Failed(error.to_string()))) }
    }

    /// Resolves when the spool has failed for good, with the reason: the daemon must end.
    pub async fn failed(&self) -> String {
        self.shared.health.failed().await
    }

    /// Commits what waits and ends the committer; the lock is released with the last handle. Later calls return
    /// [`AppendError::Closed`].
    pub async fn close(&self) {
        // When the committer has ended already, there is nothing to close.
        drop(self.work.send(Work::Close).await);
        let mut ended = self.ended.clone();
        while ended.changed().await.is_ok() {}
    }
}

#[cfg(test)]
mod copy_tests;
#[cfg(test)]
mod identity_tests;
#[cfg(test)]
pub(crate) mod model_tests;
#[cfg(test)]
mod space_tests;
