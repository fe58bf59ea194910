//! PURE. Sets of seqs as ranges.

use std::collections::BTreeMap;

/// A set of seqs; neighbours are one range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges {
    /// Last seq by first.
    ranges: BTreeMap<u64, u64>,
}

impl Ranges {
    /// Adds `first` to `last`.
    pub(super) fn insert(&mut self, first: u64, last: u64) {
        let (mut first, mut last) = (first, last);
        let end = last.saturating_add(1);
        while let Some((from, to)) = self.ranges.range(..=end).next_back().map(|(f, t)| (*f, *t)) {
            if to.saturating_add(1) < first {
                break;
            }
            (first, last) = (first.min(from), last.max(to));
            self.ranges.remove(&from);
        }
        self.ranges.insert(first, last);
    }

    /// What of `first` to `last` is not in the set, in order; empty when `first` lies behind `last`.
    pub(super) fn missing_in(&self, first: u64, last: u64) -> Vec<(u64, u64)> {
        let mut missing = Vec::new();
        let mut next = first;
        let before = self.ranges.range(..=first).next_back().map_or(first, |(from, _)| *from);
        for (from, to) in self.ranges.range(before..) {
            if *from > last || next > last {
                break;
            }
            if *from > next {
                missing.push((next, from - 1));
            }
            next = next.max(to.saturating_add(1));
        }
        if next <= last {
            missing.push((next, last));
        }
        missing
    }
}

/// How many seqs `ranges` hold, when they do not overlap.
pub(super) fn count(ranges: impl IntoIterator<Item = (u64, u64)>) -> u64 {
    ranges.into_iter().map(|(from, to)| to - from + 1).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_agree_with_a_set(inserts in proptest::collection::vec((1_u64..60, 0_u64..12), 0..20), first in 0_u64..70, length in 0_u64..70) {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for (first, more) in inserts {
                ranges.insert(first, first + more);
                set.extend(first..=first + more);
            }
            prop_assert_eq!(count(ranges.ranges.iter().map(|(from, to)| (*from, *to))), set.len() as u64);
            let missing: Vec<u64> = ranges.missing_in(first, first + length).into_iter().flat_map(|(from, to)| from..=to).collect();
            let expected: Vec<u64> = (first..=first + length).filter(|seq| !set.contains(seq)).collect();
            prop_assert_eq!(missing, expected);
        }
    }

    #[test]
    fn an_empty_question_has_an_empty_answer() {
        assert!(Ranges::default().missing_in(5, 4).is_empty());
    }
}
