//! A damaged spool: the daemon never dies of it, never starts empty, never passes over what it had acknowledged; and the
//! offline commands read what is left.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use support::{Host, Producer, Upstream, event};
use tempfile::TempDir;
use tokio::time::Instant;

/// Records that were delivered before the damage.
const DELIVERED: usize = 60;
/// Records that were acknowledged and still waited.
const QUEUED: usize = 240;
/// A start, a command or a delivery that takes longer is a hang.
const DEADLINE: Duration = Duration::from_secs(60);

/// How the daemon that filled the spool ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// By SIGTERM.
    Cleanly,
    /// By SIGKILL: the manifest is as old as the start.
    Killed,
}

/// The spool that every case damages a copy of: filled by a real daemon, over two starts.
fn filled(ended: Ended) -> &'static Path {
    static CLEANLY: OnceLock<TempDir> = OnceLock::new();
    static KILLED: OnceLock<TempDir> = OnceLock::new();
    let once = if ended == Ended::Cleanly { &CLEANLY } else { &KILLED };
    once.get_or_init(|| {
        let upstream = Upstream::start(None, &[]);
        let host = Host::new(&upstream.url, "key", "");
        let daemon = host.start();
        let mut producer = Producer::connect(&host.ingest());
        for n in 0..DELIVERED {
            assert_eq!(producer.post("/v1/track", &event(&format!("e-{n}"))).status, 200);
        }
        host.wait_until_settled();
        assert_eq!(daemon.stop().0, Some(0));
        drop(upstream);
        // Nobody listens any more: what follows stays queued.
        let daemon = host.start();
        let mut producer = Producer::connect(&host.ingest());
        for n in (DELIVERED..DELIVERED + QUEUED).step_by(4) {
            let events: Vec<String> = (n..n + 4).map(|n| event(&format!("e-{n}"))).collect();
            let answer = producer.post("/v1/batch", &format!("[{}]", events.join(",")));
            assert_eq!(answer.json()["accepted"], 4);
        }
        let bad = producer.post("/v1/batch", r#"[{"type":"track"}]"#);
        assert_eq!(bad.json()["quarantined"], 1);
        match ended {
            Ended::Cleanly => assert_eq!(daemon.stop().0, Some(0)),
            Ended::Killed => daemon.kill(),
        }
        host.folder
    })
    .path()
}

/// A copy of the filled spool in a folder of its own.
struct Case {
    host: Host,
    upstream: Upstream,
}

/// What came of a start.
#[derive(Debug)]
enum Started {
    /// It refused: exit code and log.
    Refused(String),
    /// It ran, and delivered every queued record in order.
    Delivered,
    /// It ran, and holds the lane as damaged.
    Held(String),
}

impl Case {
    fn new(ended: Ended) -> Case {
        let upstream = Upstream::start(None, &[]);
        let host = Host::new(&upstream.url, "key", "");
        copy(&filled(ended).join("state"), &host.folder.path().join("state"));
        Case { host, upstream }
    }

    fn spool(&self) -> PathBuf {
        self.host.folder.path().join("state/spool")
    }

    fn generation(&self) -> PathBuf {
        self.spool().join("0000000001")
    }

    fn log(&self, number: u32) -> PathBuf {
        self.spool().join(format!("log/{number:010}.log"))
    }

    fn db(&self) -> PathBuf {
        self.generation().join("db")
    }

    /// Runs a command on the spool, which must end in time and by itself.
    fn spool_command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
        command.arg("spool").args(arguments);
        command.arg("--state-dir").arg(self.host.folder.path().join("state"));
        command.env_remove("RUST_BACKTRACE").env_remove("RUST_LOG").stdin(Stdio::null());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let output = in_time(child);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            matches!(output.status.code(), Some(0 | 1)),
            "{arguments:?}: {:?} {error}",
            output.status
        );
        assert!(!error.contains("panicked"), "{arguments:?}: {error}");
        output
    }

    /// Starts the daemon, and waits for what becomes of it.
    ///
    /// # Panics
    /// When it ends by a signal, hangs, panics aloud, or neither delivers every queued record nor says why.
    fn start(&self) -> Started {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
        command.arg("run").arg("--config").arg(self.host.config());
        command.env_remove("RUST_BACKTRACE").env_remove("RUST_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = Killed(command.spawn().unwrap());
        let stderr = BufReader::new(child.0.stderr.take().unwrap());
        let (send, lines) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).all(|line| send.send(line).is_ok())
        });
        let mut log = String::new();
        let begun = Instant::now();
        let ready = loop {
            assert!(begun.elapsed() < DEADLINE, "the start hangs:\n{log}");
            match lines.recv_timeout(Duration::from_millis(100)) {
                Ok(line) => {
                    log.push_str(&line);
                    log.push('\n');
                    if line.contains(" ready ") {
                        break true;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break false,
            }
        };
        assert!(!log.contains("panicked"), "{log}");
        if !ready {
            let status = child.0.wait().unwrap();
            assert_eq!(status.code(), Some(1), "{status:?}\n{log}");
            return Started::Refused(log);
        }
        loop {
            assert!(
                begun.elapsed() < DEADLINE,
                "neither delivered nor held: {}",
                self.host.status()
            );
            let status = self.host.status();
            let integration = &status["integrations"][0];
            let report = &integration["report"];
            if report["state"] == "damaged" {
                let cpu = cpu_ticks(child.0.id());
                std::thread::sleep(Duration::from_millis(300));
                assert!(cpu_ticks(child.0.id()) - cpu < 20, "a held lane keeps the processor busy");
                return Started::Held(report["cause"].as_str().unwrap().to_owned());
            }
            if integration["lane"]["queued_records"] == 0 {
                let ids = self.upstream.ids();
                let queued: Vec<String> =
                    (DELIVERED..DELIVERED + QUEUED).map(|n| format!("e-{n}")).collect();
                let lost: Vec<&String> = queued.iter().filter(|id| !ids.contains(id)).collect();
                assert!(lost.is_empty(), "silently lost {}: {lost:?}", lost.len());
                let arrived: Vec<&String> = ids.iter().filter(|id| queued.contains(id)).collect();
                assert_eq!(arrived, queued.iter().collect::<Vec<_>>());
                return Started::Delivered;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Salvages, and checks that the report and the lines agree.
    fn salvage(&self) -> (Option<i32>, serde_json::Value) {
        let output = self.spool_command(&["salvage", "--json"]);
        let told: serde_json::Value = serde_json::from_slice(
            output.stderr.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"{")).unwrap(),
        )
        .unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        let records = lines.lines().filter(|line| line.contains("\"committed_at\"")).count() as u64;
        assert_eq!(told["records"].as_u64(), Some(records));
        for line in lines.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            if let Some(seq) = line["seq"].as_u64() {
                assert_eq!(line["record"]["id"], format!("e-{}", seq - 1), "{line}");
            }
        }
        (output.status.code(), told)
    }
}

/// Overwrites bytes of a file.
fn write(file: &Path, at: u64, bytes: &[u8]) {
    fs::OpenOptions::new().write(true).open(file).unwrap().write_all_at(bytes, at).unwrap();
}

fn flip(file: &Path, at: u64, bit: u8) {
    let mut byte = [0];
    fs::File::open(file).unwrap().read_exact_at(&mut byte, at).unwrap();
    write(file, at, &[byte[0] ^ (1 << bit)]);
}

/// A child that does not outlive its case.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn in_time(child: Child) -> Output {
    let (send, ended) = std::sync::mpsc::channel();
    let id = child.id();
    std::thread::spawn(move || send.send(child.wait_with_output()));
    ended.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("process {id} hangs")).unwrap()
}

/// Processor time of a process in hundredths of a second.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Damages a copy, and checks what every case must keep to; returns what came of the start.
fn damaged(name: &str, ended: Ended, damage: impl Fn(&Case)) -> Started {
    let case = Case::new(ended);
    damage(&case);
    let (salvage_code, salvaged) = case.salvage();
    let number = |key: &str| salvaged[key].as_u64().unwrap();
    let stored = (DELIVERED + QUEUED) as u64;
    if known_cut_off(&salvaged) {
        assert_eq!(salvage_code, Some(1), "{name}: {salvaged}");
    }
    let known = salvaged["lanes"][0]["newest"].as_u64() == Some(stored);
    if known {
        assert_eq!(number("records") + number("missing"), stored, "{name}: {salvaged}");
    }
    let verify = case.spool_command(&["verify"]);
    let export = case.spool_command(&["export"]);
    let started = case.start();
    eprintln!(
        "{name} ({ended:?}): salvage {salvage_code:?} read {} missing {}, verify {:?}, export {:?}, start {started:?}",
        number("records"),
        number("missing"),
        verify.status.code(),
        export.status.code()
    );
    match &started {
        Started::Refused(log) => {
            assert_eq!(
                verify.status.code(),
                Some(1),
                "{name}: a start refuses what verify passes\n{log}"
            );
            assert!(log.contains("state/spool/"), "{name}: no file is named\n{log}");
            assert!(
                log.contains("pillarbox spool salvage --state-dir"),
                "{name}: no way out\n{log}"
            );
        }
        Started::Held(why) => {
            assert_eq!(
                verify.status.code(),
                Some(1),
                "{name}: a start holds what verify passes\n{why}"
            );
            assert!(why.contains("pillarbox spool salvage"), "{why}");
        }
        Started::Delivered => {}
    }
    started
}

/// Whether the store's file is shorter than the manifest says.
fn known_cut_off(salvaged: &serde_json::Value) -> bool {
    salvaged["cut_off"] == true
}

/// The files of the spool that hold what was acknowledged: the log of both starts, and the store.
const FILES: [&str; 3] = ["log/0000000001.log", "log/0000000002.log", "0000000001/db"];

/// Offsets of a file that hold something.
fn used(ended: Ended, file: &str) -> Vec<u64> {
    let bytes = fs::read(filled(ended).join("state/spool").join(file)).unwrap();
    (0_u64..).zip(bytes).filter(|(_, byte)| *byte != 0).map(|(at, _)| at).collect()
}

/// Seeded places over all that is written: records, keys, heads of parts, frames, segments and pages.
#[test]
fn a_flipped_bit_anywhere_is_survived_or_refused() {
    let mut rng = fastrand::Rng::with_seed(7);
    for ended in [Ended::Cleanly, Ended::Killed] {
        for file in FILES {
            let used = used(ended, file);
            for n in 0..5 {
                let (at, bit) = (used[rng.usize(..used.len())], rng.u8(..8));
                damaged(&format!("{file}: flip {n} at {at} bit {bit}"), ended, |case| {
                    flip(&case.spool().join(file), at, bit);
                });
            }
            for at in [5, 24, 30] {
                damaged(&format!("{file}: flip in the head at {at}"), ended, |case| {
                    flip(&case.spool().join(file), at, 1);
                });
            }
        }
    }
}

/// Blocks as a disk loses them, and files as a full disk or a broken copy leaves them.
#[test]
fn a_zeroed_block_or_a_cut_off_end_is_survived_or_refused() {
    let mut rng = fastrand::Rng::with_seed(8);
    for ended in [Ended::Cleanly, Ended::Killed] {
        for file in FILES {
            let used = used(ended, file);
            for block in [512, 4096] {
                let at = used[rng.usize(..used.len())] / block * block;
                let zeros = vec![0; usize::try_from(block).unwrap()];
                damaged(&format!("{file}: {block} zeros at {at}"), ended, |case| {
                    write(&case.spool().join(file), at, &zeros);
                });
            }
            let end = *used.last().unwrap();
            // The end of the last segment after a kill: what was written since the floor has nothing behind it to
            // vouch for it.
            if ended == Ended::Killed && file == FILES[1] {
                continue;
            }
            for length in [0, 19, end / 2] {
                damaged(&format!("{file}: cut to {length}"), ended, |case| {
                    let file = fs::OpenOptions::new().write(true).open(case.spool().join(file));
                    file.unwrap().set_len(length).unwrap();
                });
            }
        }
    }
}

/// The files around the store's own.
#[test]
fn a_damaged_or_missing_file_beside_the_store_is_survived_or_refused() {
    type Damage = fn(&Case);
    let cases: [(&str, Damage); 16] = [
        ("no db", |case| fs::remove_file(case.db()).unwrap()),
        ("a foreign db", |case| fs::write(case.db(), vec![b'x'; 1 << 20]).unwrap()),
        ("no conf", |case| fs::remove_file(case.generation().join("conf")).unwrap()),
        ("an empty conf", |case| fs::write(case.generation().join("conf"), "").unwrap()),
        ("a garbled conf", |case| flip(&case.generation().join("conf"), 3, 2)),
        ("no CURRENT", |case| fs::remove_file(case.spool().join("CURRENT")).unwrap()),
        ("an empty CURRENT", |case| fs::write(case.spool().join("CURRENT"), "").unwrap()),
        ("CURRENT nowhere", |case| fs::write(case.spool().join("CURRENT"), "0000000009").unwrap()),
        ("a garbled CURRENT", |case| fs::write(case.spool().join("CURRENT"), [0xFF, 0]).unwrap()),
        ("a garbled manifest", |case| fs::write(case.spool().join("manifest.json"), "{").unwrap()),
        ("a newer manifest", |case| {
            let path = case.spool().join("manifest.json");
            let text = fs::read_to_string(&path).unwrap();
            fs::write(path, text.replace("\"version\": 1", "\"version\": 2")).unwrap();
        }),
        ("half a snapshot", |case| {
            fs::write(case.generation().join("snap.00000000000FFFFF.generating"), "x").unwrap();
        }),
        ("a garbled snapshot", |case| {
            for entry in fs::read_dir(case.generation()).unwrap() {
                let path = entry.unwrap().path();
                if path.file_name().unwrap().to_string_lossy().starts_with("snap.") {
                    flip(&path, 9, 2);
                }
            }
        }),
        ("no first segment", |case| fs::remove_file(case.log(1)).unwrap()),
        ("a foreign segment", |case| fs::write(case.log(1), vec![b'x'; 1 << 20]).unwrap()),
        ("a segment of a newer version", |case| flip(&case.log(2), 7, 1)),
    ];
    for ended in [Ended::Cleanly, Ended::Killed] {
        for (name, damage) in cases {
            let started = damaged(name, ended, damage);
            let opens = ["no CURRENT", "half a snapshot"].contains(&name);
            if opens {
                assert!(matches!(started, Started::Delivered), "{name}: {started:?}");
            }
        }
    }
}

/// What is not damaged is healthy, to the commands as to the daemon, and the commands leave every byte as it was.
#[test]
fn a_whole_spool_is_healthy_however_the_daemon_ended() {
    for ended in [Ended::Cleanly, Ended::Killed] {
        let case = Case::new(ended);
        let stored = |file: &str| fs::read(case.spool().join(file)).unwrap();
        let all = || (FILES.map(stored), stored("lock"), stored("manifest.json"));
        let before = all();
        let verify = case.spool_command(&["verify", "--json"]);
        assert_eq!(verify.status.code(), Some(0), "{verify:?}");
        let export = case.spool_command(&["export", "--queued"]);
        assert_eq!(export.status.code(), Some(0), "{export:?}");
        assert_eq!(export.stdout.split(|byte| *byte == b'\n').count(), QUEUED + 1);
        let (code, salvaged) = case.salvage();
        assert_eq!(
            (code, salvaged["records"].as_u64()),
            (Some(0), Some((DELIVERED + QUEUED) as u64))
        );
        assert_eq!(
            (salvaged["queued"].as_u64(), salvaged["quarantined"].as_u64()),
            (Some(QUEUED as u64), Some(1))
        );
        assert!(all() == before, "a byte was changed");
        assert!(matches!(case.start(), Started::Delivered));
    }
}

/// A running daemon holds the spool: the commands say who it is, and change nothing.
#[test]
fn a_spool_in_use_is_refused() {
    let case = Case::new(Ended::Cleanly);
    let daemon = case.host.start();
    for command in ["verify", "export", "salvage"] {
        let output = case.spool_command(&[command]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(
            error.contains(&format!("(pid {})", daemon.pid())) && error.contains("stop it first"),
            "{error}"
        );
    }
    assert_eq!(daemon.stop().0, Some(0));
}
