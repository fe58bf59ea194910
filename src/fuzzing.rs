//! What must hold of every parser that reads foreign bytes, whatever they are: one function for each fuzz target of
//! `tests/fuzz`. In the unit tests they run over its seeds.
//!
//! A parser must not panic, and what it lets through must be what the next step relies on.

#![expect(
    clippy::missing_panics_doc,
    reason = "they panic where a promise is broken, and nowhere else"
)]

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::clock::UnixMillis;
use crate::config::{self, Source};
use crate::event::{self, DEPTH_MAX, Event, Kind, repair};
use crate::forward::verdict::{Attempt, Verdict, judge};
use crate::forward::way::Proxy;
use crate::forward::{Answer, ledger};
use crate::ingest;
use crate::mapping::{
    self, Identity, Outcome, Preset, RECORD_BYTES_MAX, Rules, consent, identity_change,
};
use crate::spool::chunk::Chunk;
use crate::spool::frame::{FRAME_HEAD_BYTES, FrameHead, PartHead, SegmentHead};
use crate::spool::{DETAIL_BYTES_MAX, Seq};

const NOW: UnixMillis = UnixMillis(1_780_759_972_000);
/// No answer may ask for a longer wait.
const WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(3600);

/// The body of one event: what maps, maps always to the same record, which is a JSON object that upstream can take.
pub fn event(bytes: &[u8]) {
    let Ok(body) = repair(bytes, DEPTH_MAX) else { return };
    for kind in [Kind::Track, Kind::Page, Kind::Identify] {
        if let Ok(event) = event::single(&body, kind, NOW) {
            becomes(&event);
        }
    }
}

/// The body of a batch: each of its events, and what would be kept of it in the quarantine, which must read as the same event.
pub fn batch(bytes: &[u8]) {
    let Ok(body) = repair(bytes, DEPTH_MAX) else { return };
    let Ok(mut batch) = event::batch(&body, NOW) else { return };
    let events = batch.len();
    let items = batch.take();
    assert_eq!(items.len(), events);
    for item in &items {
        assert!(body.contains(item.raw()), "an item is part of its batch");
        let Ok(event) = &item.event else { continue };
        becomes(event);
        let alone = format!("[{}]", item.body());
        let mut again = event::batch(&alone, NOW).expect("what is kept of an event is read again");
        let [again] = again.take().try_into().expect("it is one event");
        let again = again.event.expect("it is as valid as before");
        assert_eq!((&again.message_id, &again.user_id), (&event.message_id, &event.user_id));
        assert_eq!((again.time, &again.name, again.kind), (event.time, &event.name, event.kind));
    }
}

fn becomes(event: &Event<'_>) {
    for (key, traits) in identity_change(event) {
        assert!(key.stored().len() <= 512 && !members(&traits).is_empty());
    }
    let categories = ["marketing".to_owned()];
    let stated = consent::stated(&event.context, ["marketing"]);
    assert_eq!(stated == [("marketing", true)], consent::granted(&event.context, &categories));
    for preset in [Preset::Retail, Preset::Default] {
        let rules = Rules::new(preset, Vec::new());
        let map = || mapping::map(event, &Identity::default(), &rules, || "evt_1".to_owned());
        let outcome = map();
        assert_eq!(outcome, map(), "one event makes one record");
        let Outcome::Record(record) = outcome else { continue };
        assert!(record.bytes.len() <= RECORD_BYTES_MAX);
        let read = members(&record.bytes);
        let text = |key| read.get(key).and_then(|value| serde_json::from_str(value.get()).ok());
        let id = event.message_id.as_deref().unwrap_or("evt_1");
        assert_eq!(text("id").as_deref(), Some(id));
        assert_eq!(text("identity_email"), record.identity_email);
        assert!(read.get("properties").is_some_and(|value| value.get().starts_with('{')));
    }
}

/// The members of a record. Its values are not looked into: a number may be larger than any that Rust knows.
fn members(record: &[u8]) -> BTreeMap<String, &RawValue> {
    serde_json::from_slice(record).expect("a record is a JSON object")
}

/// The body of `POST /v2/push`: what is queued is a part of it, byte for byte.
pub fn push(bytes: &[u8]) {
    let Ok(push) = ingest::push::read(bytes) else { return };
    assert!((1..=100).contains(&push.records.len()));
    for record in &push.records {
        assert!(record.bytes.len() <= RECORD_BYTES_MAX);
        assert!(bytes.windows(record.bytes.len()).any(|window| window == record.bytes));
        let read = members(&record.bytes);
        let record_type: Option<String> =
            read.get("@type").and_then(|value| serde_json::from_str(value.get()).ok());
        assert_eq!(record_type.as_ref(), Some(&push.record_type));
    }
}

/// What lies on the disk: chunks, and segments, frames and parts of the log.
pub fn disk(bytes: &[u8]) {
    if let Ok(chunk) = Chunk::decode(bytes) {
        let mut again = Vec::new();
        chunk.encode(&mut again);
        assert_eq!(again, bytes, "a chunk has one form");
        let buffer = Bytes::copy_from_slice(bytes);
        let chunk = Chunk::decode(&buffer).expect("it did before");
        assert_eq!(chunk.entries(Seq(1), Seq(1), &buffer).len(), chunk.len());
    }
    if let Ok(head) = SegmentHead::decode(bytes) {
        assert_eq!(bytes.get(..head.encode().len()), Some(&head.encode()[..]));
    }
    if let Ok(part) = PartHead::decode(bytes).and_then(|head| head.part(bytes)) {
        let encoded = part.encode();
        assert_eq!(bytes.get(..encoded.len()), Some(&encoded[..]));
    }
    let Ok(head) = FrameHead::decode(bytes) else { return };
    let parts = bytes.get(FRAME_HEAD_BYTES..).unwrap_or_default();
    let size: usize = head.parts(parts).iter().flatten().map(|part| part.encode().len()).sum();
    assert!(size == 0 || (size + FRAME_HEAD_BYTES) as u64 == head.size());
}

/// An answer to a push: the status, `Retry-After` up to the first line break, then the body, which may be a ledger as well.
pub fn answer(bytes: &[u8]) {
    let Some(([s0, s1], rest)) = bytes.split_first_chunk() else { return };
    let at = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let (retry_after, body) = rest.split_at(at);
    let answer = Answer {
        status: u16::from_be_bytes([*s0, *s1]),
        retry_after: std::str::from_utf8(retry_after).ok().map(str::to_owned),
        queue_remaining: None,
        body: body.to_vec(),
    };
    assert!(answer.text().len() <= DETAIL_BYTES_MAX);
    let attempt = Attempt {
        number: 1,
        records: 3,
        apart: Vec::new(),
        bytes: 0,
        sent_at: NOW,
        answered_at: NOW,
        outcome: Ok(answer),
    };
    match judge(&attempt) {
        Verdict::Accepted(acceptance) => {
            assert_eq!(attempt.status(), Some(202), "Promise 5");
            assert!(acceptance.rejected <= 3);
        }
        Verdict::Deferred { after, .. } => assert!(after.is_none_or(|after| after <= WAIT_MAX)),
        Verdict::Rejected { .. } | Verdict::Held(_) => {}
    }
    for rejection in ledger::read(body).unwrap_or_default() {
        assert!(body.windows(rejection.text.len()).any(|part| part == rejection.text.as_bytes()));
    }
}

/// A configuration, with an override in its first line: what is accepted is accepted again in the form that `check --effective`
/// prints, without the keys.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (set, text) = text.split_once('\n').unwrap_or(("", text));
    drop(Proxy::parse(set));
    // No file is opened: what it holds is not the text's doing.
    if text.contains("_file") || text.contains("credential") {
        return;
    }
    let set: Vec<String> =
        [set].into_iter().filter(|set| set.contains('=')).map(str::to_owned).collect();
    let source = Source { set, ..Source::default() };
    match config::parse(Path::new("p.toml"), text, &source) {
        Ok(config) => {
            let effective = config.effective();
            let again = config::parse(Path::new("p.toml"), &effective, &Source::default());
            let again = again.unwrap_or_else(|faults| panic!("{faults}\n{effective}"));
            assert_eq!(again.effective(), effective);
        }
        Err(faults) => assert!(!faults.0.is_empty() && !faults.to_string().is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every seed passes, and most of them get past the first check of their parser.
    #[test]
    fn the_seeds_pass() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds");
        for (name, target) in [
            ("event", event as fn(&[u8])),
            ("batch", batch),
            ("push", push),
            ("disk", disk),
            ("answer", answer),
            ("config", config),
        ] {
            let mut seeds = 0;
            for entry in std::fs::read_dir(folder.join(name)).unwrap() {
                let seed = std::fs::read(entry.unwrap().path()).unwrap();
                // Cut short anywhere, as a connection may be, and as it is.
                (0..=seed.len()).for_each(|end| target(&seed[..end]));
                seeds += 1;
            }
            assert!(seeds > 0, "{name} has no seed");
        }
    }
}
