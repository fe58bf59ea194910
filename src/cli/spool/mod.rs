//! `pillarbox spool`: looks at a spool that no daemon runs on, and never changes it.

mod output;
mod told;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use self::output::Output;
use super::show::{self, number};
use super::{Configured, Failure};
use crate::config;
use crate::spool::offline::{Offline, Salvage, Salvaged, verify};

#[derive(Debug, Args)]
pub(super) struct Spool {
    #[command(flatten)]
    configured: Configured,
    /// The folder that holds the spool [default: that of the configuration]
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// For machines: the report as JSON (`verify`: on stdout, otherwise on stderr)
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Check every record, sequence and checksum
    Verify(Copied),
    /// Write what an intact spool holds as NDJSON
    Export {
        #[command(flatten)]
        written: Written,
        #[command(flatten)]
        copied: Copied,
    },
    /// Write what is left of a damaged spool as NDJSON
    Salvage {
        #[command(flatten)]
        written: Written,
    },
}

#[derive(Debug, Args)]
struct Copied {
    /// Where the store is copied to for the check [default: the system's folder for temporary files]
    #[arg(long, value_name = "DIR")]
    temp_dir: Option<PathBuf>,
}

impl Copied {
    fn folder(&self) -> PathBuf {
        self.temp_dir.clone().unwrap_or_else(std::env::temp_dir)
    }
}

#[derive(Debug, Args)]
struct Written {
    /// The file to write, readable by you alone; otherwise standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Only records that wait for delivery
    #[arg(long)]
    queued: bool,
}

pub(super) fn run(spool: &Spool) -> Result<(), Failure> {
    let state_dir = spool.state_dir()?;
    let directory = state_dir.join("spool");
    let failed = || format!("look at the spool in {}", directory.display());
    let offline = Offline::open(&directory).with_context(failed)?;
    match &spool.action {
        Action::Verify(copied) => {
            let bar = Bar::new("checking")?;
            let verified = verify(&offline, &copied.folder(), &mut |done, all| bar.tell(done, all));
            bar.end();
            let verified = verified.with_context(failed)?;
            if spool.json {
                show::line(&serde_json::to_string(&verified).context("write the report")?);
            } else {
                told::verified(&verified, &state_dir);
            }
            if verified.faults.is_empty() { Ok(()) } else { Err(Failure::Said) }
        }
        Action::Export { written, copied } => {
            let bar = Bar::new("checking")?;
            let verified = verify(&offline, &copied.folder(), &mut |done, all| bar.tell(done, all));
            bar.end();
            let verified = verified.with_context(failed)?;
            if !verified.faults.is_empty() {
                told::verified(&verified, &state_dir);
                return Err(Failure::Said);
            }
            salvage(&offline, written, &directory, spool.json).with_context(failed)?;
            Ok(())
        }
        Action::Salvage { written } => {
            let salvaged =
                salvage(&offline, written, &directory, spool.json).with_context(failed)?;
            if salvaged.complete() { Ok(()) } else { Err(Failure::Said) }
        }
    }
}

/// Writes every record that is found, and reports what that came to.
fn salvage(
    offline: &Offline,
    written: &Written,
    directory: &Path,
    json: bool,
) -> anyhow::Result<Salvaged> {
    let mut output = written.open(directory)?;
    let bar = Bar::new("reading")?;
    let scanned = Salvage::scan(offline, &mut |done, all| bar.tell(done, all));
    bar.end();
    let salvage = scanned?;
    let salvaged = output.write(|out| salvage.write(written.queued, out))?;
    output.finish()?;
    report(json, &salvaged, || told::salvaged(&salvaged))?;
    Ok(salvaged)
}

impl Spool {
    /// As given, else as configured. A configuration at fault elsewhere will do; but a file that was named and cannot be
    /// read would silently lead to another spool.
    fn state_dir(&self) -> Result<PathBuf, Failure> {
        if let Some(state_dir) = &self.state_dir {
            return Ok(state_dir.clone());
        }
        self.configured.sockets()?;
        Ok(config::state_dir(&self.configured.source()))
    }
}

impl Written {
    /// Records are many, and somebody's: they are not poured over a terminal.
    fn open(&self, spool: &Path) -> anyhow::Result<Output> {
        match &self.output {
            Some(path) => Output::file(path, spool),
            None if std::io::stdout().is_terminal() => Err(anyhow!(
                "name the file to write with --output FILE, or redirect standard output"
            )),
            None => Ok(Output::stdout()),
        }
    }
}

/// On stderr: stdout may hold the records.
fn report(
    json: bool,
    report: &impl serde::Serialize,
    tell: impl FnOnce(),
) -> Result<(), anyhow::Error> {
    if json {
        let json = serde_json::to_string(report).context("write the report")?;
        anstream::eprintln!("{json}");
    } else {
        tell();
    }
    Ok(())
}

/// A progress bar, on a terminal alone.
struct Bar(ProgressBar);

impl Bar {
    fn new(message: &'static str) -> anyhow::Result<Bar> {
        if !std::io::stderr().is_terminal() {
            return Ok(Bar(ProgressBar::hidden()));
        }
        let template = "{msg} {bar:30} {percent:>3}%  {bytes}/{total_bytes}  {eta} left";
        let bar = ProgressBar::new(0).with_message(message);
        bar.set_style(ProgressStyle::with_template(template).context("set up the progress bar")?);
        bar.enable_steady_tick(Duration::from_millis(100));
        Ok(Bar(bar))
    }

    fn tell(&self, done: u64, all: u64) {
        self.0.set_length(all);
        self.0.set_position(done);
    }

    fn end(&self) {
        self.0.finish_and_clear();
    }
}

/// `1 record`, `2,000 records`.
fn records(count: u64) -> String {
    let word = if count == 1 { "record" } else { "records" };
    format!("{} {word}", number(count))
}
