//! A system with systemd as its PID 1, in namespaces of its own (`boot`), with the units of `systemd/` installed in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

use crate::support::wait_until;

/// Set to any value, it lets these tests pass where no such system can be started, without having tested anything.
const SKIP: &str = "PILLARBOX_SKIP_SYSTEMD";

/// For every daemon of these tests: a watchdog that is not waited for long, and a log outside of the journal, which there is
/// none. That it lives on for longer than that is a test of its own.
const DROP_IN: &str = "[Service]\nWatchdogSec=3s\nStandardError=append:/run/pillarbox.log\n";

/// A running system. Ends when dropped.
pub(crate) struct Machine {
    system: Child,
    root: TempDir,
    /// Its PID 1, as this host knows it.
    pid: String,
}

impl Machine {
    /// Boots, and installs Pillarbox with one integration, "shop", whose key is a credential.
    ///
    /// `None`: it cannot be done here, and that was allowed.
    ///
    /// # Panics
    /// When it cannot be done here.
    pub(crate) fn boot(endpoint: &str, key: &str) -> Option<Machine> {
        match Machine::try_boot() {
            Ok(machine) => {
                machine.install(endpoint, key);
                Some(machine)
            }
            Err(reason) if std::env::var_os(SKIP).is_some() => {
                eprintln!("NOT TESTED under systemd, as {SKIP} allows: {reason}");
                None
            }
            Err(reason) => panic!(
                "systemd could not be started here: {reason}\nThis test needs root, the packages systemd and util-linux, and \
                 the rights to unshare namespaces and to mount cgroup2. Without them, {SKIP}=1 leaves it out."
            ),
        }
    }

    fn try_boot() -> Result<Machine, String> {
        let root = tempfile::tempdir().unwrap();
        let units = ["pillarbox.service", "pillarbox.socket", "pillarbox-admin.socket"];
        let mut system = Command::new(shipped("tests/systemd/boot"))
            .arg(root.path())
            .arg(env!("CARGO_BIN_EXE_pillarbox"))
            .args(units.map(|unit| shipped("systemd").join(unit)))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| error.to_string())?;
        // What was unshared has one child, the system's PID 1.
        let children = format!("/proc/{0}/task/{0}/children", system.id());
        let mut pid = String::new();
        let mut failed = None;
        wait_until("a system", || {
            failed = system.try_wait().unwrap();
            let read = fs::read_to_string(&children).unwrap_or_default();
            read.trim().clone_into(&mut pid);
            let private = format!("/proc/{pid}/root/run/systemd/private");
            failed.is_some() || (!pid.is_empty() && Path::new(&private).exists())
        });
        if let Some(status) = failed {
            let output = system.wait_with_output().unwrap();
            return Err(format!("{status}: {}", String::from_utf8_lossy(&output.stderr)));
        }
        let machine = Machine { system, root, pid };
        machine.wait_for(&["is-system-running"], "running");
        Ok(machine)
    }

    fn install(&self, endpoint: &str, key: &str) {
        for (tool, arguments, file) in [
            ("systemd-sysusers", &["-"][..], "pillarbox.sysusers"),
            ("systemd-tmpfiles", &["--create", "-"], "pillarbox.tmpfiles"),
        ] {
            let text = fs::File::open(shipped("systemd").join(file)).unwrap();
            let output = self.command(tool).args(arguments).stdin(text).output().unwrap();
            assert!(output.status.success(), "{file}: {output:?}");
        }
        self.write("etc/pillarbox/keys/shop", key);
        self.configure(endpoint, "");
        // As the package leaves it; what is written into it later changes nothing of that.
        for arguments in [["chown", "pillarbox:root"], ["chmod", "600"]] {
            let changed = self
                .command(arguments[0])
                .args([arguments[1], "/etc/pillarbox/pillarbox.toml"])
                .status();
            assert!(changed.unwrap().success(), "{arguments:?}");
        }
        self.drop_in("test", DROP_IN);
    }

    /// Writes the configuration: the shipped one, with one integration and `more`.
    pub(crate) fn configure(&self, endpoint: &str, more: &str) {
        let shipped = fs::read_to_string(shipped("systemd/pillarbox.toml")).unwrap();
        let text = format!(
            "{shipped}\n[[integration]]\nname = \"shop\"\napi_key_credential = \"key_shop\"\nendpoint = \"{endpoint}\"\n\
             retry = {{ initial = \"10ms\", max = \"50ms\" }}\nlinger = \"20ms\"\n{more}\n"
        );
        self.write("etc/pillarbox/pillarbox.toml", &text);
    }

    /// Adds settings to the service.
    pub(crate) fn drop_in(&self, name: &str, text: &str) {
        self.write(&format!("etc/systemd/system/pillarbox.service.d/{name}.conf"), text);
        self.systemctl(&["daemon-reload"]);
    }

    /// A path of the system, as this host can open it.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        Path::new("/proc").join(&self.pid).join("root").join(inside)
    }

    pub(crate) fn ingest(&self) -> PathBuf {
        self.path("run/pillarbox/ingest.sock")
    }

    pub(crate) fn write(&self, inside: &str, text: &str) {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("run/pillarbox.log")).unwrap_or_default()
    }

    /// A command of the system.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-m", "-p", "-i", "-u", "-C", "-r", "-w", "-t", &self.pid, program]);
        command.stdin(Stdio::null());
        command
    }

    /// Runs `systemctl`.
    pub(crate) fn try_systemctl(&self, arguments: &[&str]) -> Output {
        self.command("systemctl").arg("--no-pager").args(arguments).output().unwrap()
    }

    /// The same, which must succeed; what it prints.
    pub(crate) fn systemctl(&self, arguments: &[&str]) -> String {
        let output = self.try_systemctl(arguments);
        assert!(
            output.status.success(),
            "systemctl {arguments:?}: {output:?}\n{}\n{}",
            self.log(),
            self.systemd_log()
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// What systemd itself has logged.
    pub(crate) fn systemd_log(&self) -> String {
        let log = fs::read(self.path("dev/kmsg")).unwrap_or_default();
        String::from_utf8_lossy(&log).replace('\0', "")
    }

    /// A property of the service.
    pub(crate) fn show(&self, property: &str) -> String {
        let shown = self.systemctl(&["show", "--value", "-p", property, "pillarbox.service"]);
        shown.trim().to_owned()
    }

    /// Waits until `systemctl` answers so.
    pub(crate) fn wait_for(&self, arguments: &[&str], answer: &str) {
        wait_until(answer, || {
            String::from_utf8_lossy(&self.try_systemctl(arguments).stdout).trim() == answer
        });
    }

    /// Waits until the status of the service holds `text`.
    pub(crate) fn wait_for_status(&self, text: &str) {
        wait_until(text, || self.show("StatusText").contains(text));
    }

    /// Waits until the daemon is another than `before` and ready; its id.
    pub(crate) fn wait_for_successor(&self, before: &str) -> String {
        let mut now = String::new();
        wait_until("another daemon", || {
            now = self.show("MainPID");
            now != before && now != "0" && self.show("ActiveState") == "active"
        });
        now
    }

    /// Sends the daemon a signal.
    pub(crate) fn signal(&self, signal: &str) {
        self.systemctl(&["kill", "--kill-whom=main", "--signal", signal, "pillarbox.service"]);
    }

    /// `pillarbox status --json`.
    pub(crate) fn status(&self) -> serde_json::Value {
        let output = self.command("pillarbox").args(["status", "--json"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("── the daemon's log\n{}\n── systemd's\n{}", self.log(), self.systemd_log());
        }
        // With what was unshared, all that is in its namespaces is killed.
        drop(self.system.kill());
        drop(self.system.wait());
        let removed = Command::new(shipped("tests/systemd/boot"))
            .arg("--remove")
            .arg(self.root.path())
            .status();
        assert!(
            removed.is_ok_and(|status| status.success()) || std::thread::panicking(),
            "the control groups of a test are still there"
        );
    }
}

/// A file of the repository.
pub(crate) fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
