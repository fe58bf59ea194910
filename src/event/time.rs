//! Times of events, as they are written: text in, whole seconds of UTC, text out.

use std::fmt;

use jiff::SignedDuration;
use jiff::civil::{DateTime, Time};
use jiff::fmt::temporal::Pieces;
use serde_json::value::RawValue;

use super::value;
use crate::clock::UnixMillis;

/// A moment in whole seconds of UTC, within the years 1 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
/// 0001-01-01T00:00:00Z.
const MIN: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59Z.
const MAX: i64 = 253_402_300_799;

impl Timestamp {
    /// The second `seconds` after 1970-01-01T00:00:00Z; `None` outside the years 1 to 9999.
    #[must_use]
    pub fn from_seconds(seconds: i64) -> Option<Timestamp> {
        (MIN..=MAX).contains(&seconds).then_some(Timestamp(seconds))
    }

    /// Seconds after 1970-01-01T00:00:00Z, negative before it.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.0
    }

    /// The second that a moment of the wall clock lies in.
    #[must_use]
    pub fn from_clock(moment: UnixMillis) -> Timestamp {
        Timestamp(i64::try_from(moment.0 / 1000).unwrap_or(MAX).min(MAX))
    }

    /// Reads RFC 3339 text with any offset, and the ISO 8601 forms near it: basic format, a space for the
    /// `T`, a missing second.
    ///
    /// Without an offset the time is read as UTC; without a time of day, as midnight. A fraction is cut,
    /// never rounded: before 1970 too the result is the second that the moment lies in.
    #[must_use]
    pub fn parse(text: &str) -> Option<Timestamp> {
        if let Some(usual) = Timestamp::parse_usual(text.as_bytes()) {
            return Some(usual);
        }
        if let Ok(pieces) = Pieces::parse(text) {
            return Timestamp::from_pieces(&pieces);
        }
        Timestamp::from_pieces(&Pieces::parse(&with_short_fraction(text)?).ok()?)
    }

    /// Reads `2026-06-06T15:32:52.417Z`, with or without a fraction: nearly every client writes it so. `None` for anything
    /// else, whether it is a time or not.
    fn parse_usual(text: &[u8]) -> Option<Timestamp> {
        let (whole, fraction) = text.strip_suffix(b"Z")?.split_first_chunk::<19>()?;
        let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1, b'T', h0, h1, b':', n0, n1, b':', s0, s1] =
            *whole
        else {
            return None;
        };
        let is_fraction = match fraction {
            [] => true,
            [b'.', digits @ ..] => {
                (1..=9).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit)
            }
            _ => false,
        };
        let digit = |byte: u8| Some(byte.wrapping_sub(b'0')).filter(|digit| *digit < 10);
        let two = |tens: u8, ones: u8| Some((digit(tens)? * 10 + digit(ones)?).cast_signed());
        let year = i16::from(two(y0, y1)?) * 100 + i16::from(two(y2, y3)?);
        let (month, day, hour) = (two(m0, m1)?, two(d0, d1)?, two(h0, h1)?);
        let (minute, second) = (two(n0, n1)?, two(s0, s1)?);
        let time = DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
        let seconds = time.duration_since(EPOCH).as_secs();
        Timestamp::from_seconds(seconds).filter(|_| is_fraction)
    }

    fn from_pieces(pieces: &Pieces<'_>) -> Option<Timestamp> {
        let offset = match pieces.to_numeric_offset() {
            Some(offset) => offset.seconds(),
            // A zone's name alone would need its rules to become an offset.
            None if pieces.time_zone_annotation().is_some() => return None,
            None => 0,
        };
        let local = pieces.date().to_datetime(pieces.time().unwrap_or_else(Time::midnight));
        let since = local.duration_since(EPOCH);
        let whole = since.as_secs() - i64::from(since.subsec_nanos() < 0);
        Timestamp::from_seconds(whole - i64::from(offset))
    }

    /// Reads a JSON value: a string as [`Timestamp::parse`] does; of numbers only those that cannot be
    /// misread, integers of 13 digits (milliseconds since 1970) and of 10 digits (seconds).
    #[must_use]
    pub fn from_json(value: &RawValue) -> Option<Timestamp> {
        let Some(number) = value::number(value) else {
            return Timestamp::parse(&value::text(value)?);
        };
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        match number.len() {
            10 => number.parse().ok().and_then(Timestamp::from_seconds),
            13 => number.parse::<i64>().ok().and_then(|ms| Timestamp::from_seconds(ms / 1000)),
            _ => None,
        }
    }
}

/// `text` with its fraction cut to nanoseconds, the most that jiff reads; RFC 3339 sets no limit. `None` when
/// it has no longer fraction.
fn with_short_fraction(text: &str) -> Option<String> {
    let (before, after) = text.split_once(['.', ','])?;
    let digits = after.bytes().take_while(u8::is_ascii_digit).count();
    let (fraction, rest) = after.split_at_checked(digits)?;
    fraction.get(..9).filter(|_| digits > 9).map(|kept| format!("{before}.{kept}{rest}"))
}

/// What [`Timestamp`] is written as, of the years 0 to 9999.
pub const TIMESTAMP_BYTES: usize = 25;

/// As Ometria's examples write it: `2026-06-06T15:32:52+00:00`.
impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(std::str::from_utf8(&self.to_bytes()).unwrap_or_default())
    }
}

impl Timestamp {
    /// The text of [`Timestamp`]'s `Display`. Every record has one: writing the digits is five times as fast as formatting six
    /// numbers.
    #[must_use]
    pub fn to_bytes(self) -> [u8; TIMESTAMP_BYTES] {
        let time = EPOCH.saturating_add(SignedDuration::from_secs(self.0));
        let mut text = *b"0000-00-00T00:00:00+00:00";
        let [y0, y1, y2, y3, _, m0, m1, _, d0, d1, _, h0, h1, _, n0, n1, _, s0, s1, ..] = &mut text;
        let year = time.year().unsigned_abs();
        let pairs = [
            ((y0, y1), year / 100),
            ((y2, y3), year % 100),
            ((m0, m1), time.month().unsigned_abs().into()),
            ((d0, d1), time.day().unsigned_abs().into()),
            ((h0, h1), time.hour().unsigned_abs().into()),
            ((n0, n1), time.minute().unsigned_abs().into()),
            ((s0, s1), time.second().unsigned_abs().into()),
        ];
        for ((tens, ones), number) in pairs {
            *tens += u8::try_from(number / 10).unwrap_or_default();
            *ones += u8::try_from(number % 10).unwrap_or_default();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_read_and_written() {
        let table = [
            ("2026-06-06T15:32:52Z", "2026-06-06T15:32:52+00:00"),
            ("2026-06-06T15:32:52.417Z", "2026-06-06T15:32:52+00:00"),
            ("2026-06-06T15:32:52.999999999999Z", "2026-06-06T15:32:52+00:00"),
            ("2026-06-06t15:32:52z", "2026-06-06T15:32:52+00:00"),
            ("2026-06-06 15:32:52Z", "2026-06-06T15:32:52+00:00"),
            ("2026-06-06T15:32:52,417Z", "2026-06-06T15:32:52+00:00"),
            ("2026-06-06T17:32:52+02:00", "2026-06-06T15:32:52+00:00"),
            ("2026-06-06T05:02:52.5-10:30", "2026-06-06T15:32:52+00:00"),
            ("2026-06-06T15:32:52-00:00", "2026-06-06T15:32:52+00:00"),
            ("20260606T173252+0200", "2026-06-06T15:32:52+00:00"),
            ("2026-06-06T17:32:52+02", "2026-06-06T15:32:52+00:00"),
            ("2026-06-06T17:32:52+02:00[Europe/Berlin]", "2026-06-06T15:32:52+00:00"),
            ("2026-06-06T15:32:52", "2026-06-06T15:32:52+00:00"),
            ("2026-06-06 15:32:52.9", "2026-06-06T15:32:52+00:00"),
            ("2026-06-06T15:32Z", "2026-06-06T15:32:00+00:00"),
            ("2026-06-06", "2026-06-06T00:00:00+00:00"),
            ("2027-01-01T00:30:00+01:00", "2026-12-31T23:30:00+00:00"),
            ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00+00:00"),
            ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59+00:00"),
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00+00:00"),
            ("1969-12-31T23:59:59.5Z", "1969-12-31T23:59:59+00:00"),
            ("1969-12-31T23:59:58.001Z", "1969-12-31T23:59:58+00:00"),
            ("1970-01-01T00:00:00.5+00:01", "1969-12-31T23:59:00+00:00"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:00"),
            ("0001-01-01T02:00:00+02:00", "0001-01-01T00:00:00+00:00"),
            ("9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59+00:00"),
        ];
        for (text, expected) in table {
            let read = Timestamp::parse(text).map(|time| time.to_string());
            assert_eq!(read.as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_time_is_refused() {
        let table = [
            "",
            "now",
            "yesterday",
            "2026",
            "15:32:52Z",
            "06/06/2026",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-06-06T24:00:00Z",
            "2026-06-06T15:32:52+99:00",
            "2026-06-06T15:32:52 +02:00",
            "2026-06-06T15:32:52Z!",
            "2026-06-06T15:32:52[Europe/Berlin]",
            "Sat, 06 Jun 2026 15:32:52 GMT",
            "1780759972",
            "0000-12-31T23:59:59Z",
            "-000001-01-01T00:00:00Z",
            "0001-01-01T00:00:00+02:00",
            "9999-12-31T23:59:59-01:00",
            "10000-01-01T00:00:00Z",
        ];
        for text in table {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn json_values_are_read_where_they_are_unambiguous() {
        let table = [
            ("\"2026-06-06T15:32:52Z\"", Some(1_780_759_972)),
            (r#""2026-06-06T15:32:52\u005a""#, Some(1_780_759_972)),
            ("1780759972", Some(1_780_759_972)),
            ("1780759972417", Some(1_780_759_972)),
            ("178075997", None),
            ("17807599724", None),
            ("178075997241", None),
            ("17807599724170", None),
            ("-780759972", None),
            ("1780759972.0", None),
            ("1.78075e99", None),
            ("\"1780759972\"", None),
            ("true", None),
            ("{}", None),
            ("[]", None),
        ];
        for (json, expected) in table {
            let value: &RawValue = serde_json::from_str(json).unwrap();
            assert_eq!(Timestamp::from_json(value).map(Timestamp::seconds), expected, "{json}");
        }
    }

    #[test]
    fn the_wall_clock_is_cut_to_its_second() {
        let table = [(0, 0), (999, 0), (1_780_759_972_999, 1_780_759_972), (u64::MAX, MAX)];
        for (millis, seconds) in table {
            assert_eq!(Timestamp::from_clock(UnixMillis(millis)).seconds(), seconds);
        }
    }

    proptest! {
        /// The short way to the usual form and jiff's agree on every text, right or wrong.
        #[test]
        fn the_usual_form_is_read_as_any_other(
            text in "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,10})?[Zz]"
        ) {
            if let Some(usual) = Timestamp::parse_usual(text.as_bytes()) {
                let pieces = Pieces::parse(&text).unwrap();
                prop_assert_eq!(Some(usual), Timestamp::from_pieces(&pieces));
            }
        }

        #[test]
        fn every_second_is_written_and_read_back(seconds in MIN..=MAX) {
            let time = Timestamp::from_seconds(seconds).unwrap();
            prop_assert_eq!(Timestamp::parse(&time.to_string()), Some(time));
        }

        #[test]
        fn a_fraction_never_changes_the_second(seconds in MIN..=MAX, fraction in "[0-9]{1,12}") {
            let time = Timestamp::from_seconds(seconds).unwrap();
            let text = time.to_string().replace("+00:00", &format!(".{fraction}Z"));
            prop_assert_eq!(Timestamp::parse(&text), Some(time));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*|[0-9TZ:+. -]{0,40}") {
            let _ = Timestamp::parse(&text);
        }
    }
}
