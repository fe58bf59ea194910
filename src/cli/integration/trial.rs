//! `pillarbox integration test`: one event goes the whole way at once, past the queue.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde_json::value::RawValue;

use super::{Client, Failure};
use crate::admin::integration::protocol::{TestAsked, TestOutcome, Tested};
use crate::cli::explain;
use crate::cli::show::{self, BAD, BOLD, DIM, GOOD, WARN, printable};

#[derive(Debug, Args)]
pub(super) struct Test {
    /// The integration
    name: String,
    /// File with one event; `-` reads standard input [default: a product view of nobody]
    #[arg(long, value_name = "FILE")]
    event: Option<PathBuf>,
}

pub(super) async fn run(client: &mut Client, test: &Test, json: bool) -> Result<(), Failure> {
    let event = test.event.as_deref().map(event).transpose()?;
    let asked = TestAsked { integration: Some(test.name.clone()), draft: None, event };
    let tested: Tested = client.post("/v1/test-delivery", &asked).await?;
    super::tell(&tested, json, || text(&tested))?;
    if tested.outcome == TestOutcome::Delivered { Ok(()) } else { Err(Failure::Said) }
}

fn event(file: &Path) -> anyhow::Result<Box<RawValue>> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).context("read standard input")?;
    } else {
        text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    }
    serde_json::from_str(&text).with_context(|| format!("{} is no JSON", file.display()))
}

fn text(tested: &Tested) -> String {
    let (word, style) = match tested.outcome {
        TestOutcome::Delivered => ("delivered", GOOD),
        TestOutcome::AcceptedAndRejected | TestOutcome::Rejected => ("rejected", BAD),
        TestOutcome::Unauthorized => ("unauthorized", BAD),
        TestOutcome::WrongEndpoint => ("wrong endpoint", BAD),
        TestOutcome::Unreachable => ("not delivered", WARN),
        TestOutcome::NotSent => ("not sent", WARN),
    };
    let mut lines = vec![format!("{style}{word}{style:#}  {}", printable(&tested.message))];
    lines.extend(tested.advice.iter().map(|advice| format!("  {}", printable(advice))));
    lines.push(String::new());
    let took = tested.record_id.is_some().then(|| format!("  ({} ms)", tested.milliseconds));
    let endpoint = format!("{}{}", tested.endpoint, took.unwrap_or_default());
    for (what, value) in [
        ("endpoint", Some(&endpoint)),
        ("record", tested.record_id.as_ref()),
        ("request", tested.request_id.as_ref()),
        ("answer", Some(&tested.answer).filter(|answer| !answer.is_empty())),
    ] {
        let line = |value: &String| {
            format!("{BOLD}{what:<8}{BOLD:#}  {}", show::cell(value, ANSWER_CHARS_MAX))
        };
        lines.extend(value.map(line));
    }
    lines.push(format!("{DIM}the event became:{DIM:#}"));
    lines.push(explain::text(&tested.mapped));
    lines.join("\n")
}

/// Characters of an answer on a terminal; `--json` shows all that is kept.
const ANSWER_CHARS_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_key_is_told_with_its_cure() {
        let tested: Tested = serde_json::from_value(serde_json::json!({
            "outcome": "unauthorized", "message": "403: generate a Data API key", "endpoint": "https://x/",
            "record_id": "test_1", "status": 403, "answer": "{\"error\":1}", "milliseconds": 7,
            "mapped": {"type": "track", "outcome": "record", "rule": "preset retail", "record": {"id": "test_1"}},
        }))
        .unwrap();
        let text = anstream::adapter::strip_str(&text(&tested)).to_string();
        for part in [
            "unauthorized  403: generate a Data API key\n",
            "endpoint  https://x/  (7 ms)\n",
            "record    test_1\n",
            "answer    {\"error\":1}\n",
            "sent by preset retail",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }
}
