//! The forwarder against weather: whatever upstream does, every promise of delivery holds.
//!
//! Goal: all records are delivered or quarantined, in order (Promises 3 and 6), only a 202 acknowledges (Promise 5), and
//! only a push whose end the forwarder could not know is repeated (Promise 4).
//!
//! Method: one seed draws the records, the bursts in which a producer appends them, the guilty among them, what
//! upstream does with each push (answers, losing its answer, delays, hangs), and when the forwarder is stopped, killed
//! and started again. The spool is real, upstream is in memory, time is paused. Upstream checks each push as it comes;
//! the end is checked once the queue is empty, which a bound in simulated time enforces. A failing seed prints itself.
//!
//! `PILLARBOX_SEEDS=n` runs n seeds, `PILLARBOX_SEED=s` only this one.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::missing_assert_message,
    reason = "a simulation ends at the first surprise"
)]

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use pillarbox::forward::{
    self, Answer, PushError, Report, RetryPolicy, RunError, Settings, SharedPace, Upstream,
};
use pillarbox::spool::{
    Append, Content, Drive, Item, LaneId, OpenError, Options, Origin, PersonKeys, QuarantineId,
    Spool, SyncMode,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Seeds of a normal run.
const SEEDS: u64 = 40;
/// Simulated time in which a lane must be empty, once nothing more is appended: enough for every wait that the weather
/// may bring before it clears …
const WAITS_MAX: Duration = Duration::from_secs(12 * 3600);
/// … and, for each record, for two pushes at the slowest pace: only a 202 makes it faster again, and where every record
/// is guilty there is none.
const RECORD_MAX: Duration = Duration::from_secs(2 * 60);

const TYPES: [&str; 3] = ["custom_event", "order", "contact"];

/// What a seed draws before the first push.
#[derive(Debug)]
struct Scene {
    batch_records_max: usize,
    /// The type of each record; its id is its place, from 1.
    types: Vec<&'static str>,
    guilty: BTreeSet<u64>,
    /// Records in a burst of the producer, and the longest pause between two. Small and slow bursts leave pushes
    /// incomplete, so that records arrive while one of them waits to be repeated.
    burst_max: usize,
    pause_max: Duration,
    /// How often, in 100 pushes, upstream does not do what it should.
    faults: u64,
    /// The weather clears after this many pushes.
    clears_after: usize,
    restarts: usize,
}

impl Scene {
    fn draw(rng: &mut fastrand::Rng) -> Scene {
        let records = rng.u64(1..400);
        let mut of = TYPES[0];
        let change = rng.u64(0..30);
        let types = (0..records).map(|_| {
            if rng.u64(0..100) < change {
                of = TYPES[rng.usize(..TYPES.len())];
            }
            of
        });
        let types: Vec<_> = types.collect();
        let guilt = [0, 1, 5, 50, 100][rng.usize(..5)];
        let guilty = (1..=records).filter(|_| rng.u64(0..100) < guilt).collect();
        Scene {
            batch_records_max: [1, 2, 7, 100][rng.usize(..4)],
            types,
            guilty,
            burst_max: [2, 10, 60][rng.usize(..3)],
            pause_max: Duration::from_millis([300, 3000, 20_000][rng.usize(..3)]),
            faults: [0, 20, 60, 95][rng.usize(..4)],
            clears_after: rng.usize(10..150),
            restarts: rng.usize(0..4),
        }
    }
}

/// A push as upstream saw it.
#[derive(Clone, Debug)]
struct Seen {
    ids: Vec<u64>,
    body: Bytes,
    /// Whether the forwarder could know its end, and what it then had to be.
    known: Known,
    /// Which start of the forwarder sent it.
    run: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Known {
    /// No answer yet, or none at all, or one that acknowledges nothing: the same push again.
    Nothing,
    Accepted,
    Refused,
}

/// What upstream remembers.
#[derive(Debug, Default)]
struct Memory {
    pushes: Vec<Seen>,
    /// Ids in the order in which they were first taken.
    taken: Vec<u64>,
    /// Ids that a 202 named as rejected.
    named: HashSet<u64>,
    run: usize,
}

/// The stand-in for upstream.
#[derive(Clone)]
struct Weather {
    scene: Arc<Scene>,
    rng: Arc<Mutex<fastrand::Rng>>,
    memory: Arc<Mutex<Memory>>,
}

/// What becomes of a push.
enum Fate {
    /// Judged by its records.
    Judged,
    /// Taken, but the answer never arrives.
    TakenUnheard(PushError),
    /// An answer that says nothing about the records.
    Status(u16, Option<&'static str>),
    Lost(PushError),
    /// Answered never: the attempt's own time-out.
    Hang,
}

impl Weather {
    fn fate(&self, pushes: usize) -> (Duration, Fate) {
        let mut rng = self.rng.lock().unwrap();
        let delay = Duration::from_millis(rng.u64(0..2000));
        if pushes > self.scene.clears_after || rng.u64(0..100) >= self.scene.faults {
            return (delay, Fate::Judged);
        }
        let closed = || PushError::Closed("reset".into());
        let fate = match rng.u64(0..8) {
            0 => Fate::TakenUnheard(closed()),
            1 => Fate::Hang,
            2 => Fate::Lost(closed()),
            3 => Fate::Lost(PushError::Connect("refused".into())),
            4 => Fate::Status([401, 403, 404, 405, 410][rng.usize(..5)], None),
            5 => Fate::Status([200, 201, 204, 301, 302][rng.usize(..5)], None),
            6 => Fate::Status(429, [None, Some("0"), Some("30"), Some("soon")][rng.usize(..4)]),
            _ => Fate::Status([408, 425, 500, 502, 503][rng.usize(..5)], None),
        };
        (delay, fate)
    }

    /// Checks a push as it arrives, against the one before it.
    fn arrive(&self, body: &Bytes) -> usize {
        let records: Vec<serde_json::Value> = serde_json::from_slice(body).unwrap();
        let of = |record: &serde_json::Value| record["id"].as_str().unwrap().parse().unwrap();
        let ids: Vec<u64> = records.iter().map(of).collect();
        assert!((1..=self.scene.batch_records_max).contains(&ids.len()));
        assert!(ids.windows(2).all(|pair| pair[0] + 1 == pair[1]), "a gap or disorder: {ids:?}");
        assert!(records.iter().all(|record| record["@type"] == records[0]["@type"]));
        let mut memory = self.memory.lock().unwrap();
        let run = memory.run;
        if let Some(before) = memory.pushes.last() {
            let (first, last) = (before.ids[0], before.ids[before.ids.len() - 1]);
            let settled = match before.known {
                Known::Accepted => true,
                Known::Refused => before.ids.len() == 1,
                Known::Nothing => false,
            };
            let goes_on = ids[0] == last + 1 && settled;
            // After a start, the last push may repeat even though it was answered: its settlement may not have been made.
            let repeats = ids[0] == first && (!settled || before.run != run);
            assert!(goes_on || repeats, "after {before:?}: {ids:?}");
            if before.known == Known::Nothing && before.run == run {
                assert_eq!(before.body, body, "a retry is the same push");
            }
        } else {
            assert_eq!(ids[0], 1);
        }
        memory.pushes.push(Seen { ids, body: body.clone(), known: Known::Nothing, run });
        memory.pushes.len() - 1
    }

    /// Takes the records of push `at`, unless one of them is guilty. What upstream answers.
    fn judge(&self, at: usize) -> Answer {
        let mut rng = self.rng.lock().unwrap();
        let mut memory = self.memory.lock().unwrap();
        let ids = memory.pushes[at].ids.clone();
        if ids.iter().any(|id| self.scene.guilty.contains(id)) {
            return answer([400, 422, 413][rng.usize(..3)], "no");
        }
        for id in &ids {
            if !memory.taken.contains(id) {
                memory.taken.push(*id);
            }
        }
        if rng.u64(0..20) > 0 {
            return answer(202, r#"{"status":"OK"}"#);
        }
        let id = ids[rng.usize(..ids.len())];
        memory.named.insert(id);
        answer(202, &format!(r#"{{"rejected":1,"rejected_items":["{id}"]}}"#))
    }
}

fn answer(status: u16, body: &str) -> Answer {
    Answer { status, retry_after: None, queue_remaining: None, body: body.into() }
}

impl Upstream for Weather {
    async fn push(&self, body: Bytes) -> Result<Answer, PushError> {
        let at = self.arrive(&body);
        let (delay, fate) = self.fate(at);
        tokio::time::sleep(delay).await;
        match fate {
            Fate::Judged => {
                let answer = self.judge(at);
                let known = if answer.status == 202 { Known::Accepted } else { Known::Refused };
                self.memory.lock().unwrap().pushes[at].known = known;
                Ok(answer)
            }
            Fate::TakenUnheard(error) => {
                self.judge(at);
                Err(error)
            }
            Fate::Status(status, retry_after) => {
                let retry_after = retry_after.map(str::to_owned);
                Ok(Answer { retry_after, ..answer(status, "") })
            }
            Fate::Lost(error) => Err(error),
            Fate::Hang => {
                tokio::time::sleep(Duration::from_secs(30)).await;
                Err(PushError::Timeout(Duration::from_secs(30)))
            }
        }
    }
}

fn settings(scene: &Scene, rng: &mut fastrand::Rng) -> Settings {
    Settings {
        integration: "uk".into(),
        endpoint: "https://upstream.invalid/".parse().unwrap(),
        api_key: "key".into(),
        batch_records_max: scene.batch_records_max,
        linger: Duration::from_millis([0, 200, 3000][rng.usize(..3)]),
        timeout: Duration::from_secs(30),
        retry: RetryPolicy { initial: Duration::from_millis(500), max: Duration::from_secs(300) },
        storm_limit: 1000,
        pace: SharedPace::new([0.0, 0.0, 4.0][rng.usize(..3)]),
        way: forward::Way::default(),
        consent: Vec::new(),
        poll_errors: Duration::ZERO,
    }
}

/// Opens a new spool. The engine gives up the lock of its own creation a moment late, and the spool then calls the store
/// damaged: tried again until `Spool::open` waits for that itself.
fn open(directory: &std::path::Path) -> Spool {
    let options = Options {
        directory: directory.join("spool"),
        sync: SyncMode::Always,
        cache_bytes: 8 << 20,
        records_max: 1_000_000,
        bytes_max: 1 << 30,
        free_disk_min_bytes: 0,
        keep_delivered: 50,
        dedupe_window: 10,
        identities_max: 1_000_000,
    };
    for _ in 0..500 {
        match Spool::open(options.clone(), Drive::Task) {
            Err(OpenError::Damaged { what, .. }) if what.contains("lock") => {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened.unwrap(),
        }
    }
    panic!("the spool stays locked")
}

/// Appends the scene's records in bursts, with pauses.
async fn produce(spool: Spool, lane: LaneId, scene: Arc<Scene>, mut rng: fastrand::Rng) {
    let mut next = 0;
    while next < scene.types.len() {
        let end = (next + rng.usize(1..=scene.burst_max)).min(scene.types.len());
        let item = |place: usize| {
            let (id, record_type) = (place + 1, Arc::<str>::from(scene.types[place]));
            let record = format!(r#"{{"@type":"{record_type}","id":"{id}"}}"#).into();
            Item {
                once: None,
                content: Content::Record {
                    lane,
                    record_type,
                    record,
                    person: PersonKeys::default(),
                },
            }
        };
        let items = (next..end).map(item).collect();
        spool.append(Append { items, ..Append::default() }).await.unwrap();
        next = end;
        tokio::time::sleep(scene.pause_max.mul_f64(rng.f64())).await;
    }
}

/// A forwarder that runs.
struct Running {
    report: watch::Receiver<Report>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), RunError>>,
}

impl Running {
    fn start(spool: &Spool, lane: LaneId, settings: &Settings, weather: &Weather) -> Running {
        let mut memory = weather.memory.lock().unwrap();
        memory.run += 1;
        let rng = fastrand::Rng::with_seed(weather.rng.lock().unwrap().u64(..));
        let (tell, report) = watch::channel(Report::default());
        let (stop, stopped) = watch::channel(false);
        let (settings, spool) = (settings.clone(), spool.clone());
        let run = forward::run(settings, spool, lane, weather.clone(), tell, rng, stopped);
        Running { report, stop, task: tokio::spawn(run) }
    }

    /// As a daemon that stops.
    async fn stop(self) {
        self.stop.send_replace(true);
        let ended = tokio::time::timeout(Duration::from_secs(6), self.task).await;
        ended.expect("a shutdown takes at most 6 seconds").unwrap().unwrap();
    }

    /// As a daemon that is killed. What it had asked the spool to settle may still be settled.
    async fn kill(self, spool: &Spool) {
        self.task.abort();
        assert!(self.task.await.unwrap_err().is_cancelled());
        // The committer takes its requests in order: after this one, an abandoned settlement has been made.
        spool.append(Append::default()).await.unwrap();
    }
}

async fn simulate(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let scene = Arc::new(Scene::draw(&mut rng));
    let settings = settings(&scene, &mut rng);
    let directory = tempfile::tempdir().unwrap();
    let spool = open(directory.path());
    let lane = spool.lane("uk", 0).await.unwrap();
    let weather = Weather {
        scene: scene.clone(),
        rng: Arc::new(Mutex::new(rng.fork())),
        memory: Arc::default(),
    };
    let producer = tokio::spawn(produce(spool.clone(), lane, scene.clone(), rng.fork()));
    let mut running = Running::start(&spool, lane, &settings, &weather);
    for _ in 0..scene.restarts {
        tokio::time::sleep(Duration::from_millis(rng.u64(0..60_000))).await;
        if rng.bool() {
            running.stop().await;
        } else {
            running.kill(&spool).await;
        }
        running = Running::start(&spool, lane, &settings, &weather);
    }
    producer.await.unwrap();
    let records = scene.types.len() as u64;
    let emptied = async {
        while spool.cursor(lane).0 <= records {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let bound = WAITS_MAX + RECORD_MAX * u32::try_from(records).unwrap();
    let in_time = tokio::time::timeout(bound, emptied).await.is_ok();
    assert!(in_time, "the queue is never empty: {:?}", running.report.borrow());
    running.stop().await;
    check(&spool, lane, &weather).await;
    spool.close().await;
}

/// The promises, once the queue is empty.
async fn check(spool: &Spool, lane: LaneId, weather: &Weather) {
    let Weather { scene, memory, .. } = weather;
    let records = scene.types.len() as u64;
    let named = memory.lock().unwrap().named.clone();
    let taken = memory.lock().unwrap().taken.clone();
    let innocent = (1..=records).filter(|id| !scene.guilty.contains(id));
    assert!(innocent.eq(taken), "every innocent record is taken, first in order");

    let kept = spool.quarantine(QuarantineId(1), usize::MAX >> 1).await.unwrap();
    let mut guilty = Vec::new();
    for (_, entry) in kept {
        let record: serde_json::Value = serde_json::from_slice(&entry.body).unwrap();
        let id: u64 = record["id"].as_str().unwrap().parse().unwrap();
        let Origin::Record { seq, record_type, .. } = &entry.origin else { panic!("{entry:?}") };
        assert_eq!((seq.0, record_type.as_str()), (id, scene.types[place(id)]));
        if entry.status == Some(202) {
            assert!(named.contains(&id), "{id} was not named");
        } else {
            assert_eq!(entry.reason == "too_large", entry.status == Some(413));
            guilty.push(id);
        }
    }
    assert!(scene.guilty.iter().eq(&guilty), "exactly the guilty are set aside, once, in order");

    let stats = spool.stats(lane).await.unwrap();
    let quarantined = scene.guilty.len() as u64;
    assert_eq!((stats.quarantined, stats.delivered), (quarantined, records - quarantined));
    assert_eq!((stats.queued_records, stats.queued_bytes, stats.cursor), (0, 0, records + 1));
}

fn place(id: u64) -> usize {
    usize::try_from(id).unwrap() - 1
}

/// A paused runtime; on a panic the seed is printed.
fn run(seed: u64) {
    struct Printed(u64);
    impl Drop for Printed {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("failed: PILLARBOX_SEED={}", self.0);
            }
        }
    }
    let printed = Printed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(simulate(seed));
    drop(printed);
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn every_promise_of_delivery_holds_in_any_weather() {
    if let Some(seed) = variable("PILLARBOX_SEED") {
        return run(seed);
    }
    let seeds = variable("PILLARBOX_SEEDS").unwrap_or(SEEDS);
    let (next, threads) = (AtomicU64::new(0), std::thread::available_parallelism().unwrap());
    std::thread::scope(|scope| {
        for _ in 0..threads.get() {
            scope.spawn(|| {
                let taken = || Some(next.fetch_add(1, Ordering::Relaxed));
                std::iter::from_fn(taken).take_while(|seed| *seed < seeds).for_each(run);
            });
        }
    });
}
