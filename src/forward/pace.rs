//! PURE. The least time between two pushes.

use std::time::Duration;

/// After the first 429, when pushes had no interval: 4 a second, Ometria's older documented limit (OMETRIA.md).
const FIRST_INTERVAL: Duration = Duration::from_millis(250);
/// The slowest pace.
const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// Each 202 or rejection takes one part in so many off the interval.
const RECOVERY: u32 = 10;
/// Below this the pace is back at its floor.
const NEGLIGIBLE: Duration = Duration::from_millis(10);
/// Ometria's clients slow down when its queue has less room than this (OMETRIA.md, "seen").
const REMAINING_LOW: u64 = 10_000;
/// Between pushes when the queue has no room at all.
const INTERVAL_NO_ROOM: Duration = Duration::from_secs(5);

/// The pace of one lane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    floor: Duration,
    interval: Duration,
    /// What the upstream's queue has room for, as the last answer said.
    remaining: Option<u64>,
}

impl Pace {
    /// A pace of at most `pushes_per_second_max`; 0 sets no limit.
    #[must_use]
    pub fn new(pushes_per_second_max: f64) -> Pace {
        let limited = pushes_per_second_max > 0.0;
        let floor = if limited {
            Duration::try_from_secs_f64(1.0 / pushes_per_second_max).unwrap_or(Duration::MAX)
        } else {
            Duration::ZERO
        };
        Pace { floor, interval: floor, remaining: None }
    }

    /// A 429: half as fast.
    pub fn slow_down(&mut self) {
        let doubled = self.interval.saturating_mul(2).clamp(FIRST_INTERVAL, INTERVAL_MAX);
        // A configured rate may be slower than the slowest pace.
        self.interval = doubled.max(self.floor);
    }

    /// A 202 or a rejection: a step back towards the floor.
    pub fn recover(&mut self) {
        let shorter = self.interval.saturating_sub(self.interval / RECOVERY);
        let at_floor = shorter <= self.floor.saturating_add(NEGLIGIBLE);
        self.interval = if at_floor { self.floor } else { shorter };
    }

    /// What `X-QueueSize-Remaining` of an answer said.
    pub fn queue_remaining(&mut self, remaining: Option<u64>) {
        self.remaining = remaining;
    }

    /// The least time from the start of a push to the start of the next.
    #[must_use]
    pub fn interval(&self) -> Duration {
        let lacking = REMAINING_LOW.saturating_sub(self.remaining.unwrap_or(REMAINING_LOW));
        #[expect(clippy::cast_precision_loss, reason = "both are at most REMAINING_LOW")]
        let share = lacking as f64 / REMAINING_LOW as f64;
        self.interval.max(INTERVAL_NO_ROOM.mul_f64(share))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_halves_on_429_and_recovers_step_by_step() {
        let mut pace = Pace::new(0.0);
        assert_eq!(pace.interval(), Duration::ZERO);
        let slowed: Vec<u128> = (0..3)
            .map(|_| {
                pace.slow_down();
                pace.interval().as_millis()
            })
            .collect();
        assert_eq!(slowed, [250, 500, 1000]);
        let mut previous = pace.interval();
        let mut steps = 0;
        while pace.interval() > Duration::ZERO {
            pace.recover();
            assert!(pace.interval() < previous);
            previous = pace.interval();
            steps += 1;
        }
        assert!((20..80).contains(&steps), "{steps}");
    }

    #[test]
    fn a_full_queue_slows_before_the_429() {
        let mut pace = Pace::new(0.0);
        for (remaining, millis) in
            [(Some(50_000), 0), (Some(10_000), 0), (Some(5_000), 2500), (Some(0), 5000), (None, 0)]
        {
            pace.queue_remaining(remaining);
            assert_eq!(pace.interval().as_millis(), millis, "{remaining:?}");
        }
    }

    proptest! {
        #[test]
        fn any_history_stays_between_floor_and_ceiling(rate in prop_oneof![Just(0.0), 0.0..0.02_f64, 0.02..50.0_f64, any::<f64>()], steps in proptest::collection::vec(any::<bool>(), 0..200)) {
            let mut pace = Pace::new(rate);
            let floor = pace.interval();
            for slow in steps {
                if slow { pace.slow_down() } else { pace.recover() }
                prop_assert!(pace.interval() >= floor && pace.interval() <= INTERVAL_MAX.max(floor));
            }
        }
    }
}
