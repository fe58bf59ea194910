//! PURE. Who may hand over events over TCP: producers that show a write key.
//!
//! A key comes as the user of `Authorization: Basic` (Segment's clients; the password is not looked at) or as
//! `Authorization: Bearer` (Datafly); clients of Ometria show it where they have their API key, in
//! `X-Ometria-Auth`. On the Unix socket the file's mode decides, and no key is asked for.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

/// The write keys, as their SHA-256 digests: a comparison tells nothing of a key by the time it takes, and nothing here can
/// show one (Promise 8).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct WriteKeys(Vec<[u8; 32]>);

impl WriteKeys {
    /// These keys.
    pub fn new(keys: impl IntoIterator<Item = impl AsRef<str>>) -> WriteKeys {
        WriteKeys(keys.into_iter().map(|key| sha256(key.as_ref().as_bytes())).collect())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the value of an `Authorization` header shows one of the keys.
    #[must_use]
    pub fn admit(&self, authorization: &[u8]) -> bool {
        shown(authorization).is_some_and(|key| self.has(&key))
    }

    /// Whether `key` is one of them.
    #[must_use]
    pub fn has(&self, key: &[u8]) -> bool {
        self.0.contains(&sha256(key))
    }
}

impl fmt::Debug for WriteKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "WriteKeys({})", self.0.len())
    }
}

/// The key in the value of an `Authorization` header (RFC 9110, section 11.4; RFC 7617; RFC 6750).
fn shown(authorization: &[u8]) -> Option<Vec<u8>> {
    let (scheme, rest) = std::str::from_utf8(authorization).ok()?.trim().split_once(' ')?;
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.as_bytes().to_vec());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let mut key = STANDARD.decode(rest).ok()?;
    let end = key.iter().position(|&byte| byte == b':').unwrap_or(key.len());
    key.truncate(end);
    Some(key)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_admitted_as_basic_user_or_bearer() {
        let keys = WriteKeys::new(["k3y", "other-key"]);
        for (value, admitted) in [
            ("Basic azN5Og==", true),         // k3y:
            ("basic azN5OnBhc3N3b3Jk", true), // k3y:password
            ("Basic azN5", true),             // k3y, as some clients forget the colon
            ("Bearer k3y", true),
            ("BEARER  other-key ", true),
            ("Bearer k3", false),
            ("Bearer k3yy", false),
            ("Bearer K3Y", false),
            ("Bearer ", false),
            ("Bearer", false),
            ("Basic OmszeQ==", false), // :k3y
            ("Basic ????", false),
            ("Basic ", false),
            ("Digest k3y", false),
            ("k3y", false),
            ("", false),
        ] {
            assert_eq!(keys.admit(value.as_bytes()), admitted, "{value}");
        }
        assert!(!keys.admit(b"Bearer \xff"));
        assert!(!WriteKeys::default().admit(b"Bearer "));
        assert_eq!(format!("{keys:?}"), "WriteKeys(2)");
    }
}
