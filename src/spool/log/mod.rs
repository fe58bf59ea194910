//! The log: every commit as one frame, made durable by one fdatasync, and where the records stay until they are settled
//! and no longer kept.
//!
//! ```text
//! spool/log/0000000001.log   ‖ frame ‖ frame ‖ … ‖          sealed: all of its frames are durable
//! spool/log/0000000002.log   ‖ frame ‖ frame ‖ zeros        under way
//! spool/log/0000000003.log   ‖ zeros                        prepared
//! ```
//! A frame holds the records of its commit and the changes that it makes to the store (see `frame`). The store is
//! brought up to the log: changes are applied to it after the frame is durable, flushed at checkpoints, and applied again
//! from the log when the spool opens. So a commit costs one write and one flush of a file whose blocks are there already.
//!
//! A segment is removed whole once none of its records is queued or kept, and the store holds its changes durably. Every
//! open begins a segment of its own: nothing is ever written over what a crash has left.

pub(crate) mod frame;
mod part;
mod reader;
pub(crate) mod recovery;
pub(crate) mod segment;
mod syncer;
pub(crate) mod table;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub(crate) use self::syncer::Syncer;
pub(crate) use self::writer::{Prepared, Writer};

use serde::{Deserialize, Serialize};

use self::frame::Part;
use self::reader::Walk;
use self::recovery::Tail;
use self::segment::{SEGMENT_BYTES, Segment};
use self::table::{Meta, Placed};
use super::chunk::Chunk;
use super::entry::{LaneId, Seq};
use super::error::OpenError;
use super::generation::{create_directory, damaged, failed};

/// The log as its readers see it.
#[derive(Debug)]
pub(crate) struct Log {
    pub(super) directory: PathBuf,
    table: RwLock<BTreeMap<u64, Meta>>,
    /// Where the last read of each lane ended.
    walks: Mutex<HashMap<LaneId, Walk>>,
}

/// How far the store holds the log's changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Applied {
    /// All frames up to this one are applied.
    pub(crate) frame: u64,
    /// The segment that was under way; the store knows all that are before it, and still there.
    pub(crate) segment: u64,
    /// The last frame before that segment.
    pub(crate) before: u64,
}

impl Default for Applied {
    /// Of a new log.
    fn default() -> Applied {
        Applied { frame: 0, segment: 1, before: 0 }
    }
}

/// What opening the log came to.
pub(crate) struct Opened {
    /// For readers.
    pub(crate) log: Log,
    /// The number of the last frame.
    pub(crate) last: u64,
    /// An empty segment to go on in.
    pub(crate) active: Segment,
}

impl Log {
    /// Opens the log in `directory`. `sealed` are the segments that the store knows, `applied` is how far it holds the
    /// log's changes for sure; `apply` gets those of every later frame, in order.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] when something is missing that was durable, or what `apply` returns.
    pub(crate) fn open(
        directory: &Path,
        sealed: BTreeMap<u64, Meta>,
        applied: Applied,
        mut apply: impl FnMut(Part<'_>) -> Result<(), OpenError>,
    ) -> Result<Opened, OpenError> {
        create_directory(directory)?;
        let numbers = Segment::numbers(directory)?;
        for (number, meta) in &sealed {
            check_sealed(directory, *number, meta)?;
        }
        let mut last = applied.before;
        let mut opened = Vec::new();
        let mut table = sealed;
        let mut next_number = applied.segment;
        for number in numbers {
            if number < applied.segment {
                if !table.contains_key(&number) {
                    // Its removal was decided and durable in the store, and was cut short.
                    Segment::remove(directory, number)
                        .map_err(failed("remove", &segment::path(directory, number)))?;
                }
                continue;
            }
            if number != next_number {
                let path = segment::path(directory, next_number);
                return Err(damaged(&path, "is missing, and later segments of the log are there"));
            }
            next_number += 1;
            let segment = Segment::open(directory, number)?;
            let meta = scan(&segment, &mut last, applied.frame, &mut apply)?;
            opened.push((segment, meta));
        }
        if last < applied.frame {
            let path = segment::path(directory, next_number.saturating_sub(1).max(applied.segment));
            let what = format!(
                "the log ends with frame {last}, but frame {} was durable: its end is missing",
                applied.frame
            );
            return Err(damaged(&path, &what));
        }
        let mut active = None;
        for (segment, meta) in opened {
            let number = segment.head.number;
            let path = segment.path().to_owned();
            if meta.end > frame::SEGMENT_HEAD_BYTES as u64 {
                // What a crash left behind the last frame must not look like part of it when there is more behind it.
                segment
                    .cut(meta.end)
                    .and_then(|()| segment.sync())
                    .map_err(failed("cut", &path))?;
                table.insert(number, meta);
            } else if active.is_none() && number + 1 == next_number {
                active = Some(segment);
            } else {
                // Empty, with others behind it: nothing was ever written to them either.
                table.insert(number, meta);
            }
        }
        let active = match active {
            Some(active) => active,
            // A disk too full for a whole segment may still have room for settlements, and so become less full.
            None => Segment::create(directory, next_number, SEGMENT_BYTES)
                .or_else(|_| Segment::create(directory, next_number, 0))
                .map_err(failed("create", &segment::path(directory, next_number)))?,
        };
        let log = Log {
            directory: directory.to_owned(),
            table: RwLock::new(table),
            walks: Mutex::default(),
        };
        Ok(Opened { log, last, active })
    }

    /// (newest seq, bytes up to it) of each lane that has records in the log.
    pub(crate) fn lanes(&self) -> BTreeMap<LaneId, (u64, u64)> {
        let mut lanes = BTreeMap::new();
        for meta in self.table().values() {
            for (lane, held) in &meta.lanes {
                lanes.insert(LaneId(*lane), (held.last, held.bytes));
            }
        }
        lanes
    }

    /// How many records of `lane` from `from` to `newest` the log holds.
    pub(crate) fn held(&self, lane: LaneId, from: Seq, newest: u64) -> u64 {
        let table = self.table();
        let held = table.values().filter_map(|meta| meta.lanes.get(&lane.0));
        held.map(|held| (held.last.min(newest) + 1).saturating_sub(held.first.max(from.0))).sum()
    }

    /// The oldest seq of `lane` that the log holds.
    pub(crate) fn oldest(&self, lane: LaneId) -> Option<Seq> {
        self.table().values().find_map(|meta| meta.lanes.get(&lane.0)).map(|held| Seq(held.first))
    }

    /// The segments before `active` of which nothing is kept.
    pub(crate) fn settled(&self, active: u64, keep_from: impl Fn(LaneId) -> Seq) -> Vec<u64> {
        let table = self.table();
        let settled = table.range(..active).filter(|(_, meta)| meta.is_settled(&keep_from));
        settled.map(|(number, _)| *number).collect()
    }

    /// Takes a segment out of the readers' sight; its file is removed later.
    pub(crate) fn forget(&self, number: u64) {
        self.table_mut().remove(&number);
        // A reader that rests in it would keep its file from going.
        self.walks().retain(|_, walk| walk.segment() != number);
    }

    /// What a segment holds.
    pub(crate) fn meta(&self, number: u64) -> Option<Meta> {
        self.table().get(&number).cloned()
    }

    /// The segments, in order.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        self.table().keys().copied().collect()
    }

    /// The segment that holds `seq` of `lane`, and where in it to begin walking.
    fn place(&self, lane: LaneId, seq: Seq) -> Option<(u64, u64)> {
        let table = self.table();
        table.iter().rev().find_map(|(number, meta)| Some((*number, meta.place(lane, seq)?)))
    }

    fn table(&self) -> RwLockReadGuard<'_, BTreeMap<u64, Meta>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::spool) fn table_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<u64, Meta>> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn walks(&self) -> MutexGuard<'_, HashMap<LaneId, Walk>> {
        self.walks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A segment that the store knows must be there, whole.
fn check_sealed(directory: &Path, number: u64, meta: &Meta) -> Result<(), OpenError> {
    let segment = Segment::open(directory, number)?;
    let bytes = segment.len().map_err(failed("read", segment.path()))?;
    if bytes < meta.end {
        let what = format!("has {bytes} bytes, must have {}: it was truncated", meta.end);
        return Err(damaged(segment.path(), &what));
    }
    if segment.head.salt != meta.salt {
        return Err(damaged(segment.path(), "is not the segment that was written under this name"));
    }
    Ok(())
}

/// Reads a segment whole, and hands out the changes of its frames after `applied`.
fn scan(
    segment: &Segment,
    last: &mut u64,
    applied: u64,
    apply: &mut impl FnMut(Part<'_>) -> Result<(), OpenError>,
) -> Result<Meta, OpenError> {
    let path = segment.path();
    let bytes = segment.read_all().map_err(failed("read", path))?;
    let (frames, tail) = recovery::frames(&bytes, segment.head, Some(*last + 1));
    let end = match tail {
        Tail::End(end) => end,
        Tail::Damaged(at, what) => return Err(damaged(path, &format!("at byte {at}: {what}"))),
    };
    let mut meta = Meta { salt: segment.head.salt, end, last_frame: *last, ..Meta::default() };
    for found in frames {
        let mut at = found.parts_at;
        for part in found.parts {
            let size = frame::part_size(&part);
            if let Part::Chunk { lane, first, value } = part {
                let chunk = Chunk::decode(value)
                    .map_err(|error| damaged(path, &format!("at byte {at}: {error}")))?;
                let last = Seq(first.0 + chunk.len() as u64 - 1);
                let bytes = chunk.bytes_before + chunk.bytes() as u64;
                meta.add(Placed { lane, first, last, bytes, at });
            } else if found.head.number > applied {
                apply(part)?;
            }
            at += size;
        }
        *last = found.head.number;
        meta.last_frame = *last;
    }
    Ok(meta)
}
