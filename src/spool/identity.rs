//! The identities' cache: what ingest looks up for every event must not touch the disk each time.
//!
//! Two generations of bounded size: a hit moves to the young one; when that is full it becomes the old one, and
//! the old one is forgotten. That keeps what is in use at the price of a map swap.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// Identities, known absences included, held in memory: two generations of this size.
const GENERATION_ENTRIES_MAX: usize = 8192;
/// Bytes of keys and traits in a generation.
const GENERATION_BYTES_MAX: usize = 8 << 20;

/// The cache. Only the committer changes identities; it calls [`Cache::changed`] once the change is durable.
#[derive(Debug, Default)]
pub(super) struct Cache {
    inner: Mutex<Generations>,
}

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<String, Option<Bytes>>,
    young_bytes: usize,
    old: HashMap<String, Option<Bytes>>,
    /// Counts changes: a value read from disk is cached only when nothing changed meanwhile.
    epoch: u64,
}

/// A read from disk that may be cached when nothing has changed since.
#[derive(Clone, Copy, Debug)]
pub(super) struct Epoch(u64);

impl Cache {
    /// The cached traits of `key`: `None` when the cache does not know, `Some(None)` when there are none.
    #[expect(clippy::option_option, reason = "a known absence is not an unknown")]
    pub(super) fn get(&self, key: &str) -> Option<Option<Bytes>> {
        let mut generations = self.lock();
        if let Some(traits) = generations.young.get(key) {
            return Some(traits.clone());
        }
        let traits = generations.old.remove(key)?;
        generations.insert(key.to_owned(), traits.clone());
        Some(traits)
    }

    /// To be taken before a read from disk.
    pub(super) fn epoch(&self) -> Epoch {
        Epoch(self.lock().epoch)
    }

    /// Caches what was read from disk after `epoch` was taken.
    pub(super) fn fill(&self, epoch: Epoch, key: String, traits: Option<Bytes>) {
        let mut generations = self.lock();
        if generations.epoch == epoch.0 {
            generations.insert(key, traits);
        }
    }

    /// Takes the new traits of `key`.
    pub(super) fn changed(&self, key: String, traits: Bytes) {
        let mut generations = self.lock();
        generations.epoch += 1;
        generations.old.remove(&key);
        generations.insert(key, Some(traits));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn insert(&mut self, key: String, traits: Option<Bytes>) {
        let bytes = key.len() + traits.as_ref().map_or(0, Bytes::len);
        if self.young.len() >= GENERATION_ENTRIES_MAX
            || self.young_bytes + bytes > GENERATION_BYTES_MAX
        {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += bytes;
        self.young.insert(key, traits);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_overlaps_a_change_is_not_cached() {
        let cache = Cache::default();
        let epoch = cache.epoch();
        cache.changed("u:1".into(), Bytes::from_static(b"new"));
        cache.fill(epoch, "u:1".into(), Some(Bytes::from_static(b"old")));
        assert_eq!(cache.get("u:1"), Some(Some(Bytes::from_static(b"new"))));
        cache.fill(cache.epoch(), "u:2".into(), None);
        assert_eq!(cache.get("u:2"), Some(None));
    }

    #[test]
    fn what_is_in_use_stays_and_the_size_is_bounded() {
        let cache = Cache::default();
        cache.changed("used".into(), Bytes::from_static(b"x"));
        for n in 0..5 * GENERATION_ENTRIES_MAX {
            cache.changed(format!("u:{n}"), Bytes::from_static(b"y"));
            if n % 1000 == 0 {
                assert!(cache.get("used").is_some());
            }
        }
        let generations = cache.lock();
        assert!(generations.young.len() + generations.old.len() <= 2 * GENERATION_ENTRIES_MAX);
    }
}
