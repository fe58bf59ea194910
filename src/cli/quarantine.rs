//! `pillarbox quarantine`: what was set aside, and what becomes of it.

use std::fs;
use std::io::{IsTerminal as _, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use comfy_table::Table;
use serde::Deserialize;

use super::client::Client;
use super::show::{self, BOLD, DIM, age, cell, number, pretty, printable, short_age};
use super::{Admin, Failure};
use crate::admin::protocol::{QuarantineEntry, Released, Selection};
use crate::clock::{self, UnixMillis};
use crate::spool::{Origin, QuarantineId};

#[derive(Debug, Args)]
pub(super) struct Quarantine {
    #[command(flatten)]
    admin: Admin,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List what was set aside
    List {
        /// For machines: one JSON object a line
        #[arg(long)]
        json: bool,
        /// At most so many [default: 200; with --json, all]
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
    },
    /// Show one entry with its answer and its body
    Show {
        /// Its number
        id: u64,
        /// For machines
        #[arg(long)]
        json: bool,
    },
    /// Deliver entries again, at the end of their lanes, with their old ids
    Retry(Which),
    /// Remove entries for good
    Drop {
        #[command(flatten)]
        which: Which,
        /// Do not ask before removing every entry
        #[arg(long)]
        yes: bool,
    },
    /// Write all entries as NDJSON, bodies included
    Export {
        /// The file to write, readable by you alone; otherwise standard output
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Numbers of entries
    ids: Vec<u64>,
    /// Every entry
    #[arg(long)]
    all: bool,
}

impl Which {
    fn selection(&self) -> Selection {
        if self.all {
            Selection::All
        } else {
            Selection::Ids(self.ids.iter().copied().map(QuarantineId).collect())
        }
    }
}

/// Entries asked for at once.
const PAGE: u64 = 100;
/// Widths at which a row fits in 80 columns.
const NAME_WIDTH: usize = 12;
const REASON_WIDTH: usize = 14;
const ID_WIDTH: usize = 16;

pub(super) async fn run(quarantine: &Quarantine) -> Result<(), Failure> {
    let admin = &quarantine.admin;
    match &quarantine.action {
        Action::List { json, limit } => list(&mut admin.connect().await?, *json, *limit).await,
        Action::Show { id, json } => show_entry(&mut admin.connect().await?, *id, *json).await,
        Action::Export { output } => export(&mut admin.connect().await?, output.as_deref()).await,
        Action::Retry(which) => {
            let mut client = admin.connect().await?;
            let released = client.post("/v1/quarantine/retry", &which.selection()).await?;
            said(&released, "queued again")
        }
        Action::Drop { which, yes } => {
            if which.all && !yes {
                confirm()?;
            }
            let mut client = admin.connect().await?;
            let released = client.post("/v1/quarantine/drop", &which.selection()).await?;
            said(&released, "removed for good")
        }
    }
}

/// Asks before everything is removed; without a terminal to ask on, `--yes` must say it.
fn confirm() -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(anyhow!("this removes every entry for good: say so with --yes").into());
    }
    show::note("this removes every entry for good; type yes to go on:");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("read the answer")?;
    if answer.trim() == "yes" { Ok(()) } else { Err(anyhow!("nothing was removed").into()) }
}

fn said(released: &Released, word: &str) -> Result<(), Failure> {
    show::line(&format!("{} {word}", number(released.released)));
    for id in &released.gone {
        show::problem(&format!("there is no entry {}", id.0));
    }
    for kept in &released.kept {
        show::problem(&format!("entry {} stays: {}", kept.id.0, printable(&kept.message)));
    }
    if released.kept_more > 0 {
        show::problem(&format!("{} further entries stay", number(released.kept_more)));
    }
    if let Some(reason) = &released.stopped {
        show::problem(&format!("the rest was not tried: {}", printable(reason)));
    }
    let all = released.gone.is_empty() && released.kept.is_empty() && released.stopped.is_none();
    if all { Ok(()) } else { Err(Failure::Said) }
}

async fn list(client: &mut Client, json: bool, limit: Option<u64>) -> Result<(), Failure> {
    let mut left = limit.unwrap_or(if json { u64::MAX } else { LISTED });
    let (mut from, mut entries) = (0, Vec::new());
    let mut more = false;
    while left > 0 {
        let path = format!("/v1/quarantine?from={from}&limit={}", left.min(PAGE));
        let page: Vec<QuarantineEntry> = client.get(&path).await?;
        let Some(last) = page.last() else { break };
        from = last.id.0 + 1;
        left = left.saturating_sub(page.len() as u64);
        more = left == 0;
        if json {
            for entry in &page {
                show::line(&serde_json::to_string(entry).context("write the entry")?);
            }
        } else {
            entries.extend(page);
        }
    }
    if json {
        return Ok(());
    }
    if entries.is_empty() {
        show::line("the quarantine is empty");
        return Ok(());
    }
    show::line(&table(&entries, clock::now()));
    show::line(&format!("\n{DIM}`pillarbox quarantine show ID` shows why{DIM:#}"));
    if more {
        show::note(&format!(
            "shown are {}; there may be more: --limit N",
            number(entries.len() as u64)
        ));
    }
    Ok(())
}

/// Entries that are listed for people unless `--limit` says otherwise.
const LISTED: u64 = 200;

fn table(entries: &[QuarantineEntry], now: UnixMillis) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["id", "age", "integration", "reason", "answer", "event", "record"]);
    for entry in entries {
        let integration = match &entry.origin {
            Origin::Record { integration, .. } => Some(integration.as_str()),
            Origin::Event { integration, .. } => integration.as_deref(),
        };
        let or_dash = |text: Option<&str>, width| cell(text.unwrap_or("-"), width);
        table.add_row([
            entry.id.0.to_string(),
            short_age(entry.at.age(now)),
            or_dash(integration, NAME_WIDTH),
            cell(&entry.reason, REASON_WIDTH),
            entry.status.map_or_else(|| "-".to_owned(), |status| status.to_string()),
            or_dash(entry.event_type.as_deref(), ID_WIDTH),
            or_dash(entry.record_id.as_deref(), ID_WIDTH),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    show::trimmed(&table.to_string())
}

async fn show_entry(client: &mut Client, id: u64, json: bool) -> Result<(), Failure> {
    let entry: QuarantineEntry = client.get(&format!("/v1/quarantine/{id}")).await?;
    if json {
        show::line(&serde_json::to_string(&entry).context("write the entry")?);
    } else {
        show::line(&described(&entry, clock::now()));
    }
    Ok(())
}

/// Everything there is to say of an entry.
fn described(entry: &QuarantineEntry, now: UnixMillis) -> String {
    let origin = match &entry.origin {
        Origin::Record { integration, seq, record_type, .. } => {
            format!("{record_type}, seq {} of integration {integration:?}", seq.0)
        }
        Origin::Event { kind, integration } => {
            let kind = if kind.is_empty() { "unknown type" } else { kind };
            let whose = integration.as_ref().map(|name| format!(" for integration {name:?}"));
            format!("event ({kind}){}", whose.unwrap_or_default())
        }
    };
    let mut lines = vec![format!(
        "{BOLD}entry {}{BOLD:#}, set aside {} ago",
        entry.id.0,
        age(entry.at.age(now))
    )];
    let mut field = |name: &str, text: &str| {
        if !text.is_empty() {
            lines.push(format!("{name:<7} {}", printable(text)));
        }
    };
    field("what", &origin);
    field("id", entry.record_id.as_deref().unwrap_or_default());
    field("event", entry.event_type.as_deref().unwrap_or_default());
    field("reason", &entry.reason);
    match entry.status {
        Some(status) => field("answer", &format!("{status} {}", entry.detail)),
        None => field("detail", &entry.detail),
    }
    field("body", &format!("{} bytes", number(entry.bytes as u64)));
    let body = entry.body.as_ref().map(|body| pretty(body.get())).unwrap_or_default();
    lines.extend(body.lines().map(printable));
    lines.join("\n")
}

/// Writes everything, or leaves what was there before: to a file that only its owner may read (Promise 8).
async fn export(client: &mut Client, output: Option<&Path>) -> Result<(), Failure> {
    let Some(path) = output else {
        let written = write_all(client, &mut std::io::stdout().lock()).await;
        return match written {
            // A reader such as `head` has seen enough.
            Err(Failure::Failed(error)) if is_broken_pipe(&error) => Ok(()),
            written => written.map(drop),
        };
    };
    let failed = || format!("write {}", path.display());
    let special = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
    if special {
        let mut out = fs::OpenOptions::new().write(true).open(path).with_context(failed)?;
        return write_all(client, &mut out).await.map(drop);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut out = tempfile::NamedTempFile::new_in(folder).with_context(failed)?;
    let entries = write_all(client, &mut out).await?;
    out.as_file().sync_all().with_context(failed)?;
    out.persist(path).with_context(failed)?;
    show::note(&format!("{} entries written", number(entries)));
    Ok(())
}

/// Writes every entry, page by page, as the daemon gives it; returns how many.
async fn write_all(client: &mut Client, out: &mut impl Write) -> Result<u64, Failure> {
    #[derive(Deserialize)]
    struct Line {
        id: QuarantineId,
    }
    let (mut from, mut entries) = (0, 0);
    loop {
        let path = format!("/v1/quarantine/export?from={from}&limit={PAGE}");
        let page = client.get_raw(&path).await?;
        let lines = page.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let Some(last) = lines.clone().next_back() else { break };
        let last: Line = serde_json::from_slice(last).context("read the last entry of a page")?;
        from = last.id.0 + 1;
        entries += lines.count() as u64;
        out.write_all(&page).context("write the entries")?;
    }
    out.flush().context("write the entries")?;
    Ok(entries)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::{LaneId, PersonKeys, Seq};

    fn entry(id: u64, record_id: &str) -> QuarantineEntry {
        QuarantineEntry {
            id: QuarantineId(id),
            reason: "rejected".into(),
            detail: "\u{1b}[2Jno".into(),
            status: Some(400),
            origin: Origin::Record {
                lane: LaneId(1),
                integration: "a-rather-long-name-of-a-shop".into(),
                seq: Seq(7),
                record_type: "custom_event".into(),
                person: PersonKeys::default(),
            },
            at: UnixMillis(0),
            bytes: 1234,
            record_id: Some(record_id.into()),
            event_type: Some("product_added_to_a_very_long_list".into()),
            body: Some(
                serde_json::value::RawValue::from_string(r#"{"id":"x","n":1.00}"#.into()).unwrap(),
            ),
        }
    }

    #[test]
    fn a_row_fits_a_terminal_and_cannot_drive_it() {
        let entries =
            [entry(1_234_567, "evt_0123456789abcdef0123456789abcdef"), entry(2, "\u{1b}]0;x\n")];
        let table = table(&entries, UnixMillis(90_061_000));
        assert_eq!(table.lines().count(), 3, "{table}");
        for line in table.lines() {
            assert!(line.chars().count() <= 80, "{}: {line}", line.chars().count());
        }
        assert!(!table.contains('\u{1b}') && table.contains("1 d "), "{table}");
    }

    #[test]
    fn an_entry_is_shown_whole() {
        let text = described(&entry(5, "r-5"), UnixMillis(200_000));
        let text = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(
            text,
            "entry 5, set aside 3 min 20 s ago\n\
             what    custom_event, seq 7 of integration \"a-rather-long-name-of-a-shop\"\n\
             id      r-5\n\
             event   product_added_to_a_very_long_list\n\
             reason  rejected\n\
             answer  400 \\u{1b}[2Jno\n\
             body    1,234 bytes\n\
             {\n  \"id\": \"x\",\n  \"n\": 1.00\n}"
        );
    }
}
