//! Workload: commits of 1, 64, 256 and 1024 records of 400 bytes, one after the other. Limit: the same bytes appended to
//! a plain file on the same file system with one fdatasync each. Durability is that of production.

mod support;

use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pillarbox::spool::{Append, Content, Drive, Item, LaneId, PersonKeys, Spool};
use tokio::time::Instant;

const RECORD_BYTES: usize = 400;

fn main() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let directory = tempfile::tempdir_in(".").expect("a temporary folder on the disk under test");
    let spool = runtime
        .block_on(async { Spool::open(support::options(directory.path()), Drive::Thread) })
        .expect("a spool");
    let lane = runtime.block_on(spool.lane("bench", 0)).expect("a lane");
    let mut file = File::create(directory.path().join("plain")).expect("a plain file");
    for records in [1_u32, 64, 256, 1024] {
        let commits = if support::smoke() { 2 } else { (4096 / records).clamp(16, 128) };
        support::side_by_side(
            &format!("durable append, commits of {records}"),
            "records",
            commits * records,
            || runtime.block_on(append(&spool, lane, commits, records)),
            || plain(&mut file, commits, records),
        );
    }
    runtime.block_on(spool.close());
}

async fn append(spool: &Spool, lane: LaneId, commits: u32, records: u32) -> Duration {
    let record = Bytes::from(vec![b'x'; RECORD_BYTES]);
    let record_type: Arc<str> = Arc::from("custom_event");
    let item = || Item {
        once: None,
        content: Content::Record {
            lane,
            record_type: record_type.clone(),
            record: record.clone(),
            person: PersonKeys::default(),
            first_seen: None,
            event: None,
        },
    };
    let begun = Instant::now();
    for _ in 0..commits {
        let items = (0..records).map(|_| item()).collect();
        spool.append(Append { items, ..Append::default() }).await.expect("an append");
    }
    begun.elapsed()
}

fn plain(file: &mut File, commits: u32, records: u32) -> Duration {
    let bytes = vec![b'x'; RECORD_BYTES * records as usize];
    let begun = Instant::now();
    for _ in 0..commits {
        file.write_all(&bytes).and_then(|()| file.sync_data()).expect("a durable write");
    }
    begun.elapsed()
}
