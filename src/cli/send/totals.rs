//! What became of all lines.

use std::collections::BTreeMap;
use std::fmt;

use indicatif::ProgressBar;

use super::batch::{Batch, Place, Taken};
use crate::cli::show::{self, number, printable};

/// Lines at fault that are told one by one.
const TOLD_MAX: u64 = 20;

/// Everything that was sent so far.
#[derive(Debug, Default)]
pub(super) struct Totals {
    taken: Taken,
    dropped: BTreeMap<String, u64>,
    invalid: u64,
    skipped: u64,
    told: u64,
}

impl Totals {
    /// Counts what the daemon made of `batch`.
    pub(super) fn add(&mut self, taken: Taken, batch: &Batch, bar: &ProgressBar) {
        self.taken.accepted += taken.accepted;
        self.taken.dropped += taken.dropped;
        self.taken.duplicate += taken.duplicate;
        self.taken.quarantined += taken.quarantined;
        for item in taken.items {
            match item.outcome.as_str() {
                "dropped" => *self.dropped.entry(item.reason).or_default() += 1,
                "quarantined" => {
                    let place = batch.place(item.index).map(ToString::to_string);
                    let why = item.message.unwrap_or(item.reason);
                    self.tell(&format!("{}: quarantined: {why}", place.unwrap_or_default()), bar);
                }
                _ => {}
            }
        }
    }

    /// Counts a line that was not sent, or that the daemon does not take.
    pub(super) fn invalid(&mut self, place: &Place, message: &str, bar: &ProgressBar) {
        self.invalid += 1;
        self.tell(&format!("{place}: {message}"), bar);
    }

    /// Counts a line that needs no sending.
    pub(super) fn skipped(&mut self) {
        self.skipped += 1;
    }

    pub(super) fn accepted(&self) -> u64 {
        self.taken.accepted
    }

    /// Whether no line was at fault.
    pub(super) fn all_well(&self) -> bool {
        self.invalid + self.taken.quarantined == 0
    }

    fn tell(&mut self, text: &str, bar: &ProgressBar) {
        self.told += 1;
        if self.told <= TOLD_MAX {
            bar.suspend(|| show::problem(&printable(text)));
        } else if self.told == TOLD_MAX + 1 {
            bar.suspend(|| show::note("further lines at fault are only counted"));
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Taken { accepted, dropped, duplicate, quarantined, .. } = &self.taken;
        write!(
            formatter,
            "{} accepted, {} seen before, {} dropped",
            number(*accepted),
            number(*duplicate),
            number(*dropped)
        )?;
        for (index, (reason, count)) in self.dropped.iter().enumerate() {
            let before = if index == 0 { " (" } else { ", " };
            write!(formatter, "{before}{reason} {}", number(*count))?;
        }
        let after = if self.dropped.is_empty() { "" } else { ")" };
        let (quarantined, invalid) = (number(*quarantined), number(self.invalid));
        write!(formatter, "{after}, {quarantined} quarantined, {invalid} invalid lines")?;
        match self.skipped {
            0 => Ok(()),
            skipped => {
                let skipped = number(skipped);
                write!(
                    formatter,
                    ", {skipped} passed over (not queued, or for another integration)"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::Item;
    use super::*;

    #[test]
    fn the_totals_name_every_end_and_every_reason() {
        let bar = ProgressBar::hidden();
        let mut totals = Totals::default();
        assert_eq!(
            totals.to_string(),
            "0 accepted, 0 seen before, 0 dropped, 0 quarantined, 0 invalid lines"
        );
        let dropped = |index, reason: &str| Item {
            index,
            outcome: "dropped".into(),
            reason: reason.into(),
            message: None,
        };
        let items = vec![dropped(0, "no_mapping"), dropped(1, "consent"), dropped(2, "no_mapping")];
        let taken = Taken { accepted: 1234, dropped: 3, duplicate: 2, items, ..Taken::default() };
        totals.add(taken, &Batch::default(), &bar);
        assert!(totals.all_well(), "a mapping that drops is no fault");
        totals.invalid(&Place { file: "f".into(), line: 7 }, "no JSON", &bar);
        assert!(!totals.all_well());
        assert_eq!(
            totals.to_string(),
            "1,234 accepted, 2 seen before, 3 dropped (consent 1, no_mapping 2), 0 quarantined, 1 invalid lines"
        );
    }
}
