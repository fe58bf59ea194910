//! The log's one writer.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::frame::{FrameBuilder, SEGMENT_HEAD_BYTES};
use super::segment::{SEGMENT_BYTES, Segment};
use super::syncer::Syncer;
use super::table::{Meta, Placed};
use super::{Applied, Log};
use crate::kill_point;

/// Kept free in the segment under way for settlements on a full disk, which is how it becomes less full.
const SPARE_BYTES: u64 = 512 << 10;

/// Above this, on average, frames are large.
const FRAME_BYTES_LARGE: u64 = 128 << 10;

/// The next segment, made ready beside the writer's work.
pub(crate) type Prepared = Arc<Mutex<Option<Segment>>>;

/// See the module. Nothing that it wrote is durable before [`Writer::sync`] returns.
#[derive(Debug)]
pub(crate) struct Writer {
    log: Arc<Log>,
    active: Segment,
    /// The last frame before it.
    before: u64,
    /// Where the next frame goes.
    end: u64,
    /// Where the newest frame begins.
    newest_at: u64,
    /// The newest frame that was written.
    written: u64,
    /// The newest frame that this one made durable.
    durable: u64,
    prepared: Prepared,
    syncer: Syncer,
}

impl Writer {
    /// Goes on after frame `last` in `active`, which is empty.
    pub(crate) fn new(
        log: Arc<Log>,
        active: Segment,
        last: u64,
        prepared: Prepared,
        syncer: Syncer,
    ) -> Writer {
        let meta = Meta { salt: active.head.salt, last_frame: last, ..Meta::default() };
        log.table_mut().insert(active.head.number, meta);
        let end = SEGMENT_HEAD_BYTES as u64;
        Writer {
            log,
            active,
            before: last,
            end,
            newest_at: end,
            written: last,
            durable: last,
            prepared,
            syncer,
        }
    }

    /// The newest frame that was written.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// How many frames are not durable yet.
    pub(crate) fn behind(&self) -> u64 {
        self.written - self.durable()
    }

    fn durable(&self) -> u64 {
        self.durable.max(self.syncer.durable())
    }

    /// How far the store is once it has the changes of all that was written.
    pub(crate) fn applied(&self) -> Applied {
        Applied { frame: self.written, segment: self.active(), before: self.before }
    }

    /// The segment under way.
    pub(crate) fn active(&self) -> u64 {
        self.active.head.number
    }

    /// With how many bytes of zeros the next segment is to be prepared, once this one is half full. Large frames gain
    /// nothing from blocks that are there already: writing them twice would cost more.
    pub(crate) fn prepare(&self) -> Option<u64> {
        let frames = self.written.saturating_sub(self.before).max(1);
        let large = self.end / frames > FRAME_BYTES_LARGE;
        (self.end > SEGMENT_BYTES / 2).then_some(if large { 0 } else { SEGMENT_BYTES })
    }

    /// Whether `bytes` more need neither a new segment nor new blocks.
    pub(crate) fn fits(&self, bytes: u64) -> bool {
        self.active.has_blocks(self.end + bytes) && self.end + bytes <= SEGMENT_BYTES
    }

    /// Makes room for `bytes` more, in a new segment when this one is full, and leaves the reserve untouched.
    ///
    /// # Errors
    /// Most of all a full disk: nothing was written, and the log is as good as before.
    pub(crate) fn reserve(&mut self, bytes: u64) -> io::Result<()> {
        if self.end + bytes > SEGMENT_BYTES && self.end > SEGMENT_HEAD_BYTES as u64 {
            self.roll(bytes)?;
        }
        self.active.allocate(self.end + bytes + SPARE_BYTES)
    }

    /// Writes a frame and notes where its `chunks` lie, whose places are given from the frame's beginning.
    ///
    /// # Errors
    /// Final: part of it may have been written.
    pub(crate) fn append(&mut self, frame: &mut FrameBuilder, chunks: &[Placed]) -> io::Result<()> {
        let number = self.written + 1;
        let bytes = frame.finish(number, self.durable(), self.active.head.salt);
        self.active.allocate(self.end + bytes.len() as u64)?;
        self.newest_at = self.end;
        if let Err(error) = self.active.write(bytes, self.end) {
            self.retract();
            return Err(error);
        }
        let mut table = self.log.table_mut();
        let meta = table.entry(self.active.head.number).or_default();
        for chunk in chunks {
            meta.add(Placed { at: self.end + chunk.at, ..*chunk });
        }
        self.end += bytes.len() as u64;
        self.written = number;
        (meta.end, meta.last_frame) = (self.end, number);
        Ok(())
    }

    /// What was written is on stable storage when this returns.
    ///
    /// # Errors
    /// Final.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if self.behind() > 0 {
            self.active.sync()?;
            self.durable = self.written;
        }
        Ok(())
    }

    /// [`Writer::sync`] for a group that nobody has been told of: a failure takes its frame back.
    ///
    /// # Errors
    /// Final.
    pub(crate) fn sync_newest(&mut self) -> io::Result<()> {
        let synced = self.sync();
        if synced.is_err() {
            self.retract();
        }
        synced
    }

    /// Cuts the newest frame off after an error: the next open must not find what was refused (Promise 2). As good as the
    /// disk still is: a power cut may bring the frame back.
    fn retract(&self) {
        if let Err(error) = self.active.cut(self.newest_at) {
            tracing::warn!(%error, "a refused commit could not be taken back: it may be found at the next start");
        }
    }

    /// Has what was written flushed, and does not wait for it.
    pub(crate) fn sync_soon(&mut self) {
        if self.behind() > 0 {
            self.syncer.ask(|| self.active.file(), self.written);
        }
    }

    /// Ends the segment under way, and goes on in the next, which has room for `bytes` and the reserve; one that holds nothing
    /// is gone on with.
    ///
    /// # Errors
    /// Final when what was written could not be flushed; else, most of all on a full disk, nothing has changed: the segment
    /// under way keeps its reserve.
    pub(crate) fn roll(&mut self, bytes: u64) -> io::Result<()> {
        if self.end == SEGMENT_HEAD_BYTES as u64 {
            return Ok(());
        }
        self.sync()?;
        let number = self.active.head.number + 1;
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = match prepared.take() {
            Some(next) if next.head.number == number => next,
            _ => Segment::create(&self.log.directory, number, 0)?,
        };
        if let Err(error) = next.allocate(SEGMENT_HEAD_BYTES as u64 + bytes + SPARE_BYTES) {
            *prepared = Some(next);
            return Err(error);
        }
        kill_point::pass("rolling");
        self.active.cut(self.end)?;
        let meta = Meta { salt: next.head.salt, last_frame: self.written, ..Meta::default() };
        self.log.table_mut().insert(number, meta);
        self.active = next;
        self.before = self.written;
        self.end = SEGMENT_HEAD_BYTES as u64;
        kill_point::pass("rolled");
        Ok(())
    }
}
