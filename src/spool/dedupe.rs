//! PURE. The dedupe window: the most recent message ids of each scope.
//!
//! In memory a set; on disk one entry per scope and commit, holding the digests of that commit. The entries
//! are numbered, so that the window can be read back newest first and its oldest entries removed.

use std::collections::{HashMap, HashSet, VecDeque};

/// Bytes of a digest.
pub(super) const DIGEST_BYTES: usize = 16;
/// Digests in one stored entry: keeps the value small (see DESIGN.md section 9 on blob files).
pub(super) const ENTRY_DIGESTS_MAX: usize = 448;

/// What identifies an event for deduplication: a scope (the integration) and a digest of its message id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Once {
    /// Windows are kept per scope.
    pub scope: u32,
    /// The first bytes of the SHA-256 of the message id: chance does not make two ids equal.
    pub digest: [u8; DIGEST_BYTES],
}

impl Once {
    /// The key of `message_id` in `scope`.
    #[must_use]
    pub fn new(scope: u32, message_id: &str) -> Once {
        let whole = ring::digest::digest(&ring::digest::SHA256, message_id.as_bytes());
        let mut digest = [0; DIGEST_BYTES];
        for (to, from) in digest.iter_mut().zip(whole.as_ref()) {
            *to = *from;
        }
        Once { scope, digest }
    }
}

/// The windows of all scopes.
#[derive(Debug)]
pub(super) struct Windows {
    digests_max: usize,
    scopes: HashMap<u32, Window>,
}

#[derive(Debug, Default)]
struct Window {
    known: HashSet<[u8; DIGEST_BYTES]>,
    /// (number, digests), oldest first; together they are `known`.
    entries: VecDeque<(u64, Vec<[u8; DIGEST_BYTES]>)>,
    newest: u64,
}

/// An entry to store, or one to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// `scope u32 BE ‖ number u64 BE`.
    pub(super) key: [u8; 12],
    /// Number of its frame u64 BE, then the digests one after the other; empty: remove the entry.
    pub(super) value: Vec<u8>,
}

impl Windows {
    /// Empty windows that remember `digests_max` ids each, rounded up to whole commits.
    #[must_use]
    pub(super) fn new(digests_max: usize) -> Windows {
        Windows { digests_max, scopes: HashMap::new() }
    }

    /// Whether the id is in its scope's window.
    #[must_use]
    pub(super) fn contains(&self, once: &Once) -> bool {
        self.scopes.get(&once.scope).is_some_and(|window| window.known.contains(&once.digest))
    }

    /// Adds the ids of one commit, which is frame `frame` of the log, and returns what to store and what to remove.
    pub(super) fn remember(&mut self, ids: &[Once], frame: u64) -> Vec<Stored> {
        let mut by_scope: Vec<(u32, Vec<[u8; DIGEST_BYTES]>)> = Vec::new();
        for once in ids {
            match by_scope.iter_mut().find(|(scope, _)| *scope == once.scope) {
                Some((_, digests)) => digests.push(once.digest),
                None => by_scope.push((once.scope, vec![once.digest])),
            }
        }
        let mut stored = Vec::new();
        for (scope, digests) in by_scope {
            let window = self.scopes.entry(scope).or_default();
            for part in digests.chunks(ENTRY_DIGESTS_MAX) {
                window.newest += 1;
                let value = [&frame.to_be_bytes()[..], part.as_flattened()].concat();
                stored.push(Stored { key: key(scope, window.newest), value });
                window.known.extend(part);
                window.entries.push_back((window.newest, part.to_vec()));
            }
            stored.extend(
                window
                    .trim(self.digests_max)
                    .into_iter()
                    .map(|number| Stored { key: key(scope, number), value: Vec::new() }),
            );
        }
        stored
    }

    /// Takes back a stored entry, unless it is of a frame after `last`: then the records that it speaks of are lost, and
    /// it returns false. Entries of a scope are given newest first.
    pub(super) fn recall(&mut self, scope: u32, number: u64, value: &[u8], last: u64) -> bool {
        let Some((frame, value)) = value.split_first_chunk() else { return false };
        if u64::from_be_bytes(*frame) > last {
            return false;
        }
        let window = self.scopes.entry(scope).or_default();
        window.newest = window.newest.max(number);
        let digests: Vec<_> = value.as_chunks::<DIGEST_BYTES>().0.to_vec();
        window.known.extend(&digests);
        window.entries.push_front((number, digests));
        true
    }
}

impl Window {
    /// Forgets the oldest entries that the window does without, and returns their numbers.
    fn trim(&mut self, digests_max: usize) -> Vec<u64> {
        let mut removed = Vec::new();
        while let Some((number, digests)) = self.entries.front() {
            if self.known.len() < digests_max.saturating_add(digests.len()) {
                break;
            }
            for digest in digests {
                self.known.remove(digest);
            }
            removed.push(*number);
            self.entries.pop_front();
        }
        removed
    }
}

/// The stored key of entry `number` of `scope`.
#[must_use]
pub(super) fn key(scope: u32, number: u64) -> [u8; 12] {
    super::chunk::key(super::entry::LaneId(scope), super::entry::Seq(number))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn apply(disk: &mut BTreeMap<[u8; 12], Vec<u8>>, stored: Vec<Stored>) {
        for Stored { key, value } in stored {
            if value.is_empty() {
                disk.remove(&key)
            } else {
                disk.insert(key, value)
            };
        }
    }

    fn reopened(disk: &BTreeMap<[u8; 12], Vec<u8>>, digests_max: usize) -> Windows {
        let mut windows = Windows::new(digests_max);
        for (key, value) in disk.iter().rev() {
            let (scope, number) = super::super::chunk::parse_key(key).unwrap();
            assert!(windows.recall(scope.0, number.0, value, u64::MAX));
        }
        windows
    }

    proptest! {
        /// The newest `max` distinct ids are known, before and after reading the window back from disk, and what
        /// is on disk stays bounded.
        #[test]
        fn the_newest_ids_are_remembered(commits in proptest::collection::vec(proptest::collection::vec(0_u32..500, 1..40), 1..60), max in 1_usize..100) {
            let (mut windows, mut disk, mut order) = (Windows::new(max), BTreeMap::new(), Vec::new());
            for commit in commits {
                let fresh: Vec<u32> = commit.into_iter().filter(|id| !order.contains(id)).collect::<HashSet<_>>().into_iter().collect();
                let ids: Vec<Once> = fresh.iter().map(|id| Once::new(3, &id.to_string())).collect();
                order.extend(fresh);
                apply(&mut disk, windows.remember(&ids, 1));
            }
            let again = reopened(&disk, max);
            for id in order.iter().rev().take(max) {
                let once = Once::new(3, &id.to_string());
                prop_assert!(windows.contains(&once) && again.contains(&once));
                let foreign = Once { scope: 4, ..once };
                prop_assert!(!windows.contains(&foreign));
            }
            let on_disk: usize = disk.values().map(|value| (value.len() - 8) / DIGEST_BYTES).sum();
            prop_assert!(on_disk < max + 40, "{} digests on disk", on_disk);
        }
    }

    #[test]
    fn an_id_whose_record_was_lost_is_not_remembered() {
        let once = Once::new(1, "x");
        let [stored] = Windows::new(5).remember(&[once], 8).try_into().unwrap();
        let mut windows = Windows::new(5);
        assert!(!windows.recall(1, 1, &stored.value, 7) && !windows.contains(&once));
        assert!(windows.recall(1, 1, &stored.value, 8) && windows.contains(&once));
        assert!(!windows.recall(1, 1, b"short", 8));
    }

    #[test]
    fn a_large_commit_is_split_into_small_entries() {
        let ids: Vec<Once> = (0..1000).map(|n| Once::new(1, &n.to_string())).collect();
        let stored = Windows::new(5000).remember(&ids, 1);
        assert!(stored.len() > 1 && stored.iter().all(|entry| entry.value.len() <= 7 * 1024 + 16));
    }
}
