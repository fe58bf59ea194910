//! PURE. Finds the records at fault in a rejected push, by halving, in order.

/// A rejected push in pieces, front first. Only the front piece is ever pushed: order is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolation {
    /// Records in each piece, the front piece last.
    pieces: Vec<usize>,
}

impl Isolation {
    /// Splits a rejected push of `records`; one record alone has no halves.
    #[must_use]
    pub fn of(records: usize) -> Isolation {
        let mut isolation = Isolation { pieces: vec![records] };
        isolation.split();
        isolation
    }

    /// Records in the front piece; `None` when nothing is left.
    #[must_use]
    pub fn front(&self) -> Option<usize> {
        self.pieces.last().copied()
    }

    /// The front piece was rejected: its halves take its place. `false` when it is one record, which stands alone.
    pub fn split(&mut self) -> bool {
        match self.pieces.pop() {
            Some(records) if records > 1 => {
                let first = records.div_ceil(2);
                self.pieces.extend([records - first, first]);
                true
            }
            Some(records) => {
                self.pieces.push(records);
                false
            }
            None => false,
        }
    }

    /// The front piece has been settled. `true` when nothing is left.
    pub fn settled(&mut self) -> bool {
        self.pieces.pop();
        self.pieces.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever records are at fault, exactly they are quarantined, in order, within a bounded number of pushes.
        #[test]
        fn exactly_the_guilty_are_found(guilty in proptest::collection::vec(any::<bool>(), 1..=100)) {
            let (mut ends, mut pushes, mut at) = (Vec::new(), 0_usize, 0);
            let mut isolation = Isolation { pieces: vec![guilty.len()] };
            while let Some(records) = isolation.front() {
                pushes += 1;
                if guilty[at..at + records].contains(&true) {
                    if isolation.split() { continue; }
                    ends.push(true);
                } else {
                    ends.extend(vec![false; records]);
                }
                at += records;
                isolation.settled();
            }
            prop_assert_eq!(&ends, &guilty);
            let count = guilty.iter().filter(|guilty| **guilty).count();
            prop_assert!(pushes <= 1 + 2 * count * 7, "{pushes} pushes for {count} of {}", guilty.len());
        }
    }

    #[test]
    fn halves_come_front_first() {
        let mut isolation = Isolation::of(5);
        assert_eq!(isolation.front(), Some(3));
        assert!(isolation.split());
        assert_eq!(isolation.front(), Some(2));
        assert!(!isolation.settled());
        assert_eq!(isolation.front(), Some(1));
        assert!(!isolation.split());
        assert!(!isolation.settled());
        assert_eq!(isolation.front(), Some(2));
        assert!(isolation.settled());
        assert_eq!(isolation.front(), None);
    }
}
