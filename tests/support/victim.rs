//! A daemon that is killed, from outside or at a point that `PILLARBOX_KILL_AT` names, and what may then come again.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};

use super::{Host, Upstream, wait_until};

/// What a push may hold, and so what a kill may repeat.
const PUSH_RECORDS_MAX: usize = 100;

/// A daemon whose log goes to a file.
pub(crate) struct Victim {
    pub(crate) child: Child,
}

impl Victim {
    pub(crate) fn start(host: &Host, kill_at: Option<&str>) -> Victim {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
        command.arg("run").arg("--config").arg(host.config());
        // Little is kept, so that segments of the log are removed all the time.
        command.args(["--set", "spool.keep_delivered=50"]);
        command.env_remove("RUST_BACKTRACE").env_remove("RUST_LOG");
        if let Some(point) = kill_at {
            command.env("PILLARBOX_KILL_AT", point);
        }
        let log = File::create(host.folder.path().join("log")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        Victim { child }
    }

    pub(crate) fn log(host: &Host) -> String {
        std::fs::read_to_string(host.folder.path().join("log")).unwrap()
    }

    pub(crate) fn wait_until_ready(&mut self, host: &Host) {
        wait_until("the start", || {
            assert_eq!(self.child.try_wait().unwrap(), None, "{}", Victim::log(host));
            Victim::log(host).contains(" ready ")
        });
    }

    pub(crate) fn kill(mut self, host: &Host) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "it ended by itself: {status}\n{}", Victim::log(host));
    }

    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Upstream and a host without daemon.
pub(crate) fn scene() -> (Upstream, Host) {
    let upstream = Upstream::start(None, &["poison=poison-", "delay=15ms,every=3"]);
    let host = Host::new(&upstream.url, "key", "");
    (upstream, host)
}

/// Checks that the lane arrived in one order for all, that only the last push before a kill came again, and then whole
/// and in order; returns how many records came again.
pub(crate) fn check_repeats(ids: &[&str], kills: usize) -> usize {
    let mut place: HashMap<&str, usize> = HashMap::new();
    let (mut at, mut returns) = (0, 0);
    for id in ids {
        let next = place.len();
        let here = *place.entry(id).or_insert(next);
        if here != at {
            returns += 1;
            assert!(
                here < at,
                "{id} arrived after a gap: {here} records instead of {at} before it"
            );
            assert!(
                next - here <= PUSH_RECORDS_MAX,
                "{id} is not of the last push, and came again"
            );
        }
        at = here + 1;
    }
    assert_eq!(at, place.len(), "a repetition ended early");
    assert!(returns <= kills, "{returns} pushes came again after {kills} kills");
    ids.len() - place.len()
}
