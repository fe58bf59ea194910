//! The service under a real systemd: the units as they are shipped, the program as it is built.
//!
//! Each test boots a system of its own (`boot`, `machine`): systemd as PID 1 of namespaces, with a control group hierarchy of its
//! own, in half a second. It shares the network with this host, on which the stand-in for Ometria and the producers run.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod load;
mod machine;
mod sandbox;
#[path = "../support/mod.rs"]
mod support;

use std::collections::HashMap;
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use load::{Seen, produce};
use machine::{Machine, shipped};
use support::{Producer, Upstream, event, wait_until};

const SERVICE: &str = "pillarbox.service";
const PRODUCERS: usize = 3;

/// The exposure that systemd sees in the unit, times ten.
const EXPOSURE_MAX: &str = "13";

#[test]
fn the_unit_is_closed() {
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", "--threshold", EXPOSURE_MAX])
        .arg(shipped("systemd/pillarbox.service"))
        .output()
        .unwrap_or_else(|error| panic!("systemd-analyze (package systemd): {error}"));
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("Overall exposure level"), "{output:?}");
    eprintln!("{}", told.lines().last().unwrap_or_default());
}

/// Start, status, credential, reload, configuration at fault, and starting again by who connects.
#[test]
fn it_starts_reloads_and_tells_how_it_is_going() {
    let upstream = Upstream::start(Some("right-key"), &[]);
    let Some(machine) = Machine::boot(&upstream.url, "wrong-key") else { return };
    let verified =
        machine.command("systemd-analyze").args(["verify", "--man=no", SERVICE]).output();
    let verified = verified.unwrap();
    assert!(verified.status.success() && verified.stderr.is_empty(), "{verified:?}");

    // Returns once it is ready: the sockets are there, and the first request is answered.
    machine.systemctl(&["start", SERVICE]);
    let first = machine.show("MainPID");
    let mut producer = Producer::connect(&machine.ingest());
    assert_eq!(producer.post("/v1/track", &event("1")).status, 200);
    machine.wait_for_status("1 queued, the oldest under a minute; shop: unauthorized");
    let shown = machine.systemctl(&["status", SERVICE]);
    assert!(shown.contains("Status: \"1 queued") && !shown.contains("wrong-key"), "{shown}");

    // A reload that cannot be fails, and changes nothing.
    machine.configure(&upstream.url, "nonsense = 1");
    let failed = machine.try_systemctl(&["reload", SERVICE]);
    assert!(!failed.status.success(), "{failed:?}");
    wait_until("the end of the reload", || machine.show("ActiveState") == "active");
    assert!(machine.log().contains("unknown key `nonsense`"), "{}", machine.log());
    assert_eq!(machine.show("MainPID"), first);
    let second = "[[integration]]\nname = \"second\"\napi_key = \"right-key\"\n";
    machine.configure(&upstream.url, &format!("{second}endpoint = \"{}\"", upstream.url));
    machine.systemctl(&["reload", SERVICE]);
    machine.wait_for_status("second: idle");
    assert_eq!((machine.show("MainPID"), machine.show("NRestarts")), (first.clone(), "0".into()));
    assert_eq!(producer.post("/v1/track", &event("2")).status, 200, "the connection outlives it");

    // Debian 12's systemd hands a changed credential over at a start.
    machine.write("etc/pillarbox/keys/shop", "right-key");
    machine.systemctl(&["restart", SERVICE]);
    machine.wait_for_status("nothing queued; shop: idle; second: idle");

    // A configuration at fault: exit 78, and systemd does not start it again.
    machine.configure(&upstream.url, "nonsense = 1");
    assert!(!machine.try_systemctl(&["restart", SERVICE]).status.success());
    assert_eq!(machine.show("ExecMainStatus"), "78");
    assert_eq!(
        (machine.show("ActiveState"), machine.show("NRestarts")),
        ("failed".into(), "0".into())
    );
    // Whoever connects has it started again, as often as it ends while one waits; a fault rests for 5 s, so that this is no
    // loop that takes a core.
    let told = || machine.log().matches("unknown key `nonsense`").count();
    let (before, begun) = (told(), Instant::now());
    let mut producer = Producer::connect(&machine.ingest());
    wait_until("two more starts", || told() >= before + 2);
    assert!(begun.elapsed() > Duration::from_secs(9), "started again after {:?}", begun.elapsed());
    machine.configure(&upstream.url, "");
    assert_eq!(producer.post("/v1/track", &event("3")).status, 200);
    machine.wait_for_status("nothing queued; shop: idle; second: not configured");
    // It has lived for longer than the watchdog waits, and was not killed.
    let begun = Instant::now();
    let daemon = machine.show("MainPID");
    wait_until("two turns of the watchdog", || begun.elapsed() > Duration::from_secs(7));
    assert_eq!((machine.show("MainPID"), machine.show("NRestarts")), (daemon, "0".into()));
}

/// Goal: through restarts, a new program, kills and a stop, no producer is refused and nothing that was answered is lost.
/// Method: three producers hand over events all the time, over connections of both kinds; a restart may end only
/// connections that have asked before, which HTTP clients repeat. In the end every event that was answered 200 has arrived, once.
#[test]
fn nobody_is_refused_while_daemons_come_and_go() {
    let upstream = Upstream::start(Some("key"), &[]);
    let Some(machine) = Machine::boot(&upstream.url, "key") else { return };
    machine.systemctl(&["start", SERVICE]);
    let socket = machine.ingest();
    let ended = AtomicBool::new(false);
    let (orderly, all) = std::thread::scope(|scope| {
        let _at_a_failure = End(&ended);
        let start = |first| {
            (first..first + PRODUCERS)
                .map(|name| produce(scope, &socket, name, &ended))
                .collect::<Vec<_>>()
        };
        let finish = |running: Vec<_>| {
            ended.store(true, Ordering::Release);
            let seen: Vec<Seen> = running
                .into_iter()
                .map(|it: std::thread::ScopedJoinHandle<'_, Seen>| it.join().unwrap())
                .collect();
            ended.store(false, Ordering::Release);
            seen
        };
        let running = start(0);
        for _ in 0..3 {
            some_deliveries(&upstream);
            machine.systemctl(&["restart", SERVICE]);
        }
        upgrade(&machine);
        some_deliveries(&upstream);
        let orderly = finish(running);
        let running = start(PRODUCERS);
        for _ in 0..3 {
            some_deliveries(&upstream);
            let before = machine.show("MainPID");
            machine.signal("SIGKILL");
            machine.wait_for_successor(&before);
        }
        // Stopped for good, but for the sockets: the producers have it started again.
        let before = machine.show("MainPID");
        machine.systemctl(&["stop", SERVICE]);
        machine.wait_for_successor(&before);
        some_deliveries(&upstream);
        (orderly, finish(running))
    });
    for seen in &orderly {
        assert_eq!(
            seen.ended_new, 0,
            "a connection that had just been made was turned away: {seen:?}"
        );
    }
    let mut answered = 0;
    let seen: Vec<Seen> = orderly.into_iter().chain(all).collect();
    for seen in &seen {
        assert!(
            seen.refused.is_empty() && seen.answers.is_empty(),
            "{:?} {:?}",
            seen.refused,
            seen.answers
        );
        answered += seen.acknowledged.len();
    }
    check_arrivals(&machine, &upstream, &seen);
    let waited = seen.iter().map(|seen| seen.waited).max().unwrap();
    let old: u64 = seen.iter().map(|seen| seen.ended_old).sum();
    eprintln!(
        "{answered} events through 8 ends of the daemon; {old} requests repeated, the longest wait {waited:?}"
    );
}

/// Checks that every event that was answered 200 has arrived, those of each producer in their order.
fn check_arrivals(machine: &Machine, upstream: &Upstream, seen: &[Seen]) {
    machine.wait_for_status("nothing queued");
    let mut arrived: HashMap<String, usize> = HashMap::new();
    for (place, id) in upstream.ids().into_iter().enumerate() {
        arrived.entry(id).or_insert(place);
    }
    for seen in seen {
        let places: Vec<Option<&usize>> =
            seen.acknowledged.iter().map(|id| arrived.get(id)).collect();
        assert!(
            places.iter().all(Option::is_some),
            "an event that was answered 200 has not arrived"
        );
        assert!(places.is_sorted(), "the events of a producer arrived in another order");
    }
}

/// Ends the producers, whatever becomes of the test.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Waits until something more has arrived: a new daemon takes events and delivers them.
fn some_deliveries(upstream: &Upstream) {
    let before = upstream.ids().len();
    wait_until("deliveries", || upstream.ids().len() >= before + 100);
}

/// As a package does it: the new program takes the old one's place while that runs, then a restart.
fn upgrade(machine: &Machine) {
    let before = machine.show("MainPID");
    let (new, program) =
        (machine.path("usr/bin/pillarbox.dpkg-new"), machine.path("usr/bin/pillarbox"));
    fs::copy(&program, &new).unwrap();
    fs::rename(&new, &program).unwrap();
    let is_replaced = |daemon: &str| {
        let link = machine.command("readlink").arg(format!("/proc/{daemon}/exe")).output();
        let link = String::from_utf8(link.unwrap().stdout).unwrap();
        link.trim().ends_with("(deleted)")
    };
    assert!(is_replaced(&before));
    machine.systemctl(&["try-restart", SERVICE]);
    let now = machine.show("MainPID");
    assert_ne!(now, before);
    assert!(!is_replaced(&now));
}

/// A process that does not go on is found, ended and replaced; who waits meanwhile is served.
#[test]
fn the_watchdog_replaces_a_daemon_that_stands_still() {
    let upstream = Upstream::start(Some("key"), &[]);
    let Some(machine) = Machine::boot(&upstream.url, "key") else { return };
    machine.systemctl(&["start", SERVICE]);
    let before = machine.show("MainPID");
    machine.signal("SIGSTOP");
    let mut producer = Producer::connect(&machine.ingest());
    let begun = Instant::now();
    // It connects to the backlog, and is answered by the next daemon, or must ask again when the first had accepted.
    let answered = producer.try_post("/v1/track", event("1").as_bytes());
    let status = answered.map_or_else(
        |_| Producer::connect(&machine.ingest()).post("/v1/track", &event("1")).status,
        |answer| answer.status,
    );
    assert_eq!(status, 200);
    machine.wait_for_successor(&before);
    assert_eq!(machine.show("NRestarts"), "1");
    let log = machine.systemd_log();
    assert!(
        log.contains("Watchdog timeout") && log.contains("Failed with result 'watchdog'"),
        "{log}"
    );
    eprintln!("a daemon that stood still was replaced within {:?}", begun.elapsed());
    machine.wait_for_status("nothing queued");
    assert_eq!(upstream.ids(), ["1"]);
}

/// Stop and start with a queue: in time, with exit code 0, and nothing of it is lost.
#[test]
fn a_queue_outlasts_a_stop() {
    let upstream = Upstream::start(Some("right-key"), &[]);
    let Some(machine) = Machine::boot(&upstream.url, "wrong-key") else { return };
    machine.systemctl(&["start", SERVICE]);
    let mut producer = Producer::connect(&machine.ingest());
    let count = 5000;
    for batch in 0..10 {
        let events: Vec<String> = (0..count / 10).map(|n| event(&format!("{batch}-{n}"))).collect();
        let answer = producer.post("/v1/batch", &format!("[{}]", events.join(",")));
        assert_eq!(answer.json()["accepted"], count / 10);
    }
    machine.wait_for_status("5000 queued");
    let begun = Instant::now();
    machine.systemctl(&["stop", SERVICE]);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(20), "the stop took {took:?}");
    assert_eq!(
        (machine.show("Result"), machine.show("ExecMainStatus")),
        ("success".into(), "0".into())
    );
    assert_eq!(machine.show("ActiveState"), "inactive");
    machine.write("etc/pillarbox/keys/shop", "right-key");
    machine.systemctl(&["start", SERVICE]);
    machine.wait_for_status("nothing queued; shop: idle");
    assert_eq!(upstream.ids().len(), count);
    assert_eq!(machine.status()["integrations"][0]["lane"]["delivered"], count);
}
