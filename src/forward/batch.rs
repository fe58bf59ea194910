//! PURE. Cuts the next push from the front of a lane.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::spool::{ENTRY_BYTES_MAX, End, Entry, Seq};

/// Records that Ometria takes in a push (OMETRIA.md).
pub const RECORDS_MAX: usize = 100;
/// What the records of a push take at most, with the events that are kept beside them: what is peeked for it.
pub const BYTES_MAX: usize = RECORDS_MAX * ENTRY_BYTES_MAX;

/// How many of `entries` go into the next push, and whether waiting could add to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Records from the front, of one type.
    pub records: usize,
    /// Nothing that arrives later could join: it has `records_max`, or the type changes behind it.
    pub complete: bool,
}

/// Cuts the longest run of one record type from the front of `entries`, at most `records_max`.
#[must_use]
pub fn cut(entries: &[Entry], records_max: usize) -> Cut {
    let Some(first) = entries.first() else { return Cut { records: 0, complete: false } };
    let same = entries.iter().take_while(|entry| entry.record_type == first.record_type).count();
    let records = same.min(records_max);
    Cut { records, complete: records == records_max || same < entries.len() }
}

/// Those of `entries` that are sent: all but the ones that end `apart`, which ascend.
pub fn sent<'e>(
    entries: &'e [Entry],
    apart: &'e [(Seq, End)],
) -> impl Iterator<Item = &'e Entry> + Clone {
    let is_sent = |entry: &&Entry| apart.binary_search_by_key(&entry.seq, |it| it.0).is_err();
    entries.iter().filter(is_sent)
}

/// The body of a push: `[` + records joined by `,` + `]`.
#[must_use]
pub fn body<'e>(entries: impl Iterator<Item = &'e Entry> + Clone) -> Bytes {
    let bytes: usize = entries.clone().map(|entry| entry.record.len() + 1).sum();
    let mut body = BytesMut::with_capacity(bytes + 1);
    let mut separator = b'[';
    for entry in entries {
        body.put_u8(separator);
        body.put_slice(&entry.record);
        separator = b',';
    }
    body.put_slice(if separator == b'[' { b"[]" } else { b"]" });
    body.freeze()
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::clock::UnixMillis;
    use crate::spool::{PersonKeys, Seq};

    pub(in crate::forward) fn entries(types: &[&str]) -> Vec<Entry> {
        let entry = |(seq, record_type): (u64, &&str)| Entry {
            seq: Seq(seq),
            record_type: Arc::from(*record_type),
            record: Bytes::from(format!(r#"{{"id":"{seq}"}}"#)),
            person: PersonKeys::default(),
            first_seen: None,
            event: None,
            committed_at: UnixMillis(0),
        };
        (1..).zip(types).map(entry).collect()
    }

    #[test]
    fn a_push_closes_at_its_size_or_at_a_change_of_type() {
        for (types, max, records, complete) in [
            (&[][..], 100, 0, false),
            (&["a"], 100, 1, false),
            (&["a", "a"], 2, 2, true),
            (&["a", "a", "a"], 2, 2, true),
            (&["a", "b"], 100, 1, true),
            (&["a", "a", "b", "a"], 3, 2, true),
        ] {
            assert_eq!(cut(&entries(types), max), Cut { records, complete }, "{types:?}");
        }
    }

    proptest! {
        #[test]
        fn pushes_are_the_lane_in_order(types in proptest::collection::vec(prop_oneof![Just("a"), Just("b")], 0..300), max in 1_usize..=100) {
            let all = entries(&types);
            let (mut rest, mut sent) = (&all[..], Vec::new());
            while !rest.is_empty() {
                let records = cut(rest, max).records;
                prop_assert!((1..=max).contains(&records));
                let push = &rest[..records];
                prop_assert!(push.iter().all(|entry| entry.record_type == push[0].record_type));
                let read: Vec<serde_json::Value> = serde_json::from_slice(&body(push.iter())).unwrap();
                sent.extend(read.into_iter().map(|record| record["id"].as_str().unwrap().parse::<u64>().unwrap()));
                rest = &rest[records..];
            }
            prop_assert!(sent.into_iter().eq(1..=all.len() as u64));
        }
    }
}
