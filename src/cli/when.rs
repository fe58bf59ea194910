//! PURE. Moments as people give them: a time, or how long ago.

use crate::clock::UnixMillis;
use crate::config::units;
use crate::event::Timestamp;

/// A moment, before it is known what time it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// At this time.
    At(UnixMillis),
    /// So long ago.
    Ago(std::time::Duration),
}

impl When {
    /// Reads `2026-06-06T12:00:00Z`, or `90min` for as long ago.
    ///
    /// # Errors
    /// What is accepted.
    pub(super) fn parse(text: &str) -> Result<When, &'static str> {
        if let Ok(ago) = units::duration(text) {
            return Ok(When::Ago(ago));
        }
        let time = Timestamp::parse(text).and_then(|time| u64::try_from(time.seconds()).ok());
        time.map(|seconds| When::At(UnixMillis(seconds * 1000))).ok_or(
            "must be a time such as 2026-06-06T12:00:00Z (without an offset: UTC), or how long ago, such as 90min",
        )
    }

    /// The moment, at `now`.
    pub(super) fn at(self, now: UnixMillis) -> UnixMillis {
        match self {
            When::At(at) => at,
            When::Ago(ago) => {
                UnixMillis(now.0.saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_time_or_an_age() {
        let now = UnixMillis(1_780_759_972_000);
        for (text, at) in [
            ("2026-06-06T15:32:52Z", Some(1_780_759_972_000)),
            ("2026-06-06T17:32:52+02:00", Some(1_780_759_972_000)),
            ("2026-06-06", Some(1_780_704_000_000)),
            ("90min", Some(1_780_754_572_000)),
            ("1d", Some(1_780_673_572_000)),
            ("99999d", Some(0)),
            ("yesterday", None),
            ("90", None),
            ("1969-01-01", None),
        ] {
            assert_eq!(When::parse(text).ok().map(|when| when.at(now).0), at, "{text}");
        }
    }
}
