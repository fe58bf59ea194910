//! PURE. Parts as bytes: what frames are made of, and what the store holds (see `frame`).

use super::super::entry::{LaneId, Seq};
use super::frame::VERSION;

/// Bytes before a part's key.
pub(crate) const PART_HEAD_BYTES: usize = 14;
pub(crate) const PART_MARK: [u8; 2] = [0xB0, 0x5A];

/// Why bytes are not what they must be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// The bytes end within it.
    #[error("cut off")]
    Short,
    /// It does not begin as it must.
    #[error("does not begin with its mark")]
    Mark,
    /// A segment of another version.
    #[error("has format {0}, this program reads {VERSION}")]
    Version(u16),
    /// The checksum does not match.
    #[error("its checksum does not match its bytes")]
    Checksum,
    /// A kind or tree that no version knows, or a key of another length.
    #[error("holds an unknown kind of part")]
    Kind,
}

/// A tree of the store that a part changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Tree {
    /// Integrations and numbers of the lanes.
    Lanes = 1,
    /// Tallies of the lanes, and other numbers.
    Cursors = 2,
    /// The quarantine.
    Quarantine = 3,
    /// Stored traits.
    Identities = 4,
    /// What pushes came to.
    Deliveries = 5,
    /// The dedupe window.
    Dedupe = 6,
    /// What the log's segments hold; never in the log itself.
    Segments = 7,
    /// The identities by when they were last used.
    Ages = 8,
}

/// A part of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// Records: see `chunk`.
    Chunk {
        /// Their lane.
        lane: LaneId,
        /// The seq of the first.
        first: Seq,
        /// The encoded chunk.
        value: &'a [u8],
    },
    /// Sets a key of the store.
    Put {
        /// In which tree.
        tree: Tree,
        /// The key.
        key: &'a [u8],
        /// Its new value.
        value: &'a [u8],
    },
    /// Removes a key of the store.
    Remove {
        /// In which tree.
        tree: Tree,
        /// The key.
        key: &'a [u8],
    },
    /// A piece of a put that is too large for the store to hold as one; never in the log itself.
    Piece {
        /// See `values`.
        key: &'a [u8],
        /// The piece.
        value: &'a [u8],
    },
}

impl Part<'_> {
    /// Its bytes, as they lie in the log and in the store.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let key_of_chunk;
        let (kind, tree, key, value): (_, _, &[u8], &[u8]) = match *self {
            Part::Chunk { lane, first, value } => {
                key_of_chunk = chunk_key(lane, first);
                (CHUNK, 0, &key_of_chunk, value)
            }
            Part::Put { tree, key, value } => (PUT, tree as u8, key, value),
            Part::Remove { tree, key } => (REMOVE, tree as u8, key, &[]),
            Part::Piece { key, value } => (PIECE, 0, key, value),
        };
        add_part(&mut bytes, kind, tree, key, |bytes| bytes.extend_from_slice(value));
        bytes
    }
}

/// The head of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartHead {
    kind: u8,
    tree: u8,
    key: u16,
    value: u32,
    pub(super) crc: u32,
}

pub(super) const CHUNK: u8 = 1;
pub(super) const PUT: u8 = 2;
pub(super) const REMOVE: u8 = 3;
const PIECE: u8 = 4;

/// Appends a part, whose value `value` appends; returns its CRC.
pub(super) fn add_part(
    bytes: &mut Vec<u8>,
    kind: u8,
    tree: u8,
    key: &[u8],
    value: impl FnOnce(&mut Vec<u8>),
) -> u32 {
    let at = bytes.len();
    bytes.extend_from_slice(&[0; PART_HEAD_BYTES]);
    bytes.extend_from_slice(key);
    let value_at = bytes.len();
    value(bytes);
    let head = PartHead {
        kind,
        tree,
        key: u16::try_from(key.len()).expect("keys are short"),
        value: u32::try_from(bytes.len() - value_at).expect("a request is far below 4 GiB"),
        crc: 0,
    };
    let body = bytes.get(at + PART_HEAD_BYTES..).unwrap_or_default();
    let head = PartHead { crc: head.checksum(body), ..head };
    if let Some(place) = bytes.get_mut(at..at + PART_HEAD_BYTES) {
        place.copy_from_slice(&head.encode());
    }
    head.crc
}

impl PartHead {
    fn encode(self) -> [u8; PART_HEAD_BYTES] {
        let mut bytes = [0; PART_HEAD_BYTES];
        let mut at = Writer(&mut bytes);
        at.put(&PART_MARK);
        at.put(&[self.kind, self.tree]);
        at.put(&self.key.to_be_bytes());
        at.put(&self.value.to_be_bytes());
        at.put(&self.crc.to_be_bytes());
        bytes
    }

    fn checksum(self, body: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(self.encode().get(2..PART_HEAD_BYTES - 4).unwrap_or_default());
        hasher.update(body);
        hasher.finalize()
    }

    /// Reads the head alone, without its checksum.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub(crate) fn decode(bytes: &[u8]) -> Result<PartHead, FrameError> {
        let mut at = Reader(bytes);
        if at.take::<2>()? != PART_MARK {
            return Err(FrameError::Mark);
        }
        let [kind, tree] = at.take()?;
        Ok(PartHead { kind, tree, key: at.u16()?, value: at.u32()?, crc: at.u32()? })
    }

    /// The part's size in the file.
    pub(crate) fn size(self) -> usize {
        PART_HEAD_BYTES + usize::from(self.key) + self.value as usize
    }

    /// Whether a head of this kind can be at all: what is carved out of any bytes should not be summed in vain.
    pub(crate) fn is_likely(self) -> bool {
        (CHUNK..=PIECE).contains(&self.kind) && self.tree <= Tree::Ages as u8
    }

    /// The lane and first seq of a chunk, whose part begins `bytes`: not checked yet.
    pub(crate) fn chunk_key(self, bytes: &[u8]) -> Option<(LaneId, Seq)> {
        let key = bytes.get(PART_HEAD_BYTES..)?.first_chunk::<12>()?;
        (self.kind == CHUNK && self.key == 12).then(|| parse_chunk_key(key))
    }

    /// Checks the part that begins `bytes`.
    ///
    /// # Errors
    /// See [`FrameError`].
    pub(crate) fn part(self, bytes: &[u8]) -> Result<Part<'_>, FrameError> {
        let body = bytes.get(PART_HEAD_BYTES..self.size()).ok_or(FrameError::Short)?;
        if self.checksum(body) == self.crc { self.read(bytes) } else { Err(FrameError::Checksum) }
    }

    /// The part that begins `bytes`, unchecked.
    pub(super) fn read(self, bytes: &[u8]) -> Result<Part<'_>, FrameError> {
        let body = bytes.get(PART_HEAD_BYTES..self.size()).ok_or(FrameError::Short)?;
        let (key, value) = body.split_at_checked(usize::from(self.key)).ok_or(FrameError::Short)?;
        match self.kind {
            CHUNK => {
                let key = key.try_into().map_err(|_| FrameError::Kind)?;
                let (lane, first) = parse_chunk_key(key);
                Ok(Part::Chunk { lane, first, value })
            }
            PUT => Ok(Part::Put { tree: Tree::of(self.tree)?, key, value }),
            REMOVE => Ok(Part::Remove { tree: Tree::of(self.tree)?, key }),
            PIECE => Ok(Part::Piece { key, value }),
            _ => Err(FrameError::Kind),
        }
    }
}

/// A part's size in the file.
pub(crate) fn part_size(part: &Part<'_>) -> u64 {
    let (key, value) = match part {
        Part::Chunk { value, .. } => (12, value.len()),
        Part::Put { key, value, .. } | Part::Piece { key, value } => (key.len(), value.len()),
        Part::Remove { key, .. } => (key.len(), 0),
    };
    (PART_HEAD_BYTES + key + value) as u64
}

impl Tree {
    fn of(tree: u8) -> Result<Tree, FrameError> {
        let all = [
            Tree::Lanes,
            Tree::Cursors,
            Tree::Quarantine,
            Tree::Identities,
            Tree::Deliveries,
            Tree::Dedupe,
            Tree::Segments,
            Tree::Ages,
        ];
        all.into_iter().find(|known| *known as u8 == tree).ok_or(FrameError::Kind)
    }
}

pub(super) fn chunk_key(lane: LaneId, first: Seq) -> [u8; 12] {
    super::super::chunk::key(lane, first)
}

fn parse_chunk_key(key: &[u8; 12]) -> (LaneId, Seq) {
    let [l0, l1, l2, l3, seq @ ..] = *key;
    (LaneId(u32::from_be_bytes([l0, l1, l2, l3])), Seq(u64::from_be_bytes(seq)))
}

/// Takes integers off the front of bytes.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(FrameError::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn u16(&mut self) -> Result<u16, FrameError> {
        self.take().map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, FrameError> {
        self.take().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, FrameError> {
        self.take().map(u64::from_be_bytes)
    }
}

/// Puts bytes one after the other into a head of fixed size.
pub(super) struct Writer<'a>(pub(super) &'a mut [u8]);

impl Writer<'_> {
    pub(super) fn put(&mut self, bytes: &[u8]) {
        let (place, rest) = std::mem::take(&mut self.0).split_at_mut(bytes.len());
        place.copy_from_slice(bytes);
        self.0 = rest;
    }
}
