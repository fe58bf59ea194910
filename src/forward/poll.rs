//! Polls the ledger of one integration: what Ometria rejected after its 202 is copied to the quarantine, once.
//!
//! A rejected record was counted as delivered and stays so; the copy is for an operator to mend. Ours is what the kept
//! deliveries know: the push by its `request_id`, the record by its id. What is not ours, or no longer kept, is counted.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::mem;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::batch::{BYTES_MAX, RECORDS_MAX};
use super::failure::PushError;
use super::ledger::{self, Rejection};
use super::push::{Answer, HttpUpstream};
use super::settlement::id_of;
use super::{Control, Settings, pause};
use crate::advice;
use crate::clock::{self, UnixMillis};
use crate::spool::{
    Append, AppendError, Content, Entry, Item, LaneId, Once, Origin, Quarantined, ReadError, Seq,
    Spool,
};

/// Scopes of the dedupe window from here on are for ledgers: lanes are never so many.
const SCOPES: u32 = 1 << 31;
/// Entries that are doubted at once: of more, the rest counts as none of ours.
const DOUBTED_MAX: usize = 1000;
/// Entries that are copied at once: each may be a record of the largest size.
const COPIED_MAX: usize = 100;
/// Deliveries and records that are read at once.
const READ_MAX: usize = 1000;

/// What an operator is told of the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// When it was last read.
    pub polled_at: Option<UnixMillis>,
    /// Why it could not be read the last time; empty when it could.
    pub cause: String,
    /// Records that it named and that were copied to the quarantine, since the daemon started.
    pub found: u64,
    /// Entries that name no record of ours, or none that is still kept.
    pub unknown: u64,
}

/// Why a poll came to nothing; the next one tries again.
#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error(transparent)]
    Push(#[from] PushError),
    #[error("{0}")]
    Answer(String),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Append(#[from] AppendError),
}

/// Polls until [`Control::stop`], every [`Settings::poll_errors`].
///
/// # Cancel safety
/// Dropping it loses nothing: what is not copied yet is copied by the next poll.
pub async fn run(
    settings: Settings,
    spool: Spool,
    lanes: Vec<LaneId>,
    upstream: HttpUpstream,
    report: watch::Sender<Report>,
    mut control: watch::Receiver<Control>,
) {
    let mut poller =
        Poller { settings, spool, lanes, seen: HashSet::new(), doubted: HashMap::new() };
    loop {
        if pause(poller.settings.poll_errors, &mut control).await {
            return;
        }
        // The account's limit is one for all that is asked of it.
        while let Err(delay) = poller.settings.pace.turn() {
            if pause(delay, &mut control).await {
                return;
            }
        }
        let outcome = tokio::select! {
            biased;
            () = super::stopped(&mut control) => return,
            outcome = poller.poll(&upstream) => outcome,
        };
        poller.tell(&report, outcome);
    }
}

struct Poller {
    settings: Settings,
    spool: Spool,
    lanes: Vec<LaneId>,
    /// The entries of the last poll that are dealt with.
    seen: HashSet<String>,
    /// Those that named no record of ours, by their texts.
    doubted: HashMap<String, Doubted>,
}

/// An entry that names no record of ours yet. A push is in the ledger before its answer has arrived and was settled here: only
/// what is unknown after the pushes that were under way is none of ours.
#[derive(Clone)]
struct Doubted {
    rejection: Rejection,
    /// Where each lane's cursor must be until then.
    until: Vec<(LaneId, Seq)>,
}

/// What became of the entries of one poll.
#[derive(Default)]
struct Copied {
    found: u64,
    unknown: u64,
    doubted: HashMap<String, Doubted>,
    /// Why a push that the ledger may name could not be read.
    damage: Option<ReadError>,
}

/// What was found of some entries.
#[derive(Default)]
struct Search {
    found: BTreeMap<usize, Found>,
    /// Those that may name a record of a push which cannot be read.
    unread: BTreeSet<usize>,
    damage: Option<ReadError>,
}

/// A record that the ledger names.
struct Found {
    lane: LaneId,
    entry: Entry,
}

impl Poller {
    /// Copies what is new.
    async fn poll(&mut self, upstream: &HttpUpstream) -> Result<Copied, PollError> {
        let Answer { status, body, .. } = upstream.ledger().await?;
        if status != 200 {
            let what = format!("{status} from {}", upstream.ledger_path());
            return Err(PollError::Answer(what));
        }
        let rejections = ledger::read(&body).map_err(PollError::Answer)?;
        let mut now: HashSet<String> =
            rejections.iter().map(|rejection| rejection.text.clone()).collect();
        let mut fresh: Vec<Rejection> = rejections
            .into_iter()
            .filter(|rejection| !self.seen.contains(&rejection.text))
            .collect();
        // The list shows the last entries only: what is doubted is looked for although it is no longer in it.
        let gone = self.doubted.values().map(|doubted| &doubted.rejection);
        fresh.extend(gone.filter(|rejection| !now.contains(&rejection.text)).cloned());
        let mut copied = Copied::default();
        for some in fresh.chunks(COPIED_MAX) {
            if let Err(error) = self.copy(some, &mut copied).await {
                self.doubted.extend(copied.doubted);
                return Err(error);
            }
        }
        now.retain(|text| !copied.doubted.contains_key(text));
        self.seen = now;
        self.doubted = mem::take(&mut copied.doubted);
        Ok(copied)
    }

    async fn copy(&self, fresh: &[Rejection], copied: &mut Copied) -> Result<(), PollError> {
        let Some(scope) = self.lanes.iter().min() else { return Ok(()) };
        let Search { mut found, unread, damage } = self.find(fresh).await?;
        copied.damage = damage.or(copied.damage.take());
        let mut items = Vec::new();
        for (index, rejection) in fresh.iter().enumerate() {
            let content = if let Some(found) = found.remove(&index) {
                Content::Quarantine(Box::new(self.quarantined(found, rejection)))
            } else if let Some(doubted) = self
                .doubted(rejection, unread.contains(&index))
                .filter(|_| copied.doubted.len() < DOUBTED_MAX)
            {
                copied.doubted.insert(rejection.text.clone(), doubted);
                continue;
            } else {
                Content::Nothing
            };
            items.push(Item { once: Some(Once::new(SCOPES | scope.0, &rejection.text)), content });
        }
        let known: Vec<bool> =
            items.iter().map(|item| matches!(item.content, Content::Quarantine(_))).collect();
        let receipt = self.spool.append(Append { items, ..Append::default() }).await?;
        for (index, known) in known.into_iter().enumerate() {
            // What an earlier run of the daemon has taken is not news.
            if receipt.duplicates.binary_search(&index).is_err() {
                *if known { &mut copied.found } else { &mut copied.unknown } += 1;
            }
        }
        Ok(())
    }

    /// The doubt about an entry that was not found; `None` once it is certain that it is none of ours. It is not where a push
    /// that it may name is `unread`.
    fn doubted(&self, rejection: &Rejection, unread: bool) -> Option<Doubted> {
        // Without an id it will never be found.
        rejection.record_id.as_ref()?;
        let before = self.doubted.get(&rejection.text);
        if !unread && before.is_some_and(|before| self.is_past(&before.until)) {
            return None;
        }
        let new = || Doubted { rejection: rejection.clone(), until: self.under_way() };
        Some(before.cloned().unwrap_or_else(new))
    }

    /// Where the cursors are once the pushes that may be under way now are settled.
    fn under_way(&self) -> Vec<(LaneId, Seq)> {
        let until = |lane: &LaneId| {
            let pushed = self.spool.cursor(*lane).0 + RECORDS_MAX as u64;
            (*lane, Seq(pushed.min(*self.spool.newest(*lane).borrow() + 1)))
        };
        self.lanes.iter().map(until).collect()
    }

    fn is_past(&self, until: &[(LaneId, Seq)]) -> bool {
        until.iter().all(|(lane, seq)| self.spool.cursor(*lane) >= *seq)
    }

    /// The records that entries name, by the entry's index.
    async fn find(&self, fresh: &[Rejection]) -> Result<Search, PollError> {
        let mut search = Search::default();
        for lane in &self.lanes {
            let mut next = self.spool.oldest(*lane);
            loop {
                let deliveries = self.spool.deliveries(*lane, next, READ_MAX).await?;
                let Some(last) = deliveries.last() else { break };
                next = Seq(last.first.0 + last.records.max(1));
                for delivery in deliveries.into_iter().filter(|it| it.status == 202) {
                    let of_push = |rejection: &Rejection| match &rejection.request_id {
                        Some(id) => delivery.answer.contains(id.as_str()),
                        None => true,
                    };
                    let named: Vec<(usize, &str)> = (fresh.iter().enumerate())
                        .filter(|(_, rejection)| of_push(rejection))
                        .filter_map(|(index, rejection)| {
                            Some((index, rejection.record_id.as_deref()?))
                        })
                        .collect();
                    if named.is_empty() {
                        continue;
                    }
                    let records = usize::try_from(delivery.records).unwrap_or(usize::MAX);
                    let from = delivery.first;
                    let pushed = match self.spool.peek_kept(*lane, from, records, BYTES_MAX).await {
                        Err(error @ ReadError::Damaged { .. }) => {
                            search.unread.extend(named.iter().map(|(index, _)| *index));
                            search.damage = Some(error);
                            continue;
                        }
                        pushed => pushed?,
                    };
                    let erased = self.spool.erased(*lane, &pushed).await?;
                    let was_sent = |seq| delivery.end_of(seq) == Some(delivery.end);
                    let sent = pushed
                        .into_iter()
                        .filter(|it| was_sent(it.seq) && !erased.contains(&it.seq));
                    for entry in sent {
                        let Some(id) = id_of(&entry) else { continue };
                        // Of several records with one id the newest is told.
                        for (index, _) in named.iter().filter(|(_, named)| *named == id) {
                            let found = Found { lane: *lane, entry: entry.clone() };
                            search.found.insert(*index, found);
                        }
                    }
                }
            }
        }
        Ok(search)
    }

    fn quarantined(&self, found: Found, rejection: &Rejection) -> Quarantined {
        let Found { lane, entry } = found;
        let integration = self.settings.integration.clone();
        let record_type = entry.record_type.to_string();
        let (seq, person, at) = (entry.seq, entry.person, clock::now());
        Quarantined {
            origin: Origin::Record { lane, integration, seq, record_type, person },
            reason: "rejected_later".to_owned(),
            detail: super::push::cut(rejection.message.clone()),
            status: None,
            at,
            body: entry.record.to_vec(),
            first_at: entry.first_seen.unwrap_or(at),
        }
    }

    /// Brings the report up to date, and logs what is news.
    fn tell(&self, report: &watch::Sender<Report>, polled: Result<Copied, PollError>) {
        let integration = &self.settings.integration;
        let is_news = report.borrow().cause.is_empty();
        match polled {
            Ok(Copied { found, unknown, damage, .. }) => {
                if found > 0 {
                    tracing::warn!(%integration, found, "Ometria rejected records after its 202: they are in the quarantine as `rejected_later`");
                }
                if unknown > 0 {
                    tracing::info!(%integration, unknown, "the ledger names records that are not ours, or no longer kept");
                }
                let cause = damage
                    .map_or_else(String::new, |error| format!("{error}; {}", advice::DAMAGED));
                if !cause.is_empty() && is_news {
                    tracing::warn!(%integration, %cause, "records that the ledger may name cannot be read: what it says of them is kept in mind");
                }
                report.send_modify(|report| {
                    report.found += found;
                    report.unknown += unknown;
                    report.cause = cause;
                    report.polled_at = Some(clock::now());
                });
            }
            Err(error) => {
                let cause = error.to_string();
                if is_news {
                    tracing::warn!(%integration, %cause, "the ledger of rejected records cannot be read: it is tried again");
                }
                report.send_modify(|report| report.cause = cause);
            }
        }
    }
}
