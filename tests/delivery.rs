//! Records reach Ometria in order, exactly the guilty ones do not, and only a 202 acknowledges.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use support::{Host, PATIENCE, Producer, Upstream, event, wait_until};

/// Posts events `0..count` in batches of 100; `poisoned` decides which ids carry the poison.
fn post(host: &Host, count: usize, poisoned: impl Fn(usize) -> bool) -> Vec<String> {
    let mut producer = Producer::connect(&host.ingest());
    let id = |n: usize| if poisoned(n) { format!("poison-{n}") } else { format!("e-{n}") };
    let ids: Vec<String> = (0..count).map(id).collect();
    for ids in ids.chunks(100) {
        let events: Vec<String> = ids.iter().map(|id| event(id)).collect();
        let answer = producer.post("/v1/batch", &format!("[{}]", events.join(",")));
        assert_eq!(
            (answer.status, answer.json()["accepted"].as_u64()),
            (200, Some(ids.len() as u64))
        );
    }
    ids
}

/// The example of the contract leaves as exactly that record (DESIGN.md section 5).
#[test]
fn the_example_of_the_contract_is_delivered_byte_for_byte() {
    let upstream = Upstream::start(Some("key"), &[]);
    let host = Host::new(&upstream.url, "key", "consent = [\"marketing\"]");
    let daemon = host.start();
    let mut producer = Producer::connect(&host.ingest());
    let identify = r#"{"userId":"user-123","traits":{"email":"jane.doe@example.com"}}"#;
    assert_eq!(producer.post("/v1/identify", identify).status, 200);
    let event = r#"{"type":"track","userId":"user-123","event":"Product Viewed","messageId":"abc123","timestamp":"2026-06-06T15:32:52.417Z",
 "properties":{"product_id":"SKU-A","product_name":"Merino Crew Jumper","variant":"navy-m","price":79.00,"currency":"GBP","category":"Knitwear"},
 "context":{"page":{"url":"https://example.com/products/merino-crew"},"consent":{"marketing":true}}}"#;
    assert_eq!(producer.post("/v1/track", event).status, 200);
    // Without consent it is dropped, and said so.
    let denied = producer.post("/v1/track", r#"{"event":"Product Viewed"}"#);
    assert!(denied.body.contains(r#""reason":"consent""#), "{}", denied.body);
    wait_until("the record", || upstream.handle.counters().records_accepted == 1);
    let record = String::from_utf8(upstream.handle.records()[0].body.to_vec()).unwrap();
    assert_eq!(
        record,
        concat!(
            r#"{"@type":"custom_event","id":"abc123","timestamp":"2026-06-06T15:32:52+00:00","event_type":"product_viewed","identity_email":"jane.doe@example.com","#,
            r#""properties":{"product_id":"SKU-A","product_name":"Merino Crew Jumper","variant_id":"navy-m","product_price":79.00,"currency":"GBP","category":"Knitwear","page_url":"https://example.com/products/merino-crew"}}"#
        )
    );
    assert_eq!(daemon.stop().0, Some(0));
}

/// Promise 6: one bad record costs its neighbours nothing.
#[test]
fn one_poison_record_in_a_hundred_is_isolated_and_the_others_arrive_in_order() {
    let upstream = Upstream::start(None, &["poison=poison-"]);
    let host = Host::new(&upstream.url, "key", "");
    let daemon = host.start();
    let ids = post(&host, 100, |n| n == 37);
    host.wait_until_settled();
    let expected: Vec<&String> = ids.iter().filter(|id| !id.starts_with("poison")).collect();
    assert_eq!(upstream.ids().iter().collect::<Vec<_>>(), expected);
    assert_eq!((host.lane("delivered"), host.lane("quarantined")), (99, 1));
    let shown = host.pillarbox(&["quarantine", "show", "1"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("answer  400 ") && shown.contains("poison-37"), "{shown}");
    assert_eq!(daemon.stop().0, Some(0));
}

/// 250 poison records: 250 quarantined; after the poison is gone, a retry delivers them with their old ids.
#[test]
fn what_was_quarantined_is_delivered_once_the_cause_is_gone() {
    let upstream = Upstream::start(None, &["poison=poison-"]);
    let host = Host::new(&upstream.url, "key", "");
    let daemon = host.start();
    let ids = post(&host, 250, |_| true);
    host.wait_until_settled();
    assert_eq!((host.lane("quarantined"), upstream.ids().len()), (250, 0));
    upstream.handle.clear_faults();
    let retried = host.pillarbox(&["quarantine", "retry", "--all"]);
    assert_eq!(String::from_utf8(retried.stdout).unwrap(), "250 queued again\n");
    wait_until("250 deliveries", || upstream.handle.counters().records_accepted == 250);
    assert_eq!(upstream.ids(), ids);
    host.wait_until_settled();
    assert_eq!(host.status()["quarantined"], 0);
    assert_eq!(daemon.stop().0, Some(0));
}

/// The storm guard holds the lane instead of emptying it into the quarantine, and goes on by itself.
#[test]
fn a_storm_of_rejections_holds_the_integration() {
    let upstream = Upstream::start(None, &["poison=poison-"]);
    let host = Host::new(&upstream.url, "key", "storm_limit = 10");
    let daemon = host.start();
    post(&host, 100, |_| true);
    wait_until("the hold", || host.status()["integrations"][0]["report"]["state"] == "storm");
    assert_eq!((host.lane("quarantined"), host.lane("queued_records")), (10, 90));
    let text = String::from_utf8(host.pillarbox(&["status"]).stdout).unwrap();
    assert!(text.contains("held (storm)") && text.contains("quarantine list"), "{text}");
    assert_eq!(daemon.stop().0, Some(0));
}

/// A refused key loses and quarantines nothing; the right one, after a restart, delivers everything in order.
#[test]
fn a_wrong_key_holds_everything_until_the_right_one() {
    let upstream = Upstream::start(Some("right-key"), &[]);
    let host = Host::new(&upstream.url, "wrong-key", "");
    let daemon = host.start();
    let ids = post(&host, 300, |_| false);
    wait_until("the hold", || {
        host.status()["integrations"][0]["report"]["state"] == "unauthorized"
    });
    let text = String::from_utf8(host.pillarbox(&["status"]).stdout).unwrap();
    assert!(text.contains("403") && text.contains("Settings > API keys"), "{text}");
    let (code, _, log) = daemon.stop();
    assert_eq!(code, Some(0));
    // Promise 8.
    assert!(!log.contains("wrong-key") && !text.contains("wrong-key"));
    host.configure(&upstream.url, "right-key", "");
    let daemon = host.start();
    host.wait_until_settled();
    assert_eq!(upstream.ids(), ids);
    assert_eq!((host.lane("delivered"), host.lane("quarantined")), (300, 0));
    assert_eq!(daemon.stop().0, Some(0));
}

/// Promise 5: whatever answers in Ometria's place, only a 202 acknowledges.
#[test]
fn no_other_answer_than_202_acknowledges() {
    let faults = [
        "status=200,count=2",
        "status=204,count=2",
        "status=302,count=2,header=Location:/v2/push",
        "status=503,count=2",
        "reset,count=2",
        "garbage,count=2",
    ];
    let upstream = Upstream::start(None, &faults);
    let host = Host::new(&upstream.url, "key", "");
    let daemon = host.start();
    let ids = post(&host, 50, |_| false);
    host.wait_until_settled();
    assert_eq!(upstream.ids(), ids);
    let report = host.status()["integrations"][0]["report"].clone();
    assert_eq!(
        (report["pushes"].as_u64(), report["pushes_retried"].as_u64()),
        (Some(13), Some(12)),
        "{report}"
    );
    assert_eq!(daemon.stop().0, Some(0));
}

/// Each integration has its own lane: one that is held does not delay the other.
#[test]
fn two_integrations_are_fed_by_one_event_each_with_its_own_fate() {
    let (open, closed) = (Upstream::start(None, &[]), Upstream::start(Some("other"), &[]));
    let host = Host::new(&open.url, "key", "");
    let text = std::fs::read_to_string(host.config()).unwrap();
    let second = format!(
        "[[integration]]\nname = \"de\"\napi_key = \"key\"\npreset = \"default\"\nendpoint = \"{}\"\n",
        closed.url
    );
    std::fs::write(host.config(), text + &second).unwrap();
    let daemon = host.start();
    let mut producer = Producer::connect(&host.ingest());
    let answer = producer.post("/v1/track", r#"{"event":"Nap Taken","messageId":"only-default"}"#);
    assert_eq!(answer.json()["accepted"], 1);
    let ids = post(&host, 10, |_| false);
    wait_until("deliveries of the open one", || open.ids() == ids);
    wait_until("the hold", || {
        host.status()["integrations"][1]["report"]["state"] == "unauthorized"
    });
    assert_eq!(host.status()["integrations"][1]["lane"]["queued_records"], 11);
    assert_eq!(daemon.stop().0, Some(0));
}

/// A stop ends within its limit, with a push in flight that nobody answers; the push repeats after the start.
#[test]
fn a_stop_abandons_a_hanging_push_safely() {
    let upstream = Upstream::start(None, &["hang,count=1"]);
    let host = Host::new(&upstream.url, "key", "");
    let daemon = host.start();
    let ids = post(&host, 5, |_| false);
    wait_until("the push", || upstream.handle.counters().pushes >= 1);
    let (code, took, log) = daemon.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(took.as_secs() < 10, "the stop took {took:?}");
    assert!(took < PATIENCE);
    let daemon = host.start();
    host.wait_until_settled();
    assert_eq!(upstream.ids(), ids);
    assert_eq!(daemon.stop().0, Some(0));
}
