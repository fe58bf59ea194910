//! PURE. What is remembered of a person who was erased: up to which seq of each lane.
//!
//! It lies among the identities, as `{"1":17,"2":0}` (by lane) under the key `x:` ‖ the person's key in hexadecimal digits. Queued
//! records are never rewritten: they are left out when their turn comes. What arrives later is somebody new. Of the log, what
//! was there at an erasure is not kept once it is settled: its segments go from the disk, whoever else's records they held.

use std::collections::BTreeMap;

use super::entry::{LaneId, PersonKey, Seq};

/// Begins the key of every erasure, and of nothing else.
pub(super) const PREFIX: &str = "x:";

/// The key of the erasure of `person`.
#[must_use]
pub(super) fn key(person: PersonKey) -> String {
    format!("{PREFIX}{:016x}", person.0)
}

/// What is stored of an erasure, when these are the newest seqs.
#[must_use]
pub(super) fn mark(newest: &BTreeMap<LaneId, u64>) -> Vec<u8> {
    let newest: BTreeMap<u32, u64> = newest.iter().map(|(lane, seq)| (lane.0, *seq)).collect();
    serde_json::to_vec(&newest).expect("a map of numbers is written into memory")
}

/// The newest seqs that an erasure covers; none when it cannot be read.
#[must_use]
pub(super) fn newest(stored: &[u8]) -> BTreeMap<LaneId, u64> {
    let newest: BTreeMap<u32, u64> = serde_json::from_slice(stored).unwrap_or_default();
    newest.into_iter().map(|(lane, seq)| (LaneId(lane), seq)).collect()
}

/// Whether the record `seq` of `lane` was there when its person was erased. What cannot be read covers all: the person
/// asked for it.
#[must_use]
pub(super) fn covers(stored: &[u8], lane: LaneId, seq: Seq) -> bool {
    match serde_json::from_slice::<BTreeMap<u32, u64>>(stored) {
        Ok(newest) => newest.get(&lane.0).is_some_and(|newest| seq.0 <= *newest),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_is_covered_and_what_comes_later_is_not() {
        let stored = mark(&BTreeMap::from([(LaneId(1), 17), (LaneId(2), 0)]));
        assert_eq!(stored, br#"{"1":17,"2":0}"#);
        for (lane, seq, covered) in [(1, 17, true), (1, 18, false), (2, 1, false), (3, 1, false)] {
            assert_eq!(covers(&stored, LaneId(lane), Seq(seq)), covered, "{lane} {seq}");
        }
        assert!(covers(b"broken", LaneId(1), Seq(99)));
        assert_eq!(newest(&stored), BTreeMap::from([(LaneId(1), 17), (LaneId(2), 0)]));
        assert_eq!(key(PersonKey(u64::MAX)), "x:ffffffffffffffff");
    }
}
