//! Group commit: the one writer of the log and the store.
//!
//! ```text
//! requests waiting ──▶ plan each, in order ──▶ one frame ──▶ fdatasync ──▶ apply to the store ──▶ publish, answer all
//! ```
//! While a frame is written, requests gather; the next group takes them all, so the flush is shared by as many as wait
//! and no timer delays a lone one. A frame is valid whole or not at all: a crash leaves all of a group or nothing.
//!
//! Settlements without copies for the quarantine are answered once they are written, and flushed beside the next push: a
//! kill repeats the push in flight alone, a power cut at most the last few, which upstream merges.
//!
//! A failed write or flush is final (a second fsync after a failed one returns OK with nothing written, seen on
//! ext4): everything waiting is refused, and so is everything later. A full disk is found before anything is planned, and
//! only refuses.

use std::collections::{BTreeMap, HashSet};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::chunk::{Chunk, key};
use super::checkpoint::{Checkpoint, Keeper};
use super::dedupe::{Once, Windows};
use super::entry::{
    Append, Content, Delivery, LaneId, QuarantineId, Quarantined, RECORD_BYTES_MAX, Receipt, Seq,
    Settlement,
};
use super::error::AppendError;
use super::log::Writer;
use super::log::frame::{FrameBuilder, Tree};
use super::log::table::Placed;
use super::manifest::{Floor, Manifest};
use super::quarantine;
use super::sealed::seal;
use super::shared::{LaneView, Shared};
use super::store::{LaneOnDisk, StoreError, Tallies};
use super::work::{Answer, Work, next_group, refuse};
use super::{Drive, SyncMode};
use crate::clock::{self, UnixMillis};
use crate::event::object::merge;

/// A checkpoint follows after so many bytes of the log, or this long after the last one.
const CHECKPOINT_BYTES: u64 = 8 << 20;
const CHECKPOINT_AFTER: Duration = Duration::from_secs(60);
/// A checkpoint that is due while another is under way is tried again after this.
const CHECKPOINT_RETRY: Duration = Duration::from_millis(50);
/// So many groups of settlements may be answered before they are durable; a flush is asked for at half of that, or once
/// nothing has come for a moment.
const BEHIND_MAX: u64 = 8;
const BEHIND_FOR: Duration = Duration::from_millis(5);
/// A frame's buffer is kept for the next one up to this size.
const FRAME_BYTES_KEPT: usize = 4 << 20;

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
    writer: Writer,
    keeper: Keeper,
    lanes: BTreeMap<LaneId, Lane>,
    windows: Windows,
    quarantine_newest: u64,
    group: Group,
    frame: FrameBuilder,
    /// Bytes written to the log since the last checkpoint, and when that was.
    since_checkpoint: u64,
    checkpoint_at: UnixMillis,
    /// A checkpoint is due, and another under way.
    checkpoint_waits: bool,
}

/// What the group under way will insert, beside the records in its lanes.
#[derive(Debug, Default)]
struct Group {
    answers: Vec<Answer>,
    identities: BTreeMap<String, Bytes>,
    quarantined: Vec<Quarantined>,
    ids: Vec<Once>,
    ids_known: HashSet<Once>,
    /// (id, stored bytes)
    releases: Vec<(QuarantineId, u64)>,
    new_lanes: Vec<LaneId>,
    /// Whether the disk is low, once somebody has asked.
    disk: Option<Result<(), AppendError>>,
    /// Whether it moves a cursor.
    settled: bool,
    /// What the answers wait for.
    flush: Flush,
}

/// When a group must be durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Flush {
    /// Soon after the answers.
    #[default]
    After,
    /// Before the answers, unless the sync mode is the weaker one.
    AsConfigured,
    /// Before the answers, whatever the sync mode.
    Before,
}

impl Committer {
    /// A committer over what is on disk.
    pub(super) fn new(
        shared: Arc<Shared>,
        writer: Writer,
        keeper: Keeper,
        lanes: Vec<LaneOnDisk>,
        windows: Windows,
        quarantine_newest: u64,
    ) -> Committer {
        let lanes = lanes.into_iter().map(|disk| (disk.lane, Lane::new(disk))).collect();
        Committer {
            shared,
            writer,
            keeper,
            lanes,
            windows,
            quarantine_newest,
            group: Group::default(),
            frame: FrameBuilder::default(),
            since_checkpoint: 0,
            checkpoint_at: clock::now(),
            checkpoint_waits: false,
        }
    }

    /// Commits group after group until `Close`, the end of the channel, or a failure.
    pub(super) async fn run(mut self, mut waiting: mpsc::Receiver<Work>, drive: Drive) {
        let mut flush_due: Option<Instant> = None;
        loop {
            let retry = self.checkpoint_waits.then(|| Instant::now() + CHECKPOINT_RETRY);
            let wake = flush_due.into_iter().chain(retry).min();
            let (group, last) = next_group(&mut waiting, wake).await;
            let flush_now = last || flush_due.is_some_and(|due| due <= Instant::now());
            self = self.driven(drive, move |committer| committer.commit(group, flush_now)).await;
            flush_due = match self.shared.options.sync {
                _ if self.writer.behind() == 0 => None,
                SyncMode::Every(interval) => flush_due.or(Some(Instant::now() + interval)),
                SyncMode::Always => Some(Instant::now() + BEHIND_FOR),
            };
            if last || self.shared.failure().is_some() {
                break;
            }
        }
        self = self.driven(drive, Committer::end).await;
        waiting.close();
        while let Some(work) = waiting.recv().await {
            let error = self.shared.failure().map_or(AppendError::Closed, AppendError::Failed);
            refuse(work, &error);
        }
    }

    /// Runs what may block where `drive` says.
    async fn driven(
        mut self,
        drive: Drive,
        step: impl FnOnce(&mut Committer) + Send + 'static,
    ) -> Committer {
        match drive {
            Drive::Thread => {
                step(&mut self);
                self
            }
            Drive::Task => {
                let done = tokio::task::spawn_blocking(move || {
                    step(&mut self);
                    self
                });
                done.await.expect("a step catches its own panics")
            }
        }
    }

    /// One group, from requests to answers.
    fn commit(&mut self, mut works: Vec<Work>, flush_now: bool) {
        self.refuse_without_room(&mut works);
        let written = self.guarded(|committer| {
            for work in works {
                committer.plan(work);
            }
            committer.write(flush_now)?;
            // Nobody looks a settlement up: its answer need not wait for the store.
            if committer.group.flush == Flush::After { Ok(()) } else { committer.apply() }
        });
        let mut group = mem::take(&mut self.group);
        let moved = group.settled || self.checkpoint_waits;
        match written {
            Ok(()) => self.publish(&mut group),
            Err(error) => group.answers.iter_mut().for_each(|answer| answer.fail(&error)),
        }
        group.answers.into_iter().for_each(Answer::send);
        if self.shared.failure().is_none() {
            // A failure is told to everyone by itself.
            drop(self.guarded(|committer| {
                committer.apply()?;
                committer.keep_up(moved)
            }));
        }
    }

    /// Takes a step; its failure or panic is the spool's.
    fn guarded(
        &mut self,
        step: impl FnOnce(&mut Committer) -> Result<(), StoreError>,
    ) -> Result<(), AppendError> {
        let reason = match catch_unwind(AssertUnwindSafe(|| step(self))) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.0,
            Err(panic) => format!("the committer panicked: {}", panic_text(panic.as_ref())),
        };
        tracing::error!(%reason, "the spool failed: nothing is accepted until a restart");
        self.shared.fail(&reason);
        Err(AppendError::Failed(reason))
    }

    /// The last checkpoint: the next open has nothing to apply.
    fn end(&mut self) {
        if self.shared.failure().is_none() {
            drop(self.guarded(|committer| committer.checkpoint(Vec::new())));
        }
        self.keeper.stop();
    }

    /// Makes room in the log for the group; where there is none, appends are refused before they leave a trace.
    fn refuse_without_room(&mut self, works: &mut Vec<Work>) {
        let bytes = works.iter().map(Work::bytes).sum::<usize>() as u64;
        let Err(error) = self.writer.reserve(bytes, true) else { return };
        let full = AppendError::DiskFull(error.to_string());
        let (appends, others): (Vec<Work>, Vec<Work>) =
            mem::take(works).into_iter().partition(|work| matches!(work, Work::Append(..)));
        for work in appends {
            refuse(work, &full);
        }
        *works = others;
    }

    // ── planning: in memory, no writes ──

    fn plan(&mut self, work: Work) {
        match work {
            Work::Append(append, to) => {
                let planned = self.plan_append(append);
                if planned.is_ok() {
                    self.group.need(Flush::AsConfigured);
                }
                self.group.answers.push(Answer::Append(to, planned));
            }
            Work::Settle(settlement, to) => {
                if !settlement.copies.is_empty() {
                    self.group.need(Flush::Before);
                }
                self.plan_settlement(settlement);
                self.group.answers.push(Answer::Settle(to, Ok(())));
            }
            Work::Lane(integration, number, to) => {
                let lane = self.plan_lane(integration, number);
                self.group.need(Flush::Before);
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
            self.shared.full(queued_records + records, queued_bytes + bytes)?;
            self.group.disk_low(&self.shared)?;
        }
        let mut releases = Vec::new();
        for id in &append.releases {
            let held = self.shared.store.quarantined_bytes(*id);
            let held = held.map_err(|error| AppendError::Failed(error.0))?;
            let taken = self.group.releases.iter().chain(&releases).any(|(taken, _)| taken == id);
            match held {
                Some(bytes) if !taken => releases.push((*id, bytes)),
                _ => return Err(AppendError::Gone(*id)),
            }
        }
        // What can fail comes first: a refused append leaves nothing in the group.
        let merged = self.merged(&append.identities);
        self.group.identities.extend(merged.map_err(|error| AppendError::Failed(error.0))?);
        if !releases.is_empty() {
            // The store may keep a removal that the log loses: the entry must not be gone with its record.
            self.group.need(Flush::Before);
        }
        self.group.releases.extend(releases);
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
        self.group.settled = true;
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
        let tallies = Tallies::default();
        let disk = LaneOnDisk { lane, integration, number, newest: 0, bytes: 0, tallies };
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
        let chunks = self.build();
        if !self.frame.is_empty() {
            self.since_checkpoint += self.frame.len() as u64;
            let mut flush = self.group.flush;
            if self.writer.behind() >= BEHIND_MAX {
                flush = flush.max(Flush::AsConfigured);
            }
            self.writer.append(&mut self.frame, &chunks).map_err(|error| failed("write", &error))?;
            let before = match self.shared.options.sync {
                SyncMode::Always => flush >= Flush::AsConfigured,
                SyncMode::Every(_) => flush == Flush::Before,
            };
            if before {
                self.writer.sync().map_err(|error| failed("flush", &error))?;
            } else if self.shared.options.sync == SyncMode::Always
                && self.writer.behind() >= BEHIND_MAX / 2
            {
                self.writer.sync_soon();
            }
        }
        if flush_now {
            self.writer.sync().map_err(|error| failed("flush", &error))?;
        }
        Ok(())
    }

    /// Brings the store up to the frame that was written.
    fn apply(&mut self) -> Result<(), StoreError> {
        for part in self.frame.changes() {
            self.shared.store.apply(&part)?;
        }
        self.frame.clear();
        self.frame.shrink(FRAME_BYTES_KEPT);
        Ok(())
    }

    /// The group as a frame; returns where its chunks lie in it.
    fn build(&mut self) -> Vec<Placed> {
        let (frame, group) = (&mut self.frame, &self.group);
        frame.clear();
        for lane in group.new_lanes.iter().filter_map(|lane| self.lanes.get(lane)) {
            let key = lane.disk.lane.0.to_be_bytes();
            frame.put(Tree::Lanes, &key, &seal(&key, &(&lane.disk.integration, lane.disk.number)));
        }
        for (key, traits) in &group.identities {
            frame.put(Tree::Identities, key.as_bytes(), traits);
        }
        for entry in &group.quarantined {
            self.quarantine_newest += 1;
            let bytes = quarantine::put(frame, QuarantineId(self.quarantine_newest), entry);
            self.shared.quarantine_grew(bytes);
        }
        if !group.quarantined.is_empty() {
            quarantine::put_newest(frame, QuarantineId(self.quarantine_newest));
        }
        let mut chunks = Vec::new();
        let committed_at = clock::now();
        for lane in self.lanes.values_mut().filter(|lane| !lane.added.is_empty()) {
            lane.pack(committed_at, frame, &mut chunks);
        }
        if !group.ids.is_empty() {
            for entry in self.windows.remember(&group.ids, self.writer.written() + 1) {
                if entry.value.is_empty() {
                    frame.remove(Tree::Dedupe, &entry.key);
                } else {
                    frame.put(Tree::Dedupe, &entry.key, &entry.value);
                }
            }
        }
        for (id, bytes) in &group.releases {
            quarantine::remove(frame, *id);
            self.shared.quarantine_shrank(*bytes);
        }
        for lane in self.lanes.values_mut().filter(|lane| lane.settled) {
            lane.settle(frame);
        }
        chunks
    }

    /// Makes what was committed visible: before the answers.
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
    }

    // ── checkpoints ──

    /// Has the next segment prepared and a checkpoint made when it is time, and waits for neither. `settled` says that
    /// cursors have moved.
    fn keep_up(&mut self, settled: bool) -> Result<(), StoreError> {
        let active = self.writer.active();
        if let Some(zeros) = self.writer.prepare() {
            self.keeper.prepare(active + 1, zeros);
        }
        let due = self.since_checkpoint >= CHECKPOINT_BYTES
            || (self.since_checkpoint > 0
                && clock::now() >= self.checkpoint_at.after(CHECKPOINT_AFTER));
        let mut remove = Vec::new();
        if settled || due {
            let keep = self.shared.options.keep_delivered;
            remove = self.shared.log.settled(active, |lane| {
                let lane = self.lanes.get(&lane);
                Seq(lane.map_or(0, |lane| lane.disk.tallies.cursor().0.saturating_sub(keep)))
            });
        }
        let due = due || !remove.is_empty();
        self.checkpoint_waits = due && self.keeper.is_busy();
        if due && !self.checkpoint_waits { self.checkpoint(remove) } else { Ok(()) }
    }

    /// Tells the store how far it is, and has it flushed; then `remove` goes.
    fn checkpoint(&mut self, remove: Vec<u64>) -> Result<(), StoreError> {
        let (log, active) = (&self.shared.log, self.writer.active());
        self.writer.sync().map_err(|error| failed("flush", &error))?;
        let store = &self.shared.store;
        for number in log.numbers().into_iter().filter(|number| *number < active) {
            if remove.contains(&number) {
                store.remove_segment(number)?;
                log.forget(number);
            } else if self.keeper.note(number)
                && let Some(meta) = log.meta(number)
            {
                store.put_segment(number, &meta)?;
            }
        }
        if !remove.is_empty() {
            for lane in self.lanes.values() {
                let oldest = log.oldest(lane.disk.lane).unwrap_or(Seq(lane.disk.newest + 1));
                store.trim_deliveries(lane.disk.lane, oldest)?;
            }
        }
        store.put_applied(self.writer.applied())?;
        let floors = self.lanes.values().map(|lane| Floor {
            lane: lane.disk.lane.0,
            newest: lane.disk.newest,
            cursor: lane.disk.tallies.cursor().0,
        });
        let manifest =
            Manifest::new(&self.shared.generation, store.bytes_min(), self.writer.written(), floors.collect());
        self.since_checkpoint = 0;
        self.checkpoint_at = clock::now();
        self.keeper.checkpoint(Checkpoint { manifest, remove });
        Ok(())
    }
}

impl Group {
    /// Looks at the disk once for all of the group.
    fn disk_low(&mut self, shared: &Shared) -> Result<(), AppendError> {
        self.disk.get_or_insert_with(|| shared.disk_low()).clone()
    }

    fn need(&mut self, flush: Flush) {
        self.flush = self.flush.max(flush);
    }
}

impl Lane {
    fn new(disk: LaneOnDisk) -> Lane {
        Lane { disk, added: Vec::new(), added_bytes: 0, settled: false, deliveries: Vec::new() }
    }

    /// Packs the added records into chunks.
    fn pack(&mut self, committed_at: UnixMillis, frame: &mut FrameBuilder, chunks: &mut Vec<Placed>) {
        let added = mem::take(&mut self.added);
        let mut rest = added.iter().peekable();
        while rest.peek().is_some() {
            let mut chunk = Chunk::new(committed_at, self.disk.bytes);
            while rest.next_if(|(record_type, record)| chunk.push(record_type, record)).is_some() {}
            let (lane, first, at) = (self.disk.lane, Seq(self.disk.newest + 1), frame.len() as u64);
            frame.chunk(lane, first, |value| chunk.encode(value));
            self.disk.newest += chunk.len() as u64;
            self.disk.bytes += chunk.bytes() as u64;
            chunks.push(Placed { lane, first, last: Seq(self.disk.newest), bytes: self.disk.bytes, at });
        }
        self.added_bytes = 0;
    }

    /// Adds what pushes came to, and the tallies with the cursor.
    fn settle(&mut self, frame: &mut FrameBuilder) {
        for delivery in self.deliveries.drain(..) {
            let key = key(self.disk.lane, delivery.first);
            frame.put(Tree::Deliveries, &key, &seal(&key, &delivery));
        }
        let key = self.disk.lane.0.to_be_bytes();
        frame.put(Tree::Cursors, &key, &seal(&key, &self.disk.tallies));
        self.settled = false;
    }
}

fn failed(doing: &str, error: &std::io::Error) -> StoreError {
    StoreError(format!("{doing} the log: {error}"))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
