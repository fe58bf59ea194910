//! What `map` tells of one event in one integration: as text, and as JSON.

use serde::Serialize;
use serde_json::value::RawValue;

use super::show::{self, BAD, BOLD, DIM, GOOD, WARN, printable};
use crate::event::{Event, Kind, Timestamp};
use crate::mapping::consent::Stance;
use crate::mapping::explain::{Note, lacking, notes};
use crate::mapping::{DropReason, Outcome, Rule, Rules};

/// Where an event stands in the input.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Place {
    /// The line, from 1.
    pub(super) line: usize,
    /// Its number on the line, from 1, when it came in a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) item: Option<usize>,
}

/// What became of one event in one integration.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Told {
    #[serde(flatten)]
    place: Place,
    #[serde(rename = "type", skip_serializing_if = "str::is_empty")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    integration: Option<String>,
    /// `record`, `identity`, `dropped`, `refused` or `invalid`.
    pub(super) outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<&'static str>,
    /// Why, in a sentence.
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    /// The rule that decided.
    #[serde(skip_serializing_if = "String::is_empty")]
    rule: String,
    /// The line of the rule's table in the configuration file.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule_line: Option<usize>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "with_cures")]
    pub(super) notes: Vec<Note>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<Box<RawValue>>,
}

fn with_cures<S: serde::Serializer>(notes: &[Note], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Noted {
        code: &'static str,
        message: String,
    }
    let message = |note: &Note| format!("{}: {}", note.title(), note.cure());
    serializer
        .collect_seq(notes.iter().map(|note| Noted { code: note.code(), message: message(note) }))
}

impl Told {
    /// An event that could not be read.
    pub(super) fn invalid(place: Place, detail: String) -> Told {
        Told {
            place,
            kind: "",
            event: None,
            integration: None,
            outcome: "invalid",
            reason: None,
            detail,
            rule: String::new(),
            rule_line: None,
            notes: Vec::new(),
            record: None,
        }
    }

    /// What `rules` made of `event`.
    pub(super) fn mapped(
        place: Place,
        event: &Event<'_>,
        integration: &str,
        rules: &Rules,
        outcome: Outcome,
        now: Timestamp,
    ) -> Told {
        let (rule, rule_line) = rule(rules, event);
        let mut told = Told {
            kind: event.kind.as_str(),
            event: event.name.as_deref().map(str::to_owned),
            integration: Some(integration.to_owned()),
            rule,
            rule_line,
            ..Told::invalid(place, String::new())
        };
        match outcome {
            Outcome::Record(record) => {
                told.outcome = "record";
                told.notes = notes(&record, event, now);
                let text = String::from_utf8(record.bytes).unwrap_or_default();
                told.record = RawValue::from_string(text).ok();
            }
            Outcome::Identity => {
                told.outcome = "identity";
                told.integration = None;
                "its traits are kept for later events".clone_into(&mut told.detail);
            }
            Outcome::Dropped(reason) => {
                told.outcome = "dropped";
                told.reason = Some(reason.code());
                told.detail = why_dropped(reason, rules, event);
            }
            Outcome::Refused { reason, detail } => {
                told.outcome = "refused";
                told.reason = Some(reason);
                told.detail = detail;
            }
        }
        told
    }

    /// Whether the daemon would not take it.
    pub(super) fn is_fault(&self) -> bool {
        matches!(self.outcome, "invalid" | "refused")
    }

    /// Which event it is: a line above what became of it.
    pub(super) fn heading(&self) -> String {
        let item = self.place.item.map(|item| format!(", event {item}")).unwrap_or_default();
        let event = self.event.as_deref().map(|name| format!(" \"{}\"", show::cell(name, 80)));
        let event = event.unwrap_or_default();
        let heading = format!("{BOLD}line {}{item}{BOLD:#}  {}{event}", self.place.line, self.kind);
        heading.trim_end().to_owned()
    }

    /// What became of it, a few lines.
    pub(super) fn text(&self) -> String {
        let integration = self.integration.as_deref().filter(|name| !name.is_empty());
        let style = match self.outcome {
            "record" | "identity" => GOOD,
            "dropped" => WARN,
            _ => BAD,
        };
        let outcome = if self.outcome == "record" { "sent" } else { self.outcome };
        let rule = match (self.outcome, self.reason) {
            ("record", _) => format!(" by {}", self.rule()),
            (_, Some("disabled")) => format!(" in {}", self.rule()),
            _ => String::new(),
        };
        let detail = Some(printable(&self.detail)).filter(|detail| !detail.is_empty());
        let first = [
            integration.map(|name| format!("{name}: ")).unwrap_or_default(),
            format!("{style}{outcome}{style:#}"),
            self.reason.map(|reason| format!(" ({reason})")).unwrap_or_default(),
            detail.map(|detail| format!(": {detail}")).unwrap_or_default(),
            rule,
        ];
        let mut lines = vec![format!("  {}", first.concat())];
        let noted = self.notes.iter().map(|note| note.title());
        lines.extend(noted.map(|title| format!("    {WARN}note: {title}{WARN:#}")));
        if let Some(record) = &self.record {
            let pretty = show::pretty(record.get());
            lines.extend(pretty.lines().map(|line| format!("    {DIM}{}{DIM:#}", printable(line))));
        }
        lines.join("\n")
    }

    fn rule(&self) -> String {
        let line = self.rule_line.map(|line| format!(" (line {line})")).unwrap_or_default();
        format!("{}{line}", printable(&self.rule))
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
            let seen = event.context.get("consent").map(|consent| show::cell(consent.get(), 120));
            let seen = seen.unwrap_or_else(|| "absent".to_owned());
            format!("{}; context.consent is {seen}", lacking.join(", "))
        }
    }
}
