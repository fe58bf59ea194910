//! PURE. What an operator is told of a lane's forwarder.

use serde::{Deserialize, Serialize};

use super::plan::Action;
use super::symptom::Symptoms;
use super::verdict::{Attempt, Verdict};
use crate::advice;
use crate::clock::UnixMillis;

/// What a lane's forwarder is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing is queued.
    #[default]
    Idle,
    /// Records are on their way.
    Pushing,
    /// A rejected push is being split to find the records at fault.
    Isolating,
    /// Waiting for the next attempt.
    Retrying,
    /// An operator has it paused.
    Paused,
    /// Held: upstream refuses the key.
    Unauthorized,
    /// Held: the endpoint is wrong, the records are not.
    Held,
    /// Held by the storm guard.
    Storm,
    /// The lane cannot be read.
    Damaged,
}

impl State {
    /// All of them, in the order of their declaration.
    pub const ALL: [State; 9] = [
        State::Idle,
        State::Pushing,
        State::Isolating,
        State::Retrying,
        State::Paused,
        State::Unauthorized,
        State::Held,
        State::Storm,
        State::Damaged,
    ];

    /// As it is written everywhere.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            State::Idle => "idle",
            State::Pushing => "pushing",
            State::Isolating => "isolating",
            State::Retrying => "retrying",
            State::Paused => "paused",
            State::Unauthorized => "unauthorized",
            State::Held => "held",
            State::Storm => "storm",
            State::Damaged => "damaged",
        }
    }

    /// How much an operator should care, in the order of their declaration.
    fn trouble(self) -> u8 {
        self as u8
    }
}

/// What an operator is told of a lane's forwarder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// See [`State`].
    pub state: State,
    /// Why it is in that state, in words that say what to do; empty when all is well.
    pub cause: String,
    /// Failed attempts in a row.
    pub failures: u32,
    /// When the next attempt is due.
    pub next_try_at: Option<UnixMillis>,
    /// The status of the last attempt's answer; `None` when it had none.
    pub last_status: Option<u16>,
    /// When the last 202 arrived.
    pub last_delivery_at: Option<UnixMillis>,
    /// Pushes sent since the daemon started.
    pub pushes: u64,
    /// Of these, answered 202.
    pub pushes_delivered: u64,
    /// Of these, to be tried again.
    pub pushes_retried: u64,
    /// Records that upstream's 202s named as rejected.
    pub records_rejected: u64,
    /// Records delivered since then that Ometria does less with than was meant.
    #[serde(default)]
    pub symptoms: Symptoms,
}

impl Report {
    /// What is told at first of a forwarder whose lane had an `earlier` one: the counts go on.
    #[must_use]
    pub fn after(earlier: &Report) -> Report {
        Report {
            last_delivery_at: earlier.last_delivery_at,
            pushes: earlier.pushes,
            pushes_delivered: earlier.pushes_delivered,
            pushes_retried: earlier.pushes_retried,
            records_rejected: earlier.records_rejected,
            symptoms: earlier.symptoms,
            ..Report::default()
        }
    }

    /// Nothing is queued. `true` when that is news.
    pub(super) fn idle(&mut self) -> bool {
        let news = (self.state, self.next_try_at) != (State::Idle, None) || !self.cause.is_empty();
        (self.state, self.next_try_at) = (State::Idle, None);
        // What the last push ran into may have been withheld since.
        self.cause.clear();
        news
    }

    /// An operator has it paused.
    pub(super) fn paused(&mut self) {
        (self.state, self.next_try_at) = (State::Paused, None);
        advice::PAUSED.clone_into(&mut self.cause);
    }

    /// It goes on, in `state`.
    pub(super) fn resumed(&mut self, state: State) {
        self.state = state;
        self.cause.clear();
    }

    /// A push begins. What was wrong with the last one is told until this one is answered.
    pub(super) fn pushing(&mut self, state: State) {
        self.pushes += 1;
        self.next_try_at = None;
        self.state = state;
    }

    /// A push was judged, and `action` follows from it. `state` and `failures` are the plan's, after it.
    pub(super) fn judged(
        &mut self,
        attempt: &Attempt,
        verdict: &Verdict,
        action: &Action,
        (state, failures): (State, u32),
        cause: &str,
    ) {
        self.state = state;
        self.failures = failures;
        self.last_status = attempt.status();
        cause.clone_into(&mut self.cause);
        if let Verdict::Accepted(acceptance) = verdict {
            self.pushes_delivered += 1;
            self.last_delivery_at = Some(attempt.answered_at);
            self.records_rejected += acceptance.rejected;
        }
        if let Action::Wait(delay) = action {
            self.pushes_retried += 1;
            self.next_try_at = Some(attempt.answered_at.after(*delay));
        }
    }

    /// What is told of two lanes together: the trouble of the one in more of it, and the sums.
    #[must_use]
    pub fn beside(self, other: Report) -> Report {
        let pushes = self.pushes + other.pushes;
        let pushes_delivered = self.pushes_delivered + other.pushes_delivered;
        let pushes_retried = self.pushes_retried + other.pushes_retried;
        let records_rejected = self.records_rejected + other.records_rejected;
        let symptoms = self.symptoms.plus(other.symptoms);
        let last_delivery_at = self.last_delivery_at.max(other.last_delivery_at);
        let trouble = |report: &Report| (report.state.trouble(), !report.cause.is_empty());
        let worse = if trouble(&other) > trouble(&self) { other } else { self };
        Report {
            last_delivery_at,
            pushes,
            pushes_delivered,
            pushes_retried,
            records_rejected,
            symptoms,
            ..worse
        }
    }

    /// The lane cannot be read on.
    pub(super) fn damaged(&mut self, cause: String) {
        self.state = State::Damaged;
        self.cause = cause;
        self.next_try_at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_written_as_it_is_serialized() {
        for (index, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
            assert_eq!(usize::from(state.trouble()), index);
        }
    }

    #[test]
    fn the_counts_of_a_lane_outlive_its_forwarder_and_its_trouble_does_not() {
        let earlier = Report {
            state: State::Held,
            cause: "404".into(),
            failures: 3,
            next_try_at: Some(UnixMillis(9)),
            last_status: Some(404),
            last_delivery_at: Some(UnixMillis(7)),
            pushes: 6,
            pushes_delivered: 3,
            pushes_retried: 2,
            records_rejected: 1,
            symptoms: Symptoms { without_email: 5, late: 4 },
        };
        let after = Report::after(&earlier);
        assert_eq!((after.state, after.cause.as_str(), after.failures), (State::Idle, "", 0));
        assert_eq!((after.next_try_at, after.last_status), (None, None));
        assert_eq!(after.symptoms, earlier.symptoms);
        let counts = (after.pushes, after.pushes_delivered, after.pushes_retried);
        assert_eq!((counts, after.records_rejected), ((6, 3, 2), 1));
        assert_eq!(after.last_delivery_at, Some(UnixMillis(7)));
    }
}
