//! What records take counts while they wait, and the disk gives it back once it is no longer needed.

use std::time::Duration;

use bytes::Bytes;

use super::model_tests::{options, quarantined, record, reopen, settlement};
use super::*;

/// The segments' files, by their names.
fn segments(options: &Options) -> Vec<String> {
    let found = std::fs::read_dir(options.directory.join("log")).unwrap();
    let mut names: Vec<String> =
        found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Goal: the disk gets back what settled records took, but for those that are kept; an idle lane keeps its own only.
/// Method: one lane holds a record and is left alone, another gets 60 MB and settles them.
#[tokio::test]
async fn settled_records_are_removed_beyond_what_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path());
    let spool = reopen(&options);
    let idle = spool.lane("idle", 0).await.unwrap();
    let lane = spool.lane("uk", 0).await.unwrap();
    let one = Append { items: vec![record(idle, "t", b"x")], ..Append::default() };
    spool.append(one).await.unwrap();
    for _ in 0..60 {
        let items = vec![record(lane, "t", &[b'x'; 10_000]); 100];
        spool.append(Append { items, ..Append::default() }).await.unwrap();
    }
    assert!(segments(&options).len() >= 4, "{:?}", segments(&options));
    assert_eq!(spool.peek(lane, Seq(3000), 1, 1).await.unwrap()[0].seq, Seq(3000));
    for push in 0..60 {
        spool.settle(settlement(lane, push * 100 + 1, 100, 1_000_000)).await.unwrap();
    }
    let mut patience = 0;
    while segments(&options).len() > 3 {
        patience += 1;
        assert!(patience < 1000, "still there: {:?}", segments(&options));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(spool.peek(lane, Seq(5951), 1, 1000).await.unwrap()[0].seq, Seq(5951));
    assert!(matches!(spool.peek(lane, Seq(2000), 1, 1000).await, Err(ReadError::Damaged { .. })));
    spool.close().await;
    drop(spool);
    let spool = reopen(&options);
    assert_eq!(spool.peek(idle, Seq(1), 1, 1000).await.unwrap().len(), 1);
    assert_eq!(spool.cursor(lane), Seq(6001));
    spool
        .append(Append { items: vec![record(lane, "t", b"y")], ..Append::default() })
        .await
        .unwrap();
    assert_eq!(spool.peek(lane, Seq(6001), 9, 1000).await.unwrap().len(), 1);
    spool.close().await;
}

/// Goal: what is kept of an integration is shared by its lanes.
/// Method: 24 MB in each of four lanes are settled. Together they keep 1200 records of 10 kB, not 1200 each.
#[tokio::test]
async fn lanes_share_what_is_kept_of_their_integration() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { keep_delivered: 1200, ..options(directory.path()) };
    let spool = reopen(&options);
    let mut lanes = Vec::new();
    for number in 0..4 {
        lanes.push(spool.lane("uk", number).await.unwrap());
    }
    for push in 0..24 {
        for lane in &lanes {
            let items = vec![record(*lane, "t", &[b'x'; 10_000]); 100];
            spool.append(Append { items, ..Append::default() }).await.unwrap();
            spool.settle(settlement(*lane, push * 100 + 1, 100, 1_000_000)).await.unwrap();
        }
    }
    // 1200 records of 10 kB, a segment that is cut in two, and the one under way.
    let mut patience = 0;
    while segments(&options).len() > 3 {
        patience += 1;
        assert!(patience < 1000, "still there: {:?}", segments(&options));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for lane in lanes {
        assert_eq!(spool.peek(lane, Seq(2101), 1, 1000).await.unwrap()[0].seq, Seq(2101));
    }
    spool.close().await;
}

/// Goal: a store that has shrunk gives its space back, and keeps what lives in it.
/// Method: 60 MB of quarantine come and go; after the next open the store is in another generation, with the rest.
#[tokio::test]
async fn a_store_far_larger_than_its_content_moves() {
    let directory = tempfile::tempdir().unwrap();
    let options = options(directory.path());
    let spool = reopen(&options);
    let lane = spool.lane("uk", 0).await.unwrap();
    spool
        .append(Append { items: vec![record(lane, "t", b"x"); 5], ..Append::default() })
        .await
        .unwrap();
    spool.settle(settlement(lane, 1, 2, 2)).await.unwrap();
    for n in 0..60_u8 {
        let content = || Content::Quarantine(Box::new(quarantined(&vec![n; 50_000])));
        let items = (0..20).map(|_| Item { once: None, content: content() }).collect();
        spool.append(Append { items, ..Append::default() }).await.unwrap();
    }
    let releases = (1..1200).map(QuarantineId).collect();
    spool.append(Append { releases, ..Append::default() }).await.unwrap();
    spool.close().await;
    drop(spool);
    let bytes = |generation: &str| {
        std::fs::metadata(options.directory.join(generation).join("db")).map(|file| file.len())
    };
    assert!(bytes("0000000001").unwrap() > 32 << 20);
    let spool = reopen(&options);
    assert!(bytes("0000000001").is_err() && bytes("0000000002").unwrap() < 8 << 20);
    let held = spool.quarantine(QuarantineId(0), 10).await.unwrap();
    assert_eq!(held.len(), 1);
    assert!(held[0].0 == QuarantineId(1200) && held[0].1.body == vec![59; 50_000]);
    assert_eq!(spool.cursor(lane), Seq(3));
    assert_eq!(spool.peek(lane, Seq(3), 10, 100).await.unwrap().len(), 3);
    spool.close().await;
    drop(spool);
    reopen(&options).close().await;
}

/// What is kept beside a record counts as long as it is queued, and not a moment longer.
#[tokio::test]
async fn kept_events_count_among_the_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let limited = Options { bytes_max: 150_000, ..options(directory.path()) };
    let spool = reopen(&limited);
    let lane = spool.lane("uk", 0).await.unwrap();
    let of = |count: usize| {
        let mut item = record(lane, "t", &vec![b'r'; 20_000]);
        let Content::Record { event, .. } = &mut item.content else { unreachable!() };
        *event = Some(Bytes::from(vec![b'E'; 30_000]));
        Append { items: vec![item; count], ..Append::default() }
    };
    spool.append(of(2)).await.unwrap();
    let refused = spool.append(of(2)).await;
    assert_eq!(refused, Err(AppendError::Full { queued: 200_000, limit: 150_000, unit: "bytes" }));
    assert_eq!(spool.counts(lane).queued_bytes, 100_000);
    spool.close().await;
    drop(spool);
    let spool = reopen(&limited);
    let entries = spool.peek(lane, Seq(1), 10, 99_999).await.unwrap();
    assert_eq!((entries.len(), entries[0].bytes()), (1, 50_000), "what is read is bounded as well");
    spool.settle(settlement(lane, 1, 2, 100_000)).await.unwrap();
    assert_eq!(spool.counts(lane).queued_bytes, 0);
    spool.append(of(2)).await.unwrap();
    spool.close().await;
}
