//! Promises 1 and 2 when the disk fails: errors of single system calls, injected into the real daemon with
//! `strace -e inject`, mostly into the calls on one file alone. `tests/full.rs` has the disk that is only full.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use support::{Answer, Daemon, Host, Producer, Upstream, event, wait_until};
use tokio::time::Instant;

/// The store, and the log of the first start, which is where its events go.
const STORE: &str = "state/spool/0000000001/db";
const LOG: &str = "state/spool/log/0000000001.log";
/// In this time a daemon that cannot go on has ended.
const END_MAX: Duration = Duration::from_secs(15);

/// A daemon under strace: `faults` are injected into its calls on `path`.
fn traced(host: &Host, path: &str, faults: &[&str]) -> Command {
    let mut command = Command::new("strace");
    // -D: the daemon is our own child, and strace ends with it.
    command.args(["-D", "-f", "-qq", "-o"]).arg(host.folder.path().join("trace"));
    command.arg("-P").arg(host.folder.path().join(path));
    for fault in faults {
        command.args(["-e", &format!("inject={fault}")]);
    }
    command.arg(env!("CARGO_BIN_EXE_pillarbox")).args(["run", "--config"]).arg(host.config());
    command
}

/// Posts events `from`, `from + 1` … until one is not answered 200. Returns its number, and its answer.
fn post_until_refused(host: &Host, from: usize) -> (usize, Option<Answer>) {
    let mut producer = Producer::connect(&host.ingest());
    for n in from.. {
        match producer.try_post("/v1/track", event(&format!("e-{n:06}")).as_bytes()) {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => return (n, Some(answer)),
            Err(_) => return (n, None),
        }
    }
    unreachable!("the fault comes before the numbers end")
}

/// A 503 names its code, its reason and when to come again.
fn assert_refusal(answer: &Answer, code: &str, reason: &str) {
    assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some(code)), "{answer:?}");
    let message = answer.json()["message"].as_str().unwrap().to_lowercase();
    assert!(message.contains(&reason.to_lowercase()), "{message}");
    assert!(answer.head.to_ascii_lowercase().contains("retry-after: "), "{}", answer.head);
}

/// A start delivers what is queued: everything that was sent, and it ends in order.
fn assert_delivers(host: &Host, upstream: &Upstream, sent: usize) {
    let daemon = host.start();
    host.wait_until_settled();
    assert_delivered(upstream, sent);
    assert_eq!(daemon.stop().0, Some(0));
}

/// What arrived first, in order, is what was acknowledged.
fn assert_delivered(upstream: &Upstream, acknowledged: usize) {
    let mut seen = HashSet::new();
    let ids = upstream.ids();
    let first: Vec<&String> = ids.iter().filter(|id| seen.insert(*id)).collect();
    let expected: Vec<String> = (0..acknowledged).map(|n| format!("e-{n:06}")).collect();
    assert_eq!(first, expected.iter().collect::<Vec<_>>());
}

/// A daemon ends by itself, soon, with 1, and says why and what now.
fn assert_ends(daemon: Daemon, reason: &str) {
    let begun = Instant::now();
    let (code, log) = daemon.wait();
    assert!(begun.elapsed() < END_MAX, "it took {:?} to end:\n{log}", begun.elapsed());
    assert_eq!(code, Some(1), "{log}");
    let message = log.split("pillarbox: ").last().unwrap_or_default();
    assert!(message.contains("the spool failed") && message.contains("start it again"), "{log}");
    assert!(message.to_lowercase().contains(reason), "{log}");
}

/// Goal: an error of the log's write or flush acknowledges nothing, ends the daemon, and a start without it goes on with
/// exactly what was acknowledged (Promises 1 and 2).
/// Method: the fifth such call fails, once: every later one would succeed.
#[test]
fn an_error_of_the_log_ends_the_daemon_and_a_restart_recovers() {
    for (call, error, reason) in [
        ("pwrite64", "EIO", "input/output error"),
        ("pwrite64", "ENOSPC", "no space left"),
        ("fdatasync", "EIO", "input/output error"),
        ("fdatasync", "ENOSPC", "no space left"),
        ("fdatasync", "EDQUOT", "quota exceeded"),
    ] {
        let upstream = Upstream::start(None, &[]);
        let host = Host::new(&upstream.url, "key", "");
        let fault = format!("{call}:error={error}:when=5");
        let daemon = Host::start_as(traced(&host, LOG, &[&fault]));
        let (acknowledged, refused) = post_until_refused(&host, 0);
        assert_refusal(
            &refused.unwrap_or_else(|| panic!("{fault}: no answer")),
            "storage_failed",
            reason,
        );
        assert_ends(daemon, reason);
        let daemon = host.start();
        // Nothing of the refused one is stored: it is no duplicate.
        let again = Producer::connect(&host.ingest())
            .post("/v1/track", &event(&format!("e-{acknowledged:06}")));
        assert_eq!(again.json()["accepted"], 1, "{fault}");
        assert_eq!(again.json()["duplicate"], 0, "{fault}");
        host.wait_until_settled();
        assert_delivered(&upstream, acknowledged + 1);
        assert_eq!(daemon.stop().0, Some(0));
    }
}

/// Goal: after a failed flush none is tried again, and nothing more is acknowledged: the next fdatasync would return 0
/// although the kernel has forgotten what it could not write.
/// Method: eight producers at once; one fdatasync of the committer's thread fails; the trace shows what is called from
/// there on. A 200 for what was not flushed would be missing afterwards: a refused frame is taken back.
#[test]
fn a_failed_flush_is_never_tried_again() {
    let upstream = Upstream::start(None, &[]);
    let host = Host::new(&upstream.url, "key", "");
    assert_eq!(host.start().stop().0, Some(0)); // the first start's own flushes are not counted
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-s", "40", "-o"]).arg(host.folder.path().join("trace"));
    // Counted for each thread: no other comes to twenty.
    command.args(["-e", "trace=fdatasync,write,writev,sendto"]);
    command.args(["-e", "inject=fdatasync:error=EIO:when=20"]);
    command.arg(env!("CARGO_BIN_EXE_pillarbox")).args(["run", "--config"]).arg(host.config());
    let daemon = Host::start_as(command);
    let acknowledged: Vec<String> = std::thread::scope(|scope| {
        let producers: Vec<_> = (0..8)
            .map(|name| {
                let host = &host;
                scope.spawn(move || {
                    let mut producer = Producer::connect(&host.ingest());
                    let ids = (0..).map(|n| format!("e-{name}-{n}"));
                    let safe = ids.take_while(|id| {
                        let answer = producer.try_post("/v1/track", event(id).as_bytes());
                        answer.is_ok_and(|answer| answer.status == 200)
                    });
                    let safe = safe.collect::<Vec<_>>();
                    // Whoever asks again is refused again, or finds nobody.
                    for n in 0..20 {
                        let Ok(mut producer) = Producer::try_connect(&host.ingest()) else { break };
                        let late = event(&format!("late-{name}-{n}"));
                        if let Ok(answer) = producer.try_post("/v1/track", late.as_bytes()) {
                            assert_eq!(answer.status, 503, "{answer:?}");
                        }
                    }
                    safe
                })
            })
            .collect();
        producers.into_iter().flat_map(|producer| producer.join().unwrap()).collect()
    });
    assert_ends(daemon, "input/output error");
    let trace = std::fs::read(host.folder.path().join("trace")).unwrap();
    let trace = String::from_utf8_lossy(&trace).into_owned();
    let (before, after) = trace.split_once("(INJECTED)").unwrap();
    assert!(before.contains("HTTP/1.1 200 OK"));
    assert!(!after.contains("fdatasync"), "{after}");
    assert!(after.contains("HTTP/1.1 503"), "{after}");

    let daemon = host.start();
    host.wait_until_settled();
    let arrived: HashSet<String> = upstream.ids().into_iter().collect();
    assert_eq!(arrived, acknowledged.into_iter().collect());
    assert_eq!(daemon.stop().0, Some(0));
}

/// Goal: an error of the store's file ends the daemon soon, with the reason, whether it strikes a checkpoint under load or
/// the one of the shutdown; nothing is lost.
/// Method: a spool whose first segment is queued. A tracer attaches to the daemon and fails every write or flush of the
/// store; then upstream accepts, the segment is settled, and its removal needs a checkpoint. Or the daemon is stopped.
#[test]
fn an_error_of_the_store_ends_the_daemon_and_a_restart_recovers() {
    for (call, stops) in
        [("pwrite64", false), ("fdatasync", false), ("pwrite64", true), ("fdatasync", true)]
    {
        let upstream = Upstream::start(None, &["status=503"]);
        let host = Host::new(&upstream.url, "key", "");
        let daemon = host.start();
        let sent = post(&host, 0);
        assert_eq!(daemon.stop().0, Some(0));
        let daemon = Host::start_as(host.command(&["--set", "spool.keep_delivered=0"]));
        let sent = sent + post(&host, sent);
        let mut tracer = Command::new("strace");
        tracer.args(["-f", "-p", &daemon.pid().to_string(), "-o"]).arg("/dev/null");
        tracer.arg("-P").arg(host.folder.path().join(STORE));
        tracer.args(["-e", &format!("inject={call}:error=EIO")]);
        let mut tracer = tracer.stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(tracer.stderr.as_mut().unwrap()).read_line(&mut first).unwrap();
        if !first.contains("attached") {
            tracer.wait().unwrap();
            println!("SKIPPED: strace may not attach to another process here: {first}");
            return;
        }
        if stops {
            let (code, took, log) = daemon.stop();
            assert!(took < END_MAX, "{call}: it took {took:?} to stop:\n{log}");
            assert_eq!(code, Some(1), "{log}");
            assert!(log.contains("start it again"), "{log}");
        } else {
            upstream.handle.clear_faults();
            assert_ends(daemon, "");
        }
        tracer.wait().unwrap();
        upstream.handle.clear_faults();
        assert_delivers(&host, &upstream, sent);
    }
}

/// An error of the store while it opens is told as one of the disk, not as damage, and harms nothing.
#[test]
fn an_error_of_the_store_while_it_opens_ends_the_start() {
    let upstream = Upstream::start(None, &[]);
    let host = Host::new(&upstream.url, "key", "");
    let mut sent = 0;
    for error in ["EIO", "ENOSPC"] {
        for call in ["pwrite64", "fdatasync", "pread64"] {
            let daemon = host.start();
            sent += post(&host, sent);
            daemon.kill();
            let begun = Instant::now();
            let fault = format!("{call}:error={error}");
            let ended = Host::try_start_as(traced(&host, STORE, &[&fault])).err();
            let (code, log) = ended.unwrap_or_else(|| panic!("{fault}: it started"));
            assert!(begun.elapsed() < END_MAX, "{fault} took {:?}", begun.elapsed());
            assert_eq!(code, Some(1), "{fault}:\n{log}");
            let reason = if error == "EIO" { "Input/output error" } else { "No space left" };
            assert!(log.contains(reason), "{fault}:\n{log}");
            assert!(!log.contains("restore a backup"), "{fault}: told as damage:\n{log}");
            assert_delivers(&host, &upstream, sent);
        }
    }
}

/// Goal: a disk that fails while a reload waits, for it or for anything else, ends the daemon all the same; who asked is told
/// nothing wrong. A disk that does not answer is seen in the same place as one that answers with an error.
/// Method: the configuration file becomes a pipe, whose reader waits as long as this test holds the other end.
#[test]
fn a_disk_that_fails_while_a_reload_waits_ends_the_daemon() {
    for asked in [false, true] {
        let upstream = Upstream::start(None, &[]);
        let host = Host::new(&upstream.url, "key", "");
        let mut daemon = Host::start_as(traced(&host, LOG, &["fdatasync:error=EIO:when=5"]));
        let configured = std::fs::read(host.config()).unwrap();
        std::fs::remove_file(host.config()).unwrap();
        let (pipe, owner) = (host.config(), Mode::RUSR | Mode::WUSR);
        rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, owner, 0).unwrap();
        std::thread::scope(|scope| {
            let admin = host.folder.path().join("admin.sock");
            let asking = asked.then(|| {
                scope.spawn(move || Producer::connect(&admin).try_post("/v1/reload", b"{}"))
            });
            if !asked {
                daemon.hang_up();
            }
            let mut writer = None;
            wait_until("the reload", || {
                // There is no writer's end before there is a reader.
                writer = rustix::fs::open(&pipe, OFlags::WRONLY | OFlags::NONBLOCK, owner).ok();
                writer.is_some()
            });
            let (acknowledged, refused) = post_until_refused(&host, 0);
            assert_refusal(&refused.unwrap(), "storage_failed", "input/output error");
            wait_until("the daemon's end", || daemon.has_ended());
            assert_ends(daemon, "input/output error");
            if let Some(asking) = asking {
                let told = asking.join().unwrap().unwrap();
                assert_eq!(
                    (told.status, told.json()["code"].as_str()),
                    (409, Some("not_reloaded"))
                );
            }
            std::fs::remove_file(&pipe).unwrap();
            std::fs::write(&pipe, &configured).unwrap();
            assert_delivers(&host, &upstream, acknowledged);
        });
    }
}

/// Goal: where there is no room for the next segment of the log, the one under way is gone on with: it has the room that
/// settlements need. An erasure, which ends it, does so once there is room.
/// Method: the next segment's file gets no blocks, a few times; the one under way has its own.
#[test]
fn a_segment_is_ended_only_when_the_next_has_room_for_settlements() {
    let upstream = Upstream::start(None, &["status=503"]);
    let host = Host::new(&upstream.url, "key", "");
    let fault = "fallocate:error=ENOSPC:when=1..10";
    let mut command = traced(&host, "state/spool/log/0000000002.log", &[fault]);
    let daemon = Host::start_as({
        // A segment goes as soon as it is ended and settled.
        command.env("PILLARBOX__SPOOL__KEEP_DELIVERED", "0");
        command
    });
    let sent = post(&host, 0);
    let jane = r#"{"type":"track","event":"Product Viewed","messageId":"jane","traits":{"email":"jane@x"}}"#;
    let mut producer = Producer::connect(&host.ingest());
    assert_eq!(producer.post("/v1/track", jane).status, 200);
    let erased = host.pillarbox(&["erase", "--email", "jane@x"]);
    assert!(erased.status.success(), "{erased:?}");
    upstream.handle.clear_faults();
    host.wait_until_settled();
    assert_delivered(&upstream, sent);
    let first = host.folder.path().join(LOG);
    assert!(first.exists(), "the segment was ended without room for the next");
    assert_eq!(host.status()["erasure_waits"], true);

    // It is tried again by itself: nothing is committed meanwhile.
    wait_until("room for the next segment", || !first.exists());
    assert_eq!(host.status().get("erasure_waits"), None);
    let (code, _, log) = daemon.stop();
    assert_eq!(code, Some(0));
    // Told once, however often it was tried.
    for told in ["WARN what was erased stays on the disk", "INFO what was erased no longer waits"] {
        assert_eq!(log.matches(told).count(), 1, "{told}:\n{log}");
    }
}

/// Posts ten events one by one, until one is refused; returns how many were acknowledged.
fn post(host: &Host, from: usize) -> usize {
    let mut producer = Producer::connect(&host.ingest());
    let acknowledged = (from..from + 10).take_while(|n| {
        let answer = producer.try_post("/v1/track", event(&format!("e-{n:06}")).as_bytes());
        answer.is_ok_and(|answer| answer.status == 200)
    });
    acknowledged.count()
}

/// What cannot be opened or named ends the start with the file's name and the reason, and harms nothing.
#[test]
fn an_error_of_an_open_or_a_rename_ends_the_start_and_harms_nothing() {
    let upstream = Upstream::start(None, &["status=503"]);
    let host = Host::new(&upstream.url, "key", "");
    let daemon = host.start();
    let sent = post(&host, 0);
    daemon.kill();
    for (path, fault, reason) in [
        ("state/spool/log/0000000002.new", "/^rename:error=EIO", "Input/output error"),
        ("state/spool/log/0000000002.new", "/^rename:error=ENOSPC", "No space left on device"),
        ("state/spool/manifest.json", "openat:error=EIO:when=1", "Input/output error"),
        ("state/spool/CURRENT", "openat:error=EIO:when=1", "Input/output error"),
        ("state/spool/lock", "openat:error=EROFS:when=1", "Read-only file system"),
        (LOG, "openat:error=EMFILE:when=1", "Too many open files"),
        ("state/spool/log", "openat:error=EIO:when=1", "Input/output error"),
        (STORE, "openat:error=EIO:when=1", "Input/output error"),
    ] {
        let (code, log) = Host::try_start_as(traced(&host, path, &[fault]))
            .err()
            .unwrap_or_else(|| panic!("{path} {fault}"));
        assert_eq!(code, Some(1), "{log}");
        assert!(
            log.contains(reason) && log.contains(&path.replace(".new", ".log")),
            "{path} {fault}:\n{log}"
        );
        assert!(
            !log.contains("restore a backup"),
            "{path} {fault}: an error told as damage:\n{log}"
        );
    }
    upstream.handle.clear_faults();
    assert_delivers(&host, &upstream, sent);
}

/// Goal: a save or a removal that is answered with an error has changed nothing, though the file was renamed or removed already.
/// Method: every fsync of the stored files' folder fails, also that of putting back, which is there all the same.
#[test]
fn an_edit_whose_last_fsync_fails_leaves_what_was_stored() {
    let upstream = Upstream::start(None, &[]);
    let host = Host::new(&upstream.url, "key", "");
    let folder = host.folder.path().join("state/integrations");
    let ask = |method: &str, batch: u32| {
        let body = format!(r#"{{"api_key":"key","endpoint":"{}","batch":{batch}}}"#, upstream.url);
        let length = body.len();
        let head = format!(
            "{method} /v1/integrations/de HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n"
        );
        let mut admin = Producer::connect(&host.folder.path().join("admin.sock"));
        let answer = admin.raw(head.as_bytes(), body.as_bytes()).unwrap();
        (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned())
    };
    let failed = (500, "storage_failed".to_owned());
    let stored = || std::fs::read_to_string(folder.join("de.toml")).unwrap();
    let daemon = host.start();
    assert_eq!(ask("PUT", 7), (200, String::new()));
    let before = stored();
    assert!(before.contains("batch = 7"));
    assert_eq!(daemon.stop().0, Some(0));
    let command = traced(&host, "state/integrations", &["fsync:error=EIO:when=1+"]);
    let daemon = Host::start_as(command);
    assert_eq!(ask("PUT", 8), failed);
    assert_eq!(stored(), before, "the save");
    assert_eq!(ask("DELETE", 0), failed);
    assert_eq!(stored(), before, "the removal");
    // What cannot be read is not replaced, and so never lost by putting back.
    let large = "#".repeat((256 << 10) + 1);
    std::fs::write(folder.join("de.toml"), &large).unwrap();
    assert_eq!(ask("PUT", 9), failed);
    assert_eq!(stored(), large);
    assert_eq!(daemon.stop().0, Some(0));
}
