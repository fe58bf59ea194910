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
