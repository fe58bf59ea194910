//! `pillarbox check`: everything that would stop the daemon, told before it starts.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use hyper::Method;
use rustix::fs::Access;

use super::client::Client;
use super::show::{self, GOOD, WARN};
use super::{Configured, Failure};
use crate::config::{self, Config, Origin, SetAside, Why};
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

/// For a sign of life of what listens on a socket.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// What the checks found.
#[derive(Default)]
struct Found {
    faults: Vec<String>,
    notes: Vec<String>,
}

pub(super) async fn run(check: &Check) -> Result<(), Failure> {
    let source = check.configured.source();
    let config = match config::load(&source, None) {
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
    found.notes.extend(config::exposed(&source));
    let running = sockets(&config, &mut found).await;
    for address in config.ingest.listen.iter().filter(|address| !address.ip().is_loopback()) {
        found.notes.push(format!(
            "ingest.listen: on {address} events and write keys travel in the clear: prefer the Unix socket or a loopback address"
        ));
    }
    writable(&config.state_dir, "state_dir", &mut found);
    set_aside(&config, &mut found);
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
        let names = config.integrations.iter().map(|known| match &known.origin {
            Origin::File => known.name.clone(),
            Origin::Stored { .. } => format!("{} (stored)", known.name),
        });
        let names: Vec<String> = names.collect();
        let to = if names.is_empty() { "nobody yet".to_owned() } else { names.join(", ") };
        let file = source.file().display();
        show::line(&format!("{GOOD}ok{GOOD:#}    {file}: nothing at fault; delivers to {to}"));
        return Ok(());
    }
    for fault in &found.faults {
        show::problem(fault);
    }
    Err(Failure::Said)
}

/// Tells of stored integrations that are not in force.
fn set_aside(config: &Config, found: &mut Found) {
    for SetAside { name, path, why, .. } in &config.set_aside {
        match why {
            Why::Overruled => found.notes.push(format!(
                "integration {name:?}: what is stored in {} is overruled by the configuration file: `pillarbox integration remove {name}` removes it",
                path.display()
            )),
            Why::Broken(faults) if name.is_empty() => found.faults.push(format!(
                "the folder of the stored integrations cannot be read, and the daemon would not start:\n{faults}"
            )),
            Why::Broken(faults) => found.faults.push(format!(
                "the stored integration {name:?} has faults, and would not be delivered:\n{faults}"
            )),
        }
    }
    if config.integrations.is_empty() {
        let note = "no integration is configured: events are refused (503) until there is one: `pillarbox integration add`";
        found.notes.push(note.to_owned());
    }
}

/// Checks both socket paths; `true` when a daemon answers.
async fn sockets(config: &Config, found: &mut Found) -> bool {
    let (ingest, admin) = (&config.ingest.socket, &config.admin.socket);
    let ingest = socket(ingest, "[ingest] socket", "/health", found).await;
    let admin = socket(admin, "[admin] socket", "/v1/status", found).await;
    let running = ingest || admin;
    if running {
        found
            .notes
            .push("pillarbox is running: the spool, which it holds, was not looked at".to_owned());
    }
    running
}

/// Checks one socket path; `true` when a daemon answers on it.
async fn socket(path: &Path, key: &str, ask: &str, found: &mut Found) -> bool {
    let shown = path.display();
    let is_socket = fs::symlink_metadata(path).map(|metadata| metadata.file_type().is_socket());
    match is_socket {
        Ok(false) => {
            found.faults.push(format!(
                "{key}: {shown} exists and is no socket: remove it, or configure another path"
            ));
            return false;
        }
        Ok(true) => match UnixStream::connect(path) {
            Ok(_) => {
                let answers = answers(path, ask).await;
                if !answers {
                    found.faults.push(format!(
                        "{key}: another program listens on {shown}: stop it, or configure another path; where systemd holds the socket, the daemon does not start: `systemctl status pillarbox` says why"
                    ));
                }
                return answers;
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                found.notes.push(format!(
                    "{key}: {shown} may not be tried by this user: whether a daemon answers is not known"
                ));
            }
            // A socket that a daemon left behind: the next one replaces it.
            Err(_) => {}
        },
        Err(_) => {}
    }
    writable(path.parent().unwrap_or(Path::new("/")), key, found);
    false
}

/// Whether what listens on `path` talks as the daemon does; a health of 503 is an answer as well.
async fn answers(path: &Path, ask: &str) -> bool {
    let Ok(mut client) = Client::connect(path).await else { return false };
    let answered = client.request(Method::GET, ask, Bytes::new(), Some(ANSWER_MAX)).await;
    answered.is_ok_and(|answered| matches!(answered.status, 200 | 503))
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
    // The lock alone is no spool. Anything else is one, whole or not.
    let entries = fs::read_dir(&config.spool.directory).into_iter().flatten().flatten();
    if entries.filter(|entry| entry.file_name() != "lock").count() == 0 {
        found.notes.push(format!("no spool yet in {}", config.spool.directory.display()));
        return;
    }
    // Opening writes: what another user's files become then, the daemon might not be able to read.
    let owner = fs::metadata(&config.spool.directory).map(|metadata| metadata.uid());
    let me = rustix::process::geteuid().as_raw();
    if let Some(owner) = owner.ok().filter(|owner| *owner != me) {
        found.notes.push(format!(
            "the spool was not looked at: it belongs to user {owner}; check as that user (sudo -u '#{owner}' pillarbox check)"
        ));
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
                "the spool opens: {} records queued, {} quarantined; `pillarbox spool verify` reads every one of them",
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    async fn checked(path: &Path) -> (bool, Vec<String>) {
        let mut found = Found::default();
        let running = socket(path, "[admin] socket", "/v1/status", &mut found).await;
        (running, found.faults)
    }

    #[tokio::test]
    async fn a_path_is_free_taken_or_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        assert_eq!(checked(&path).await, (false, vec![]), "nothing there");
        fs::write(&path, "").unwrap();
        let (_, faults) = checked(&path).await;
        assert!(faults.len() == 1 && faults[0].contains("is no socket"), "{faults:?}");
        fs::remove_file(&path).unwrap();

        let listener = UnixListener::bind(&path).unwrap();
        let stranger = std::thread::spawn(move || {
            // The first connection is the look whether somebody listens at all.
            (0..2).for_each(|_| drop(listener.accept().unwrap()));
        });
        let (running, faults) = checked(&path).await;
        assert!(
            !running && faults.len() == 1 && faults[0].contains("another program"),
            "{faults:?}"
        );
        stranger.join().unwrap();
        assert_eq!(checked(&path).await, (false, vec![]), "left behind");
    }

    #[test]
    fn a_directory_is_one_or_can_be_made() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        for (path, faults, notes) in [
            (folder.path().join("a/b"), 0, 1),
            (folder.path().to_owned(), 0, 0),
            (file.join("a"), 1, 0),
        ] {
            let mut found = Found::default();
            writable(&path, "state_dir", &mut found);
            assert_eq!((found.faults.len(), found.notes.len()), (faults, notes), "{path:?}");
        }
    }
}
