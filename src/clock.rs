//! The wall clock: the one place that reads it.
//!
//! Pure files take an [`UnixMillis`] as an argument. Delays and deadlines are `tokio::time::Instant`s,
//! which a step of the wall clock does not move.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A moment of the wall clock: milliseconds since 1970-01-01T00:00:00Z.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// How long ago `self` was at `now`; zero when the clock has stepped back behind it.
    #[must_use]
    pub fn age(self, now: UnixMillis) -> Duration {
        Duration::from_millis(now.0.saturating_sub(self.0))
    }

    /// The moment `delay` after this one.
    #[must_use]
    pub fn after(self, delay: Duration) -> UnixMillis {
        UnixMillis(self.0.saturating_add(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// Reads the wall clock; a clock before 1970 reads as 1970.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one reader of the wall clock")]
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
