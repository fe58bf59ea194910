//! `pillarbox quarantine`: what was set aside, and what becomes of it.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use comfy_table::Table;

use super::client::Client;
use super::show::{self, BOLD, DIM, age, number};
use super::{Configured, Failure};
use crate::admin::protocol::{QuarantineEntry, Released, Selection};
use crate::clock;
use crate::config;
use crate::spool::{Origin, QuarantineId};

#[derive(Debug, Args)]
pub(super) struct Quarantine {
    #[command(flatten)]
    configured: Configured,
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
    },
    /// Show one entry with its answer and its body
    Show {
        /// Its number
        id: u64,
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
        /// The file to write; otherwise standard output
        #[arg(short, long)]
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
const PAGE: usize = 100;

pub(super) async fn run(quarantine: &Quarantine) -> Result<(), Failure> {
    let (_, admin) = config::sockets(&quarantine.configured.source());
    let mut client = Client::connect(&admin).await?;
    match &quarantine.action {
        Action::List { json } => list(&mut client, *json).await?,
        Action::Show { id } => show_entry(&mut client, *id).await?,
        Action::Export { output } => export(&mut client, output.as_ref()).await?,
        Action::Retry(which) => {
            let released = client.post("/v1/quarantine/retry", &which.selection()).await?;
            return said(&released, "queued again");
        }
        Action::Drop { which, yes } => {
            if which.all && !yes {
                confirm()?;
            }
            let released = client.post("/v1/quarantine/drop", &which.selection()).await?;
            return said(&released, "removed for good");
        }
    }
    Ok(())
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
    for kept in &released.kept {
        show::problem(&format!("entry {} stays: {}", kept.id.0, kept.message));
    }
    if released.kept.is_empty() { Ok(()) } else { Err(Failure::Said) }
}

/// Goes through all entries, page by page.
async fn each(
    client: &mut Client,
    bodies: bool,
    mut take: impl FnMut(QuarantineEntry) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let (mut from, mut count) = (0, 0);
    loop {
        let query = if bodies { "&bodies" } else { "" };
        let page: Vec<QuarantineEntry> =
            client.get(&format!("/v1/quarantine?from={from}&limit={PAGE}{query}")).await?;
        let Some(last) = page.last() else { return Ok(count) };
        from = last.id.0 + 1;
        for entry in page {
            count += 1;
            take(entry)?;
        }
    }
}

async fn list(client: &mut Client, json: bool) -> anyhow::Result<()> {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header([
        "id",
        "age",
        "integration",
        "reason",
        "answer",
        "record",
    ]);
    let now = clock::now();
    let count = each(client, false, |entry| {
        if json {
            show::line(&serde_json::to_string(&entry)?);
            return Ok(());
        }
        let integration = match &entry.origin {
            Origin::Record { integration, .. } => integration.clone(),
            Origin::Event { integration, .. } => {
                integration.clone().unwrap_or_else(|| "-".to_owned())
            }
        };
        let answer = entry.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
        let record = entry.record_id.unwrap_or_else(|| "-".to_owned());
        table.add_row([
            entry.id.0.to_string(),
            age(entry.at.age(now)),
            integration,
            entry.reason,
            answer,
            record,
        ]);
        Ok(())
    });
    let count = count.await?;
    match (json, count) {
        (true, _) => {}
        (false, 0) => show::line("the quarantine is empty"),
        (false, _) => {
            show::line(&format!("{table}\n\n{DIM}`pillarbox quarantine show ID` shows why{DIM:#}"));
        }
    }
    Ok(())
}

async fn show_entry(client: &mut Client, id: u64) -> anyhow::Result<()> {
    let page: Vec<QuarantineEntry> =
        client.get(&format!("/v1/quarantine?from={id}&limit=1&bodies")).await?;
    let entry = page.into_iter().find(|entry| entry.id.0 == id);
    let entry = entry
        .ok_or_else(|| anyhow!("there is no entry {id}: `pillarbox quarantine list` shows all"))?;
    let origin = match &entry.origin {
        Origin::Record { integration, seq, record_type, .. } => {
            format!("{record_type}, seq {} of integration {integration:?}", seq.0)
        }
        Origin::Event { kind, integration: Some(name) } => {
            format!("event ({kind}) for integration {name:?}")
        }
        Origin::Event { kind, .. } => {
            format!("event ({})", if kind.is_empty() { "unknown type" } else { kind })
        }
    };
    let status = entry.status.map_or_else(String::new, |status| format!("{status} "));
    show::line(&format!(
        "{BOLD}entry {id}{BOLD:#}, set aside {} ago",
        age(entry.at.age(clock::now()))
    ));
    show::line(&format!("what    {origin}"));
    show::line(&format!("reason  {}", entry.reason));
    show::line(&format!("answer  {status}{}", entry.detail));
    let body = entry.body.context("the daemon sent no body")?;
    show::line(&format!(
        "body    ({} bytes, as it stands)\n{}",
        number(entry.bytes as u64),
        body.get()
    ));
    Ok(())
}

async fn export(client: &mut Client, output: Option<&PathBuf>) -> anyhow::Result<()> {
    let mut out: Box<dyn std::io::Write> = match output {
        Some(path) => {
            let file = std::fs::File::create(path)
                .with_context(|| format!("create {}", path.display()))?;
            Box::new(std::io::BufWriter::new(file))
        }
        None => Box::new(std::io::stdout().lock()),
    };
    let count = each(client, true, |entry| {
        serde_json::to_writer(&mut out, &entry)?;
        Ok(out.write_all(b"\n")?)
    });
    let count = count.await?;
    out.flush().context("write the entries")?;
    if output.is_some() || !std::io::stdout().is_terminal() {
        show::note(&format!("{} entries written", number(count)));
    }
    Ok(())
}
