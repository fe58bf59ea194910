//! What the daemon logs: a line for each change of state, none for an event, and nothing that is private, in every format.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::{Host, Producer, Upstream, wait_until};

/// In the key, and in every event: none of it may be logged (Promise 8).
const PRIVATE: [&str; 6] = ["sekret", "jane", "example.org", "teapot", "m-id-", "Wollpullover"];

fn track(id: &str, event: &str, drink: &str) -> String {
    format!(
        r#"{{"type":"track","event":"{event}","messageId":"m-id-{id}","userId":"jane","traits":{{"email":"jane@example.org"}},"properties":{{"name":"Wollpullover","drink":"{drink}"}}}}"#
    )
}

fn send(host: &Host, events: &[String]) {
    let answer =
        Producer::connect(&host.ingest()).post("/v1/batch", &format!("[{}]", events.join(",")));
    assert_eq!(answer.status, 200, "{}", answer.body);
}

fn asks(host: &Host, arguments: &[&str], code: i32) {
    let output = host.pillarbox(arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
}

/// Takes a daemon that `start` starts through a day with `events` events at each of its stations.
fn day(events: usize, start: impl FnOnce(&Host) -> Child) {
    let upstream = Upstream::start(None, &["poison=teapot"]);
    let host = Host::new(&upstream.url, "sekret-key", "");
    let mut daemon = start(&host);
    let state = || host.status()["integrations"][0]["report"]["state"].clone();
    wait_until("the daemon", || host.pillarbox(&["status"]).status.success());
    let many = |what: &str, event: &str| -> Vec<String> {
        (0..events).map(|n| track(&format!("{what}{n}"), event, "tea")).collect()
    };
    // Accepted and delivered; dropped; not valid.
    send(&host, &many("a", "Product Viewed"));
    send(&host, &many("b", "Nap Taken"));
    send(&host, &many("a", "Product Viewed"));
    let invalid: Vec<String> = (0..events)
        .map(|n| format!(r#"{{"type":"track","messageId":"m-id-c{n}","userId":"jane"}}"#))
        .collect();
    send(&host, &invalid);
    let refused = Producer::connect(&host.ingest()).post("/v1/track", r#"{"userId":"jane""#);
    assert_eq!(refused.status, 400);
    host.wait_until_settled();
    // Rejected: one of two.
    let pair = [track("d", "Product Viewed", "teapot"), track("e", "Product Viewed", "tea")];
    send(&host, &pair);
    host.wait_until_settled();
    // Refused for the key, and mended.
    upstream.handle.clear_faults();
    upstream.handle.add_fault("status=403".parse().unwrap());
    send(&host, &many("f", "Product Viewed"));
    wait_until("the hold", || state() == "unauthorized");
    send(&host, &many("g", "Product Viewed"));
    upstream.handle.clear_faults();
    asks(&host, &["retry-now"], 0);
    host.wait_until_settled();
    // Read again, well and badly; the quarantine; a person.
    host.configure(&upstream.url, "sekret-too", "");
    asks(&host, &["reload"], 0);
    std::fs::write(host.config(), "nonsense").unwrap();
    asks(
        &host,
        &["reload", "--socket", host.folder.path().join("admin.sock").to_str().unwrap()],
        1,
    );
    host.configure(&upstream.url, "sekret-too", "");
    asks(&host, &["quarantine", "drop", "--all", "--yes"], 0);
    asks(&host, &["erase", "--email", "jane@example.org"], 0);
    asks(&host, &["pause"], 0);
    asks(&host, &["resume"], 0);
    let pid = rustix::process::Pid::from_raw(i32::try_from(daemon.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
}

/// The log of such a day, in a format that goes to stderr.
fn logged(format: &str, events: usize) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    day(events, |host| {
        let mut command = host.command(&["--set", &format!("admin.log={format}")]);
        let log = File::create(&path).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    });
    let log = std::fs::read_to_string(path).unwrap();
    is_private(&log);
    log
}

fn is_private(log: &str) {
    for word in PRIVATE {
        assert!(!log.contains(word), "the log tells {word:?}:\n{log}");
    }
}

/// What must be told of such a day.
const TOLD: [&str; 8] = [
    "ready",
    "a push was rejected: looking for the records at fault",
    "held: nothing is lost, nothing is delivered",
    "delivering",
    "the configuration was reloaded",
    "the configuration was not reloaded: the old one stays in force",
    "an operator has changed who is paused",
    "stopped: what is queued is delivered after the next start",
];

#[test]
fn json_lines_parse_and_do_not_grow_with_the_events() {
    let read = |events| -> Vec<Value> {
        let log = logged("json", events);
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (few, many) = (read(1), read(200));
    let messages = |lines: &[Value]| -> Vec<String> {
        lines.iter().map(|line| line["message"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(messages(&few), messages(&many), "the same changes of state, and constant words");
    let told: BTreeSet<String> = messages(&many).into_iter().collect();
    for expected in TOLD {
        assert!(told.contains(expected), "{expected}: {told:?}");
    }
    for line in &many {
        for key in ["timestamp", "level", "target"] {
            assert!(line[key].is_string(), "{line}");
        }
    }
    let held = many.iter().find(|line| line["status"] == 403).unwrap();
    assert_eq!((&held["integration"], &held["level"]), (&"uk".into(), &"ERROR".into()));
    assert!(held["cause"].as_str().unwrap().contains("Data API key"), "{held}");
}

#[test]
fn text_lines_tell_the_same() {
    let log = logged("text", 20);
    for expected in TOLD {
        assert!(log.contains(expected), "{expected}:\n{log}");
    }
    assert!(!log.contains('\u{1b}'), "colour for no terminal:\n{log}");
    assert!(log.lines().count() < 40, "{log}");
}

/// Method: in a mount namespace of its own the daemon finds a socket of ours in journald's place.
#[test]
fn journald_gets_fields() {
    let allowed = Command::new("unshare").args(["--mount", "true"]).status();
    if !allowed.is_ok_and(|status| status.success()) {
        eprintln!("not run: mount namespaces are not allowed here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    std::fs::create_dir_all(run.join("journal")).unwrap();
    let journal = UnixDatagram::bind(run.join("journal/socket")).unwrap();
    let reader = journal.try_clone().unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let reading = std::thread::spawn(move || {
        reader.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let (mut entries, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        loop {
            match reader.recv(&mut buffer) {
                Ok(bytes) => entries.push(String::from_utf8_lossy(&buffer[..bytes]).into_owned()),
                Err(_) if stopped.try_recv().is_ok() => return entries,
                Err(_) => {}
            }
        }
    });
    day(20, |host| in_namespace(&run, host));
    stop.send(()).unwrap();
    let entries = reading.join().unwrap();
    let all = entries.join("\n");
    is_private(&all);
    let told: BTreeSet<&str> =
        entries.iter().filter_map(|it| it.split_once("MESSAGE")?.1.get(1..)).collect();
    for expected in TOLD {
        assert!(told.iter().any(|it| it.contains(expected)), "{expected}: {told:?}");
    }
    let held = entries.iter().find(|entry| entry.contains("held: nothing is lost")).unwrap();
    for field in ["PRIORITY", "F_INTEGRATION", "F_STATUS", "F_CAUSE"] {
        assert!(held.contains(field), "{field}: {held}");
    }
    assert!(entries.len() < 40, "{all}");
}

fn in_namespace(run: &Path, host: &Host) -> Child {
    let daemon = host.command(&["--set", "admin.log=journald"]);
    let script = "mkdir -p /run/systemd && mount --bind \"$0\" /run/systemd && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(run).arg(daemon.get_program());
    command.args(daemon.get_args()).stdin(Stdio::null()).stdout(Stdio::null());
    command.spawn().unwrap()
}
