//! Identities: their stored form, and the cache, for what ingest looks up for every event must not touch the disk each time.
//!
//! ```text
//! identities   key                                        last use u64 BE ‖ JSON object
//! ages         kind u8 ‖ last use u64 BE                  key
//! ```
//! Uses are numbers that only grow. The ages bring the identities into the order in which they may be forgotten: traits before
//! denials of consent before erasures, of each kind those first that were not used for the longest time. A use is noted only once an identity has come into the older
//! half, so that what is in use costs a write now and then.
//!
//! The cache has two generations of bounded size: a hit moves to the young one; when that is full it becomes the old one,
//! and the old one is forgotten. That keeps what is in use at the price of a map swap.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use super::store::StoreError;
use super::{consent, erasure};

/// Identities, known absences included, held in memory: two generations of this size.
const GENERATION_ENTRIES_MAX: usize = 8192;
/// Bytes of keys and traits in a generation.
const GENERATION_BYTES_MAX: usize = 8 << 20;
/// Uses that wait to be noted: others are noted the next time.
const USED_MAX: usize = 4096;

/// What is stored under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// When it was last used.
    pub(super) used: u64,
    /// A JSON object: traits, what is denied (see `consent`), or what is erased (see `erasure`).
    pub(super) json: Bytes,
}

impl Identity {
    /// The stored value.
    #[must_use]
    pub(super) fn encode(&self) -> Vec<u8> {
        [&self.used.to_be_bytes()[..], &self.json].concat()
    }

    /// Reads a stored value.
    ///
    /// # Errors
    /// When it is too short to be one.
    pub(super) fn decode(value: &[u8]) -> Result<Identity, StoreError> {
        let cut_off = || StoreError("an identity is cut off".to_owned());
        let (used, json) = value.split_first_chunk().ok_or_else(cut_off)?;
        Ok(Identity { used: u64::from_be_bytes(*used), json: Bytes::copy_from_slice(json) })
    }

    /// Its place among the ages, when it is stored under `key`.
    #[must_use]
    pub(super) fn age(&self, key: &str) -> Vec<u8> {
        [&[Kind::of(key) as u8][..], &self.used.to_be_bytes()].concat()
    }
}

/// What is remembered under a key, in the order in which it may be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Kind {
    /// Of a user or a device.
    Traits = 0,
    /// See `consent`.
    Denial = 1,
    /// See `erasure`.
    Erasure = 2,
}

impl Kind {
    /// The kind of what is stored under `key`.
    #[must_use]
    pub(super) fn of(key: &str) -> Kind {
        if key.starts_with(consent::PREFIX) {
            Kind::Denial
        } else if key.starts_with(erasure::PREFIX) {
            Kind::Erasure
        } else {
            Kind::Traits
        }
    }
}

/// The cache. Only the committer changes identities; it calls [`Cache::changed`] once the change is durable.
#[derive(Debug)]
pub(super) struct Cache {
    inner: Mutex<Generations>,
    erases: AtomicBool,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<String, Option<Identity>>,
    young_bytes: usize,
    old: HashMap<String, Option<Identity>>,
    /// Counts changes: a value read from disk is cached only when nothing changed meanwhile.
    epoch: u64,
    /// The newest use.
    newest: u64,
    /// Uses later than the last noted one after which a use is noted.
    note_after: u64,
    /// Identities of the older half that were used.
    used: HashSet<String>,
}

/// A read from disk that may be cached when nothing has changed since.
#[derive(Clone, Copy, Debug)]
pub(super) struct Epoch(u64);

impl Cache {
    /// An empty cache, where `newest` is the newest use of at most `identities_max` identities, and `erases` tells whether
    /// there are erasures among them.
    #[must_use]
    pub(super) fn new(newest: u64, erases: bool, identities_max: u64) -> Cache {
        let note_after = identities_max / 2;
        let inner = Generations { newest, note_after, ..Generations::default() };
        Cache { inner: Mutex::new(inner), erases: AtomicBool::new(erases) }
    }

    /// Whether anybody was erased: else nobody need be asked for.
    pub(super) fn erases(&self) -> bool {
        self.erases.load(Ordering::Acquire)
    }

    /// What is cached of `key`: `None` when the cache does not know, `Some(None)` when there is nothing.
    #[expect(clippy::option_option, reason = "a known absence is not an unknown")]
    pub(super) fn get(&self, key: &str) -> Option<Option<Identity>> {
        let mut generations = self.lock();
        if let Some(identity) = generations.young.get(key) {
            return Some(identity.clone());
        }
        let identity = generations.old.remove(key)?;
        generations.insert(key.to_owned(), identity.clone());
        Some(identity)
    }

    /// To be taken before a read from disk.
    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.lock().epoch)
    }

    /// Caches what was read from disk after `epoch` was taken.
    pub(super) fn fill(&self, epoch: Epoch, key: String, identity: Option<Identity>) {
        let mut generations = self.lock();
        if generations.epoch == epoch.0 {
            generations.insert(key, identity);
        }
    }

    /// Takes what `key` is now.
    pub(super) fn changed(&self, key: String, identity: Option<Identity>) {
        if Kind::of(&key) == Kind::Erasure {
            self.erases.store(true, Ordering::Release);
        }
        let mut generations = self.lock();
        generations.epoch += 1;
        generations.newest =
            generations.newest.max(identity.as_ref().map_or(0, |identity| identity.used));
        generations.old.remove(&key);
        generations.insert(key, identity);
    }

    /// Takes it that identities were used for events. Everything but traits keeps the order in which it was made.
    pub(super) fn used(&self, keys: &[String], found: &[Option<Identity>]) {
        if found.iter().all(Option::is_none) {
            return;
        }
        let mut generations = self.lock();
        for (key, identity) in keys.iter().zip(found) {
            let Some(identity) = identity else { continue };
            // The store may be ahead of what is published.
            let age = generations.newest.saturating_sub(identity.used);
            let is_old = age > generations.note_after;
            let has_room = generations.used.len() < USED_MAX;
            if is_old && has_room && Kind::of(key) == Kind::Traits {
                generations.used.insert(key.clone());
            }
        }
    }

    /// The identities whose use is to be noted, each once.
    pub(super) fn take_used(&self) -> HashSet<String> {
        std::mem::take(&mut self.lock().used)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn insert(&mut self, key: String, identity: Option<Identity>) {
        let bytes = key.len() + identity.as_ref().map_or(0, |identity| identity.json.len());
        if self.young.len() >= GENERATION_ENTRIES_MAX
            || self.young_bytes + bytes > GENERATION_BYTES_MAX
        {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += bytes;
        self.young.insert(key, identity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(used: u64, json: &'static [u8]) -> Identity {
        Identity { used, json: Bytes::from_static(json) }
    }

    #[test]
    fn only_the_use_of_what_is_old_is_noted() {
        let cache = Cache::new(0, false, 100);
        for (key, used) in [("u:1", 1), ("c:1", 2), ("u:50", 50), ("u:60", 60)] {
            cache.changed(key.into(), Some(identity(used, b"{}")));
        }
        let keys = ["u:1", "u:1", "c:1", "u:50", "u:60", "u:x"].map(str::to_owned);
        let found = keys.each_ref().map(|key| cache.get(key).flatten());
        cache.used(&keys, &found);
        assert_eq!(cache.take_used(), HashSet::from(["u:1".to_owned()]));
        assert!(cache.take_used().is_empty());
        let stored = identity(7, b"{\"a\":1}");
        assert_eq!(Identity::decode(&stored.encode()), Ok(stored.clone()));
        assert!(Identity::decode(b"short").is_err());
        assert!(identity(9, b"").age("u:c:") < identity(1, b"").age("c:1"));
        assert!(identity(9, b"").age("c:1") < identity(1, b"").age("x:1"));
        assert!(stored.age("u:1") < identity(256, b"").age("a:1"));
    }

    #[test]
    fn a_read_that_overlaps_a_change_is_not_cached() {
        let cache = Cache::new(0, false, 1_000_000);
        let epoch = cache.epoch();
        let new = Some(identity(1, b"new"));
        cache.changed("u:1".into(), new.clone());
        cache.fill(epoch, "u:1".into(), Some(identity(1, b"old")));
        assert_eq!(cache.get("u:1"), Some(new));
        cache.fill(cache.epoch(), "u:2".into(), None);
        assert_eq!(cache.get("u:2"), Some(None));
    }

    #[test]
    fn what_is_in_use_stays_and_the_size_is_bounded() {
        let cache = Cache::new(0, false, 1_000_000);
        cache.changed("used".into(), Some(identity(1, b"x")));
        for n in 0..5 * GENERATION_ENTRIES_MAX {
            cache.changed(format!("u:{n}"), Some(identity(1, b"y")));
            if n % 1000 == 0 {
                assert!(cache.get("used").is_some());
            }
        }
        let generations = cache.lock();
        assert!(generations.young.len() + generations.old.len() <= 2 * GENERATION_ENTRIES_MAX);
    }
}
