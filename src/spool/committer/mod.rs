//! Group commit: the one writer of the log and the store.
//!
//! ```text
//! requests waiting ──▶ plan each, in order ──▶ one frame ──▶ fdatasync ──▶ apply to the store ──▶ publish, answer all
//! ```
//! While a frame is written, and until those whom it answers know (`unread`), requests gather; the next group takes them all,
//! so the flush is shared by as many as wait, and nothing delays a lone one. A frame is valid whole or not at all: a crash leaves all of a group or nothing.
//!
//! Settlements without copies for the quarantine are answered once they are written, and flushed beside the next push: a
//! kill repeats the push in flight alone, a power cut at most the last few, which upstream merges. While the committer is idle
//! they are written by who asks (`drive`).
//!
//! A failed write or flush is final (a second fsync after a failed one returns OK with nothing written, seen on
//! ext4): everything waiting is refused, and so is everything later. A full disk is found before anything is planned, and
//! only refuses.

mod drive;
mod identities;
mod keeper;
mod lane;
mod plan;
mod upkeep;

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

pub(super) use self::drive::Driver;
pub(super) use self::keeper::Keeper;

use self::lane::Lane;
use self::plan::{Flush, Group};
use super::SyncMode;
use super::dedupe::Windows;
use super::entry::{LaneId, QuarantineId};
use super::error::AppendError;
use super::log::Writer;
use super::log::frame::{FrameBuilder, Tree};
use super::log::table::Placed;
use super::people::Remembered;
use super::quarantine;
use super::sealed::seal;
use super::shared::{LaneView, Shared};
use super::store::{self, LaneOnDisk, StoreError};
use super::work::{Answer, Work, refuse};
use crate::clock::{self, UnixMillis};
use crate::kill_point;

/// A checkpoint that is due while another is under way is tried again after this.
const CHECKPOINT_RETRY: Duration = Duration::from_millis(50);
/// The same of a segment that must end, and cannot because the next has no room.
const ROLL_RETRY: Duration = Duration::from_secs(1);
/// So many groups of settlements may be answered before they are durable; a flush is asked for at half of that, or once
/// nothing has come for a moment.
const BEHIND_MAX: u64 = 8;
const BEHIND_FOR: Duration = Duration::from_millis(5);
/// A frame's buffer is kept for the next one up to this size.
const FRAME_BYTES_KEPT: usize = 4 << 20;

/// The committer's state; owned by whoever drives it.
#[derive(Debug)]
pub(super) struct Committer {
    shared: Arc<Shared>,
    writer: Writer,
    keeper: Keeper,
    lanes: BTreeMap<LaneId, Lane>,
    windows: Windows,
    quarantine_newest: u64,
    remembered: Remembered,
    group: Group,
    frame: FrameBuilder,
    /// Bytes written to the log since the last checkpoint, and when that was.
    since_checkpoint: u64,
    checkpoint_at: UnixMillis,
    /// A checkpoint is due, and another under way.
    checkpoint_waits: bool,
    /// Cursors have moved since it was last looked what can go.
    moved: bool,
    erased: Erased,
    /// When what is behind is flushed.
    flush_due: Option<Instant>,
    ended: bool,
}

/// What must go from the log because people were erased.
#[derive(Debug)]
struct Erased {
    /// The newest seqs at the last erasure: what was there is not kept once it is settled.
    newest: BTreeMap<LaneId, u64>,
    /// The segment under way must be able to go as well.
    roll_due: bool,
}

impl Committer {
    /// A committer over what is on disk.
    pub(super) fn new(
        shared: Arc<Shared>,
        writer: Writer,
        keeper: Keeper,
        (lanes, windows, quarantine_newest, remembered, erased): (
            Vec<LaneOnDisk>,
            Windows,
            u64,
            Remembered,
            BTreeMap<LaneId, u64>,
        ),
    ) -> Committer {
        let lanes = lanes.into_iter().map(|disk| (disk.lane, Lane::new(disk))).collect();
        Committer {
            shared,
            writer,
            keeper,
            lanes,
            windows,
            quarantine_newest,
            remembered,
            group: Group::default(),
            frame: FrameBuilder::default(),
            since_checkpoint: 0,
            checkpoint_at: clock::now(),
            checkpoint_waits: false,
            moved: !erased.is_empty(),
            erased: Erased { newest: erased, roll_due: false },
            flush_due: None,
            ended: false,
        }
    }

    /// Whether `work` is a settlement that can be committed without a flush, a new segment or an allocation.
    fn settles_without_waiting(&self, work: &Work) -> bool {
        let plain = matches!(work, Work::Settle(settlement, _) if settlement.copies.is_empty());
        let behind_too_far =
            self.shared.options.sync == SyncMode::Always && self.writer.behind() + 1 >= BEHIND_MAX;
        let flush_is_due = self.flush_due.is_some_and(|due| due <= Instant::now());
        let open = !self.ended && self.shared.health.failure().is_none();
        let waits = behind_too_far || flush_is_due;
        plain && open && !waits && self.writer.fits(work.bytes() as u64)
    }

    /// What has waited, and what must be kept in step with it.
    fn commit_waiting(&mut self, works: Vec<Work>, last: bool) {
        let works = self.with_room(works);
        self.commit(works, last);
        // A failure is told to everyone by itself.
        drop(self.guarded(Committer::keep_up));
    }

    /// One group, from requests to answers.
    fn commit(&mut self, works: Vec<Work>, last: bool) {
        let begun = Instant::now();
        let flush_now = last || self.flush_due.is_some_and(|due| due <= Instant::now());
        let written = self.guarded(|committer| {
            for work in works {
                committer.plan(work);
            }
            committer.write(flush_now)
        });
        kill_point::pass("flushed");
        // A store that fails here changes no answer: what is in the log is stored, and applied at the next open.
        if written.is_ok() {
            drop(self.guarded(Committer::apply));
        }
        let mut group = mem::take(&mut self.group);
        self.moved |= group.settled;
        if written.is_ok() && group.erases {
            let lanes = self.lanes.iter();
            let newest = lanes.map(|(id, lane)| (*id, lane.disk.newest)).collect();
            (self.erased, self.moved) = (Erased { newest, roll_due: true }, true);
        }
        match written {
            Ok(()) => {
                self.publish(&mut group);
                if group.flush != Flush::After {
                    self.shared.commits.record(begun.elapsed());
                }
            }
            Err(error) => group.answers.iter_mut().for_each(|answer| answer.fail(&error)),
        }
        kill_point::pass("applied");
        group.answers.into_iter().for_each(Answer::send);
        self.flush_due = match self.shared.options.sync {
            _ if self.writer.behind() == 0 => None,
            SyncMode::Every(interval) => self.flush_due.or(Some(Instant::now() + interval)),
            SyncMode::Always => Some(Instant::now() + BEHIND_FOR),
        };
    }

    /// When there is something to do even if nobody asks.
    fn wake_at(&self) -> Option<Instant> {
        let now = Instant::now();
        let checkpoint = self.checkpoint_waits.then(|| now + CHECKPOINT_RETRY);
        let roll = self.erased.roll_due.then(|| now + ROLL_RETRY);
        [self.flush_due, checkpoint, roll].into_iter().flatten().min()
    }

    #[cfg(test)]
    fn wait_to_roll(&mut self) {
        self.erased.roll_due = true;
    }

    #[cfg(test)]
    fn has_work(&self) -> bool {
        self.keeper.is_busy() || self.checkpoint_waits || self.erased.roll_due
    }

    /// Takes a step; its failure or panic is the spool's.
    fn guarded(
        &mut self,
        step: impl FnOnce(&mut Committer) -> Result<(), StoreError>,
    ) -> Result<(), AppendError> {
        let shared = self.shared.clone();
        shared.guarded(|| step(self))
    }

    /// The last checkpoint: the next open has nothing to apply.
    fn end(&mut self) {
        drop(self.guarded(|committer| committer.checkpoint(Vec::new())));
        self.keeper.stop();
        self.ended = true;
    }

    /// Makes room in the log for the group; where there is none, appends are refused before they leave a trace, and the
    /// rest has the writer's reserve.
    fn with_room(&mut self, works: Vec<Work>) -> Vec<Work> {
        let bytes = works.iter().map(Work::bytes).sum::<usize>() as u64;
        let reserved = self.writer.reserve(bytes);
        self.shared.without_room.store(reserved.is_err(), Ordering::Release);
        let Err(error) = reserved else { return works };
        let full = AppendError::DiskFull(error.to_string());
        let (appends, others): (Vec<Work>, Vec<Work>) =
            works.into_iter().partition(|work| matches!(work, Work::Append(..)));
        for work in appends {
            refuse(work, &full);
        }
        others
    }

    fn write(&mut self, flush_now: bool) -> Result<(), StoreError> {
        let chunks = self.build()?;
        if !self.frame.is_empty() {
            self.since_checkpoint += self.frame.len() as u64;
            let mut flush = self.group.flush;
            if self.writer.behind() >= BEHIND_MAX {
                flush = flush.max(Flush::AsConfigured);
            }
            self.writer
                .append(&mut self.frame, &chunks)
                .map_err(|error| failed("write", &error))?;
            kill_point::pass("written");
            let before = match self.shared.options.sync {
                SyncMode::Always => flush >= Flush::AsConfigured,
                SyncMode::Every(_) => flush == Flush::Before,
            };
            if before {
                self.writer.sync_newest().map_err(|error| failed("flush", &error))?;
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
            kill_point::pass("apply");
            self.shared.store.follow(&part)?;
        }
        self.frame.clear();
        self.frame.shrink(FRAME_BYTES_KEPT);
        Ok(())
    }

    /// The group as a frame; returns where its chunks lie in it.
    fn build(&mut self) -> Result<Vec<Placed>, StoreError> {
        self.frame.clear();
        self.put_identities()?;
        let (frame, group) = (&mut self.frame, &self.group);
        let mut added_bytes = 0;
        for lane in group.new_lanes.iter().filter_map(|lane| self.lanes.get(lane)) {
            let key = lane.disk.lane.0.to_be_bytes();
            frame.put(Tree::Lanes, &key, &seal(&key, &(&lane.disk.integration, lane.disk.number)));
        }
        for (name, note) in &group.notes {
            store::put_note(frame, name, note);
        }
        for entry in &group.quarantined {
            self.quarantine_newest += 1;
            added_bytes += quarantine::put(frame, QuarantineId(self.quarantine_newest), entry);
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
        for (id, _) in &group.releases {
            quarantine::remove(frame, *id);
        }
        for lane in self.lanes.values_mut().filter(|lane| lane.settled) {
            lane.settle(frame);
        }
        self.group.quarantined_bytes = added_bytes;
        Ok(chunks)
    }

    /// Makes what was committed visible: before the answers.
    fn publish(&mut self, group: &mut Group) {
        let (added, removed) = (group.quarantined.len() as u64, group.releases.len() as u64);
        if added + removed > 0 {
            let removed_bytes = group.releases.iter().map(|(_, bytes)| bytes).sum();
            self.shared.quarantine_grew(added, group.quarantined_bytes);
            self.shared.quarantine_shrank(removed, removed_bytes);
        }
        for (key, identity) in mem::take(&mut group.remembered) {
            self.shared.identities.changed(key, identity);
        }
        for id in mem::take(&mut group.new_lanes) {
            if let Some(lane) = self.lanes.get(&id) {
                self.shared.add_lane(id, LaneView::new(&lane.disk));
            }
        }
        for lane in self.lanes.values_mut() {
            if mem::take(&mut lane.news) {
                self.shared.publish_lane(&lane.disk);
            }
        }
    }
}

fn failed(doing: &str, error: &std::io::Error) -> StoreError {
    StoreError(format!("{doing} the log: {error}"))
}
