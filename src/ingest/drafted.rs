//! What one request came to before it is committed: what is to be stored, and what its producer is told once it is.

use std::sync::Arc;

use super::answer::{Fate, Outcome, Taken};
use super::tally::{Ending, Tally};
use crate::spool::Append;

/// A request that was read. Holds nothing of its text, whose memory is free while the disk is waited for.
#[derive(Debug)]
#[must_use = "nothing of it is stored before it is committed"]
pub struct Drafted {
    pub(super) append: Append,
    pub(super) told: Told,
}

/// What became of each event, but for repeats: those are found when the request is committed.
#[derive(Debug)]
pub(super) struct Told {
    /// For each event: its items in the append, or how it ended without any.
    pub(super) events: Vec<Planned>,
    /// For each integration: how its events ended.
    pub(super) endings: Vec<(Arc<Tally>, Vec<Ending>)>,
    /// Items whose `event_type` Ometria cuts, each with the name of its integration.
    pub(super) truncated: Vec<(usize, String)>,
}

#[derive(Debug)]
pub(super) enum Planned {
    /// The range of its items in the append, and reason and detail when they are quarantine entries.
    Items { first: usize, count: usize, quarantined: Option<(String, String)> },
    /// Accepted without a record: an identify.
    Applied,
    /// Dropped with this reason.
    Dropped(&'static str),
}

impl Told {
    /// Counts the events and says what became of them; `duplicates` are the items of the append that were skipped, ascending.
    pub(super) fn taken(self, duplicates: &[usize]) -> Taken {
        for (tally, endings) in &self.endings {
            tally.count(endings, duplicates);
        }
        let known = |item: &usize| duplicates.binary_search(item).is_ok();
        let mut taken = Taken::new();
        let stored = self.truncated.into_iter().filter(|(item, _)| !known(item));
        taken.truncated = stored.map(|(_, integration)| integration).collect();
        for (index, planned) in self.events.into_iter().enumerate() {
            let outcome = match planned {
                Planned::Applied => None,
                Planned::Dropped(reason) => Some((Fate::Dropped, reason.to_owned(), None)),
                Planned::Items { first, count, .. }
                    if (first..first + count).all(|item| known(&item)) =>
                {
                    Some((Fate::Duplicate, "seen_before".to_owned(), None))
                }
                Planned::Items { quarantined, .. } => {
                    quarantined.map(|(reason, message)| (Fate::Quarantined, reason, Some(message)))
                }
            };
            match outcome {
                None => taken.accept(),
                Some((outcome, reason, message)) => {
                    taken.add(Outcome { index, outcome, reason, message });
                }
            }
        }
        taken
    }
}
