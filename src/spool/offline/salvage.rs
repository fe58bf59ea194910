//! Reads what is left of a spool out of the bytes of its files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use serde::Serialize;

use super::carve::{Carved, carve};
use super::index::{Index, Lane, Piece, Place};
use super::line::{self, Row};
use super::ranges::count;
use super::{Offline, Progress};
use crate::spool::chunk::{Chunk, Packed};
use crate::spool::entry::LaneId;
use crate::spool::error::OpenError;
use crate::spool::generation::failed;
use crate::spool::log::frame::{PART_HEAD_BYTES, Part, PartHead};
use crate::spool::manifest::Manifest;
use crate::spool::store::Store;

/// Bytes read at once: more than the longest part, a request of the largest size.
const WINDOW_BYTES: usize = 80 << 20;
/// Where a disk refuses to read, it is asked for so many bytes at a time.
const BLOCK_BYTES: usize = 4096;

/// A spool whose every file has been read.
#[derive(Debug)]
pub struct Salvage {
    files: Vec<(PathBuf, File)>,
    index: Index,
    /// What the manifest says of each lane, when it can be read: (newest, cursor).
    floors: BTreeMap<u32, (u64, u64)>,
    bytes: u64,
    unreadable_bytes: u64,
    cut_off: bool,
}

/// What was read, and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Salvaged {
    /// Files looked through.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of these, bytes that the disk refused to read.
    pub unreadable_bytes: u64,
    /// The store's file is missing, or shorter than the manifest says: how much it held is not known.
    pub cut_off: bool,
    /// Records read.
    pub records: u64,
    /// Of these, not settled as far as is known.
    pub queued: u64,
    /// Records that must have been there and are not to be found, settled ones included.
    pub missing: u64,
    /// Of these, not settled: lost.
    pub missing_queued: u64,
    /// What begins like a part of the log or the store, and is damaged; old copies among them.
    pub parts_damaged: u64,
    /// Seqs of which two sound chunks hold different records: the one committed last was taken.
    pub conflicts: u64,
    /// Entries of the quarantine; entries that were released since may be among them.
    pub quarantined: u64,
    /// By lane.
    pub lanes: Vec<LaneSalvaged>,
}

/// One lane.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LaneSalvaged {
    /// Its id.
    pub lane: u32,
    /// Its integration; `None` when its name was not found.
    pub integration: Option<String>,
    /// The newest cursor found: records before it are settled. `None` when there is none: all count as queued.
    pub cursor: Option<u64>,
    /// The newest seq of which there is evidence.
    pub newest: u64,
    /// Records read.
    pub records: u64,
    /// Of these, not settled.
    pub queued: u64,
    /// Seqs from the cursor on that are not to be found: (first, last).
    pub missing_queued: Vec<(u64, u64)>,
    /// How many settled ones are not to be found: removed as planned, or lost.
    pub missing_settled: u64,
}

impl Salvaged {
    /// Whether everything was read that was to be expected: no queued record is missing, and nothing speaks of more.
    #[must_use]
    pub fn complete(&self) -> bool {
        let found = !self.lanes.is_empty() || self.quarantined > 0;
        found && self.missing_queued == 0 && self.unreadable_bytes == 0 && !self.cut_off
    }
}

/// The pieces of large values: by the values' ids, then by number.
type Pieces = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, Vec<u8>>>;

impl Salvage {
    /// Looks through every file of the spool.
    ///
    /// # Errors
    /// [`OpenError::Io`] when a file cannot be opened; what the disk refuses to read within one is counted instead.
    pub fn scan(offline: &Offline, progress: Progress<'_>) -> Result<Salvage, OpenError> {
        let mut files = Vec::new();
        let mut lengths = Vec::new();
        for path in offline.files()? {
            let file = File::open(&path).map_err(failed("open", &path))?;
            lengths.push(file.metadata().map_err(failed("look at", &path))?.len());
            files.push((path, file));
        }
        let bytes = lengths.iter().sum();
        let (mut index, mut pieces) = (Index::default(), Pieces::new());
        let (mut done, mut unreadable_bytes) = (0, 0);
        for (number, ((_, file), length)) in files.iter().zip(&lengths).enumerate() {
            let mut tick = |at| progress(done + at, bytes);
            unreadable_bytes +=
                look_through(file, number, *length, &mut index, &mut pieces, &mut tick);
            done += length;
        }
        for (_, pieces) in pieces {
            let part: Vec<u8> = pieces.into_values().flatten().collect();
            carve(&part, |_, carved| {
                if let Carved::Part(part @ Part::Put { .. }, _) = carved {
                    index.add(Place { file: 0, at: 0, bytes: 0 }, &part);
                }
            });
        }
        // A manifest that cannot be read is no evidence; what it would have said is unknown.
        let manifest = Manifest::read(offline.directory()).ok().flatten();
        let cut_off = manifest.as_ref().is_some_and(|manifest| {
            let generation = offline.directory().join(&manifest.generation);
            manifest.check_file(&generation, &Store::file(&generation)).is_err()
        });
        let floors = manifest.map_or_else(BTreeMap::new, |manifest| {
            let lanes = manifest.lanes.into_iter();
            lanes.map(|floor| (floor.lane, (floor.newest, floor.cursor))).collect()
        });
        let mut salvage = Salvage { files, index, floors, bytes, unreadable_bytes, cut_off };
        for lane in salvage.floors.keys() {
            salvage.index.lanes.entry(LaneId(*lane)).or_default();
        }
        Ok(salvage)
    }

    /// The bytes at `place`.
    fn read(&self, place: Place) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; place.bytes];
        let (_, file) = self.files.get(place.file).ok_or(io::ErrorKind::NotFound)?;
        file.read_exact_at(&mut bytes, place.at)?;
        Ok(bytes)
    }

    /// Writes what was found as lines, lane by lane in the order of seqs, then the quarantine; with `queued_only`, the
    /// queued records alone. Returns what was read and what was not.
    ///
    /// # Errors
    /// What `out` returns, and a file that has changed since it was looked through.
    pub fn write(&self, queued_only: bool, out: &mut dyn Write) -> io::Result<Salvaged> {
        let mut salvaged = Salvaged {
            files: self.files.len() as u64,
            bytes: self.bytes,
            unreadable_bytes: self.unreadable_bytes,
            cut_off: self.cut_off,
            parts_damaged: self.index.damaged,
            ..Salvaged::default()
        };
        for (id, lane) in &self.index.lanes {
            self.write_lane(*id, lane, queued_only, &mut salvaged, out)?;
        }
        let released = &self.index.released;
        for (id, entry) in self.index.quarantine.iter().filter(|(id, _)| !released.contains(id)) {
            salvaged.quarantined += 1;
            if !queued_only {
                out.write_all(&line::of_quarantined(*id, entry))?;
            }
        }
        out.flush()?;
        Ok(salvaged)
    }

    fn write_lane(
        &self,
        id: LaneId,
        lane: &Lane,
        queued_only: bool,
        salvaged: &mut Salvaged,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let floor = self.floors.get(&id.0).copied();
        let found = lane.cursor().map(|seq| seq.0);
        let known = found.max(floor.map(|(_, cursor)| cursor));
        let cursor = known.unwrap_or(1);
        let newest = lane.newest().max(floor.map_or(0, |(newest, _)| newest)).max(cursor - 1);
        let pieces = lane.pieces();
        let name = lane.name.as_ref().map(|(name, _)| name.as_str());
        let mut told = LaneSalvaged {
            lane: id.0,
            integration: name.map(str::to_owned),
            cursor: known,
            newest,
            ..LaneSalvaged::default()
        };
        for piece in &pieces.taken {
            let value = self.read(piece.held.place)?;
            let chunk = Chunk::decode(&value).map_err(io::Error::other)?;
            for (seq, Packed { record_type, record, event }) in in_piece(piece, &chunk) {
                let state = lane.state(seq, cursor);
                told.records += 1;
                told.queued += u64::from(seq >= cursor);
                if queued_only && seq < cursor {
                    continue;
                }
                let committed_at = chunk.committed_at;
                let (integration, lane) = (name, id.0);
                let row =
                    Row { integration, lane, seq, state, record_type, committed_at, record, event };
                out.write_all(&line::of_record(&row))?;
            }
        }
        told.missing_queued = pieces.seqs.missing_in(cursor, newest);
        let settled = if cursor > 1 { pieces.seqs.missing_in(1, cursor - 1) } else { Vec::new() };
        told.missing_settled = count(settled);
        salvaged.records += told.records;
        salvaged.queued += told.queued;
        let lost = count(told.missing_queued.iter().copied());
        salvaged.missing_queued += lost;
        salvaged.missing += lost + told.missing_settled;
        salvaged.conflicts += self.conflicts(&pieces.taken, &pieces.passed_over)?;
        salvaged.lanes.push(told);
        Ok(())
    }

    /// Seqs of `passed_over` whose records differ from those taken.
    fn conflicts(&self, taken: &[Piece<'_>], passed_over: &[Piece<'_>]) -> io::Result<u64> {
        let mut conflicts = 0;
        for old in passed_over {
            let value = self.read(old.held.place)?;
            let chunk = Chunk::decode(&value).map_err(io::Error::other)?;
            let records: BTreeMap<u64, Packed<'_>> = in_piece(old, &chunk).collect();
            let from = taken.partition_point(|piece| piece.to < old.from);
            for piece in taken.iter().skip(from).take_while(|piece| piece.from <= old.to) {
                let value = self.read(piece.held.place)?;
                let chunk = Chunk::decode(&value).map_err(io::Error::other)?;
                let differing = in_piece(piece, &chunk)
                    .filter(|(seq, record)| records.get(seq).is_some_and(|other| other != record));
                conflicts += differing.count() as u64;
            }
        }
        Ok(conflicts)
    }
}

/// The records of a piece with their seqs.
fn in_piece<'a>(
    piece: &Piece<'_>,
    chunk: &'a Chunk<'a>,
) -> impl Iterator<Item = (u64, Packed<'a>)> {
    let (from, to) = (piece.from, piece.to);
    (piece.held.first..).zip(chunk.records()).filter(move |(seq, _)| (from..=to).contains(seq))
}

/// Carves a file; returns how many of its bytes cannot be read.
fn look_through(
    file: &File,
    number: usize,
    length: u64,
    index: &mut Index,
    pieces: &mut Pieces,
    tick: &mut dyn FnMut(u64),
) -> u64 {
    let (mut base, mut unreadable, mut seen) = (0, 0, 0);
    let mut window = Vec::new();
    while base < length {
        let left = usize::try_from(length - base).unwrap_or(usize::MAX);
        window.resize(left.min(WINDOW_BYTES), 0);
        let refused = read_window(file, base, &mut window);
        // Windows overlap: what was refused before is counted once.
        unreadable += refused.iter().filter(|at| **at >= seen).count() as u64 * BLOCK_BYTES as u64;
        let end = base + window.len() as u64;
        seen = seen.max(end);
        let mut done = window.len();
        let mut damaged = Vec::new();
        carve(&window, |at, carved| match carved {
            Carved::Part(Part::Piece { key, value }, _) => {
                let (id, number) = key.split_at_checked(16).unwrap_or_default();
                let of = pieces.entry(id.to_vec()).or_default();
                of.insert(number.to_vec(), value.to_vec());
            }
            Carved::Part(part, size) => {
                let bytes = match part {
                    Part::Chunk { value, .. } | Part::Put { value, .. } => value.len(),
                    _ => 0,
                };
                let at = base + (at + size - bytes) as u64;
                index.add(Place { file: number, at, bytes }, &part);
            }
            Carved::Damaged => damaged.push(at),
        });
        // What looks damaged may only be cut off by the window's end: then the next window begins with it.
        let is_cut_off = |at: &&usize| {
            let head = window.get(**at..).and_then(|rest| PartHead::decode(rest).ok());
            **at > 0 && head.is_some_and(|head| **at + head.size() > window.len())
        };
        if end < length {
            let cut_off = damaged.iter().find(is_cut_off).copied();
            done = cut_off.unwrap_or(window.len().saturating_sub(PART_HEAD_BYTES).max(1));
        }
        index.damaged += damaged.iter().filter(|at| **at < done).count() as u64;
        base += done as u64;
        tick(base);
    }
    unreadable.min(length)
}

/// Fills `window` from `at` on. Blocks that the disk refuses are zeros: their offsets are returned.
fn read_window(file: &File, at: u64, window: &mut [u8]) -> Vec<u64> {
    if file.read_exact_at(window, at).is_ok() {
        return Vec::new();
    }
    let mut refused = Vec::new();
    for (block, place) in window.chunks_mut(BLOCK_BYTES).zip((at..).step_by(BLOCK_BYTES)) {
        if file.read_exact_at(block, place).is_err() {
            block.fill(0);
            refused.push(place);
        }
    }
    refused
}
