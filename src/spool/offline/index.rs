//! PURE. What was found in the bytes of a spool, and what it adds up to: which copy of a seq counts, and which seqs are
//! missing.
//!
//! Values lie in a spool more than once: in the log, in the store, and where the engine has left old copies behind. Chunks
//! of the same lane and first seq that differ come from a crash: the first was never acknowledged, its seqs were given
//! again. The one that was committed later counts.

use std::collections::{BTreeMap, BTreeSet};

use super::super::chunk::{Chunk, parse_key};
use super::super::entry::{Delivery, End, LaneId, Quarantined, Seq};
use super::super::log::frame::{Part, Tree};
use super::super::quarantine;
use super::super::sealed::unseal;
use super::super::store::Tallies;
use super::ranges::Ranges;
use crate::clock::UnixMillis;

/// Where bytes lie: in which of the files, from where on, how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Index into the files.
    pub(super) file: usize,
    /// Offset in bytes.
    pub(super) at: u64,
    /// Length in bytes.
    pub(super) bytes: usize,
}

/// Everything found. Bytes stay where they are: only their places are held.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// By lane id; a lane may be known by its chunks alone.
    pub(super) lanes: BTreeMap<LaneId, Lane>,
    /// Quarantine entries by id.
    pub(super) quarantine: BTreeMap<u64, Quarantined>,
    /// Entries that the log says have left the quarantine.
    pub(super) released: BTreeSet<u64>,
    /// What begins like a part and is none, or does not decode.
    pub(super) damaged: u64,
}

/// What is known of a lane.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// The integration's name and which of its lanes.
    pub(super) name: Option<(String, u32)>,
    /// The newest found: the ones with the most settled records.
    pub(super) tallies: Option<Tallies>,
    /// Sound chunks by first seq and checksum.
    pub(super) chunks: BTreeMap<(u64, u32), Held>,
    /// How records ended: (records, end) by first seq.
    pub(super) ends: BTreeMap<u64, (u64, End)>,
    /// Records that ended otherwise than those around them, by seq.
    pub(super) apart: BTreeMap<u64, End>,
}

/// A sound chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// First seq.
    pub(super) first: u64,
    /// Last seq.
    pub(super) last: u64,
    /// When it was committed.
    pub(super) committed_at: UnixMillis,
    /// Where its value lies.
    pub(super) place: Place,
}

impl Index {
    /// Takes in a sound part, whose value lies at `place`. Pieces are the caller's to put together.
    pub(super) fn add(&mut self, place: Place, part: &Part<'_>) {
        match *part {
            Part::Chunk { lane, first, value } => match Chunk::decode(value) {
                Ok(chunk) => {
                    let last = first.0 + chunk.len() as u64 - 1;
                    let held =
                        Held { first: first.0, last, committed_at: chunk.committed_at, place };
                    let lane = self.lanes.entry(lane).or_default();
                    lane.chunks.entry((first.0, crc32fast::hash(value))).or_insert(held);
                }
                Err(_) => self.damaged += 1,
            },
            Part::Put { tree, key, value } => {
                if self.add_put(tree, key, value).is_none() {
                    self.damaged += 1;
                }
            }
            Part::Remove { tree: Tree::Quarantine, key } => {
                self.released.extend(key.try_into().map(u64::from_be_bytes));
            }
            Part::Remove { .. } | Part::Piece { .. } => {}
        }
    }

    /// `None` when it does not decode.
    fn add_put(&mut self, tree: Tree, key: &[u8], value: &[u8]) -> Option<()> {
        let lane = <[u8; 4]>::try_from(key).map(|id| LaneId(u32::from_be_bytes(id)));
        match (tree, lane) {
            (Tree::Lanes, Ok(id)) => {
                self.lanes.entry(id).or_default().name = Some(unseal(key, value).ok()?);
            }
            (Tree::Cursors, Ok(id)) => {
                let tallies: Tallies = unseal(key, value).ok()?;
                let lane = self.lanes.entry(id).or_default();
                if lane.tallies.is_none_or(|known| known.settled() <= tallies.settled()) {
                    lane.tallies = Some(tallies);
                }
            }
            (Tree::Quarantine, _) => {
                let id = key.try_into().map(u64::from_be_bytes).ok()?;
                self.quarantine.insert(id, quarantine::decode(key, value).ok()?);
            }
            (Tree::Deliveries, _) => {
                let delivery: Delivery = unseal(key, value).ok()?;
                let lane = self.lanes.entry(parse_key(key).ok()?.0).or_default();
                let Delivery { first, records, end, apart, .. } = delivery;
                lane.ends.insert(first.0, (records, end));
                lane.apart.extend(apart.into_iter().map(|(seq, end)| (seq.0, end)));
            }
            _ => {}
        }
        Some(())
    }
}

/// Some seqs of one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    /// The chunk.
    pub(super) held: &'a Held,
    /// First seq taken from it.
    pub(super) from: u64,
    /// Last seq taken from it.
    pub(super) to: u64,
}

/// Which chunk each seq of a lane is read from.
#[derive(Debug, Default)]
pub(super) struct Pieces<'a> {
    /// In the order of seqs, without overlap.
    pub(super) taken: Vec<Piece<'a>>,
    /// Seqs of chunks that another chunk holds as well.
    pub(super) passed_over: Vec<Piece<'a>>,
    /// All seqs taken.
    pub(super) seqs: Ranges,
}

impl Lane {
    /// Chooses a chunk for each seq that some sound chunk holds: the one that was committed last.
    pub(super) fn pieces(&self) -> Pieces<'_> {
        let mut chunks: Vec<&Held> = self.chunks.values().collect();
        chunks.sort_by_key(|held| {
            std::cmp::Reverse((held.committed_at, std::cmp::Reverse(held.first)))
        });
        let mut pieces = Pieces::default();
        for held in chunks {
            let free = pieces.seqs.missing_in(held.first, held.last);
            let mut taken = 0;
            for (from, to) in free {
                pieces.taken.push(Piece { held, from, to });
                taken += to - from + 1;
            }
            if taken < held.last - held.first + 1 {
                pieces.passed_over.push(Piece { held, from: held.first, to: held.last });
            }
            pieces.seqs.insert(held.first, held.last);
        }
        pieces.taken.sort_by_key(|piece| piece.from);
        pieces
    }

    /// The first seq that is not settled, as far as is known; `None` when no tallies were found.
    pub(super) fn cursor(&self) -> Option<Seq> {
        self.tallies.map(|tallies| tallies.cursor())
    }

    /// The newest seq of which there is any evidence.
    pub(super) fn newest(&self) -> u64 {
        let chunks = self.chunks.values().map(|held| held.last).max().unwrap_or(0);
        chunks.max(self.tallies.map_or(0, |tallies| tallies.settled()))
    }

    /// How the record `seq`, which lies before `cursor` when it is settled, ended.
    pub(super) fn state(&self, seq: u64, cursor: u64) -> &'static str {
        if seq >= cursor {
            return "queued";
        }
        let around = self.ends.range(..=seq).next_back();
        let around = around.filter(|(first, (records, _))| seq - **first < *records);
        let end = self.apart.get(&seq).or(around.map(|(_, (_, end))| end));
        end.map_or("settled", |end| end.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(chunks: &[(u64, u64, u64)]) -> Lane {
        let mut lane = Lane::default();
        for (number, (first, last, committed_at)) in (0_u32..).zip(chunks) {
            let held = Held {
                first: *first,
                last: *last,
                committed_at: UnixMillis(*committed_at),
                place: Place { file: 0, at: 0, bytes: 0 },
            };
            lane.chunks.insert((*first, number), held);
        }
        lane
    }

    #[test]
    fn a_seq_is_read_from_the_chunk_that_was_committed_last() {
        // 4..9 was never acknowledged; 4..6 and 7..12 took its seqs.
        let lane = lane(&[(1, 3, 1), (4, 9, 2), (4, 6, 3), (7, 12, 4)]);
        let pieces = lane.pieces();
        let taken: Vec<_> =
            pieces.taken.iter().map(|p| (p.from, p.to, p.held.committed_at.0)).collect();
        assert_eq!(taken, [(1, 3, 1), (4, 6, 3), (7, 12, 4)]);
        assert_eq!(pieces.passed_over.len(), 1);
        assert_eq!(pieces.seqs.missing_in(1, 13), [(13, 13)]);
    }

    #[test]
    fn a_longer_chunk_gives_what_the_later_one_lacks() {
        let lane = lane(&[(1, 9, 1), (3, 5, 2)]);
        let taken: Vec<_> = lane.pieces().taken.iter().map(|p| (p.from, p.to)).collect();
        assert_eq!(taken, [(1, 2), (3, 5), (6, 9)]);
    }

    #[test]
    fn a_state_is_what_is_known() {
        let mut lane = Lane::default();
        lane.ends.insert(1, (3, End::Delivered));
        lane.apart.insert(2, End::Withheld);
        lane.ends.insert(6, (1, End::Quarantined));
        let states: Vec<_> = (1..=8).map(|seq| lane.state(seq, 8)).collect();
        assert_eq!(
            states,
            [
                "delivered",
                "withheld",
                "delivered",
                "settled",
                "settled",
                "quarantined",
                "settled",
                "queued"
            ]
        );
    }
}
