//! The sandbox, tried from inside.

use std::fs;

use crate::SERVICE;
use crate::machine::{Machine, shipped};
use crate::support::Upstream;

/// What is tried, and must fail.
const FORBIDDEN: [&str; 15] = [
    "touch /etc/x",
    "touch /usr/x",
    "touch /run/x",
    "touch /var/lib/x",
    "ls /home",
    "cat /home/somebody/file",
    "cat /etc/shadow",
    "cat /etc/pillarbox/keys/shop",
    "touch /sys/kernel/x",
    "echo 1 > /proc/sys/kernel/panic",
    "ls /dev/kmsg",
    "cat /proc/1/status",
    "unshare --user true",
    "mount -t tmpfs tmpfs /tmp",
    "chown root /var/lib/pillarbox",
];

/// What must be possible.
const ALLOWED: [&str; 4] = [
    "touch /var/lib/pillarbox/x",
    "touch /run/pillarbox/x",
    "touch /tmp/x",
    r#"test "$(cat "$CREDENTIALS_DIRECTORY/key_shop")" = the-key"#,
];

/// Goal: what the unit's comments say of its sandbox is so.
/// Method: the shipped unit with a script in the daemon's place, and without the lines that keep it from executing one; that
/// these do is tried with the unit as it is.
#[test]
fn the_sandbox_holds() {
    let upstream = Upstream::start(Some("the-key"), &[]);
    let Some(machine) = Machine::boot(&upstream.url, "the-key") else { return };
    let unit = fs::read_to_string(shipped("systemd/pillarbox.service")).unwrap();
    let apart = [
        "Type=",
        "ExecStart=",
        "ExecReload=",
        "Sockets=",
        "Restart=",
        "NoExecPaths=",
        "ExecPaths=",
    ];
    let kept = unit.lines().filter(|line| !apart.iter().any(|name| line.starts_with(name)));
    let probe = "Type=oneshot\nExecStart=/bin/bash /probe\nStandardOutput=file:/run/probed\nStandardError=file:/run/probed";
    let unit =
        kept.collect::<Vec<_>>().join("\n").replace("[Service]", &format!("[Service]\n{probe}"));
    machine.write("etc/systemd/system/probe.service", &unit);
    let mut script = String::new();
    for (kind, commands) in [("forbidden", &FORBIDDEN[..]), ("allowed", &ALLOWED)] {
        for command in commands {
            script += &format!(
                "if ( {command} ) >/dev/null 2>&1; then echo '{kind} done: {command}'; else echo '{kind} failed: {command}'; fi\n"
            );
        }
    }
    script += "cat /proc/self/status\nulimit -c\n";
    machine.write("probe", &script);
    machine.systemctl(&["daemon-reload"]);
    machine.systemctl(&["start", "probe.service"]);
    let probed = fs::read_to_string(machine.path("run/probed")).unwrap();
    for command in FORBIDDEN {
        assert!(probed.contains(&format!("forbidden failed: {command}\n")), "{command}\n{probed}");
    }
    for command in ALLOWED {
        assert!(probed.contains(&format!("allowed done: {command}\n")), "{command}\n{probed}");
    }
    assert!(probed.ends_with("\n0\n"), "core dumps\n{probed}");
    check_process(&probed);

    // The daemon itself, with the unit as it is.
    machine.systemctl(&["start", SERVICE]);
    let status =
        machine.command("cat").arg(format!("/proc/{}/status", machine.show("MainPID"))).output();
    check_process(&String::from_utf8(status.unwrap().stdout).unwrap());
    machine.drop_in("shell", "[Service]\nExecStartPre=/bin/sh -c true\n");
    machine.systemctl(&["stop", SERVICE]);
    assert!(!machine.try_systemctl(&["start", SERVICE]).status.success(), "a shell was executed");
}

/// No capabilities, no new privileges, system calls filtered, a user of its own.
fn check_process(status: &str) {
    for line in [
        "CapPrm:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(status.contains(line), "{line}\n{status}");
    }
    assert!(!status.contains("\nUid:\t0"), "{status}");
}
