//! What became of events for each integration, since the daemon started.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
pub(super) struct Tally(Mutex<Tallied>);

/// The counts of one integration when they were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tallied {
    /// Events that became a record, and records that were pushed.
    pub accepted: u64,
    /// Events seen before.
    pub duplicate: u64,
    /// Events set aside, as they can become no record.
    pub quarantined: u64,
    /// Events dropped, in the order of [`DropReason::ALL`].
    pub dropped: [u64; DropReason::ALL.len()],
}

impl Tally {
    /// Counts the events of a request; `duplicates` are the items of its append that were skipped, ascending.
    pub(super) fn count(&self, endings: &[Ending], duplicates: &[usize]) {
        let mut counts = self.lock();
        for ending in endings {
            let repeated = |item: &usize| duplicates.binary_search(item).is_ok();
            *match ending {
                Ending::Item(item) | Ending::Quarantined(item) if repeated(item) => {
                    &mut counts.duplicate
                }
                Ending::Item(_) => &mut counts.accepted,
                Ending::Quarantined(_) => &mut counts.quarantined,
                Ending::Dropped(reason) => {
                    let [no_mapping, disabled, consent] = &mut counts.dropped;
                    match reason {
                        DropReason::NoMapping => no_mapping,
                        DropReason::Disabled => disabled,
                        DropReason::Consent => consent,
                    }
                }
            } += 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tallied> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        known.iter().map(|(name, tally)| (name.clone(), *tally.lock())).collect()
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
        tally.count(&endings, &[1, 3]);
        tallies.of("uk").count(&[Ending::Item(0); 100], &[]);
        tallies.of("de");
        let read = tallies.read();
        let uk = Tallied { accepted: 102, duplicate: 2, quarantined: 1, dropped: [1, 2, 1] };
        assert_eq!((&read["uk"], read["de"].accepted, read.len()), (&uk, 0, 2));
    }
}
