//! When the next segment is prepared and a checkpoint made, and what a checkpoint says.

use std::collections::BTreeMap;
use std::mem;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::entry::Seq;
use super::super::manifest::{Floor, Manifest};
use super::super::store::StoreError;
use super::keeper::Checkpoint;
use super::{Committer, failed};
use crate::clock;
use crate::kill_point;

/// A checkpoint follows after so many bytes of the log, or this long after the last one.
const CHECKPOINT_BYTES: u64 = 8 << 20;
const CHECKPOINT_AFTER: Duration = Duration::from_secs(60);

impl Committer {
    /// Has the next segment prepared and a checkpoint made when it is time, and waits for neither.
    pub(super) fn keep_up(&mut self) -> Result<(), StoreError> {
        if self.erased.roll_due {
            self.end_segment()?;
        }
        let settled = mem::take(&mut self.moved) || self.checkpoint_waits;
        let active = self.writer.active();
        if let Some(zeros) = self.writer.prepare() {
            self.keeper.prepare(active + 1, zeros);
        }
        let due = self.since_checkpoint >= CHECKPOINT_BYTES
            || (self.since_checkpoint > 0
                && clock::now() >= self.checkpoint_at.after(CHECKPOINT_AFTER));
        let mut remove = Vec::new();
        if settled || due {
            let mut lanes_of: BTreeMap<&str, u64> = BTreeMap::new();
            for lane in self.lanes.values() {
                *lanes_of.entry(&lane.disk.integration).or_default() += 1;
            }
            remove = self.shared.log.settled(active, |lane| {
                let Some(lane) = self.lanes.get(&lane).map(|lane| &lane.disk) else {
                    return Seq(0);
                };
                // What is kept of an integration is shared by its lanes.
                let lanes = lanes_of.get(lane.integration.as_str()).copied().unwrap_or(1);
                let keep = self.shared.options.keep_delivered.div_ceil(lanes);
                let cursor = lane.tallies.cursor().0;
                let erased =
                    self.erased.newest.get(&lane.lane).map_or(0, |newest| cursor.min(newest + 1));
                Seq(cursor.saturating_sub(keep).max(erased))
            });
        }
        let due = due || !remove.is_empty();
        self.checkpoint_waits = due && self.keeper.is_busy();
        if due && !self.checkpoint_waits { self.checkpoint(remove) } else { Ok(()) }
    }

    /// Ends the segment under way, in which erased people are. A full disk has no room for the next one: then this is tried
    /// again, and who operates it is told that it waits, and when it no longer does.
    fn end_segment(&mut self) -> Result<(), StoreError> {
        self.writer.sync().map_err(|error| failed("flush", &error))?;
        let ended = self.writer.roll(0);
        self.erased.roll_due = ended.is_err();
        self.moved |= ended.is_ok(); // it may go
        let waited = self.shared.erasure_waits.swap(ended.is_err(), Ordering::AcqRel);
        match ended {
            Err(error) if !waited => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what was erased stays on the disk: the log's next segment cannot be begun, which is tried again each second"
            ),
            Ok(()) if waited => tracing::info!(
                "what was erased no longer waits for room: it leaves the disk with its segment of the log"
            ),
            _ => {}
        }
        Ok(())
    }

    /// Tells the store how far it is, and has it flushed; then `remove` goes.
    pub(super) fn checkpoint(&mut self, remove: Vec<u64>) -> Result<(), StoreError> {
        let (log, active) = (&self.shared.log, self.writer.active());
        self.writer.sync().map_err(|error| failed("flush", &error))?;
        let store = &self.shared.store;
        store.catch_up()?; // what is inserted later would not be trimmed
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
        for lane in self.lanes.values() {
            store.put_cursor(&lane.disk)?;
        }
        kill_point::pass("checkpoint-told");
        store.put_applied(self.writer.applied())?;
        self.check_conservation();
        let floors = self.lanes.values().map(|lane| Floor {
            lane: lane.disk.lane.0,
            newest: lane.disk.newest,
            cursor: lane.disk.tallies.cursor().0,
        });
        let manifest = Manifest::new(
            &self.shared.generation,
            store.bytes_min(),
            self.writer.written(),
            floors.collect(),
        );
        self.since_checkpoint = 0;
        self.checkpoint_at = clock::now();
        self.keeper.checkpoint(Checkpoint { manifest, remove });
        Ok(())
    }

    /// Promise 6, counted twice: what was accepted has ended, or is in the log.
    fn check_conservation(&self) {
        for lane in self.lanes.values().map(|lane| &lane.disk) {
            let (accepted, settled) = (lane.newest, lane.tallies.settled());
            let held = self.shared.log.held(lane.lane, lane.tallies.cursor(), accepted);
            if accepted != settled + held {
                let integration = &lane.integration;
                tracing::error!(%integration, accepted, settled, held, "records are missing from the log");
            }
        }
    }
}
