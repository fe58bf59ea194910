//! What people read: numbers, ages, and lines on stdout and stderr.

use std::io::Write as _;
use std::time::Duration;

use anstyle::{AnsiColor, Style};

/// All is well.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// Degraded, will heal.
pub(super) const WARN: Style = AnsiColor::Yellow.on_default();
/// An operator must act.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
/// Headings.
pub(super) const BOLD: Style = Style::new().bold();
/// Of less importance.
pub(super) const DIM: Style = Style::new().dimmed();

/// A line on stdout, without colour when that is no terminal. A reader that has gone away ends nothing.
pub(super) fn line(text: &str) {
    drop(writeln!(anstream::stdout(), "{text}"));
}

/// What went wrong, on stderr.
pub(super) fn problem(text: &str) {
    drop(writeln!(anstream::stderr(), "{BAD}pillarbox:{BAD:#} {text}"));
}

/// Something worth knowing, on stderr.
pub(super) fn note(text: &str) {
    drop(writeln!(anstream::stderr(), "pillarbox: {text}"));
}

/// A number with its thousands apart: `12,345`.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A duration in its two largest units: `3 min 20 s`.
pub(super) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    let units = [("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)];
    let Some(first) = units.iter().position(|(_, unit)| seconds >= *unit) else {
        return "0 s".to_owned();
    };
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (name, unit) in units.iter().skip(first).take(2) {
        let count = rest / unit;
        rest %= unit;
        if count > 0 {
            parts.push(format!("{count} {name}"));
        }
    }
    parts.join(" ")
}

/// Bytes in a binary unit: `3.4 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units.into_iter().find(|(_, unit)| bytes >= *unit);
    unit.map_or_else(
        || format!("{bytes} B"),
        |(name, unit)| format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_people_read_them() {
        assert_eq!([0, 999, 1000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        let seconds = [0, 59, 60, 200, 3600, 90_061];
        assert_eq!(
            seconds.map(|s| age(Duration::from_secs(s))),
            ["0 s", "59 s", "1 min", "3 min 20 s", "1 h", "1 d 1 h"]
        );
        assert_eq!([0, 1023, 1536, 5 << 30].map(bytes), ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
    }
}
