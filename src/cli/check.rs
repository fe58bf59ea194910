//! `pillarbox check`: everything that would stop the daemon, told before it starts.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use clap::Args;
use rustix::fs::Access;

use super::show::{self, GOOD, WARN};
use super::{Configured, Failure};
use crate::config::{self, Config};
use crate::forward::HttpUpstream;
use crate::spool::{Drive, OpenError, Spool};

#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    configured: Configured,
    /// Print the configuration in force, overrides and defaults included; keys are shown as ***
    #[arg(long)]
    effective: bool,
}

/// What the checks found.
#[derive(Default)]
struct Found {
    faults: Vec<String>,
    notes: Vec<String>,
}

pub(super) async fn run(check: &Check) -> Result<(), Failure> {
    let source = check.configured.source();
    let config = match config::load(&source) {
        Ok(config) => config,
        Err(faults) => {
            show::problem(&super::told(&faults));
            return Err(Failure::Said);
        }
    };
    if check.effective {
        show::line(&config.effective());
    }
    let mut found = Found::default();
    let running = sockets(&config, &mut found);
    writable(&config.state_dir, "state_dir", &mut found);
    for integration in &config.integrations {
        if let Err(error) = HttpUpstream::new(&integration.forward, None) {
            found.faults.push(format!("integration {:?}: {error:#}", integration.name));
        }
    }
    if !running && found.faults.is_empty() {
        spool(&config, &mut found).await;
    }
    for note in &found.notes {
        show::line(&format!("{WARN}note{WARN:#}  {note}"));
    }
    if found.faults.is_empty() {
        let count = config.integrations.len();
        show::line(&format!(
            "{GOOD}ok{GOOD:#}    {}: {count} integration(s), nothing at fault",
            source.file().display()
        ));
        return Ok(());
    }
    for fault in &found.faults {
        show::problem(fault);
    }
    Err(Failure::Said)
}

/// Checks both socket paths; `true` when a daemon answers on one.
fn sockets(config: &Config, found: &mut Found) -> bool {
    let mut running = false;
    for (path, key) in
        [(&config.ingest.socket, "[ingest] socket"), (&config.admin.socket, "[admin] socket")]
    {
        match fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                found.faults.push(format!(
                    "{key}: {} exists and is no socket: remove it, or configure another path",
                    path.display()
                ));
            }
            Ok(_) if UnixStream::connect(path).is_ok() => running = true,
            _ => writable(path.parent().unwrap_or(Path::new("/")), key, found),
        }
    }
    if running {
        found.notes.push(
            "a daemon answers on a socket: the spool, which it holds, was not looked at".to_owned(),
        );
    }
    running
}

/// Checks that a directory can be written, or made.
fn writable(directory: &Path, key: &str, found: &mut Found) {
    let mut at = directory;
    while !at.exists() {
        match at.parent() {
            Some(parent) => at = parent,
            None => return,
        }
    }
    if !at.is_dir() {
        found.faults.push(format!("{key}: {} is no directory", at.display()));
    } else if let Err(error) = rustix::fs::access(at, Access::WRITE_OK | Access::EXEC_OK) {
        found.faults.push(format!(
            "{key}: {} cannot be written: {error}; check as the daemon's user",
            at.display()
        ));
    } else if at != directory {
        found
            .notes
            .push(format!("{key}: {} does not exist yet; it will be made", directory.display()));
    }
}

/// Opens the spool as the daemon would, when there is one.
async fn spool(config: &Config, found: &mut Found) {
    if !config.spool.directory.join("CURRENT").exists() {
        found.notes.push(format!("no spool yet in {}", config.spool.directory.display()));
        return;
    }
    let options = config.spool.clone();
    let opened = tokio::task::spawn_blocking(move || Spool::open(options, Drive::Thread)).await;
    match opened {
        Ok(Ok(spool)) => {
            let mut queued = 0;
            for (lane, ..) in spool.lanes() {
                match spool.stats(lane).await {
                    Ok(stats) => queued += stats.queued_records,
                    Err(error) => found.faults.push(error.to_string()),
                }
            }
            let quarantined = spool.quarantine_count();
            found.notes.push(format!(
                "the spool opens: {} records queued, {} quarantined",
                show::number(queued),
                show::number(quarantined)
            ));
            spool.close().await;
        }
        Ok(Err(error @ OpenError::Locked { .. })) => {
            found.notes.push(format!("the spool was not looked at: {error}"));
        }
        Ok(Err(error)) => found.faults.push(format!("{:#}", anyhow::Error::from(error))),
        Err(error) => found.faults.push(format!("the spool could not be opened: {error}")),
    }
}
