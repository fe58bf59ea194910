//! The quarantine's entries in the store.
//!
//! ```text
//! key    id u64 BE
//! value  the sealed entry (see `sealed`), in parts when it is large (see `values`)
//! ```

use super::entry::{QuarantineId, Quarantined};
use super::error::ReadError;
use super::log::frame::{FrameBuilder, Tree};
use super::sealed::{seal, unseal};
use super::store::{Store, StoreError};
use super::values::Values;

/// Beside the lanes' cursors: the newest id that was given.
const NEWEST: &[u8] = b"quarantine";

/// Adds an entry to a frame; returns its stored bytes.
pub(super) fn put(frame: &mut FrameBuilder, id: QuarantineId, entry: &Quarantined) -> u64 {
    let key = id.0.to_be_bytes();
    let sealed = seal(&key, entry);
    frame.put(Tree::Quarantine, &key, &sealed);
    sealed.len() as u64
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
                match unseal(&key, &sealed) {
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
