//! PURE. The state machine of a lane: what to push, and what its verdict leads to.
//!
//! ```text
//!            ┌────────────── Accepted: settle, delivered ◀─────────────┐
//!            ▼                                                         │
//!  Fresh ─▶ push ─┬─ Rejected, many ─▶ Pieces: halves, front first ─▶ push
//!            ▲    ├─ Rejected, one ──▶ settle, quarantined (storm guard: hold instead)
//!            │    ├─ Deferred ───────▶ wait ─▶ the same records again
//!            └────┴─ Held ───────────▶ wait for the probe ─▶ the same records again
//! ```
//! A record leaves the lane only by being settled, always from the front: whatever verdicts come, order is kept and nothing
//! is lost (Promises 3 and 6).

use std::time::Duration;

use super::isolate::Isolation;
use super::report::State;
use super::retry::{RetryPolicy, delay};
use super::verdict::{Hold, Verdict};

/// A held lane tries again this often: a key may start to work, an endpoint may come back.
pub const PROBE: Duration = Duration::from_secs(60);

/// What to do after a verdict.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Settle the records of the push as delivered.
    Deliver,
    /// Settle the one record of the push as quarantined.
    Quarantine {
        /// As the quarantine names it.
        reason: &'static str,
    },
    /// Push again at once: the front half.
    Split,
    /// Push again after this long.
    Wait(Duration),
}

/// The records at the front of the lane.
#[derive(Clone, Debug, PartialEq)]
enum Front {
    /// To be cut.
    Fresh,
    /// Cut, pushed and not settled: a retry pushes exactly these.
    Again(usize),
    /// A rejected push in pieces.
    Pieces(Isolation),
}

/// A lane's state between pushes.
#[derive(Clone, Debug)]
pub struct Plan {
    policy: RetryPolicy,
    storm_limit: u64,
    front: Front,
    hold: Option<Hold>,
    failures: u32,
    /// Records quarantined since the last delivery.
    quarantined_in_row: u64,
}

impl Plan {
    /// A plan at rest.
    #[must_use]
    pub fn new(policy: RetryPolicy, storm_limit: u64) -> Plan {
        Plan {
            policy,
            storm_limit,
            front: Front::Fresh,
            hold: None,
            failures: 0,
            quarantined_in_row: 0,
        }
    }

    /// How many records the next push must hold; `None` when it is to be cut from what there is.
    #[must_use]
    pub fn fixed(&self) -> Option<usize> {
        match &self.front {
            Front::Fresh => None,
            Front::Again(records) => Some(*records),
            Front::Pieces(isolation) => isolation.front(),
        }
    }

    /// Consecutive attempts that were deferred or held. An answer on the records themselves, good or bad, ends the row.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// What an operator sees while a push is on its way or awaited.
    #[must_use]
    pub fn state(&self) -> State {
        match (self.hold, &self.front) {
            (Some(Hold::Unauthorized), _) => State::Unauthorized,
            (Some(Hold::Endpoint), _) => State::Held,
            (Some(Hold::Storm), _) => State::Storm,
            (None, _) if self.failures > 0 => State::Retrying,
            (None, Front::Pieces(_)) => State::Isolating,
            (None, _) => State::Pushing,
        }
    }

    /// Takes the verdict on a push of `records`. `jitter` is uniform in `[0, 1)`.
    pub fn take(&mut self, records: usize, verdict: &Verdict, jitter: f64) -> Action {
        match verdict {
            Verdict::Accepted(_) => {
                self.hold = None;
                self.failures = 0;
                self.quarantined_in_row = 0;
                self.settled();
                Action::Deliver
            }
            Verdict::Rejected { reason } => self.rejected(records, reason),
            Verdict::Deferred { after, .. } => {
                self.hold = None;
                self.failures = self.failures.saturating_add(1);
                self.keep(records);
                Action::Wait(delay(&self.policy, self.failures, jitter, *after))
            }
            Verdict::Held(hold) => self.held(records, *hold),
        }
    }

    fn rejected(&mut self, records: usize, reason: &'static str) -> Action {
        if records > 1 {
            self.hold = None;
            self.failures = 0;
            match &mut self.front {
                Front::Pieces(isolation) => {
                    isolation.split();
                }
                front => *front = Front::Pieces(Isolation::of(records)),
            }
            return Action::Split;
        }
        if self.quarantined_in_row >= self.storm_limit {
            return self.held(records, Hold::Storm);
        }
        self.hold = None;
        self.failures = 0;
        self.quarantined_in_row += 1;
        self.settled();
        Action::Quarantine { reason }
    }

    fn held(&mut self, records: usize, hold: Hold) -> Action {
        self.hold = Some(hold);
        self.failures = self.failures.saturating_add(1);
        self.keep(records);
        Action::Wait(PROBE)
    }

    fn keep(&mut self, records: usize) {
        if self.front == Front::Fresh {
            self.front = Front::Again(records);
        }
    }

    /// Takes it that the records of the next push are settled; with or without one.
    pub fn settled(&mut self) {
        let more = match &mut self.front {
            Front::Pieces(isolation) => !isolation.settled(),
            Front::Fresh | Front::Again(_) => false,
        };
        if !more {
            self.front = Front::Fresh;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::forward::verdict::Acceptance;

    const POLICY: RetryPolicy =
        RetryPolicy { initial: Duration::from_millis(500), max: Duration::from_secs(300) };

    fn accepted() -> Verdict {
        Verdict::Accepted(Acceptance::default())
    }

    fn deferred() -> Verdict {
        Verdict::Deferred { after: None, slow_down: false }
    }

    const REJECTED: Verdict = Verdict::Rejected { reason: "rejected" };

    fn any_verdict() -> impl Strategy<Value = Verdict> {
        prop_oneof![
            Just(accepted()),
            Just(deferred()),
            Just(REJECTED),
            Just(Verdict::Held(Hold::Unauthorized)),
            Just(Verdict::Held(Hold::Endpoint)),
        ]
    }

    proptest! {
        /// Any sequence of verdicts keeps every record, in order, repeats exactly what was not settled, and comes back
        /// to rest once upstream accepts.
        #[test]
        fn no_verdicts_lose_or_reorder_records(verdicts in proptest::collection::vec(any_verdict(), 0..200), storm_limit in 1_u64..50, max in 1_usize..=100) {
            let total = 300_usize;
            let mut plan = Plan::new(POLICY, storm_limit);
            let (mut cursor, mut delivered, mut quarantined, mut row) = (0, 0, 0, 0);
            let mut unsettled: Option<usize> = None;
            let then_accept = std::iter::repeat_with(accepted);
            for verdict in verdicts.into_iter().chain(then_accept) {
                if cursor == total { break; }
                let records = plan.fixed().unwrap_or(max.min(total - cursor));
                prop_assert!(records >= 1 && cursor + records <= total);
                if let Some(before) = unsettled { prop_assert_eq!(before, records); }
                match plan.take(records, &verdict, 0.5) {
                    Action::Deliver => { cursor += records; delivered += records; unsettled = None; row = 0; }
                    Action::Quarantine { .. } => {
                        prop_assert_eq!(records, 1);
                        cursor += 1; quarantined += 1; row += 1; unsettled = None;
                        prop_assert!(row <= storm_limit);
                    }
                    Action::Split => { prop_assert!(records > 1); unsettled = None; }
                    Action::Wait(_) => {
                        prop_assert!(plan.failures() > 0);
                        // What arrives meanwhile must not join: a retry is the same push (Promise 4).
                        prop_assert_eq!(plan.fixed(), Some(records));
                        prop_assert!(!matches!(plan.state(), State::Pushing | State::Idle));
                        unsettled = Some(records);
                    }
                }
            }
            prop_assert_eq!(delivered + quarantined, total);
            prop_assert_eq!((plan.state(), plan.fixed(), plan.failures()), (State::Pushing, None, 0));
        }
    }

    #[test]
    fn one_guilty_record_stands_alone_and_costs_the_others_nothing() {
        let mut plan = Plan::new(POLICY, 1000);
        let (guilty, mut cursor, mut ends) = (37, 0, Vec::new());
        while cursor < 100 {
            let records = plan.fixed().unwrap_or(100);
            let verdict =
                if (cursor..cursor + records).contains(&guilty) { REJECTED } else { accepted() };
            match plan.take(records, &verdict, 0.0) {
                Action::Deliver => ends.push((cursor, records, true)),
                Action::Quarantine { reason } => {
                    assert_eq!(reason, "rejected");
                    ends.push((cursor, records, false));
                }
                Action::Split => continue,
                Action::Wait(_) => panic!("nothing to wait for"),
            }
            cursor += records;
        }
        assert_eq!(
            ends.iter().filter(|(_, _, delivered)| !delivered).collect::<Vec<_>>(),
            [&(37, 1, false)]
        );
    }

    #[test]
    fn the_storm_guard_holds_instead_of_emptying_the_queue() {
        let mut plan = Plan::new(POLICY, 3);
        for _ in 0..3 {
            assert_eq!(plan.take(1, &REJECTED, 0.0), Action::Quarantine { reason: "rejected" });
        }
        for _ in 0..5 {
            assert_eq!(plan.take(1, &REJECTED, 0.0), Action::Wait(PROBE));
            assert_eq!((plan.state(), plan.fixed()), (State::Storm, Some(1)));
        }
        assert_eq!(plan.take(1, &accepted(), 0.0), Action::Deliver);
        assert_eq!(plan.state(), State::Pushing);
        assert_eq!(plan.take(1, &REJECTED, 0.0), Action::Quarantine { reason: "rejected" });
    }

    #[test]
    fn a_wait_in_the_middle_of_an_isolation_goes_on_with_it() {
        let mut plan = Plan::new(POLICY, 1000);
        assert_eq!(plan.take(8, &REJECTED, 0.0), Action::Split);
        assert_eq!(plan.fixed(), Some(4));
        assert_eq!(plan.take(4, &deferred(), 1.0), Action::Wait(POLICY.initial));
        assert_eq!((plan.state(), plan.fixed()), (State::Retrying, Some(4)));
        assert_eq!(plan.take(4, &Verdict::Held(Hold::Unauthorized), 1.0), Action::Wait(PROBE));
        assert_eq!((plan.state(), plan.fixed()), (State::Unauthorized, Some(4)));
        assert_eq!(plan.take(4, &accepted(), 0.0), Action::Deliver);
        assert_eq!((plan.state(), plan.fixed()), (State::Isolating, Some(4)));
    }

    #[test]
    fn what_upstream_asks_for_is_waited() {
        let mut plan = Plan::new(POLICY, 1000);
        let after = Some(Duration::from_secs(7));
        assert_eq!(
            plan.take(1, &Verdict::Deferred { after, slow_down: true }, 0.0),
            Action::Wait(Duration::from_secs(7))
        );
    }
}
