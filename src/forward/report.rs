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
