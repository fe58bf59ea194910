//! The quarantine's entries in the store.
//!
//! ```text
//! key    id u64 BE
//! value  the sealed entry (see `sealed`), in parts when it is large (see `values`):
//!        version 1: the entry; version 2: (the entry, when it was first set aside)
//! ```

use super::entry::{QuarantineId, Quarantined};
use super::error::ReadError;
use super::log::frame::{FrameBuilder, Tree};
use super::sealed::{SealError, seal, seal_as, unseal, unseal_as};
use super::store::{Store, StoreError};
use super::values::Values;

/// Beside the lanes' cursors: the newest id that was given.
pub(super) const NEWEST: &[u8] = b"quarantine";

/// Adds an entry to a frame; returns its stored bytes.
pub(super) fn put(frame: &mut FrameBuilder, id: QuarantineId, entry: &Quarantined) -> u64 {
    let key = id.0.to_be_bytes();
    let sealed = encode(&key, entry);
    frame.put(Tree::Quarantine, &key, &sealed);
    sealed.len() as u64
}

/// The version that is written; the one before is still read.
const VERSION: u8 = 2;

fn encode(key: &[u8], entry: &Quarantined) -> Vec<u8> {
    seal_as(VERSION, key, &(entry, entry.first_at))
}

/// Reads a sealed entry of either version.
///
/// # Errors
/// See [`SealError`]: whatever the bytes are, never a panic.
pub(super) fn decode(key: &[u8], sealed: &[u8]) -> Result<Quarantined, SealError> {
    let (mut entry, first_at): (Quarantined, _) = if sealed.first() == Some(&VERSION) {
        unseal_as(VERSION, key, sealed)?
    } else {
        let entry: Quarantined = unseal(key, sealed)?;
        let at = entry.at;
        (entry, at)
    };
    entry.first_at = first_at;
    Ok(entry)
}

/// Notes the newest id, in the frame of its entry.
pub(super) fn put_newest(frame: &mut FrameBuilder, id: QuarantineId) {
    frame.put(Tree::Cursors, NEWEST, &seal(NEWEST, &id.0));
}

/// Adds the removal of an entry to a frame.
pub(super) fn remove(frame: &mut FrameBuilder, id: QuarantineId) {
    frame.remove(Tree::Quarantine, &id.0.to_be_bytes());
}

impl Store {
    /// The stored bytes of an entry; `None` when there is none.
    pub(super) fn quarantined_bytes(&self, id: QuarantineId) -> Result<Option<u64>, StoreError> {
        let key = id.0.to_be_bytes();
        let stored = self.quarantine.tree.get(key)?;
        Ok(stored.map(|stored| Values::bytes(&key, &stored)))
    }

    /// See [`super::Spool::quarantine`].
    pub(super) fn quarantined(
        &self,
        from: QuarantineId,
        limit: usize,
    ) -> Result<Vec<(QuarantineId, Quarantined)>, ReadError> {
        let stored = self.quarantine.tree.range(from.0.to_be_bytes()..);
        let entries = stored.filter_map(|item| {
            let read = || {
                let (key, value) = item.map_err(StoreError::from)?;
                let id = id_of(&key)?;
                // `None`: it has left the quarantine meanwhile.
                let Some(sealed) = self.quarantine.read(&key, value)? else { return Ok(None) };
                match decode(&key, &sealed) {
                    Ok(entry) => Ok(Some((id, entry))),
                    Err(error) => {
                        Err(ReadError::Failed(format!("quarantine entry {}: {error}", id.0)))
                    }
                }
            };
            read().transpose()
        });
        entries.take(limit).collect()
    }

    /// (entries, stored bytes, newest id). Goes through the whole quarantine, which an operator keeps small.
    pub(super) fn quarantine_size(&self) -> Result<(u64, u64, u64), StoreError> {
        let (mut entries, mut bytes, mut newest) = (0, 0, 0);
        for item in &self.quarantine.tree {
            let (key, value) = item?;
            entries += 1;
            bytes += Values::bytes(&key, &value);
            newest = id_of(&key)?.0;
        }
        // The newest entry may have left, and its id must not come back.
        let noted = self.cursors.get(NEWEST)?.and_then(|value| unseal::<u64>(NEWEST, &value).ok());
        Ok((entries, bytes, newest.max(noted.unwrap_or(0))))
    }
}

fn id_of(key: &[u8]) -> Result<QuarantineId, StoreError> {
    let id = key.try_into().map(u64::from_be_bytes);
    id.map(QuarantineId)
        .map_err(|_| StoreError("a quarantine entry's key is not eight bytes".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;
    use crate::spool::model_tests::{options, quarantined, reopen};
    use crate::spool::{Append, Content, Item};

    #[test]
    fn entries_of_both_versions_are_read() {
        let mut entry = quarantined(b"{}");
        entry.first_at = UnixMillis(0);
        let key = 7_u64.to_be_bytes();
        assert_eq!(decode(&key, &encode(&key, &entry)), Ok(entry.clone()));
        // As they were written before they knew a first time.
        let old = seal(&key, &entry);
        assert_eq!((old[0], decode(&key, &old).unwrap().first_at), (1, entry.at));
        assert_eq!(decode(&key, &[9, 0, 0, 0, 0]), Err(SealError::Version(9)));
        assert_eq!(decode(b"other", &encode(&key, &entry)), Err(SealError::Checksum));
    }

    /// Goal: what is counted is there to be read, at every moment.
    /// Method: ids count the entries, so the newest that is counted is looked for, over and over while entries come.
    #[tokio::test(flavor = "multi_thread")]
    async fn the_count_never_runs_ahead_of_the_entries() {
        const ENTRIES: u64 = 300;
        let directory = tempfile::tempdir().unwrap();
        let spool = reopen(&options(directory.path()));
        let reading = spool.clone();
        let reader = tokio::spawn(async move {
            let mut counted = 0;
            while counted < ENTRIES {
                counted = reading.quarantine_count();
                let newest = reading.quarantine(QuarantineId(counted.max(1)), 1).await.unwrap();
                assert!(counted == 0 || newest.len() == 1, "entry {counted} is not there yet");
            }
        });
        for _ in 0..ENTRIES {
            let content = Content::Quarantine(Box::new(quarantined(b"{}")));
            let items = vec![Item { once: None, content }];
            spool.append(Append { items, ..Append::default() }).await.unwrap();
        }
        reader.await.unwrap();
        spool.close().await;
    }
}
