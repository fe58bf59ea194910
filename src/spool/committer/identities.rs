//! What a group changes in the identities: merged with what is stored, counted, and the oldest forgotten.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::super::consent;
use super::super::entry::{Append, RECORD_BYTES_MAX, Receipt};
use super::super::erasure;
use super::super::identity::Identity;
use super::super::log::frame::Tree;
use super::super::store::StoreError;
use super::Committer;
use super::plan::Flush;
use crate::event::object::merge;

/// Of identities whose use is noted in one group: a few at a time.
const NOTED_BYTES_MAX: usize = 32 << 10;

/// What identities are to become, by their keys; `None`: to be forgotten.
pub(super) type Changes = BTreeMap<String, Option<Bytes>>;

impl Committer {
    /// What the identities become with `append`, later changes over earlier ones. What a repeat says is passed over, and
    /// what changes nothing left out.
    pub(super) fn merged(&self, append: &Append, receipt: &Receipt) -> Result<Changes, StoreError> {
        let mut changes = Changes::new();
        for (key, traits) in &append.identities {
            let old = self.stored(key, &changes)?;
            let merged = merge(old.as_deref(), traits);
            let fits = merged.len() <= RECORD_BYTES_MAX;
            if !fits {
                // Ingest refuses traits that do not fit; two requests at once may each fit, and not together.
                tracing::warn!(
                    "two identifies of one person do not fit together: the newer one replaces the older"
                );
            }
            let new = if fits { Bytes::from(merged) } else { traits.clone() };
            if old.as_ref() != Some(&new) {
                changes.insert(key.clone(), Some(new));
            }
        }
        let is_repeat = |item| receipt.duplicates.binary_search(&item).is_ok();
        for said in append.consents.iter().filter(|said| !said.item.is_some_and(is_repeat)) {
            let key = consent::key(said.person);
            let old = self.stored(&key, &changes)?;
            if said.granted && old.is_none() {
                continue;
            }
            let new = merge(old.as_deref(), &consent::change(said));
            if old.as_deref() != Some(&new[..]) {
                let nothing_left = new == b"{}";
                changes.insert(key, (!nothing_left).then(|| Bytes::from(new)));
            }
        }
        changes.extend(append.forgets.iter().map(|key| (key.clone(), None)));
        if !append.erases.is_empty() {
            let lanes = self.lanes.iter();
            let newest = lanes.map(|(id, lane)| (*id, lane.disk.newest + lane.added.len() as u64));
            let mark = Bytes::from(erasure::mark(&newest.collect()));
            for person in &append.erases {
                changes.insert(erasure::key(*person), Some(mark.clone()));
                changes.insert(consent::key(*person), None);
            }
        }
        Ok(changes)
    }

    fn stored(&self, key: &str, changes: &Changes) -> Result<Option<Bytes>, StoreError> {
        match changes.get(key).or_else(|| self.group.identities.get(key)) {
            Some(new) => Ok(new.clone()),
            None => Ok(self.shared.identity(key)?.map(|identity| identity.json)),
        }
    }

    /// Adds the group's changes to the frame, with the uses that are to be noted, and forgets as many identities as are
    /// too many.
    pub(super) fn put_identities(&mut self) -> Result<(), StoreError> {
        self.note_uses()?;
        let (frame, group) = (&mut self.frame, &mut self.group);
        if group.identities.is_empty() {
            return Ok(());
        }
        for (key, json) in &group.identities {
            if let Some(old) = self.shared.identity(key)? {
                frame.remove(Tree::Ages, &old.age(key));
                self.remembered.count -= 1;
                if json.is_none() {
                    frame.remove(Tree::Identities, key.as_bytes());
                }
            }
            let new = json.clone().map(|json| {
                self.remembered.newest += 1;
                self.remembered.count += 1;
                Identity { used: self.remembered.newest, json }
            });
            if let Some(new) = &new {
                frame.put(Tree::Identities, key.as_bytes(), &new.encode());
                frame.put(Tree::Ages, &new.age(key), key.as_bytes());
            }
            group.remembered.push((key.clone(), new));
        }
        let max = self.shared.options.identities_max;
        // The store is as the last group left it: what this one has touched is younger than it looks there.
        let mut oldest = self.shared.store.oldest();
        while self.remembered.count > max
            && let Some(found) = oldest.next()
        {
            let (age, key) = found?;
            if group.identities.contains_key(&key) {
                continue;
            }
            frame.remove(Tree::Ages, &age);
            frame.remove(Tree::Identities, key.as_bytes());
            self.remembered.count -= 1;
            group.remembered.push((key, None));
        }
        self.remembered.put(frame);
        Ok(())
    }

    /// Puts identities of the older half that were used behind all others. Not where room is short: what is kept free is
    /// for settlements.
    fn note_uses(&mut self) -> Result<(), StoreError> {
        if self.group.flush == Flush::After || self.shared.without_room.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut bytes = 0;
        for key in self.shared.identities.take_used() {
            if bytes > NOTED_BYTES_MAX {
                break;
            }
            if !self.group.identities.contains_key(&key)
                && let Some(identity) = self.shared.identity(&key)?
            {
                bytes += key.len() + identity.json.len();
                self.group.identities.insert(key, Some(identity.json));
            }
        }
        Ok(())
    }
}
