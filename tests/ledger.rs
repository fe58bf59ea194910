//! What Ometria rejects after its 202 is copied to the quarantine: once, and only what is ours.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::os::unix::fs::FileExt as _;

use serde_json::{Value, json};
use support::{Host, Producer, Upstream, event, wait_until};

const POLLS: &str = "poll_errors = \"50ms\"";

fn quarantine(host: &Host) -> Vec<Value> {
    let listed = host.pillarbox(&["quarantine", "list", "--json"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    let lines = listed.lines().filter(|line| !line.is_empty());
    let mut entries = Vec::new();
    for value in lines.map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        match value {
            Value::Array(all) => entries.extend(all),
            one => entries.push(one),
        }
    }
    entries
}

fn ledger(host: &Host) -> Value {
    host.status()["integrations"][0]["ledger"].clone()
}

/// Waits until the ledger was read once more.
fn another_poll(host: &Host) {
    let polled = || ledger(host)["polled_at"].as_u64();
    let before = polled();
    wait_until("another poll", || polled() > before);
}

#[test]
fn what_is_rejected_later_is_in_the_quarantine_once() {
    let upstream = Upstream::start(None, &["reject-later,contains=bad"]);
    let host = Host::new(&upstream.url, "key", POLLS);
    let daemon = host.start();
    let events: Vec<String> =
        ["good-1", "bad-1", "good-2", "bad-2", "good-3"].map(event).into_iter().collect();
    let answer =
        Producer::connect(&host.ingest()).post("/v1/batch", &format!("[{}]", events.join(",")));
    assert_eq!(answer.json()["accepted"], 5);
    let count = || host.status()["quarantined"].as_u64().unwrap();
    wait_until("the copies", || count() == 2);
    assert_eq!(host.lane("delivered"), 5);
    let told: Vec<Value> = quarantine(&host)
        .iter()
        .map(|entry| json!([entry["reason"], entry["record_id"], entry["detail"]]))
        .collect();
    let detail = "a fault of the simulator at id";
    let expected =
        [json!(["rejected_later", "bad-1", detail]), json!(["rejected_later", "bad-2", detail])];
    assert_eq!(told, expected);
    let status = String::from_utf8(host.pillarbox(&["status"]).stdout).unwrap();
    assert!(status.contains("uk: 2 rejected after their 202"), "{status}");

    // Neither a restart nor what is not ours makes them more.
    daemon.kill();
    let daemon = host.start();
    for foreign in [
        json!({"error_message": "Invalid", "error_path": "total"}),
        json!({"request_id": "another-client-1", "record_id": "good-1", "message": {"error_message": "x"}}),
        json!({"record_id": "never-sent"}),
    ] {
        upstream.handle.add_to_ledger(foreign);
    }
    wait_until("the foreign entries", || ledger(&host)["unknown"] == 3);
    another_poll(&host);
    another_poll(&host);
    let told = ledger(&host);
    assert_eq!(
        (&told["found"], &told["unknown"], &told["cause"]),
        (&json!(0), &json!(3), &json!(""))
    );
    assert_eq!(count(), 2);

    // An entry without a request names the newest record of its id.
    upstream.handle.add_to_ledger(json!({"record_id": "good-2", "message": "no such product"}));
    wait_until("the third copy", || count() == 3);
    let copied = quarantine(&host).pop().unwrap();
    assert_eq!(
        (&copied["record_id"], &copied["detail"]),
        (&json!("good-2"), &json!("no such product"))
    );

    upstream.handle.clear_faults();
    upstream.handle.clear_records();
    assert!(host.pillarbox(&["quarantine", "retry", "--all"]).status.success());
    wait_until("the retried", || upstream.ids() == ["bad-1", "bad-2", "good-2"]);
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_ledger_that_cannot_be_read_is_told_and_delays_nothing() {
    let upstream = Upstream::start(Some("right"), &[]);
    let host = Host::new(&upstream.url, "wrong", POLLS);
    let daemon = host.start();
    let cause = || ledger(&host)["cause"].as_str().unwrap_or_default().to_owned();
    wait_until("the cause", || cause().contains("403 from /v2/push/_errors"));
    host.configure(&upstream.url, "right", POLLS);
    assert!(host.pillarbox(&["reload"]).status.success());
    wait_until("a poll", || ledger(&host)["polled_at"].is_u64() && cause().is_empty());
    let answer = Producer::connect(&host.ingest()).post("/v1/track", &event("e-1"));
    assert_eq!(answer.status, 200);
    wait_until("the record", || upstream.ids() == ["e-1"]);
    // Not asked for: not read, and not told of.
    host.configure(&upstream.url, "right", "");
    assert!(host.pillarbox(&["reload"]).status.success());
    assert!(ledger(&host).is_null());
    assert_eq!(daemon.stop().0, Some(0));
}

/// Goal: a record that can no longer be read costs the other rejected ones nothing, and what the ledger says of it is not
/// taken for another's.
#[test]
fn a_damaged_record_hides_no_other_rejection() {
    let upstream = Upstream::start(None, &[]);
    let host = Host::new(&upstream.url, "key", POLLS);
    let daemon = host.start();
    // So far apart that who looks for one need not pass the other.
    let pad = "x".repeat(50_000);
    let between = (0..12).map(|n| {
        format!(r#"{{"type":"page","messageId":"pad-{n}","properties":{{"pad":"{pad}"}}}}"#)
    });
    let between = between.collect::<Vec<_>>().join(",");
    for events in [event("first-1"), between, event("second-1")] {
        let body = format!("[{events}]");
        assert_eq!(Producer::connect(&host.ingest()).post("/v1/batch", &body).status, 200);
        host.wait_until_settled();
    }
    let log = host.folder.path().join("state/spool/log/0000000001.log");
    let bytes = std::fs::read(&log).unwrap();
    let at = bytes.windows(7).position(|found| found == b"first-1").unwrap();
    std::fs::File::options().write(true).open(&log).unwrap().write_all_at(b"X", at as u64).unwrap();
    for id in ["first-1", "second-1"] {
        upstream.handle.add_to_ledger(json!({"record_id": id, "message": "no such product"}));
    }
    let count = || host.status()["quarantined"].as_u64().unwrap();
    wait_until("the copy", || count() == 1);
    assert_eq!(quarantine(&host)[0]["record_id"], "second-1");
    another_poll(&host);
    another_poll(&host);
    let told = ledger(&host);
    assert_eq!((&told["found"], &told["unknown"], count()), (&json!(1), &json!(0), 1));
    assert!(told["cause"].as_str().unwrap().contains("the spool is damaged at lane 1"), "{told}");
    let (code, _, log) = daemon.stop();
    assert_eq!(code, Some(0));
    assert_eq!(log.matches("records that the ledger may name cannot be read").count(), 1, "{log}");
}
