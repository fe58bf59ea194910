//! `Content-Encoding` of a request's body: as it is, or gzip, which Segment's clients use whatever the `Content-Type`.

use std::borrow::Cow;
use std::io::Read as _;

use flate2::read::MultiGzDecoder;

use super::answer::Refusal;

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As it is.
    Identity,
    /// RFC 1952.
    Gzip,
}

impl Encoding {
    /// Reads the value of a `Content-Encoding` header; `None`: there is none.
    ///
    /// # Errors
    /// `unsupported_encoding`.
    pub(super) fn of(header: Option<&[u8]>) -> Result<Encoding, Refusal> {
        let value = header.unwrap_or_default().trim_ascii();
        let is = |name: &str| value.eq_ignore_ascii_case(name.as_bytes());
        if value.is_empty() || is("identity") {
            return Ok(Encoding::Identity);
        }
        if is("gzip") || is("x-gzip") {
            return Ok(Encoding::Gzip);
        }
        let message = "Content-Encoding must be gzip or identity";
        Err(Refusal::new("unsupported_encoding", message))
    }

    /// The body as text; inflates at most `bytes_max` bytes and one, so that a small body cannot become a large one.
    ///
    /// # Errors
    /// `too_large`, or `invalid_json` for a body that is no whole gzip.
    pub(super) fn decode(self, body: &[u8], bytes_max: usize) -> Result<Cow<'_, [u8]>, Refusal> {
        if self == Encoding::Identity {
            return Ok(Cow::Borrowed(body));
        }
        let mut inflated = Vec::with_capacity(body.len().saturating_mul(4).min(bytes_max));
        let limit = (bytes_max as u64).saturating_add(1);
        let read = MultiGzDecoder::new(body).take(limit).read_to_end(&mut inflated);
        if inflated.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        read.map_err(|error| {
            Refusal::new("invalid_json", format!("the body is no whole gzip ({error}): send it again, or without Content-Encoding"))
        })?;
        Ok(Cow::Owned(inflated))
    }
}

/// A body over the limit, as it came or inflated.
pub(super) fn too_large(bytes_max: usize) -> Refusal {
    Refusal::new("too_large", format!("the body is over {bytes_max} bytes (ingest.max_request)"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn code(body: &[u8], bytes_max: usize) -> &'static str {
        Encoding::Gzip.decode(body, bytes_max).map_or_else(|refusal| refusal.code, |_| "")
    }

    #[test]
    fn encodings_are_read_as_clients_write_them() {
        for (header, encoding) in [
            (None, Some(Encoding::Identity)),
            (Some("identity"), Some(Encoding::Identity)),
            (Some(""), Some(Encoding::Identity)),
            (Some("gzip"), Some(Encoding::Gzip)),
            (Some(" GZip "), Some(Encoding::Gzip)),
            (Some("x-gzip"), Some(Encoding::Gzip)),
            (Some("br"), None),
            (Some("gzip, gzip"), None),
            (Some("deflate"), None),
        ] {
            assert_eq!(Encoding::of(header.map(str::as_bytes)).ok(), encoding, "{header:?}");
        }
    }

    #[test]
    fn what_is_no_whole_gzip_or_too_large_is_refused() {
        let whole = gzip(br#"{"event":"x"}"#);
        assert_eq!(Encoding::Gzip.decode(&whole, 13).unwrap(), &br#"{"event":"x"}"#[..]);
        let two = [whole.clone(), whole.clone()].concat();
        assert_eq!(Encoding::Gzip.decode(&two, 26).unwrap().len(), 26);
        let bomb = gzip(&vec![b' '; 50 << 20]);
        let mut flipped = whole.clone();
        flipped[15] ^= 1;
        for (body, bytes_max, expected) in [
            (&whole[..], 12, "too_large"),
            (&two, 25, "too_large"),
            (&bomb, 1 << 20, "too_large"),
            (&whole[..whole.len() - 1], 100, "invalid_json"),
            (&whole[..5], 100, "invalid_json"),
            (&[whole.clone(), b"trailing".to_vec()].concat(), 100, "invalid_json"),
            (&flipped, 100, "invalid_json"),
            (b"{}", 100, "invalid_json"),
            (b"", 100, "invalid_json"),
        ] {
            assert_eq!(code(body, bytes_max), expected);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_inflate_beyond_the_limit(body in proptest::collection::vec(any::<u8>(), 0..200), max in 0_usize..100) {
            for body in [gzip(&body), body] {
                if let Ok(inflated) = Encoding::Gzip.decode(&body, max) {
                    prop_assert!(inflated.len() <= max);
                }
            }
        }
    }
}
