//! What was set aside: since when, mended and retried, many at once, and from one host to another.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use support::{Host, Producer, Upstream, wait_until};

fn track(id: &str, event: &str, email: &str, drink: &str) -> String {
    format!(
        r#"{{"type":"track","event":"{event}","messageId":"{id}","traits":{{"email":"{email}"}},"properties":{{"price":79.00,"drink":"{drink}"}}}}"#
    )
}

fn send(host: &Host, events: &[String]) {
    let answer =
        Producer::connect(&host.ingest()).post("/v1/batch", &format!("[{}]", events.join(",")));
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// What a command prints; it must succeed.
fn asks(host: &Host, arguments: &[&str]) -> String {
    let output = host.pillarbox(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a command says on stderr; it must fail.
fn fails(host: &Host, arguments: &[&str]) -> String {
    let output = host.pillarbox(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The entries that fit.
fn listed(host: &Host, filter: &[&str]) -> Vec<Value> {
    lines(&asks(host, &[&["quarantine", "list", "--json"], filter].concat()))
}

fn ids(entries: &[Value]) -> Vec<&str> {
    entries.iter().map(|entry| entry["record_id"].as_str().unwrap()).collect()
}

fn quarantined(host: &Host, count: u64) {
    wait_until("the quarantine", || host.status()["quarantined"] == count);
}

/// Goal: a record that is retried and rejected again is known since the first time, over a retry of both kinds, a
/// `kill -9` in between, and in what is shown.
#[test]
fn an_entry_keeps_the_time_when_it_was_first_seen() {
    let upstream = Upstream::start(None, &["poison=teapot"]);
    let host = Host::new(&upstream.url, "key", "");
    let daemon = host.start();
    send(&host, &[track("a", "Product Viewed", "jane@x", "teapot")]);
    quarantined(&host, 1);
    let [first] = listed(&host, &[]).try_into().unwrap();
    assert_eq!(first["first_at"], first["at"]);
    asks(&host, &["pause"]);
    wait_until("the pause", || host.status()["integrations"][0]["report"]["state"] == "paused");
    asks(&host, &["quarantine", "retry", "--all"]);
    daemon.kill();
    let daemon = host.start();
    asks(&host, &["resume"]);
    quarantined(&host, 1);
    let [second] = listed(&host, &[]).try_into().unwrap();
    assert_eq!((&second["id"], &second["first_at"]), (&json!(2), &first["at"]));
    assert!(second["at"].as_u64() > first["at"].as_u64(), "{second}");
    let shown = asks(&host, &["quarantine", "show", "2"]);
    assert!(shown.contains(" ago, and again "), "{shown}");
    let body = json!({"@type": "custom_event", "id": "a", "timestamp": "2026-06-06T15:32:52Z", "event_type": "teapot"});
    let mended = host.folder.path().join("mended.json");
    std::fs::write(&mended, body.to_string()).unwrap();
    asks(&host, &["quarantine", "edit", "2", "--body", mended.to_str().unwrap()]);
    quarantined(&host, 1);
    let [third] = listed(&host, &[]).try_into().unwrap();
    assert_eq!((&third["id"], &third["first_at"]), (&json!(3), &first["at"]));
    assert_eq!(daemon.stop().0, Some(0));
}

/// Goal: one entry is mended in an editor and delivered under its id; what does not fit is refused with the reason, and
/// nothing is lost.
#[test]
fn an_entry_is_mended_and_delivered_under_its_id() {
    let upstream = Upstream::start(None, &["poison=teapot"]);
    let host = Host::new(&upstream.url, "key", "");
    let daemon = host.start();
    send(
        &host,
        &[
            track("a", "Product Viewed", "jane@x", "teapot"),
            r#"{"type":"track","messageId":"b"}"#.to_owned(),
        ],
    );
    quarantined(&host, 2);
    let by_reason = |reason: &str| {
        let [entry] = listed(&host, &["--reason", reason]).try_into().unwrap();
        entry["id"].to_string()
    };
    let (record, event) = (by_reason("rejected"), by_reason("invalid_event"));
    let edited = |id: &str, editor: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
        command.args(["quarantine", "edit", id, "--config"]).arg(host.config());
        let temp = host.folder.path();
        command.env("VISUAL", editor).env("TMPDIR", temp).stdin(Stdio::null()).output().unwrap()
    };
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let refused = edited(&record, r#"sed -i s/"a"/"z"/"#);
    assert_eq!(refused.status.code(), Some(1));
    let text = said(&refused);
    assert!(text.contains("`id` must stay \"a\"") && text.contains("--body "), "{text}");
    let unchanged = said(&edited(&record, "true"));
    assert!(unchanged.contains("nothing was changed"), "{unchanged}");
    let failed = said(&edited(&record, "false"));
    assert!(failed.contains("set EDITOR"), "{failed}");
    assert_eq!(host.status()["quarantined"], 2);
    let mended = edited(&record, "sed -i s/teapot/coffee/");
    assert!(mended.status.success(), "{mended:?}");
    host.wait_until_settled();
    let records = upstream.handle.records();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].id, "a");
    let body = String::from_utf8(records[0].body.to_vec()).unwrap();
    assert!(body.contains(r#""properties":{"product_price":79.00,"drink":"coffee"}"#), "{body}");
    // An event is mapped again; `--body -` is for scripts.
    let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
    command.args(["quarantine", "edit", &event, "--body", "-", "--config"]).arg(host.config());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let body = r#"{"type":"track", "messageId":"b", "event":"Order Completed"}"#;
    child.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    wait_until("the event", || upstream.ids() == ["a", "b"]);
    assert_eq!(host.status()["quarantined"], 0);
    let gone = fails(&host, &["quarantine", "edit", &event, "--body", "/dev/null"]);
    assert!(gone.contains("no JSON"), "{gone}");
    assert_eq!(daemon.stop().0, Some(0));
}

/// Goal: by every filter, and by several, the same entries are listed, exported, retried and dropped, and no other.
#[test]
fn many_are_treated_at_once_by_what_they_are() {
    let upstream = Upstream::start(None, &["poison=teapot", "poison=soup,status=413"]);
    let host = Host::new(&upstream.url, "key", "");
    let daemon = host.start();
    send(
        &host,
        &[
            track("a", "Product Viewed", "jane@x", "teapot"),
            track("b", "Order Completed", "bob@x", "teapot"),
            track("c", "Product Viewed", "bob@x", "soup"),
            track("d", "Product Viewed", "eve@x", "teapot"),
        ],
    );
    quarantined(&host, 4);
    for (filter, expected) in [
        (&["--reason", "too_large"][..], &["c"][..]),
        (&["--status", "400"], &["a", "b", "d"]),
        (&["--type", "product_viewed"], &["a", "c", "d"]),
        (&["--type", "custom_event"], &["a", "b", "c", "d"]),
        (&["--email", "BOB@x"], &["b", "c"]),
        (&["--integration", "fr"], &[]),
        (&["--since", "1h", "--email", "jane@x"], &["a"]),
        (&["--until", "1h"], &[]),
        (&["--email", "bob@x", "--status", "413"], &["c"]),
    ] {
        assert_eq!(ids(&listed(&host, filter)), expected, "{filter:?}");
        let exported = asks(&host, &[&["quarantine", "export"], filter].concat());
        assert_eq!(ids(&lines(&exported)), expected, "{filter:?}");
    }
    let refused = host.pillarbox(&["quarantine", "drop"]);
    assert_eq!(refused.status.code(), Some(2), "nothing is chosen: {refused:?}");
    let both = host.pillarbox(&["quarantine", "drop", "1", "--email", "bob@x"]);
    assert_eq!(both.status.code(), Some(2), "{both:?}");
    assert!(fails(&host, &["quarantine", "drop", "--email", "bob@x"]).contains("--yes"));
    let dropped = asks(&host, &["quarantine", "drop", "--email", "bob@x", "--yes"]);
    assert_eq!(dropped, "2 removed for good\n");
    upstream.handle.clear_faults();
    let retried = asks(&host, &["quarantine", "retry", "--reason", "rejected", "--since", "1h"]);
    assert_eq!(retried, "2 queued again\n");
    wait_until("the deliveries", || upstream.ids() == ["a", "d"]);
    assert_eq!(host.status()["quarantined"], 0);
    assert_eq!(daemon.stop().0, Some(0));
}

/// Goal: what one host has set aside is delivered by another, each once however often it is imported; a bad line costs only
/// itself.
#[test]
fn entries_move_to_another_host() {
    let upstream = Upstream::start(None, &["poison=teapot"]);
    let (one, other) = (Host::new(&upstream.url, "key", ""), Host::new(&upstream.url, "key", ""));
    let daemon = one.start();
    send(
        &one,
        &[
            track("a", "Product Viewed", "jane@x", "teapot"),
            r#"{"type":"track","messageId":"b","x":1.00}"#.to_owned(),
        ],
    );
    quarantined(&one, 2);
    let exported = asks(&one, &["quarantine", "export"]);
    assert_eq!(daemon.stop().0, Some(0));

    let daemon = other.start();
    let foreign = exported.replace("\"integration\":\"uk\"", "\"integration\":\"fr\"");
    let foreign = foreign.lines().find(|line| line.contains("\"fr\"")).unwrap();
    let file = other.folder.path().join("set-aside.ndjson");
    let text = format!("nonsense\n\n{exported}{foreign}\n{{\"id\":1}}\n");
    std::fs::write(&file, text).unwrap();
    let import = ["quarantine", "import", file.to_str().unwrap()];
    let output = other.pillarbox(&import);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "2 imported\n");
    let said = String::from_utf8(output.stderr).unwrap();
    for part in ["line 1: no entry", "line 5: integration \"fr\" is not configured", "line 6: "] {
        assert!(said.contains(part), "{part}: {said}");
    }
    std::fs::write(&file, &exported).unwrap();
    assert_eq!(asks(&other, &import), "0 imported, 2 were there already\n");
    let entries = lines(&exported);
    let found = lines(&asks(&other, &["quarantine", "export"]));
    for key in ["reason", "detail", "status", "at", "first_at", "body"] {
        let of = |entries: &[Value]| entries.iter().map(|e| e[key].clone()).collect::<Vec<_>>();
        assert_eq!(of(&found), of(&entries), "{key}");
    }
    upstream.handle.clear_faults();
    let id = |reason: &str| listed(&other, &["--reason", reason])[0]["id"].to_string();
    asks(&other, &["quarantine", "retry", &id("rejected")]);
    wait_until("the delivery", || upstream.ids() == ["a"]);
    assert_eq!(daemon.stop().0, Some(0));
}

/// Goal: what a queue held is delivered by another host, in order, each type in pushes of its own; what had ended is not.
#[test]
fn finished_records_are_handed_over() {
    let upstream = Upstream::start(None, &[]);
    let (one, other) = (Host::new(&upstream.url, "key", ""), Host::new(&upstream.url, "key", ""));
    let daemon = one.start();
    send(&one, &[track("done", "Product Viewed", "x@x", "tea")]);
    one.wait_until_settled();
    asks(&one, &["pause"]);
    wait_until("the pause", || one.status()["integrations"][0]["report"]["state"] == "paused");
    let events: Vec<String> =
        (0..150).map(|n| track(&format!("e-{n}"), "Product Viewed", "x@x", "tea")).collect();
    send(&one, &events);
    let order =
        r#"[{"@type":"order","id":"o-1","timestamp":"2026-06-06T15:32:52Z","total":79.00}]"#;
    assert_eq!(Producer::connect(&one.ingest()).post("/v2/push", order).status, 202);
    send(&one, &[track("last", "Product Viewed", "x@x", "tea")]);
    assert_eq!(daemon.stop().0, Some(0));
    let file = one.folder.path().join("records.ndjson");
    asks(&one, &["spool", "export", "--output", file.to_str().unwrap()]);

    let daemon = other.start();
    upstream.handle.clear_records();
    let file = file.to_str().unwrap();
    let said = asks(&other, &["send", "--records", file]);
    let accepted = "152 accepted, 0 seen before, 0 dropped, 0 quarantined, 0 invalid lines";
    assert!(said.starts_with(accepted) && said.contains("1 passed over"), "{said}");
    other.wait_until_settled();
    let mut expected: Vec<String> = (0..150).map(|n| format!("e-{n}")).collect();
    expected.extend(["o-1".to_owned(), "last".to_owned()]);
    assert_eq!(upstream.ids(), expected);
    let bare = other.folder.path().join("bare.ndjson");
    std::fs::write(&bare, order.trim_matches(['[', ']'])).unwrap();
    let unknown =
        fails(&other, &["send", "--records", "--integration", "fr", bare.to_str().unwrap()]);
    assert!(unknown.contains("no integration \"fr\""), "{unknown}");
    assert_eq!(daemon.stop().0, Some(0));
}
