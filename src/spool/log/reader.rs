//! Records back from the log: a walk along a segment, from a place near the wanted seq.

use std::sync::Arc;

use bytes::Bytes;

use super::super::chunk::Chunk;
use super::super::entry::{Entry, LaneId, Seq};
use super::super::error::ReadError;
use super::Log;
use super::frame::{FRAME_HEAD_BYTES, FrameHead, PART_MARK, Part, PartHead};
use super::segment::Segment;
use crate::clock::UnixMillis;

/// Read from the file at once.
const BLOCK_BYTES: usize = 128 << 10;

/// A place in a segment, and the bytes read around it.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    segment: Arc<Segment>,
    /// Where the next part or frame begins.
    at: u64,
    /// Nothing of the lane below this seq lies at or after `at`.
    seq: Seq,
    block: Bytes,
    block_at: u64,
}

/// A chunk's part, checked, and what it holds.
struct Read {
    first: Seq,
    /// The part; the chunk's bytes lie within.
    bytes: Bytes,
    value: std::ops::Range<usize>,
}

impl Log {
    /// Reads into `entries` what [`super::super::Spool::peek`] gives; `newest` is the newest seq that may be read. On an error
    /// they are those before the damage.
    pub(crate) fn read(
        &self,
        entries: &mut Vec<Entry>,
        lane: LaneId,
        from: Seq,
        newest: u64,
        (records_max, bytes_max): (usize, usize),
    ) -> Result<(), ReadError> {
        let mut bytes = 0;
        let mut next = from;
        let mut walk = self.resume(lane, from);
        while next.0 <= newest && entries.len() < records_max {
            let read = self.chunk(lane, next, &mut walk)?;
            let chunk = read.chunk().map_err(|what| damaged(lane, next, &what))?;
            let end = Seq(read.first.0 + chunk.len() as u64);
            for entry in chunk.entries(read.first, next, &read.bytes) {
                bytes += entry.bytes();
                let full =
                    entries.len() == records_max || (!entries.is_empty() && bytes > bytes_max);
                if full || entry.seq.0 > newest {
                    self.rest(lane, walk);
                    return Ok(());
                }
                entries.push(entry);
            }
            next = end;
            if let Some(walk) = &mut walk {
                walk.at += read.bytes.len() as u64;
                walk.seq = next;
            }
        }
        self.rest(lane, walk);
        Ok(())
    }

    /// When the chunk that holds `seq` was committed.
    pub(crate) fn committed_at(&self, lane: LaneId, seq: Seq) -> Result<UnixMillis, ReadError> {
        let read = self.chunk(lane, seq, &mut None)?;
        read.chunk().map(|chunk| chunk.committed_at).map_err(|what| damaged(lane, seq, &what))
    }

    /// The chunk that holds `seq`, where `walk` then stands.
    fn chunk(&self, lane: LaneId, seq: Seq, walk: &mut Option<Walk>) -> Result<Read, ReadError> {
        // What an earlier walk has read may have been written on since: then it is read anew.
        let walked = walk.as_mut().and_then(|walk| walk.chunk(lane, seq).ok().flatten());
        if let Some(read) = walked.filter(|read| read.first <= seq) {
            return Ok(read);
        }
        let mut found = self.find(lane, seq)?;
        let read = found.chunk(lane, seq).map_err(|what| {
            damaged(lane, seq, &format!("{}: {what}", found.segment.path().display()))
        })?;
        let read = read.ok_or_else(|| {
            damaged(
                lane,
                seq,
                &format!("{}: the segment ends before it", found.segment.path().display()),
            )
        })?;
        *walk = Some(found);
        if read.first > seq {
            return Err(damaged(lane, seq, "the log skips it"));
        }
        Ok(read)
    }

    fn find(&self, lane: LaneId, seq: Seq) -> Result<Walk, ReadError> {
        let place = self
            .place(lane, seq)
            .ok_or_else(|| damaged(lane, seq, "no segment of the log holds it"))?;
        let (number, at) = place;
        let segment = Segment::open(&self.directory, number)
            .map_err(|error| damaged(lane, seq, &error.to_string()))?;
        Ok(Walk { segment: Arc::new(segment), at, seq: Seq(0), block: Bytes::new(), block_at: at })
    }

    /// Where the last read of `lane` ended, if that is not past `from`.
    fn resume(&self, lane: LaneId, from: Seq) -> Option<Walk> {
        self.walks().remove(&lane).filter(|walk| walk.seq <= from)
    }

    fn rest(&self, lane: LaneId, walk: Option<Walk>) {
        if let Some(walk) = walk {
            self.walks().insert(lane, walk);
        }
    }
}

impl Walk {
    /// The number of its segment.
    pub(super) fn segment(&self) -> u64 {
        self.segment.head.number
    }

    /// Walks to the chunk of `lane` that holds `seq` or a later one, and reads it; `None` at the segment's end.
    fn chunk(&mut self, lane: LaneId, seq: Seq) -> Result<Option<Read>, String> {
        loop {
            let bytes = self.bytes(FRAME_HEAD_BYTES)?;
            if bytes.starts_with(&PART_MARK) {
                let head = PartHead::decode(&bytes).map_err(|error| self.place(&error))?;
                match head.chunk_key(&bytes) {
                    Some((found, first)) if found == lane && first >= self.seq => {
                        if let Some(read) = self.read(head, seq)? {
                            return Ok(Some(read));
                        }
                    }
                    _ => {}
                }
                self.at += head.size() as u64;
            } else if FrameHead::decode(&bytes)
                .is_ok_and(|head| head.salt == self.segment.head.salt)
            {
                self.at += FRAME_HEAD_BYTES as u64;
            } else {
                return Ok(None);
            }
        }
    }

    /// Reads the chunk at `at`; `None` when it ends before `seq`.
    fn read(&mut self, head: PartHead, seq: Seq) -> Result<Option<Read>, String> {
        let bytes = self.bytes(head.size())?;
        let part = head.part(&bytes).map_err(|error| self.place(&error))?;
        let Part::Chunk { first, value, .. } = part else { return Ok(None) };
        let from = value.as_ptr() as usize - bytes.as_ptr() as usize;
        let read = Read { first, value: from..from + value.len(), bytes: bytes.clone() };
        let ends_before = seq.0 >= first.0 + read.chunk()?.len() as u64;
        Ok((!ends_before).then_some(read))
    }

    /// Up to `wanted` bytes from `at` on; fewer at the end of the file.
    fn bytes(&mut self, wanted: usize) -> Result<Bytes, String> {
        let skip = self.at.checked_sub(self.block_at).and_then(|skip| usize::try_from(skip).ok());
        let held = skip.filter(|skip| skip.saturating_add(wanted) <= self.block.len());
        let skip = if let Some(skip) = held {
            skip
        } else {
            let block = self.segment.read(self.at, wanted.max(BLOCK_BYTES));
            self.block = Bytes::from(block.map_err(|error| self.place(&error))?);
            self.block_at = self.at;
            0
        };
        Ok(self.block.slice(skip..(skip + wanted).min(self.block.len())))
    }

    fn place(&self, what: &dyn std::fmt::Display) -> String {
        format!("at byte {}: {what}", self.at)
    }
}

impl Read {
    fn chunk(&self) -> Result<Chunk<'_>, String> {
        let value = self.bytes.get(self.value.clone()).unwrap_or_default();
        Chunk::decode(value).map_err(|error| error.to_string())
    }
}

fn damaged(lane: LaneId, seq: Seq, what: &str) -> ReadError {
    ReadError::Damaged { lane, seq, what: what.to_owned() }
}
