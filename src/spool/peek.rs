//! The records of a lane, in order.

use super::Spool;
use super::entry::{Entry, LaneId, Seq};
use super::error::ReadError;

impl Spool {
    /// The durable records of `lane` from `from` on, in order and without a gap: at most `records_max`, and
    /// at most `bytes_max` in all, with their events (but at least one). Empty when there is none.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn peek(
        &self,
        lane: LaneId,
        from: Seq,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        self.reading(lane, from, (records_max, bytes_max), false).await
    }

    /// As [`Spool::peek`], but where there is damage what lies before it: the damage is an error once nothing does. The reading
    /// begins with the call, and goes on beside what the caller does before it waits.
    ///
    /// # Errors
    /// See [`ReadError`].
    /// # Panics
    /// Outside a tokio runtime.
    pub fn peek_sound(
        &self,
        lane: LaneId,
        from: Seq,
        records_max: usize,
        bytes_max: usize,
    ) -> impl Future<Output = Result<Vec<Entry>, ReadError>> + Send + Sync + use<> {
        self.reading(lane, from, (records_max, bytes_max), true)
    }

    fn reading(
        &self,
        lane: LaneId,
        from: Seq,
        limits: (usize, usize),
        sound: bool,
    ) -> impl Future<Output = Result<Vec<Entry>, ReadError>> + Send + Sync + use<> {
        let newest = *self.shared.lane(lane).newest.borrow();
        self.read(move |shared| {
            let mut entries = Vec::new();
            match shared.log.read(&mut entries, lane, from, newest, limits) {
                Err(error) if !sound || entries.is_empty() => Err(error),
                _ => Ok(entries),
            }
        })
    }

    /// As [`Spool::peek`], for who reads beside the deliveries: what was settled and has gone meanwhile is passed over, and
    /// the first entry is then a later one.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn peek_kept(
        &self,
        lane: LaneId,
        mut from: Seq,
        records_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Entry>, ReadError> {
        loop {
            from = from.max(self.oldest(lane));
            match self.peek(lane, from, records_max, bytes_max).await {
                Err(ReadError::Damaged { .. }) if self.oldest(lane) > from => {}
                read => return read,
            }
        }
    }
}
