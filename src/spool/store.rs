//! The engine: sled's trees as typed reads and writes. Only this file, `quarantine` and `values` name sled.
//!
//! The store follows the log: what a frame changes is applied here after the frame is durable, and again from the log when
//! the spool opens. So nothing here needs a flush of its own before a checkpoint, and a crash keeps some of the
//! changes, which the log completes. Changes are absolute: to apply them twice is to apply them once.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::chunk::{key, parse_key};
use super::dedupe::Windows;
use super::durable;
use super::entry::{Delivery, End, LaneId, Seq};
use super::error::{OpenError, ReadError};
use super::generation::{damaged, failed, sync_tree};
use super::log::Applied;
use super::log::frame::{FrameBuilder, Part, Tree};
use super::log::table::Meta;
use super::panics::watched;
use super::people::REMEMBERED;
use super::quarantine::NEWEST;
use super::sealed::{seal, unseal};
use super::values::{INLINE_BYTES_MAX, Values};

/// 17 values of the largest size with their keys, which sled counts as one, stay under a quarter of it: no blob files.
const SEGMENT_BYTES: usize = 1 << 20;
const _: () = assert!(17 * (INLINE_BYTES_MAX + 640) < SEGMENT_BYTES / 4);

/// So many deliveries may wait to be inserted.
const LATER_MAX: usize = 32;
/// Of a lane's key: every other key beside the cursors is longer.
const LANE_KEY_BYTES: usize = size_of::<u32>();
const _: () = assert!(
    APPLIED.len() > LANE_KEY_BYTES
        && NEWEST.len() > LANE_KEY_BYTES
        && REMEMBERED.len() > LANE_KEY_BYTES
);

/// How long a handle of this process that is just closing is waited for: 5 s in all.
const CLOSING_TRIES: u32 = 500;
const CLOSING_PAUSE: Duration = Duration::from_millis(10);

/// sled refused; in its words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct StoreError(pub String);

impl From<sled::Error> for StoreError {
    fn from(error: sled::Error) -> StoreError {
        StoreError(error.to_string())
    }
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> ReadError {
        ReadError::Failed(error.0)
    }
}

/// How the settled records of a lane ended. The cursor follows from it: every settled record has one end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tallies {
    /// Bytes of all settled records.
    pub(super) bytes: u64,
    /// Records that ended so.
    pub(super) delivered: u64,
    /// Records that ended so.
    pub(super) quarantined: u64,
    /// Records that ended so.
    pub(super) withheld: u64,
    /// Records that ended so.
    pub(super) erased: u64,
}

impl Tallies {
    /// Records settled.
    #[must_use]
    pub(super) fn settled(&self) -> u64 {
        self.delivered + self.quarantined + self.withheld + self.erased
    }

    /// The first seq that is not settled.
    #[must_use]
    pub(super) fn cursor(&self) -> Seq {
        Seq(self.settled() + 1)
    }

    /// Adds `records` that ended as `end`.
    pub(super) fn add(&mut self, end: End, records: u64) {
        *match end {
            End::Delivered => &mut self.delivered,
            End::Quarantined => &mut self.quarantined,
            End::Withheld => &mut self.withheld,
            End::Erased => &mut self.erased,
        } += records;
    }
}

/// Adds a note to a frame.
pub(super) fn put_note(frame: &mut FrameBuilder, name: &str, note: &[u8]) {
    let key = note_key(name);
    frame.put(Tree::Cursors, &key, &seal(&key, &note));
}

/// Beside the lanes' tallies, whose keys are shorter.
fn note_key(name: &str) -> Vec<u8> {
    format!("note:{name}").into_bytes()
}

/// A lane as the store knows it when it opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LaneOnDisk {
    /// Its id.
    pub(super) lane: LaneId,
    /// The integration's name.
    pub(super) integration: String,
    /// Which of the integration's lanes.
    pub(super) number: u32,
    /// Its newest seq.
    pub(super) newest: u64,
    /// Bytes of all records up to it.
    pub(super) bytes: u64,
    /// How the settled ones ended.
    pub(super) tallies: Tallies,
}

/// Beside the lanes' tallies: how far the log's changes are here.
const APPLIED: &[u8] = b"applied";
/// An open store.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    db: sled::Db,
    pub(super) segments: Values,
    pub(super) lanes: Values,
    pub(super) cursors: Values,
    pub(super) quarantine: Values,
    pub(super) identities: Values,
    pub(super) deliveries: Values,
    pub(super) dedupe: Values,
    pub(super) ages: Values,
    /// Deliveries that are still to be inserted, and whose turn it is to do so.
    later: Mutex<VecDeque<(Vec<u8>, Vec<u8>)>>,
    inserting: Mutex<()>,
}

impl Store {
    /// Opens the store in `path`, creating it when the directory is empty, and proves that its flush is an fdatasync.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] when sled cannot open it (it panics on some corruption: caught here),
    /// [`OpenError::NotDurable`] when the replacement of `sync_file_range` is not in force.
    pub(super) fn open(path: &Path, cache_bytes: u64) -> Result<Store, OpenError> {
        let file = Store::file(path);
        let mut opened = watched(|| Store::open_trees(path, cache_bytes));
        // We hold the spool's own lock, so a lock of sled's can only be that of a handle of this process that is
        // just closing: its threads let go of the file a moment after the handle.
        for _ in 0..CLOSING_TRIES {
            if !matches!(&opened, Ok(Err(sled::Error::Io(error))) if error.to_string().contains("acquire lock"))
            {
                break;
            }
            std::thread::sleep(CLOSING_PAUSE);
            opened = watched(|| Store::open_trees(path, cache_bytes));
        }
        let store = match opened {
            Ok(Ok(store)) => store,
            Ok(Err(error)) => return Err(refused("open", &file, error)),
            Err(panic) => {
                let what = format!(
                    "cannot be opened: the store's engine gave up on its content ({panic})"
                );
                return Err(damaged(&file, &what));
            }
        };
        store.prove_durable()?;
        sync_tree(path).map_err(failed("fsync", path))?;
        Ok(store)
    }

    fn open_trees(path: &Path, cache_bytes: u64) -> Result<Store, sled::Error> {
        let db = sled::Config::new()
            .path(path)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(cache_bytes)
            .mode(sled::Mode::LowSpace)
            .flush_every_ms(None) // only a checkpoint flushes
            .open()?;
        let parts = db.open_tree("parts")?;
        let values =
            |of, name| Ok::<_, sled::Error>(Values::new(of, db.open_tree(name)?, parts.clone()));
        Ok(Store {
            path: path.to_owned(),
            segments: values(Tree::Segments, "segments")?,
            lanes: values(Tree::Lanes, "lanes")?,
            cursors: values(Tree::Cursors, "cursors")?,
            quarantine: values(Tree::Quarantine, "quarantine")?,
            identities: values(Tree::Identities, "identities")?,
            deliveries: values(Tree::Deliveries, "deliveries")?,
            dedupe: values(Tree::Dedupe, "dedupe")?,
            ages: values(Tree::Ages, "ages")?,
            later: Mutex::default(),
            inserting: Mutex::default(),
            db,
        })
    }

    /// Writes and flushes an entry, and sees the replacement of `sync_file_range` being called for it.
    fn prove_durable(&self) -> Result<(), OpenError> {
        let before = durable::replaced();
        // A value that was never there: sled writes nothing for one that is there already.
        let fresh = uuid::Uuid::now_v7().into_bytes();
        let proof = self.db.insert("proof", &fresh).and_then(|_| self.db.flush());
        proof.map_err(|error| refused("write", &Store::file(&self.path), error))?;
        if durable::replaced() == before { Err(OpenError::NotDurable) } else { Ok(()) }
    }

    /// The store's one growing file.
    #[must_use]
    pub(super) fn file(path: &Path) -> PathBuf {
        path.join("db")
    }

    /// A floor for the file's length: once it has a segment it never has less than one.
    #[must_use]
    pub(super) fn bytes_min(&self) -> u64 {
        let bytes = std::fs::metadata(Store::file(&self.path)).map_or(0, |metadata| metadata.len());
        bytes.min(SEGMENT_BYTES as u64)
    }

    /// Values that sled has moved out of its log, which it never syncs: must stay none.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] when there is one.
    pub(super) fn check_blobs(&self) -> Result<(), OpenError> {
        let blobs = self.path.join("blobs");
        let first = std::fs::read_dir(&blobs).map_err(failed("list", &blobs))?.next();
        first.map_or(Ok(()), |_| {
            Err(damaged(&blobs, "holds a file: a value was too large for the store's log"))
        })
    }

    /// Everything inserted before is on stable storage when this returns.
    ///
    /// # Errors
    /// Final: the handle is dead, nothing may be acknowledged any more.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        self.db.flush()?;
        Ok(())
    }

    // ── a generation change ──

    /// Whether more than `bytes` live in it. Goes through as much of it as that takes.
    pub(super) fn exceeds(&self, bytes: u64) -> Result<bool, StoreError> {
        let mut live = 0;
        for tree in self.trees()? {
            for item in &tree {
                let (key, value) = item?;
                live += (key.len() + value.len()) as u64;
                if live > bytes {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Copies all that lives in it into `other`, which is empty, durably.
    pub(super) fn copy_to(&self, other: &Store) -> Result<(), StoreError> {
        for tree in self.trees()? {
            let copy = other.db.open_tree(tree.name())?;
            for item in &tree {
                let (key, value) = item?;
                copy.insert(key, value)?;
            }
        }
        other.flush()
    }

    fn trees(&self) -> Result<Vec<sled::Tree>, StoreError> {
        let names = self.db.tree_names().into_iter();
        Ok(names.map(|name| self.db.open_tree(name)).collect::<Result<_, _>>()?)
    }

    // ── following the log ──

    /// Applies what a part of a frame changes.
    pub(super) fn apply(&self, part: &Part<'_>) -> Result<(), StoreError> {
        match *part {
            Part::Put { tree, key, value } => self.values(tree).insert(key, value),
            Part::Remove { tree, key } => self.values(tree).remove(key).map(drop),
            Part::Chunk { .. } | Part::Piece { .. } => Ok(()),
        }
    }

    /// As [`Store::apply`], but later as far as nobody asks for it: a lane's cursor with the next checkpoint
    /// ([`Store::put_cursor`]), a delivery when [`Store::catch_up`] is called: beside the log's flush where settlements are
    /// many, before it is read, and here once [`LATER_MAX`] wait. What a crash loses of it is in the log.
    pub(super) fn follow(&self, part: &Part<'_>) -> Result<(), StoreError> {
        match *part {
            Part::Put { tree: Tree::Cursors, key, .. } if key.len() == LANE_KEY_BYTES => Ok(()),
            Part::Put { tree: Tree::Deliveries, key, value } => {
                let mut later = self.later();
                later.push_back((key.to_vec(), value.to_vec()));
                let many = later.len() >= LATER_MAX;
                drop(later);
                if many { self.catch_up() } else { Ok(()) }
            }
            _ => self.apply(part),
        }
    }

    /// Inserts the deliveries that wait for it.
    pub(super) fn catch_up(&self) -> Result<(), StoreError> {
        let _turn = self.turn();
        // One that cannot be inserted stays: no checkpoint may say that it is there.
        loop {
            let next = self.later().front().cloned();
            let Some((key, value)) = next else { return Ok(()) };
            self.deliveries.insert(&key, &value)?;
            self.later().pop_front();
        }
    }

    /// Whose turn it is to insert what is put off.
    pub(super) fn turn(&self) -> MutexGuard<'_, ()> {
        self.inserting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn later(&self) -> MutexGuard<'_, VecDeque<(Vec<u8>, Vec<u8>)>> {
        self.later.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the cursor of a lane.
    pub(super) fn put_cursor(&self, lane: &LaneOnDisk) -> Result<(), StoreError> {
        let key = lane.lane.0.to_be_bytes();
        self.cursors.insert(&key, &seal(&key, &lane.tallies))
    }

    fn values(&self, tree: Tree) -> &Values {
        match tree {
            Tree::Lanes => &self.lanes,
            Tree::Cursors => &self.cursors,
            Tree::Quarantine => &self.quarantine,
            Tree::Identities => &self.identities,
            Tree::Deliveries => &self.deliveries,
            Tree::Dedupe => &self.dedupe,
            Tree::Ages => &self.ages,
            Tree::Segments => &self.segments,
        }
    }

    /// Notes how far the log's changes are here.
    pub(super) fn put_applied(&self, applied: Applied) -> Result<(), StoreError> {
        self.cursors.insert(APPLIED, &seal(APPLIED, &applied))
    }

    /// What [`Store::put_applied`] was last told.
    pub(super) fn applied(&self) -> Result<Applied, StoreError> {
        let value = self.cursors.get(APPLIED)?;
        let applied = value.map(|value| unseal(APPLIED, &value)).transpose();
        applied
            .map(Option::unwrap_or_default)
            .map_err(|error| StoreError(format!("how far it follows the log: {error}")))
    }

    /// The note of this name.
    pub(super) fn note(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let key = note_key(name);
        let note = self.cursors.get(&key)?.map(|value| unseal::<Vec<u8>>(&key, &value));
        note.transpose().map_err(|error| StoreError(format!("the note {name}: {error}")))
    }

    /// Notes what a segment that is complete holds.
    pub(super) fn put_segment(&self, number: u64, meta: &Meta) -> Result<(), StoreError> {
        let key = number.to_be_bytes();
        self.segments.insert(&key, &seal(&key, meta))
    }

    /// Forgets a segment, before its file is removed.
    pub(super) fn remove_segment(&self, number: u64) -> Result<(), StoreError> {
        self.segments.remove(&number.to_be_bytes())?;
        Ok(())
    }

    /// The segments that are noted.
    pub(super) fn segments(&self) -> Result<BTreeMap<u64, Meta>, StoreError> {
        let mut segments = BTreeMap::new();
        for item in &self.segments.tree {
            let (key, value) = item?;
            let number = <[u8; 8]>::try_from(key.as_ref()).map(u64::from_be_bytes);
            let number =
                number.map_err(|_| StoreError("a segment's key is not eight bytes".to_owned()))?;
            let Some(sealed) = self.segments.read(&key, value)? else { continue };
            let meta = unseal(&key, &sealed)
                .map_err(|error| StoreError(format!("segment {number}: {error}")))?;
            segments.insert(number, meta);
        }
        Ok(segments)
    }

    /// Up to `limit` deliveries of `lane` from `from` on.
    pub(super) fn deliveries(
        &self,
        lane: LaneId,
        from: Seq,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        let mut deliveries = Vec::new();
        for item in
            self.deliveries.tree.range(key(lane, from)..=key(lane, Seq(u64::MAX))).take(limit)
        {
            let (key, value) = item?;
            let Some(value) = self.deliveries.read(&key, value)? else { continue };
            let delivery = unseal(&key, &value);
            deliveries.push(delivery.map_err(|error| StoreError(format!("a delivery: {error}")))?);
        }
        Ok(deliveries)
    }

    /// Removes the deliveries of `lane` that lie below `oldest`.
    pub(super) fn trim_deliveries(&self, lane: LaneId, oldest: Seq) -> Result<(), StoreError> {
        for found in self.deliveries.tree.range(key(lane, Seq(0))..key(lane, oldest)).keys() {
            self.deliveries.remove(&found?)?;
        }
        Ok(())
    }

    // ── lanes and cursors ──

    /// Every lane as far as the store knows it, in the order of ids.
    pub(super) fn lanes(&self) -> Result<Vec<LaneOnDisk>, StoreError> {
        let mut lanes = Vec::new();
        for item in &self.lanes.tree {
            let (key, value) = item?;
            let Some(value) = self.lanes.read(&key, value)? else { continue };
            let lane = <[u8; 4]>::try_from(key.as_ref()).map(|id| LaneId(u32::from_be_bytes(id)));
            let lane = lane.map_err(|_| StoreError("a lane's key is not four bytes".to_owned()))?;
            let broken = |error| StoreError(format!("lane {}: {error}", lane.0));
            let (integration, number) = unseal::<(String, u32)>(&key, &value).map_err(broken)?;
            let tallies = self.cursors.get(&key)?.map(|value| unseal::<Tallies>(&key, &value));
            let tallies = tallies.transpose().map_err(broken)?.unwrap_or_default();
            let (newest, bytes) = (tallies.settled(), tallies.bytes);
            lanes.push(LaneOnDisk { lane, integration, number, newest, bytes, tallies });
        }
        Ok(lanes)
    }

    // ── message ids ──

    /// Reads the dedupe windows back, newest entries first. Those of frames after `last` are of commits that were lost
    /// with a power cut: they are removed.
    pub(super) fn recall_windows(
        &self,
        windows: &mut Windows,
        last: u64,
    ) -> Result<(), StoreError> {
        for item in self.dedupe.tree.iter().rev() {
            let (key, value) = item?;
            let Some(value) = self.dedupe.read(&key, value)? else { continue };
            let (scope, number) = parse_key(&key).map_err(|error| StoreError(error.to_string()))?;
            if !windows.recall(scope.0, number.0, &value, last) {
                self.dedupe.remove(&key)?;
            }
        }
        Ok(())
    }
}

/// What sled says about its file: an error of the system is no damage.
fn refused(doing: &'static str, file: &Path, error: sled::Error) -> OpenError {
    use std::io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};

    let system = [PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull];
    match error {
        // sled copies errors by their kind and text: the code is then in the text alone.
        sled::Error::Io(error)
            if error.raw_os_error().is_some()
                || system.contains(&error.kind())
                || error.to_string().contains("Os { code:") =>
        {
            failed(doing, file)(error)
        }
        error => damaged(file, &format!("{doing}: {error}")),
    }
}
