//! What an example event became, or what a test delivery came to: the part of an integration's page that follows what is typed.

use askama::Template;

use super::Console;
use super::json::{self, Piece};
use super::words::Tone;
use crate::admin::IntegrationError;
use crate::admin::integration::protocol::{PreviewAsked, TestAsked, TestOutcome};
use crate::mapping::explain::Note;
use crate::mapping::told::{Fate, Told};
use crate::readable;

#[derive(Template)]
#[template(path = "tried.html", config = "src/admin/console/askama.toml")]
pub(super) struct Tried {
    /// What a test delivery came to.
    test: Option<Test>,
    /// What each event became.
    mapped: Vec<Mapped>,
    /// Why there is nothing to show yet.
    faults: Vec<String>,
}

struct Test {
    tone: Tone,
    title: &'static str,
    message: String,
    advice: Vec<String>,
    request_id: String,
    answer: String,
    took: String,
}

/// What one event became.
struct Mapped {
    title: String,
    tone: Tone,
    outcome: &'static str,
    rule: String,
    detail: String,
    notes: Vec<String>,
    record: String,
}

impl Tried {
    fn faulty(faults: Vec<String>) -> Tried {
        Tried { test: None, mapped: Vec::new(), faults }
    }

    fn refused(error: IntegrationError) -> Tried {
        Tried::faulty(match error {
            IntegrationError::Faulty(faults) => faults.iter().map(ToString::to_string).collect(),
            other => vec![other.to_string()],
        })
    }
}

/// What an event becomes.
pub(super) async fn previewed(console: &Console, asked: Result<PreviewAsked, String>) -> Tried {
    match asked {
        Err(fault) => Tried::faulty(vec![fault]),
        Ok(asked) => match console.service.preview(asked).await {
            Ok(previewed) => {
                let mapped = previewed.events.iter().map(Mapped::new).collect();
                Tried { test: None, mapped, faults: Vec::new() }
            }
            Err(error) => Tried::refused(error),
        },
    }
}

/// What a test delivery comes to.
pub(super) async fn tested(console: &Console, asked: Result<TestAsked, String>) -> Tried {
    let asked = match asked {
        Ok(asked) => asked,
        Err(fault) => return Tried::faulty(vec![fault]),
    };
    let tested = match console.service.test_delivery(asked).await {
        Ok(tested) => tested,
        Err(error) => return Tried::refused(error),
    };
    let (title, tone) = match tested.outcome {
        TestOutcome::Delivered => ("Delivered", Tone::Good),
        TestOutcome::AcceptedAndRejected => ("Taken, and rejected", Tone::Bad),
        TestOutcome::Rejected => ("Rejected", Tone::Bad),
        TestOutcome::Unauthorized => ("The API key is refused", Tone::Bad),
        TestOutcome::WrongEndpoint => ("The endpoint is wrong", Tone::Bad),
        TestOutcome::Unreachable => ("Not reached", Tone::Warn),
        TestOutcome::NotSent => ("Nothing was sent", Tone::Warn),
    };
    let test = Test {
        tone,
        title,
        message: tested.message,
        advice: tested.advice,
        request_id: tested.request_id.unwrap_or_default(),
        answer: readable::pretty(&tested.answer),
        took: format!("{} ms", readable::number(tested.milliseconds)),
    };
    Tried { test: Some(test), mapped: vec![Mapped::new(&tested.mapped)], faults: Vec::new() }
}

impl Test {
    fn pieces(&self) -> Vec<Piece<'_>> {
        json::pieces(&self.answer)
    }
}

impl Mapped {
    fn new(told: &Told) -> Mapped {
        let (outcome, tone) = match told.outcome {
            Fate::Record => ("is sent", Tone::Good),
            Fate::Identity => ("is kept as an identity", Tone::Calm),
            Fate::Dropped => ("is dropped", Tone::Warn),
            Fate::Refused => ("would go to the quarantine", Tone::Bad),
            Fate::Invalid => ("cannot be read", Tone::Bad),
        };
        let note = |note: &Note| {
            match note {
            Note::NoIdentityEmail => {
                "No email is known for it: it would be delivered, but not linked to a customer. Call identify with the email before track.".to_owned()
            }
            other => format!("{}: {}.", other.title(), other.cure()),
        }
        };
        let kind = if told.kind.is_empty() { "event" } else { &told.kind };
        Mapped {
            title: told.event.clone().unwrap_or_else(|| format!("This {kind}")),
            tone,
            outcome,
            rule: told.rule.clone(),
            detail: told.detail.clone(),
            notes: told.notes.iter().map(note).collect(),
            record: told
                .record
                .as_ref()
                .map(|record| readable::pretty(record.get()))
                .unwrap_or_default(),
        }
    }

    fn pieces(&self) -> Vec<Piece<'_>> {
        json::pieces(&self.record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_event_holds_is_escaped() {
        let told = Told {
            detail: "<script>a</script>".into(),
            event: Some("<img src=x>".into()),
            record: serde_json::value::RawValue::from_string(r#"{"a":"<b>"}"#.into()).ok(),
            ..Told::invalid(String::new())
        };
        let tried =
            Tried { test: None, mapped: vec![Mapped::new(&told)], faults: vec!["<i>".into()] };
        let text = tried.render().unwrap();
        for raw in ["<script", "<img", "<b>", "<i>"] {
            assert!(!text.contains(raw), "{raw}: {text}");
        }
        assert!(text.contains("cannot be read"), "{text}");
    }
}
