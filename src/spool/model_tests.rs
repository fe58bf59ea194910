//! The spool against a model: whatever is appended, settled, refused and reopened, it agrees with a plain list.

use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::clock::UnixMillis;

pub(crate) fn options(directory: &Path) -> Options {
    Options {
        directory: directory.join("spool"),
        sync: SyncMode::Always,
        cache_bytes: 32 << 20,
        records_max: 1_000_000,
        bytes_max: 1 << 30,
        free_disk_min_bytes: 0,
        keep_delivered: 50,
        keep_events: false,
        dedupe_window: 200,
        identities_max: 1_000_000,
    }
}

/// Opens the spool, waiting for an earlier handle's last references to go.
pub(crate) fn reopen(options: &Options) -> Spool {
    for _ in 0..500 {
        match Spool::open(options.clone(), Drive::Thread) {
            Ok(spool) => return spool,
            Err(OpenError::Locked { .. }) => std::thread::sleep(Duration::from_millis(10)),
            Err(OpenError::Damaged { what, .. }) if what.contains("lock") => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the spool stays locked")
}

/// Spoils the first `text` in a file.
pub(crate) fn damage(file: &Path, text: &str) {
    let bytes = std::fs::read(file).unwrap();
    let at = bytes.windows(text.len()).position(|found| found == text.as_bytes()).unwrap();
    let file = std::fs::File::options().write(true).open(file).unwrap();
    file.write_all_at(b"\0", at as u64).unwrap();
}

pub(crate) fn record(lane: LaneId, record_type: &str, body: &[u8]) -> Item {
    let record = Bytes::copy_from_slice(body);
    Item {
        once: None,
        content: Content::Record {
            lane,
            record_type: Arc::from(record_type),
            record,
            person: PersonKeys::default(),
            first_seen: None,
            event: None,
        },
    }
}

/// The model's rule for a record's type: by the parity of its length.
fn type_of(bytes: usize) -> &'static str {
    if bytes.is_multiple_of(2) { "even" } else { "odd" }
}

/// The model's rule for the event that is kept beside a record: every third has none, and beside a large record it is large.
fn event_of(body: &[u8]) -> Option<Bytes> {
    let bytes = if body.len() > 1000 { EVENT_BYTES_MAX - body.len() % 5 } else { body.len() / 2 };
    (!body.len().is_multiple_of(3)).then(|| Bytes::from(vec![b'E'; bytes]))
}

/// A record as the model has it.
fn modelled(lane: LaneId, body: &[u8]) -> Item {
    let mut item = record(lane, type_of(body.len()), body);
    if let Content::Record { event, .. } = &mut item.content {
        *event = event_of(body);
    }
    item
}

/// What records of the model take, with their events.
fn bytes_of(bodies: &[Vec<u8>]) -> u64 {
    let event_bytes = |body| event_of(body).map_or(0, |event| event.len());
    bodies.iter().map(|body| (body.len() + event_bytes(body)) as u64).sum()
}

pub(crate) fn quarantined(body: &[u8]) -> Quarantined {
    Quarantined {
        origin: Origin::Event { kind: "track".into(), integration: None },
        reason: "invalid_event".into(),
        detail: "no event name".into(),
        status: None,
        at: UnixMillis(1),
        body: body.to_vec(),
        first_at: UnixMillis(1),
    }
}

pub(crate) fn settlement(lane: LaneId, first: u64, records: u64, bytes: u64) -> Settlement {
    let (first, end) = (Seq(first), End::Delivered);
    Settlement { lane, first, records, bytes, end, apart: vec![], copies: vec![], delivery: None }
}

#[derive(Clone, Debug)]
enum Step {
    Append { lane: usize, sizes: Vec<usize>, ids: Vec<u16> },
    Quarantine { bytes: usize },
    Settle { lane: usize, records: u64, end: usize },
    Release { nth: prop::sample::Index },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_usize..2, proptest::collection::vec(prop_oneof![9 => 1_usize..900, 1 => 50_000_usize..60_000], 1..40), proptest::collection::vec(0_u16..400, 40))
            .prop_map(|(lane, sizes, ids)| Step::Append { lane, sizes, ids }),
        1 => (1_usize..100_000).prop_map(|bytes| Step::Quarantine { bytes }),
        5 => (0_usize..2, 1_u64..60, 0_usize..4).prop_map(|(lane, records, end)| Step::Settle { lane, records, end }),
        1 => any::<prop::sample::Index>().prop_map(|nth| Step::Release { nth }),
        1 => Just(Step::Reopen),
    ]
}

const ENDS: [End; 4] = [End::Delivered, End::Quarantined, End::Withheld, End::Erased];

/// What the spool must hold.
#[derive(Default)]
struct Model {
    lanes: [Vec<Vec<u8>>; 2],
    settled: [u64; 2],
    ends: [[u64; 4]; 2],
    quarantine: BTreeMap<u64, Vec<u8>>,
    quarantine_newest: u64,
    /// Ids in the order of their acceptance, per lane (each lane is a scope).
    ids: [Vec<u16>; 2],
}

async fn check(spool: &Spool, lanes: &[LaneId], model: &Model) {
    for (index, lane) in lanes.iter().enumerate() {
        let (records, settled) = (&model.lanes[index], model.settled[index]);
        let cursor = spool.cursor(*lane);
        assert_eq!(cursor.0, settled + 1);
        let entries = spool.peek(*lane, cursor, usize::MAX, usize::MAX).await.unwrap();
        let expected = &records[usize::try_from(settled).unwrap()..];
        assert_eq!(entries.len(), expected.len());
        for ((entry, body), seq) in entries.iter().zip(expected).zip(cursor.0..) {
            assert_eq!(entry.seq.0, seq);
            assert!(entry.record == body[..], "the record of seq {seq} differs");
            assert_eq!(&*entry.record_type, type_of(body.len()));
            assert!(entry.event == event_of(body), "the event of seq {seq} differs");
        }
        let stats = spool.stats(*lane).await.unwrap();
        assert_eq!(stats.newest, records.len() as u64);
        assert_eq!(stats.queued_bytes, bytes_of(expected));
        assert_eq!(
            [stats.delivered, stats.quarantined, stats.withheld, stats.erased],
            model.ends[index]
        );
        assert_eq!(stats.oldest_at.is_some(), !expected.is_empty());
        assert!(stats.is_conserved(), "{stats:?}");
    }
    let held = spool.quarantine(QuarantineId(0), usize::MAX).await.unwrap();
    let ids: Vec<u64> = held.iter().map(|(id, _)| id.0).collect();
    assert_eq!(ids, model.quarantine.keys().copied().collect::<Vec<_>>());
    assert!(
        held.iter().map(|(_, entry)| &entry.body).eq(model.quarantine.values()),
        "a body differs"
    );
    assert_eq!(spool.quarantine_count(), model.quarantine.len() as u64);
}

async fn append(
    spool: &Spool,
    lanes: &[LaneId],
    model: &mut Model,
    lane: usize,
    sizes: &[usize],
    ids: &[u16],
) {
    let mut append = Append::default();
    for (size, id) in sizes.iter().zip(ids) {
        let mut item = modelled(lanes[lane], &vec![b'a' + (*id % 26) as u8; *size]);
        item.once = Some(Once::new(u32::try_from(lane).unwrap(), &id.to_string()));
        append.items.push(item);
    }
    let receipt = spool.append(append).await.unwrap();
    let known = model.ids[lane].clone();
    let mut fresh = HashSet::new();
    for (index, (size, id)) in sizes.iter().zip(ids).enumerate() {
        let duplicate = receipt.duplicates.contains(&index);
        let in_window = known.iter().rev().take(200).any(|known| known == id) || !fresh.insert(*id);
        assert!(duplicate || !in_window, "id {id} was stored twice within the window");
        assert!(!duplicate || in_window || known.contains(id), "id {id} was never stored");
        if !duplicate {
            model.lanes[lane].push(vec![b'a' + (*id % 26) as u8; *size]);
            model.ids[lane].push(*id);
        }
    }
}

async fn apply(spool: &Spool, lanes: &[LaneId], model: &mut Model, step: Step) {
    match step {
        Step::Append { lane, sizes, ids } => append(spool, lanes, model, lane, &sizes, &ids).await,
        Step::Quarantine { bytes } => {
            let item = Item {
                once: None,
                content: Content::Quarantine(Box::new(quarantined(&vec![7; bytes]))),
            };
            spool.append(Append { items: vec![item], ..Append::default() }).await.unwrap();
            model.quarantine_newest += 1;
            model.quarantine.insert(model.quarantine_newest, vec![7; bytes]);
        }
        Step::Settle { lane, records, end } => {
            let first = spool.cursor(lanes[lane]);
            let queued = &model.lanes[lane][usize::try_from(model.settled[lane]).unwrap()..];
            let records = records.min(queued.len() as u64);
            if records == 0 {
                return;
            }
            let settled = &queued[..usize::try_from(records).unwrap()];
            let bytes = bytes_of(settled);
            let copies = if end == 1 { vec![quarantined(&settled[0])] } else { Vec::new() };
            for copy in &copies {
                model.quarantine_newest += 1;
                model.quarantine.insert(model.quarantine_newest, copy.body.clone());
            }
            let settlement = Settlement {
                lane: lanes[lane],
                first,
                records,
                bytes,
                end: ENDS[end],
                apart: vec![],
                copies,
                delivery: None,
            };
            spool.settle(settlement).await.unwrap();
            model.settled[lane] += records;
            model.ends[lane][end] += records;
        }
        Step::Release { nth } => {
            let ids: Vec<u64> = model.quarantine.keys().copied().collect();
            if ids.is_empty() {
                return;
            }
            let id = *nth.get(&ids);
            let mut body = model.quarantine.remove(&id).unwrap();
            body.truncate(RECORD_BYTES_MAX);
            let releases = vec![QuarantineId(id)];
            let items = vec![modelled(lanes[0], &body)];
            spool
                .append(Append { items, releases: releases.clone(), ..Append::default() })
                .await
                .unwrap();
            model.lanes[0].push(body);
            let again = Append { releases, ..Append::default() };
            assert_eq!(spool.append(again).await, Err(AppendError::Gone(QuarantineId(id))));
        }
        Step::Reopen => unreachable!("handled by the caller"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_spool_agrees_with_a_list(steps in proptest::collection::vec(step(), 1..30)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let options = options(directory.path());
        runtime.block_on(async {
            let mut spool = reopen(&options);
            let mut lanes = Vec::new();
            for name in ["uk", "de"] {
                lanes.push(spool.lane(name, 0).await.unwrap());
            }
            let mut model = Model::default();
            for step in steps {
                if matches!(step, Step::Reopen) {
                    spool.close().await;
                    drop(spool);
                    spool = reopen(&options);
                    assert_eq!(spool.lane("de", 0).await.unwrap(), lanes[1]);
                } else {
                    apply(&spool, &lanes, &mut model, step).await;
                }
                check(&spool, &lanes, &model).await;
            }
            assert_eq!(std::fs::read_dir(options.directory.join("0000000001/blobs")).unwrap().count(), 0);
            spool.close().await;
        });
    }
}

/// Found by the model: an emptied quarantine forgot its newest id when it was reopened.
#[tokio::test]
async fn a_quarantine_id_never_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path());
    for expected in [1, 2] {
        let spool = reopen(&options);
        let item = Item { once: None, content: Content::Quarantine(Box::new(quarantined(b"x"))) };
        spool.append(Append { items: vec![item], ..Append::default() }).await.unwrap();
        let held = spool.quarantine(QuarantineId(0), 10).await.unwrap();
        assert_eq!(held.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [expected]);
        let releases = vec![QuarantineId(expected)];
        spool.append(Append { releases, ..Append::default() }).await.unwrap();
        spool.close().await;
    }
}

#[tokio::test]
async fn concurrent_appends_share_flushes_and_keep_their_order() {
    let directory = tempfile::tempdir().unwrap();
    let spool = reopen(&options(directory.path()));
    let lane = spool.lane("uk", 0).await.unwrap();
    let calls = durable::flushes();
    let tasks: Vec<_> = (0..64_u8)
        .map(|producer| {
            let spool = spool.clone();
            tokio::spawn(async move {
                for number in 0..20_u8 {
                    let append = Append {
                        items: vec![record(lane, "t", &[producer, number])],
                        ..Append::default()
                    };
                    spool.append(append).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let entries = spool.peek(lane, Seq(1), usize::MAX, usize::MAX).await.unwrap();
    assert_eq!(entries.len(), 64 * 20);
    let mut next = [0_u8; 64];
    for entry in entries {
        let (producer, number) = (usize::from(entry.record[0]), entry.record[1]);
        assert_eq!(next[producer], number, "producer {producer} out of order");
        next[producer] += 1;
    }
    assert!(durable::flushes() - calls < 64 * 20, "every append had a flush of its own");
    spool.close().await;
}

#[tokio::test]
async fn limits_refuse_whole_requests_and_keep_what_was_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let mut limited = options(directory.path());
    limited.records_max = 10;
    let spool = reopen(&limited);
    let lane = spool.lane("uk", 0).await.unwrap();
    let of =
        |count: usize| Append { items: vec![record(lane, "t", b"x"); count], ..Append::default() };
    spool.append(of(8)).await.unwrap();
    let refused = spool.append(of(3)).await;
    assert_eq!(refused, Err(AppendError::Full { queued: 11, limit: 10, unit: "records" }));
    assert_eq!(*spool.newest(lane).borrow(), 8);
    spool.append(of(2)).await.unwrap();
    assert!(matches!(spool.accepting(), Err(AppendError::Full { .. })));
    spool.settle(settlement(lane, 1, 5, 5)).await.unwrap();
    assert_eq!(spool.accepting(), Ok(()));
    spool.append(of(3)).await.unwrap();
    spool.close().await;
    assert_eq!(spool.append(of(1)).await, Err(AppendError::Closed));
}

#[tokio::test]
async fn a_low_disk_refuses_before_it_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let mut limited = options(directory.path());
    limited.free_disk_min_bytes = u64::MAX;
    let spool = reopen(&limited);
    let lane = spool.lane("uk", 0).await.unwrap();
    let append = Append { items: vec![record(lane, "t", b"x")], ..Append::default() };
    assert!(matches!(spool.append(append).await, Err(AppendError::DiskLow { .. })));
    assert!(matches!(spool.accepting(), Err(AppendError::DiskLow { .. })));
    spool.close().await;
}

#[tokio::test]
async fn identities_merge_and_survive() {
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path());
    let spool = reopen(&options);
    let of = |traits: &'static str| Append {
        identities: vec![("u:1".into(), Bytes::from_static(traits.as_bytes()))],
        ..Append::default()
    };
    spool.append(of(r#"{"email":"a@b.c","tier":"gold"}"#)).await.unwrap();
    spool.append(of(r#"{"tier":"silver"}"#)).await.unwrap();
    let expected = Some(Bytes::from_static(br#"{"email":"a@b.c","tier":"silver"}"#));
    let keys = || vec!["u:1".to_owned(), "u:2".to_owned()];
    assert_eq!(spool.identities(keys()).await.unwrap(), [expected.clone(), None]);
    spool.close().await;
    drop(spool);
    let spool = reopen(&options);
    assert_eq!(spool.identities(keys()).await.unwrap(), [expected, None]);
    spool.close().await;
}

#[tokio::test]
async fn damage_is_refused_with_the_file_and_the_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path());
    let spool = reopen(&options);
    let lane = spool.lane("uk", 0).await.unwrap();
    spool
        .append(Append { items: vec![record(lane, "t", b"x"); 5], ..Append::default() })
        .await
        .unwrap();
    spool.close().await;
    drop(spool);
    drop(reopen(&options)); // the lock is free again
    let file = options.directory.join("0000000001/db");
    let whole = std::fs::read(&file).unwrap();
    for bytes in [0, 1000, whole.len() / 2] {
        std::fs::write(&file, &whole[..bytes]).unwrap();
        let opened = loop {
            match Spool::open(options.clone(), Drive::Thread) {
                Err(OpenError::Locked { .. }) => std::thread::sleep(Duration::from_millis(10)),
                opened => break opened,
            }
        };
        match opened {
            Err(error) => {
                let error = error.to_string();
                assert!(
                    error.contains("0000000001/db") && error.contains("copy its folder away"),
                    "{error}"
                );
            }
            // What was cut off was sled's padding alone: then nothing may be missing.
            Ok(spool) => {
                assert!(bytes > 1000, "a store of {bytes} bytes was opened");
                assert_eq!(spool.peek(lane, Seq(1), 10, 1000).await.unwrap().len(), 5);
                spool.close().await;
            }
        }
    }
}

#[tokio::test]
async fn a_second_process_is_told_who_holds_the_spool() {
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path());
    let spool = reopen(&options);
    let error = Spool::open(options.clone(), Drive::Thread).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }));
    assert!(error.to_string().contains("stop it first"), "{error}");
    spool.close().await;
}

#[tokio::test]
async fn the_weaker_mode_answers_before_the_flush() {
    let directory = tempfile::tempdir().unwrap();
    let mut options = options(directory.path());
    options.sync = SyncMode::Every(Duration::from_millis(20));
    let spool = reopen(&options);
    let lane = spool.lane("uk", 0).await.unwrap();
    let append = Append { items: vec![record(lane, "t", b"x")], ..Append::default() };
    spool.append(append).await.unwrap();
    assert_eq!(*spool.newest(lane).borrow(), 1);
    let calls = durable::flushes();
    while durable::flushes() == calls {
        tokio::time::sleep(Duration::from_millis(1)).await; // fails by the test runner's own limit
    }
    spool.close().await;
}

/// A disk that never answers is a failure, whoever waits for it.
#[tokio::test]
async fn a_step_that_does_not_end_fails_the_spool() {
    let directory = tempfile::tempdir().unwrap();
    let spool = reopen(&options(directory.path()));
    spool.shared.health.hang();
    assert!(spool.failed().await.contains("has not answered"));
    assert!(matches!(spool.accepting(), Err(AppendError::Failed(_))));
}
