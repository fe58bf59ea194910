//! PURE. Consecutive records of one lane packed into one part of the log.
//!
//! ```text
//! key    lane u32 BE ‖ first seq u64 BE
//! value  bincode of the chunk; the part around it carries the checksum (see `log::frame`)
//! ```
//! A chunk is what is read at once, and what is lost at once where the disk is damaged.

use std::sync::Arc;

use bincode::Options as _;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::entry::{ENTRY_BYTES_MAX, Entry, LaneId, PersonKey, PersonKeys, Seq};
use crate::clock::UnixMillis;

/// A chunk is closed before its records, with their events, exceed this; a larger one fills a chunk alone.
pub const CHUNK_BYTES: usize = 28 * 1024;
/// Records in one chunk: small records must not make a chunk slow to read.
pub const CHUNK_RECORDS_MAX: usize = 512;
/// The largest value this module makes: one record and event of the largest size and what stands around them.
pub const VALUE_BYTES_MAX: usize = ENTRY_BYTES_MAX + 1024;

const KEY_BYTES: usize = 12;
/// See [`Chunk`]: records that come back from the quarantine are few.
const SEEN: u8 = 0x80;
/// See [`Chunk`]: events are kept where it is asked for.
const KEPT: u8 = 0x40;
/// What is left for the number of keys.
const KEYS: u8 = !(SEEN | KEPT);

/// Why stored bytes are not a chunk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The key has another length.
    #[error("a key has {0} bytes instead of {KEY_BYTES}")]
    Key(usize),
    /// It does not decode, or contradicts itself.
    #[error("the chunk does not decode: {0}")]
    Body(String),
}

/// One chunk, decoded or about to be encoded. Borrows the records' bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk<'a> {
    /// When its group was committed.
    pub committed_at: UnixMillis,
    /// Bytes of all records of the lane before this chunk, since the lane began.
    pub bytes_before: u64,
    /// The `@type`s that occur in it.
    #[serde(borrow)]
    types: Vec<&'a str>,
    /// (index into `types`, how many of `people`, bytes), in order. [`SEEN`] in the second says that one more of them is
    /// no key, but when the record was first set aside; [`KEPT`], that one more, the last, is the length of the record,
    /// behind which its event follows in the same bytes.
    #[serde(borrow)]
    records: Vec<(u8, u8, Raw<'a>)>,
    /// The keys of the records' people, in the records' order.
    people: Vec<PersonKey>,
    /// The bytes of `records`, so that packing need not add them up for each.
    #[serde(skip)]
    bytes: usize,
}

/// A record as it lies in a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packed<'a> {
    /// Its `@type`.
    pub record_type: &'a str,
    /// Its bytes.
    pub record: &'a [u8],
    /// The event that it was made of, where that is kept.
    pub event: Option<&'a [u8]>,
}

/// A record and what is kept beside it: bytes that bincode copies as one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Raw<'a> {
    record: &'a [u8],
    /// Empty where none is kept.
    event: &'a [u8],
}

impl<'a> Raw<'a> {
    fn len(self) -> usize {
        self.record.len() + self.event.len()
    }

    /// The event, as the record's flags say whether it has one.
    fn event(self, flags: u8) -> Option<&'a [u8]> {
        (flags & KEPT > 0).then_some(self.event)
    }
}

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.event.is_empty() {
            return serializer.serialize_bytes(self.record);
        }
        serializer.serialize_bytes(&[self.record, self.event].concat())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    /// All of it as the record: where it ends is told elsewhere.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&[u8]>::deserialize(deserializer).map(|record| Raw { record, event: &[] })
    }
}

impl<'a> Chunk<'a> {
    /// An empty chunk.
    #[must_use]
    pub fn new(committed_at: UnixMillis, bytes_before: u64) -> Chunk<'a> {
        let (types, records, people) = (Vec::new(), Vec::new(), Vec::new());
        Chunk { committed_at, bytes_before, types, records, people, bytes: 0 }
    }

    /// Adds a record, unless the chunk is full: then the caller starts another.
    #[must_use]
    pub fn push(
        &mut self,
        packed: Packed<'a>,
        person: PersonKeys,
        first_seen: Option<UnixMillis>,
    ) -> bool {
        let Packed { record_type, record, event } = packed;
        let raw = Raw { record, event: event.unwrap_or_default() };
        let full = self.records.len() == CHUNK_RECORDS_MAX
            || (!self.records.is_empty() && self.bytes + raw.len() > CHUNK_BYTES);
        let known = self.types.iter().position(|known| *known == record_type);
        let Ok(index) = u8::try_from(known.unwrap_or(self.types.len())) else { return false };
        if full {
            return false;
        }
        if known.is_none() {
            self.types.push(record_type);
        }
        let before = self.people.len();
        self.people.extend(person.iter());
        // Two at most.
        let keys = u8::try_from(self.people.len() - before).unwrap_or_default();
        let seen = if first_seen.is_some() { SEEN } else { 0 };
        self.people.extend(first_seen.map(|at| PersonKey(at.0)));
        let kept = if event.is_some() { KEPT } else { 0 };
        self.people.extend(event.map(|_| PersonKey(record.len() as u64)));
        self.records.push((index, keys | seen | kept, raw));
        self.bytes += raw.len();
        true
    }

    /// How many records it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The bytes of its records and their events.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its records, in order.
    pub fn records(&self) -> impl Iterator<Item = Packed<'a>> + '_ {
        self.records.iter().map(|(index, flags, raw)| Packed {
            record_type: self.types.get(usize::from(*index)).copied().unwrap_or_default(),
            record: raw.record,
            event: raw.event(*flags),
        })
    }

    /// The records from `from` on as entries, when the chunk begins at `first`. Their bytes stay in `buffer`, of which
    /// the chunk was decoded.
    #[must_use]
    pub fn entries(&self, first: Seq, from: Seq, buffer: &Bytes) -> Vec<Entry> {
        let types: Vec<Arc<str>> = self.types.iter().map(|name| Arc::from(*name)).collect();
        let mut people = self.people.iter().copied();
        let all = self.records.iter().zip(first.0..).map(|((index, flags, raw), seq)| {
            let person = PersonKeys::new(people.by_ref().take(usize::from(flags & KEYS)));
            let first_seen = (flags & SEEN > 0).then(|| people.next()).flatten();
            let event = raw.event(*flags);
            people.by_ref().take(usize::from(event.is_some())).for_each(drop);
            (Seq(seq), index, raw.record, event, person, first_seen)
        });
        let later = all.filter(|(seq, ..)| *seq >= from);
        later
            .filter_map(|(seq, index, record, event, person, first_seen)| {
                Some(Entry {
                    seq,
                    record_type: types.get(usize::from(*index))?.clone(),
                    record: buffer.slice_ref(record),
                    person,
                    first_seen: first_seen.map(|at| UnixMillis(at.0)),
                    event: event.map(|event| buffer.slice_ref(event)),
                    committed_at: self.committed_at,
                })
            })
            .collect()
    }

    /// Appends the stored value.
    ///
    /// # Panics
    /// When the chunk is empty: a stored chunk must hold a seq.
    pub fn encode(&self, value: &mut Vec<u8>) {
        assert!(!self.is_empty(), "an empty chunk is never stored");
        value.reserve(self.bytes() + 24 * self.len() + 8 * self.people.len() + 64);
        codec()
            .serialize_into(value, self)
            .expect("writing into memory cannot fail below the limit");
    }

    /// Reads a stored value.
    ///
    /// # Errors
    /// [`ChunkError::Body`]: whatever the bytes are, never a panic.
    pub fn decode(value: &'a [u8]) -> Result<Chunk<'a>, ChunkError> {
        let mut chunk: Chunk<'a> =
            codec().deserialize(value).map_err(|error| ChunkError::Body(error.to_string()))?;
        if chunk.is_empty() {
            return Err(ChunkError::Body("it holds no record".to_owned()));
        }
        let wrong = |what: &str| Err(ChunkError::Body(what.to_owned()));
        let mut people = 0;
        for (index, flags, raw) in &mut chunk.records {
            if usize::from(*index) >= chunk.types.len() {
                return wrong("a record's type is not in the list");
            }
            let keys = usize::from(*flags & KEYS);
            if keys > PersonKeys::MAX {
                return wrong("a record has too many people");
            }
            people += keys + usize::from(*flags & SEEN > 0);
            chunk.bytes += raw.len();
            if *flags & KEPT > 0 {
                let length = chunk.people.get(people).and_then(|at| usize::try_from(at.0).ok());
                let parts = length.and_then(|length| raw.record.split_at_checked(length));
                let Some((record, event)) = parts else {
                    return wrong("a record is longer than its bytes");
                };
                *raw = Raw { record, event };
                people += 1;
            }
        }
        if people != chunk.people.len() {
            return wrong("its people are not those of its records");
        }
        Ok(chunk)
    }
}

/// The stored key of a chunk.
#[must_use]
pub fn key(lane: LaneId, first: Seq) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    let (lane_part, seq_part) = key.split_at_mut(4);
    lane_part.copy_from_slice(&lane.0.to_be_bytes());
    seq_part.copy_from_slice(&first.0.to_be_bytes());
    key
}

/// The lane and seq of a stored key.
///
/// # Errors
/// [`ChunkError::Key`].
pub fn parse_key(key: &[u8]) -> Result<(LaneId, Seq), ChunkError> {
    let (lane, seq) = key.split_first_chunk::<4>().ok_or(ChunkError::Key(key.len()))?;
    let seq = <[u8; 8]>::try_from(seq).map_err(|_| ChunkError::Key(key.len()))?;
    Ok((LaneId(u32::from_be_bytes(*lane)), Seq(u64::from_be_bytes(seq))))
}

/// bincode 1.3 with every choice explicit: fixed-width integers, a size limit, no trailing bytes.
fn codec() -> impl bincode::Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_limit(VALUE_BYTES_MAX as u64 * 2)
        .reject_trailing_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed(records: &[(String, Vec<u8>)]) -> Chunk<'_> {
        let mut chunk = Chunk::new(UnixMillis(7), 11);
        for (record_type, record) in records {
            let packed = Packed { record_type, record, event: event(record) };
            if !chunk.push(packed, person(record), seen(record)) {
                break;
            }
        }
        chunk
    }

    /// None, one or two keys, by the record.
    fn person(record: &[u8]) -> PersonKeys {
        PersonKeys::new((0..record.len() as u64 % 3).map(PersonKey))
    }

    fn seen(record: &[u8]) -> Option<UnixMillis> {
        record.len().is_multiple_of(2).then_some(UnixMillis(u64::MAX - record.len() as u64))
    }

    /// None, the second half of the record, or nothing at all.
    fn event(record: &[u8]) -> Option<&[u8]> {
        (record.len() % 5 < 2).then(|| &record[record.len() / 2..])
    }

    fn plain(record: &[u8]) -> Packed<'_> {
        Packed { record_type: "a", record, event: None }
    }

    fn encoded(chunk: &Chunk<'_>) -> Vec<u8> {
        let mut value = Vec::new();
        chunk.encode(&mut value);
        value
    }

    fn records() -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
        proptest::collection::vec(
            ("[a-c]{1,2}", proptest::collection::vec(any::<u8>(), 0..900)),
            1..60,
        )
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(records in records(), lane: u32, first: u64) {
            let chunk = packed(&records);
            let value = encoded(&chunk);
            prop_assert_eq!(Chunk::decode(&value).unwrap(), chunk.clone());
            let buffer = Bytes::from(value);
            let entries = Chunk::decode(&buffer).unwrap().entries(Seq(5), Seq(0), &buffer);
            prop_assert_eq!(entries.len(), chunk.len());
            prop_assert!(entries.iter().all(|entry| entry.person == person(&entry.record)));
            prop_assert!(entries.iter().all(|entry| entry.first_seen == seen(&entry.record)));
            prop_assert!(entries.iter().all(|entry| entry.event.as_deref() == event(&entry.record)));
            prop_assert_eq!(entries.iter().map(Entry::bytes).sum::<usize>(), chunk.bytes());
            let whole = |(packed, entry): (Packed<'_>, &Entry)| packed.record == entry.record && packed.event == entry.event.as_deref();
            prop_assert!(chunk.records().zip(&entries).all(whole));
            prop_assert!(chunk.len() == 1 || chunk.bytes() <= CHUNK_BYTES);
            prop_assert_eq!(parse_key(&key(LaneId(lane), Seq(first))).unwrap(), (LaneId(lane), Seq(first)));
        }

        #[test]
        fn keys_order_as_lane_then_seq(a: (u32, u64), b: (u32, u64)) {
            prop_assert_eq!(key(LaneId(a.0), Seq(a.1)).cmp(&key(LaneId(b.0), Seq(b.1))), a.cmp(&b));
        }

        #[test]
        fn any_bytes_decode_or_err(value in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(chunk) = Chunk::decode(&value) {
                prop_assert!(!chunk.is_empty() && chunk.records().count() == chunk.len());
            }
        }
    }

    #[test]
    fn a_chunk_closes_at_its_size_and_a_large_record_fills_one_alone() {
        let (small, large) = (vec![b'x'; 12_000], vec![b'x'; ENTRY_BYTES_MAX / 2]);
        let mut chunk = Chunk::new(UnixMillis(0), 0);
        let nobody = PersonKeys::default();
        assert!(chunk.push(plain(&small), nobody, None) && chunk.push(plain(&small), nobody, None));
        assert!(!chunk.push(plain(&small), nobody, None));
        let mut alone = Chunk::new(UnixMillis(0), 0);
        let with_event = Packed { event: Some(&large), ..plain(&large) };
        assert!(alone.push(with_event, nobody, None));
        assert!(!alone.push(plain(b""), nobody, None));
        assert!(encoded(&alone).len() <= VALUE_BYTES_MAX);
        // What is kept beside a record fills its chunk as well.
        let mut beside = Chunk::new(UnixMillis(0), 0);
        assert!(beside.push(Packed { event: Some(&small), ..plain(&small) }, nobody, None));
        assert!(!beside.push(plain(&small), nobody, None));
    }

    /// Stores of earlier versions are read, and without events nothing is written otherwise than then.
    #[test]
    fn a_chunk_without_events_has_the_form_it_always_had() {
        let mut chunk = Chunk::new(UnixMillis(7), 11);
        let (person, seen) = (PersonKeys::new([PersonKey(5)]), Some(UnixMillis(9)));
        assert!(chunk.push(plain(b"xy"), person, seen));
        let number = u64::to_le_bytes;
        let parts: [&[u8]; 11] = [
            &number(7),
            &number(11),
            &number(1),
            &number(1),
            b"a",
            &number(1),
            &[0, 1 | SEEN],
            &number(2),
            b"xy",
            &number(2),
            &[number(5), number(9)].concat(),
        ];
        assert_eq!(encoded(&chunk), parts.concat());
    }

    #[test]
    fn a_length_that_cannot_be_is_refused() {
        let mut chunk = Chunk::new(UnixMillis(7), 11);
        let packed = Packed { event: Some(b"event"), ..plain(b"record") };
        assert!(chunk.push(packed, PersonKeys::default(), None));
        let value = encoded(&chunk);
        let (before, length) = value.split_at(value.len() - 8);
        assert_eq!(length, 6_u64.to_le_bytes());
        for (length, whole) in [(0, true), (11, true), (12, false), (u64::MAX, false)] {
            let value = [before, &u64::to_le_bytes(length)].concat();
            assert_eq!(Chunk::decode(&value).is_ok(), whole, "{length}");
        }
    }

    #[test]
    fn entries_start_where_they_are_asked_to() {
        let records: Vec<_> = (0..5_u8).map(|n| ("t".to_owned(), vec![n])).collect();
        let value = Bytes::from(encoded(&packed(&records)));
        let chunk = Chunk::decode(&value).unwrap();
        let seqs: Vec<u64> =
            chunk.entries(Seq(10), Seq(13), &value).iter().map(|entry| entry.seq.0).collect();
        assert_eq!(seqs, [13, 14]);
    }
}
