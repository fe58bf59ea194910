//! PURE. How long to wait before the next attempt.

use std::time::Duration;

/// Exponential backoff with full jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Upper bound of the first delay; doubles with each failure.
    pub initial: Duration,
    /// The largest upper bound.
    pub max: Duration,
}

/// Delay before the next attempt.
///
/// `failures` counts consecutive deferred attempts, from 1. `jitter` is uniform in `[0, 1)`. `asked` is upstream's
/// Retry-After, already parsed and bounded. The result is at least `asked`; without it, at most `policy.max`.
#[must_use]
pub fn delay(
    policy: &RetryPolicy,
    failures: u32,
    jitter: f64,
    asked: Option<Duration>,
) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    let bound = policy.initial.saturating_mul(1 << doublings).min(policy.max);
    let share = bound.as_secs_f64() * jitter;
    let jittered = Duration::try_from_secs_f64(share).unwrap_or(bound).min(bound);
    jittered.max(asked.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: RetryPolicy =
        RetryPolicy { initial: Duration::from_millis(500), max: Duration::from_secs(300) };

    #[test]
    fn the_bound_doubles_up_to_its_maximum() {
        let bounds: Vec<u128> =
            (1..=12).map(|failures| delay(&POLICY, failures, 1.0, None).as_millis()).collect();
        assert_eq!(
            bounds,
            [
                500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000, 256_000, 300_000,
                300_000
            ]
        );
        assert_eq!(delay(&POLICY, 3, 0.0, None), Duration::ZERO);
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let policy = RetryPolicy { initial: Duration::MAX, max: Duration::MAX };
        for jitter in [0.0, 0.5, 1.0 - f64::EPSILON, 1.0] {
            assert!(delay(&policy, u32::MAX, jitter, None) <= Duration::MAX);
        }
        assert_eq!(delay(&POLICY, u32::MAX, 1.0, None), POLICY.max);
        assert_eq!(delay(&POLICY, 0, 1.0, None), POLICY.initial);
    }

    proptest! {
        #[test]
        fn any_delay_is_within_its_bounds(failures: u32, jitter in 0.0..1.0, asked in proptest::option::of(0_u64..3600), initial in 1_u64..10_000, factor in 1_u64..1000) {
            let policy = RetryPolicy { initial: Duration::from_millis(initial), max: Duration::from_millis(initial * factor) };
            let asked = asked.map(Duration::from_secs);
            let delay = delay(&policy, failures, jitter, asked);
            prop_assert!(delay >= asked.unwrap_or_default());
            prop_assert!(delay <= policy.max.max(asked.unwrap_or_default()));
        }
    }
}
