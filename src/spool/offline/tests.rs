//! Salvage, export and verify over a real store: whole, and damaged in known ways.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::clock::UnixMillis;
use crate::spool::{
    Append, Content, Delivery, Drive, End, Item, Origin, PersonKeys, Quarantined, Seq, Settlement,
    Spool,
};

const RECORDS: u64 = 300;
const LARGE: u64 = 250;
const SETTLED: u64 = 40;

fn body(seq: u64) -> String {
    let filler = if seq == LARGE { 50_000 } else { 200 };
    format!("{{\"id\":\"r-{seq}\",\"n\":79.00,\"x\":\"{}\"}}", "y".repeat(filler))
}

/// The event that is kept beside a record: every other has one.
fn event(seq: u64) -> Option<String> {
    seq.is_multiple_of(2).then(|| format!("{{\"event\": \"e-{seq}\"}}"))
}

/// A spool with [`RECORDS`] records in one lane, one of them large, the first [`SETTLED`] delivered, and two entries in
/// the quarantine, one of them large.
async fn filled() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let options = crate::spool::model_tests::options(folder.path());
    let directory = options.directory.clone();
    let spool = Spool::open(options, Drive::Thread).unwrap();
    let lane = spool.lane("uk", 0).await.unwrap();
    for seq in 1..=RECORDS {
        let content = Content::Record {
            lane,
            record_type: Arc::from("custom_event"),
            record: Bytes::from(body(seq)),
            person: PersonKeys::default(),
            first_seen: None,
            event: event(seq).map(Bytes::from),
        };
        let append = Append { items: vec![Item { once: None, content }], ..Append::default() };
        spool.append(append).await.unwrap();
    }
    for bytes in [10, 40_000] {
        let entry = Quarantined {
            origin: Origin::Event { kind: "track".into(), integration: None },
            reason: "invalid_event".into(),
            detail: "no event name".into(),
            status: None,
            at: UnixMillis(1),
            body: format!("\"{}\"", "q".repeat(bytes)).into_bytes(),
            first_at: UnixMillis(1),
        };
        let item = Item { once: None, content: Content::Quarantine(Box::new(entry)) };
        spool.append(Append { items: vec![item], ..Append::default() }).await.unwrap();
    }
    let entries =
        spool.peek(lane, Seq(1), usize::try_from(SETTLED).unwrap(), 1 << 20).await.unwrap();
    let delivery = Delivery {
        first: Seq(1),
        records: SETTLED,
        end: End::Delivered,
        apart: Vec::new(),
        status: 202,
        attempt: 1,
        sent_at: UnixMillis(1),
        answered_at: UnixMillis(2),
        answer: "{}".into(),
    };
    let settlement = Settlement {
        lane,
        first: Seq(1),
        records: SETTLED,
        bytes: entries.iter().map(|entry| entry.bytes() as u64).sum(),
        end: End::Delivered,
        apart: Vec::new(),
        copies: Vec::new(),
        delivery: Some(delivery),
    };
    spool.settle(settlement).await.unwrap();
    spool.close().await;
    drop(spool);
    (folder, directory)
}

fn offline(directory: &Path) -> Offline {
    // The committer's thread lets go of the lock a moment after the spool is closed.
    for _ in 0..500 {
        match Offline::open(directory) {
            Err(OpenError::Locked { .. }) => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            opened => return opened.unwrap(),
        }
    }
    panic!("the spool stays locked")
}

fn lines(bytes: &[u8]) -> Vec<serde_json::Value> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

fn salvage(directory: &Path) -> (Salvaged, Vec<u8>) {
    let mut out = Vec::new();
    let salvage = Salvage::scan(&offline(directory), &mut |_, _| {}).unwrap();
    let salvaged = salvage.write(false, &mut out).unwrap();
    (salvaged, out)
}

fn everything(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = offline(directory).files().unwrap();
    files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[tokio::test]
async fn a_whole_spool_is_healthy_and_export_and_salvage_agree() {
    let (folder, directory) = filled().await;
    let before = everything(&directory);
    let verified = verify(&offline(&directory), folder.path(), &mut |_, _| {}).unwrap();
    assert_eq!(verified.faults, []);
    let lane = &verified.lanes[0];
    assert_eq!(
        (lane.records, lane.first, lane.newest, lane.cursor, lane.queued),
        (RECORDS, 1, RECORDS, SETTLED + 1, RECORDS - SETTLED)
    );
    assert_eq!((verified.quarantined, verified.deliveries), (2, 1));

    let (salvaged, written) = salvage(&directory);
    assert!(salvaged.complete(), "{salvaged:?}");
    assert_eq!(lines(&written).len() as u64, RECORDS + 2);
    assert_eq!(
        (salvaged.records, salvaged.queued, salvaged.missing, salvaged.quarantined),
        (RECORDS, RECORDS - SETTLED, 0, 2)
    );
    let mut queued = Vec::new();
    let salvage = Salvage::scan(&offline(&directory), &mut |_, _| {}).unwrap();
    salvage.write(true, &mut queued).unwrap();
    let queued = lines(&queued);
    assert_eq!(queued.len() as u64, RECORDS - SETTLED);
    assert!(queued.iter().all(|line| line["state"] == "queued" && line["integration"] == "uk"));
    assert_eq!(everything(&directory), before, "nothing was changed");
}

#[tokio::test]
async fn lines_hold_the_records_byte_for_byte() {
    let (_folder, directory) = filled().await;
    let text = String::from_utf8(salvage(&directory).1).unwrap();
    for (line, seq) in text.lines().zip(1..=RECORDS) {
        let state = if seq <= SETTLED { "delivered" } else { "queued" };
        let head = format!(
            "{{\"integration\":\"uk\",\"lane\":1,\"seq\":{seq},\"state\":\"{state}\",\"type\":\"custom_event\",\"committed_at\":"
        );
        assert!(line.starts_with(&head), "{line}");
        let event = event(seq).map_or(String::new(), |event| format!(",\"event\":{event}"));
        assert!(line.ends_with(&format!("\"record\":{}{event}}}", body(seq))), "{line}");
    }
}

/// Goal: what is read and what is told to be missing add up, wherever the file is hit.
/// Method: the bytes of some records are overwritten wherever they lie.
#[tokio::test]
async fn what_is_hit_is_missing_and_nothing_else() {
    let (_folder, directory) = filled().await;
    let file = directory.join("log/0000000001.log");
    let bytes = fs::read(&file).unwrap();
    let out = fs::OpenOptions::new().write(true).open(&file).unwrap();
    let mut hits = 0;
    for needle in ["\"id\":\"r-77\"", "\"id\":\"r-200\"", "\"id\":\"r-3\"", "\"id\":\"r-250\""] {
        for at in
            (0..bytes.len() - needle.len()).filter(|at| bytes[*at..].starts_with(needle.as_bytes()))
        {
            out.write_all_at(b"X", at as u64 + 3).unwrap();
            hits += 1;
        }
    }
    assert!(hits >= 4);
    let (salvaged, written) = salvage(&directory);
    assert!(!salvaged.complete());
    assert_eq!((salvaged.records, salvaged.missing, salvaged.missing_queued), (RECORDS - 4, 4, 3));
    assert_eq!(salvaged.lanes[0].missing_queued, [(77, 77), (200, 200), (250, 250)]);
    assert_eq!(salvaged.lanes[0].missing_settled, 1);
    assert_eq!(salvaged.parts_damaged, 4);
    assert_eq!(lines(&written).len() as u64, RECORDS - 4 + 2);
}

#[tokio::test]
async fn a_spool_in_use_and_one_that_is_none_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let options = crate::spool::model_tests::options(folder.path());
    assert!(matches!(Offline::open(&options.directory), Err(OpenError::Absent { .. })));
    let spool = Spool::open(options.clone(), Drive::Thread).unwrap();
    let error = Offline::open(&options.directory).unwrap_err();
    assert!(error.to_string().contains(&format!("(pid {})", std::process::id())), "{error}");
    spool.close().await;
}
