//! A lane as the committer counts it, and what it adds to a frame.

use std::mem;
use std::sync::Arc;

use bytes::Bytes;

use super::super::chunk::{Chunk, Packed, key};
use super::super::entry::{Delivery, PersonKeys, Seq};
use super::super::log::frame::{FrameBuilder, Tree};
use super::super::log::table::Placed;
use super::super::sealed::seal;
use super::super::store::LaneOnDisk;
use crate::clock::UnixMillis;

/// A record that is to be packed (see [`super::super::Content::Record`]).
#[derive(Debug)]
pub(super) struct Added {
    pub(super) record_type: Arc<str>,
    pub(super) record: Bytes,
    pub(super) person: PersonKeys,
    pub(super) first_seen: Option<UnixMillis>,
    pub(super) event: Option<Bytes>,
}

impl Added {
    fn packed(&self) -> Packed<'_> {
        let (record_type, record) = (&*self.record_type, &*self.record);
        Packed { record_type, record, event: self.event.as_deref() }
    }
}

/// A lane as the committer counts it: includes what the group under way has added.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) disk: LaneOnDisk,
    /// Records of the group under way.
    pub(super) added: Vec<Added>,
    pub(super) added_bytes: u64,
    pub(super) settled: bool,
    /// It differs from what was published of it.
    pub(super) news: bool,
    pub(super) deliveries: Vec<Delivery>,
}

impl Lane {
    /// A lane as it is on disk.
    pub(super) fn new(disk: LaneOnDisk) -> Lane {
        let (added, deliveries) = (Vec::new(), Vec::new());
        Lane { disk, added, added_bytes: 0, settled: false, news: false, deliveries }
    }

    /// Packs the added records into chunks.
    pub(super) fn pack(
        &mut self,
        committed_at: UnixMillis,
        frame: &mut FrameBuilder,
        chunks: &mut Vec<Placed>,
    ) {
        let added = mem::take(&mut self.added);
        self.news = true;
        let mut rest = added.iter().peekable();
        while rest.peek().is_some() {
            let mut chunk = Chunk::new(committed_at, self.disk.bytes);
            while rest
                .next_if(|added| chunk.push(added.packed(), added.person, added.first_seen))
                .is_some()
            {}
            let (lane, first, at) = (self.disk.lane, Seq(self.disk.newest + 1), frame.len() as u64);
            frame.chunk(lane, first, |value| chunk.encode(value));
            self.disk.newest += chunk.len() as u64;
            self.disk.bytes += chunk.bytes() as u64;
            chunks.push(Placed {
                lane,
                first,
                last: Seq(self.disk.newest),
                bytes: self.disk.bytes,
                at,
            });
        }
        self.added_bytes = 0;
    }

    /// Adds what pushes came to, and the tallies with the cursor.
    pub(super) fn settle(&mut self, frame: &mut FrameBuilder) {
        for delivery in self.deliveries.drain(..) {
            let key = key(self.disk.lane, delivery.first);
            frame.put(Tree::Deliveries, &key, &seal(&key, &delivery));
        }
        let key = self.disk.lane.0.to_be_bytes();
        frame.put(Tree::Cursors, &key, &seal(&key, &self.disk.tallies));
        (self.settled, self.news) = (false, true);
    }
}
