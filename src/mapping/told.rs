//! PURE. What is told of one event in one integration, to those who try a mapping out: `pillarbox map`, the admin API's
//! preview and test delivery.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::consent::Stance;
use super::explain::{Note, lacking, notes};
use super::{DropReason, Outcome, Rule, Rules};
use crate::event::{Event, Kind, Timestamp};

/// Characters of what an event says of consent that are shown.
const CONSENT_CHARS_MAX: usize = 120;

/// What became of one event in one integration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Told {
    /// `track`, `page`, …; empty when it could not be read.
    #[serde(rename = "type", default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// Where it was mapped; `None` when it became the same everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integration: Option<String>,
    /// What it became.
    pub outcome: Fate,
    /// Why not a record, as a stable code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'static, str>>,
    /// Why, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The rule that decided.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rule: String,
    /// The line of the rule's table in its file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_line: Option<usize>,
    /// What should be known of the record.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
    /// The record, byte for byte as it would be sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Box<RawValue>>,
}

/// What an event became.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It is not sent on, by configuration.
    Dropped,
    /// What it says of a person is kept.
    Identity,
    /// It could not be read.
    Invalid,
    /// It is sent.
    Record,
    /// Upstream would not take it: for the quarantine.
    Refused,
}

impl Fate {
    /// As in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Fate::Dropped => "dropped",
            Fate::Identity => "identity",
            Fate::Invalid => "invalid",
            Fate::Record => "record",
            Fate::Refused => "refused",
        }
    }
}

impl Told {
    /// An event that could not be read.
    #[must_use]
    pub fn invalid(detail: String) -> Told {
        Told {
            kind: String::new(),
            event: None,
            integration: None,
            outcome: Fate::Invalid,
            reason: None,
            detail,
            rule: String::new(),
            rule_line: None,
            notes: Vec::new(),
            record: None,
        }
    }

    /// What `rules` made of `event` at `now`.
    #[must_use]
    pub fn mapped(
        event: &Event<'_>,
        integration: &str,
        rules: &Rules,
        outcome: Outcome,
        now: Timestamp,
    ) -> Told {
        let (rule, rule_line) = rule(rules, event);
        let mut told = Told {
            kind: event.kind.as_str().to_owned(),
            event: event.name.as_deref().map(str::to_owned),
            integration: Some(integration.to_owned()),
            rule,
            rule_line,
            ..Told::invalid(String::new())
        };
        match outcome {
            Outcome::Record(record) => {
                told.outcome = Fate::Record;
                told.notes = notes(&record, event, now);
                let text = String::from_utf8(record.bytes).unwrap_or_default();
                told.record = RawValue::from_string(text).ok();
            }
            Outcome::Identity => {
                told.outcome = Fate::Identity;
                told.integration = None;
                "its traits are kept for later events".clone_into(&mut told.detail);
            }
            Outcome::Dropped(reason) => {
                told.outcome = Fate::Dropped;
                told.reason = Some(reason.code().into());
                told.detail = why_dropped(reason, rules, event);
            }
            Outcome::Refused { reason, detail } => {
                told.outcome = Fate::Refused;
                told.reason = Some(reason.into());
                told.detail = detail;
            }
        }
        told
    }

    /// Whether the daemon would not take it.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        matches!(self.outcome, Fate::Invalid | Fate::Refused)
    }
}

/// The rule that decided, and the line of its table.
fn rule(rules: &Rules, event: &Event<'_>) -> (String, Option<usize>) {
    match rules.rule(event) {
        Rule::Table(table) => (format!("[integration.events.{:?}]", table.name), Some(table.line)),
        Rule::Preset(preset) => (format!("preset {}", preset.as_str()), None),
        Rule::None => (String::new(), None),
    }
}

fn why_dropped(reason: DropReason, rules: &Rules, event: &Event<'_>) -> String {
    match reason {
        DropReason::NoMapping if event.kind == Kind::Track => {
            let name = event.name.as_deref().unwrap_or_default();
            let near = rules.near(name);
            let near = near
                .map(|near| format!("; names must be the same to the letter: {near:?} is known"));
            format!(
                "preset {} does not send it, and it has no table [integration.events.{name:?}]{}",
                rules.preset.as_str(),
                near.unwrap_or_default()
            )
        }
        DropReason::NoMapping => format!("no mapping sends `{}` events on", event.kind.as_str()),
        DropReason::Disabled => "enabled = false".to_owned(),
        DropReason::Consent => {
            let said = |(category, stance): (&str, Stance)| match stance {
                Stance::Unstated => format!("{category:?} is not stated, which reads as denied"),
                Stance::Denied | Stance::Granted => format!("{category:?} is denied"),
            };
            let lacking: Vec<String> = lacking(rules, event).into_iter().map(said).collect();
            let seen = event.context.get("consent").map(|consent| cut(consent.get()));
            let seen = seen.unwrap_or_else(|| "absent".to_owned());
            format!("{}; context.consent is {seen}", lacking.join(", "))
        }
    }
}

fn cut(text: &str) -> String {
    if text.chars().count() <= CONSENT_CHARS_MAX {
        return text.to_owned();
    }
    text.chars().take(CONSENT_CHARS_MAX - 1).chain(['…']).collect()
}
