//! PURE. The log's frames as bytes: one frame is one commit, valid whole or not at all.
//!
//! ```text
//! segment  head ‖ frame ‖ frame ‖ …                    then zeros, or the end of the file
//! head     "PBXLOG" ‖ version u16 ‖ number u64 ‖ salt u64 ‖ CRC-32 u32                              28 bytes
//! frame    "PBXF" ‖ number u64 ‖ durable u64 ‖ salt u64 ‖ length u32 ‖ CRC-32 u32 ‖ parts           36 bytes + length
//! part     B0 5A ‖ kind u8 ‖ tree u8 ‖ key length u16 ‖ value length u32 ‖ CRC-32 u32 ‖ key ‖ value 14 bytes + both
//! ```
//! Integers are big-endian. A part's CRC covers the rest of its head, its key and its value, so that a part can be
//! trusted alone, and what lies around a damaged one be salvaged. A frame's CRC covers its head and the CRCs of
//! its parts: the records' bytes are summed once. `durable` is the newest frame that was on stable storage when this one
//! was written: where a frame is missing, any later one tells whether it may be. The salt is the segment's own random number: what a producer puts into
//! an event, or what a file held before, never looks like a frame.

use super::super::entry::{LaneId, Seq};
use super::part::{CHUNK, PUT, REMOVE, Reader, Writer, add_part, chunk_key};
pub(crate) use super::part::{
    FrameError, PART_HEAD_BYTES, PART_MARK, Part, PartHead, Tree, part_size,
};

/// Bytes before a segment's first frame.
pub(crate) const SEGMENT_HEAD_BYTES: usize = 28;
/// Bytes before a frame's first part.
pub(crate) const FRAME_HEAD_BYTES: usize = 36;
/// What a new segment is written in; another version is refused.
pub(crate) const VERSION: u16 = 2;

const SEGMENT_MARK: &[u8; 6] = b"PBXLOG";
pub(crate) const FRAME_MARK: [u8; 4] = *b"PBXF";

/// The head of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHead {
    /// Its place among the segments, from 1.
    pub(crate) number: u64,
    /// Random: tells its frames from anything else.
    pub(crate) salt: u64,
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHead {
    /// Its place in the log, from 1, contiguous over all segments.
    pub(crate) number: u64,
    /// The newest frame that was durable when this one was written.
    pub(crate) durable: u64,
    /// The segment's salt.
    pub(crate) salt: u64,
    /// Bytes of its parts.
    pub(crate) bytes: u32,
    crc: u32,
}

/// Builds one frame after the other in a buffer that it keeps.
#[derive(Debug, Default)]
pub(crate) struct FrameBuilder {
    bytes: Vec<u8>,
    parts: crc32fast::Hasher,
}

impl FrameBuilder {
    /// Begins a frame anew.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(FRAME_HEAD_BYTES, 0);
        self.parts = crc32fast::Hasher::new();
    }

    /// Whether it has no part.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.len() <= FRAME_HEAD_BYTES
    }

    /// Where the next part will begin, in bytes from the frame's beginning.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds records; `encode` appends the chunk's bytes.
    pub(crate) fn chunk(&mut self, lane: LaneId, first: Seq, encode: impl FnOnce(&mut Vec<u8>)) {
        self.part(CHUNK, 0, &chunk_key(lane, first), encode);
    }

    /// Adds a put.
    pub(crate) fn put(&mut self, tree: Tree, key: &[u8], value: &[u8]) {
        self.part(PUT, tree as u8, key, |bytes| bytes.extend_from_slice(value));
    }

    /// Adds a removal.
    pub(crate) fn remove(&mut self, tree: Tree, key: &[u8]) {
        self.part(REMOVE, tree as u8, key, |_| {});
    }

    fn part(&mut self, kind: u8, tree: u8, key: &[u8], value: impl FnOnce(&mut Vec<u8>)) {
        let crc = add_part(&mut self.bytes, kind, tree, key, value);
        self.parts.update(&crc.to_be_bytes());
    }

    /// The frame's bytes, as the `number`th of the log, in a segment of `salt`.
    pub(crate) fn finish(&mut self, number: u64, durable: u64, salt: u64) -> &[u8] {
        let bytes = u32::try_from(self.bytes.len() - FRAME_HEAD_BYTES).expect("groups are bounded");
        let head = FrameHead { number, durable, salt, bytes, crc: 0 };
        let head = FrameHead { crc: head.checksum(self.parts.clone()), ..head };
        if let Some(place) = self.bytes.get_mut(..FRAME_HEAD_BYTES) {
            place.copy_from_slice(&head.encode());
        }
        &self.bytes
    }

    /// The puts and removals added so far.
    pub(crate) fn changes(&self) -> impl Iterator<Item = Part<'_>> {
        let mut rest = self.bytes.get(FRAME_HEAD_BYTES..).unwrap_or_default();
        std::iter::from_fn(move || {
            let head = PartHead::decode(rest).ok()?;
            let part = head.read(rest).ok()?;
            rest = rest.get(head.size()..)?;
            Some(part)
        })
        .filter(|part| !matches!(part, Part::Chunk { .. }))
    }

    /// Gives back the memory of an unusually large frame.
    pub(crate) fn shrink(&mut self, bytes_max: usize) {
        if self.bytes.capacity() > bytes_max {
            self.bytes = Vec::new();
        }
    }
}

impl SegmentHead {
    /// Its bytes.
    pub(crate) fn encode(self) -> [u8; SEGMENT_HEAD_BYTES] {
        let mut bytes = [0; SEGMENT_HEAD_BYTES];
        let mut at = Writer(&mut bytes);
        at.put(SEGMENT_MARK);
        at.put(&VERSION.to_be_bytes());
        at.put(&self.number.to_be_bytes());
        at.put(&self.salt.to_be_bytes());
        let crc = crc32fast::hash(bytes.get(..SEGMENT_HEAD_BYTES - 4).unwrap_or_default());
        Writer(bytes.get_mut(SEGMENT_HEAD_BYTES - 4..).unwrap_or_default()).put(&crc.to_be_bytes());
        bytes
    }

    /// Reads it from the first bytes of a file.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub(crate) fn decode(bytes: &[u8]) -> Result<SegmentHead, FrameError> {
        let mut at = Reader(bytes);
        if at.take::<6>()? != *SEGMENT_MARK {
            return Err(FrameError::Mark);
        }
        let version = at.u16()?;
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let head = SegmentHead { number: at.u64()?, salt: at.u64()? };
        at.u32()?;
        if bytes.get(..SEGMENT_HEAD_BYTES) == Some(&head.encode()) {
            Ok(head)
        } else {
            Err(FrameError::Checksum)
        }
    }
}

impl FrameHead {
    fn encode(self) -> [u8; FRAME_HEAD_BYTES] {
        let mut bytes = [0; FRAME_HEAD_BYTES];
        let mut at = Writer(&mut bytes);
        at.put(&FRAME_MARK);
        at.put(&self.number.to_be_bytes());
        at.put(&self.durable.to_be_bytes());
        at.put(&self.salt.to_be_bytes());
        at.put(&self.bytes.to_be_bytes());
        at.put(&self.crc.to_be_bytes());
        bytes
    }

    fn checksum(self, mut parts: crc32fast::Hasher) -> u32 {
        parts.update(self.encode().get(..FRAME_HEAD_BYTES - 4).unwrap_or_default());
        parts.finalize()
    }

    /// Reads the head alone, without its checksum, which needs the parts.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub(crate) fn decode(bytes: &[u8]) -> Result<FrameHead, FrameError> {
        let mut at = Reader(bytes);
        if at.take::<4>()? != FRAME_MARK {
            return Err(FrameError::Mark);
        }
        let (number, durable, salt) = (at.u64()?, at.u64()?, at.u64()?);
        Ok(FrameHead { number, durable, salt, bytes: at.u32()?, crc: at.u32()? })
    }

    /// The frame's size in the file.
    pub(crate) fn size(self) -> u64 {
        FRAME_HEAD_BYTES as u64 + u64::from(self.bytes)
    }

    /// Checks the whole frame, whose parts are `bytes`, and returns them in order.
    ///
    /// # Errors
    /// See [`FrameError`]: any damage within the frame.
    pub(crate) fn parts(self, bytes: &[u8]) -> Result<Vec<Part<'_>>, FrameError> {
        let bytes = bytes.get(..self.bytes as usize).ok_or(FrameError::Short)?;
        let mut sums = crc32fast::Hasher::new();
        let mut parts = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let head = PartHead::decode(rest)?;
            parts.push(head.part(rest)?);
            sums.update(&head.crc.to_be_bytes());
            rest = rest.get(head.size()..).unwrap_or_default();
        }
        if self.checksum(sums) == self.crc { Ok(parts) } else { Err(FrameError::Checksum) }
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
