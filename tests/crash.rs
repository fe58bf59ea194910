//! Promises 1, 3 and 4 through `kill -9`, and the fdatasync before the answer.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::HashSet;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use support::{Host, Producer, Upstream, event, wait_until};

/// Goal: every event answered 200 is delivered, in order, whenever the daemon is killed; only pushes in flight repeat.
/// Method: one producer posts 10,000 events one by one and in small batches, keeping its own list of what was answered;
/// the daemon is killed three times meanwhile, and the producer goes on with the event that had no answer.
#[test]
fn ten_thousand_events_survive_kills_in_order() {
    const EVENTS: usize = 10_000;
    const KILLS: [usize; 3] = [2_000, 5_000, 8_000];
    let upstream = Upstream::start(None, &[]);
    let host = Host::new(&upstream.url, "key", "");
    let mut daemon = Some(host.start());
    let kill_now = AtomicBool::new(false);
    let mut next = 0;
    let mut kills = KILLS.into_iter().peekable();
    let mut producer = Producer::connect(&host.ingest());
    while next < EVENTS {
        if kills.next_if(|at| next >= *at).is_some() {
            kill_now.store(true, Ordering::Release);
        }
        let count = [1, 1, 7, 50][next % 4].min(EVENTS - next);
        let events: Vec<String> = (next..next + count).map(|n| event(&format!("e-{n}"))).collect();
        let body = format!("[{}]", events.join(","));
        let answer = std::thread::scope(|scope| {
            // The kill races with the request: before it, in the middle, or after its answer.
            let killer = kill_now.swap(false, Ordering::AcqRel).then(|| {
                let daemon = daemon.take().unwrap();
                scope.spawn(|| daemon.kill())
            });
            let answer = producer.try_post("/v1/batch", body.as_bytes());
            if let Some(killer) = killer {
                killer.join().unwrap();
            }
            answer
        });
        match answer {
            Ok(answer) if answer.status == 200 => next += count,
            Ok(answer) => panic!("{answer:?}"),
            Err(_) => {}
        }
        if daemon.is_none() {
            daemon = Some(host.start());
            producer = Producer::connect(&host.ingest());
        }
    }
    host.wait_until_settled();
    assert_eq!(daemon.unwrap().stop().0, Some(0));

    let arrived = upstream.ids();
    let mut seen = HashSet::new();
    let first_arrivals: Vec<&String> = arrived.iter().filter(|id| seen.insert(*id)).collect();
    let expected: Vec<String> = (0..EVENTS).map(|n| format!("e-{n}")).collect();
    assert_eq!(first_arrivals, expected.iter().collect::<Vec<_>>());
    let repeats = arrived.len() - EVENTS;
    assert!(
        repeats <= KILLS.len() * 100,
        "{repeats} records repeated: more than the pushes in flight"
    );
}

/// A kill while pushes go out and none is answered repeats exactly the push in flight.
#[test]
fn a_push_that_upstream_took_unheard_is_repeated_with_its_ids() {
    let upstream = Upstream::start(None, &["delay=60s,count=1"]);
    let host = Host::new(&upstream.url, "key", "");
    let daemon = host.start();
    let mut producer = Producer::connect(&host.ingest());
    assert_eq!(producer.post("/v1/track", &event("once")).status, 200);
    wait_until("the push", || upstream.handle.counters().records_accepted == 1);
    daemon.kill();
    let daemon = host.start();
    host.wait_until_settled();
    assert_eq!(upstream.ids(), ["once", "once"]);
    // Promise 4: the producer's own repeat is stored once, across the kill.
    let again = Producer::connect(&host.ingest()).post("/v1/track", &event("once"));
    assert_eq!(again.json()["duplicate"], 1);
    assert_eq!(daemon.stop().0, Some(0));
}

/// Identities are as durable as the events that brought them.
#[test]
fn an_identity_survives_a_kill() {
    let upstream = Upstream::start(None, &[]);
    let host = Host::new(&upstream.url, "key", "");
    let daemon = host.start();
    let identify = r#"{"userId":"u","anonymousId":"a","traits":{"email":"x@y.z"}}"#;
    assert_eq!(Producer::connect(&host.ingest()).post("/v1/identify", identify).status, 200);
    daemon.kill();
    let daemon = host.start();
    let mut producer = Producer::connect(&host.ingest());
    producer.post("/v1/page", r#"{"userId":"u"}"#);
    producer.post("/v1/page", r#"{"anonymousId":"a"}"#);
    wait_until("the records", || upstream.handle.counters().records_accepted == 2);
    for record in upstream.handle.records() {
        let record = String::from_utf8(record.body.to_vec()).unwrap();
        assert!(record.contains(r#""identity_email":"x@y.z""#), "{record}");
    }
    assert_eq!(daemon.stop().0, Some(0));
}

/// Goal: an answer comes after an fdatasync that covers the event (Promise 1).
/// Method: strace shows, for each of some events, a write of the log that holds the event's id, then an
/// fdatasync of the log, then the 200.
#[test]
fn strace_shows_the_fdatasync_between_the_write_and_the_answer() {
    let upstream = Upstream::start(None, &[]);
    let host = Host::new(&upstream.url, "key", "");
    let trace = host.folder.path().join("trace");
    let mut command = Command::new("strace");
    // -D: the daemon is our own child, and strace ends with it.
    command
        .args([
            "-D",
            "-f",
            "-y",
            "-s",
            "100000",
            "-e",
            "trace=pwrite64,fdatasync,write,writev,sendto,sendmsg",
            "-o",
        ])
        .arg(&trace)
        .arg(env!("CARGO_BIN_EXE_pillarbox"))
        .args(["run", "--config"])
        .arg(host.config());
    let daemon = Host::start_as(command);
    let mut producer = Producer::connect(&host.ingest());
    for n in 0..5 {
        assert_eq!(producer.post("/v1/track", &event(&format!("traced-{n}"))).status, 200);
    }
    daemon.kill();
    let read = || String::from_utf8_lossy(&std::fs::read(&trace).unwrap()).into_owned();
    wait_until("the end of the trace", || read().contains("+++ killed by SIGKILL +++"));
    let trace = read();
    let lines: Vec<&str> = trace.lines().collect();
    let mut from = 0;
    for n in 0..5 {
        let find = |from: usize, what: &dyn Fn(&str) -> bool| {
            let at = lines.iter().skip(from).position(|line| what(line));
            at.map_or_else(
                || panic!("not in the trace of event {n}:\n{}", lines[from..].join("\n")),
                |at| from + at,
            )
        };
        let id = format!("traced-{n}");
        let written = find(from, &|line| {
            line.contains("pwrite64(") && line.contains(".log>") && line.contains(&id)
        });
        let synced = find(written, &|line| {
            let done = line.contains("= 0") && !line.contains("unfinished");
            done && (line.contains("fdatasync(") && line.contains(".log>")
                || line.contains("<... fdatasync resumed>"))
        });
        let answered =
            find(from, &|line| line.contains("HTTP/1.1 200 OK") && line.contains("<socket:"));
        assert!(
            written < synced && synced < answered,
            "event {n}: write {written}, fdatasync {synced}, answer {answered}"
        );
        from = answered + 1;
    }
}
