//! PURE. Moments as Ometria takes them: UTC, whole seconds.

use std::fmt;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::clock::UnixMillis;

/// A moment, in whole seconds since 1970: fractions are cut towards the past, never rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

/// Four-digit years, as RFC 3339 writes them: from the year 1 to the end of what jiff represents, late in 9999.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_207_200;

impl Timestamp {
    /// The moment of arrival.
    #[must_use]
    pub fn at(received: UnixMillis) -> Timestamp {
        Timestamp(i64::try_from(received.0 / 1000).unwrap_or(i64::MAX).min(*SECONDS.end()))
    }

    /// Reads RFC 3339 and its near relatives (a space for the `T`, no seconds). Without an offset it is UTC, as
    /// Segment's libraries send it. A date alone is not a time.
    #[must_use]
    pub fn parse(text: &str) -> Option<Timestamp> {
        let text = text.trim();
        if text.len() < "2026-06-06T15:32".len() {
            return None;
        }
        let moment = match text.parse::<jiff::Timestamp>() {
            Ok(moment) => moment,
            Err(_) => TimeZone::UTC.to_timestamp(text.parse::<DateTime>().ok()?).ok()?,
        };
        let seconds = moment.as_second() - i64::from(moment.subsec_nanosecond() < 0);
        SECONDS.contains(&seconds).then_some(Timestamp(seconds))
    }

    /// A JSON number: 10 digits are seconds, 13 are milliseconds since 1970; anything else is no time.
    #[must_use]
    pub fn parse_number(text: &str) -> Option<Timestamp> {
        let number: i64 =
            text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))?;
        match text.len() {
            10 => Some(Timestamp(number)),
            13 => Some(Timestamp(number / 1000)),
            _ => None,
        }
    }
}

impl fmt::Display for Timestamp {
    /// `2026-06-06T15:32:52+00:00`, as in Ometria's own example (OMETRIA.md).
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = jiff::Timestamp::from_second(self.0).map_err(|_| fmt::Error)?;
        let at = TimeZone::UTC.to_datetime(moment);
        write!(
            formatter,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}+00:00",
            at.year(),
            at.month(),
            at.day(),
            at.hour(),
            at.minute(),
            at.second()
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_as_clients_write_them() {
        for (text, read) in [
            ("2026-06-06T15:32:52.417Z", "2026-06-06T15:32:52+00:00"),
            ("2026-06-06T15:32:52.999999Z", "2026-06-06T15:32:52+00:00"),
            ("2026-06-06T17:32:52+02:00", "2026-06-06T15:32:52+00:00"),
            ("2026-06-06t15:32:52z", "2026-06-06T15:32:52+00:00"),
            ("2026-06-06 15:32:52+00:00", "2026-06-06T15:32:52+00:00"),
            ("2026-06-06T15:32:52", "2026-06-06T15:32:52+00:00"),
            ("2026-06-06T15:32Z", "2026-06-06T15:32:00+00:00"),
            ("1969-12-31T23:59:59.5Z", "1969-12-31T23:59:59+00:00"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:00"),
            ("9999-12-29T23:59:59Z", "9999-12-29T23:59:59+00:00"),
        ] {
            assert_eq!(
                Timestamp::parse(text).map(|time| time.to_string()).as_deref(),
                Some(read),
                "{text}"
            );
        }
        for text in [
            "",
            "now",
            "2026-06-06",
            "2026-13-01T00:00:00Z",
            "2026-02-30T00:00:00Z",
            "2026-06-06T25:00:00Z",
            "1780759972",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
        assert_eq!(Timestamp::parse_number("1780759972"), Timestamp::parse("2026-06-06T15:32:52Z"));
        assert_eq!(
            Timestamp::parse_number("1780759972417"),
            Timestamp::parse("2026-06-06T15:32:52Z")
        );
        for text in ["1", "-1780759972", "1780759972.5", "17807599724171"] {
            assert_eq!(Timestamp::parse_number(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(seconds in -62_135_596_800_i64..253_402_200_000) {
            let time = Timestamp(seconds);
            prop_assert_eq!(Timestamp::parse(&time.to_string()), Some(time));
        }

        #[test]
        fn any_text_is_a_time_or_none(text in "\\PC{0,40}") {
            let _ = Timestamp::parse(&text);
        }
    }
}
