//! The quarantine's entries in the store.
//!
//! ```text
//! key    id u64 BE ‖ part u16 BE
//! value  a part of the sealed entry (see `sealed`)
//! ```

use super::entry::{QuarantineId, Quarantined};
use super::error::ReadError;
use super::sealed::{seal, unseal};
use super::store::{Store, StoreError};

/// A quarantine entry is stored in parts of this size, so that a whole request fits without a blob file.
const PART_BYTES: usize = 32 << 10;

/// Beside the lanes' cursors: the newest id that was given.
const NEWEST: &[u8] = b"quarantine";

impl Store {
    /// Notes the newest id, with the entries of the same commit.
    pub(super) fn put_quarantine_newest(&self, id: QuarantineId) -> Result<(), StoreError> {
        self.cursors.insert(NEWEST, seal(NEWEST, &id.0))?;
        Ok(())
    }

    /// Inserts an entry, in parts.
    pub(super) fn put_quarantined(
        &self,
        id: QuarantineId,
        entry: &Quarantined,
    ) -> Result<u64, StoreError> {
        let sealed = seal(&id.0.to_be_bytes(), entry);
        for (part, bytes) in (0_u16..).zip(sealed.chunks(PART_BYTES)) {
            self.quarantine.insert(part_key(id, part), bytes)?;
        }
        Ok(sealed.len() as u64)
    }

    /// Removes an entry; returns its stored bytes, or `None` when there was none.
    pub(super) fn remove_quarantined(&self, id: QuarantineId) -> Result<Option<u64>, StoreError> {
        let mut removed = None;
        for item in self.quarantine.scan_prefix(id.0.to_be_bytes()) {
            let (key, value) = item?;
            self.quarantine.remove(key)?;
            removed = Some(removed.unwrap_or(0) + value.len() as u64);
        }
        Ok(removed)
    }

    /// Whether the entry exists.
    pub(super) fn has_quarantined(&self, id: QuarantineId) -> Result<bool, StoreError> {
        Ok(self.quarantine.contains_key(part_key(id, 0))?)
    }

    /// See [`super::Spool::quarantine`].
    pub(super) fn quarantined(
        &self,
        from: QuarantineId,
        limit: usize,
    ) -> Result<Vec<(QuarantineId, Quarantined)>, ReadError> {
        let mut parts: Vec<(QuarantineId, Vec<u8>)> = Vec::new();
        for item in self.quarantine.range(part_key(from, 0)..) {
            let (key, value) = item.map_err(StoreError::from)?;
            let id = key
                .split_first_chunk::<8>()
                .map_or(QuarantineId(0), |(id, _)| QuarantineId(u64::from_be_bytes(*id)));
            let entries = parts.len();
            match parts.last_mut() {
                Some((last, bytes)) if *last == id => bytes.extend_from_slice(&value),
                _ if entries == limit => break,
                _ => parts.push((id, value.to_vec())),
            }
        }
        let entries =
            parts.into_iter().map(|(id, sealed)| match unseal(&id.0.to_be_bytes(), &sealed) {
                Ok(entry) => Ok((id, entry)),
                Err(error) => Err(ReadError::Failed(format!("quarantine entry {}: {error}", id.0))),
            });
        entries.collect()
    }

    /// (entries, stored bytes, newest id). Reads the whole quarantine, which an operator keeps small.
    pub(super) fn quarantine_size(&self) -> Result<(u64, u64, u64), StoreError> {
        let (mut entries, mut bytes, mut newest) = (0, 0, 0);
        for item in &self.quarantine {
            let (key, value) = item?;
            let Some((id, part)) = key.split_first_chunk::<8>() else { continue };
            entries += u64::from(part == [0, 0]);
            bytes += value.len() as u64;
            newest = u64::from_be_bytes(*id);
        }
        // The newest entry may have left, and its id must not come back.
        let noted = self.cursors.get(NEWEST)?.and_then(|value| unseal::<u64>(NEWEST, &value).ok());
        Ok((entries, bytes, newest.max(noted.unwrap_or(0))))
    }
}

fn part_key(id: QuarantineId, part: u16) -> [u8; 10] {
    let mut key = [0; 10];
    let (id_part, number_part) = key.split_at_mut(8);
    id_part.copy_from_slice(&id.0.to_be_bytes());
    number_part.copy_from_slice(&part.to_be_bytes());
    key
}
