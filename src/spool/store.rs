//! The engine: sled's trees as typed reads and writes. Only this file and `values` name sled.
//!
//! Writes are plain inserts; nothing is durable before [`Store::flush`] returns, and sled writes its log in the
//! order of the inserts, so a crash before that keeps a prefix of them. The committer orders its inserts so that
//! every prefix is safe. Reads see inserts at once: what may be read is the caller's to bound.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::chunk::{self, Chunk, parse_key};
use super::dedupe::{self, Windows};
use super::durable;
use super::entry::{Delivery, End, Entry, LaneId, Seq};
use super::error::{OpenError, ReadError};
use super::generation::{damaged, failed, sync_tree};
use super::sealed::{seal, unseal};
use super::values::{INLINE_BYTES_MAX, Values};

/// 17 values of the largest size with their keys, which sled counts as one, stay under a quarter of it: no blob files.
const SEGMENT_BYTES: usize = 1 << 20;
const _: () = assert!(17 * (INLINE_BYTES_MAX + 640) < SEGMENT_BYTES / 4);

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
    pub(super) fn add(&mut self, end: End, records: u64, bytes: u64) {
        self.bytes += bytes;
        *match end {
            End::Delivered => &mut self.delivered,
            End::Quarantined => &mut self.quarantined,
            End::Withheld => &mut self.withheld,
            End::Erased => &mut self.erased,
        } += records;
    }
}

/// A lane as it is on disk when the store opens.
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
    /// First seq of the oldest chunk that is kept.
    pub(super) oldest_kept: u64,
}

/// An open store.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    db: sled::Db,
    chunks: Values,
    lanes: sled::Tree,
    pub(super) cursors: sled::Tree,
    pub(super) quarantine: Values,
    identities: Values,
    deliveries: sled::Tree,
    dedupe: sled::Tree,
}

impl Store {
    /// Opens the store in `path`, creating it when the directory is empty, and proves that its flush is an fdatasync.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] when sled cannot open it (it panics on some corruption: caught here),
    /// [`OpenError::NotDurable`] when the replacement of `sync_file_range` is not in force.
    pub(super) fn open(path: &Path, cache_bytes: u64) -> Result<Store, OpenError> {
        let file = Store::file(path);
        let mut opened = catch_unwind(AssertUnwindSafe(|| Store::open_trees(path, cache_bytes)));
        // We hold the spool's own lock, so a lock of sled's can only be that of a handle of this process that is
        // just closing: its threads let go of the file a moment after the handle.
        for _ in 0..CLOSING_TRIES {
            if !matches!(&opened, Ok(Err(sled::Error::Io(error))) if error.to_string().contains("acquire lock"))
            {
                break;
            }
            std::thread::sleep(CLOSING_PAUSE);
            opened = catch_unwind(AssertUnwindSafe(|| Store::open_trees(path, cache_bytes)));
        }
        let store = match opened {
            Ok(Ok(store)) => store,
            Ok(Err(error)) => return Err(damaged(&file, &format!("cannot be opened: {error}"))),
            Err(_) => {
                return Err(damaged(
                    &file,
                    "cannot be opened: the store's engine gave up on its content",
                ));
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
            .flush_every_ms(None) // only the committer flushes
            .open()?;
        let parts = db.open_tree("parts")?;
        let values = |tree| Values::new(tree, parts.clone());
        Ok(Store {
            path: path.to_owned(),
            chunks: values(db.open_tree("chunks")?),
            lanes: db.open_tree("lanes")?,
            cursors: db.open_tree("cursors")?,
            quarantine: values(db.open_tree("quarantine")?),
            identities: values(db.open_tree("identities")?),
            deliveries: db.open_tree("deliveries")?,
            dedupe: db.open_tree("dedupe")?,
            db,
        })
    }

    /// Writes and flushes an entry, and sees the replacement of `sync_file_range` being called for it.
    fn prove_durable(&self) -> Result<(), OpenError> {
        let before = durable::calls();
        // A value that was never there: sled writes nothing for one that is there already.
        let fresh = uuid::Uuid::now_v7().into_bytes();
        let proof = self.db.insert("proof", &fresh).and_then(|_| self.db.flush());
        proof.map_err(|error| {
            damaged(&Store::file(&self.path), &format!("cannot be written: {error}"))
        })?;
        if durable::calls() == before { Err(OpenError::NotDurable) } else { Ok(()) }
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

    // ── chunks ──

    /// Inserts a chunk.
    pub(super) fn put_chunk(
        &self,
        lane: LaneId,
        first: Seq,
        chunk: &Chunk<'_>,
    ) -> Result<(), StoreError> {
        self.chunks.insert(&chunk::key(lane, first), chunk.encode(lane, first))
    }

    /// The chunk that holds `seq`, and its first seq.
    fn chunk_holding(
        &self,
        lane: LaneId,
        seq: Seq,
    ) -> Result<Option<(Seq, sled::IVec)>, ReadError> {
        let found = self
            .chunks
            .tree
            .get_lt(chunk::key(lane, Seq(seq.0.saturating_add(1))))
            .map_err(StoreError::from)?;
        let Some((key, value)) = found else { return Ok(None) };
        let (found_lane, first) = parse_key(&key).map_err(|error| broken(lane, seq, &error))?;
        if found_lane != lane {
            return Ok(None);
        }
        Ok(self.chunks.read(&key, value)?.map(|value| (first, value)))
    }

    /// See [`super::Spool::peek`]; `newest` is the newest seq that may be read.
    pub(super) fn read(
        &self,
        lane: LaneId,
        from: Seq,
        newest: u64,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        let mut next = from;
        let mut held = if next.0 <= newest { self.chunk_holding(lane, next)? } else { None };
        while next.0 <= newest && entries.len() < records_max {
            let Some((first, value)) = held else { return Err(missing(lane, next)) };
            let chunk =
                Chunk::decode(lane, first, &value).map_err(|error| broken(lane, first, &error))?;
            if next.0 - first.0 >= chunk.len() as u64 {
                return Err(missing(lane, next));
            }
            for entry in chunk.entries(first, next) {
                bytes += entry.record.len();
                let full =
                    entries.len() == records_max || (!entries.is_empty() && bytes > bytes_max);
                if full || entry.seq.0 > newest {
                    return Ok(entries);
                }
                entries.push(entry);
            }
            next = Seq(first.0 + chunk.len() as u64);
            let value = self.chunks.get(&chunk::key(lane, next))?;
            held = value.map(|value| (next, value));
        }
        Ok(entries)
    }

    /// When the chunk that holds `seq` was committed.
    pub(super) fn committed_at(
        &self,
        lane: LaneId,
        seq: Seq,
    ) -> Result<crate::clock::UnixMillis, ReadError> {
        let (first, value) = self.chunk_holding(lane, seq)?.ok_or_else(|| missing(lane, seq))?;
        Ok(Chunk::decode(lane, first, &value)
            .map_err(|error| broken(lane, first, &error))?
            .committed_at)
    }

    /// Removes the chunks from `oldest` on that hold only seqs below `keep_from`, at most `chunks_max` of them,
    /// with the deliveries of their records. Returns the first seq of the oldest chunk that is left.
    pub(super) fn trim(
        &self,
        lane: LaneId,
        oldest: Seq,
        keep_from: Seq,
        chunks_max: usize,
    ) -> Result<Seq, StoreError> {
        let mut kept = oldest;
        let range = chunk::key(lane, oldest)..=chunk::key(lane, keep_from);
        let firsts: Result<Vec<Seq>, StoreError> = self
            .chunks
            .tree
            .range(range)
            .keys()
            .take(chunks_max + 1)
            .map(|key| Ok(parse_key(&key?).map_err(|error| StoreError(error.to_string()))?.1))
            .collect();
        for (first, next) in
            firsts?.windows(2).filter_map(|pair| Some((*pair.first()?, *pair.get(1)?)))
        {
            self.chunks.remove(&chunk::key(lane, first))?;
            kept = next;
        }
        if kept > oldest {
            for key in
                self.deliveries.range(chunk::key(lane, Seq(0))..chunk::key(lane, kept)).keys()
            {
                self.deliveries.remove(key?)?;
            }
        }
        Ok(kept)
    }

    // ── lanes and cursors ──

    /// Inserts a lane.
    pub(super) fn put_lane(
        &self,
        lane: LaneId,
        integration: &str,
        number: u32,
    ) -> Result<(), StoreError> {
        let key = lane.0.to_be_bytes();
        self.lanes.insert(key, seal(&key, &(integration, number)))?;
        Ok(())
    }

    /// Inserts a lane's tallies, and with them its cursor.
    pub(super) fn put_tallies(&self, lane: LaneId, tallies: &Tallies) -> Result<(), StoreError> {
        let key = lane.0.to_be_bytes();
        self.cursors.insert(key, seal(&key, tallies))?;
        Ok(())
    }

    /// Every lane, in the order of ids. Reads two chunks a lane.
    pub(super) fn lanes(&self) -> Result<Vec<LaneOnDisk>, OpenError> {
        let file = Store::file(&self.path);
        let mut lanes = Vec::new();
        for item in &self.lanes {
            let (key, value) = item.map_err(|error| damaged(&file, &error.to_string()))?;
            let lane = <[u8; 4]>::try_from(key.as_ref()).map(|id| LaneId(u32::from_be_bytes(id)));
            let lane = lane.map_err(|_| damaged(&file, "a lane's key is not four bytes"))?;
            let (integration, number) = unseal::<(String, u32)>(&key, &value)
                .map_err(|error| damaged(&file, &format!("lane {}: {error}", lane.0)))?;
            let read = self.lane_on_disk(lane, integration, number);
            lanes.push(read.map_err(|error| damaged(&file, &error.to_string()))?);
        }
        Ok(lanes)
    }

    fn lane_on_disk(
        &self,
        lane: LaneId,
        integration: String,
        number: u32,
    ) -> Result<LaneOnDisk, ReadError> {
        let key = lane.0.to_be_bytes();
        let tallies = match self.cursors.get(key).map_err(StoreError::from)? {
            Some(value) => {
                unseal::<Tallies>(&key, &value).map_err(|error| broken(lane, Seq(0), &error))?
            }
            None => Tallies::default(),
        };
        let (mut newest, mut bytes) = (tallies.settled(), tallies.bytes);
        if let Some((first, value)) = self.chunk_holding(lane, Seq(u64::MAX - 1))? {
            let chunk =
                Chunk::decode(lane, first, &value).map_err(|error| broken(lane, first, &error))?;
            newest = first.0 + chunk.len() as u64 - 1;
            bytes = chunk.bytes_before + chunk.bytes() as u64;
        }
        if newest < tallies.settled() {
            return Err(missing(lane, tallies.cursor()));
        }
        let oldest = self.chunks.tree.get_gt(chunk::key(lane, Seq(0))).map_err(StoreError::from)?;
        let oldest =
            oldest.and_then(|(key, _)| parse_key(&key).ok()).filter(|(found, _)| *found == lane);
        let oldest_kept = oldest.map_or(newest + 1, |(_, first)| first.0);
        Ok(LaneOnDisk { lane, integration, number, newest, bytes, tallies, oldest_kept })
    }

    // ── deliveries ──

    /// Inserts what a push came to.
    pub(super) fn put_delivery(&self, lane: LaneId, delivery: &Delivery) -> Result<(), StoreError> {
        let key = chunk::key(lane, delivery.first);
        self.deliveries.insert(key, seal(&key, delivery))?;
        Ok(())
    }

    // ── identities ──

    /// Inserts the traits of `key`.
    pub(super) fn put_identity(&self, key: &str, traits: &[u8]) -> Result<(), StoreError> {
        self.identities.insert(key.as_bytes(), traits.to_vec())
    }

    /// The traits of `key`.
    pub(super) fn identity(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        Ok(self.identities.get(key.as_bytes())?.map(|traits| Bytes::copy_from_slice(&traits)))
    }

    // ── dedupe ──

    /// Inserts or removes entries of the window.
    pub(super) fn put_dedupe(&self, entries: &[dedupe::Stored]) -> Result<(), StoreError> {
        for dedupe::Stored { key, value } in entries {
            if value.is_empty() {
                self.dedupe.remove(key)?;
            } else {
                self.dedupe.insert(key, value.as_slice())?;
            }
        }
        Ok(())
    }

    /// Reads the windows back, newest entries first.
    pub(super) fn recall_windows(&self, windows: &mut Windows) -> Result<(), StoreError> {
        for item in self.dedupe.iter().rev() {
            let (key, value) = item?;
            let (scope, number) = parse_key(&key).map_err(|error| StoreError(error.to_string()))?;
            windows.recall(scope.0, number.0, &value);
        }
        Ok(())
    }
}

fn missing(lane: LaneId, seq: Seq) -> ReadError {
    ReadError::Damaged { lane, seq, what: "no chunk holds this seq".to_owned() }
}

fn broken(lane: LaneId, seq: Seq, error: &dyn std::fmt::Display) -> ReadError {
    ReadError::Damaged { lane, seq, what: error.to_string() }
}
