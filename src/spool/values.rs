//! The values of a tree, of any size, each telling what it is.
//!
//! A value lies in the store as it lies in the log, as a part with its tree, its key and a checksum (see `log::frame`): so
//! it is checked when it is read, and can be carved out of a file that the engine no longer opens.
//!
//! sled writes a whole leaf of up to 17 values as one, and moves it into a file that it never syncs once it is over a
//! quarter of a segment (DESIGN.md section 9). Small segments are fast: each is a fresh buffer. So a part over
//! [`INLINE_BYTES_MAX`] lies in pieces beside its tree, each of them a part, and a stub stands in its place:
//!
//! ```text
//! tree   key                    the part, or 0xFF ‖ id (16 bytes) ‖ length u64 BE
//! parts  id ‖ number u16 BE     a piece of at most INLINE_BYTES_MAX bytes of the part
//! ```
//! The pieces are written before the stub, under an id of their own, and removed after it: at every crash point a key
//! has its old value or its new one. Pieces that a crash leaves without a stub are never read.

use sled::IVec;
use uuid::Uuid;

use super::log::frame::{PART_HEAD_BYTES, Part, PartHead, Tree};
use super::store::StoreError;

/// A larger part lies in pieces.
pub(super) const INLINE_BYTES_MAX: usize = 12 << 10;
/// No part begins with it.
const STUB: u8 = 0xFF;
const ID_BYTES: usize = 16;

/// A tree and the pieces of its large values.
#[derive(Debug)]
pub(super) struct Values {
    of: Tree,
    /// Keys and parts or stubs; iterated by who knows the keys.
    pub(super) tree: sled::Tree,
    parts: sled::Tree,
}

/// What stands in the place of a large value.
struct Stub {
    id: [u8; ID_BYTES],
    bytes: u64,
}

impl Values {
    /// The values of `tree`, which is `of` among the trees; `parts` may serve several.
    pub(super) fn new(of: Tree, tree: sled::Tree, parts: sled::Tree) -> Values {
        Values { of, tree, parts }
    }

    /// Sets the value of `key`.
    pub(super) fn insert(&self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let part = Part::Put { tree: self.of, key, value }.encode();
        let stored = if part.len() <= INLINE_BYTES_MAX {
            part
        } else {
            let stub = Stub { id: Uuid::now_v7().into_bytes(), bytes: part.len() as u64 };
            for (number, value) in (0_u16..).zip(part.chunks(INLINE_BYTES_MAX)) {
                let key = piece_key(&stub.id, number);
                let piece = Part::Piece { key: &key, value };
                self.parts.insert(&key, piece.encode())?;
            }
            stub.encode()
        };
        let old = self.tree.insert(key, stored)?;
        self.remove_parts(old.as_ref())
    }

    /// The value of `key`.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<IVec>, StoreError> {
        self.tree.get(key)?.map_or(Ok(None), |stored| self.read(key, stored))
    }

    /// The value of `key`, where the tree held `stored` a moment ago; `None` when it has been removed since.
    ///
    /// A value that is replaced while its parts are read is read anew: only parts that are missing although their stub
    /// still stands are damage.
    pub(super) fn read(&self, key: &[u8], mut stored: IVec) -> Result<Option<IVec>, StoreError> {
        loop {
            let error = match self.resolve(key, &stored) {
                Ok(value) => return Ok(Some(value)),
                Err(error) => error,
            };
            match self.tree.get(key)? {
                Some(now) if now == stored => return Err(error),
                Some(now) => stored = now,
                None => return Ok(None),
            }
        }
    }

    /// The value that `stored`, read from the tree at `key`, is or stands for.
    fn resolve(&self, key: &[u8], stored: &IVec) -> Result<IVec, StoreError> {
        let Some(stub) = Stub::decode(stored) else { return self.checked(key, stored) };
        let mut part =
            Vec::with_capacity(usize::try_from(stub.bytes).unwrap_or_default().min(1 << 20));
        for item in self.parts.scan_prefix(stub.id) {
            let (at, piece) = item?;
            match part_of(&piece) {
                Ok(Part::Piece { key, value }) if key == at.as_ref() => {
                    part.extend_from_slice(value);
                }
                _ => return Err(StoreError("a piece of a value is damaged".to_owned())),
            }
        }
        if part.len() as u64 != stub.bytes {
            let what = format!("a value of {} bytes has only {}", stub.bytes, part.len());
            return Err(StoreError(what));
        }
        self.checked(key, &part)
    }

    /// The value of a part that must be this tree's, under `key`.
    fn checked(&self, key: &[u8], part: &[u8]) -> Result<IVec, StoreError> {
        match part_of(part) {
            Ok(Part::Put { tree, key: found, value }) if (tree, found) == (self.of, key) => {
                Ok(IVec::from(value))
            }
            Ok(_) => Err(StoreError("a value lies in another's place".to_owned())),
            Err(error) => Err(StoreError(format!("a stored value: {error}"))),
        }
    }

    /// The bytes of the value that `stored` at `key` is or stands for.
    pub(super) fn bytes(key: &[u8], stored: &IVec) -> u64 {
        let part = Stub::decode(stored).map_or(stored.len() as u64, |stub| stub.bytes);
        part.saturating_sub((PART_HEAD_BYTES + key.len()) as u64)
    }

    /// Removes `key`; returns the bytes of its value, or `None` when it had none.
    pub(super) fn remove(&self, key: &[u8]) -> Result<Option<u64>, StoreError> {
        let old = self.tree.remove(key)?;
        self.remove_parts(old.as_ref())?;
        Ok(old.as_ref().map(|old| Values::bytes(key, old)))
    }

    fn remove_parts(&self, stored: Option<&IVec>) -> Result<(), StoreError> {
        let Some(stub) = stored.and_then(|stored| Stub::decode(stored)) else { return Ok(()) };
        for key in self.parts.scan_prefix(stub.id).keys() {
            self.parts.remove(key?)?;
        }
        Ok(())
    }
}

fn part_of(bytes: &[u8]) -> Result<Part<'_>, super::log::frame::FrameError> {
    PartHead::decode(bytes)?.part(bytes)
}

fn piece_key(id: &[u8; ID_BYTES], number: u16) -> Vec<u8> {
    [&id[..], &number.to_be_bytes()].concat()
}

impl Stub {
    fn encode(&self) -> Vec<u8> {
        [&[STUB][..], &self.id, &self.bytes.to_be_bytes()].concat()
    }

    fn decode(stored: &[u8]) -> Option<Stub> {
        let (mark, rest) = stored.split_first()?;
        let (id, bytes) = rest.split_first_chunk::<ID_BYTES>()?;
        let bytes = u64::from_be_bytes(bytes.try_into().ok()?);
        (*mark == STUB).then_some(Stub { id: *id, bytes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values() -> (tempfile::TempDir, Values) {
        let directory = tempfile::tempdir().unwrap();
        let db = sled::Config::new().path(directory.path()).flush_every_ms(None).open().unwrap();
        let values = Values::new(
            Tree::Quarantine,
            db.open_tree("tree").unwrap(),
            db.open_tree("parts").unwrap(),
        );
        (directory, values)
    }

    /// Into how many pieces a value of the key `key` goes: what counts is the part, with its head and key.
    fn pieces(value_bytes: usize) -> usize {
        let part_bytes = PART_HEAD_BYTES + b"key".len() + value_bytes;
        if part_bytes > INLINE_BYTES_MAX { part_bytes.div_ceil(INLINE_BYTES_MAX) } else { 0 }
    }

    #[test]
    fn the_part_and_not_the_value_decides_where_it_lies() {
        let (_directory, values) = values();
        let around = PART_HEAD_BYTES + b"key".len();
        for (value_bytes, expected) in [
            (INLINE_BYTES_MAX - around, 0),
            (INLINE_BYTES_MAX - around + 1, 2),
            (INLINE_BYTES_MAX, 2),
            (2 * INLINE_BYTES_MAX - around, 2),
            (2 * INLINE_BYTES_MAX - around + 1, 3),
        ] {
            values.insert(b"key", &vec![7; value_bytes]).unwrap();
            assert_eq!(values.get(b"key").unwrap().unwrap(), vec![7; value_bytes]);
            assert_eq!((values.parts.len(), pieces(value_bytes)), (expected, expected));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

        /// Whatever sizes follow each other under a key, it has its last value, and no part outlives its stub.
        #[test]
        fn a_key_has_its_last_value(sizes in proptest::collection::vec(proptest::option::of(0_usize..80_000), 1..12)) {
            let (_directory, values) = values();
            let mut last: Option<Vec<u8>> = None;
            for (step, size) in (0_u8..).zip(sizes) {
                if let Some(size) = size {
                    let value = vec![step; size];
                    values.insert(b"key", &value).unwrap();
                    last = Some(value);
                } else {
                    let removed = values.remove(b"key").unwrap();
                    prop_assert_eq!(removed, last.take().map(|value| value.len() as u64));
                }
                let read = values.get(b"key").unwrap();
                prop_assert!(read.as_deref() == last.as_deref(), "another value after step {}", step);
                prop_assert_eq!(values.parts.len(), last.as_ref().map_or(0, |value| pieces(value.len())));
            }
        }
    }

    /// A reader that took the stub before the value was replaced or removed is not told of damage.
    #[test]
    fn a_value_that_is_replaced_while_it_is_read_is_read_anew() {
        let (_directory, values) = values();
        values.insert(b"key", &vec![1; 60_000]).unwrap();
        let stub = values.tree.get(b"key").unwrap().unwrap();
        values.insert(b"key", &vec![2; 50_000]).unwrap();
        assert!(values.resolve(b"key", &stub).is_err(), "the first value's parts are gone");
        assert_eq!(values.read(b"key", stub.clone()).unwrap().unwrap(), vec![2; 50_000]);
        values.remove(b"key").unwrap();
        assert_eq!(values.read(b"key", stub).unwrap(), None);
    }

    #[test]
    fn a_lost_part_is_noticed() {
        let (_directory, values) = values();
        values.insert(b"key", &vec![1; 50_000]).unwrap();
        let first = values.parts.first().unwrap().unwrap().0;
        values.parts.remove(first).unwrap();
        assert!(values.get(b"key").unwrap_err().0.contains("50017 bytes"));
    }
}
