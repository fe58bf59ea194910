//! What became of events for each integration, since the daemon started.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::mapping::DropReason;

/// How an event ended for one integration. Items are those of the append, by their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// As this item, a record; or as a repeat.
    Item(usize),
    /// As this item, an entry of the quarantine; or as a repeat.
    Quarantined(usize),
    /// Dropped.
    Dropped(DropReason),
}

/// The counts of one integration, shared by all connections.
#[derive(Debug, Default)]
pub(super) struct Tally {
    accepted: AtomicU64,
    duplicate: AtomicU64,
    quarantined: AtomicU64,
    dropped: [AtomicU64; DropReason::ALL.len()],
}

/// The counts of one integration when they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tallied {
    /// Events that became a record, and records that were pushed.
    pub accepted: u64,
    /// Events seen before.
    pub duplicate: u64,
    /// Events set aside, as they can become no record.
    pub quarantined: u64,
    /// Events dropped, by [`DropReason::code`].
    pub dropped: Vec<(&'static str, u64)>,
}

impl Tally {
    /// Counts an event; `duplicates` are the items of its append that were skipped, ascending.
    pub(super) fn count(&self, ending: Ending, duplicates: &[usize]) {
        let repeated = |item: &usize| duplicates.binary_search(item).is_ok();
        let count = match ending {
            Ending::Item(item) | Ending::Quarantined(item) if repeated(&item) => &self.duplicate,
            Ending::Item(_) => &self.accepted,
            Ending::Quarantined(_) => &self.quarantined,
            Ending::Dropped(reason) => {
                let [no_mapping, disabled, consent] = &self.dropped;
                match reason {
                    DropReason::NoMapping => no_mapping,
                    DropReason::Disabled => disabled,
                    DropReason::Consent => consent,
                }
            }
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts records that were handed in ready.
    pub(super) fn pushed(&self, records: usize) {
        self.accepted.fetch_add(records as u64, Ordering::Relaxed);
    }

    fn read(&self) -> Tallied {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Tallied {
            accepted: read(&self.accepted),
            duplicate: read(&self.duplicate),
            quarantined: read(&self.quarantined),
            dropped: DropReason::ALL
                .map(DropReason::code)
                .into_iter()
                .zip(self.dropped.iter().map(read))
                .collect(),
        }
    }
}

/// The tallies of all integrations that were ever fed: a reload does not begin them anew.
#[derive(Debug, Default)]
pub(super) struct Tallies {
    known: Mutex<BTreeMap<String, Arc<Tally>>>,
}

impl Tallies {
    /// That of the integration `name`.
    pub(super) fn of(&self, name: &str) -> Arc<Tally> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.entry(name.to_owned()).or_default().clone()
    }

    /// All of them, by name.
    pub(super) fn read(&self) -> BTreeMap<String, Tallied> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|(name, tally)| (name.clone(), tally.read())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ending_is_counted_once_and_a_reload_keeps_the_counts() {
        let tallies = Tallies::default();
        let tally = tallies.of("uk");
        let mut endings = vec![Ending::Item(0), Ending::Item(1), Ending::Quarantined(2)];
        endings.extend([Ending::Quarantined(3), Ending::Item(4)]);
        endings.extend(DropReason::ALL.map(Ending::Dropped));
        endings.push(Ending::Dropped(DropReason::Disabled));
        for ending in endings {
            tally.count(ending, &[1, 3]);
        }
        tallies.of("uk").pushed(100);
        tallies.of("de");
        let read = tallies.read();
        let dropped = vec![("no_mapping", 1), ("disabled", 2), ("consent", 1)];
        let uk = Tallied { accepted: 102, duplicate: 2, quarantined: 1, dropped };
        assert_eq!((&read["uk"], read["de"].accepted, read.len()), (&uk, 0, 2));
    }
}
