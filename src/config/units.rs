//! PURE. Values with units as text: `"200ms"`, `"8GiB"`.

use std::time::Duration;

/// Accepted units of time, in milliseconds.
const TIMES: [(&str, u64); 6] =
    [("ms", 1), ("s", 1000), ("min", 60_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
/// Accepted units of size, in bytes.
const SIZES: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Reads a duration such as `10s`.
///
/// # Errors
/// What is accepted, with an example.
pub fn duration(text: &str) -> Result<Duration, &'static str> {
    let wrong = "a duration has one of the units ms, s, min, h, d, such as \"10s\"";
    parse(text, &TIMES).map(Duration::from_millis).ok_or(wrong)
}

/// Reads a size in bytes such as `8GiB`.
///
/// # Errors
/// What is accepted, with an example.
pub fn size(text: &str) -> Result<u64, &'static str> {
    parse(text, &SIZES).ok_or(
        "a size has one of the units B, KiB, MiB, GiB, TiB, KB, MB, GB, TB, such as \"8GiB\"",
    )
}

/// Writes a duration with the largest unit that divides it.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let units = [("h", 3_600_000), ("min", 60_000), ("s", 1000)];
    let unit = units.into_iter().find(|(_, unit)| millis >= *unit && millis.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{millis}ms"), |(name, unit)| format!("{}{name}", millis / unit))
}

/// Writes a size with the largest binary unit that divides it.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    let units = [("TiB", 1_u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units.into_iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{bytes}B"), |(name, unit)| format!("{}{name}", bytes / unit))
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_with_units() {
        for (text, millis) in [
            ("200ms", 200),
            ("10s", 10_000),
            ("5min", 300_000),
            ("5 m", 300_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", "10", "s", "1.5s", "-1s", "10 sec", "99999999999999999999s", "99999999999999999h"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
        for (text, bytes) in [("64B", 64), ("1MiB", 1 << 20), ("8GiB", 8 << 30), ("1 KB", 1000)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["1", "MiB", "1mib", "1M", "1.5GiB", "99999999999TiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(value: u32) {
            let time = Duration::from_millis(u64::from(value));
            prop_assert_eq!(duration(&show_duration(time)), Ok(time));
            prop_assert_eq!(size(&show_size(u64::from(value) * 1024)), Ok(u64::from(value) * 1024));
        }
    }
}
