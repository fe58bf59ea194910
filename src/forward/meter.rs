//! What becomes of the pushes of an integration, counted over all its lanes since the daemon started.
//!
//! Bounded: the statuses that mean something are counted one by one, the others by their hundred, so that no upstream makes
//! more of them than there are here.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::failure::PushError;
use super::push::{Answer, Upstream};
use crate::histogram::{Distribution, Histogram};

/// Statuses with a count of their own, ascending.
const STATUSES: [u16; 25] = [
    200, 201, 202, 204, 301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 407, 408, 410, 413, 422,
    425, 429, 500, 502, 503, 504,
];
/// The others, by their hundred; what is none of a hundred from 1 to 5 comes last.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];

/// Upper bounds of how long a push takes: from a near endpoint to the longest usual time-out.
const BOUNDS: [Duration; 12] = [
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
];

/// See the module.
#[derive(Debug)]
pub struct Meter {
    answered: [AtomicU64; STATUSES.len() + CLASSES.len()],
    unanswered: [AtomicU64; PushError::REASONS.len()],
    took: Histogram,
}

/// What a [`Meter`] held when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushes {
    /// Answers by status, `"202"` or, for a rare one, `"4xx"`: those that came, and 202.
    pub answered: Vec<(String, u64)>,
    /// Pushes without an answer, by each of [`PushError::REASONS`].
    pub unanswered: Vec<(&'static str, u64)>,
    /// How long they took, with or without an answer.
    pub took: Distribution,
}

impl Default for Meter {
    fn default() -> Meter {
        let answered = std::array::from_fn(|_| AtomicU64::new(0));
        let unanswered = std::array::from_fn(|_| AtomicU64::new(0));
        Meter { answered, unanswered, took: Histogram::new(&BOUNDS) }
    }
}

impl Meter {
    /// Counts a push.
    fn count(&self, outcome: &Result<Answer, PushError>, took: Duration) {
        let count = match outcome {
            Ok(answer) => self.answered.get(place(answer.status)),
            Err(error) => {
                let place = PushError::REASONS.iter().position(|known| *known == error.reason());
                place.and_then(|place| self.unanswered.get(place))
            }
        };
        count.expect("every outcome has its place").fetch_add(1, Ordering::Relaxed);
        self.took.record(took);
    }

    /// What it holds.
    #[must_use]
    pub fn read(&self) -> Pushes {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let statuses = STATUSES.iter().map(ToString::to_string);
        let names = statuses.chain(CLASSES.map(str::to_owned));
        let answered = names.zip(self.answered.iter().map(read));
        let unanswered = PushError::REASONS.into_iter().zip(self.unanswered.iter().map(read));
        Pushes {
            answered: answered.filter(|(name, count)| *count > 0 || name == "202").collect(),
            unanswered: unanswered.collect(),
            took: self.took.read(),
        }
    }
}

/// Where a status is counted.
fn place(status: u16) -> usize {
    STATUSES.binary_search(&status).unwrap_or_else(|_| {
        let hundred = usize::from(status / 100);
        let class =
            if (1..CLASSES.len()).contains(&hundred) { hundred - 1 } else { CLASSES.len() - 1 };
        STATUSES.len() + class
    })
}

/// An upstream whose answers are counted. A push that is given up is not: nobody knows what became of it.
#[derive(Clone, Debug)]
pub struct Metered<U> {
    upstream: U,
    meter: Arc<Meter>,
}

impl<U> Metered<U> {
    /// Counts what `upstream` answers in `meter`.
    #[must_use]
    pub fn new(upstream: U, meter: Arc<Meter>) -> Metered<U> {
        Metered { upstream, meter }
    }
}

impl<U: Upstream> Upstream for Metered<U> {
    async fn push(&self, body: Bytes) -> Result<Answer, PushError> {
        let begun = Instant::now();
        let outcome = self.upstream.push(body).await;
        self.meter.count(&outcome, begun.elapsed());
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers what it is told, after a second.
    struct Scripted(Result<Answer, PushError>);

    impl Upstream for Scripted {
        async fn push(&self, _: Bytes) -> Result<Answer, PushError> {
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.0.clone()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_outcome_is_counted_once_and_labels_are_bounded() {
        let meter = Arc::new(Meter::default());
        assert_eq!(meter.read().answered, [("202".to_owned(), 0)]);
        let outcomes = (100..1000).map(|status| {
            Ok(Answer { status, retry_after: None, queue_remaining: None, body: Vec::new() })
        });
        let outcomes: Vec<_> = outcomes.chain(PushError::EXAMPLES.map(Err)).collect();
        for outcome in &outcomes {
            let upstream = Metered::new(Scripted(outcome.clone()), meter.clone());
            assert_eq!(&upstream.push(Bytes::new()).await, outcome);
        }
        let read = meter.read();
        assert_eq!(read.answered.len(), STATUSES.len() + CLASSES.len());
        assert_eq!(read.answered.iter().map(|(_, count)| count).sum::<u64>(), 900);
        for (name, expected) in
            [("202", 1), ("404", 1), ("1xx", 100), ("2xx", 96), ("4xx", 88), ("other", 400)]
        {
            let count = read.answered.iter().find(|(known, _)| known == name).unwrap().1;
            assert_eq!(count, expected, "{name}");
        }
        assert_eq!(read.unanswered, PushError::REASONS.map(|reason| (reason, 1)));
        let total = outcomes.len() as u64;
        assert_eq!((read.took.count(), read.took.sum.as_secs()), (total, total));
        assert_eq!(read.took.counts[6], total, "a second each");
    }
}
