//! The sandbox, tried from inside.

use std::fmt::Write as _;
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
            writeln!(
                script,
                "if ( {command} ) >/dev/null 2>&1; then echo '{kind} done: {command}'; else echo '{kind} failed: {command}'; fi"
            )
            .unwrap();
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

/// Who is named may hand over events, other members of the socket's group may not, and nobody else reaches it: the kernel's
/// word on users gets through the sandbox.
#[test]
fn the_producers_that_are_named_are_admitted() {
    let upstream = Upstream::start(Some("key"), &[]);
    let Some(machine) = Machine::boot(&upstream.url, "key") else { return };
    let accounts = "u shop -\nu other -\nu outsider -\nm shop pillarbox\nm other pillarbox\n";
    machine.write("run/accounts.conf", accounts);
    let made = machine.command("systemd-sysusers").arg("/run/accounts.conf").output().unwrap();
    assert!(made.status.success(), "{made:?}");
    machine.drop_in("allow", "[Service]\nEnvironment=PILLARBOX__INGEST__ALLOW_USERS=shop\n");
    machine.systemctl(&["start", SERVICE]);
    machine.write("run/event", &crate::support::event("1"));
    for (user, exit, told) in
        [("shop", 0, ""), ("other", 1, "ingest.allow_users"), ("outsider", 69, "Permission denied")]
    {
        let mut command = machine.command("setpriv");
        command.args(["--reuid", user, "--regid", user, "--init-groups"]);
        let sent = command.args(["pillarbox", "send", "/run/event"]).output().unwrap();
        let said = String::from_utf8_lossy(&sent.stderr);
        assert_eq!(sent.status.code(), Some(exit), "{user}: {said}");
        assert!(said.contains(told), "{user}: {said}");
    }
    machine.wait_for_status("nothing queued; shop: idle");
    assert_eq!(upstream.ids(), ["1"]);
    let counts = &machine.status()["ingest"];
    assert_eq!(
        (&counts["connections_refused"], &counts["requests_refused"]["forbidden"]),
        (&1.into(), &1.into())
    );
    let root = crate::support::Producer::connect(&machine.ingest())
        .post("/v1/track", &crate::support::event("2"));
    assert_eq!(root.status, 200);
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
