//! What the simulator remembers: the pushes it saw, the records it accepted, its counters and faults.
//!
//! - A push is judged and remembered in one step, before its answer is written: whoever has the answer
//!   finds the push here.
//! - What is kept is bounded, oldest out first; the counters go on.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hyper::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use tokio::sync::{broadcast, watch};

use super::checks::{self, Refusal, Report};
use super::faults::{Effect, Fault, Faults, Injection};
use crate::clock::{self, UnixMillis};

/// The most bytes of accepted records that are kept, whatever `Options::keep_records_max` is.
const KEEP_BYTES_MAX: usize = 256 << 20;

/// Ometria's ledger holds the last 100 (OMETRIA.md).
pub(super) const LEDGER_ENTRIES_MAX: usize = 100;

/// How many pushes a slow subscriber may fall behind before it loses the oldest.
const SUBSCRIBER_PUSHES_MAX: usize = 1_024;

/// One push, as it arrived and as it was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PushSeen {
    /// Counts the pushes in their order of arrival, from 1.
    pub number: u64,
    /// When it was judged, in Unix milliseconds.
    #[serde(serialize_with = "as_millis")]
    pub at: UnixMillis,
    /// The status of the answer; `None`: the fault gives none.
    pub status: Option<u16>,
    /// The text of the faults that hit it, joined by `; `.
    pub fault: Option<String>,
    /// What the checks have against it, whatever was answered.
    pub refusal: Option<String>,
    /// The `@type` of its first record; empty when it has none.
    pub record_type: String,
    /// The ids of its first 100 records, in order; empty text where a record has none.
    pub record_ids: Vec<String>,
    /// How many records its array holds.
    pub records: usize,
    /// How many of them were accepted: all or none.
    pub accepted: usize,
    /// Size of its body.
    pub bytes: usize,
}

/// One accepted record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordSeen {
    /// Counts the accepted records in their order of arrival, from 1; repetitions count again.
    pub seq: u64,
    /// The record's `id`.
    pub id: String,
    /// The record's `@type`.
    pub record_type: String,
    /// The record's `event_type`, if it has one.
    pub event_type: Option<String>,
    /// The number of the push that brought it.
    pub push: u64,
    /// The record byte for byte as received.
    pub body: Bytes,
}

/// Totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Every `POST` to the push route whose body arrived.
    pub pushes: u64,
    /// Those whose records were accepted, also when the fault kept the 202 back.
    pub pushes_accepted: u64,
    /// Those that the checks (or the key) turned down and no fault took over.
    pub pushes_refused: u64,
    /// Those that a fault hit, if only with a delay.
    pub pushes_faulted: u64,
    /// Records accepted, repetitions included.
    pub records_accepted: u64,
    /// Bytes of all push bodies.
    pub bytes: u64,
    /// Connections taken.
    pub connections: u64,
}

/// A fault in force and how often it was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FaultActive {
    /// The fault's text form.
    pub fault: String,
    /// Pushes that its text allows (all, without a text).
    pub seen: u64,
    /// Pushes it was applied to.
    pub hits: u64,
}

/// Looks into a simulator and changes its faults, while it runs and afterwards. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    pub(super) fn new(api_key: Option<SecretString>, keep_records_max: usize) -> Handle {
        let shared = Shared {
            api_key,
            keep_records_max,
            kept: Mutex::new(Kept::default()),
            counters: watch::Sender::new(Counters::default()),
            arrivals: broadcast::Sender::new(SUBSCRIBER_PUSHES_MAX),
        };
        Handle { shared: Arc::new(shared) }
    }

    /// The pushes kept, in order of arrival.
    #[must_use]
    pub fn pushes(&self) -> Vec<PushSeen> {
        self.kept().pushes.iter().cloned().collect()
    }

    /// The accepted records kept, in order of arrival.
    #[must_use]
    pub fn records(&self) -> Vec<RecordSeen> {
        self.kept().records.iter().cloned().collect()
    }

    /// The totals, which no limit and no clearing touches.
    #[must_use]
    pub fn counters(&self) -> Counters {
        *self.shared.counters.borrow()
    }

    /// Waits until the totals are as `wanted` says; at once if they are already.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    #[expect(clippy::missing_panics_doc, reason = "the sender lives as long as `self`")]
    pub async fn wait_until(&self, wanted: impl FnMut(&Counters) -> bool) -> Counters {
        let mut counters = self.shared.counters.subscribe();
        let seen = counters.wait_for(wanted).await.expect("the sender lives in self");
        *seen
    }

    /// Every push from now on, as it is judged; one that reads too slowly loses the oldest.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<PushSeen> {
        self.shared.arrivals.subscribe()
    }

    /// Adds a fault behind those in force, from the next push on.
    pub fn add_fault(&self, fault: Fault) {
        self.kept().faults.add(fault);
    }

    /// Ends all faults; pushes that already hang or wait go on doing so.
    pub fn clear_faults(&self) {
        self.kept().faults.clear();
    }

    /// The faults in force; one whose count is used up is gone.
    #[must_use]
    pub fn faults(&self) -> Vec<FaultActive> {
        let show = |active: &super::faults::Active| FaultActive {
            fault: active.fault.to_string(),
            seen: active.seen,
            hits: active.hits,
        };
        self.kept().faults.active().iter().map(show).collect()
    }

    /// Adds an entry to the ledger, of whatever shape.
    pub fn add_to_ledger(&self, entry: serde_json::Value) {
        self.kept().ledger.push_back(entry);
    }

    /// What was rejected after its 202: the newest 100.
    #[must_use]
    pub fn ledger(&self) -> Vec<serde_json::Value> {
        let kept = self.kept();
        let over = kept.ledger.len().saturating_sub(LEDGER_ENTRIES_MAX);
        kept.ledger.iter().skip(over).cloned().collect()
    }

    /// Forgets the records kept and says how many they were; the pushes and the totals stay.
    #[expect(clippy::must_use_candidate, reason = "the number is by the way")]
    pub fn clear_records(&self) -> usize {
        let mut kept = self.kept();
        kept.records_bytes = 0;
        std::mem::take(&mut kept.records).len()
    }

    pub(super) fn count_connection(&self) {
        self.shared.counters.send_modify(|counters| counters.connections += 1);
    }

    /// Whether the key opens the push route; any key that is not empty does when none is configured.
    pub(super) fn admits(&self, key: Option<&[u8]>) -> bool {
        match (&self.shared.api_key, key) {
            (_, None | Some([])) => false,
            (None, Some(_)) => true,
            (Some(expected), Some(key)) => expected.expose_secret().as_bytes() == key,
        }
    }

    /// Judges one push, remembers it and says how to answer.
    pub(super) fn receive(&self, request: &Request<'_>) -> Reply {
        let report = checks::check(request.body);
        let mut kept = self.kept();
        let content = request.admitted.then_some((&request.body[..], &report.records[..]));
        let injection = kept.faults.decide(content);
        let verdict = Verdict::new(request, &report, &injection);
        let mut counters = self.counters();
        counters.pushes += 1;
        counters.bytes += request.body.len() as u64;
        counters.pushes_faulted += u64::from(injection.faults.is_some());
        let seen = verdict.push_seen(counters.pushes, request, &report, &injection);
        let request_id = uuid::Uuid::now_v7().to_string();
        if verdict.accepts {
            counters.pushes_accepted += 1;
            kept.reject_later(&report, &injection, &request_id);
            kept.keep_records(&report, seen.number, &mut counters.records_accepted);
        } else if injection.effect.answers() && verdict.by_checks {
            counters.pushes_refused += 1;
        }
        kept.keep_push(seen.clone());
        kept.shrink(self.shared.keep_records_max);
        // Still under the lock, so that subscribers and waiters see the pushes in order. The send
        // fails only when nobody subscribes.
        let _ = self.shared.arrivals.send(seen);
        self.shared.counters.send_modify(|all| {
            *all = Counters { connections: all.connections, ..counters };
        });
        Reply { verdict, injection, request_id, accepted: report.records_total }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Shared {
    api_key: Option<SecretString>,
    keep_records_max: usize,
    kept: Mutex<Kept>,
    counters: watch::Sender<Counters>,
    arrivals: broadcast::Sender<PushSeen>,
}

#[derive(Debug, Default)]
struct Kept {
    faults: Faults,
    pushes: VecDeque<PushSeen>,
    /// Ids in `pushes`; a push without ids counts as one.
    pushes_ids: usize,
    records: VecDeque<RecordSeen>,
    records_bytes: usize,
    /// What was rejected after its 202.
    ledger: VecDeque<serde_json::Value>,
}

impl Kept {
    /// Writes what the fault rejects later into the ledger.
    fn reject_later(&mut self, report: &Report<'_>, injection: &Injection, request_id: &str) {
        for record in report.records.iter().filter(|record| injection.rejects_later(record)) {
            let body: serde_json::Value = serde_json::from_str(record.body).unwrap_or_default();
            self.ledger.push_back(serde_json::json!({
                "request_id": request_id,
                "record_type": record.record_type,
                "record_id": record.id,
                "record": body,
                "timestamp": clock::now().0,
                "message": {"error_message": "a fault of the simulator", "error_path": "id"},
            }));
        }
        let over = self.ledger.len().saturating_sub(LEDGER_ENTRIES_MAX);
        self.ledger.drain(..over);
    }

    fn keep_records(&mut self, report: &Report<'_>, push: u64, seq: &mut u64) {
        for record in &report.records {
            *seq += 1;
            self.records_bytes += record.body.len();
            self.records.push_back(RecordSeen {
                seq: *seq,
                id: record.id.clone(),
                record_type: record.record_type.clone(),
                event_type: record.event_type.clone(),
                push,
                // A copy: a slice would keep the whole push alive.
                body: Bytes::copy_from_slice(record.body.as_bytes()),
            });
        }
    }

    fn keep_push(&mut self, push: PushSeen) {
        self.pushes_ids += push.record_ids.len().max(1);
        self.pushes.push_back(push);
    }

    /// Drops the oldest of what is over the limits; the newest push always stays.
    fn shrink(&mut self, keep_records_max: usize) {
        while self.records.len() > keep_records_max || self.records_bytes > KEEP_BYTES_MAX {
            let Some(oldest) = self.records.pop_front() else { break };
            self.records_bytes -= oldest.body.len();
        }
        while self.pushes.len() > 1 && self.pushes_ids > keep_records_max {
            let Some(oldest) = self.pushes.pop_front() else { break };
            self.pushes_ids -= oldest.record_ids.len().max(1);
        }
    }
}

/// One push as the server read it.
#[derive(Debug)]
pub(super) struct Request<'a> {
    /// Whether the key is right.
    pub(super) admitted: bool,
    /// What the headers and the body's arrival say.
    pub(super) headers: Result<(), Refusal>,
    pub(super) body: &'a Bytes,
}

/// How to answer one push.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) verdict: Verdict,
    pub(super) injection: Injection,
    /// For the 202.
    pub(super) request_id: String,
    /// The number for the 202's `accepted`.
    pub(super) accepted: usize,
}

/// What the checks and the faults make of one push.
#[derive(Debug)]
pub(super) struct Verdict {
    /// Whether its records are accepted.
    pub(super) accepts: bool,
    /// The status of the answer, if one is given.
    pub(super) status: Option<StatusCode>,
    /// What the checks have against it.
    pub(super) refusal: Option<String>,
    /// Whether the status is the checks' own.
    pub(super) by_checks: bool,
}

impl Verdict {
    fn new(request: &Request<'_>, report: &Report<'_>, injection: &Injection) -> Verdict {
        let (checked, refusal) = match (&request.headers, &report.refusal) {
            _ if !request.admitted => (
                StatusCode::FORBIDDEN,
                Some("the key in X-Ometria-Auth is missing or invalid".to_owned()),
            ),
            (Err(refusal), _) | (Ok(()), Some(refusal)) => {
                (StatusCode::BAD_REQUEST, Some(refusal.message()))
            }
            (Ok(()), None) => (StatusCode::ACCEPTED, None),
        };
        let (status, by_checks, processed) = match injection.effect {
            Effect::Checked | Effect::RejectLater | Effect::Status(StatusCode::ACCEPTED) => {
                (Some(checked), true, true)
            }
            Effect::Status(status) => (Some(status), false, false),
            Effect::AcceptThenReset => (None, false, true),
            Effect::Hang | Effect::Reset | Effect::Garbage => (None, false, false),
        };
        Verdict { accepts: processed && refusal.is_none(), status, refusal, by_checks }
    }

    fn push_seen(
        &self,
        number: u64,
        request: &Request<'_>,
        report: &Report<'_>,
        injection: &Injection,
    ) -> PushSeen {
        PushSeen {
            number,
            at: clock::now(),
            status: self.status.map(|status| status.as_u16()),
            fault: injection.faults.clone(),
            refusal: self.refusal.clone(),
            record_type: report
                .records
                .first()
                .map_or_else(String::new, |record| record.record_type.clone()),
            record_ids: report.records.iter().map(|record| record.id.clone()).collect(),
            records: report.records_total,
            accepted: if self.accepts { report.records_total } else { 0 },
            bytes: request.body.len(),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for the reference")]
fn as_millis<S: serde::Serializer>(at: &UnixMillis, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(at.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(handle: &Handle, records: usize) {
        let record = r#"{"@type":"order","id":"1"}"#;
        let body = Bytes::from(format!("[{}]", vec![record; records].join(",")));
        handle.receive(&Request { admitted: true, headers: Ok(()), body: &body });
    }

    #[test]
    fn the_oldest_leave_at_the_limit_and_the_counters_go_on() {
        let handle = Handle::new(None, 5);
        for _ in 0..4 {
            push(&handle, 2);
        }
        let seqs: Vec<_> = handle.records().iter().map(|record| record.seq).collect();
        assert_eq!(seqs, [4, 5, 6, 7, 8]);
        let numbers: Vec<_> = handle.pushes().iter().map(|push| push.number).collect();
        assert_eq!(numbers, [3, 4]);
        push(&handle, 50);
        assert_eq!(handle.pushes().len(), 1);
        assert_eq!(handle.counters().records_accepted, 58);
        assert_eq!(handle.clear_records(), 5);
        push(&handle, 1);
        assert_eq!(handle.records()[0].seq, 59);
    }

    #[test]
    fn a_key_must_be_the_one_configured_or_any_but_empty() {
        let any = Handle::new(None, 0);
        let one = Handle::new(Some(SecretString::from("right")), 0);
        let table =
            [(None, false, false), (Some("right"), true, true), (Some("wrong"), true, false)];
        for (key, any_admits, one_admits) in table {
            let key = key.map(str::as_bytes);
            assert_eq!((any.admits(key), one.admits(key)), (any_admits, one_admits));
        }
        assert!(!any.admits(Some(b"")));
        assert!(!format!("{one:?}").contains("right"));
    }
}
