//! PURE. Which lanes of the spool an integration uses.
//!
//! `lanes = N` gives each person one of N lanes. When N changes, a person may get another lane; records that wait in the old
//! one must leave first. So each change begins a new layout, with lanes of its own, whose forwarders begin once the lanes of
//! all earlier layouts have been empty. A lane's number tells both: `layout << 8 | index`.

use crate::mapping::person::LANES_MAX;

const INDEX_BITS: u32 = 8;

const _: () = assert!(LANES_MAX <= 1 << INDEX_BITS);

/// The lanes that new records go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    number: u32,
    lanes: u32,
}

impl Layout {
    /// The layout of `lanes` lanes, given the numbers of the lanes that the integration already has: the newest if it has as
    /// many, else a new one.
    ///
    /// # Panics
    /// When `lanes` is not in 1..=[`LANES_MAX`], which the configuration has checked.
    #[must_use]
    pub fn choose(known: &[u32], lanes: u32) -> Layout {
        assert!((1..=LANES_MAX).contains(&lanes), "a layout has 1 to {LANES_MAX} lanes");
        let Some(newest) = known.iter().map(|number| number >> INDEX_BITS).max() else {
            return Layout { number: 0, lanes };
        };
        let has = known.iter().filter(|number| **number >> INDEX_BITS == newest).count();
        let number = if has == lanes as usize { newest } else { newest + 1 };
        Layout { number, lanes }
    }

    /// The numbers of its lanes, in the order in which people are spread over them.
    pub fn numbers(self) -> impl Iterator<Item = u32> {
        (0..self.lanes).map(move |index| self.number << INDEX_BITS | index)
    }
}

/// Whether the lane `number` must be empty before the lane `later` begins: it is of an earlier layout.
#[must_use]
pub fn goes_before(number: u32, later: u32) -> bool {
    number >> INDEX_BITS < later >> INDEX_BITS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_change_of_lanes_begins_a_new_layout() {
        let mut known = Vec::new();
        for (lanes, first, new) in [(1, 0, 1), (1, 0, 0), (4, 256, 4), (4, 256, 0), (1, 512, 1)] {
            let numbers: Vec<u32> = Layout::choose(&known, lanes).numbers().collect();
            assert_eq!((numbers[0], numbers.len()), (first, lanes as usize));
            let before = known.len();
            known.extend(
                numbers.into_iter().filter(|number| !known.contains(number)).collect::<Vec<_>>(),
            );
            assert_eq!(known.len() - before, new);
        }
        assert_eq!(known, [0, 256, 257, 258, 259, 512]);
        assert!(
            goes_before(0, 259)
                && goes_before(259, 512)
                && !goes_before(256, 259)
                && !goes_before(512, 0)
        );
        // A crash while the lanes of a layout were registered: it was never used.
        assert_eq!(Layout::choose(&[0, 256], 4).numbers().next(), Some(512));
    }

    proptest! {
        /// Whatever the history of changes and crashes: a layout's lanes are all new, or exactly those of the newest.
        #[test]
        fn layouts_never_mix(history in proptest::collection::vec((1..=LANES_MAX, 0..=LANES_MAX), 1..20)) {
            let mut known: Vec<u32> = Vec::new();
            for (lanes, registered) in history {
                let layout = Layout::choose(&known, lanes);
                let numbers: Vec<u32> = layout.numbers().collect();
                let old = numbers.iter().filter(|number| known.contains(number)).count();
                prop_assert!(old == 0 || old == numbers.len());
                let later = numbers[0];
                prop_assert!(known.iter().all(|number| numbers.contains(number) || goes_before(*number, later)));
                let new = numbers.into_iter().filter(|number| !known.contains(number));
                let new: Vec<u32> = new.take(registered as usize).collect();
                known.extend(new);
            }
        }
    }
}
