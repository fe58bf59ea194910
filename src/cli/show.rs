//! What people read: lines on stdout and stderr, with what `readable` makes of numbers and ages.

use std::io::Write as _;

use anstyle::{AnsiColor, Style};

pub(super) use crate::readable::{age, bytes, number, pretty, short_age};

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

/// Text from elsewhere, safe to show: control characters, which could drive the terminal, as their escapes.
pub(super) fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        // Some turn the direction of what follows: text could look like other text.
        let turns = matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if letter.is_control() || turns {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// [`printable`], cut to `width` characters with an ellipsis.
pub(super) fn cell(text: &str, width: usize) -> String {
    let shown = printable(text);
    if shown.chars().count() <= width {
        return shown;
    }
    shown.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// A table without the spaces at the end of its lines.
pub(super) fn trimmed(table: &str) -> String {
    table.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_elsewhere_drives_the_terminal() {
        assert_eq!(
            printable("caf\u{e9} \u{1b}[2J\n\u{9b}x\u{202e}"),
            r"café \u{1b}[2J\n\u{9b}x\u{202e}"
        );
        assert_eq!(cell("abcdef", 6), "abcdef");
        assert_eq!(cell("abcdefg", 6), "abcde…");
    }
}
