//! How entries leave the quarantine: back into the queue, or for good.
//!
//! Records go to the end of their lanes, many in one append, byte for byte and so with their old ids; an append and the
//! removal of its entries are one commit, so that a crash neither loses nor doubles any. Events go through the mapping
//! again, one by one. What cannot be taken in stays where it is, with the reason (Promise 6). An operator may give one entry
//! another body (see `edited`); a record that comes back once more keeps the time when it was first set aside.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use super::edited;
use super::protocol::{KEPT_MAX, Kept, QuarantineFilter, Released, Selection};
use super::service::{PAGE_ENTRIES, Service};
use crate::clock::UnixMillis;
use crate::ingest::ReplayError;
use crate::spool::{
    Append, AppendError, Content, Item, LaneId, Origin, PersonKeys, QuarantineId, Quarantined,
    ReadError,
};

/// Entries in one append.
const GROUP_ENTRIES_MAX: usize = 100;
/// Bytes of their records: well below what the committer flushes at once.
const GROUP_BYTES_MAX: usize = 4 << 20;

/// Where entries go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whither {
    /// Into the queue.
    Queue,
    /// Nowhere: they are removed for good.
    Nowhere,
}

/// A release under way.
pub(super) struct Release<'a> {
    service: &'a Service,
    whither: Whither,
    group: Vec<(QuarantineId, Option<Item>)>,
    group_bytes: usize,
    done: Released,
}

impl<'a> Release<'a> {
    /// Releases what `selection` names.
    ///
    /// # Errors
    /// When the quarantine cannot be read; what was released until then is released.
    /// # Cancel safety
    /// Each entry is either released or where it was.
    pub(super) async fn run(
        service: &'a Service,
        selection: Selection,
        whither: Whither,
    ) -> Result<Released, ReadError> {
        let mut release = Release {
            service,
            whither,
            group: Vec::new(),
            group_bytes: 0,
            done: Released::default(),
        };
        match selection {
            Selection::Ids(ids) => release.each(ids).await?,
            Selection::All => release.all(&QuarantineFilter::default()).await?,
            Selection::Filter(filter) => release.all(&filter).await?,
        }
        release.flush().await;
        Ok(release.done)
    }

    async fn each(&mut self, ids: Vec<QuarantineId>) -> Result<(), ReadError> {
        let mut seen = HashSet::new();
        for id in ids {
            // Twice in one append would queue the record twice.
            if !seen.insert(id) {
                continue;
            }
            if self.done.stopped.is_some() {
                self.kept(id, "not tried");
                continue;
            }
            match self.service.entry(id).await? {
                Some(entry) => self.take(id, entry).await,
                None => self.done.gone.push(id),
            }
        }
        Ok(())
    }

    async fn all(&mut self, filter: &QuarantineFilter) -> Result<(), ReadError> {
        let mut from = QuarantineId(0);
        // What is set aside meanwhile, perhaps the same record again, comes later: it is not gone through.
        let mut left = self.service.entries();
        let every = QuarantineFilter::default();
        while left > 0 && self.done.stopped.is_none() {
            let page = self.service.page(from, PAGE_ENTRIES, &every).await?;
            let Some((last, _)) = page.last() else { break };
            from = QuarantineId(last.0 + 1);
            for (id, entry) in page {
                if left > 0 && self.done.stopped.is_none() {
                    left -= 1;
                    if filter.takes(&entry) {
                        self.take(id, entry).await;
                    }
                }
            }
        }
        Ok(())
    }

    async fn take(&mut self, id: QuarantineId, entry: Quarantined) {
        let item = match (self.whither, entry.origin) {
            (Whither::Nowhere, _) => None,
            (Whither::Queue, Origin::Record { lane, integration, record_type, person, .. }) => {
                if !self.service.delivers(lane) {
                    return self.kept(
                        id,
                        &format!("integration {integration:?} is not configured any more"),
                    );
                }
                let record = Bytes::from(entry.body);
                self.group_bytes += record.len();
                Some(item(lane, record_type, record, person, entry.first_at))
            }
            (Whither::Queue, Origin::Event { integration, .. }) => {
                // What came before it goes first: the order is kept.
                self.flush().await;
                if self.done.stopped.is_some() {
                    return self.kept(id, "not tried");
                }
                let intake = self.service.intake();
                let replayed = intake.replay(&entry.body, integration.as_deref(), entry.at, id);
                return match replayed.await {
                    Ok(()) => self.done.released += 1,
                    Err(ReplayError::Invalid(message)) => self.kept(id, &message),
                    Err(ReplayError::Append(error)) => self.refused(id, &error),
                };
            }
        };
        self.group.push((id, item));
        if self.group.len() >= GROUP_ENTRIES_MAX || self.group_bytes >= GROUP_BYTES_MAX {
            self.flush().await;
        }
    }

    /// Appends the group; one by one when an entry of it has gone meanwhile.
    async fn flush(&mut self) {
        let group = std::mem::take(&mut self.group);
        self.group_bytes = 0;
        if group.is_empty() {
            return;
        }
        match self.service.append(together(group.clone())).await {
            Ok(()) => self.done.released += group.len() as u64,
            Err(AppendError::Gone(_)) => {
                for (id, item) in group {
                    match self.service.append(together(vec![(id, item)])).await {
                        Ok(()) => self.done.released += 1,
                        Err(error) => self.refused(id, &error),
                    }
                }
            }
            Err(error) => group.iter().for_each(|(id, _)| self.refused(*id, &error)),
        }
    }

    fn refused(&mut self, id: QuarantineId, error: &AppendError) {
        if matches!(error, AppendError::Gone(_)) {
            return self.done.gone.push(id);
        }
        self.done.stopped.get_or_insert_with(|| error.to_string());
        self.kept(id, &error.to_string());
    }

    fn kept(&mut self, id: QuarantineId, message: &str) {
        if self.done.kept.len() < KEPT_MAX {
            self.done.kept.push(Kept { id, message: message.to_owned() });
        } else {
            self.done.kept_more += 1;
        }
    }
}

fn item(
    lane: LaneId,
    record_type: String,
    record: Bytes,
    person: PersonKeys,
    first_at: UnixMillis,
) -> Item {
    let (record_type, first_seen) = (Arc::from(record_type), Some(first_at));
    let content = Content::Record { lane, record_type, record, person, first_seen, event: None };
    Item { once: None, content }
}

/// Why an entry was not retried with another body. It stays where it was.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// There is no such entry.
    #[error("there is no entry {} in the quarantine", .0.0)]
    NoEntry(QuarantineId),
    /// The body is not what it must be.
    #[error("{0}")]
    Invalid(String),
    /// Nobody would deliver it.
    #[error("integration {0:?} is not configured any more: configure it again and reload first")]
    NotConfigured(String),
    /// The quarantine could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The spool takes nothing.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl Service {
    /// Retries one entry with `body` in the place of its own: a record under the same id and `@type`, or an event that is
    /// mapped again.
    ///
    /// # Errors
    /// [`EntryError`]: the entry stays as it was.
    /// # Cancel safety
    /// The entry is either queued or where it was.
    pub async fn retry_edited(&self, id: QuarantineId, body: &str) -> Result<(), EntryError> {
        let entry = self.entry(id).await?.ok_or(EntryError::NoEntry(id))?;
        let gone = |error| match error {
            AppendError::Gone(id) => EntryError::NoEntry(id),
            error => EntryError::Append(error),
        };
        match entry.origin {
            Origin::Event { integration, .. } => {
                let body = edited::event(&entry.body, body).map_err(EntryError::Invalid)?;
                let name = integration.as_deref();
                let replayed = self.intake().replay(body.as_bytes(), name, entry.at, id).await;
                replayed.map_err(|error| match error {
                    ReplayError::Invalid(message) => EntryError::Invalid(message),
                    ReplayError::Append(error) => gone(error),
                })
            }
            Origin::Record { lane, integration, record_type, person, .. } => {
                let new = edited::record(&record_type, person, &entry.body, body);
                let new = new.map_err(EntryError::Invalid)?;
                // Another person may have another lane.
                let lane = match &new.email {
                    Some(email) => self.intake().lane(&integration, Some(email)),
                    None => Some(lane),
                };
                let lane = lane.filter(|lane| self.delivers(*lane));
                let lane = lane.ok_or(EntryError::NotConfigured(integration))?;
                let item = item(lane, record_type, new.bytes, new.person, entry.first_at);
                self.append(together(vec![(id, Some(item))])).await.map_err(gone)
            }
        }
    }
}

fn together(group: Vec<(QuarantineId, Option<Item>)>) -> Append {
    let mut append = Append::default();
    for (id, item) in group {
        append.releases.push(id);
        append.items.extend(item);
    }
    append
}
