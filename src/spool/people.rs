//! What is remembered of people: how the store keeps it, and how others read it.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::entry::{End, Entry, LaneId, Seq};
use super::error::ReadError;
use super::identity::{Identity, Kind};
use super::log::frame::{FrameBuilder, Tree};
use super::sealed::{seal, unseal};
use super::shared::Shared;
use super::store::{Store, StoreError};
use super::{Spool, consent, erasure};

impl Spool {
    /// The stored traits (a JSON object) of each key, in the order of `keys`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn identities(&self, keys: Vec<String>) -> Result<Vec<Option<Bytes>>, ReadError> {
        let cached: Option<Vec<_>> =
            keys.iter().map(|key| self.shared.identities.get(key)).collect();
        if let Some(found) = cached {
            return Ok(self.shared.used(&keys, found));
        }
        let read = move |shared: &Shared| {
            let found = keys.iter().map(|key| shared.identity(key));
            let found = found.collect::<Result<Vec<_>, _>>()?;
            Ok(shared.used(&keys, found))
        };
        self.read(read).await
    }

    /// Those of `entries`, of one lane, that must not be sent any more, with their ends: their person was erased since they
    /// came, or denies one of `categories` by now.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn apart(
        &self,
        lane: LaneId,
        entries: &[Entry],
        categories: &[String],
    ) -> Result<Vec<(Seq, End)>, ReadError> {
        let (mut keys, mut asked) = (Vec::new(), Vec::new());
        let (erases, asks) = (self.shared.identities.erases(), !categories.is_empty());
        for entry in entries.iter().filter(|_| erases || asks) {
            keys.extend(entry.person.iter().filter(|_| erases).map(erasure::key));
            asked.resize(keys.len(), (entry.seq, End::Erased));
            keys.extend(entry.person.iter().filter(|_| asks).map(consent::key));
            asked.resize(keys.len(), (entry.seq, End::Withheld));
        }
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.identities(keys).await?;
        let ends = asked.into_iter().zip(found).filter(|((seq, end), stored)| {
            let Some(stored) = stored else { return false };
            match end {
                End::Erased => erasure::covers(stored, lane, *seq),
                _ => consent::denies(stored, categories),
            }
        });
        let mut apart: Vec<(Seq, End)> = ends.map(|(ended, _)| ended).collect();
        apart.dedup_by_key(|(seq, _)| *seq);
        Ok(apart)
    }

    /// Those of `entries`, of one lane, whose person was erased since they came, whether they were sent or not.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn erased(&self, lane: LaneId, entries: &[Entry]) -> Result<Vec<Seq>, ReadError> {
        let apart = self.apart(lane, entries, &[]).await?;
        Ok(apart.into_iter().map(|(seq, _)| seq).collect())
    }

    /// Up to `limit` keys and contents of identities after the key `after`, in the order of keys: traits of users (`u:`) and
    /// devices (`a:`), and what else is remembered of people.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn all_identities(
        &self,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, ReadError> {
        let after = after.to_owned();
        self.read(move |shared| Ok(shared.store.identities_after(&after, limit)?)).await
    }
}

/// Beside the lanes' tallies: what is remembered of the identities as a whole.
pub(super) const REMEMBERED: &[u8] = b"identities";

/// How many identities there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Remembered {
    /// Entries of the tree.
    pub(super) count: u64,
    /// The newest use: numbers that are never given twice.
    pub(super) newest: u64,
}

impl Remembered {
    /// Adds it to a frame.
    pub(super) fn put(&self, frame: &mut FrameBuilder) {
        frame.put(Tree::Cursors, REMEMBERED, &seal(REMEMBERED, self));
    }
}

impl Store {
    /// What is stored for `key`.
    pub(super) fn identity(&self, key: &str) -> Result<Option<Identity>, StoreError> {
        self.identities.get(key.as_bytes())?.map(|value| Identity::decode(&value)).transpose()
    }

    /// The identities that were not used for the longest time, with their keys in [`Tree::Ages`].
    pub(super) fn oldest(&self) -> impl Iterator<Item = Result<(Vec<u8>, String), StoreError>> {
        self.ages.tree.iter().filter_map(|item| {
            let read = || {
                let (age, value) = item?;
                let Some(key) = self.ages.read(&age, value)? else { return Ok(None) };
                let key = String::from_utf8(key.to_vec());
                let key = key.map_err(|_| StoreError("an identity's key is no text".to_owned()))?;
                Ok(Some((age.to_vec(), key)))
            };
            read().transpose()
        })
    }

    /// The newest seqs at the last erasure; `None` when nobody was erased, or that is forgotten. Erasures are the last of
    /// the ages.
    pub(super) fn erased(&self) -> Result<Option<BTreeMap<LaneId, u64>>, StoreError> {
        let mut erased = None;
        for item in self.ages.tree.iter().rev() {
            let (age, value) = item?;
            if age.first() != Some(&(Kind::Erasure as u8)) {
                break;
            }
            let erased = erased.get_or_insert_with(BTreeMap::new);
            let Some(key) = self.ages.read(&age, value)? else { continue };
            let Some(stored) = self.identity(&String::from_utf8_lossy(&key))? else { continue };
            for (lane, seq) in erasure::newest(&stored.json) {
                let newest = erased.entry(lane).or_default();
                *newest = seq.max(*newest);
            }
        }
        Ok(erased)
    }

    /// Up to `limit` keys and contents of identities after the key `after`.
    pub(super) fn identities_after(
        &self,
        after: &str,
        limit: usize,
    ) -> Result<Vec<(String, Bytes)>, StoreError> {
        let bounds = (Bound::Excluded(after.as_bytes()), Bound::Unbounded);
        let mut found = Vec::new();
        for item in self.identities.tree.range::<&[u8], _>(bounds).take(limit) {
            let (key, value) = item?;
            let Some(value) = self.identities.read(&key, value)? else { continue };
            let key = String::from_utf8(key.to_vec());
            let key = key.map_err(|_| StoreError("an identity's key is no text".to_owned()))?;
            found.push((key, Identity::decode(&value)?.json));
        }
        Ok(found)
    }

    /// What [`Remembered::put`] was last told.
    pub(super) fn remembered(&self) -> Result<Remembered, StoreError> {
        let value = self.cursors.get(REMEMBERED)?;
        let remembered = value.map(|value| unseal(REMEMBERED, &value)).transpose();
        remembered
            .map(Option::unwrap_or_default)
            .map_err(|error| StoreError(format!("how many identities there are: {error}")))
    }
}
