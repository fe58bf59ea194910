//! PURE. Which records lie in which segment.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::super::entry::{LaneId, Seq};

/// Within a segment a lane's place is noted about every so many bytes: how far a reader walks at most.
const MARK_BYTES: u64 = 256 << 10;

/// What a segment holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// The segment's salt.
    pub(crate) salt: u64,
    /// Where its last frame ends.
    pub(crate) end: u64,
    /// Number of its last frame, or of the last frame before it.
    pub(crate) last_frame: u64,
    /// The lanes that have records in it.
    pub(crate) lanes: BTreeMap<u32, Held>,
}

/// The records of a lane in one segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    /// Their first seq.
    pub(crate) first: u64,
    /// Their last seq.
    pub(crate) last: u64,
    /// Bytes of the lane's records up to it, since the lane began.
    pub(crate) bytes: u64,
    /// (first seq of a chunk, where its part begins), ascending.
    marks: Vec<(u64, u64)>,
}

/// A chunk where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    /// Its lane.
    pub(crate) lane: LaneId,
    /// Its first seq.
    pub(crate) first: Seq,
    /// Its last seq.
    pub(crate) last: Seq,
    /// Bytes of the lane's records up to it.
    pub(crate) bytes: u64,
    /// Where its part begins in the segment.
    pub(crate) at: u64,
}

impl Meta {
    /// Notes a chunk; chunks of a lane come in order.
    pub(crate) fn add(&mut self, chunk: Placed) {
        let held = self.lanes.entry(chunk.lane.0).or_insert_with(|| Held {
            first: chunk.first.0,
            last: 0,
            bytes: 0,
            marks: Vec::new(),
        });
        held.last = chunk.last.0;
        held.bytes = chunk.bytes;
        if held.marks.last().is_none_or(|(_, at)| chunk.at >= at + MARK_BYTES) {
            held.marks.push((chunk.first.0, chunk.at));
        }
    }

    /// Where to begin walking towards `seq` of `lane`, if the segment holds it.
    pub(crate) fn place(&self, lane: LaneId, seq: Seq) -> Option<u64> {
        let held = self.lanes.get(&lane.0)?;
        if !(held.first..=held.last).contains(&seq.0) {
            return None;
        }
        let after = held.marks.partition_point(|(first, _)| *first <= seq.0);
        held.marks.get(after.checked_sub(1)?).map(|(_, at)| *at)
    }

    /// Whether all of its records lie below what `keep_from` says of their lane.
    pub(crate) fn is_settled(&self, keep_from: impl Fn(LaneId) -> Seq) -> bool {
        self.lanes.iter().all(|(lane, held)| held.last < keep_from(LaneId(*lane)).0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A walk from the place that is given meets the seq's chunk, and does not begin far from it.
        #[test]
        fn a_place_is_at_or_before_the_chunk(sizes in proptest::collection::vec((1_u64..20, 1_u64..90_000), 1..60), pick: prop::sample::Index) {
            let (mut meta, mut at, mut first, mut chunks) = (Meta::default(), 28, 1, Vec::new());
            for (records, bytes) in sizes {
                let last = first + records - 1;
                meta.add(Placed { lane: LaneId(3), first: Seq(first), last: Seq(last), bytes: 0, at });
                chunks.push((first, last, at));
                (first, at) = (last + 1, at + bytes);
            }
            let (first, last, at) = *pick.get(&chunks);
            for seq in [first, last] {
                let place = meta.place(LaneId(3), Seq(seq)).unwrap();
                prop_assert!(place <= at && at - place <= MARK_BYTES + 90_000);
                prop_assert!(chunks.iter().any(|chunk| chunk.2 == place));
            }
            let end = chunks.last().unwrap().1;
            prop_assert_eq!(meta.place(LaneId(3), Seq(end + 1)), None);
            prop_assert_eq!(meta.place(LaneId(4), Seq(1)), None);
            prop_assert!(meta.is_settled(|_| Seq(end + 1)) && !meta.is_settled(|_| Seq(end)));
        }
    }
}
