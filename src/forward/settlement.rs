//! PURE. What is kept of a push that settles records: its delivery for the event debugger, its copies for the
//! quarantine.

use std::collections::HashSet;

use serde::Deserialize;

use super::verdict::{Acceptance, Attempt, record_id};
use crate::clock::UnixMillis;
use crate::spool::{Delivery, End, Entry, LaneId, Origin, Quarantined, Seq, Settlement};

/// Where the records of a push come from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// Their lane.
    pub lane: LaneId,
    /// The name of their integration.
    pub integration: &'a str,
}

/// Settles `entries`, all the records of `attempt`, with one common `end`. `None` when there are none.
#[must_use]
pub fn settlement(
    source: Source<'_>,
    entries: &[Entry],
    attempt: &Attempt,
    end: End,
    copies: Vec<Quarantined>,
) -> Option<Settlement> {
    let first = entries.first()?.seq;
    let records = entries.len() as u64;
    let delivery = Delivery {
        first,
        records,
        end,
        apart: attempt.apart.clone(),
        status: attempt.status().unwrap_or_default(),
        attempt: attempt.number,
        sent_at: attempt.sent_at,
        answered_at: attempt.answered_at,
        answer: attempt.text(),
    };
    Some(settled(source, entries, delivery, copies))
}

/// Settles `entries` at `now` without a push, each with its end in `apart`. `None` when there are none.
#[must_use]
pub fn unsent(
    source: Source<'_>,
    entries: &[Entry],
    apart: Vec<(Seq, End)>,
    now: UnixMillis,
) -> Option<Settlement> {
    let delivery = Delivery {
        first: entries.first()?.seq,
        records: entries.len() as u64,
        end: End::Withheld,
        apart,
        status: 0,
        attempt: 0,
        sent_at: now,
        answered_at: now,
        answer: String::new(),
    };
    Some(settled(source, entries, delivery, Vec::new()))
}

fn settled(
    source: Source<'_>,
    entries: &[Entry],
    delivery: Delivery,
    copies: Vec<Quarantined>,
) -> Settlement {
    let bytes = entries.iter().map(|entry| entry.bytes() as u64).sum();
    let Delivery { first, records, end, ref apart, .. } = delivery;
    let (lane, apart) = (source.lane, apart.clone());
    let delivery = Some(delivery);
    Settlement { lane, first, records, bytes, end, apart, copies, delivery }
}

/// The copy of one record for the quarantine. One that came back from there keeps the time when it was first set aside.
#[must_use]
pub fn copy(source: Source<'_>, entry: &Entry, reason: &str, attempt: &Attempt) -> Quarantined {
    Quarantined {
        origin: Origin::Record {
            lane: source.lane,
            integration: source.integration.to_owned(),
            seq: entry.seq,
            record_type: entry.record_type.to_string(),
            person: entry.person,
        },
        reason: reason.to_owned(),
        detail: attempt.text(),
        status: attempt.status(),
        at: attempt.answered_at,
        body: entry.record.to_vec(),
        first_at: entry.first_seen.unwrap_or(attempt.answered_at),
    }
}

/// The entries that a 202 names as rejected. Their records are read for their ids only in this rare case.
pub fn named<'a>(entries: &'a [Entry], acceptance: &Acceptance) -> Vec<&'a Entry> {
    let ids: HashSet<&str> = acceptance.rejected_ids.iter().map(String::as_str).collect();
    if ids.is_empty() {
        return Vec::new();
    }
    let is_named = |entry: &&Entry| id_of(entry).is_some_and(|id| ids.contains(id.as_str()));
    entries.iter().filter(is_named).collect()
}

/// The id of a record, as far as it can be read.
pub(super) fn id_of(entry: &Entry) -> Option<String> {
    #[derive(Deserialize)]
    struct Record {
        id: serde_json::Value,
    }
    let record: Record = serde_json::from_slice(&entry.record).ok()?;
    record_id(&record.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::batch::tests::entries;
    use crate::forward::push::Answer;

    const SOURCE: Source<'_> = Source { lane: LaneId(7), integration: "uk" };

    fn attempt(status: u16, body: &str) -> Attempt {
        let body = body.as_bytes().to_vec();
        Attempt {
            number: 3,
            records: 2,
            bytes: 22,
            sent_at: UnixMillis(1000),
            answered_at: UnixMillis(2000),
            apart: vec![(Seq(2), End::Withheld)],
            outcome: Ok(Answer { status, retry_after: None, queue_remaining: None, body }),
        }
    }

    #[test]
    fn a_settlement_tells_its_push() {
        let (entries, attempt) = (entries(&["a", "a"]), attempt(202, "{}"));
        let settled = settlement(SOURCE, &entries, &attempt, End::Delivered, Vec::new()).unwrap();
        assert_eq!((settled.lane, settled.first, settled.records), (LaneId(7), Seq(1), 2));
        assert_eq!((settled.bytes, settled.apart), (20, vec![(Seq(2), End::Withheld)]));
        let delivery = settled.delivery.unwrap();
        assert_eq!((delivery.status, delivery.attempt, delivery.answer.as_str()), (202, 3, "{}"));
        assert_eq!((delivery.sent_at, delivery.answered_at), (UnixMillis(1000), UnixMillis(2000)));
        assert!(settlement(SOURCE, &[], &attempt, End::Delivered, Vec::new()).is_none());
    }

    #[test]
    fn what_is_kept_beside_a_record_is_settled_with_it_and_copied_nowhere() {
        let (mut entries, attempt) = (entries(&["a", "a"]), attempt(400, "{}"));
        entries[1].event = Some("the event".into());
        let settled = settlement(SOURCE, &entries, &attempt, End::Delivered, Vec::new()).unwrap();
        assert_eq!(settled.bytes, 20 + 9);
        assert_eq!(copy(SOURCE, &entries[1], "rejected", &attempt).body, entries[1].record);
    }

    #[test]
    fn a_copy_holds_the_record_and_the_answer_byte_for_byte() {
        let entries = entries(&["order"]);
        let long = "é".repeat(4000);
        let copy = copy(SOURCE, &entries[0], "too_large", &attempt(413, &long));
        assert_eq!((copy.reason.as_str(), copy.status), ("too_large", Some(413)));
        assert_eq!(copy.body, entries[0].record);
        assert_eq!(copy.detail.len(), crate::spool::DETAIL_BYTES_MAX);
        let Origin::Record { seq, record_type, .. } = copy.origin else { panic!("{copy:?}") };
        assert_eq!((seq, record_type.as_str()), (Seq(1), "order"));
    }

    #[test]
    fn the_named_records_are_found_by_their_ids() {
        let mut entries = entries(&["a", "a", "a", "a"]);
        entries[2].record = r#"{"id":3}"#.into();
        entries[3].record = "no JSON".into();
        for (ids, seqs) in [(&[][..], &[][..]), (&["2"], &[2]), (&["3", "1", "1", "x"], &[1, 3])] {
            let rejected_ids = ids.iter().map(|id| (*id).to_owned()).collect();
            let found = named(&entries, &Acceptance { rejected: 1, rejected_ids });
            assert!(found.iter().map(|entry| entry.seq.0).eq(seqs.iter().copied()), "{ids:?}");
        }
    }
}
