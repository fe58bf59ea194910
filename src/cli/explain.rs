//! What `map` and `integration test` tell of one event in one integration, as text.

use serde::Serialize;

use super::show::{self, BAD, BOLD, DIM, GOOD, WARN, printable};
use crate::mapping::told::{Fate, Told};

/// Where an event stands in the input.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Place {
    /// The line, from 1.
    pub(super) line: usize,
    /// Its number on the line, from 1, when it came in a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) item: Option<usize>,
}

/// What became of the event at a place, for machines.
#[derive(Serialize)]
pub(super) struct Placed<'t> {
    #[serde(flatten)]
    pub(super) place: Place,
    #[serde(flatten)]
    pub(super) told: &'t Told,
}

impl Place {
    /// Which event it is: a line above what became of it.
    pub(super) fn heading(self, told: &Told) -> String {
        let item = self.item.map(|item| format!(", event {item}")).unwrap_or_default();
        let event = told.event.as_deref().map(|name| format!(" \"{}\"", show::cell(name, 80)));
        let event = event.unwrap_or_default();
        let heading = format!("{BOLD}line {}{item}{BOLD:#}  {}{event}", self.line, told.kind);
        heading.trim_end().to_owned()
    }
}

/// What became of it, a few lines.
pub(super) fn text(told: &Told) -> String {
    let integration = told.integration.as_deref().filter(|name| !name.is_empty());
    let style = match told.outcome {
        Fate::Record | Fate::Identity => GOOD,
        Fate::Dropped => WARN,
        _ => BAD,
    };
    let outcome = if told.outcome == Fate::Record { "sent" } else { told.outcome.as_str() };
    let rule = match (told.outcome, told.reason.as_deref()) {
        (Fate::Record, _) => format!(" by {}", rule(told)),
        (_, Some("disabled")) => format!(" in {}", rule(told)),
        _ => String::new(),
    };
    let detail = Some(printable(&told.detail)).filter(|detail| !detail.is_empty());
    let first = [
        integration.map(|name| format!("{name}: ")).unwrap_or_default(),
        format!("{style}{outcome}{style:#}"),
        told.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default(),
        detail.map(|detail| format!(": {detail}")).unwrap_or_default(),
        rule,
    ];
    let mut lines = vec![format!("  {}", first.concat())];
    let noted = told.notes.iter().map(|note| note.title());
    lines.extend(noted.map(|title| format!("    {WARN}note: {title}{WARN:#}")));
    if let Some(record) = &told.record {
        let pretty = show::pretty(record.get());
        lines.extend(pretty.lines().map(|line| format!("    {DIM}{}{DIM:#}", printable(line))));
    }
    lines.join("\n")
}

fn rule(told: &Told) -> String {
    let line = told.rule_line.map(|line| format!(" (line {line})")).unwrap_or_default();
    format!("{}{line}", printable(&told.rule))
}
