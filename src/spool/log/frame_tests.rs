//! Frames as bytes: what is built is read back, any damage is noticed.

use proptest::prelude::*;

use super::*;

fn frame(values: &[Vec<u8>]) -> Vec<u8> {
    let mut builder = FrameBuilder::default();
    builder.clear();
    for (index, value) in (0_u32..).zip(values) {
        match index % 3 {
            0 => builder.chunk(LaneId(index), Seq(7), |bytes| bytes.extend_from_slice(value)),
            1 => builder.put(Tree::Dedupe, b"key", value),
            _ => builder.remove(Tree::Identities, value),
        }
    }
    builder.finish(11, 10, 0x5A17).to_vec()
}

fn read(bytes: &[u8]) -> Result<Vec<Part<'_>>, FrameError> {
    let head = FrameHead::decode(bytes)?;
    if (head.number, head.salt) != (11, 0x5A17) {
        return Err(FrameError::Checksum);
    }
    head.parts(bytes.get(FRAME_HEAD_BYTES..).unwrap_or_default())
}

fn values() -> impl Strategy<Value = Vec<Vec<u8>>> {
    proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..9)
}

proptest! {
    #[test]
    fn what_is_built_is_read_back(values in values()) {
        let bytes = frame(&values);
        let parts = read(&bytes).unwrap();
        prop_assert_eq!(parts.len(), values.len());
        for (part, value) in parts.into_iter().zip(&values) {
            let same = match part {
                Part::Chunk { value: found, first: Seq(7), .. } | Part::Put { value: found, key: b"key", .. } => found == value,
                Part::Remove { key, tree: Tree::Identities } => key == value,
                _ => false,
            };
            prop_assert!(same);
        }
    }

    #[test]
    fn one_flipped_bit_or_a_cut_is_noticed(values in values(), at: prop::sample::Index, bit in 0_u8..8) {
        let mut bytes = frame(&values);
        let at = at.index(bytes.len());
        prop_assert!(read(&bytes[..at]).is_err());
        bytes[at] ^= 1 << bit;
        prop_assert!(read(&bytes).is_err());
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let marked = [&FRAME_MARK[..], &bytes].concat();
        prop_assert!(read(&marked).is_err());
        let marked = [&PART_MARK[..], &bytes].concat();
        prop_assert!(PartHead::decode(&marked).and_then(|head| head.part(&marked)).is_err());
        prop_assert!(SegmentHead::decode(&bytes).is_err());
    }
}

#[test]
fn a_frame_of_another_place_is_not_valid_here() {
    let mut builder = FrameBuilder::default();
    builder.clear();
    builder.put(Tree::Lanes, b"k", b"v");
    let first = builder.finish(1, 0, 2).to_vec();
    let second = builder.finish(2, 0, 2).to_vec();
    let mixed = [&second[..FRAME_HEAD_BYTES - 4], &first[FRAME_HEAD_BYTES - 4..]].concat();
    assert_eq!(
        FrameHead::decode(&mixed).unwrap().parts(&mixed[FRAME_HEAD_BYTES..]),
        Err(FrameError::Checksum)
    );
}

#[test]
fn a_segment_head_names_its_version() {
    let head = SegmentHead { number: 3, salt: 4 };
    let mut bytes = head.encode();
    assert_eq!(SegmentHead::decode(&bytes), Ok(head));
    bytes[7] = 9;
    assert_eq!(SegmentHead::decode(&bytes), Err(FrameError::Version(9)));
}
