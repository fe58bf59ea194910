//! The event debugger: what became of each event, by id, person, type and state, and live.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::value::RawValue;
use serde_json::{Value, json};
use support::{Host, Producer, Upstream, wait_until};

fn track(id: &str, event: &str, email: &str) -> String {
    format!(
        r#"{{"type":"track","event":"{event}","messageId":"{id}","traits":{{"email":"{email}"}},"properties":{{"price":79.00}},"context":{{"consent":{{"marketing":true}}}}}}"#
    )
}

fn send(host: &Host, events: &[String]) {
    let answer =
        Producer::connect(&host.ingest()).post("/v1/batch", &format!("[{}]", events.join(",")));
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// What `events --json` prints.
fn found(host: &Host, arguments: &[&str]) -> Vec<Value> {
    let output = host.pillarbox(&[&["events", "--json"], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["id"].as_str().unwrap()).collect()
}

/// Goal: every end of a record is found, with its payload and its push, and so is what is queued; over a restart as well.
#[test]
fn what_became_of_an_event_is_found() {
    let upstream = Upstream::start(None, &["poison=bad-"]);
    let host = Host::new(&upstream.url, "key", "consent = [\"marketing\"]");
    let daemon = host.start();
    send(
        &host,
        &[
            track("e-1", "Product Viewed", "jane@x"),
            track("bad-1", "Product Viewed", "bob@x"),
            track("e-2", "Order Completed", "Jane@X"),
        ],
    );
    host.wait_until_settled();
    upstream.handle.add_fault("status=503".parse().unwrap());
    send(&host, &[track("e-3", "Product Viewed", "bob@x"), track("e-4", "Cart", "x@x")]);
    send(
        &host,
        &[track("e-5", "Product Viewed", "ann@x"), track("e-6", "Product Viewed", "eve@x")],
    );
    let denied = r#"{"type":"group","groupId":"g","traits":{"email":"ann@x"},"context":{"consent":{"marketing":false}}}"#;
    send(&host, &[denied.to_owned()]);
    daemon.kill();
    let daemon = host.start();

    let all = found(&host, &[]);
    assert_eq!(ids(&all), ["e-1", "bad-1", "e-2", "e-3", "e-5", "e-6"]);
    let states: Vec<&str> = all.iter().map(|event| event["state"].as_str().unwrap()).collect();
    let queued = ["queued"; 3];
    assert_eq!(states, [&["delivered", "quarantined", "delivered"], &queued[..]].concat());
    assert_eq!(ids(&found(&host, &["--email", "JANE@x"])), ["e-1", "e-2"]);
    assert_eq!(ids(&found(&host, &["--type", "order_completed"])), ["e-2"]);
    assert_eq!(ids(&found(&host, &["--type", "custom_event", "--limit", "2"])), ["e-5", "e-6"]);
    assert_eq!(ids(&found(&host, &["--state", "quarantined", "--all"])), ["bad-1"]);
    assert!(found(&host, &["--integration", "fr"]).is_empty());
    let sixth = all[5]["committed_at"].as_u64().unwrap();
    let time = |millis: u64| {
        let seconds = i64::try_from(millis / 1000).unwrap();
        pillarbox::event::Timestamp::from_seconds(seconds).unwrap().to_string()
    };
    assert_eq!(found(&host, &["--since", "1h"]).len(), 6);
    assert_eq!(found(&host, &["--until", &time(sixth + 2000)]).len(), 6);
    assert!(found(&host, &["--since", &time(sixth + 2000)]).is_empty());
    assert!(found(&host, &["--until", "1h"]).is_empty());
    let [bad] = found(&host, &["--id", "bad-1"]).try_into().unwrap();
    assert_eq!(bad["push"]["status"], 400);
    assert!(bad["push"]["answer"].as_str().unwrap().contains("fault"), "{bad}");
    assert_eq!(bad["record"]["properties"], json!({"product_price": 79.0}));

    let request_id = found(&host, &["--id", "e-1"])[0]["push"]["request_id"].clone();
    let request_id = format!("request_id {}", request_id.as_str().unwrap());
    let shown = String::from_utf8(host.pillarbox(&["events", "--id", "e-1"]).stdout).unwrap();
    assert!(shown.contains(&request_id), "{shown}");
    for part in
        ["delivered  product_viewed  e-1  202, attempt ", "lane 1 seq 1", "\"accepted\"", "79.00"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    upstream.handle.clear_faults();
    host.wait_until_settled();
    let ends: Vec<Value> =
        found(&host, &["--limit", "3"]).iter().map(|e| e["state"].clone()).collect();
    assert_eq!(ends, ["delivered", "withheld", "delivered"]);
    assert_eq!(daemon.stop().0, Some(0));
}

/// Goal: `--follow` tells each record once, when it has ended.
#[test]
fn what_ends_is_followed() {
    let upstream = Upstream::start(None, &[]);
    let host = Host::new(&upstream.url, "key", "");
    let daemon = host.start();
    send(&host, &[track("before", "Product Viewed", "x@x")]);
    host.wait_until_settled();
    let mut command = host.command(&[]);
    let program = command.get_program().to_owned();
    command = std::process::Command::new(program);
    command.args(["events", "--follow", "--json", "--config"]).arg(host.config());
    let mut follower = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let sent = |n: usize| format!("e-{n}");
    // What ends before it has begun to follow is not told: send until it tells.
    let (mut first, told) = (0, std::sync::mpsc::channel());
    let (tell, told) = told;
    let reader = std::thread::spawn(move || {
        while let Some(Ok(line)) = lines.next() {
            let event: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(event["state"], "delivered");
            let id = event["id"].as_str().unwrap().to_owned();
            if tell.send(id).is_err() {
                return;
            }
        }
    });
    let mut begun = None;
    wait_until("the first that is told", || {
        send(&host, &[track(&sent(first), "Product Viewed", "x@x")]);
        first += 1;
        begun = told.recv_timeout(std::time::Duration::from_millis(100)).ok();
        begun.is_some()
    });
    let begun: usize = begun.unwrap().strip_prefix("e-").unwrap().parse().unwrap();
    let events: Vec<String> =
        (first..first + 1200).map(|n| track(&sent(n), "Product Viewed", "x@x")).collect();
    send(&host, &events);
    for n in begun + 1..first + 1200 {
        assert_eq!(told.recv_timeout(support::PATIENCE).unwrap(), sent(n));
    }
    follower.kill().unwrap();
    follower.wait().unwrap();
    reader.join().unwrap();
    assert_eq!(daemon.stop().0, Some(0));
}

/// A line of `events --json`, its values byte for byte.
#[derive(serde::Deserialize)]
struct Line<'a> {
    id: &'a str,
    integration: &'a str,
    #[serde(borrow)]
    record: &'a RawValue,
    #[serde(borrow)]
    event: Option<&'a RawValue>,
}

/// What `events --json` prints, where the lines' ids begin with `id`: (id, integration, bytes of record and event, event).
fn kept(host: &Host, id: &str) -> Vec<(String, String, usize, Option<String>)> {
    let output = host.pillarbox(&["events", "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Line<'_>>(line).unwrap());
    let lines = lines.filter(|line| line.id.starts_with(id));
    let told = lines.map(|line| {
        let event = line.event.map(|event| event.get().to_owned());
        let bytes = line.record.get().len() + event.as_ref().map_or(0, String::len);
        (line.id.to_owned(), line.integration.to_owned(), bytes, event)
    });
    told.collect()
}

const SINGLE: &str = "{\"event\": \"Product Viewed\",\r\n \"messageId\": \"s-1\", \"properties\": {\"price\": 79.00, \"variant\": \"navy-m\"}}";

/// Sends a single event, a batch with a context, a ready record, and an event that is too large to be kept.
fn send_each_way(host: &Host) {
    let mut producer = Producer::connect(&host.ingest());
    let batch = r#"{"context":{"page":{"url":"https://x/y"}},"batch":[{"type":"track","event":"Product Viewed","messageId":"b-1","context":{"ip":"1"}},{"type":"track","messageId":"q-1"}]}"#;
    let pad = "x".repeat(60_000);
    let large =
        format!(r#"{{"event":"Product Viewed","messageId":"l-1","context":{{"pad":"{pad}"}}}}"#);
    for (path, body) in [
        ("/v1/track", SINGLE),
        ("/v1/batch", batch),
        ("/v2/push", r#"[{"@type":"order","id":"p-1"}]"#),
        ("/v1/track", &large),
    ] {
        let answer = producer.post(path, body);
        assert!([200, 202].contains(&answer.status), "{}", answer.body);
    }
}

/// Goal: with `spool.keep_events` each record is shown with the event that it was made of, byte for byte, over a restart as
/// well; what has none is shown without; and all that was counted while it was queued is uncounted once it is settled.
#[test]
fn an_event_is_shown_before_and_after_its_mapping() {
    let upstream = Upstream::start(None, &["status=503"]);
    let other = format!(
        "[[integration]]\nname = \"de\"\npreset = \"default\"\napi_key = \"key\"\nendpoint = \"{}\"\n",
        upstream.url
    );
    let host = Host::new(&upstream.url, "key", &other);
    let keeping = || Host::start_as(host.command(&["--set", "spool.keep_events=true"]));
    let daemon = keeping();
    send_each_way(&host);
    let single = Some(SINGLE.replace(['\r', '\n'], " "));
    let batched = Some(r#"{"type":"track","event":"Product Viewed","messageId":"b-1","context":{"page":{"url":"https://x/y"},"ip":"1"}}"#.to_owned());
    daemon.kill();
    let daemon = keeping();
    for (id, event) in [("s-1", &single), ("b-1", &batched), ("p-1", &None), ("l-1", &None)] {
        let kept = kept(&host, id);
        assert!(kept.iter().all(|(.., found)| found == event), "{kept:?}");
        let mut integrations: Vec<&str> = kept.iter().map(|(_, name, ..)| name.as_str()).collect();
        integrations.sort_unstable();
        assert_eq!(integrations, ["de", "uk"], "{id}");
    }
    let bytes: u64 = kept(&host, "").iter().filter(|it| it.1 == "uk").map(|it| it.2 as u64).sum();
    assert_eq!(host.lane("queued_bytes"), bytes);

    let shown = |id: &str| {
        let output = host.pillarbox(&["events", "--id", id, "--integration", "uk"]);
        String::from_utf8(output.stdout).unwrap()
    };
    let (before, after) =
        shown("s-1").split_once("after it\n").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert!(before.contains("before the mapping\n{\n  \"event\": \"Product Viewed\""), "{before}");
    assert!(
        before.contains("\"variant\": \"navy-m\"") && after.contains("\"variant_id\": \"navy-m\"")
    );
    assert!(!shown("l-1").contains("the mapping"), "{}", shown("l-1"));

    upstream.handle.clear_faults();
    assert!(host.pillarbox(&["retry-now"]).status.success());
    wait_until("both queues to be empty", || {
        let status = host.status();
        let queued = |nth: usize| status["integrations"][nth]["lane"]["queued_records"] == 0;
        queued(0) && queued(1)
    });
    assert_eq!(host.lane("queued_bytes"), 0);
    assert_eq!(kept(&host, "s-1")[0].3, single);

    comes_back(&host, &upstream);
    daemon.stop();
    let daemon = host.start();
    send(&host, &[track("n-1", "Product Viewed", "x@x")]);
    let found = kept(&host, "n-1");
    assert!(!found.is_empty() && found.iter().all(|(.., event)| event.is_none()), "it is off");
    assert_eq!(kept(&host, "s-1")[0].3, single);
    assert_eq!(daemon.stop().0, Some(0));
}

/// From the quarantine an event comes back as one, and is kept; a record comes back as a record.
fn comes_back(host: &Host, upstream: &Upstream) {
    let mended = r#"{"type":"track","event":"Product Viewed","messageId":"q-1"}"#;
    let file = host.folder.path().join("mended.json");
    std::fs::write(&file, mended).unwrap();
    let edited = host.pillarbox(&["quarantine", "edit", "1", "--body", &file.to_string_lossy()]);
    assert!(edited.status.success(), "{edited:?}");
    let back = kept(host, "q-1");
    assert!(!back.is_empty() && back.iter().all(|it| it.3.as_deref() == Some(mended)), "{back:?}");

    host.wait_until_settled();
    upstream.handle.add_fault("poison=bad-".parse().unwrap());
    send(host, &[track("bad-1", "Product Viewed", "bob@x")]);
    wait_until("the quarantine", || host.status()["quarantined"] == 2);
    upstream.handle.clear_faults();
    assert!(host.pillarbox(&["quarantine", "retry", "--all"]).status.success());
    host.wait_until_settled();
    let uk: Vec<bool> =
        kept(host, "bad-1").iter().filter(|it| it.1 == "uk").map(|it| it.3.is_some()).collect();
    assert_eq!(uk, [true, false]);
    assert_eq!(host.lane("queued_bytes"), 0);
}
