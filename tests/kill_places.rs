//! Promises 1 and 4 through SIGKILL at places that a daemon comes to seldom: its first start, the end of a segment of the
//! log, the move of the store to a new generation. `tests/kill.rs` kills it everywhere else.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;

use support::victim::{Victim, check_repeats, scene};
use support::{Host, Producer, Upstream};

/// A kill while the very first spool is made leaves one that opens and takes events.
#[test]
fn kills_during_the_first_start_leave_a_spool_that_opens() {
    let points = [
        "open-locked",
        "generation-filled",
        "generation-named",
        "generation-current",
        "open-store",
        "segment-made",
        "segment-named",
        "open-log",
        "open-checked",
        "torn",
        "written",
        "flushed",
        "apply",
        "applied",
    ];
    for point in points {
        let (upstream, host) = scene();
        let mut victim = Victim::start(&host, Some(&format!("{point}:1")));
        let signal = victim.child.wait().unwrap().signal();
        assert_eq!(signal, Some(9), "{point}\n{}", Victim::log(&host));
        let mut daemon = Victim::start(&host, None);
        daemon.wait_until_ready(&host);
        let answer = Producer::connect(&host.ingest()).post("/v1/track", &support::event("first"));
        assert_eq!(answer.status, 200, "{point}");
        host.wait_until_settled();
        assert_eq!(upstream.ids(), ["first"], "{point}");
        assert_eq!(daemon.terminate().code(), Some(0), "{point}");
    }
}

/// Kills where one segment of the log ends and the next begins, and while the next is prepared: records of 55 KB fill a
/// segment at once.
#[test]
fn kills_between_two_segments_of_the_log_lose_nothing() {
    let (upstream, host) = scene();
    let (mut sent, filler) = (0, "x".repeat(55_000));
    let points = ["segment-made:2", "segment-named:2", "rolling:1", "rolled:1"];
    for point in points {
        let mut victim = Victim::start(&host, Some(point));
        victim.wait_until_ready(&host);
        let mut producer = Producer::connect(&host.ingest());
        loop {
            let events: Vec<String> = (sent..sent + 10)
                .map(|n| format!(r#"{{"event":"Product Viewed","type":"track","messageId":"e-{n}","properties":{{"filler":"{filler}"}}}}"#))
                .collect();
            match producer.try_post("/v1/batch", format!("[{}]", events.join(",")).as_bytes()) {
                Ok(answer) => assert_eq!(answer.status, 200, "{answer:?}"),
                Err(_) => break,
            }
            sent += 10;
        }
        assert_eq!(
            victim.child.wait().unwrap().signal(),
            Some(9),
            "{point}\n{}",
            Victim::log(&host)
        );
    }
    let mut daemon = Victim::start(&host, None);
    daemon.wait_until_ready(&host);
    host.wait_until_settled();
    let ids = upstream.ids();
    check_repeats(&ids.iter().map(String::as_str).collect::<Vec<_>>(), points.len());
    let mut seen = BTreeSet::new();
    let first: Vec<&String> = ids.iter().filter(|id| seen.insert(*id)).collect();
    // A request that a kill left without an answer may be there, whole, and was then sent again under the same ids.
    assert!(first.len() == sent || first.len() == sent + 10, "{} of {sent}", first.len());
    let expected: Vec<String> = (0..first.len()).map(|n| format!("e-{n}")).collect();
    assert_eq!(first, expected.iter().collect::<Vec<_>>());
    assert_eq!(daemon.terminate().code(), Some(0));
}

/// Kills while pushes of Ometria's own shape are stored: what was answered is there once, what was not is there whole or not
/// at all, and is sent again by its client. Nothing is delivered meanwhile, so that each repeat is a client's.
#[test]
fn kills_while_a_push_is_stored_keep_it_whole() {
    let upstream = Upstream::start(Some("key"), &["status=503"]);
    let host = Host::new(&upstream.url, "key", "");
    let (mut sent, mut unanswered) = (0, Vec::new());
    let points = ["torn:3", "written:3", "flushed:3", "applied:3"];
    let body = |push: usize| {
        let record = |n: usize| format!(r#"{{"@type":"order","id":"{push}/{n}"}}"#);
        format!("[{}]", (0..3).map(record).collect::<Vec<_>>().join(","))
    };
    for point in points {
        let mut victim = Victim::start(&host, Some(point));
        victim.wait_until_ready(&host);
        let mut producer = Producer::connect(&host.ingest());
        while let Ok(answer) = producer.try_post("/v2/push", body(sent).as_bytes()) {
            assert_eq!(answer.status, 202, "{answer:?}");
            sent += 1;
        }
        unanswered.push(sent);
        assert_eq!(
            victim.child.wait().unwrap().signal(),
            Some(9),
            "{point}\n{}",
            Victim::log(&host)
        );
    }
    let mut daemon = Victim::start(&host, None);
    daemon.wait_until_ready(&host);
    let answer = Producer::connect(&host.ingest()).post("/v2/push", &body(sent));
    assert_eq!(answer.status, 202);
    upstream.handle.clear_faults();
    host.wait_until_settled();
    let ids = upstream.ids();
    let mut stored = Vec::new();
    for push in ids.chunks(3) {
        let number: usize = push[0].split('/').next().unwrap().parse().unwrap();
        let whole: Vec<String> = (0..3).map(|n| format!("{number}/{n}")).collect();
        assert_eq!(push, whole);
        stored.push(number);
    }
    assert!(stored.is_sorted(), "{stored:?}");
    for push in 0..=sent {
        let times = |all: &[usize]| all.iter().filter(|known| **known == push).count();
        let most = 1 + times(&unanswered);
        assert!((1..=most).contains(&times(&stored)), "push {push} of {stored:?}, {unanswered:?}");
    }
    assert_eq!(daemon.terminate().code(), Some(0));
}

/// Goal: a kill anywhere in the move of a store to a new generation leaves the old one or the new one, whole.
/// Method: 600 large invalid events fill the quarantine and leave it, so that the store's file is far larger than what is
/// in it and moves at the next start; that start is killed at each point of the move, one after the other.
#[test]
fn kills_while_the_store_moves_lose_nothing() {
    let (upstream, host) = scene();
    let mut daemon = Victim::start(&host, None);
    daemon.wait_until_ready(&host);
    let mut producer = Producer::connect(&host.ingest());
    let identify = r#"{"userId":"u","traits":{"email":"x@y.z"}}"#;
    assert_eq!(producer.post("/v1/identify", identify).status, 200);
    let padding = "x".repeat(58_000);
    for n in 0..60 {
        let events: Vec<String> = (0..10)
            .map(|k| format!(r#"{{"type":"track","messageId":"invalid-{n}-{k}","p":"{padding}"}}"#))
            .collect();
        let answer = producer.post("/v1/batch", &format!("[{}]", events.join(",")));
        assert_eq!(answer.json()["quarantined"], 10, "{answer:?}");
    }
    assert!(host.pillarbox(&["quarantine", "drop", "--all", "--yes"]).status.success());
    // An idle connection ends after a while, and the removal may take longer.
    let mut producer = Producer::connect(&host.ingest());
    let kept = r#"[{"type":"track","messageId":"invalid-kept"}]"#;
    assert_eq!(producer.post("/v1/batch", kept).json()["quarantined"], 1);
    assert_eq!(daemon.terminate().code(), Some(0));
    for point in
        ["generation-filled", "generation-named", "generation-current", "generation-removed"]
    {
        let mut victim = Victim::start(&host, Some(&format!("{point}:1")));
        let status = victim.child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "{point}: {status}\n{}", Victim::log(&host));
    }
    let mut daemon = Victim::start(&host, None);
    daemon.wait_until_ready(&host);
    let spool = host.folder.path().join("state/spool");
    assert!(!spool.join("0000000001").exists() && spool.join("0000000002").exists());
    let mut producer = Producer::connect(&host.ingest());
    assert_eq!(producer.post("/v1/batch", kept).json()["duplicate"], 1);
    assert_eq!(producer.post("/v1/page", r#"{"userId":"u"}"#).status, 200);
    host.wait_until_settled();
    let record = String::from_utf8(upstream.handle.records()[0].body.to_vec()).unwrap();
    assert!(record.contains(r#""identity_email":"x@y.z""#), "{record}");
    let exported = host.pillarbox(&["quarantine", "export"]).stdout;
    assert_eq!(String::from_utf8(exported).unwrap().lines().count(), 1);
    assert_eq!(daemon.terminate().code(), Some(0));
}
