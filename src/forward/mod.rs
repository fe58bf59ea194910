//! Spool → upstream, one lane each.
//!
//! ```text
//! peek ─▶ cut ─▶ push ─▶ judge ─▶ plan ─┬─▶ settle (delivered, quarantined)
//!   ▲                                   ├─▶ split
//!   └───────────────────────────────────┴─▶ wait, the same push again
//! ```
//! | file | owns |
//! |---|---|
//! | `queue` | the records at the front of the lane, read ahead |
//! | `batch` (PURE) | cuts the next push, makes its body |
//! | `push`, `route`, `failure` | one HTTP attempt; the connections it is made on; why it had no answer |
//! | `poll`, `ledger` (PURE) | what was rejected after its 202 |
//! | `meter` | what became of the pushes, counted |
//! | `settings`, `control` | how one integration is delivered, and what is asked of its forwarders |
//! | `way` (PURE) | the proxy, and the authorities that are trusted |
//! | `verdict` (PURE) | what an attempt means |
//! | `plan`, `isolate`, `retry` (PURE) | what follows from it: the state machine, the halves, the delays |
//! | `pace` (PURE), `shared_pace` | the least time between two pushes, of all lanes of an integration |
//! | `settlement`, `report`, `symptom` (PURE), `pulse` | what is kept of a push, what an operator and the watchdog are told |
//!
//! - One push is in flight, and the next starts only after the last settlement is written: a kill repeats the push in flight
//!   alone (Promise 4), a power cut at most the last few, whose flush runs beside the next pushes.
//! - Records leave from the front, and only by a settlement (Promises 3 and 6).
//! - This file alone waits: for records, for a batch to fill, for the pace, for a retry or a probe. A shutdown ends every
//!   wait at once; a push in flight gets [`GRACE`] to be answered, and what is answered is settled.
//! - Consent is asked for again before each attempt: records of people who have denied it since, or were erased, are left out,
//!   and settled together with the push that they would have gone with.
//! - What lies before damage in a lane is delivered; what lies behind it is not, as its order cannot be known.

pub mod batch;
mod control;
pub mod failure;
pub mod isolate;
pub mod ledger;
mod meter;
pub mod pace;
pub mod plan;
pub mod poll;
mod pulse;
pub mod push;
mod queue;
pub mod report;
pub mod retry;
mod route;
mod settings;
pub mod settlement;
mod shared_pace;
pub mod symptom;
pub mod verdict;
pub mod way;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

pub use self::control::Control;
pub use self::failure::PushError;
pub use self::meter::{Meter, Metered, Pushes};
pub use self::pulse::{Pulse, Signs};
pub use self::push::{Answer, HttpUpstream, Upstream};
pub use self::report::{Report, State};
pub use self::retry::RetryPolicy;
pub use self::settings::Settings;
pub use self::shared_pace::SharedPace;
pub use self::way::Way;

use self::batch::Cut;
use self::control::{held_up, pause, stopped};
use self::plan::{Action, Plan};
use self::queue::Queue;
use self::settlement::Source;
use self::symptom::Symptoms;
use self::verdict::{Attempt, Verdict};
use crate::advice;
use crate::clock;
use crate::kill_point;
use crate::spool::{AppendError, End, LaneId, Quarantined, ReadError, Seq, Settlement, Spool};

/// How long a push in flight may still take once a shutdown began. Then it is abandoned: nothing of it is settled, and
/// it repeats after the restart.
pub const GRACE: Duration = Duration::from_secs(5);

/// While a push is in flight the queue is read on, unless it holds so many full pushes behind it.
const AHEAD_PUSHES: usize = 2;

/// Why a forwarder ended early: the daemon cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The spool took no settlement.
    #[error("settle records")]
    Settle(#[from] AppendError),
    /// The spool could not be read.
    #[error("read records")]
    Read(#[source] ReadError),
}

/// Delivers one lane until [`Control::stop`]; ends within [`GRACE`] and one settlement of it. A damaged lane delivers nothing
/// more and waits for the shutdown.
///
/// # Errors
/// [`RunError`]: nothing was lost, what was not settled is delivered after a restart.
/// # Cancel safety
/// Dropping it abandons the push in flight, which repeats after the next start.
pub async fn run<U: Upstream>(
    settings: Settings,
    spool: Spool,
    lane: LaneId,
    upstream: U,
    signs: impl Into<Signs>,
    rng: fastrand::Rng,
    mut control: watch::Receiver<Control>,
) -> Result<(), RunError> {
    let Signs { report, pulse } = signs.into();
    let plan = Plan::new(settings.retry, settings.storm_limit);
    let queue = Queue::new(spool.clone(), lane);
    let mut forwarder =
        Forwarder { settings, spool, lane, upstream, report, pulse, rng, plan, queue, attempts: 0 };
    match forwarder.deliver(&mut control).await {
        Err(RunError::Read(error @ ReadError::Damaged { .. })) => {
            let cause = format!("{error}; {}", advice::DAMAGED);
            tracing::error!(integration = %forwarder.settings.integration, %error, "the lane is damaged and not delivered");
            forwarder.report.send_modify(|report| report.damaged(cause));
            forwarder.pulse.rest();
            stopped(&mut control).await;
            Ok(())
        }
        ended => ended,
    }
}

/// One lane's forwarder between two steps.
struct Forwarder<U> {
    settings: Settings,
    spool: Spool,
    lane: LaneId,
    upstream: U,
    report: watch::Sender<Report>,
    pulse: Arc<Pulse>,
    rng: fastrand::Rng,
    plan: Plan,
    queue: Queue,
    /// Attempts at the push that is not settled.
    attempts: u32,
}

impl<U: Upstream> Forwarder<U> {
    async fn deliver(&mut self, control: &mut watch::Receiver<Control>) -> Result<(), RunError> {
        loop {
            self.pulse.step();
            let Some(records) = self.gather(control).await? else { return Ok(()) };
            let apart = self.apart(records).await?;
            if apart.len() == records {
                self.settle_unsent(apart).await?;
                continue;
            }
            let Some(attempt) = self.push(records, apart, control).await else { return Ok(()) };
            let verdict = verdict::judge(&attempt);
            self.set_pace(&attempt, &verdict);
            let state_before = self.plan.state();
            let action = self.plan.take(records, &verdict, self.rng.f64());
            self.tell(&attempt, &verdict, &action, state_before);
            match action {
                Action::Split => self.attempts = 0,
                Action::Wait(delay) => {
                    if self.pulse.wait(pause(delay, control)).await {
                        return Ok(());
                    }
                }
                Action::Deliver => {
                    kill_point::pass("accepted");
                    let copies = self.rejected(&attempt, &verdict);
                    self.settle(&attempt, End::Delivered, copies).await?;
                }
                Action::Quarantine { reason } => {
                    kill_point::pass("rejected");
                    let guilty = self.queue.all().first().into_iter();
                    let copies = guilty
                        .map(|entry| settlement::copy(self.source(), entry, reason, &attempt))
                        .collect();
                    self.settle(&attempt, End::Quarantined, copies).await?;
                }
            }
        }
    }

    /// Waits until there is a push to make and returns its number of records; `None` on shutdown.
    async fn gather(
        &mut self,
        control: &mut watch::Receiver<Control>,
    ) -> Result<Option<usize>, RunError> {
        let mut linger_until = None;
        loop {
            if self.rest(control).await {
                return Ok(None);
            }
            if let Some(fixed) = self.plan.fixed() {
                return Ok(if self.keep_pace(control).await { None } else { Some(fixed) });
            }
            self.queue.newest.mark_unchanged();
            self.queue.refill(self.settings.batch_records_max).await.map_err(RunError::Read)?;
            let Cut { records, complete } =
                batch::cut(self.queue.all(), self.settings.batch_records_max);
            if records > 0 {
                let now = Instant::now();
                let until = *linger_until.get_or_insert(now + self.settings.linger);
                if complete || now >= until {
                    if self.keep_pace(control).await {
                        return Ok(None);
                    }
                    // What arrived while the pace was kept may join.
                    self.queue
                        .refill(self.settings.batch_records_max)
                        .await
                        .map_err(RunError::Read)?;
                    let cut = batch::cut(self.queue.all(), self.settings.batch_records_max);
                    return Ok(Some(cut.records));
                }
            } else {
                self.report.send_if_modified(Report::idle);
            }
            let lingering = async {
                match linger_until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            let ended = self.pulse.wait(async {
                tokio::select! {
                    biased;
                    () = held_up(control) => false,
                    changed = self.queue.newest.changed() => changed.is_err(),
                    () = lingering => false,
                }
            });
            if ended.await {
                return Ok(None);
            }
        }
    }

    /// Rests as long as an operator has it paused; `true` on shutdown.
    async fn rest(&self, control: &mut watch::Receiver<Control>) -> bool {
        if control.borrow().paused && !control.borrow().stop {
            self.report.send_modify(Report::paused);
            // The sender's end counts as a shutdown.
            let resumed = control.wait_for(|control| !control.paused || control.stop);
            drop(self.pulse.wait(resumed).await);
            let state = self.plan.state();
            self.report.send_modify(|report| report.resumed(state));
        }
        control.borrow().stop || control.has_changed().is_err()
    }

    /// Waits until the pace allows the next push; `true` on shutdown.
    async fn keep_pace(&self, control: &mut watch::Receiver<Control>) -> bool {
        while let Err(delay) = self.settings.pace.turn() {
            self.report.send_modify(|report| report.next_try_at = Some(clock::now().after(delay)));
            if self.pulse.wait(pause(delay, control)).await {
                return true;
            }
        }
        false
    }

    /// Which of the next records must not be sent any more. Looked at before each attempt: days may lie between two.
    async fn apart(&self, records: usize) -> Result<Vec<(Seq, End)>, RunError> {
        let next = self.queue.front(records);
        let apart = self.spool.apart(self.lane, next, &self.settings.consent);
        apart.await.map_err(RunError::Read)
    }

    /// Settles the next records, none of which may be sent.
    async fn settle_unsent(&mut self, apart: Vec<(Seq, End)>) -> Result<(), RunError> {
        self.plan.settled();
        let (records, source) = (apart.len(), self.source());
        let settlement = settlement::unsent(source, self.queue.front(records), apart, clock::now());
        self.settled(records, settlement).await
    }

    async fn settled(
        &mut self,
        records: usize,
        settlement: Option<Settlement>,
    ) -> Result<(), RunError> {
        self.queue.settled(records);
        self.attempts = 0;
        if let Some(settlement) = settlement {
            self.spool.settle(settlement).await?;
        }
        Ok(())
    }

    /// Makes one attempt; `None` when a shutdown gave it up.
    async fn push(
        &mut self,
        records: usize,
        apart: Vec<(Seq, End)>,
        control: &mut watch::Receiver<Control>,
    ) -> Option<Attempt> {
        let body = batch::body(batch::sent(self.queue.front(records), &apart));
        let bytes = body.len();
        self.queue.read_ahead(records + AHEAD_PUSHES * self.settings.batch_records_max);
        self.attempts = self.attempts.saturating_add(1);
        let state = self.plan.state();
        self.report.send_modify(|report| report.pushing(state));
        self.pulse.push(self.settings.timeout);
        let sent_at = clock::now();
        let given_up = async {
            stopped(control).await;
            tokio::time::sleep(GRACE).await;
        };
        let outcome = tokio::select! {
            biased;
            outcome = self.upstream.push(body) => outcome,
            () = given_up => {
                tracing::info!(integration = %self.settings.integration, records, "gave up the push in flight: it repeats after the next start");
                return None;
            }
        };
        self.pulse.step();
        let number = self.attempts;
        Some(Attempt { number, records, apart, bytes, sent_at, answered_at: clock::now(), outcome })
    }

    /// Settles the records of an attempt.
    async fn settle(
        &mut self,
        attempt: &Attempt,
        end: End,
        copies: Vec<Quarantined>,
    ) -> Result<(), RunError> {
        let settled = self.queue.front(attempt.records);
        let settlement = settlement::settlement(self.source(), settled, attempt, end, copies);
        self.settled(attempt.records, settlement).await
    }

    fn set_pace(&self, attempt: &Attempt, verdict: &Verdict) {
        self.settings.pace.change(|pace| {
            if let Ok(answer) = &attempt.outcome {
                pace.queue_remaining(answer.queue_remaining);
            }
            match verdict {
                // A rejection is an answer too: a long isolation must not stay at the pace of an old 429.
                Verdict::Accepted(_) | Verdict::Rejected { .. } => pace.recover(),
                Verdict::Deferred { slow_down: true, .. } => pace.slow_down(),
                _ => {}
            }
        });
    }

    /// Copies for the quarantine of the records that a 202 names as rejected.
    fn rejected(&self, attempt: &Attempt, verdict: &Verdict) -> Vec<Quarantined> {
        let Verdict::Accepted(acceptance) = verdict else { return Vec::new() };
        if acceptance.rejected > 0 {
            let rejected = acceptance.rejected;
            tracing::warn!(
                integration = %self.settings.integration,
                rejected,
                "Ometria accepted a push and rejected records of it: those it names are in the quarantine"
            );
        }
        let pushed = self.queue.front(attempt.records);
        let named = settlement::named(pushed, acceptance).into_iter();
        named.map(|entry| settlement::copy(self.source(), entry, "rejected", attempt)).collect()
    }

    fn source(&self) -> Source<'_> {
        Source { lane: self.lane, integration: &self.settings.integration }
    }

    /// Brings the report up to date, and logs what happened: a change of state once.
    fn tell(&self, attempt: &Attempt, verdict: &Verdict, action: &Action, state_before: State) {
        self.log(attempt, action);
        let state = self.plan.state();
        let cause = match state {
            State::Storm => advice::storm(self.settings.storm_limit),
            State::Pushing | State::Idle => String::new(),
            // In the middle of a search, what began it is told.
            State::Isolating if *action != Action::Split => self.report.borrow().cause.clone(),
            _ => verdict::cause(attempt),
        };
        let integration = &self.settings.integration;
        let status = attempt.status();
        if state != state_before {
            match state {
                State::Unauthorized | State::Held | State::Storm => {
                    tracing::error!(%integration, status, %cause, "held: nothing is lost, nothing is delivered");
                }
                State::Retrying => {
                    tracing::warn!(%integration, status, %cause, "delivery interrupted: it is retried");
                }
                State::Isolating => {
                    tracing::warn!(%integration, status, %cause, "a push was rejected: looking for the records at fault");
                }
                _ => tracing::info!(%integration, "delivering"),
            }
        }
        let of_plan = (state, self.plan.failures());
        let symptoms = match verdict {
            Verdict::Accepted(_) => self.symptoms(attempt),
            _ => Symptoms::default(),
        };
        self.report.send_modify(|report| {
            report.judged(attempt, verdict, action, of_plan, &cause);
            report.symptoms = report.symptoms.plus(symptoms);
        });
    }

    /// What should be known of the records that an attempt has delivered; logged when it is news.
    fn symptoms(&self, attempt: &Attempt) -> Symptoms {
        let sent = batch::sent(self.queue.front(attempt.records), &attempt.apart);
        let found = symptom::of(sent, attempt.answered_at);
        let (before, integration) = (self.report.borrow().symptoms, &self.settings.integration);
        if found.without_email > 0 && before.without_email == 0 {
            tracing::warn!(%integration, advice = advice::NO_IDENTITY_EMAIL, "a record without identity_email was delivered; `pillarbox status` counts them");
        }
        if found.late > 0 && before.late == 0 {
            tracing::warn!(%integration, advice = advice::OLD, "a record over four hours old was delivered; `pillarbox status` counts them");
        }
        found
    }

    fn log(&self, attempt: &Attempt, action: &Action) {
        let last = attempt.records.saturating_sub(1);
        let seq = |nth: usize| self.queue.all().get(nth).map(|entry| entry.seq.0);
        let delay = if let Action::Wait(delay) = action { Some(delay.as_millis()) } else { None };
        tracing::debug!(
            integration = %self.settings.integration,
            seq_first = seq(0),
            seq_last = seq(last),
            records = attempt.records,
            bytes = attempt.bytes,
            status = attempt.status(),
            error = attempt.outcome.as_ref().err().map(tracing::field::display),
            attempt = attempt.number,
            delay_ms = delay.and_then(|delay| u64::try_from(delay).ok()),
            ?action,
            "pushed"
        );
    }
}

#[cfg(test)]
mod loop_tests;
