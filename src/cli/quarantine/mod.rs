//! `pillarbox quarantine`: what was set aside, and what becomes of it.

mod edit;
mod list;
mod transfer;

use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::{ArgGroup, Args, Subcommand};

use super::show::{self, number, printable};
use super::when::When;
use super::{Admin, Failure};
use crate::admin::protocol::{QuarantineFilter, Released, Selection};
use crate::clock;
use crate::spool::QuarantineId;

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
        #[command(flatten)]
        filter: Filter,
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
    /// Mend the body of one entry in an editor ($VISUAL, $EDITOR, or vi), then deliver it under its old id
    #[command(
        after_help = "Examples:\n  pillarbox quarantine edit 17\n  pillarbox quarantine edit 17 --body mended.json"
    )]
    Edit {
        /// Its number
        id: u64,
        /// Take this file as the new body, instead of opening an editor; `-`: standard input
        #[arg(long, value_name = "FILE")]
        body: Option<PathBuf>,
    },
    /// Remove entries for good
    Drop {
        #[command(flatten)]
        which: Which,
        /// Do not ask before removing every entry, or every one that fits
        #[arg(long)]
        yes: bool,
    },
    /// Write entries as NDJSON, bodies included
    Export {
        #[command(flatten)]
        filter: Filter,
        /// The file to write, readable by you alone; otherwise standard output
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Take in what `export` has written, here or on another host, under new numbers
    #[command(after_help = "Example:\n  pillarbox quarantine import set-aside.ndjson")]
    Import {
        /// The file; `-`: standard input
        file: PathBuf,
    },
}

/// Entries that fit all that is given.
#[derive(Debug, Args)]
struct Filter {
    /// Those of this integration
    #[arg(long, value_name = "NAME")]
    integration: Option<String>,
    /// Those with this reason, as `list` shows it: rejected, `too_large`, …
    #[arg(long)]
    reason: Option<String>,
    /// Those of this event type, or record type
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Those about this e-mail address
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// Those set aside at this time or later: 2026-06-06T12:00:00Z, or how long ago: 90min
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    since: Option<When>,
    /// Those set aside before this time
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    until: Option<When>,
    /// Those that were answered with this status
    #[arg(long, value_name = "STATUS")]
    status: Option<u16>,
}

impl Filter {
    fn read(&self) -> QuarantineFilter {
        let now = clock::now();
        QuarantineFilter {
            integration: self.integration.clone(),
            reason: self.reason.clone(),
            r#type: self.event_type.clone(),
            email: self.email.clone(),
            since: self.since.map(|when| when.at(now)),
            until: self.until.map(|when| when.at(now)),
            status: self.status,
        }
    }
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("chosen").required(true).multiple(true).args([
    "ids", "all", "integration", "reason", "event_type", "email", "since", "until", "status",
]))]
struct Which {
    /// Numbers of entries
    #[arg(conflicts_with = "Filter")]
    ids: Vec<u64>,
    /// Every entry
    #[arg(long, conflicts_with_all = ["ids", "Filter"])]
    all: bool,
    #[command(flatten)]
    filter: Filter,
}

impl Which {
    fn selection(&self) -> Selection {
        if self.all {
            Selection::All
        } else if self.ids.is_empty() {
            Selection::Filter(self.filter.read())
        } else {
            Selection::Ids(self.ids.iter().copied().map(QuarantineId).collect())
        }
    }
}

pub(super) async fn run(quarantine: &Quarantine) -> Result<(), Failure> {
    let admin = &quarantine.admin;
    let mut client = admin.connect().await?;
    match &quarantine.action {
        Action::List { filter, json, limit } => {
            list::list(&mut client, filter.read(), *json, *limit).await
        }
        Action::Show { id, json } => list::show_entry(&mut client, *id, *json).await,
        Action::Export { filter, output } => {
            transfer::export(&mut client, filter.read(), output.as_deref()).await
        }
        Action::Import { file } => transfer::import(&mut client, file).await,
        Action::Edit { id, body } => edit::run(&mut client, *id, body.as_deref()).await,
        Action::Retry(which) => {
            let released = client.post("/v1/quarantine/retry", &which.selection()).await?;
            said(&released, "queued again")
        }
        Action::Drop { which, yes } => {
            if which.ids.is_empty() && !yes {
                confirm(if which.all { "every entry" } else { "every entry that fits" })?;
            }
            let released = client.post("/v1/quarantine/drop", &which.selection()).await?;
            said(&released, "removed for good")
        }
    }
}

/// Asks before `what` is removed; without a terminal to ask on, `--yes` must say it.
fn confirm(what: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(anyhow!("this removes {what} for good: say so with --yes").into());
    }
    show::note(&format!("this removes {what} for good; type yes to go on:"));
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
