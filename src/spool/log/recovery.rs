//! PURE. What a segment's bytes hold, frame by frame, and whether what is missing may be missing.

use super::frame::{
    FRAME_HEAD_BYTES, FRAME_MARK, FrameHead, Part, SEGMENT_HEAD_BYTES, SegmentHead,
};

/// A valid frame where it lies.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    /// Its head.
    pub(crate) head: FrameHead,
    /// Where its parts begin, in bytes from the segment's beginning.
    pub(crate) parts_at: u64,
    /// Its parts, in order.
    pub(crate) parts: Vec<Part<'a>>,
}

/// How a segment ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Its frames end here; what follows was never durable.
    End(u64),
    /// A frame that must be there is damaged or missing: at this offset, for this reason.
    Damaged(u64, String),
}

/// The frames of a segment, which begins with `head` and whose first frame must be number `next`. With `None` the first
/// frame that is found sets the number.
pub(crate) fn frames(
    bytes: &[u8],
    head: SegmentHead,
    mut next: Option<u64>,
) -> (Vec<Found<'_>>, Tail) {
    let mut found = Vec::new();
    let mut at = SEGMENT_HEAD_BYTES;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        match frame(rest, head.salt, next) {
            Ok((frame, parts)) => {
                next = Some(frame.number + 1);
                let parts_at = (at + FRAME_HEAD_BYTES) as u64;
                found.push(Found { head: frame, parts_at, parts });
                at += usize::try_from(frame.size()).unwrap_or(usize::MAX);
            }
            Err(why) => {
                let missing = next.unwrap_or(1);
                let tail = match later(rest, head.salt, missing) {
                    Some(later) => Tail::Damaged(
                        at as u64,
                        format!(
                            "frame {missing} {why}, and frame {later} was written when it was durable"
                        ),
                    ),
                    None => Tail::End(at as u64),
                };
                return (found, tail);
            }
        }
    }
}

fn frame(bytes: &[u8], salt: u64, next: Option<u64>) -> Result<(FrameHead, Vec<Part<'_>>), String> {
    let head = FrameHead::decode(bytes).map_err(|error| error.to_string())?;
    if head.salt != salt || next.is_some_and(|next| next != head.number) {
        return Err("has another's head in its place".to_owned());
    }
    let parts = head.parts(bytes.get(FRAME_HEAD_BYTES..).unwrap_or_default());
    Ok((head, parts.map_err(|error| error.to_string())?))
}

/// The first valid frame in `bytes` that was written when frame `missing` was durable.
fn later(bytes: &[u8], salt: u64, missing: u64) -> Option<u64> {
    marks(without_zeros(bytes)).find_map(|at| {
        let (head, _) = frame(bytes.get(at..)?, salt, None).ok()?;
        (head.durable >= missing).then_some(head.number)
    })
}

/// `bytes` up to the last block that is not zeros: most of a segment is, at first.
fn without_zeros(mut bytes: &[u8]) -> &[u8] {
    const ZEROS: [u8; 4096] = [0; 4096];
    while let Some(rest) = bytes.strip_suffix(&ZEROS) {
        bytes = rest;
    }
    bytes
}

/// Where the mark of a frame stands in `bytes`.
fn marks(bytes: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let [first, ..] = FRAME_MARK;
    bytes
        .iter()
        .enumerate()
        .filter(move |(_, byte)| **byte == first)
        .map(|(at, _)| at)
        .filter(|at| bytes.get(*at..).is_some_and(|rest| rest.starts_with(&FRAME_MARK)))
}

#[cfg(test)]
mod tests {
    use super::super::frame::{FrameBuilder, Tree};
    use super::*;

    const HEAD: SegmentHead = SegmentHead { number: 1, salt: 99 };

    /// A segment with frames 1 to 4, each durable before the next; and where each begins.
    fn segment() -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut begins) = (HEAD.encode().to_vec(), Vec::new());
        let mut builder = FrameBuilder::default();
        for number in 1..=4 {
            begins.push(bytes.len());
            builder.clear();
            builder.put(Tree::Lanes, b"key", &[7; 50]);
            bytes.extend_from_slice(builder.finish(number, number - 1, HEAD.salt));
        }
        bytes.resize(bytes.len() + 300, 0);
        (bytes, begins)
    }

    fn read(bytes: &[u8]) -> (usize, Tail) {
        let (frames, tail) = frames(bytes, HEAD, Some(1));
        (frames.len(), tail)
    }

    #[test]
    fn all_frames_are_found_up_to_the_zeros() {
        let (bytes, _) = segment();
        assert_eq!(read(&bytes), (4, Tail::End(bytes.len() as u64 - 300)));
        assert_eq!(read(&bytes[..SEGMENT_HEAD_BYTES]), (0, Tail::End(SEGMENT_HEAD_BYTES as u64)));
    }

    #[test]
    fn a_torn_last_frame_was_never_durable() {
        let (mut bytes, begins) = segment();
        bytes[begins[3] + 60] ^= 1;
        assert_eq!(read(&bytes), (3, Tail::End(begins[3] as u64)));
    }

    #[test]
    fn a_damaged_frame_before_a_durable_one_is_damage() {
        for at in [0, 8, 20, 30, 60, 99] {
            let (mut bytes, begins) = segment();
            bytes[begins[1] + at] ^= 1;
            let (found, tail) = read(&bytes);
            assert_eq!(found, 1);
            assert!(
                matches!(&tail, Tail::Damaged(offset, what) if *offset == begins[1] as u64 && what.contains("frame 2")),
                "{tail:?}"
            );
        }
    }
}
