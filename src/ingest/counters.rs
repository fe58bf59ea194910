//! What went through the socket since the daemon started.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::answer::{Fate, Refusal, Taken};

/// Counts of events and requests, all of the same moment.
///
/// Every event of an answered request is in exactly one of the four event counts (Promise 6).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Requests answered 200.
    pub requests: u64,
    /// Events accepted.
    pub events_accepted: u64,
    /// Events dropped, by reason.
    pub events_dropped: BTreeMap<String, u64>,
    /// Events seen before.
    pub events_duplicate: u64,
    /// Events set aside.
    pub events_quarantined: u64,
    /// Requests refused whole, by code.
    pub requests_refused: BTreeMap<String, u64>,
    /// Connections of users who are not admitted (`ingest.allow_users`, `ingest.allow_groups`).
    #[serde(default)]
    pub connections_refused: u64,
    /// Records taken whose `event_type` is so long that Ometria cuts it, by integration.
    #[serde(default)]
    pub event_types_truncated: BTreeMap<String, u64>,
}

/// The counts, shared by all connections.
#[derive(Debug, Default)]
pub struct Counters {
    counts: Mutex<Counts>,
    /// Producers' connections that are open.
    connections: AtomicU64,
}

impl Counters {
    /// Counts an answered request.
    pub fn took(&self, taken: &Taken) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.requests += 1;
        counts.events_accepted += taken.accepted;
        counts.events_duplicate += taken.duplicate;
        counts.events_quarantined += taken.quarantined;
        for dropped in taken.items.iter().filter(|item| item.outcome == Fate::Dropped) {
            add(&mut counts.events_dropped, &dropped.reason);
        }
        for integration in &taken.truncated {
            if !counts.event_types_truncated.contains_key(integration) {
                tracing::warn!(%integration, "an event_type is so long that Ometria cuts it; `pillarbox status` counts them");
            }
            add(&mut counts.event_types_truncated, integration);
        }
    }

    /// Counts a refused request.
    pub fn refused(&self, refusal: &Refusal) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        add(&mut counts.requests_refused, refusal.code);
    }

    /// Counts a connection that was opened.
    pub(super) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection that has ended.
    pub(super) fn disconnected(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Producers' connections that are open now.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Counts a connection of somebody who is not admitted.
    pub fn refused_connection(&self) {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).connections_refused += 1;
    }

    /// The counts as they stand.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn add(counts: &mut BTreeMap<String, u64>, key: &str) {
    if let Some(count) = counts.get_mut(key) {
        *count += 1;
    } else {
        counts.insert(key.to_owned(), 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_event_types_are_counted_by_integration() {
        let counters = Counters::default();
        let taken = |names: &[&str]| {
            let mut taken = Taken::new();
            taken.truncated = names.iter().map(|name| (*name).to_owned()).collect();
            taken
        };
        counters.took(&taken(&["uk", "de"]));
        counters.took(&taken(&["uk"]));
        let expected = [("de".to_owned(), 1), ("uk".to_owned(), 2)];
        assert_eq!(counters.counts().event_types_truncated, expected.into());
    }
}
