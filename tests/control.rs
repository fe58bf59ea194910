//! What an operator asks of the deliveries: pause, resume, retry at once.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use support::{Host, Producer, Upstream, event, wait_until};

/// Runs a command that must succeed; what it prints.
fn asks(host: &Host, arguments: &[&str]) -> String {
    let output = host.pillarbox(arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn state(host: &Host) -> String {
    host.status()["integrations"][0]["report"]["state"].as_str().unwrap().to_owned()
}

fn send(host: &Host, id: &str) {
    let answer = Producer::connect(&host.ingest()).post("/v1/track", &event(id));
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// Goal: what is paused takes events and sends none, through a kill and a reload, until it is resumed.
#[test]
fn a_pause_lasts_until_it_is_resumed() {
    let upstream = Upstream::start(None, &[]);
    let host = Host::new(&upstream.url, "key", "");
    let daemon = host.start();
    assert_eq!(asks(&host, &["pause"]), "uk: paused; events are taken, nothing is sent\n");
    wait_until("the pause", || state(&host) == "paused");
    send(&host, "e-1");
    daemon.kill();
    let daemon = host.start();
    wait_until("the pause after a restart", || state(&host) == "paused");
    // Another forwarder takes over: it is paused as well.
    host.configure(&upstream.url, "another-key", "");
    asks(&host, &["reload"]);
    send(&host, "e-2");
    wait_until("the pause after a reload", || state(&host) == "paused");
    assert_eq!((upstream.ids().len(), host.lane("queued_records")), (0, 2));
    assert!(asks(&host, &["status"]).contains("paused by an operator: `pillarbox resume`"));
    assert_eq!(asks(&host, &["resume", "uk"]), "uk: resumed\n");
    wait_until("the deliveries", || upstream.ids() == ["e-1", "e-2"]);
    let unknown = host.pillarbox(&["pause", "fr"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8(unknown.stderr).unwrap().contains("no integration \"fr\""));
    assert_eq!(daemon.stop().0, Some(0));
}

/// Goal: who has mended the cause need not wait for the next attempt.
#[test]
fn a_retry_is_made_at_once() {
    let upstream = Upstream::start(None, &["status=404"]);
    let host = Host::new(&upstream.url, "key", "");
    let daemon = host.start();
    send(&host, "e-1");
    // It would be looked at again after a minute, which is longer than is waited here.
    wait_until("the hold", || state(&host) == "held");
    let report = || host.status()["integrations"][0]["report"].clone();
    let probe_at = report()["next_try_at"].as_u64().unwrap();
    upstream.handle.clear_faults();
    assert_eq!(asks(&host, &["retry-now"]), "uk: tried again now\n");
    wait_until("the delivery", || report()["last_delivery_at"].is_u64());
    assert!(report()["last_delivery_at"].as_u64().unwrap() < probe_at, "the probe came first");
    assert_eq!(daemon.stop().0, Some(0));
}
