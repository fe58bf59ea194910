//! Promises 1, 2, 3, 4 and 6 through SIGKILL at random moments and at named points.
//!
//! Goal: whenever the daemon dies, nothing acknowledged is lost, nothing is stored twice, the order stays, only the push
//! in flight repeats, the quarantine neither loses nor doubles an entry, and identities survive.
//!
//! Method: three producers post batches one after the other over a spool that lives through all kills; each posts a
//! request again, byte for byte, until it is answered 200, and keeps its own list of what must then exist. Among the
//! events are some that upstream rejects, some that are invalid, and identifies that change the e-mail of what follows.
//! A kill comes from outside after a random time (during the start too), or from inside at a point that
//! `PILLARBOX_KILL_AT` names (`src/kill_point.rs`). In the end everything is delivered, and the arrivals, the counters and
//! the quarantine are held against the lists. SIGKILL keeps the page cache: this shows atomicity and order, not fsync.
//!
//! `PILLARBOX_KILLS=n` makes n random kills, `PILLARBOX_SEED=s` draws them from this seed; a failure prints its seed.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::{BTreeSet, HashMap};
use std::os::unix::process::ExitStatusExt as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use support::victim::{Victim, check_repeats, scene};
use support::{Host, PATIENCE, Producer, Upstream, wait_until};
use tokio::time::Instant;

/// Random kills of a normal run.
const KILLS: u64 = 70;
const PRODUCERS: usize = 3;
/// Requests that each producer may make in a round.
const ROUND_REQUESTS: u64 = 10;
/// The longest random life of a daemon.
const LIFE_MAX: Duration = Duration::from_millis(400);

/// What a producer was told is safe.
#[derive(Debug, Default)]
struct Acknowledged {
    /// Ids that must arrive, in order, with the e-mail that each must have.
    records: Vec<(String, Option<String>)>,
    /// Ids that upstream rejects.
    poison: BTreeSet<String>,
    /// Ids of events that are not valid.
    invalid: BTreeSet<String>,
}

/// What the rounds and the producers share.
struct Load<'a> {
    host: &'a Host,
    ended: AtomicBool,
    allowance: Mutex<u64>,
    granted: Condvar,
    /// Requests answered 200.
    answered: AtomicU64,
}

impl Load<'_> {
    /// Lets the producers make so many more requests in all.
    fn grant(&self, requests: u64) {
        *self.allowance.lock().unwrap() += requests;
        self.granted.notify_all();
    }

    fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.granted.notify_all();
    }

    /// Waits for leave to make a request; `false` at the end.
    fn may_post(&self) -> bool {
        let mut allowance = self.allowance.lock().unwrap();
        loop {
            if self.ended.load(Ordering::Acquire) {
                return false;
            }
            if *allowance > 0 {
                *allowance -= 1;
                return true;
            }
            allowance = self.granted.wait_timeout(allowance, Duration::from_millis(50)).unwrap().0;
        }
    }

    /// Posts until the answer is a 200: daemons come and go meanwhile.
    fn post(&self, connection: &mut Option<Producer>, path: &str, body: &str) -> serde_json::Value {
        let begun = Instant::now();
        loop {
            assert!(begun.elapsed() < PATIENCE, "a request was never answered: {body}");
            if connection.is_none() {
                *connection = Producer::try_connect(&self.host.ingest()).ok();
            }
            let Some(producer) = connection else {
                std::thread::sleep(Duration::from_millis(2)); // nobody listens yet
                continue;
            };
            match producer.try_post(path, body.as_bytes()) {
                Ok(answer) if answer.status == 200 => {
                    self.answered.fetch_add(1, Ordering::AcqRel);
                    return answer.json();
                }
                Ok(answer) => assert_eq!(answer.status, 503, "{answer:?}"),
                Err(_) => {}
            }
            *connection = None;
        }
    }

    /// One producer, until the end.
    fn produce(&self, name: usize, mut rng: fastrand::Rng) -> Acknowledged {
        let mut safe = Acknowledged::default();
        let mut connection = None;
        let (mut number, mut email) = (0, None);
        while self.may_post() {
            if rng.u8(..) < 12 {
                let new = format!("p{name}-{number}@example.com");
                let body = format!(r#"{{"userId":"u{name}","traits":{{"email":"{new}"}}}}"#);
                self.post(&mut connection, "/v1/identify", &body);
                email = Some(new);
            }
            let (mut events, mut next) = (Vec::new(), Acknowledged::default());
            for _ in 0..rng.usize(1..=8) {
                number += 1;
                let id = match rng.u8(..) {
                    0..3 => format!("poison-{name}-{number}"),
                    3..7 => format!("invalid-{name}-{number}"),
                    _ => format!("e-{name}-{number:06}"),
                };
                let event =
                    if id.starts_with("invalid") { "" } else { r#""event":"Product Viewed","# };
                events.push(format!(
                    r#"{{"type":"track",{event}"messageId":"{id}","userId":"u{name}","properties":{{"price":79.00}}}}"#
                ));
                match id.split('-').next() {
                    Some("poison") => drop(next.poison.insert(id)),
                    Some("invalid") => drop(next.invalid.insert(id)),
                    _ => next.records.push((id, email.clone())),
                }
            }
            let body = format!("[{}]", events.join(","));
            let answer = self.post(&mut connection, "/v1/batch", &body);
            let count = |key: &str| answer[key].as_u64().unwrap();
            let all = count("accepted") + count("duplicate") + count("quarantined");
            assert_eq!(all, events.len() as u64, "{answer}");
            safe.records.extend(next.records);
            safe.poison.extend(next.poison);
            safe.invalid.extend(next.invalid);
        }
        safe
    }
}

/// Runs the producers beside `rounds`, which makes kills and says how many; then delivers the rest and checks it all.
fn survive(seed: u64, rounds: impl FnOnce(&Load<'_>, &mut fastrand::Rng) -> usize) {
    let (upstream, host) = scene();
    let load = Load {
        host: &host,
        ended: AtomicBool::new(false),
        allowance: Mutex::new(0),
        granted: Condvar::new(),
        answered: AtomicU64::new(0),
    };
    let mut rng = fastrand::Rng::with_seed(seed);
    let (kills, safe, mut last) = std::thread::scope(|scope| {
        let producers: Vec<_> = (0..PRODUCERS)
            .map(|name| {
                let (load, rng) = (&load, rng.fork());
                scope.spawn(move || load.produce(name, rng))
            })
            .collect();
        // Producers must not wait for ever when a round fails.
        let kills =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rounds(&load, &mut rng)));
        load.end();
        let last = Victim::start(&host, None);
        let safe: Vec<Acknowledged> =
            producers.into_iter().map(|name| name.join().unwrap()).collect();
        match kills {
            Ok(kills) => (kills, safe, last),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    last.wait_until_ready(&host);
    host.wait_until_settled();
    check(&upstream, &host, &safe, kills);
    assert_eq!(last.terminate().code(), Some(0));
    let events: usize = safe.iter().map(|safe| safe.records.len()).sum();
    println!("{kills} kills, {events} records delivered, {} requests", load.answered.into_inner());
}

fn check(upstream: &Upstream, host: &Host, safe: &[Acknowledged], kills: usize) {
    let arrived = upstream.handle.records();
    let ids: Vec<&str> = arrived.iter().map(|record| record.id.as_str()).collect();
    let repeats = check_repeats(&ids, kills);

    // Promises 1 and 3: what each producer was told is safe has arrived, in its order, under its identity.
    let mut first: HashMap<&str, usize> = HashMap::new();
    for (at, id) in ids.iter().enumerate() {
        first.entry(id).or_insert(at);
    }
    for safe in safe {
        let mut before = None;
        for (id, email) in &safe.records {
            let at = first.get(id.as_str()).copied();
            assert!(at.is_some(), "{id} was acknowledged and is lost");
            assert!(at > before, "{id} came before its predecessor");
            before = at;
            let body = std::str::from_utf8(&arrived[at.unwrap()].body).unwrap();
            let found = body.split(r#""identity_email":""#).nth(1);
            assert_eq!(found.and_then(|rest| rest.split('"').next()), email.as_deref(), "{body}");
        }
    }
    let expected: usize = safe.iter().map(|safe| safe.records.len()).sum();
    assert_eq!(first.len(), expected, "records arrived that nobody was told of");
    assert_eq!(ids.len(), expected + repeats);

    // Promises 4 and 6: each event is once in its lane or in the quarantine, and the sums agree.
    let set = |of: fn(&Acknowledged) -> &BTreeSet<String>| -> Vec<String> {
        safe.iter()
            .flat_map(|safe| of(safe).iter().cloned())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    };
    let (poison, invalid) = (set(|safe| &safe.poison), set(|safe| &safe.invalid));
    assert_eq!(host.lane("newest"), (expected + poison.len()) as u64);
    assert_eq!(host.lane("delivered"), expected as u64);
    assert_eq!(host.lane("quarantined"), poison.len() as u64);
    let exported = host.pillarbox(&["quarantine", "export"]);
    let exported = String::from_utf8(exported.stdout).unwrap();
    let mut held: Vec<String> = exported.lines().map(|line| id_in(line).to_owned()).collect();
    held.sort();
    let mut wanted = [poison, invalid].concat();
    wanted.sort();
    assert_eq!(held, wanted, "the quarantine lost or doubled an entry");
}

/// The id of a quarantined event or record in its line of the export.
fn id_in(line: &str) -> &str {
    let at =
        line.find("poison-").or_else(|| line.find("invalid-")).unwrap_or_else(|| panic!("{line}"));
    let id = &line[at..];
    &id[..id.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-').unwrap()]
}

fn seed() -> u64 {
    let seed = std::env::var("PILLARBOX_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("PILLARBOX_SEED={seed}"); // shown when the test fails
    seed
}

#[test]
fn kills_at_random_moments_lose_and_double_nothing() {
    let kills = std::env::var("PILLARBOX_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    survive(seed(), |load, rng| {
        for _ in 0..kills {
            load.grant(ROUND_REQUESTS * PRODUCERS as u64);
            let mut victim = Victim::start(load.host, None);
            if rng.u8(..) < 200 {
                victim.wait_until_ready(load.host);
            } // else the start itself may be hit
            std::thread::sleep(LIFE_MAX.mul_f64(rng.f64())); // the random moment
            victim.kill(load.host);
        }
        usize::try_from(kills).unwrap()
    });
}

/// Points that a daemon under load comes to by itself, with the passings at which it dies.
const UNDER_LOAD: [(&str, &[u64]); 17] = [
    ("open-locked", &[1]),
    ("open-store", &[1]),
    ("open-log", &[1]),
    ("open-checked", &[1]),
    ("torn", &[1, 4]),
    ("written", &[1, 2, 9]),
    ("flushed", &[1, 2, 9]),
    ("apply", &[1, 2, 3, 10, 40]),
    ("applied", &[1, 2, 9]),
    // An open makes a segment when the last one holds something.
    ("segment-made", &[1]),
    ("segment-named", &[1]),
    ("accepted", &[1, 2, 4]),
    ("rejected", &[1, 2]),
    ("checkpoint-told", &[1]),
    ("checkpoint", &[1]),
    ("checkpoint-flushed", &[1]),
    ("checkpoint-floor", &[1]),
];

#[test]
fn kills_at_every_named_point_lose_and_double_nothing() {
    survive(seed(), |load, _| {
        let mut kills = 0;
        let points = UNDER_LOAD.into_iter().chain([("segment-removed", &[1][..])]);
        for (point, passings) in points {
            for nth in passings {
                load.grant(ROUND_REQUESTS);
                let mut victim = Victim::start(load.host, Some(&format!("{point}:{nth}")));
                // The load goes on, little by little, until the point is reached.
                let mut granted = Instant::now();
                let mut status = None;
                wait_until(&format!("the kill at {point}:{nth}"), || {
                    if granted.elapsed() > Duration::from_millis(100) {
                        granted = Instant::now();
                        load.grant(2);
                    }
                    status = victim.child.try_wait().unwrap();
                    status.is_some()
                });
                let signal = status.unwrap().signal();
                assert_eq!(signal, Some(9), "{point}:{nth}\n{}", Victim::log(load.host));
                kills += 1;
            }
        }
        kills
    });
}
