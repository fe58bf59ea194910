//! The sockets that systemd hands over, by name: `FileDescriptorName=ingest` and `=admin` of the units.
//!
//! systemd keeps its end of them: who connects while the daemon is stopped, killed or replaced waits in the backlog, and is
//! served by the next one.
//!
//! Whoever reaches the operators' socket is an operator: one that lies elsewhere than configured, as when the names of two are
//! exchanged, or that others than its owner may use, is not served.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;

use anyhow::Context as _;
use listenfd::ListenFd;
use tokio::net::UnixListener;

/// The names that sockets are known by.
const NAMES: [&str; 2] = ["ingest", "admin"];

/// Sockets that were handed over and are not taken yet.
#[derive(Debug, Default)]
pub struct Handed([Option<StdListener>; NAMES.len()]);

impl Handed {
    /// Takes what this process was handed. To be called once, before there are other threads that read the environment.
    ///
    /// # Errors
    /// When a socket is no listening Unix socket, or has no name that is known.
    pub fn take() -> anyhow::Result<Handed> {
        let names = std::env::var("LISTEN_FDNAMES").ok();
        let mut sockets = ListenFd::from_env();
        let places = places(names.as_deref(), sockets.len()).map_err(anyhow::Error::msg)?;
        let mut handed = Handed::default();
        for (index, place) in places.into_iter().enumerate() {
            let name = NAMES.get(place).copied().unwrap_or_default();
            let what = || {
                format!(
                    "take over the socket {name:?} from systemd: ListenStream= must name a Unix socket's path"
                )
            };
            let socket = sockets.take_unix_listener(index).with_context(what)?;
            if let Some(slot) = handed.0.get_mut(place) {
                *slot = socket;
            }
        }
        Ok(handed)
    }

    /// Whether producers wait at a socket that systemd holds.
    #[must_use]
    pub fn holds_ingest(&self) -> bool {
        self.0.first().is_some_and(Option::is_some)
    }

    /// The producers' socket, configured to be at `path`; `None` when it was not handed over.
    pub(super) fn ingest(&mut self, path: &Path) -> Option<anyhow::Result<UnixListener>> {
        self.listener(0, path)
    }

    /// The operators' socket, likewise; an error when others could reach it.
    pub(super) fn admin(&mut self, path: &Path) -> Option<anyhow::Result<UnixListener>> {
        let socket = self.0.get(1)?.as_ref()?;
        if let Err(error) = private(socket, path) {
            return Some(Err(error));
        }
        self.listener(1, path)
    }

    fn listener(&mut self, place: usize, path: &Path) -> Option<anyhow::Result<UnixListener>> {
        let name = NAMES.get(place)?;
        let socket = self.0.get_mut(place)?.take()?;
        let at = socket.local_addr().ok().and_then(|at| at.as_pathname().map(Path::to_owned));
        match at.filter(|at| at != path) {
            Some(at) => tracing::warn!(
                socket = name, systemd = %at.display(), configured = %path.display(),
                "systemd hands over another socket than is configured: commands and producers that look there find none"
            ),
            None => {
                tracing::info!(socket = name, path = %path.display(), "systemd hands over a socket");
            }
        }
        let listener = socket
            .set_nonblocking(true)
            .and_then(|()| UnixListener::from_std(socket))
            .with_context(|| format!("take over the socket {name:?} from systemd"));
        Some(listener)
    }
}

/// Checks that the operators' socket is the one at `path`, and for its owner alone.
fn private(socket: &StdListener, path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    let at = socket.local_addr().ok().and_then(|at| at.as_pathname().map(Path::to_owned));
    if at.as_deref() != Some(path) {
        let at = at.map_or("a socket without a path".to_owned(), |at| at.display().to_string());
        anyhow::bail!(
            "systemd hands over {at} as the operators' socket, and `admin.socket` is {shown}: make ListenStream= of the unit with FileDescriptorName=admin and `admin.socket` the same"
        );
    }
    let metadata =
        fs::metadata(path).with_context(|| format!("look at the operators' socket {shown}"))?;
    let mode = metadata.permissions().mode() & 0o777;
    let others = mode & 0o077;
    anyhow::ensure!(
        others == 0,
        "others may use the operators' socket {shown} (mode {mode:04o}): set SocketMode=0600 in its .socket unit, then restart that"
    );
    Ok(())
}

/// PURE. Which of [`NAMES`] each of `count` sockets is, by the value of `LISTEN_FDNAMES`.
fn places(names: Option<&str>, count: usize) -> Result<Vec<usize>, String> {
    let cure = "set FileDescriptorName=ingest or FileDescriptorName=admin in its .socket unit";
    let names: Vec<&str> =
        names.filter(|_| count > 0).map_or_else(Vec::new, |names| names.split(':').collect());
    if names.len() != count {
        return Err(format!(
            "systemd hands over {count} sockets and {} names: {cure}",
            names.len()
        ));
    }
    let mut places = Vec::new();
    for name in names {
        match NAMES.iter().position(|known| *known == name) {
            Some(place) if places.contains(&place) => {
                return Err(format!(
                    "systemd hands over two sockets named {name:?}: each may come once"
                ));
            }
            Some(place) => places.push(place),
            None => return Err(format!("systemd hands over a socket named {name:?}: {cure}")),
        }
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_operators_socket_is_the_configured_one_and_private() {
        let folder = tempfile::tempdir().unwrap();
        let [ingest, admin] = ["ingest.sock", "admin.sock"].map(|name| folder.path().join(name));
        for (bound, mode, expected) in [
            (&admin, 0o600, ""),
            (&admin, 0o660, "(mode 0660): set SocketMode=0600"),
            (&admin, 0o602, "(mode 0602): set SocketMode=0600"),
            // The names of the two are exchanged.
            (&ingest, 0o660, "ingest.sock as the operators' socket"),
            (&ingest, 0o600, "ingest.sock as the operators' socket"),
        ] {
            let socket = StdListener::bind(bound).unwrap();
            fs::set_permissions(bound, fs::Permissions::from_mode(mode)).unwrap();
            let mut handed = Handed([None, Some(socket)]);
            let told = handed.admin(&admin).unwrap().err().map(|error| error.to_string());
            assert_eq!(told.is_some(), !expected.is_empty(), "{bound:?} {mode:o}");
            assert!(told.unwrap_or_default().contains(expected), "{bound:?} {mode:o}");
            fs::remove_file(bound).unwrap();
        }
        assert!(Handed::default().admin(&admin).is_none());
    }

    #[test]
    fn sockets_are_known_by_their_names() {
        let good = |names, count, expected: &[usize]| {
            assert_eq!(places(names, count).as_deref(), Ok(expected), "{names:?}");
        };
        good(None, 0, &[]);
        good(Some("left over"), 0, &[]);
        good(Some("admin:ingest"), 2, &[1, 0]);
        good(Some("ingest"), 1, &[0]);
        for (names, count, part) in [
            (None, 1, "FileDescriptorName="),
            (Some("pillarbox.socket"), 1, "named \"pillarbox.socket\": set FileDescriptorName="),
            (Some("ingest:ingest"), 2, "two sockets named \"ingest\""),
            (Some("ingest"), 2, "2 sockets and 1 names"),
        ] {
            let error = places(names, count).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
