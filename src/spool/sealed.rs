//! PURE. Small stored values: `version u8 ‖ CRC-32 u32 BE ‖ bincode`, checksummed together with their key. The version
//! is 1 unless who seals it has changed its shape since.

use bincode::Options as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

const VERSION: u8 = 1;
const HEAD_BYTES: usize = 5;

/// Why stored bytes are not what was sealed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SealError {
    /// Shorter than its head.
    #[error("the entry is cut off after {0} bytes")]
    Short(usize),
    /// Written by another version.
    #[error("the entry has format {0}, which this program does not read")]
    Version(u8),
    /// The checksum does not match.
    #[error("the entry's checksum does not match its bytes")]
    Checksum,
    /// The body does not decode.
    #[error("the entry does not decode: {0}")]
    Body(String),
}

/// The stored form of `value` under `key`.
///
/// # Panics
/// When `value` is larger than [`SEALED_BYTES_MAX`]: the caller bounds it.
pub(super) fn seal<T: Serialize>(key: &[u8], value: &T) -> Vec<u8> {
    seal_as(VERSION, key, value)
}

/// The same, in another version of its shape.
pub(super) fn seal_as<T: Serialize>(version: u8, key: &[u8], value: &T) -> Vec<u8> {
    let body = codec().serialize(value).expect("the caller keeps values under SEALED_BYTES_MAX");
    let mut sealed = Vec::with_capacity(HEAD_BYTES + body.len());
    sealed.push(version);
    sealed.extend_from_slice(&checksum(key, &body).to_be_bytes());
    sealed.extend_from_slice(&body);
    sealed
}

/// Reads what [`seal`] made under the same key.
///
/// # Errors
/// See [`SealError`]: whatever the bytes are, never a panic.
pub(super) fn unseal<T: DeserializeOwned>(key: &[u8], sealed: &[u8]) -> Result<T, SealError> {
    unseal_as(VERSION, key, sealed)
}

/// Reads what [`seal_as`] made in this version under the same key.
///
/// # Errors
/// As [`unseal`].
pub(super) fn unseal_as<T: DeserializeOwned>(
    wanted: u8,
    key: &[u8],
    sealed: &[u8],
) -> Result<T, SealError> {
    let Some((&[version, s0, s1, s2, s3], body)) = sealed.split_first_chunk::<HEAD_BYTES>() else {
        return Err(SealError::Short(sealed.len()));
    };
    if version != wanted {
        return Err(SealError::Version(version));
    }
    if checksum(key, body) != u32::from_be_bytes([s0, s1, s2, s3]) {
        return Err(SealError::Checksum);
    }
    codec().deserialize(body).map_err(|error| SealError::Body(error.to_string()))
}

/// The largest value that can be sealed: a whole request in the quarantine, with room to spare.
pub(super) const SEALED_BYTES_MAX: u64 = 72 * 1024 * 1024;

fn checksum(key: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(body);
    hasher.finalize()
}

fn codec() -> impl bincode::Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_limit(SEALED_BYTES_MAX)
        .reject_trailing_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sealed_values_come_back(key: [u8; 8], text: String, number: u64) {
            let sealed = seal(&key, &(text.clone(), number));
            prop_assert_eq!(unseal::<(String, u64)>(&key, &sealed).unwrap(), (text, number));
        }

        #[test]
        fn any_bytes_unseal_or_err(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(unseal::<(String, u64)>(b"key", &bytes).is_err());
        }
    }

    #[test]
    fn another_key_or_a_flipped_bit_is_noticed() {
        let mut sealed = seal(b"a", &7_u64);
        assert_eq!(unseal::<u64>(b"b", &sealed), Err(SealError::Checksum));
        sealed[6] ^= 1;
        assert_eq!(unseal::<u64>(b"a", &sealed), Err(SealError::Checksum));
        assert_eq!(unseal::<u64>(b"a", &[9, 0, 0, 0, 0]), Err(SealError::Version(9)));
    }
}
