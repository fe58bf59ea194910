//! PURE. What the answer to a test delivery means, and what to do: the troubleshooting table of OMETRIA.md.

use serde::Deserialize;

use super::protocol::TestOutcome;
use crate::forward::verdict::{Attempt, Hold, Verdict, cause, judge};
use crate::mapping::explain::Note;
use crate::mapping::told::{Fate, Told};

/// What is told of a test delivery that was made.
pub(super) struct Judged {
    pub(super) outcome: TestOutcome,
    /// What happened, and what to do about it.
    pub(super) message: String,
    /// More to do.
    pub(super) advice: Vec<String>,
    /// Ometria's id of the request.
    pub(super) request_id: Option<String>,
}

/// What the parts of an answer's body and of a record are read for.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    request_id: Option<String>,
    event_type: Option<String>,
}

/// Judges the one push of a test delivery.
pub(super) fn judged(attempt: &Attempt, mapped: &Told) -> Judged {
    let answer: Named = attempt
        .outcome
        .as_ref()
        .ok()
        .and_then(|answer| serde_json::from_slice(&answer.body).ok())
        .unwrap_or_default();
    let record: Named = mapped
        .record
        .as_ref()
        .and_then(|record| serde_json::from_str(record.get()).ok())
        .unwrap_or_default();
    let event_type = record.event_type.unwrap_or_default();
    let mut advice = Vec::new();
    let (outcome, message) = match judge(attempt) {
        Verdict::Accepted(acceptance) if acceptance.rejected > 0 => {
            advice.push("see what the answer says, and look at the mapping".to_owned());
            let message = "Ometria has answered 202 and rejected the record all the same";
            (TestOutcome::AcceptedAndRejected, message.to_owned())
        }
        Verdict::Accepted(_) => {
            advice.push(format!(
                "if it does not appear, create the event type {event_type:?} under Settings > Custom events: until then Ometria \
                 accepts such events without acting on them"
            ));
            advice.extend(mapped.notes.iter().map(|note| noted(*note)));
            (TestOutcome::Delivered, "202: Ometria has taken the record".to_owned())
        }
        Verdict::Rejected { .. } => {
            let status = attempt.status().unwrap_or_default();
            let message = format!(
                "{status}: Ometria refuses the record: see what the answer says, and look at the mapping"
            );
            (TestOutcome::Rejected, message)
        }
        Verdict::Held(Hold::Unauthorized) => (TestOutcome::Unauthorized, cause(attempt)),
        Verdict::Held(_) => (TestOutcome::WrongEndpoint, cause(attempt)),
        Verdict::Deferred { slow_down: true, .. } => {
            let message = "429: Ometria takes no more for now, by its rate limit or its backlog: try again later";
            (TestOutcome::Unreachable, message.to_owned())
        }
        Verdict::Deferred { .. } => (TestOutcome::Unreachable, cause(attempt)),
    };
    Judged { outcome, message, advice, request_id: answer.request_id }
}

/// What to say when the event becomes no record.
pub(super) fn not_sent(mapped: &Told) -> String {
    let why = match mapped.outcome {
        Fate::Identity => "an `identify` becomes no record: test with a track or a page",
        Fate::Dropped => "the mapping drops the event",
        Fate::Invalid => "the event is not valid",
        Fate::Refused | Fate::Record => "the record would not be taken",
    };
    let detail = if mapped.outcome == Fate::Identity { "" } else { &mapped.detail };
    let separator = if detail.is_empty() { "" } else { ": " };
    format!("nothing was sent: {why}{separator}{detail}")
}

fn noted(note: Note) -> String {
    format!("{}: {}", note.title(), note.cure())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;
    use crate::forward::{Answer, PushError};

    fn attempt(outcome: Result<Answer, PushError>) -> Attempt {
        let (sent_at, answered_at) = (UnixMillis(0), UnixMillis(1));
        Attempt {
            number: 1,
            records: 1,
            apart: Vec::new(),
            bytes: 1,
            sent_at,
            answered_at,
            outcome,
        }
    }

    fn answered(status: u16, body: &str) -> Judged {
        let answer = Answer { status, retry_after: None, queue_remaining: None, body: body.into() };
        judged(&attempt(Ok(answer)), &mapped())
    }

    fn mapped() -> Told {
        serde_json::from_str(
            r#"{"outcome":"record","notes":[{"code":"no_identity_email","message":""}],"record":{"event_type":"viewed"}}"#,
        )
        .unwrap()
    }

    #[test]
    fn every_answer_says_what_to_do() {
        for (status, body, outcome, words) in [
            (202, "", TestOutcome::Delivered, "Ometria has taken the record"),
            (
                202,
                r#"{"rejected":1}"#,
                TestOutcome::AcceptedAndRejected,
                "rejected the record all the same",
            ),
            (400, "", TestOutcome::Rejected, "look at the mapping"),
            (413, "", TestOutcome::Rejected, "look at the mapping"),
            (401, "", TestOutcome::Unauthorized, "generate a Data API key with push access"),
            (403, "", TestOutcome::Unauthorized, "a new key can take ten minutes"),
            (404, "", TestOutcome::WrongEndpoint, "correct `endpoint`"),
            (429, "", TestOutcome::Unreachable, "try again later"),
            (503, "", TestOutcome::Unreachable, "cannot take the push now"),
            (200, "", TestOutcome::Unreachable, "is not Ometria's 202"),
            (302, "", TestOutcome::Unreachable, "redirects"),
        ] {
            let judged = answered(status, body);
            assert_eq!(judged.outcome, outcome, "{status}");
            assert!(judged.message.contains(words), "{status}: {}", judged.message);
            // What holds for a queue alone is not said of a test.
            assert!(!judged.message.contains("split") && !judged.message.contains("halved"));
        }
        let silent = judged(&attempt(Err(PushError::Dns("x".into()))), &mapped());
        assert_eq!(silent.outcome, TestOutcome::Unreachable);
        assert!(silent.message.contains("does not resolve"));
    }

    #[test]
    fn a_delivery_says_what_may_still_be_missing_at_ometria() {
        let judged = answered(202, r#"{"request_id":"r","accepted":1,"rejected":0}"#);
        assert_eq!(judged.request_id.as_deref(), Some("r"));
        assert!(
            judged.advice[0]
                .contains(r#"create the event type "viewed" under Settings > Custom events"#)
        );
        assert!(judged.advice[1].contains("call `identify` with the email before `track`"));
        // An answer that is no JSON, or another one, is no matter.
        for body in ["", "[]", r#"{"request_id":7}"#, "\u{0}"] {
            assert_eq!(answered(202, body).request_id, None);
        }
    }

    #[test]
    fn what_is_not_sent_says_why() {
        for (told, words) in [
            (r#"{"outcome":"identity","detail":"kept"}"#, "an `identify` becomes no record"),
            (
                r#"{"outcome":"dropped","detail":"enabled = false"}"#,
                "drops the event: enabled = false",
            ),
            (r#"{"outcome":"invalid","detail":"event is missing"}"#, "not valid: event is missing"),
            (r#"{"outcome":"refused","detail":"too large"}"#, "would not be taken: too large"),
        ] {
            let text = not_sent(&serde_json::from_str(told).unwrap());
            assert!(text.starts_with("nothing was sent: ") && text.contains(words), "{text}");
        }
    }
}
