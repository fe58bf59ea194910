//! The forwarder against weather: whatever upstream does, every promise of delivery holds.
//!
//! Goal: all records are delivered, quarantined or withheld, in order (Promises 3 and 6), only a 202 acknowledges (Promise 5),
//! only a push whose end the forwarder could not know is repeated (Promise 4), and none of somebody who denies consent by then.
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

mod weather;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pillarbox::forward::{self, Control, Report, RetryPolicy, RunError, Settings, SharedPace};
use pillarbox::spool::{
    Append, Consent, Content, Drive, Item, LaneId, Options, Origin, PersonKey, PersonKeys,
    QuarantineId, Spool, SyncMode,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use weather::Weather;

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
    /// Over how many people the records go round; 0: nobody's consent is asked.
    people: u64,
    /// Who denies consent, and how long after the one before.
    denials: Vec<(u64, Duration)>,
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
        let people = [0, 0, 3, 40][rng.usize(..4)];
        let mut denying: Vec<u64> = (0..people).filter(|_| rng.u64(0..3) == 0).collect();
        rng.shuffle(&mut denying);
        let denials =
            denying.into_iter().map(|person| (person, Duration::from_millis(rng.u64(0..60_000))));
        Scene {
            people,
            denials: denials.collect(),
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

    /// Whom a record is about.
    fn person(&self, id: u64) -> Option<u64> {
        (self.people > 0).then(|| id % self.people)
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
        consent: if scene.people > 0 { vec!["marketing".into()] } else { Vec::new() },
        poll_errors: Duration::ZERO,
    }
}

/// Opens a new spool.
fn open(directory: &std::path::Path) -> Spool {
    let options = Options {
        directory: directory.join("spool"),
        sync: SyncMode::Always,
        cache_bytes: 8 << 20,
        records_max: 1_000_000,
        bytes_max: 1 << 30,
        free_disk_min_bytes: 0,
        keep_delivered: 50,
        keep_events: false,
        dedupe_window: 10,
        identities_max: 1_000_000,
    };
    Spool::open(options, Drive::Task).unwrap()
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
                    person: PersonKeys::new(scene.person(place as u64 + 1).map(PersonKey)),
                    first_seen: None,
                    event: None,
                },
            }
        };
        let items = (next..end).map(item).collect();
        spool.append(Append { items, ..Append::default() }).await.unwrap();
        next = end;
        tokio::time::sleep(scene.pause_max.mul_f64(rng.f64())).await;
    }
}

/// Has people deny their consent. From then on upstream must not see a record of theirs.
async fn deny(spool: Spool, weather: Weather) {
    for (person, pause) in &weather.scene.denials {
        tokio::time::sleep(*pause).await;
        let (of, category) = (PersonKey(*person), "marketing".to_owned());
        let denial = Consent { person: of, category, granted: false, item: None };
        spool.append(Append { consents: vec![denial], ..Append::default() }).await.unwrap();
        weather.memory.lock().unwrap().denied.insert(*person, Instant::now());
    }
}

/// A forwarder that runs.
struct Running {
    report: watch::Receiver<Report>,
    stop: watch::Sender<Control>,
    task: JoinHandle<Result<(), RunError>>,
}

impl Running {
    fn start(spool: &Spool, lane: LaneId, settings: &Settings, weather: &Weather) -> Running {
        let mut memory = weather.memory.lock().unwrap();
        memory.run += 1;
        let rng = fastrand::Rng::with_seed(weather.rng.lock().unwrap().u64(..));
        let (tell, report) = watch::channel(Report::default());
        let (stop, stopped) = watch::channel(Control::default());
        let (settings, spool) = (settings.clone(), spool.clone());
        let run = forward::run(settings, spool, lane, weather.clone(), tell, rng, stopped);
        Running { report, stop, task: tokio::spawn(run) }
    }

    /// As a daemon that stops.
    async fn stop(self) {
        self.stop.send_modify(|control| control.stop = true);
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
    let denials = tokio::spawn(deny(spool.clone(), weather.clone()));
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
    denials.await.unwrap();
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
    let denied = |id: &u64| memory.lock().unwrap().is_denied(scene, *id);
    assert!(taken.is_sorted(), "records are taken first in order");
    let mut missing = (1..=records).filter(|id| !scene.guilty.contains(id) && !taken.contains(id));
    assert!(missing.all(|id| denied(&id)), "every innocent record is taken, unless it is withheld");

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
    let spared: BTreeSet<u64> =
        scene.guilty.iter().copied().filter(|id| !guilty.contains(id)).collect();
    assert!(spared.iter().all(denied), "every guilty record is set aside, unless it is withheld");
    let expected = scene.guilty.iter().filter(|id| !spared.contains(id));
    assert!(expected.eq(&guilty), "none but the guilty are set aside, once, in order");

    let stats = spool.stats(lane).await.unwrap();
    assert_eq!(stats.quarantined, guilty.len() as u64);
    assert_eq!(stats.delivered + stats.quarantined + stats.withheld, records);
    let of_denying = (1..=records).filter(denied).count() as u64;
    assert!(stats.withheld <= of_denying, "{} withheld of {of_denying}", stats.withheld);
    // What was taken unheard may be withheld after all.
    assert!(stats.delivered <= taken.len() as u64);
    assert!(stats.is_conserved());
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
        // Each waits for the disk about as long as it computes.
        for _ in 0..2 * threads.get() {
            scope.spawn(|| {
                let taken = || Some(next.fetch_add(1, Ordering::Relaxed));
                std::iter::from_fn(taken).take_while(|seed| *seed < seeds).for_each(run);
            });
        }
    });
}
