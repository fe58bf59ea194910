//! PURE. What the answer to a push means for its records: the table of DESIGN.md section 6.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;

use super::failure::PushError;
use super::push::Answer;
use crate::advice;
use crate::clock::UnixMillis;
use crate::spool::{End, Seq};

/// The longest wait that an upstream may ask for.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// One push that was made, and what came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Which attempt at these records, from 1.
    pub number: u32,
    /// Records that it settles, from the front of the lane.
    pub records: usize,
    /// Of these, the ones that were not sent, with their ends; ascending.
    pub apart: Vec<(Seq, End)>,
    /// Bytes of its body.
    pub bytes: usize,
    /// When it began.
    pub sent_at: UnixMillis,
    /// When its outcome was known.
    pub answered_at: UnixMillis,
    /// The answer, or why there was none.
    pub outcome: Result<Answer, PushError>,
}

impl Attempt {
    /// The status of the answer; `None` when there was none.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.outcome.as_ref().ok().map(|answer| answer.status)
    }

    /// The answer's body as it is kept; empty when there was no answer.
    #[must_use]
    pub fn text(&self) -> String {
        self.outcome.as_ref().map(Answer::text).unwrap_or_default()
    }
}

/// What an attempt means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// 202: the records are upstream's now.
    Accepted(Acceptance),
    /// Nothing wrong that would not pass: the same push again, later.
    Deferred {
        /// What upstream asked to wait.
        after: Option<Duration>,
        /// Whether it said that we are too fast.
        slow_down: bool,
    },
    /// A record in it is at fault: split, or quarantine the one that stands alone.
    Rejected {
        /// As the quarantine names it.
        reason: &'static str,
    },
    /// Nothing wrong with the records: the key or the endpoint is.
    Held(Hold),
}

/// Why a lane is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Upstream refuses the key.
    Unauthorized,
    /// Upstream knows no such endpoint.
    Endpoint,
    /// `storm_limit` records were quarantined in a row.
    Storm,
}

/// What the body of a 202 says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acceptance {
    /// Records that upstream rejected all the same; never more than the push held.
    pub rejected: u64,
    /// Ids of these, where it names them.
    pub rejected_ids: Vec<String>,
}

/// Judges one attempt.
#[must_use]
pub fn judge(attempt: &Attempt) -> Verdict {
    let Ok(answer) = &attempt.outcome else {
        return Verdict::Deferred { after: None, slow_down: false };
    };
    let asked = answer.retry_after.as_deref();
    let after = asked.and_then(|text| retry_after(text, attempt.answered_at));
    match answer.status {
        // Promise 5: nothing else acknowledges.
        202 => Verdict::Accepted(acceptance(&answer.body, attempt.records)),
        400 | 422 => Verdict::Rejected { reason: "rejected" },
        413 => Verdict::Rejected { reason: "too_large" },
        401 | 403 => Verdict::Held(Hold::Unauthorized),
        429 => Verdict::Deferred { after, slow_down: true },
        408 | 425 => Verdict::Deferred { after, slow_down: false },
        400..=499 => Verdict::Held(Hold::Endpoint),
        _ => Verdict::Deferred { after, slow_down: false },
    }
}

/// What to tell the operator about an attempt that was not accepted: what it means and what to do (see [`advice`]).
#[must_use]
pub fn cause(attempt: &Attempt) -> String {
    match &attempt.outcome {
        Ok(answer) => advice::answer(answer.status),
        Err(error) => error.to_string(),
    }
}

/// `Retry-After` in seconds or as a date (RFC 9110, section 10.2.3); what is neither is ignored.
fn retry_after(text: &str, now: UnixMillis) -> Option<Duration> {
    let text = text.trim();
    let asked = if let Ok(seconds) = text.parse::<u64>() {
        Duration::from_secs(seconds)
    } else {
        let at = httpdate::parse_http_date(text).ok()?;
        at.duration_since(UNIX_EPOCH + Duration::from_millis(now.0)).unwrap_or_default()
    };
    Some(asked.min(RETRY_AFTER_MAX))
}

/// Reads the body of a 202 as far as it can be: whatever it says, the records are upstream's. What it says is not
/// trusted: no more is counted than the push held.
fn acceptance(body: &[u8], records: usize) -> Acceptance {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let items = body.get("rejected_items").and_then(Value::as_array);
    let items = items.map(Vec::as_slice).unwrap_or_default();
    let said = body.get("rejected").and_then(Value::as_u64).unwrap_or_default();
    Acceptance {
        rejected: said.max(items.len() as u64).min(records as u64),
        rejected_ids: items.iter().filter_map(rejected_id).collect(),
    }
}

/// The id in an entry of `rejected_items`. Its shape is not documented: an id, or an object that holds one (seen at
/// `GET /v2/push/_errors` as `record_id`, OMETRIA.md). A bare number may as well be an index: it names nothing.
fn rejected_id(item: &Value) -> Option<String> {
    match item {
        Value::String(id) => Some(id.clone()),
        Value::Object(item) => item.get("record_id").or_else(|| item.get("id")).and_then(record_id),
        _ => None,
    }
}

/// A record's id as text: Ometria's own are strings, a drop-in producer's may be numbers.
#[must_use]
pub fn record_id(id: &Value) -> Option<String> {
    match id {
        Value::String(id) => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_780_759_972_000);

    fn answer(status: u16) -> Answer {
        Answer { status, retry_after: None, queue_remaining: None, body: Vec::new() }
    }

    fn attempt(outcome: Result<Answer, PushError>) -> Attempt {
        let (number, records, bytes, apart) = (1, 3, 100, Vec::new());
        Attempt { number, records, apart, bytes, sent_at: NOW, answered_at: NOW, outcome }
    }

    #[derive(Debug, PartialEq)]
    enum Sort {
        Accepted,
        Deferred,
        Slowed,
        Rejected,
        Unauthorized,
        Endpoint,
    }

    fn sort(attempt: &Attempt) -> Sort {
        match judge(attempt) {
            Verdict::Accepted(_) => Sort::Accepted,
            Verdict::Deferred { slow_down: false, .. } => Sort::Deferred,
            Verdict::Deferred { slow_down: true, .. } => Sort::Slowed,
            Verdict::Rejected { .. } => Sort::Rejected,
            Verdict::Held(Hold::Unauthorized) => Sort::Unauthorized,
            Verdict::Held(_) => Sort::Endpoint,
        }
    }

    /// The table of DESIGN.md section 6, a line a range.
    #[test]
    fn every_status_has_its_verdict() {
        let table: &[(std::ops::RangeInclusive<u16>, Sort)] = &[
            (100..=199, Sort::Deferred),
            (200..=201, Sort::Deferred),
            (202..=202, Sort::Accepted), // Promise 5: nothing else acknowledges
            (203..=299, Sort::Deferred),
            (300..=399, Sort::Deferred),
            (400..=400, Sort::Rejected),
            (401..=401, Sort::Unauthorized),
            (402..=402, Sort::Endpoint),
            (403..=403, Sort::Unauthorized),
            (404..=407, Sort::Endpoint),
            (408..=408, Sort::Deferred),
            (409..=412, Sort::Endpoint),
            (413..=413, Sort::Rejected),
            (414..=421, Sort::Endpoint),
            (422..=422, Sort::Rejected),
            (423..=424, Sort::Endpoint),
            (425..=425, Sort::Deferred),
            (426..=428, Sort::Endpoint),
            (429..=429, Sort::Slowed),
            (430..=499, Sort::Endpoint),
            (500..=599, Sort::Deferred),
        ];
        let mut covered = 0;
        for (statuses, expected) in table {
            for status in statuses.clone() {
                let attempt = attempt(Ok(answer(status)));
                assert_eq!(sort(&attempt), *expected, "{status}");
                assert!(status == 202 || cause(&attempt).contains(&status.to_string()));
                covered += 1;
            }
        }
        assert_eq!(covered, 500);
        for error in PushError::EXAMPLES {
            let attempt = attempt(Err(error));
            assert_eq!(sort(&attempt), Sort::Deferred, "{attempt:?}");
            assert!(!cause(&attempt).is_empty());
        }
    }

    #[test]
    fn a_cause_says_what_to_do() {
        for (status, words) in [
            (401, "Data API key with push access under Settings > API keys"),
            (403, "ten minutes"),
            (404, "`endpoint`"),
            (301, "`endpoint`"),
            (200, "captive portal"),
            (400, "mapping"),
            (413, "too large"),
            (429, "pace"),
        ] {
            let said = cause(&attempt(Ok(answer(status))));
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn what_upstream_asks_to_wait() {
        for (text, seconds) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("999999", Some(3600)),
            ("Sat, 06 Jun 2026 15:33:52 GMT", Some(60)),
            ("Sat, 06 Jun 2026 15:00:00 GMT", Some(0)),
            ("Sun, 06 Jun 2027 15:00:00 GMT", Some(3600)),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(retry_after(text, NOW), seconds.map(Duration::from_secs), "{text:?}");
        }
        for status in [429, 503] {
            let asked = Answer { retry_after: Some("7".into()), ..answer(status) };
            let Verdict::Deferred { after, .. } = judge(&attempt(Ok(asked))) else { panic!() };
            assert_eq!(after, Some(Duration::from_secs(7)));
        }
    }

    #[test]
    fn a_202_is_read_as_far_as_it_can_be() {
        for (body, rejected, ids) in [
            (r#"{"status":"OK","request_id":"r","accepted":2,"rejected":0}"#, 0, &[][..]),
            (r#"{"accepted":1,"rejected":1,"rejected_items":["a"]}"#, 1, &["a"]),
            (r#"{"rejected_items":[{"id":"a","error":"x"},{"record_id":"b"},7]}"#, 3, &["a", "b"]),
            (r#"{"rejected_items":[{"record_id":"a","id":"row 1"},{"id":12}]}"#, 2, &["a", "12"]),
            (r#"{"rejected":null,"rejected_items":["a"]}"#, 1, &["a"]),
            (r#"{"rejected":18446744073709551615}"#, 3, &[]),
            (r#"{"rejected":-1,"rejected_items":{}}"#, 0, &[]),
            ("", 0, &[]),
            ("<html>", 0, &[]),
            ("[1]", 0, &[]),
            (r#"{"rejected":"many"}"#, 0, &[]),
        ] {
            let read = acceptance(body.as_bytes(), 3);
            assert_eq!(
                (read.rejected, read.rejected_ids.as_slice()),
                (rejected, &ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>()[..]),
                "{body}"
            );
        }
    }
}
