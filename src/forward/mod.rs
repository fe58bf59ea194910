//! Spool → upstream, one lane each.
//!
//! ```text
//! peek ─▶ cut ─▶ push ─▶ judge ─▶ plan ─┬─▶ settle (delivered, quarantined)
//!   ▲                                   ├─▶ split
//!   └───────────────────────────────────┴─▶ wait, the same push again
//! ```
//! - One push is in flight, and the next starts only after the last has been settled durably: after a kill only the push
//!   in flight may repeat.
//! - This file alone waits: for records, for a batch to fill, for the pace, for a retry or a probe. A shutdown ends every
//!   wait at once; a push in flight gets [`GRACE`] to be answered and settled.
//! - The deciding parts are pure: [`batch`], [`verdict`], [`isolate`], [`retry`], [`pace`], [`plan`].

pub mod batch;
pub mod isolate;
pub mod pace;
pub mod plan;
pub mod push;
pub mod retry;
pub mod verdict;

use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

pub use self::push::{Answer, HttpUpstream, PushError, Upstream};
pub use self::retry::RetryPolicy;

use self::batch::{BYTES_MAX, Cut};
use self::pace::Pace;
use self::plan::{Action, Plan};
use self::verdict::{Acceptance, Verdict};
use crate::clock::{self, UnixMillis};
use crate::spool::{
    AppendError, Delivery, End, Entry, LaneId, Origin, Quarantined, ReadError, Seq, Settlement,
    Spool,
};

/// How one integration is delivered; every value is checked by the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The integration's name.
    pub integration: String,
    /// Where pushes go: https, or http to a loopback address.
    pub endpoint: hyper::Uri,
    /// Sent as `X-Ometria-Auth`.
    pub api_key: SecretString,
    /// Records in a push, 1 to 100.
    pub batch_records_max: usize,
    /// How long an incomplete batch waits for more.
    pub linger: Duration,
    /// For one attempt, from connecting to the end of the answer.
    pub timeout: Duration,
    /// After what may pass.
    pub retry: RetryPolicy,
    /// Records quarantined in a row, without a delivery, that hold the integration.
    pub storm_limit: u64,
    /// 0: no fixed limit.
    pub pushes_per_second_max: f64,
}

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
    /// Held: upstream refuses the key.
    Unauthorized,
    /// Held: the endpoint is wrong, the records are not.
    Held,
    /// Held by the storm guard.
    Storm,
    /// The lane cannot be read.
    Damaged,
}

/// What an operator is told of a lane's forwarder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// See [`State`].
    pub state: State,
    /// Why it is in that state, in words that say what to do; empty when all is well.
    pub cause: String,
    /// Failed attempts since the last 202.
    pub failures: u32,
    /// When the next attempt is due.
    pub next_try_at: Option<UnixMillis>,
    /// The status of the last answer.
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
}

/// How long a push in flight may still take once a shutdown began. Then it is abandoned: nothing of it is settled, and
/// it repeats after the restart.
pub const GRACE: Duration = Duration::from_secs(5);

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

/// Delivers one lane until `shutdown`.
///
/// # Errors
/// [`RunError`]: nothing was lost, what was not settled is delivered after a restart.
pub async fn run<U: Upstream>(
    settings: Settings,
    spool: Spool,
    lane: LaneId,
    upstream: U,
    report: watch::Sender<Report>,
    rng: fastrand::Rng,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let plan = Plan::new(settings.retry, settings.storm_limit);
    let pace = Pace::new(settings.pushes_per_second_max);
    let newest = spool.newest(lane);
    let queue = Vec::new();
    let mut forwarder = Forwarder {
        settings,
        spool,
        lane,
        upstream,
        report,
        rng,
        plan,
        pace,
        newest,
        queue,
        attempt: 0,
        last_push: None,
    };
    match forwarder.deliver(&mut shutdown).await {
        Err(RunError::Read(error @ ReadError::Damaged { .. })) => {
            let cause = format!(
                "{error}; stop the daemon, then `pillarbox spool salvage` writes what is readable"
            );
            tracing::error!(integration = %forwarder.settings.integration, %error, "the lane is damaged and not delivered");
            forwarder.report.send_modify(|report| {
                report.state = State::Damaged;
                report.cause = cause;
                report.next_try_at = None;
            });
            stopped(&mut shutdown).await;
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
    rng: fastrand::Rng,
    plan: Plan,
    pace: Pace,
    newest: watch::Receiver<u64>,
    /// The records at the front of the lane, as far as they are read: the first is the cursor's.
    queue: Vec<Entry>,
    /// Attempts at the push that is not settled.
    attempt: u32,
    last_push: Option<Instant>,
}

/// An attempt that was made.
struct Attempt {
    records: usize,
    outcome: Result<Answer, PushError>,
    sent_at: UnixMillis,
    answered_at: UnixMillis,
}

impl<U: Upstream> Forwarder<U> {
    async fn deliver(&mut self, shutdown: &mut watch::Receiver<bool>) -> Result<(), RunError> {
        loop {
            let Some(records) = self.gather(shutdown).await? else { return Ok(()) };
            let Some(attempt) = self.push(records, shutdown).await else { return Ok(()) };
            let verdict = verdict::judge(&attempt.outcome, attempt.answered_at);
            self.set_pace(&attempt, &verdict);
            let state_before = self.plan.state();
            let action = self.plan.take(records, &verdict, self.rng.f64());
            self.log(&attempt, &action);
            self.tell(&attempt, &action, state_before);
            match action {
                Action::Split => self.attempt = 0,
                Action::Wait(delay) => {
                    if pause(delay, shutdown).await {
                        return Ok(());
                    }
                }
                Action::Deliver => {
                    let copies = self.rejected(&attempt, &verdict);
                    self.settle(&attempt, End::Delivered, copies).await?;
                }
                Action::Quarantine { reason } => {
                    let copies = self
                        .queue
                        .first()
                        .map(|entry| self.quarantined(entry, reason, &attempt))
                        .into_iter();
                    self.settle(&attempt, End::Quarantined, copies.collect()).await?;
                }
            }
        }
    }

    /// Waits until there is a push to make and returns its number of records; `None` on shutdown.
    async fn gather(
        &mut self,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<Option<usize>, RunError> {
        let mut linger_until = None;
        loop {
            if *shutdown.borrow() {
                return Ok(None);
            }
            self.newest.mark_unchanged();
            self.refill().await?;
            let Cut { records, complete } =
                batch::cut(&self.queue, self.settings.batch_records_max);
            if let Some(fixed) = self.plan.fixed() {
                return Ok(if self.keep_pace(shutdown).await { None } else { Some(fixed) });
            }
            if records > 0 {
                let now = Instant::now();
                let until = *linger_until.get_or_insert(now + self.settings.linger);
                if complete || now >= until {
                    if self.keep_pace(shutdown).await {
                        return Ok(None);
                    }
                    // What arrived while the pace was kept may join.
                    self.refill().await?;
                    return Ok(Some(
                        batch::cut(&self.queue, self.settings.batch_records_max).records,
                    ));
                }
            } else {
                self.report.send_if_modified(|report| {
                    std::mem::replace(&mut report.state, State::Idle) != State::Idle
                });
            }
            let lingering = async {
                match linger_until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.newest.changed() => if changed.is_err() { return Ok(None) },
                () = lingering => {}
                () = stopped(shutdown) => return Ok(None),
            }
        }
    }

    /// Reads on from the end of the queue, up to a full push.
    async fn refill(&mut self) -> Result<(), RunError> {
        let next = match self.queue.last() {
            Some(last) => Seq(last.seq.0 + 1),
            None => self.spool.cursor(self.lane),
        };
        let missing = self.settings.batch_records_max.saturating_sub(self.queue.len());
        if missing > 0 && *self.newest.borrow() >= next.0 {
            let more = self
                .spool
                .peek(self.lane, next, missing, BYTES_MAX)
                .await
                .map_err(RunError::Read)?;
            self.queue.extend(more);
        }
        Ok(())
    }

    /// Waits until the pace allows the next push; `true` on shutdown.
    async fn keep_pace(&self, shutdown: &mut watch::Receiver<bool>) -> bool {
        let due = self.last_push.map(|last| last + self.pace.interval());
        match due.map(|due| due.saturating_duration_since(Instant::now())) {
            Some(delay) if !delay.is_zero() => pause(delay, shutdown).await,
            _ => false,
        }
    }

    /// Makes one attempt; `None` when a shutdown gave it up.
    async fn push(
        &mut self,
        records: usize,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Option<Attempt> {
        let body = batch::body(self.queue.get(..records)?);
        self.attempt += 1;
        self.last_push = Some(Instant::now());
        let state = self.plan.state();
        self.report.send_modify(|report| {
            report.pushes += 1;
            report.next_try_at = None;
            report.state = state;
        });
        let sent_at = clock::now();
        let given_up = async {
            stopped(shutdown).await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            outcome = self.upstream.push(body) => Some(Attempt { records, outcome, sent_at, answered_at: clock::now() }),
            () = given_up => None,
        }
    }

    /// Settles the records of an attempt, and reads on meanwhile.
    async fn settle(
        &mut self,
        attempt: &Attempt,
        end: End,
        copies: Vec<Quarantined>,
    ) -> Result<(), RunError> {
        let settled: Vec<Entry> = self.queue.drain(..attempt.records).collect();
        let Some(first) = settled.first() else { return Ok(()) };
        let answer = attempt.outcome.as_ref().ok();
        let records = settled.len() as u64;
        let delivery = Delivery {
            first: first.seq,
            records,
            end,
            status: answer.map_or(0, |answer| answer.status),
            attempt: self.attempt,
            sent_at: attempt.sent_at,
            answered_at: attempt.answered_at,
            answer: answer.map(Answer::text).unwrap_or_default(),
        };
        let settlement = Settlement {
            lane: self.lane,
            first: first.seq,
            records,
            bytes: settled.iter().map(|entry| entry.record.len() as u64).sum(),
            end,
            copies,
            delivery: Some(delivery),
        };
        self.attempt = 0;
        let spool = self.spool.clone();
        let (settled, more) = tokio::join!(spool.settle(settlement), async {
            // The queue may be empty now: the cursor moves only with the settlement, so the next seq is said here.
            if self.queue.is_empty() {
                self.read_from(Seq(first.seq.0 + records)).await
            } else {
                self.refill().await
            }
        });
        settled?;
        more
    }

    async fn read_from(&mut self, next: Seq) -> Result<(), RunError> {
        let max = self.settings.batch_records_max;
        let read = self.spool.peek(self.lane, next, max, BYTES_MAX).await;
        self.queue = read.map_err(RunError::Read)?;
        Ok(())
    }

    fn set_pace(&mut self, attempt: &Attempt, verdict: &Verdict) {
        if let Ok(answer) = &attempt.outcome {
            self.pace.queue_remaining(answer.queue_remaining);
        }
        match verdict {
            Verdict::Accepted(_) => self.pace.recover(),
            Verdict::Deferred { slow_down: true, .. } => self.pace.slow_down(),
            _ => {}
        }
    }

    /// Copies for the quarantine of the records that a 202 names as rejected.
    fn rejected(&self, attempt: &Attempt, verdict: &Verdict) -> Vec<Quarantined> {
        #[derive(Deserialize)]
        struct Named {
            id: String,
        }
        let Verdict::Accepted(Acceptance { rejected, rejected_ids }) = verdict else {
            return Vec::new();
        };
        if *rejected > 0 {
            tracing::warn!(
                integration = %self.settings.integration,
                rejected,
                "Ometria accepted a push and rejected records of it: look at Settings > Custom events, and at the quarantine"
            );
        }
        if rejected_ids.is_empty() {
            return Vec::new();
        }
        let pushed = self.queue.iter().take(attempt.records);
        let named = pushed.filter(|entry| {
            serde_json::from_slice::<Named>(&entry.record)
                .is_ok_and(|named| rejected_ids.contains(&named.id))
        });
        named.map(|entry| self.quarantined(entry, "rejected_item", attempt)).collect()
    }

    fn quarantined(&self, entry: &Entry, reason: &str, attempt: &Attempt) -> Quarantined {
        let answer = attempt.outcome.as_ref().ok();
        Quarantined {
            origin: Origin::Record {
                lane: self.lane,
                integration: self.settings.integration.clone(),
                seq: entry.seq,
                record_type: entry.record_type.to_string(),
            },
            reason: reason.to_owned(),
            detail: answer.map(Answer::text).unwrap_or_default(),
            status: answer.map(|answer| answer.status),
            at: attempt.answered_at,
            body: entry.record.to_vec(),
        }
    }

    /// Brings the report up to date, and logs a change of state once.
    fn tell(&self, attempt: &Attempt, action: &Action, state_before: State) {
        let state = self.plan.state();
        let healthy = matches!(state, State::Pushing | State::Idle | State::Isolating);
        let cause = if healthy { String::new() } else { self.cause(attempt, state) };
        let integration = &self.settings.integration;
        if state != state_before {
            match state {
                State::Unauthorized | State::Held | State::Storm => {
                    tracing::error!(%integration, %cause, "held: nothing is lost, nothing is delivered");
                }
                State::Retrying => {
                    tracing::warn!(%integration, %cause, "delivery interrupted: it is retried");
                }
                State::Isolating => {
                    tracing::warn!(%integration, "a push was rejected: looking for the records at fault");
                }
                _ => tracing::info!(%integration, "delivering"),
            }
        }
        self.report.send_modify(|report| {
            report.state = state;
            report.cause = cause;
            report.failures = self.plan.failures();
            report.last_status = attempt.outcome.as_ref().ok().map(|answer| answer.status);
            match action {
                Action::Deliver => {
                    report.pushes_delivered += 1;
                    report.last_delivery_at = Some(attempt.answered_at);
                    if let Verdict::Accepted(Acceptance { rejected, .. }) =
                        verdict::judge(&attempt.outcome, attempt.answered_at)
                    {
                        report.records_rejected += rejected;
                    }
                }
                Action::Wait(delay) => {
                    report.pushes_retried += 1;
                    report.next_try_at = Some(attempt.answered_at.after(*delay));
                }
                Action::Split | Action::Quarantine { .. } => {}
            }
        });
    }

    fn cause(&self, attempt: &Attempt, state: State) -> String {
        if state == State::Storm {
            let limit = self.settings.storm_limit;
            return format!(
                "{limit} records in a row were rejected (storm_limit): the rest stays queued. `pillarbox quarantine list` shows the                  answers; the next record is tried every minute"
            );
        }
        verdict::cause(&attempt.outcome)
    }

    fn log(&self, attempt: &Attempt, action: &Action) {
        let (first, last) = (self.queue.first(), self.queue.get(attempt.records.saturating_sub(1)));
        tracing::debug!(
            integration = %self.settings.integration,
            seq_first = first.map_or(0, |entry| entry.seq.0),
            seq_last = last.map_or(0, |entry| entry.seq.0),
            records = attempt.records,
            status = attempt.outcome.as_ref().map_or(0, |answer| answer.status),
            error = attempt.outcome.as_ref().err().map(tracing::field::display),
            attempt = self.attempt,
            ?action,
            "pushed"
        );
    }
}

/// Waits; `true` when a shutdown ended the wait.
async fn pause(delay: Duration, shutdown: &mut watch::Receiver<bool>) -> bool {
    tokio::select! {
        () = tokio::time::sleep(delay) => false,
        () = stopped(shutdown) => true,
    }
}

/// Resolves once a shutdown began. A sender that is gone counts as one.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the daemon's end has been dropped: the same as a shutdown.
    drop(shutdown.wait_for(|stop| *stop).await);
}
