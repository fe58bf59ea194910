//! PURE. The token, and the sessions of those who have shown it.
//!
//! A session is `v1.<end>.<nonce>.<mac>`: until which second of the wall clock it lasts, a random number, and the HMAC-SHA256
//! of both under a key that the daemon draws when it starts. Nothing of it is kept, nor is who signed out: a restart ends every
//! session, those that were ended before with the others. Comparisons take the same time whatever is shown (ring verifies in
//! constant time).

use std::fmt;

use ring::hmac;

use crate::clock::UnixMillis;

/// A session lasts so long after it was last renewed.
pub(super) const SECONDS: u64 = 12 * 3600;
/// It is renewed when less is left.
const RENEW_SECONDS: u64 = SECONDS / 2;

/// The console's token. Its `Debug` shows nothing (Promise 8).
pub(super) struct Token {
    key: hmac::Key,
    /// What [`Token::is`] compares with.
    tag: hmac::Tag,
    /// What sessions are signed with.
    signs: hmac::Key,
}

/// A session that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    /// What names it among those that were ended.
    pub(super) nonce: String,
    /// Until when it lasts.
    pub(super) end: u64,
    /// Whether it should be renewed.
    pub(super) is_waning: bool,
}

impl Token {
    /// The token `text`; `secret` is random, and of this start alone.
    pub(super) fn new(text: &str, secret: &str) -> Token {
        let key = hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes());
        let tag = hmac::sign(&key, text.as_bytes());
        let signs = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        Token { key, tag, signs }
    }

    /// Whether `shown` is the token.
    pub(super) fn is(&self, shown: &str) -> bool {
        hmac::verify(&self.key, shown.as_bytes(), self.tag.as_ref()).is_ok()
    }

    /// A new session; `nonce` is random.
    pub(super) fn session(&self, nonce: &str, now: UnixMillis) -> String {
        let said = format!("v1.{}.{nonce}", now.0 / 1000 + SECONDS);
        let mac = hmac::sign(&self.signs, said.as_bytes());
        format!("{said}.{}", hex(mac.as_ref()))
    }

    /// The session that `shown` is at `now`.
    pub(super) fn admits(&self, shown: &str, now: UnixMillis) -> Option<Session> {
        let (said, mac) = shown.rsplit_once('.')?;
        let mac = unhex(mac)?;
        hmac::verify(&self.signs, said.as_bytes(), &mac).ok()?;
        let (end, nonce) = said.strip_prefix("v1.")?.split_once('.')?;
        let end: u64 = end.parse().ok()?;
        let left = end.checked_sub(now.0 / 1000).filter(|left| *left > 0)?;
        // A clock that was far ahead made sessions that would last as long.
        (left <= SECONDS).then(|| Session {
            nonce: nonce.to_owned(),
            end,
            is_waning: left < RENEW_SECONDS,
        })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(***)")
    }
}

/// The name of the cookie on `port`: browsers share cookies between the ports of a host, and another console may be there.
pub(super) fn cookie_name(port: &str) -> String {
    format!("pillarbox-{}", if port.is_empty() { "80" } else { port })
}

/// The value of the cookie `name` in a `Cookie` header (RFC 6265, section 4.2.1).
pub(super) fn cookie<'h>(header: &'h str, name: &str) -> Option<&'h str> {
    header.split(';').find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// Bytes as lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.chars().map(|digit| digit.to_digit(16)).collect::<Option<Vec<u32>>>()?;
    let pairs = digits.chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs
        .map(|pair| {
            pair.iter()
                .try_fold(0_u8, |byte, digit| u8::try_from(u32::from(byte) * 16 + digit).ok())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn later(seconds: u64) -> UnixMillis {
        UnixMillis(NOW.0 + seconds * 1000)
    }

    #[test]
    fn only_the_token_is_the_token() {
        let token = Token::new("0123456789abcdef0123456789abcdef", "s");
        assert!(token.is("0123456789abcdef0123456789abcdef"));
        for wrong in [
            "",
            "0123456789abcdef",
            "0123456789abcdef0123456789abcdeF",
            " 0123456789abcdef0123456789abcdef",
        ] {
            assert!(!token.is(wrong), "{wrong}");
        }
        assert_eq!(format!("{token:?}"), "Token(***)");
    }

    #[test]
    fn a_session_lasts_its_time_and_belongs_to_its_start() {
        let token = Token::new("a", "s");
        let session = token.session("n1", NOW);
        for (shown, at, expected) in [
            (session.clone(), NOW, Some(false)),
            (session.clone(), later(SECONDS / 2 + 1), Some(true)),
            (session.clone(), later(SECONDS - 1), Some(true)),
            (session.clone(), later(SECONDS), None),
            (session.clone(), UnixMillis(NOW.0 - 1000), None),
            (session.to_uppercase(), NOW, None),
            (session[..session.len() - 1].to_owned(), NOW, None),
            (session[..session.len() - 2].to_owned(), NOW, None),
            (session.replacen("v1.18", "v1.19", 1), NOW, None),
            (session.replacen("n1", "n2", 1), NOW, None),
            (format!("{session} "), NOW, None),
            (Token::new("a", "t").session("n1", NOW), NOW, None),
            (String::new(), NOW, None),
            ("v1...".to_owned(), NOW, None),
            ("v1.9.n1.zz".to_owned(), NOW, None),
        ] {
            let admitted = token.admits(&shown, at).map(|session| session.is_waning);
            assert_eq!(admitted, expected, "{shown}");
        }
        assert_eq!(token.admits(&session, NOW).unwrap().nonce, "n1");
    }

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        for (header, expected) in [
            ("pillarbox-8481=abc", Some("abc")),
            ("a=b; pillarbox-8481=abc; c=d", Some("abc")),
            ("pillarbox-84810=abc", None),
            ("xpillarbox-8481=abc", None),
            ("pillarbox-8481", None),
            ("", None),
        ] {
            assert_eq!(cookie(header, &cookie_name("8481")), expected, "{header}");
        }
        assert_eq!(cookie_name(""), "pillarbox-80");
    }

    #[test]
    fn digits_come_back() {
        assert_eq!(hex(&[0, 1, 0xab, 0xff]), "0001abff");
        assert_eq!(unhex("0001abff"), Some(vec![0, 1, 0xab, 0xff]));
        assert_eq!((unhex("0"), unhex("zz"), unhex("")), (None, None, Some(vec![])));
    }
}
