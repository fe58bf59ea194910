//! PURE. Finds parts in any bytes, whatever has become of what lies around them: by their marks, heads and checksums (see
//! `log::frame`). Records, and everything that the store holds, lie in parts.

use super::super::log::frame::{PART_MARK, Part, PartHead};

/// What stands behind a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Carved<'a> {
    /// A sound part, and its size.
    Part(Part<'a>, usize),
    /// What begins like a part, and is none any more.
    Damaged,
}

/// Gives every part in `bytes` to `each`, with its offset. What lies inside a sound part is not looked at: only a part can
/// make a part.
pub(super) fn carve<'a>(bytes: &'a [u8], mut each: impl FnMut(usize, Carved<'a>)) {
    let [first, ..] = PART_MARK;
    let mut at = 0;
    while let Some(rest) = bytes.get(at..) {
        let Some(skip) = rest.iter().position(|byte| *byte == first) else { return };
        at += skip;
        let rest = bytes.get(at..).unwrap_or_default();
        let likely = PartHead::decode(rest).ok().filter(|head| head.is_likely());
        let Some(head) = likely else {
            at += 1;
            continue;
        };
        if let Ok(part) = head.part(rest) {
            each(at, Carved::Part(part, head.size()));
            at += head.size();
        } else {
            each(at, Carved::Damaged);
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::super::entry::{LaneId, Seq};
    use super::super::super::log::frame::Tree;
    use super::*;

    fn parts(bytes: &[u8]) -> Vec<(usize, Vec<u8>)> {
        let mut found = Vec::new();
        carve(bytes, |at, carved| {
            if let Carved::Part(part, size) = carved {
                assert_eq!(part.encode().len(), size);
                found.push((at, part.encode()));
            }
        });
        found
    }

    fn part() -> impl Strategy<Value = Vec<u8>> {
        let value = || proptest::collection::vec(any::<u8>(), 0..200);
        prop_oneof![
            (any::<u32>(), any::<u64>(), value()).prop_map(|(lane, first, value)| {
                Part::Chunk { lane: LaneId(lane), first: Seq(first), value: &value }.encode()
            }),
            (value(), value()).prop_map(|(key, value)| Part::Put {
                tree: Tree::Lanes,
                key: &key,
                value: &value
            }
            .encode()),
            value().prop_map(|key| Part::Piece { key: &key, value: b"x" }.encode()),
        ]
    }

    proptest! {
        /// Parts between noise are all found, at their places.
        #[test]
        fn what_was_written_is_found(noise in proptest::collection::vec((proptest::collection::vec(0_u8..0xB0, 0..60), part()), 0..8)) {
            let (mut bytes, mut expected) = (Vec::new(), Vec::new());
            for (noise, part) in noise {
                bytes.extend(noise);
                expected.push((bytes.len(), part.clone()));
                bytes.extend(part);
            }
            prop_assert_eq!(parts(&bytes), expected);
        }

        #[test]
        fn any_bytes_are_looked_through(bytes in proptest::collection::vec(prop_oneof![Just(0xB0), Just(0x5A), any::<u8>()], 0..400)) {
            parts(&bytes);
        }

        /// A flipped bit costs the part that it lies in, and no other.
        #[test]
        fn a_flipped_bit_costs_one_part(all in proptest::collection::vec(part(), 1..6), at: prop::sample::Index, bit in 0_u8..8) {
            let mut bytes = all.concat();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let found = parts(&bytes).len();
            prop_assert!(found + 1 >= all.len());
        }
    }
}
