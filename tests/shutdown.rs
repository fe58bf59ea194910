//! The order of a shutdown: nobody new is taken, requests under way are answered and durable, the push in flight is settled or
//! given up, the store is closed, exit 0; within a limit that does not depend on the queue.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use support::{Daemon, Host, Producer, Upstream, event, wait_until};

/// What requests and the push in flight are given (`socket::DRAIN`, `forward::GRACE`), and as much again for a busy machine.
const LIMIT: Duration = Duration::from_secs(20);

/// SIGTERM, and waits until nobody new is taken.
fn begin_to_stop(host: &Host, daemon: &Daemon) {
    daemon.terminate();
    wait_until("an end of the listening", || UnixStream::connect(host.ingest()).is_err());
}

/// Ends the daemon, in order and in time; how long it took.
fn ended(daemon: Daemon) -> Duration {
    let (code, took, log) = daemon.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("stopped: what is queued is delivered after the next start"), "{log}");
    assert!(took < LIMIT, "the stop took {took:?}\n{log}");
    took
}

/// Goal: a request whose beginning came before the shutdown is taken like any other, and is durable; so is the first one of a
/// connection that had just been made.
#[test]
fn requests_under_way_are_answered_and_kept() {
    let upstream = Upstream::start(Some("another-key"), &[]);
    let host = Host::new(&upstream.url, "key", "");
    let daemon = host.start();
    let body = event("under-way");
    let (first, rest) = body.split_at(20);
    let head =
        format!("POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    let stream = UnixStream::connect(host.ingest()).unwrap();
    let mut under_way = Producer::over(stream.try_clone().unwrap());
    (&stream).write_all(format!("{head}{first}").as_bytes()).unwrap();
    let mut idle = Producer::connect(&host.ingest());
    assert_eq!(idle.post("/v1/track", &event("before")).status, 200);
    let files = || std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    let before = files();
    let mut silent = Producer::connect(&host.ingest());
    wait_until("the connection to be taken", || files() > before);
    begin_to_stop(&host, &daemon);
    let late = silent.try_post("/v1/track", event("just-connected").as_bytes()).unwrap();
    assert_eq!(late.status, 200, "{late:?}");
    assert!(idle.try_post("/v1/track", event("too-late").as_bytes()).is_err());
    (&stream).write_all(rest.as_bytes()).unwrap();
    let answer = under_way.answer().unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.head.to_ascii_lowercase().contains("connection: close"), "{answer:?}");
    ended(daemon);

    let verified = host.pillarbox(&["spool", "verify"]);
    assert!(verified.status.success(), "{verified:?}");
    let daemon = host.start();
    assert_eq!(host.lane("queued_records"), 3);
    ended(daemon);
}

/// A push that is answered in time is settled before the end, and does not come again; one that is not is given up, and does.
#[test]
fn the_push_in_flight_is_settled_or_given_up() {
    for (fault, repeats) in [("delay=1s", false), ("delay=60min", true)] {
        let slow = Upstream::start(None, &[fault]);
        let host = Host::new(&slow.url, "key", "");
        let daemon = host.start();
        assert_eq!(Producer::connect(&host.ingest()).post("/v1/track", &event("1")).status, 200);
        wait_until("a push in flight", || {
            host.status()["integrations"][0]["report"]["pushes"] == 1
        });
        let took = ended(daemon);
        assert_eq!(took < Duration::from_secs(4), !repeats, "{fault}: {took:?}");
        let quick = Upstream::start(None, &[]);
        host.configure(&quick.url, "key", "");
        let daemon = host.start();
        host.wait_until_settled();
        assert_eq!(quick.ids().len(), usize::from(repeats), "{fault}");
        assert_eq!(host.lane("delivered"), 1);
        ended(daemon);
    }
}

/// The time that a stop takes has nothing to do with how much is queued.
#[test]
fn a_queue_does_not_hold_up_the_end() {
    let upstream = Upstream::start(Some("another-key"), &[]);
    let host = Host::new(&upstream.url, "key", "");
    let mut queued = 0;
    for more in [0, 1, 50_000] {
        let daemon = host.start();
        let mut producer = Producer::connect(&host.ingest());
        for batch in 0..more.max(1) / 500 {
            let events: Vec<String> =
                (0..500).map(|n| event(&format!("{more}-{batch}-{n}"))).collect();
            let answer = producer.post("/v1/batch", &format!("[{}]", events.join(",")));
            queued += answer.json()["accepted"].as_u64().unwrap();
        }
        if more == 1 {
            queued +=
                producer.post("/v1/track", &event("one")).json()["accepted"].as_u64().unwrap();
        }
        assert_eq!(host.lane("queued_records"), queued);
        let took = ended(daemon);
        eprintln!("{queued} records queued: stopped within {took:?}");
        assert!(took < Duration::from_secs(8), "{queued} queued: {took:?}");
    }
    assert_eq!(queued, 50_001);
}

/// A key that systemd passes as a credential is read again at a reload; systemd before 260 passes a changed one at a start.
#[test]
fn a_changed_credential_is_used_after_a_reload() {
    let upstream = Upstream::start(Some("new-key"), &[]);
    let host = Host::new(&upstream.url, "key", "");
    let at = host.folder.path();
    let text = std::fs::read_to_string(host.config()).unwrap();
    std::fs::write(
        host.config(),
        text.replace("api_key = \"key\"", "api_key_credential = \"key_uk\""),
    )
    .unwrap();
    std::fs::write(at.join("key_uk"), "old-key\n").unwrap();
    let mut command = host.command(&[]);
    command.env("CREDENTIALS_DIRECTORY", at);
    let daemon = Host::start_as(command);
    assert_eq!(Producer::connect(&host.ingest()).post("/v1/track", &event("1")).status, 200);
    wait_until("a refusal", || {
        host.status()["integrations"][0]["report"]["state"] == "unauthorized"
    });
    std::fs::write(at.join("key_uk"), "new-key\n").unwrap();
    daemon.hang_up();
    host.wait_until_settled();
    assert_eq!(upstream.ids(), ["1"]);
    ended(daemon);
}
