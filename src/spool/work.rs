//! Requests to the committer, their answers, and how they gather into groups.

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::entry::{Append, Content, Item, LaneId, Quarantined, Settlement, bytes_of};
use super::error::AppendError;
use super::unread::Appended;

/// Requests that may wait for the committer; further ones wait to be let in.
pub(super) const WAITING_MAX: usize = 1024;
/// A group is closed once it holds this many bytes: bounds what a flush carries, and so its duration.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// A request to the committer, with where its answer goes.
#[derive(Debug)]
pub(super) enum Work {
    /// See [`super::Spool::append`].
    Append(Append, oneshot::Sender<Result<Appended, AppendError>>),
    /// See [`super::Spool::settle`].
    Settle(Settlement, oneshot::Sender<Result<(), AppendError>>),
    /// See [`super::Spool::lane`].
    Lane(String, u32, oneshot::Sender<Result<LaneId, AppendError>>),
    /// See [`super::Spool::probe`].
    Probe(oneshot::Sender<Result<(), AppendError>>),
    /// Ends the committer after what came before.
    Close,
}

/// What a record or an entry takes beside its bytes, at most: its place in a chunk, its digest, its names.
const ITEM_BYTES: usize = 160;
/// What a change of consent takes, and one that goes for it.
const CONSENT_BYTES: usize = 512;
/// What an erasure takes: a number for each lane.
const ERASE_BYTES: usize = 8192;
/// What a request takes beside its items.
const REQUEST_BYTES: usize = 512;

impl Work {
    /// About how many bytes it takes in the log; rather more.
    pub(super) fn bytes(&self) -> usize {
        let entry = |entry: &Quarantined| entry.body.len() + entry.detail.len() + ITEM_BYTES;
        let item = |item: &Item| match &item.content {
            Content::Record { record, event, .. } => bytes_of(record, event.as_ref()) + ITEM_BYTES,
            Content::Quarantine(quarantined) => entry(quarantined),
            Content::Nothing => ITEM_BYTES,
        };
        let bytes = match self {
            Work::Append(append, _) => {
                let traits = append.identities.iter();
                append.items.iter().map(item).sum::<usize>()
                    + traits.map(|(key, new)| key.len() + new.len() + 1024).sum::<usize>()
                    + (append.consents.len() + append.forgets.len()) * CONSENT_BYTES
                    + append.erases.len() * ERASE_BYTES
                    + append.notes.iter().map(|(_, note)| note.len() + ITEM_BYTES).sum::<usize>()
            }
            Work::Settle(settlement, _) => {
                let answer = settlement.delivery.as_ref().map_or(0, |push| push.answer.len());
                settlement.copies.iter().map(entry).sum::<usize>() + answer
            }
            Work::Lane(integration, ..) => integration.len(),
            Work::Probe(_) | Work::Close => 0,
        };
        bytes + REQUEST_BYTES
    }
}

/// What a request gets once the flush has returned.
#[derive(Debug)]
pub(super) enum Answer {
    Append(oneshot::Sender<Result<Appended, AppendError>>, Result<Appended, AppendError>),
    Settle(oneshot::Sender<Result<(), AppendError>>, Result<(), AppendError>),
    Lane(oneshot::Sender<Result<LaneId, AppendError>>, Result<LaneId, AppendError>),
}

impl Answer {
    /// A receiver that is gone no longer wants to know: its request was cancelled.
    pub(super) fn send(self) {
        match self {
            Answer::Append(to, answer) => drop(to.send(answer)),
            Answer::Settle(to, answer) => drop(to.send(answer)),
            Answer::Lane(to, answer) => drop(to.send(answer)),
        }
    }

    pub(super) fn fail(&mut self, error: &AppendError) {
        match self {
            Answer::Append(_, answer) => *answer = Err(error.clone()),
            Answer::Settle(_, answer) => *answer = Err(error.clone()),
            Answer::Lane(_, answer) => *answer = Err(error.clone()),
        }
    }
}

/// Waits for a request, then takes what else waits. The flag says that the channel has ended.
/// Returns an empty group when `flush_due` comes first.
pub(super) async fn next_group(
    waiting: &mut mpsc::Receiver<Work>,
    flush_due: Option<Instant>,
) -> (Vec<Work>, bool) {
    let first = match flush_due {
        None => waiting.recv().await,
        Some(due) => match tokio::time::timeout_at(due, waiting.recv()).await {
            Ok(first) => first,
            Err(_) => return (Vec::new(), false),
        },
    };
    let mut group = Vec::new();
    let mut bytes = 0;
    let mut next = first;
    loop {
        match next {
            None | Some(Work::Close) => return (group, true),
            Some(work) => {
                bytes += work.bytes();
                group.push(work);
            }
        }
        if bytes >= GROUP_BYTES_MAX || group.len() >= WAITING_MAX {
            return (group, false);
        }
        next = match waiting.try_recv() {
            Ok(work) => Some(work),
            Err(mpsc::error::TryRecvError::Empty) => return (group, false),
            Err(mpsc::error::TryRecvError::Disconnected) => None,
        };
    }
}

/// Answers a request that is not taken.
pub(super) fn refuse(work: Work, error: &AppendError) {
    match work {
        Work::Append(_, to) => Answer::Append(to, Err(error.clone())).send(),
        Work::Settle(_, to) | Work::Probe(to) => Answer::Settle(to, Err(error.clone())).send(),
        Work::Lane(_, _, to) => Answer::Lane(to, Err(error.clone())).send(),
        Work::Close => {}
    }
}
