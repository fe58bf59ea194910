//! Requests become a group: in memory, without a write.

use std::collections::HashSet;

use bytes::Bytes;

use super::super::dedupe::Once;
use super::super::entry::{
    Append, Content, EVENT_BYTES_MAX, LaneId, QuarantineId, Quarantined, RECORD_BYTES_MAX, Receipt,
    Settlement, bytes_of,
};
use super::super::error::AppendError;
use super::super::identity::Identity;
use super::super::shared::Shared;
use super::super::store::{LaneOnDisk, Tallies};
use super::super::unread::Appended;
use super::super::work::{Answer, Work};
use super::Committer;
use super::identities::Changes;
use super::lane::{Added, Lane};

/// What the group under way will insert, beside the records in its lanes.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) answers: Vec<Answer>,
    pub(super) identities: Changes,
    /// What became of the identities, in the order of the frame.
    pub(super) remembered: Vec<(String, Option<Identity>)>,
    pub(super) quarantined: Vec<Quarantined>,
    /// Their stored bytes, once they are in the frame.
    pub(super) quarantined_bytes: u64,
    pub(super) ids: Vec<Once>,
    pub(super) ids_known: HashSet<Once>,
    /// (id, stored bytes)
    pub(super) releases: Vec<(QuarantineId, u64)>,
    pub(super) new_lanes: Vec<LaneId>,
    pub(super) notes: Vec<(&'static str, Bytes)>,
    /// Whether the disk is low, once somebody has asked.
    disk: Option<Result<(), AppendError>>,
    /// Whether it moves a cursor.
    pub(super) settled: bool,
    /// Whether it erases somebody.
    pub(super) erases: bool,
    /// What the answers wait for.
    pub(super) flush: Flush,
}

/// When a group must be durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Flush {
    /// Soon after the answers.
    #[default]
    After,
    /// Before the answers, unless the sync mode is the weaker one.
    AsConfigured,
    /// Before the answers, whatever the sync mode.
    Before,
}

impl Committer {
    /// Takes a request into the group under way.
    pub(super) fn plan(&mut self, work: Work) {
        match work {
            Work::Append(append, to) => {
                let planned = self.plan_append(append);
                if planned.is_ok() {
                    self.group.need(Flush::AsConfigured);
                }
                let answer = planned.map(|receipt| Appended::new(receipt, &self.shared.unread));
                self.group.answers.push(Answer::Append(to, answer));
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
            Work::Probe(to) => self.group.answers.push(Answer::Settle(to, Ok(()))),
            Work::Close => {}
        }
    }

    /// Takes the append whole, or leaves no trace of it (Promise 2).
    fn plan_append(&mut self, append: Append) -> Result<Receipt, AppendError> {
        let mut receipt = Receipt::default();
        let mut seen = HashSet::new();
        let (mut records, mut bytes) = (0_u64, 0);
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
            records += u64::from(!matches!(item.content, Content::Nothing));
            bytes += match &item.content {
                Content::Record { record, event, .. } => {
                    let event_bytes = event.as_ref().map_or(0, Bytes::len);
                    assert!(
                        record.len() <= RECORD_BYTES_MAX && event_bytes <= EVENT_BYTES_MAX,
                        "a record above the limit reached the spool"
                    );
                    bytes_of(record, event.as_ref())
                }
                Content::Quarantine(entry) => entry.body.len(),
                Content::Nothing => 0,
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
        let merged = self.merged(&append, &receipt);
        self.group.identities.extend(merged.map_err(|error| AppendError::Failed(error.0))?);
        if !releases.is_empty() {
            // The store may keep a removal that the log loses: the entry must not be gone with its record.
            self.group.need(Flush::Before);
        }
        self.group.releases.extend(releases);
        self.take(append, &receipt);
        Ok(receipt)
    }

    fn take(&mut self, append: Append, receipt: &Receipt) {
        self.group.notes.extend(append.notes);
        self.group.erases |= !append.erases.is_empty();
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
                Content::Record { lane, record_type, record, person, first_seen, event } => {
                    let lane = self
                        .lanes
                        .get_mut(&lane)
                        .expect("records go to lanes that `Spool::lane` gave");
                    lane.added_bytes += bytes_of(&record, event.as_ref()) as u64;
                    lane.added.push(Added { record_type, record, person, first_seen, event });
                }
                Content::Quarantine(entry) => self.group.quarantined.push(*entry),
                Content::Nothing => {}
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
        let apart = settlement.apart.len() as u64;
        assert!(apart <= settlement.records, "what ends apart is among the records settled");
        lane.disk.tallies.add(settlement.end, settlement.records - apart);
        settlement.apart.iter().for_each(|(_, end)| lane.disk.tallies.add(*end, 1));
        lane.disk.tallies.bytes += settlement.bytes;
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
