//! What is found on disk when the spool opens: checked against what must be there, the store brought up to the log.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::Options;
use super::dedupe::Windows;
use super::entry::LaneId;
use super::error::OpenError;
use super::generation::{self, damaged};
use super::log::{Log, Opened};
use super::manifest::{Floor, Manifest};
use super::people::Remembered;
use super::store::{LaneOnDisk, Store, StoreError};
use crate::kill_point;

/// The log's directory within the spool's.
pub(super) const LOG: &str = "log";

/// A store's file that is smaller stays as it is.
const MOVE_BYTES_MIN: u64 = 32 << 20;
/// A store moves when its file is so many times larger than its content.
const MOVE_RATIO: u64 = 4;

/// A spool's content, ready to go on with.
pub(super) struct Recovered {
    /// The generation in force.
    pub(super) path: PathBuf,
    /// The store, with all changes of the log.
    pub(super) store: Store,
    /// The log.
    pub(super) log: Opened,
    /// Every lane.
    pub(super) lanes: Vec<LaneOnDisk>,
    /// The ids that are remembered.
    pub(super) windows: Windows,
    /// The quarantine's entries, their bytes, and the newest id.
    pub(super) quarantine: (u64, u64, u64),
    /// How many identities there are.
    pub(super) remembered: Remembered,
    /// The newest seqs at the last erasure, if there was one.
    pub(super) erased: Option<BTreeMap<LaneId, u64>>,
    /// Segments that the store knows.
    pub(super) noted: HashSet<u64>,
}

impl Recovered {
    /// Opens or creates the spool whose lock is held.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub(super) fn of(options: &Options) -> Result<Recovered, OpenError> {
        let directory = &options.directory;
        kill_point::pass("open-locked");
        let manifest = Manifest::read(directory)?;
        let path = match (generation::current(directory)?, &manifest) {
            (Some(path), _) => path,
            (None, None) => generation::create(directory, 1, |path| {
                Store::open(path, options.cache_bytes).map(drop)
            })?,
            (None, Some(manifest)) => {
                let what = format!(
                    "the generation {} that the manifest names is gone",
                    manifest.generation
                );
                return Err(damaged(directory, &what));
            }
        };
        if let Some(manifest) = &manifest {
            manifest.check_file(&path, &Store::file(&path))?;
        }
        generation::move_leftovers_aside(&path)?;
        let store = Store::open(&path, options.cache_bytes)?;
        store.check_blobs()?;
        kill_point::pass("open-store");
        // One that a crash has left with a name and not in force stands where the next move would go.
        generation::remove_others(directory, &path)?;
        let (path, store) = moved(directory, path, store, options.cache_bytes)?;
        generation::remove_others(directory, &path)?;

        let file = Store::file(&path);
        let unreadable = |error: StoreError| damaged(&file, &error.0);
        let sealed = store.segments().map_err(unreadable)?;
        let noted = sealed.keys().copied().collect();
        let applied = store.applied().map_err(unreadable)?;
        let log = Log::open(&directory.join(LOG), sealed, applied, |part| {
            store.apply(&part).map_err(unreadable)
        })?;
        kill_point::pass("open-log");
        let lanes = lanes(&store.lanes().map_err(unreadable)?, &log.log, &file)?;
        if let Some(manifest) = &manifest {
            manifest.check_log(&directory.join(LOG), log.last)?;
            manifest.check_lanes(&directory.join(LOG), &floors(&lanes))?;
        }
        kill_point::pass("open-checked");
        // From now on the spool must hold at least what it holds now, all of which the log has just made durable.
        let manifest = Manifest::new(&path, store.bytes_min(), log.last, floors(&lanes));
        if let Err(error) = manifest.write(directory) {
            // As a full disk does. The old floor is as true as before.
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the spool's manifest was not replaced");
        }
        let mut windows = Windows::new(options.dedupe_window);
        store.recall_windows(&mut windows, log.last).map_err(unreadable)?;
        let quarantine = store.quarantine_size().map_err(unreadable)?;
        let remembered = store.remembered().map_err(unreadable)?;
        let erased = store.erased().map_err(unreadable)?;
        Ok(Recovered { path, store, log, lanes, windows, quarantine, remembered, erased, noted })
    }
}

/// Moves what lives in the store to a new generation when its file has grown far beyond it: sled never gives space back.
fn moved(
    directory: &Path,
    path: PathBuf,
    store: Store,
    cache_bytes: u64,
) -> Result<(PathBuf, Store), OpenError> {
    let file = Store::file(&path);
    let unreadable = |error: StoreError| damaged(&file, &error.0);
    let bytes = std::fs::metadata(&file).map_or(0, |metadata| metadata.len());
    if bytes < MOVE_BYTES_MIN || store.exceeds(bytes / MOVE_RATIO).map_err(unreadable)? {
        return Ok((path, store));
    }
    let free = rustix::fs::statvfs(directory).map_or(0, |disk| disk.f_bavail * disk.f_frsize);
    if free < bytes {
        return Ok((path, store)); // a full disk must not keep the spool from opening
    }
    tracing::info!(bytes, "the store's file is far larger than its content: it moves to a new one");
    let number = generation::number(&path) + 1;
    let next = generation::create(directory, number, |next| {
        let next = Store::open(next, cache_bytes)?;
        store.copy_to(&next).map_err(unreadable)
    })?;
    drop(store);
    let store = Store::open(&next, cache_bytes)?;
    Ok((next, store))
}

fn floors(lanes: &[LaneOnDisk]) -> Vec<Floor> {
    let floor = |lane: &LaneOnDisk| Floor {
        lane: lane.lane.0,
        newest: lane.newest,
        cursor: lane.tallies.cursor().0,
    };
    lanes.iter().map(floor).collect()
}

/// The lanes as store and log together know them.
fn lanes(known: &[LaneOnDisk], log: &Log, file: &Path) -> Result<Vec<LaneOnDisk>, OpenError> {
    let mut held = log.lanes();
    let mut lanes = Vec::new();
    for lane in known {
        let (newest, bytes) = held.remove(&lane.lane).unwrap_or((lane.newest, lane.bytes));
        if newest < lane.newest {
            let what = format!(
                "lane {} has settled seq {}, but the log ends with seq {newest}: committed data is missing",
                lane.lane.0, lane.newest
            );
            return Err(damaged(file, &what));
        }
        lanes.push(LaneOnDisk { newest, bytes, ..lane.clone() });
    }
    if let Some(lane) = held.keys().next() {
        let what = format!("lane {} has records in the log, and is unknown to the store", lane.0);
        return Err(damaged(file, &what));
    }
    Ok(lanes)
}
