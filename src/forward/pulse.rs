//! A forwarder's sign of life, for the watchdog.
//!
//! A forwarder says by when it will have gone on: soon while it works, a little after the push's own limit while a push is in
//! flight. A wait for records, a retry or an operator may last for ever; it is waited in short turns, each of which
//! shows that the loop still runs. What is not taken for progress: that the process, its runtime or another lane runs.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Report;

/// A step that is no wait takes no longer: the spool gives up on its disk before, and a settlement waits for two steps of it.
const STEP: Duration = Duration::from_secs(135);
/// Turns of a wait.
const TURN: Duration = Duration::from_secs(10);
/// What a push may take beyond its own limit.
const BEYOND_LIMIT: Duration = Duration::from_secs(15);

/// By when a forwarder must have gone on.
#[derive(Debug)]
pub struct Pulse {
    begun: Instant,
    /// Milliseconds after `begun`.
    due: AtomicU64,
}

impl Pulse {
    /// A forwarder that has not begun, and need not before it is told to.
    #[must_use]
    pub fn resting() -> Pulse {
        Pulse { begun: Instant::now(), due: AtomicU64::new(u64::MAX) }
    }

    /// Whether a sign of life is missing.
    #[must_use]
    pub fn is_overdue(&self) -> bool {
        self.begun.elapsed().as_millis() > u128::from(self.due.load(Ordering::Acquire))
    }

    /// A step begins.
    pub(super) fn step(&self) {
        self.goes_on_within(STEP);
    }

    /// A push begins that gives up after `limit`.
    pub(super) fn push(&self, limit: Duration) {
        self.goes_on_within(limit.saturating_add(BEYOND_LIMIT));
    }

    /// Nothing follows but the end.
    pub(super) fn rest(&self) {
        self.due.store(u64::MAX, Ordering::Release);
    }

    /// Waits for `what`, however long that takes.
    pub(crate) async fn wait<T>(&self, what: impl Future<Output = T>) -> T {
        let mut what = pin!(what);
        loop {
            self.step();
            if let Ok(done) = tokio::time::timeout(TURN, what.as_mut()).await {
                self.step();
                return done;
            }
        }
    }

    fn goes_on_within(&self, duration: Duration) {
        let due = self.begun.elapsed().saturating_add(duration).as_millis();
        self.due.store(u64::try_from(due).unwrap_or(u64::MAX), Ordering::Release);
    }
}

/// Where a forwarder tells of itself.
#[derive(Debug)]
pub struct Signs {
    /// What an operator is told.
    pub report: watch::Sender<Report>,
    /// What the watchdog looks at.
    pub pulse: Arc<Pulse>,
}

/// A report alone: nobody watches.
impl From<watch::Sender<Report>> for Signs {
    fn from(report: watch::Sender<Report>) -> Signs {
        Signs { report, pulse: Arc::new(Pulse::resting()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_step_is_overdue_and_a_wait_is_not() {
        let pulse = Pulse::resting();
        let later = async |seconds| tokio::time::advance(Duration::from_secs(seconds)).await;
        later(1_000_000).await;
        assert!(!pulse.is_overdue(), "it has not begun");
        pulse.step();
        later(STEP.as_secs()).await;
        assert!(!pulse.is_overdue(), "it may take as long as its disk");
        later(1).await;
        assert!(pulse.is_overdue());
        pulse.push(Duration::from_secs(3600));
        later(3600).await;
        assert!(!pulse.is_overdue(), "a push has its own limit");
        later(60).await;
        assert!(pulse.is_overdue());
        pulse.wait(tokio::time::sleep(Duration::from_secs(1_000_000))).await;
        assert!(!pulse.is_overdue());
        let never = pulse.wait(std::future::pending::<()>());
        assert!(tokio::time::timeout(Duration::from_secs(1_000_000), never).await.is_err());
        assert!(!pulse.is_overdue(), "it was seen a moment ago");
        later(STEP.as_secs() + 1).await;
        assert!(pulse.is_overdue(), "who is no longer polled is not alive");
        pulse.rest();
        later(1_000_000).await;
        assert!(!pulse.is_overdue());
    }
}
