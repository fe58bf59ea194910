//! PURE. What is said once, on the page that follows a form.

use std::collections::VecDeque;

use super::words::Tone;

/// Notices that nobody has read yet.
const UNREAD_MAX: usize = 64;

/// Something that was done, or was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) tone: Tone,
    pub(super) text: String,
    /// More of it, a line each.
    pub(super) lines: Vec<String>,
}

impl Notice {
    pub(super) fn good(text: impl Into<String>) -> Notice {
        Notice { tone: Tone::Good, text: text.into(), lines: Vec::new() }
    }

    pub(super) fn bad(text: impl Into<String>) -> Notice {
        Notice { tone: Tone::Bad, text: text.into(), lines: Vec::new() }
    }
}

/// Notices by the number that a link carries.
#[derive(Debug, Default)]
pub(super) struct Notices {
    unread: VecDeque<(u64, Notice)>,
    last: u64,
}

impl Notices {
    /// Keeps `notice` until it is read.
    pub(super) fn leave(&mut self, notice: Notice) -> u64 {
        if self.unread.len() >= UNREAD_MAX {
            self.unread.pop_front();
        }
        self.last += 1;
        self.unread.push_back((self.last, notice));
        self.last
    }

    /// The notice of this number, the first time that it is asked for.
    pub(super) fn read(&mut self, number: u64) -> Option<Notice> {
        let place = self.unread.iter().position(|(known, _)| *known == number)?;
        self.unread.remove(place).map(|(_, notice)| notice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_read_once_and_few_are_kept() {
        let mut notices = Notices::default();
        let first = notices.leave(Notice::good("done"));
        assert_eq!(notices.read(first + 1), None);
        assert_eq!(notices.read(first).unwrap().text, "done");
        assert_eq!(notices.read(first), None);
        let first = notices.leave(Notice::bad("first"));
        for _ in 0..UNREAD_MAX {
            notices.leave(Notice::good("x"));
        }
        assert_eq!((notices.read(first), notices.unread.len()), (None, UNREAD_MAX));
    }
}
