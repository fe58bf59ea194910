//! What does not grow with the queue: memory and start-up. And what comes back when it has left: the disk.
//!
//! A debug build tries a twenty-fifth of the numbers; `tests/run` runs this file once more against the release build.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use tokio::time::Instant;

use support::{Daemon, Host, PROGRAM, Producer, pillarbox, wait_until};

const BATCH: u64 = 500;

/// As large as the daemon's build lets it be tried.
fn million() -> u64 {
    let is_debug = cfg!(debug_assertions) && std::env::var_os(PROGRAM).is_none();
    if is_debug { 40_000 } else { 1_000_000 }
}

/// The stand-in for Ometria, of the same build as the daemon: a debug one would be the slower of the two.
struct Simulator {
    child: Child,
    url: String,
}

impl Simulator {
    fn start(key: &str) -> Simulator {
        let mut command = pillarbox();
        command.args(["simulate", "--listen", "127.0.0.1:0", "--quiet", "--key", key]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Simulator { child, url }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Hands `events` to the daemon, in batches over a few connections.
fn fill(host: &Host, events: u64) {
    let event = r#"{"type":"track","userId":"user-123","event":"Product Viewed","timestamp":"2026-06-06T15:32:52.417Z","properties":{"product_id":"SKU-A","product_name":"Merino Crew Jumper","variant":"navy-m","price":79.00,"currency":"GBP","category":"Knitwear"},"context":{"page":{"url":"https://example.com/products/merino-crew"}}}"#;
    let mut body = String::from("[");
    for n in 0..BATCH {
        write!(body, "{}{event}", if n == 0 { "" } else { "," }).unwrap();
    }
    body.push(']');
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut producer = Producer::connect(&host.ingest());
                for _ in 0..events / 4 / BATCH {
                    let answer = producer.post("/v1/batch", &body);
                    assert_eq!(answer.status, 200, "{answer:?}");
                }
            });
        }
    });
}

/// A number of `/proc/PID/FILE`, by the name before its colon.
fn proc(daemon: &Daemon, file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/{file}", daemon.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

/// Bytes of the files in `folder`.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(Result::unwrap);
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size(&entry.path()),
            Ok(metadata) => metadata.len(),
            // Removed since it was listed.
            Err(_) => 0,
        })
        .sum()
}

/// Goal: five million queued records cost no more memory, and no more reading at a start, than one million.
/// Method: a held integration; kill -9 with one million queued and with five; peak memory, and the bytes that the new
/// process has read when it is ready, as the kernel counts them.
#[test]
fn memory_and_start_up_do_not_grow_with_the_queue() {
    let upstream = Simulator::start("another-key");
    let host = Host::new(&upstream.url, "key", "");
    let mut daemon = host.start();
    let mut read = Vec::new();
    for millions in [1, 4] {
        fill(&host, millions * million());
        let peak = proc(&daemon, "status", "VmHWM") >> 10;
        assert!(peak < 128, "{peak} MiB resident");
        daemon.kill();
        let begun = Instant::now();
        daemon = host.start();
        read.push(proc(&daemon, "io", "rchar"));
        eprintln!(
            "{} records queued: peak {peak} MiB before the kill, ready after {:?} and {} MiB read",
            host.lane("queued_records"),
            begun.elapsed(),
            read.last().unwrap() >> 20
        );
    }
    assert_eq!(host.lane("queued_records"), 5 * million());
    let peak = proc(&daemon, "status", "VmHWM") >> 10;
    assert!(peak < 128, "{peak} MiB resident after the start");
    // A segment under way, full or empty, is the difference between two starts.
    assert!(read[1] <= 2 * read[0] + (32 << 20), "{read:?} bytes read at the starts");
    assert_eq!(daemon.stop().0, Some(0));
}

/// After a backlog has left, the disk holds little more than what `keep_delivered` asks for.
#[test]
fn the_disk_comes_back_after_a_backlog() {
    let upstream = Simulator::start("another-key");
    let host = Host::new(&upstream.url, "key", "");
    let daemon = host.start();
    fill(&host, million());
    assert_eq!(daemon.stop().0, Some(0));
    let full = size(&host.folder.path().join("state"));
    host.configure(&upstream.url, "another-key", "");
    let daemon = host.start();
    host.wait_until_settled();
    let kept = 10_000 * 400;
    wait_until("the disk to come back", || {
        size(&host.folder.path().join("state")) < (64 << 20) + kept
    });
    eprintln!(
        "{} MiB on disk with the backlog, {} MiB after it",
        full >> 20,
        size(&host.folder.path().join("state")) >> 20
    );
    let peak = proc(&daemon, "status", "VmHWM") >> 10;
    assert!(peak < 128, "{peak} MiB resident");
    assert_eq!(daemon.stop().0, Some(0));
}
