//! What the spool takes and gives back: numbers, appends, entries, settlements.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::dedupe::Once;
use crate::clock::UnixMillis;

/// A record's place in its lane, from 1, contiguous, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seq(pub u64);

/// One strictly ordered sequence of records of one integration, as the spool numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LaneId(pub u32);

/// The number of an entry in the quarantine, from 1, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct QuarantineId(pub u64);

/// What one request wants made durable, whole or not at all. `items` keep their order in their lanes.
#[derive(Clone, Debug, Default)]
pub struct Append {
    /// Records and quarantine entries, in the order of arrival.
    pub items: Vec<Item>,
    /// Traits to merge into stored identities: (key, JSON object).
    pub identities: Vec<(String, Bytes)>,
    /// What people say about their consent, in the order of arrival.
    pub consents: Vec<Consent>,
    /// Small things to remember by name, in place of what was remembered before.
    pub notes: Vec<(&'static str, Bytes)>,
    /// Identities that are removed, by their keys.
    pub forgets: Vec<String>,
    /// People whose records that were committed before are not sent any more.
    pub erases: Vec<PersonKey>,
    /// Quarantine entries that this append replaces (retry) or removes (drop). When one of them no longer
    /// exists nothing is stored.
    pub releases: Vec<QuarantineId>,
}

/// What a person says about one category of consent. The latest counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consent {
    /// The person.
    pub person: PersonKey,
    /// The category.
    pub category: String,
    /// Granted, or denied.
    pub granted: bool,
    /// The item of the same event, by its index: when that is a repeat, so is this, and nothing changes.
    pub item: Option<usize>,
}

/// The digest of an id of a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PersonKey(pub u64);

/// The keys under which a record's person may deny consent later; none: nobody can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonKeys([Option<PersonKey>; PersonKeys::MAX]);

impl PersonKeys {
    /// How many there are at most.
    pub const MAX: usize = 2;

    /// Up to [`PersonKeys::MAX`] keys; more are left out.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = PersonKey>) -> PersonKeys {
        let mut keys = keys.into_iter();
        PersonKeys([keys.next(), keys.next()])
    }

    /// The keys.
    pub fn iter(&self) -> impl Iterator<Item = PersonKey> + '_ {
        self.0.iter().flatten().copied()
    }
}

/// One thing to store.
#[derive(Clone, Debug)]
pub struct Item {
    /// With it, the item is skipped when its digest is still in the window.
    pub once: Option<Once>,
    /// Where it goes.
    pub content: Content,
}

/// Where an item goes.
#[derive(Clone, Debug)]
pub enum Content {
    /// To the end of a lane. At most [`RECORD_BYTES_MAX`].
    Record {
        /// The lane.
        lane: LaneId,
        /// The record's `@type`: a push never mixes two.
        record_type: Arc<str>,
        /// The exact JSON bytes that will be pushed.
        record: Bytes,
        /// Whose consent it needs.
        person: PersonKeys,
        /// Of a record that comes back from the quarantine: when it was first set aside.
        first_seen: Option<UnixMillis>,
        /// What the record was made of, kept beside it as long as it is. At most [`EVENT_BYTES_MAX`].
        event: Option<Bytes>,
    },
    /// To the quarantine.
    Quarantine(Box<Quarantined>),
    /// Nowhere: an event without a record, whose repeats must be known for what it says about consent.
    Nothing,
}

/// The largest record that the spool takes; a larger one is its caller's bug.
pub const RECORD_BYTES_MAX: usize = 60_000;
/// The largest event that is kept beside a record; of a larger one its caller keeps nothing.
pub const EVENT_BYTES_MAX: usize = RECORD_BYTES_MAX;
/// What a record and the event beside it take together, at most.
pub const ENTRY_BYTES_MAX: usize = RECORD_BYTES_MAX + EVENT_BYTES_MAX;

/// What a record takes, wherever bytes are counted: with the event that is kept beside it.
pub(super) fn bytes_of(record: &Bytes, event: Option<&Bytes>) -> usize {
    record.len() + event.map_or(0, Bytes::len)
}

/// Something kept aside with its reason, until an operator retries or drops it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// What it was.
    pub origin: Origin,
    /// A short code: `rejected`, `too_large`, `invalid_event`, …
    pub reason: String,
    /// What the answer or the parser said, at most [`DETAIL_BYTES_MAX`].
    pub detail: String,
    /// The status of the answer, for a record that upstream refused.
    pub status: Option<u16>,
    /// When it was set aside.
    pub at: UnixMillis,
    /// The exact bytes of the record or event.
    pub body: Vec<u8>,
    /// When it was set aside for the first time: earlier than `at` where it was retried since. Stored beside the entry
    /// (see `quarantine`).
    #[serde(skip)]
    pub first_at: UnixMillis,
}

/// The longest text kept with a quarantine entry or a delivery.
pub const DETAIL_BYTES_MAX: usize = 4096;

/// Where a quarantined body came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// A record of a lane that upstream refused.
    Record {
        /// The lane it was in.
        lane: LaneId,
        /// The integration's name.
        integration: String,
        /// Its seq there.
        seq: Seq,
        /// Its `@type`.
        record_type: String,
        /// Whose consent it needs.
        person: PersonKeys,
    },
    /// An event of a batch that could not become a record.
    Event {
        /// The route's or the item's type: `track`, `page`, …; empty when unknown.
        kind: String,
        /// The integration whose mapping refused it; `None` when no integration could read it.
        integration: Option<String>,
    },
}

/// What an append came to. All of it is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Indices into `Append::items` that were skipped because their digest was in the window.
    pub duplicates: Vec<usize>,
}

/// One record as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the lane.
    pub seq: Seq,
    /// Its `@type`.
    pub record_type: Arc<str>,
    /// The exact bytes that were appended.
    pub record: Bytes,
    /// Whose consent it needs.
    pub person: PersonKeys,
    /// Of a record that came back from the quarantine: when it was first set aside.
    pub first_seen: Option<UnixMillis>,
    /// What it was made of, where that is kept.
    pub event: Option<Bytes>,
    /// When it was committed.
    pub committed_at: UnixMillis,
}

impl Entry {
    /// What it takes in its lane, as it was counted when it was appended.
    #[must_use]
    pub fn bytes(&self) -> usize {
        bytes_of(&self.record, self.event.as_ref())
    }
}

/// How the oldest records of a lane ended, in one step. With copies it is durable when it returns; without, it is written
/// and flushed soon after.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The lane.
    pub lane: LaneId,
    /// The first of the settled records: must be the lane's cursor.
    pub first: Seq,
    /// How many, from `first` on.
    pub records: u64,
    /// Their [`Entry::bytes`].
    pub bytes: u64,
    /// Their common end …
    pub end: End,
    /// … but for these of them, which were not sent, each with its own; ascending.
    pub apart: Vec<(Seq, End)>,
    /// Copies for the quarantine, durable before the cursor passes the records.
    pub copies: Vec<Quarantined>,
    /// The push that brought it about, for the event debugger.
    pub delivery: Option<Delivery>,
}

/// How a record leaves the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// Upstream answered 202.
    Delivered,
    /// Set aside with its reason.
    Quarantined,
    /// The person's consent was revoked.
    Withheld,
    /// Erased on request.
    Erased,
}

impl End {
    /// As it is written everywhere.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            End::Delivered => "delivered",
            End::Quarantined => "quarantined",
            End::Withheld => "withheld",
            End::Erased => "erased",
        }
    }
}

impl Delivery {
    /// How the record `seq` ended, if this push settled it.
    #[must_use]
    pub fn end_of(&self, seq: Seq) -> Option<End> {
        let covered = (self.first.0..self.first.0 + self.records).contains(&seq.0);
        let apart = self.apart.iter().find(|(apart, _)| *apart == seq);
        covered.then(|| apart.map_or(self.end, |(_, end)| *end))
    }
}

/// One push that settled records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// First settled seq.
    pub first: Seq,
    /// Settled records from `first` on.
    pub records: u64,
    /// How they ended …
    pub end: End,
    /// … but for these of them, which were not sent, each with its own; ascending.
    pub apart: Vec<(Seq, End)>,
    /// The answer's status; 0 when nothing was pushed.
    pub status: u16,
    /// The attempt that was answered, from 1; 0 when nothing was pushed.
    pub attempt: u32,
    /// When the push began.
    pub sent_at: UnixMillis,
    /// When the answer had arrived.
    pub answered_at: UnixMillis,
    /// The answer's body, at most [`DETAIL_BYTES_MAX`].
    pub answer: String,
}

/// The state of a lane as the last flush left it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneStats {
    /// The newest seq; 0 when the lane never held one.
    pub newest: u64,
    /// The first seq that is not settled.
    pub cursor: u64,
    /// Records not settled.
    pub queued_records: u64,
    /// Their bytes.
    pub queued_bytes: u64,
    /// When the oldest of them was committed.
    pub oldest_at: Option<UnixMillis>,
    /// Records settled as delivered, since the lane began.
    pub delivered: u64,
    /// Records settled as quarantined.
    pub quarantined: u64,
    /// Records settled as withheld.
    pub withheld: u64,
    /// Records settled as erased.
    pub erased: u64,
    /// Records from the cursor on that the log holds: as many as are queued, unless something is lost.
    pub held: u64,
}

impl LaneStats {
    /// The sums of two lanes, and the older of their oldest records. The cursor is that of all records together: one more
    /// than have ended.
    #[must_use]
    pub fn plus(self, other: LaneStats) -> LaneStats {
        let older = |a: Option<UnixMillis>, b: Option<UnixMillis>| a.into_iter().chain(b).min();
        LaneStats {
            newest: self.newest + other.newest,
            cursor: 1 + self.ended() + other.ended(),
            queued_records: self.queued_records + other.queued_records,
            queued_bytes: self.queued_bytes + other.queued_bytes,
            oldest_at: older(self.oldest_at, other.oldest_at),
            delivered: self.delivered + other.delivered,
            quarantined: self.quarantined + other.quarantined,
            withheld: self.withheld + other.withheld,
            erased: self.erased + other.erased,
            held: self.held + other.held,
        }
    }

    /// Whether every record that was ever accepted is accounted for (Promise 6): accepted = delivered + quarantined +
    /// withheld + erased + what the log holds.
    #[must_use]
    pub fn is_conserved(&self) -> bool {
        self.newest == self.ended() + self.held
    }

    fn ended(&self) -> u64 {
        self.delivered + self.quarantined + self.withheld + self.erased
    }
}
