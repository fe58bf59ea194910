//! How long things take: counts by size, as plain atomics. Knows nobody: who shows the counts brings their format.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Durations, counted by the first bound that they do not exceed. Recording takes two additions and no lock.
#[derive(Debug)]
pub struct Histogram {
    bounds: &'static [Duration],
    /// One for each bound, and one for what exceeds them all.
    counts: Box<[AtomicU64]>,
    nanos: AtomicU64,
}

/// What a [`Histogram`] held when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// The upper bounds, ascending.
    pub bounds: &'static [Duration],
    /// How many lay between each bound and the one before it; the last of all exceeded every bound.
    pub counts: Vec<u64>,
    /// All of them together.
    pub sum: Duration,
}

impl Histogram {
    /// An empty one with these upper bounds.
    ///
    /// # Panics
    /// When they do not ascend: the caller's bug.
    #[must_use]
    pub fn new(bounds: &'static [Duration]) -> Histogram {
        assert!(bounds.is_sorted(), "bounds ascend");
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, counts, nanos: AtomicU64::new(0) }
    }

    /// Counts one.
    pub fn record(&self, took: Duration) {
        let place = self.bounds.partition_point(|bound| *bound < took);
        if let Some(count) = self.counts.get(place) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// What it holds. One that is recorded meanwhile may be in the counts and not yet in the sum.
    #[must_use]
    pub fn read(&self) -> Distribution {
        Distribution {
            bounds: self.bounds,
            counts: self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            sum: Duration::from_nanos(self.nanos.load(Ordering::Relaxed)),
        }
    }
}

impl Distribution {
    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_once_below_the_first_bound_that_it_does_not_exceed() {
        const BOUNDS: [Duration; 2] = [Duration::from_millis(1), Duration::from_secs(1)];
        let histogram = Histogram::new(&BOUNDS);
        assert_eq!(histogram.read().counts, [0, 0, 0]);
        for micros in [0, 1000, 1001, 1_000_000, 1_000_001, u64::MAX / 1_000_000] {
            histogram.record(Duration::from_micros(micros));
        }
        let read = histogram.read();
        assert_eq!((read.counts.as_slice(), read.count()), (&[2, 2, 2][..], 6));
        let sum = Duration::from_micros(1000 + 1001 + 1_000_000 + 1_000_001 + u64::MAX / 1_000_000);
        assert_eq!((read.sum, read.bounds), (sum, &BOUNDS[..]));
    }
}
