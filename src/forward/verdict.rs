//! PURE. What the answer to a push means for its records: the table of DESIGN.md section 6.

use std::time::{Duration, UNIX_EPOCH};

use serde::Deserialize;

use super::push::{Answer, PushError};
use crate::clock::UnixMillis;

/// The longest wait that an upstream may ask for.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

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
    /// Records that upstream rejected all the same.
    pub rejected: u64,
    /// Ids of these, where it names them.
    pub rejected_ids: Vec<String>,
}

/// Judges one attempt. `now` is for a `Retry-After` in its date form.
#[must_use]
pub fn judge(attempt: &Result<Answer, PushError>, now: UnixMillis) -> Verdict {
    let Ok(answer) = attempt else { return Verdict::Deferred { after: None, slow_down: false } };
    let after = answer.retry_after.as_deref().and_then(|text| retry_after(text, now));
    match answer.status {
        202 => Verdict::Accepted(acceptance(&answer.body)),
        400 | 422 => Verdict::Rejected { reason: "rejected" },
        413 => Verdict::Rejected { reason: "too_large" },
        401 | 403 => Verdict::Held(Hold::Unauthorized),
        429 => Verdict::Deferred { after, slow_down: true },
        408 | 425 => Verdict::Deferred { after, slow_down: false },
        404..=499 | 402 => Verdict::Held(Hold::Endpoint),
        _ => Verdict::Deferred { after, slow_down: false },
    }
}

/// What to tell the operator about an attempt that was not accepted: what it means and what to do, after the
/// troubleshooting table of OMETRIA.md.
#[must_use]
pub fn cause(attempt: &Result<Answer, PushError>) -> String {
    let answer = match attempt {
        Ok(answer) => answer,
        Err(error) => return error.to_string(),
    };
    let status = answer.status;
    match status {
        401 | 403 => format!(
            "{status}: Ometria refuses the API key. It is missing, invalid, or a Query API (Website Personalisation) key: generate a \
             Data API key with push access under Settings > API keys; a new key can take ten minutes to work"
        ),
        400 | 422 | 413 => {
            format!("{status}: a record is at fault; the push is split until it stands alone")
        }
        429 => format!(
            "{status}: Ometria's rate limit or its backlog of 50,000 records; the pace is halved"
        ),
        500..=599 | 408 | 425 => format!("{status}: Ometria cannot take the push now"),
        200..=299 => format!(
            "{status} is not Ometria's 202: a captive portal or a proxy answers in its place"
        ),
        300..=399 => {
            format!("{status}: the endpoint redirects, which is never followed: correct `endpoint`")
        }
        _ => format!(
            "{status}: the endpoint is wrong, the records are not: correct `endpoint` (https://api.ometria.com/v2/push)"
        ),
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

/// Reads the body of a 202 as far as it can be: whatever it says, the records are upstream's.
fn acceptance(body: &[u8]) -> Acceptance {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Body {
        rejected: u64,
        rejected_items: Vec<Item>,
    }
    /// Undocumented: seen as ids, and as objects that hold one.
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Item {
        Id(String),
        Object {
            #[serde(alias = "record_id")]
            id: String,
        },
        Other(serde::de::IgnoredAny),
    }
    let Body { rejected, rejected_items } = serde_json::from_slice(body).unwrap_or_default();
    let id = |item: Item| match item {
        Item::Id(id) | Item::Object { id } => Some(id),
        Item::Other(_) => None,
    };
    Acceptance {
        rejected: rejected.max(rejected_items.len() as u64),
        rejected_ids: rejected_items.into_iter().filter_map(id).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_780_759_972_000);

    fn answer(status: u16) -> Answer {
        Answer { status, retry_after: None, queue_remaining: None, body: Vec::new() }
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

    fn sort(attempt: &Result<Answer, PushError>) -> Sort {
        match judge(attempt, NOW) {
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
                assert_eq!(sort(&Ok(answer(status))), *expected, "{status}");
                assert!(status == 202 || cause(&Ok(answer(status))).contains(&status.to_string()));
                covered += 1;
            }
        }
        assert_eq!(covered, 500);
        for error in PushError::EXAMPLES {
            assert_eq!(sort(&Err(error.clone())), Sort::Deferred, "{error}");
            assert!(!cause(&Err(error)).is_empty());
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
            let Verdict::Deferred { after, .. } = judge(&Ok(asked), NOW) else { panic!() };
            assert_eq!(after, Some(Duration::from_secs(7)));
        }
    }

    #[test]
    fn a_202_is_read_as_far_as_it_can_be() {
        for (body, rejected, ids) in [
            (r#"{"status":"OK","request_id":"r","accepted":2,"rejected":0}"#, 0, &[][..]),
            (r#"{"accepted":1,"rejected":1,"rejected_items":["a"]}"#, 1, &["a"]),
            (r#"{"rejected_items":[{"id":"a","error":"x"},{"record_id":"b"},7]}"#, 3, &["a", "b"]),
            ("", 0, &[]),
            ("<html>", 0, &[]),
            (r#"{"rejected":"many"}"#, 0, &[]),
        ] {
            let read = acceptance(body.as_bytes());
            assert_eq!(
                (read.rejected, read.rejected_ids.as_slice()),
                (rejected, &ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>()[..]),
                "{body}"
            );
        }
    }
}
