//! A spool whose process was killed: what is in the log and not in the store yet is found again.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::log::segment::Segment;
use super::model_tests::{options, quarantined, record, reopen, settlement};
use super::*;
use crate::clock::UnixMillis;

const RECORD_BYTES: usize = 3000;
const STEPS: usize = 120;

fn delivery(first: u64, records: u64) -> Delivery {
    let (sent_at, answered_at) = (UnixMillis(1), UnixMillis(2));
    let (first, end, answer) = (Seq(first), End::Delivered, format!("answer {first}"));
    let (apart, status, attempt) = (Vec::new(), 202, 1);
    Delivery { first, records, end, apart, status, attempt, sent_at, answered_at, answer }
}

/// A lane as it must be.
#[derive(Default)]
struct Expected {
    newest: u64,
    settled: u64,
    /// First seq and number of records of each push.
    pushes: Vec<(u64, u64)>,
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else if let Err(error) = std::fs::copy(entry.path(), to) {
            // A segment that is being prepared gets its name.
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
        }
    }
}

/// What a kill between two commits leaves: files that nobody writes to at that moment.
async fn killed(spool: &Spool, options: &Options) -> TempDir {
    let copied = tempfile::tempdir().unwrap();
    loop {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if spool.driver.at_rest(|| copy(&options.directory, &copied.path().join("spool"))) {
            return copied;
        }
    }
}

/// Goal: cursors, which the store is told at checkpoints, and deliveries, which it is told later, are never lost, and what is
/// told of a spool without a daemon agrees.
/// Method: a copy is made between random appends, settlements and erasures of several lanes, whose segments go out of their
/// order, verified, salvaged, and opened.
#[tokio::test]
async fn what_the_store_was_not_told_is_in_the_log() {
    let mut holes = 0;
    for (seed, sync) in [
        (1, SyncMode::Always),
        (2, SyncMode::Every(Duration::from_millis(20))),
        (3, SyncMode::Every(Duration::from_secs(100))),
    ] {
        let mut rng = fastrand::Rng::with_seed(seed);
        let directory = tempfile::tempdir().unwrap();
        let options = Options { sync, keep_delivered: 300, ..options(directory.path()) };
        let spool = reopen(&options);
        let mut lanes = Vec::new();
        for (integration, number) in [("uk", 0), ("uk", 1), ("de", 0)] {
            let lane = spool.lane(integration, number).await.unwrap();
            lanes.push((lane, Expected::default()));
        }
        for step in 0..STEPS {
            let (lane, expected) = rng.choice(&mut lanes).unwrap();
            match rng.u32(..20) {
                0..6 => {
                    let records = rng.usize(1..200);
                    let items = vec![record(*lane, "t", &vec![b'x'; RECORD_BYTES]); records];
                    spool.append(Append { items, ..Append::default() }).await.unwrap();
                    expected.newest += records as u64;
                }
                6..18 => {
                    let records = rng.u64(1..100).min(expected.newest - expected.settled);
                    let first = expected.settled + 1;
                    if records > 0 {
                        let bytes = records * RECORD_BYTES as u64;
                        let aside = rng.u32(..8) == 0;
                        spool
                            .settle(Settlement {
                                delivery: Some(delivery(first, records)),
                                copies: if aside { vec![quarantined(b"x")] } else { Vec::new() },
                                ..settlement(*lane, first, records, bytes)
                            })
                            .await
                            .unwrap();
                        expected.settled += records;
                        expected.pushes.push((first, records));
                    }
                }
                _ => {
                    let erases = vec![PersonKey(rng.u64(..))];
                    spool.append(Append { erases, ..Append::default() }).await.unwrap();
                }
            }
            if rng.u32(..6) == 0 {
                let left = killed(&spool, &options).await;
                let directory = left.path().join("spool");
                if let Some(number) = hole(&directory) {
                    holes += 1;
                    if rng.bool() {
                        // Its removal was cut short.
                        Segment::create(&directory.join("log"), number, 0).unwrap();
                    }
                }
                let options = Options { directory, ..options.clone() };
                agrees(&options, &lanes, &format!("seed {seed}, step {step}")).await;
            }
        }
        spool.close().await;
    }
    assert!(holes > 0, "no segment went before an older one");
}

/// A segment that has gone from between others.
fn hole(directory: &Path) -> Option<u64> {
    let numbers = Segment::list(&directory.join("log")).unwrap();
    let pair = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1)?;
    Some(pair[0] + 1)
}

async fn agrees(options: &Options, lanes: &[(LaneId, Expected)], at: &str) {
    let offline = offline::Offline::open(&options.directory).unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let verified = offline::verify(&offline, temporary.path(), &mut |_, _| {}).unwrap();
    assert!(verified.faults.is_empty(), "{at}: {:?}", verified.faults);
    let salvage = offline::Salvage::scan(&offline, &mut |_, _| {}).unwrap();
    let salvaged = salvage.write(true, &mut Vec::new()).unwrap();
    for (lane, expected) in lanes {
        let told = verified.lanes.iter().find(|told| told.lane == lane.0).unwrap();
        assert_eq!(told.cursor, expected.settled + 1, "{at}");
        let told = salvaged.lanes.iter().find(|told| told.lane == lane.0).unwrap();
        assert_eq!(told.cursor.unwrap_or(1), expected.settled + 1, "{at}");
        assert_eq!(told.queued, expected.newest - expected.settled, "{at}");
    }
    drop(offline);

    let spool = reopen(options);
    for (lane, expected) in lanes {
        assert_eq!(spool.cursor(*lane), Seq(expected.settled + 1), "{at}");
        let oldest = spool.oldest(*lane).0;
        let told = spool.deliveries(*lane, Seq(1), usize::MAX).await.unwrap();
        let told = told.iter().map(|push| (push.first.0, push.records));
        // Those of records that have gone are trimmed with the next segment that goes.
        let kept = |(first, _): &(u64, u64)| *first >= oldest;
        assert!(told.filter(kept).eq(expected.pushes.iter().copied().filter(kept)), "{at}");
        assert!(spool.stats(*lane).await.unwrap().is_conserved(), "{at}");
        let queued = spool.peek(*lane, spool.cursor(*lane), usize::MAX, usize::MAX).await.unwrap();
        assert_eq!(queued.len() as u64, expected.newest - expected.settled, "{at}");
    }
    spool.close().await;
}

/// Goal: a push is told as soon as it is settled, and goes with its records: an answer may name a person.
#[tokio::test]
async fn a_delivery_is_told_at_once_and_goes_with_its_records() {
    let directory = tempfile::tempdir().unwrap();
    let spool = reopen(&options(directory.path()));
    let lane = spool.lane("uk", 0).await.unwrap();
    let items = vec![record(lane, "t", b"x"); 10];
    spool.append(Append { items, ..Append::default() }).await.unwrap();
    let settle = async |first, records| {
        let delivery = Some(delivery(first, records));
        let settled = Settlement { delivery, ..settlement(lane, first, records, records) };
        spool.settle(settled).await.unwrap();
        // The committer answers before it has told the store.
        while !spool.driver.at_rest(|| {}) {
            tokio::task::yield_now().await;
        }
    };
    settle(1, 4).await;
    assert_eq!(spool.deliveries(lane, Seq(1), 10).await.unwrap(), [delivery(1, 4)]);

    settle(5, 6).await;
    let erases = vec![PersonKey(7)];
    spool.append(Append { erases, ..Append::default() }).await.unwrap();
    while spool.oldest(lane) <= Seq(10) || !spool.driver.at_rest(|| {}) {
        tokio::task::yield_now().await;
    }
    assert_eq!(spool.deliveries(lane, Seq(1), 10).await.unwrap(), []);
    spool.close().await;
}
