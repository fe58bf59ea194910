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
