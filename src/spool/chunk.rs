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

use super::entry::{Entry, LaneId, PersonKey, PersonKeys, RECORD_BYTES_MAX, Seq};
use crate::clock::UnixMillis;

/// A chunk is closed before its records exceed this; a larger record fills one alone.
pub const CHUNK_BYTES: usize = 28 * 1024;
/// Records in one chunk: small records must not make a chunk slow to read.
pub const CHUNK_RECORDS_MAX: usize = 512;
/// The largest value this module makes: one record of the largest size and what stands around it.
pub const VALUE_BYTES_MAX: usize = RECORD_BYTES_MAX + 1024;

const KEY_BYTES: usize = 12;
/// See [`Chunk`]: records that come back from the quarantine are few.
const SEEN: u8 = 0x80;

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
    /// no key, but when the record was first set aside.
    #[serde(borrow)]
    records: Vec<(u8, u8, Raw<'a>)>,
    /// The keys of the records' people, in the records' order.
    people: Vec<PersonKey>,
    /// The bytes of `records`, so that packing need not add them up for each.
    #[serde(skip)]
    bytes: usize,
}

/// Bytes that bincode copies as one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Raw<'a>(&'a [u8]);

impl Serialize for Raw<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&[u8]>::deserialize(deserializer).map(Raw)
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
        record_type: &'a str,
        record: &'a [u8],
        person: PersonKeys,
        first_seen: Option<UnixMillis>,
    ) -> bool {
        let full = self.records.len() == CHUNK_RECORDS_MAX
            || (!self.records.is_empty() && self.bytes + record.len() > CHUNK_BYTES);
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
        self.records.push((index, keys | seen, Raw(record)));
        self.bytes += record.len();
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

    /// The bytes of its records.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its records' (`@type`, bytes), in order.
    pub fn records(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + '_ {
        self.records.iter().map(|(index, _, record)| {
            (self.types.get(usize::from(*index)).copied().unwrap_or_default(), record.0)
        })
    }

    /// The records from `from` on as entries, when the chunk begins at `first`. Their bytes stay in `buffer`, of which
    /// the chunk was decoded.
    #[must_use]
    pub fn entries(&self, first: Seq, from: Seq, buffer: &Bytes) -> Vec<Entry> {
        let types: Vec<Arc<str>> = self.types.iter().map(|name| Arc::from(*name)).collect();
        let mut people = self.people.iter().copied();
        let all = self.records.iter().zip(first.0..).map(|((index, keys, record), seq)| {
            let person = PersonKeys::new(people.by_ref().take(usize::from(keys & !SEEN)));
            let first_seen = (keys & SEEN > 0).then(|| people.next()).flatten();
            (seq, index, record, person, first_seen.map(|at| UnixMillis(at.0)))
        });
        let later = all.filter(|(seq, ..)| *seq >= from.0);
        later
            .filter_map(|(seq, index, record, person, first_seen)| {
                let record_type = types.get(usize::from(*index))?.clone();
                let record = buffer.slice_ref(record.0);
                let committed_at = self.committed_at;
                let seq = Seq(seq);
                Some(Entry { seq, record_type, record, person, first_seen, committed_at })
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
        if chunk.records.iter().any(|(index, ..)| usize::from(*index) >= chunk.types.len()) {
            return Err(ChunkError::Body("a record's type is not in the list".to_owned()));
        }
        let of = |keys: u8| usize::from(keys & !SEEN) + usize::from(keys & SEEN > 0);
        if chunk.records.iter().any(|(_, keys, _)| usize::from(keys & !SEEN) > PersonKeys::MAX) {
            return Err(ChunkError::Body("a record has too many people".to_owned()));
        }
        let keys: usize = chunk.records.iter().map(|(_, keys, _)| of(*keys)).sum();
        if keys != chunk.people.len() {
            return Err(ChunkError::Body("its people are not those of its records".to_owned()));
        }
        chunk.bytes = chunk.records.iter().map(|(.., record)| record.0.len()).sum();
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
            if !chunk.push(record_type, record, person(record), seen(record)) {
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
        let (small, large) = (vec![b'x'; 12_000], vec![b'x'; RECORD_BYTES_MAX]);
        let mut chunk = Chunk::new(UnixMillis(0), 0);
        let nobody = PersonKeys::default();
        assert!(chunk.push("a", &small, nobody, None) && chunk.push("a", &small, nobody, None));
        assert!(!chunk.push("a", &small, nobody, None));
        let mut alone = Chunk::new(UnixMillis(0), 0);
        assert!(alone.push("a", &large, nobody, None));
        assert!(!alone.push("a", b""[..].as_ref(), nobody, None));
        assert!(encoded(&alone).len() <= VALUE_BYTES_MAX);
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
