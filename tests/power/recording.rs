//! The workload: the real daemon under strace, producers that know what was answered, restarts in between.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::Instant;

use super::disk::{self, Disk, Image};
use super::history::{History, What, ids};
use crate::support::{Daemon, Host, Producer, Upstream, wait_until};

/// Everything that changes files or tells an answer.
const CALLS: &str = "trace=open,creat,openat,close,dup,dup2,dup3,fcntl,lseek,write,writev,pwrite64,pwritev,sendto,sendmsg,\
    recvfrom,recvmsg,ftruncate,fallocate,copy_file_range,sendfile,mkdir,mkdirat,unlink,unlinkat,rmdir,rename,renameat,\
    renameat2,link,linkat,symlink,fsync,fdatasync,sync_file_range,sync,syncfs,msync";

/// Names the file of a recording that a failed test has left, to be used instead of a new one.
pub(crate) const SAVED: &str = "PILLARBOX_POWER_RECORDING";

/// Records that upstream refuses.
const POISON: &str = "poisoned";
const PRODUCERS: usize = 3;

/// Records, or reads what [`SAVED`] names.
pub(crate) fn take() -> History {
    if let Some(saved) = std::env::var_os(SAVED) {
        return bincode::deserialize_from(BufReader::new(File::open(saved).unwrap())).unwrap();
    }
    let begun = Instant::now();
    let folder = super::memory_folder();
    let answered = record(folder.path());
    let history = replay(folder.path());
    let traced = history.heard.iter().filter(|heard| heard.what == What::Answered);
    let traced: BTreeSet<&String> = traced.flat_map(|heard| &heard.ids).collect();
    assert!(traced.into_iter().eq(&answered), "the trace tells other answers than the producers");
    eprintln!("recorded {} steps in {:?}", history.steps.len(), begun.elapsed());
    history
}

/// Keeps a recording for [`SAVED`], when a test has failed.
pub(crate) fn save(history: &History) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("power-recording");
    bincode::serialize_into(BufWriter::new(File::create(&path).unwrap()), history).unwrap();
    path
}

/// Reads the runs in `folder` (`1.trace`, `1.disk/`, `2.trace`, …), and sees that the model comes to what was really on the disk after each.
fn replay(folder: &Path) -> History {
    let root = PathBuf::from(std::fs::read_to_string(folder.join("root")).unwrap());
    let mut history = History::default();
    for run in 1.. {
        let Ok(trace) = std::fs::read_to_string(folder.join(format!("{run}.trace"))) else { break };
        let after = disk::read(&folder.join(format!("{run}.disk"))).unwrap();
        history.add_run(&trace, &root, &after);
        let mut disk = Disk::default();
        history.steps.iter().for_each(|step| disk.apply(step));
        let modelled = disk.uncut();
        for (path, bytes) in &after {
            assert!(
                modelled.get(path) == Some(bytes),
                "the model differs after run {run}: {}",
                path.display()
            );
        }
        assert_eq!(modelled.len(), after.len(), "the model has more files after run {run}");
    }
    history
}

/// Runs the workload; returns the ids that were answered 200.
fn record(to: &Path) -> BTreeSet<String> {
    let poison = format!("poison={POISON}");
    let upstream = Upstream::start(None, &[]);
    let host = Host::new(&upstream.url, "key", "");
    std::fs::write(to.join("root"), host.folder.path().to_str().unwrap()).unwrap();
    let work =
        Work { host: &host, upstream: &upstream, next: [const { AtomicUsize::new(0) }; PRODUCERS] };
    let mut answered = BTreeSet::new();
    for (run, act) in (1..).zip([Work::first, Work::second, Work::third]) {
        let trace = to.join(format!("{run}.trace"));
        upstream.handle.clear_faults();
        upstream.handle.add_fault(poison.parse().unwrap());
        // One run keeps the events beside their records.
        let daemon = start(&host, &trace, run == 2);
        act(&work, daemon, &mut answered);
        let ended = || {
            std::fs::read_to_string(&trace)
                .unwrap()
                .lines()
                .next_back()
                .is_some_and(|line| line.contains("+++"))
        };
        wait_until("the end of the trace", ended);
        disk::write(&state(&host), &make(to.join(format!("{run}.disk")))).unwrap();
        assert!(run != 2 || holds_events(&host), "no event was kept");
    }
    answered
}

/// Whether an event lies beside a record in the spool, on which no daemon runs.
fn holds_events(host: &Host) -> bool {
    let exported = host.pillarbox(&["spool", "export"]);
    let lines = String::from_utf8(exported.stdout).unwrap();
    let mut lines = lines.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.any(|line: serde_json::Value| line["event"].is_object())
}

fn make(folder: PathBuf) -> PathBuf {
    std::fs::create_dir(&folder).unwrap();
    folder
}

/// What a power cut may leave of the host's folder: the state.
fn state(host: &Host) -> Image {
    let image = disk::read(host.folder.path()).unwrap();
    image.into_iter().filter(|(path, _)| path.starts_with("state")).collect()
}

fn start(host: &Host, trace: &Path, keep_events: bool) -> Daemon {
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-xx", "--seccomp-bpf", "-s", "100000000", "-e", CALLS, "-o"]);
    command.arg(trace).arg(env!("CARGO_BIN_EXE_pillarbox")).args(["run", "--config"]);
    command
        .arg(host.config())
        .env("PILLARBOX__SPOOL__KEEP_DELIVERED", super::check::KEEP.to_string());
    command.env("PILLARBOX__INGEST__MAX_REQUEST", "4MiB");
    command.env("PILLARBOX__SPOOL__KEEP_EVENTS", keep_events.to_string());
    Host::start_as(command)
}

struct Work<'a> {
    host: &'a Host,
    upstream: &'a Upstream,
    /// The next number of each producer.
    next: [AtomicUsize; PRODUCERS],
}

impl Work<'_> {
    /// A new spool; then a backlog that upstream does not take, and SIGKILL.
    fn first(&self, daemon: Daemon, answered: &mut BTreeSet<String>) {
        answered.extend(self.produce(24));
        self.settled(answered);
        self.upstream.handle.add_fault("hang".parse().unwrap());
        let before = self.upstream.handle.counters().pushes;
        answered.extend(self.produce(12));
        wait_until("a push that hangs", || self.upstream.handle.counters().pushes > before);
        daemon.kill();
    }

    /// The backlog of the first, more beside it, and a stop with another backlog.
    fn second(&self, daemon: Daemon, answered: &mut BTreeSet<String>) {
        answered.extend(self.produce(24));
        self.settled(answered);
        self.upstream.handle.add_fault("status=503".parse().unwrap());
        answered.extend(self.produce(6));
        assert_eq!(daemon.stop().0, Some(0));
    }

    /// More than a segment of the log, so that it goes on in the next and the first ones go.
    fn third(&self, daemon: Daemon, answered: &mut BTreeSet<String>) {
        answered.extend(self.produce(12));
        answered.extend(self.bulk());
        answered.extend(self.produce(12));
        self.settled(answered);
        assert_eq!(daemon.stop().0, Some(0));
    }

    /// Waits until every event has come to an end, as far as upstream can tell.
    fn settled(&self, answered: &BTreeSet<String>) {
        wait_until("the deliveries", || {
            let pushes = self.upstream.handle.pushes();
            let seen: BTreeSet<&String> = pushes
                .iter()
                .filter(|push| push.status == Some(202) || push.records == 1)
                .flat_map(|push| &push.record_ids)
                .collect();
            answered.iter().filter(|id| id.starts_with("e-")).all(|id| seen.contains(id))
        });
    }

    /// Each producer posts so many requests, all at the same time; returns the ids that were answered 200.
    fn produce(&self, requests: usize) -> Vec<String> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..PRODUCERS)
                .map(|producer| {
                    scope.spawn(move || {
                        let mut connection = Producer::connect(&self.host.ingest());
                        (0..requests)
                            .flat_map(|request| self.post(&mut connection, producer, request))
                            .collect()
                    })
                })
                .collect();
            threads
                .into_iter()
                .flat_map(|thread| -> Vec<String> { thread.join().unwrap() })
                .collect()
        })
    }

    /// The requests of a producer differ: singles, batches, large records, identifies, invalid events, poison.
    fn post(&self, connection: &mut Producer, producer: usize, request: usize) -> Vec<String> {
        let event = |note: &str, bytes| self.event(producer, note, bytes);
        let body = match (request + producer) % 12 {
            0 | 4 | 7 => event("", 10),
            1 => batch((0..20).map(|_| event("", 100))),
            2 => event("", 50_000),
            3 => batch((0..5).map(|n| event(if n == 2 { POISON } else { "" }, 300))),
            5 | 9 => self.identify(producer),
            6 => batch([event("", 10), self.invalid(producer), event("", 2_000)].into_iter()),
            8 => event(POISON, 40_000),
            10 if producer == 0 => batch((0..24).map(|_| event("", 50_000))),
            10 => batch((0..3).map(|_| event("", 15_000))),
            _ => batch(
                [self.identify(producer), event("", 200), self.identify(producer)].into_iter(),
            ),
        };
        answered(connection, &body)
    }

    /// Enough to fill a segment of the log.
    fn bulk(&self) -> Vec<String> {
        let mut connection = Producer::connect(&self.host.ingest());
        let bodies = (0..40).map(|_| batch((0..8).map(|_| self.event(0, "", 55_000))));
        bodies.flat_map(|body| answered(&mut connection, &body)).collect()
    }

    fn id(&self, kind: char, producer: usize) -> String {
        format!("{kind}-{producer}-{:05}", self.next[producer].fetch_add(1, Ordering::Relaxed))
    }

    fn event(&self, producer: usize, note: &str, bytes: usize) -> String {
        let (id, pad) = (self.id('e', producer), "x".repeat(bytes));
        format!(
            r#"{{"type":"track","event":"Product Viewed","messageId":"{id}","properties":{{"price":79.00,"note":"{note}","pad":"{pad}"}}}}"#
        )
    }

    fn identify(&self, producer: usize) -> String {
        let id = self.id('i', producer);
        format!(
            r#"{{"type":"identify","messageId":"{id}","userId":"u-{producer}","traits":{{"last":"{id}"}}}}"#
        )
    }

    fn invalid(&self, producer: usize) -> String {
        format!(r#"{{"type":"track","messageId":"{}"}}"#, self.id('x', producer))
    }
}

fn batch(events: impl Iterator<Item = String>) -> String {
    format!("[{}]", events.collect::<Vec<_>>().join(","))
}

fn answered(connection: &mut Producer, body: &str) -> Vec<String> {
    let answer = connection.post(
        "/v1/batch",
        &if body.starts_with('[') { body.to_owned() } else { format!("[{body}]") },
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    ids(body.as_bytes())
}
