//! The records at the front of a lane, as far as they are read. What follows them is read beside a push.

use std::pin::Pin;
use std::vec;

use tokio::sync::watch;

use super::batch::BYTES_MAX;
use crate::spool::{Entry, LaneId, ReadError, Seq, Spool};

/// Records that are read at once: each reading is a visit to another thread.
const READ_RECORDS: usize = 500;
/// What is read beside a push takes about so many bytes at most.
const AHEAD_BYTES: usize = 1 << 20;

/// See the module.
pub(super) struct Queue {
    spool: Spool,
    lane: LaneId,
    /// The newest seq of the lane.
    pub(super) newest: watch::Receiver<u64>,
    /// The first is the cursor's, but while a settlement is under way.
    entries: vec::IntoIter<Entry>,
    /// What follows them.
    reading: Option<Reading>,
}

/// Goes on whether it is waited for or not.
type Reading = Pin<Box<dyn Future<Output = Result<Vec<Entry>, ReadError>> + Send + Sync>>;

impl Queue {
    /// The queue of `lane`, of which nothing is read.
    pub(super) fn new(spool: Spool, lane: LaneId) -> Queue {
        let newest = spool.newest(lane);
        Queue { spool, lane, newest, entries: Vec::new().into_iter(), reading: None }
    }

    /// What is read.
    pub(super) fn all(&self) -> &[Entry] {
        self.entries.as_slice()
    }

    /// The first `records`, or as many as are read.
    pub(super) fn front(&self, records: usize) -> &[Entry] {
        self.all().get(..records).unwrap_or(self.all())
    }

    /// Reads on until it has `records`, or all there are. What lies before damage joins it; the damage is an error only once
    /// nothing is left before it.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub(super) async fn refill(&mut self, records: usize) -> Result<(), ReadError> {
        while self.entries.len() < records {
            let read = match self.reading.take() {
                Some(reading) => reading.await,
                None if *self.newest.borrow() < self.next().0 => return Ok(()),
                None => self.read(records, BYTES_MAX).await,
            };
            match read {
                Ok(entries) if self.entries.len() == 0 => self.entries = entries.into_iter(),
                Ok(entries) => {
                    let all: Vec<Entry> = self.entries.by_ref().chain(entries).collect();
                    self.entries = all.into_iter();
                }
                Err(ReadError::Damaged { .. }) if self.entries.len() > 0 => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Begins to read on when it holds less than `records`, and does not wait.
    pub(super) fn read_ahead(&mut self, records: usize) {
        let more = self.next().0 <= *self.newest.borrow();
        if self.entries.len() < records && self.reading.is_none() && more {
            self.reading = Some(self.read(records, AHEAD_BYTES));
        }
    }

    /// Lets the first `records` go: they are settled.
    pub(super) fn settled(&mut self, records: usize) {
        self.entries.by_ref().take(records).for_each(drop);
    }

    /// The seq behind the last.
    fn next(&self) -> Seq {
        match self.all().last() {
            Some(last) => Seq(last.seq.0 + 1),
            None => self.spool.cursor(self.lane),
        }
    }

    /// Begins to read what follows, for `records` at least.
    fn read(&self, records: usize, bytes_max: usize) -> Reading {
        let records_max = READ_RECORDS.max(records);
        Box::pin(self.spool.peek_sound(self.lane, self.next(), records_max, bytes_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::Append;
    use crate::spool::model_tests::{damage, options, record, reopen, settlement};

    const PUSH: usize = 100;

    /// Goal: what is read beside pushes is the lane, in order, without a gap; what is there is not waited for, and large
    /// records are not hoarded.
    #[tokio::test]
    async fn what_is_read_ahead_is_the_lane_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let spool = reopen(&options(directory.path()));
        let lane = spool.lane("uk", 0).await.unwrap();
        let append = async |records, bytes| {
            let items = vec![record(lane, "t", &vec![b'x'; bytes]); records];
            spool.append(Append { items, ..Append::default() }).await.unwrap();
        };
        append(1250, 1).await;
        append(100, 50_000).await;
        let mut queue = Queue::new(spool.clone(), lane);
        let (mut next, mut ahead) = (1, 0);
        while next <= 1350 {
            queue.refill(PUSH).await.unwrap();
            let held: Vec<u64> = queue.all().iter().map(|entry| entry.seq.0).collect();
            let last = next + held.len() as u64 - 1;
            assert!(held.into_iter().eq(next..=last));
            let bytes: usize = queue.all().iter().map(Entry::bytes).sum();
            assert!(bytes <= AHEAD_BYTES + PUSH * 50_000, "{bytes} at {next}");
            let push = queue.front(PUSH);
            let (records, bytes) = (push.len(), push.iter().map(Entry::bytes).sum::<usize>());
            queue.read_ahead(2 * PUSH);
            ahead += usize::from(queue.reading.is_some());
            queue.settled(records);
            let settlement = settlement(lane, next, records as u64, bytes as u64);
            spool.settle(settlement).await.unwrap();
            next += records as u64;
        }
        assert!(ahead >= 3, "read ahead {ahead} times");
        queue.refill(PUSH).await.unwrap();
        assert!(queue.all().is_empty() && next == 1351);
        append(1, 1).await;
        queue.read_ahead(1);
        queue.refill(1).await.unwrap();
        assert_eq!(queue.front(PUSH)[0].seq, Seq(1351));
        spool.close().await;
    }

    /// Goal: what lies before damage in a lane is delivered, and only then the damage told.
    #[tokio::test]
    async fn what_lies_before_damage_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let options = options(directory.path());
        let spool = reopen(&options);
        let lane = spool.lane("uk", 0).await.unwrap();
        for n in 1..=4 {
            let items = vec![record(lane, "t", format!("record-{n}").as_bytes())];
            spool.append(Append { items, ..Append::default() }).await.unwrap();
        }
        damage(&options.directory.join("log/0000000001.log"), "record-3");
        let mut queue = Queue::new(spool.clone(), lane);
        queue.refill(PUSH).await.unwrap();
        assert_eq!(queue.all().len(), 2);
        queue.read_ahead(PUSH);
        queue.settled(2);
        spool.settle(settlement(lane, 1, 2, 16)).await.unwrap();
        assert!(matches!(queue.refill(PUSH).await, Err(ReadError::Damaged { seq: Seq(3), .. })));
        // Who asked for more is told; who did not, reads what is sound, though a reader has just been at the damage.
        let error = spool.peek(lane, Seq(1), 4, 999).await;
        assert!(matches!(error, Err(ReadError::Damaged { seq: Seq(3), .. })), "{error:?}");
        assert_eq!(spool.peek(lane, Seq(1), 2, 999).await.unwrap().len(), 2);
        assert_eq!(spool.peek_sound(lane, Seq(2), 9, 999).await.unwrap().len(), 1);
        spool.close().await;
    }
}
