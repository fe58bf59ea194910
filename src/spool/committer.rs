//! Group commit: the one writer of the store.
//!
//! ```text
//! requests waiting ──▶ plan each, in order ──▶ insert ──▶ flush ──▶ publish, answer them all
//! ```
//! While a flush runs, requests gather; the next group takes them all, so the flush is shared by as many as wait
//! and no timer delays a lone one.
//!
//! The order of the inserts makes every crash point safe: identities, quarantine copies, chunks, dedupe entries,
//! releases, deliveries, cursors, then removals. A copy is thus never later than the cursor that passes its record,
//! and an id is never remembered without its record.
//!
//! A failed write or flush is final (a second fsync after a failed one returns OK with nothing written, seen on
//! ext4): everything waiting is refused, and so is everything later.

use std::collections::{BTreeMap, HashSet};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::chunk::Chunk;
use super::dedupe::{Once, Windows};
use super::entry::{
    Append, Content, Delivery, LaneId, QuarantineId, Quarantined, RECORD_BYTES_MAX, Receipt, Seq,
    Settlement,
};
use super::error::AppendError;
use super::manifest::{Floor, Manifest};
use super::shared::{LaneView, Shared};
use super::store::{LaneOnDisk, StoreError};
use super::work::{Answer, Work, next_group, refuse};
use super::{Drive, SyncMode};
use crate::clock::{self, UnixMillis};
use crate::event::object::merge;

/// Chunks removed with one settlement: spreads the work of a long trim.
const TRIM_CHUNKS_MAX: usize = 64;
/// The manifest is replaced after this many records, or this long after the last time.
const MANIFEST_RECORDS: u64 = 50_000;
const MANIFEST_AFTER: Duration = Duration::from_secs(60);

/// A lane as the committer counts it: includes what the group under way has added.
#[derive(Debug)]
struct Lane {
    disk: LaneOnDisk,
    /// Records of the group under way.
    added: Vec<(Arc<str>, Bytes)>,
    added_bytes: u64,
    settled: bool,
    deliveries: Vec<Delivery>,
}

/// The committer's state; owned by whoever drives it.
#[derive(Debug)]
pub(super) struct Committer {
    shared: Arc<Shared>,
    lanes: BTreeMap<LaneId, Lane>,
    windows: Windows,
    quarantine_newest: u64,
    group: Group,
    records_since_manifest: u64,
    manifest_at: UnixMillis,
    /// Appends were answered that no flush has covered yet (`SyncMode::Every`).
    unflushed: bool,
}

/// What the group under way will insert, beside the records in its lanes.
#[derive(Debug, Default)]
struct Group {
    answers: Vec<Answer>,
    identities: BTreeMap<String, Bytes>,
    quarantined: Vec<Quarantined>,
    ids: Vec<Once>,
    ids_known: HashSet<Once>,
    releases: Vec<QuarantineId>,
    new_lanes: Vec<LaneId>,
    /// Whether an answer waits for the flush itself, whatever the sync mode: settlements and lanes do.
    must_flush: bool,
}

impl Committer {
    /// A committer over what is on disk.
    pub(super) fn new(
        shared: Arc<Shared>,
        lanes: Vec<LaneOnDisk>,
        windows: Windows,
        quarantine_newest: u64,
    ) -> Committer {
        let lanes = lanes.into_iter().map(|disk| (disk.lane, Lane::new(disk))).collect();
        let manifest_at = clock::now();
        Committer {
            shared,
            lanes,
            windows,
            quarantine_newest,
            group: Group::default(),
            records_since_manifest: 0,
            manifest_at,
            unflushed: false,
        }
    }

    /// Commits group after group until `Close`, the end of the channel, or a failure.
    pub(super) async fn run(mut self, mut waiting: mpsc::Receiver<Work>, drive: Drive) {
        let mut flush_due: Option<Instant> = None;
        loop {
            let (group, last) = next_group(&mut waiting, flush_due).await;
            self = match drive {
                Drive::Thread => self.commit(group, last, flush_due),
                Drive::Task => {
                    let commit =
                        tokio::task::spawn_blocking(move || self.commit(group, last, flush_due));
                    commit.await.expect("commit catches its own panics")
                }
            };
            flush_due = match self.shared.options.sync {
                SyncMode::Every(interval) if self.unflushed => {
                    flush_due.or(Some(Instant::now() + interval))
                }
                _ => None,
            };
            if last || self.shared.failure().is_some() {
                break;
            }
        }
        if self.shared.failure().is_none() {
            self.write_manifest();
        }
        waiting.close();
        while let Some(work) = waiting.recv().await {
            let error = self.shared.failure().map_or(AppendError::Closed, AppendError::Failed);
            refuse(work, &error);
        }
    }

    /// One group, from requests to answers.
    fn commit(mut self, works: Vec<Work>, last: bool, flush_due: Option<Instant>) -> Committer {
        let flush_now = last || flush_due.is_some_and(|due| due <= Instant::now());
        let done = catch_unwind(AssertUnwindSafe(|| {
            for work in works {
                self.plan(work);
            }
            self.write(flush_now)
        }));
        let failure = match done {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.0),
            Err(panic) => Some(format!("the committer panicked: {}", panic_text(panic.as_ref()))),
        };
        let mut group = mem::take(&mut self.group);
        if let Some(reason) = failure {
            tracing::error!(%reason, "the spool failed: nothing is accepted until a restart");
            self.shared.fail(&reason);
            let error = AppendError::Failed(reason);
            group.answers.iter_mut().for_each(|answer| answer.fail(&error));
        } else {
            self.publish(&mut group);
        }
        group.answers.into_iter().for_each(Answer::send);
        self
    }

    // ── planning: in memory, no writes ──

    fn plan(&mut self, work: Work) {
        match work {
            Work::Append(append, to) => {
                let planned = self.plan_append(append);
                self.group.answers.push(Answer::Append(to, planned));
            }
            Work::Settle(settlement, to) => {
                self.plan_settlement(settlement);
                self.group.must_flush = true;
                self.group.answers.push(Answer::Settle(to, Ok(())));
            }
            Work::Lane(integration, number, to) => {
                let lane = self.plan_lane(integration, number);
                self.group.must_flush = true;
                self.group.answers.push(Answer::Lane(to, Ok(lane)));
            }
            Work::Close => {}
        }
    }

    /// Takes the append whole, or leaves no trace of it (Promise 2).
    fn plan_append(&mut self, append: Append) -> Result<Receipt, AppendError> {
        let mut receipt = Receipt::default();
        let mut seen = HashSet::new();
        let (mut records, mut bytes) = (0, 0);
        for (index, item) in append.items.iter().enumerate() {
            let known = item.once.is_some_and(|once| {
                self.windows.contains(&once)
                    || self.group.ids_known.contains(&once)
                    || !seen.insert(once)
            });
            if known {
                receipt.duplicates.push(index);
                continue;
            }
            records += 1;
            bytes += match &item.content {
                Content::Record { record, .. } => {
                    assert!(
                        record.len() <= RECORD_BYTES_MAX,
                        "a record above the limit reached the spool"
                    );
                    record.len()
                }
                Content::Quarantine(entry) => entry.body.len(),
            } as u64;
        }
        if records > 0 && append.releases.is_empty() {
            let (queued_records, queued_bytes) = self.queued();
            self.shared.refusal(queued_records + records, queued_bytes + bytes)?;
        }
        for id in &append.releases {
            let exists = self
                .shared
                .store
                .has_quarantined(*id)
                .map_err(|error| AppendError::Failed(error.0))?;
            if !exists || self.group.releases.contains(id) {
                return Err(AppendError::Gone(*id));
            }
        }
        // What can fail comes first: a refused append leaves nothing in the group.
        let merged = self.merged(&append.identities);
        self.group.identities.extend(merged.map_err(|error| AppendError::Failed(error.0))?);
        self.take(append, &receipt);
        Ok(receipt)
    }

    /// The identities as they are with `changes`, later ones over earlier ones.
    fn merged(&self, changes: &[(String, Bytes)]) -> Result<BTreeMap<String, Bytes>, StoreError> {
        let mut identities: BTreeMap<String, Bytes> = BTreeMap::new();
        for (key, traits) in changes {
            let old = match identities.get(key).or_else(|| self.group.identities.get(key)) {
                Some(old) => Some(old.clone()),
                None => self.shared.identity(key)?,
            };
            let merged = merge(old.as_deref(), traits);
            let fits = merged.len() <= RECORD_BYTES_MAX;
            if !fits {
                // Ingest refuses traits that do not fit; two requests at once may each fit, and not together.
                tracing::warn!(
                    "two identifies of one person do not fit together: the newer one replaces the older"
                );
            }
            identities.insert(key.clone(), if fits { Bytes::from(merged) } else { traits.clone() });
        }
        Ok(identities)
    }

    fn take(&mut self, append: Append, receipt: &Receipt) {
        self.group.releases.extend(append.releases);
        let mut duplicates = receipt.duplicates.iter().peekable();
        for (index, item) in append.items.into_iter().enumerate() {
            if duplicates.next_if_eq(&&index).is_some() {
                continue;
            }
            if let Some(once) = item.once {
                self.group.ids.push(once);
                self.group.ids_known.insert(once);
            }
            match item.content {
                Content::Record { lane, record_type, record } => {
                    let lane = self
                        .lanes
                        .get_mut(&lane)
                        .expect("records go to lanes that `Spool::lane` gave");
                    lane.added_bytes += record.len() as u64;
                    lane.added.push((record_type, record));
                }
                Content::Quarantine(entry) => self.group.quarantined.push(entry),
            }
        }
    }

    fn plan_settlement(&mut self, settlement: Settlement) {
        let lane = self
            .lanes
            .get_mut(&settlement.lane)
            .expect("settlements name lanes that `Spool::lane` gave");
        assert_eq!(
            settlement.first,
            lane.disk.tallies.cursor(),
            "a settlement begins at the cursor"
        );
        lane.disk.tallies.add(settlement.end, settlement.records, settlement.bytes);
        assert!(
            lane.disk.tallies.settled() <= lane.disk.newest,
            "a settlement ends at the newest record"
        );
        lane.settled = true;
        lane.deliveries.extend(settlement.delivery);
        self.group.quarantined.extend(settlement.copies);
    }

    fn plan_lane(&mut self, integration: String, number: u32) -> LaneId {
        let known = self
            .lanes
            .values()
            .find(|lane| lane.disk.integration == integration && lane.disk.number == number);
        if let Some(lane) = known {
            return lane.disk.lane;
        }
        let lane = LaneId(self.lanes.keys().next_back().map_or(1, |last| last.0 + 1));
        let (tallies, oldest_kept) = (super::store::Tallies::default(), 1);
        let disk =
            LaneOnDisk { lane, integration, number, newest: 0, bytes: 0, tallies, oldest_kept };
        self.lanes.insert(lane, Lane::new(disk));
        self.group.new_lanes.push(lane);
        lane
    }

    /// Records and bytes in the spool that wait for something: queued, quarantined, or in the group under way.
    fn queued(&self) -> (u64, u64) {
        let (records, bytes) = self.shared.quarantine_size();
        self.lanes.values().fold((records, bytes), |(records, bytes), lane| {
            let disk = &lane.disk;
            let queued = disk.newest - disk.tallies.settled() + lane.added.len() as u64;
            (
                records + queued,
                bytes + disk.bytes.saturating_sub(disk.tallies.bytes) + lane.added_bytes,
            )
        })
    }

    // ── writing ──

    fn write(&mut self, flush_now: bool) -> Result<(), StoreError> {
        let store = &self.shared.store;
        let group = &self.group;
        for lane in group.new_lanes.iter().filter_map(|lane| self.lanes.get(lane)) {
            store.put_lane(lane.disk.lane, &lane.disk.integration, lane.disk.number)?;
        }
        for (key, traits) in &group.identities {
            store.put_identity(key, traits)?;
        }
        for entry in &group.quarantined {
            self.quarantine_newest += 1;
            let bytes = store.put_quarantined(QuarantineId(self.quarantine_newest), entry)?;
            self.shared.quarantine_grew(bytes);
        }
        if !group.quarantined.is_empty() {
            store.put_quarantine_newest(QuarantineId(self.quarantine_newest))?;
        }
        let committed_at = clock::now();
        for lane in self.lanes.values_mut().filter(|lane| !lane.added.is_empty()) {
            self.records_since_manifest += lane.added.len() as u64;
            lane.write_chunks(&self.shared, committed_at)?;
        }
        if !group.ids.is_empty() {
            store.put_dedupe(&self.windows.remember(&group.ids))?;
        }
        for id in &group.releases {
            if let Some(bytes) = store.remove_quarantined(*id)? {
                self.shared.quarantine_shrank(bytes);
            }
        }
        for lane in self.lanes.values_mut().filter(|lane| lane.settled) {
            lane.write_settlements(&self.shared)?;
        }
        let wrote = !group.answers.is_empty();
        let flush = match self.shared.options.sync {
            SyncMode::Always => wrote,
            SyncMode::Every(_) => group.must_flush || flush_now,
        };
        self.unflushed |= wrote;
        if flush {
            self.shared.flush()?;
            self.unflushed = false;
        }
        Ok(())
    }

    /// Makes what was committed visible: after the flush, before the answers.
    fn publish(&mut self, group: &mut Group) {
        for (key, traits) in mem::take(&mut group.identities) {
            self.shared.identities.changed(key, traits);
        }
        for id in mem::take(&mut group.new_lanes) {
            if let Some(lane) = self.lanes.get(&id) {
                self.shared.add_lane(id, LaneView::new(&lane.disk));
            }
        }
        for lane in self.lanes.values() {
            self.shared.publish_lane(&lane.disk);
        }
        let due = clock::now() >= self.manifest_at.after(MANIFEST_AFTER);
        if self.records_since_manifest >= MANIFEST_RECORDS || (due && !group.answers.is_empty()) {
            self.write_manifest();
        }
    }

    /// Replaces the manifest; a failure leaves the old floor, which is as legal as before.
    fn write_manifest(&mut self) {
        self.records_since_manifest = 0;
        self.manifest_at = clock::now();
        if self.unflushed {
            return; // a floor may only rise to what is durable
        }
        let floors = self.lanes.values().map(|lane| Floor {
            lane: lane.disk.lane.0,
            newest: lane.disk.newest,
            cursor: lane.disk.tallies.cursor().0,
        });
        let manifest =
            Manifest::new(&self.shared.generation, self.shared.store.bytes_min(), floors.collect());
        if let Err(error) = manifest.write(&self.shared.options.directory) {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the spool's manifest was not replaced"
            );
        }
    }
}

impl Lane {
    fn new(disk: LaneOnDisk) -> Lane {
        Lane { disk, added: Vec::new(), added_bytes: 0, settled: false, deliveries: Vec::new() }
    }

    /// Packs the added records into chunks and inserts them.
    fn write_chunks(
        &mut self,
        shared: &Shared,
        committed_at: UnixMillis,
    ) -> Result<(), StoreError> {
        let added = mem::take(&mut self.added);
        let mut rest = added.iter().peekable();
        while rest.peek().is_some() {
            let mut chunk = Chunk::new(committed_at, self.disk.bytes);
            while rest.next_if(|(record_type, record)| chunk.push(record_type, record)).is_some() {}
            shared.store.put_chunk(self.disk.lane, Seq(self.disk.newest + 1), &chunk)?;
            self.disk.newest += chunk.len() as u64;
            self.disk.bytes += chunk.bytes() as u64;
        }
        self.added_bytes = 0;
        Ok(())
    }

    /// Inserts deliveries, then the cursor, then removes what lies too far behind it.
    fn write_settlements(&mut self, shared: &Shared) -> Result<(), StoreError> {
        for delivery in self.deliveries.drain(..) {
            shared.store.put_delivery(self.disk.lane, &delivery)?;
        }
        shared.store.put_tallies(self.disk.lane, &self.disk.tallies)?;
        self.settled = false;
        let keep_from = self.disk.tallies.cursor().0.saturating_sub(shared.options.keep_delivered);
        if keep_from > self.disk.oldest_kept {
            let oldest = Seq(self.disk.oldest_kept);
            let kept =
                shared.store.trim(self.disk.lane, oldest, Seq(keep_from), TRIM_CHUNKS_MAX)?;
            self.disk.oldest_kept = kept.0;
        }
        Ok(())
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
