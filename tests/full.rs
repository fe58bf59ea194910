//! Promise 7 on a disk that is full: producers are told 503, what was accepted stays and is delivered, and everything goes
//! on by itself once there is room.
//!
//! Method: the spool lies on a tmpfs of some MiB in a mount namespace of its own (`unshare -rm`, no root needed), which a
//! holder keeps while daemons come and go in it (`nsenter`). A ballast file takes room and gives it back. Where a namespace
//! is not permitted the tests say so and end.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use support::{Answer, Host, Producer, Upstream, event, wait_until};

const MIB: u64 = 1 << 20;
/// The volume: two segments of the log, the store, and some room to play with.
const VOLUME_BYTES: u64 = 64 * MIB;
const BALLAST_BYTES: usize = 16 << 20;
/// So many events of 20 KB do not find room in the volume.
const EVENTS_MAX: usize = 3_400;

/// A small file system under a host's `state` folder.
struct Volume {
    holder: Child,
    /// The file system, seen from outside.
    root: PathBuf,
}

impl Volume {
    /// `None` where it is not permitted.
    fn mount(host: &Host) -> Option<Volume> {
        let state = host.folder.path().join("state");
        fs::create_dir(&state).unwrap();
        let script = r#"mount -t tmpfs -o "size=$2" none "$1" && echo mounted && exec cat"#;
        let mut holder = Command::new("unshare");
        holder.args(["-rm", "sh", "-c", script, "sh"]).arg(&state).arg(VOLUME_BYTES.to_string());
        holder.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut holder = holder.spawn().ok()?;
        let mut line = String::new();
        BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        if line.trim() != "mounted" {
            holder.wait().unwrap();
            println!(
                "SKIPPED: no file system can be mounted here (unshare -rm): nothing was tested"
            );
            return None;
        }
        let root = PathBuf::from(format!("/proc/{}/root{}", holder.id(), state.display()));
        Some(Volume { holder, root })
    }

    /// What starts a daemon inside.
    fn daemon(&self, host: &Host, min_free_disk: &str) -> Command {
        let limit = format!("spool.min_free_disk={min_free_disk}");
        // Settled segments go at once, which needs checkpoints: writes of the store.
        let inner = host.command(&["--set", &limit, "--set", "spool.keep_delivered=0"]);
        let mut command = Command::new("nsenter");
        command.args(["--preserve-credentials", "-U", "-m", "-t", &self.holder.id().to_string()]);
        command.arg(inner.get_program()).args(inner.get_args());
        command
    }

    fn free(&self) -> u64 {
        let disk = rustix::fs::statvfs(&self.root).unwrap();
        disk.f_bavail * disk.f_frsize
    }

    /// Takes `bytes` of room, or all that is left.
    fn fill(&self, bytes: usize) {
        let mut ballast = File::create(self.root.join("ballast")).unwrap();
        let block = vec![1; 4096];
        for _ in 0..bytes / block.len() {
            if ballast.write_all(&block).is_err() {
                break; // full
            }
        }
    }

    fn make_room(&self) {
        fs::remove_file(self.root.join("ballast")).unwrap();
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        drop(self.holder.stdin.take()); // ends it, and the file system with it
        drop(self.holder.wait());
    }
}

/// Posts events of 20 KB from `from` on until one is refused; returns its number and the refusal.
fn post_until_refused(host: &Host, from: usize) -> (usize, Answer) {
    let padding = format!("79.00,\"padding\":\"{}\"", "x".repeat(20_000));
    let mut producer = Producer::connect(&host.ingest());
    for n in from..EVENTS_MAX {
        let body = event(&format!("e-{n:06}")).replace("79.00", &padding);
        let answer = producer.post("/v1/track", &body);
        if answer.status != 200 {
            return (n, answer);
        }
    }
    panic!("more was accepted than the volume can hold");
}

/// A 503 names its code, its reason and when to come again; the health says the same.
fn assert_refusal(host: &Host, answer: &Answer, code: &str) {
    assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some(code)), "{answer:?}");
    assert!(answer.head.to_ascii_lowercase().contains("retry-after: "), "{}", answer.head);
    let health =
        Producer::connect(&host.ingest()).raw(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"");
    let health = health.unwrap();
    assert_eq!((health.status, health.json()["code"].as_str()), (503, Some(code)), "{health:?}");
}

fn accepts(host: &Host, id: usize) -> bool {
    let answer = Producer::connect(&host.ingest()).post("/v1/track", &event(&format!("e-{id:06}")));
    assert!([200, 503].contains(&answer.status), "{answer:?}");
    answer.status == 200
}

fn assert_delivered(upstream: &Upstream, acknowledged: usize) {
    let expected: Vec<String> = (0..acknowledged).map(|n| format!("e-{n:06}")).collect();
    assert_eq!(upstream.ids(), expected);
}

/// `min_free_disk` is kept free: producers are refused before the disk is full, accepted by themselves once there is room,
/// and what was accepted is delivered.
#[test]
fn a_low_disk_refuses_producers_and_recovers_by_itself() {
    let upstream = Upstream::start(None, &["status=503"]);
    let host = Host::new(&upstream.url, "key", "");
    let Some(volume) = Volume::mount(&host) else { return };
    volume.fill(BALLAST_BYTES);
    let daemon = Host::start_as(volume.daemon(&host, "8MiB"));
    let (sent, refusal) = post_until_refused(&host, 0);
    assert_refusal(&host, &refusal, "disk_low");
    assert!(refusal.body.contains("min_free_disk"), "{}", refusal.body);
    // What is prepared and reserved ahead may lie below the limit; a commit may not.
    let free = volume.free();
    assert!((6 * MIB..8 * MIB).contains(&free), "{free} bytes free");
    assert!(sent > 500, "{sent} events were accepted");

    volume.make_room();
    wait_until("room", || accepts(&host, sent));
    upstream.handle.clear_faults();
    host.wait_until_settled();
    assert_delivered(&upstream, sent + 1);
    assert_eq!(daemon.stop().0, Some(0));
}

/// Without a limit the disk really fills. Nothing accepted is lost, whether the queue drains on the full disk or the daemon
/// has to end and is started again when there is room.
#[test]
fn a_full_disk_refuses_producers_and_its_queue_drains() {
    let upstream = Upstream::start(None, &["status=503"]);
    let host = Host::new(&upstream.url, "key", "");
    let Some(volume) = Volume::mount(&host) else { return };
    volume.fill(BALLAST_BYTES);
    let daemon = Host::start_as(volume.daemon(&host, "0B"));
    let (sent, refusal) = post_until_refused(&host, 0);
    assert_refusal(&host, &refusal, "disk_low");
    println!("{sent} events, {} bytes free", volume.free());
    volume.fill(usize::MAX);
    assert_eq!(volume.free(), 0);
    upstream.handle.clear_faults();
    host.wait_until_settled();
    assert_delivered(&upstream, sent);
    volume.make_room();
    wait_until("room", || accepts(&host, sent));
    host.wait_until_settled();
    assert_delivered(&upstream, sent + 1);
    assert_eq!(daemon.stop().0, Some(0));
}

/// A start on a full disk says so, ends with 1 and harms nothing; with room it goes on.
#[test]
fn a_start_on_a_full_disk_says_so_and_harms_nothing() {
    let upstream = Upstream::start(None, &["status=503"]);
    let host = Host::new(&upstream.url, "key", "");
    let Some(volume) = Volume::mount(&host) else { return };
    volume.fill(usize::MAX);
    let start = || Host::try_start_as(volume.daemon(&host, "0B"));
    let (code, log) = start().err().unwrap();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("No space left on device"), "{log}");

    volume.make_room();
    let daemon = start().unwrap_or_else(|(_, log)| panic!("{log}"));
    for n in 0..3 {
        assert!(accepts(&host, n));
    }
    daemon.kill();
    volume.fill(usize::MAX);
    for _ in 0..3 {
        let (code, log) = start().err().unwrap();
        assert_eq!(code, Some(1), "{log}");
        assert!(log.contains("No space left on device"), "{log}");
        assert!(!log.contains("restore a backup"), "told as damage: {log}");
    }
    volume.make_room();
    let daemon = start().unwrap_or_else(|(_, log)| panic!("{log}"));
    upstream.handle.clear_faults();
    host.wait_until_settled();
    assert_delivered(&upstream, 3);
    assert_eq!(daemon.stop().0, Some(0));
}
