//! Who an event is about: the keys identities are stored under, what an identify adds to them, and the
//! e-mail address that a record gets from them.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::event::object::parse_bytes;
use crate::event::{Event, Kind, Object, value};

/// The most bytes of traits that one identify may bring: what a record may have, for the same store.
pub const TRAITS_BYTES_MAX: usize = super::RECORD_BYTES_MAX;

/// What is stored for the two ids of an event: traits, each as a JSON object.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity<'a> {
    /// For its `userId`.
    pub user: Option<&'a [u8]>,
    /// For its `anonymousId`.
    pub anonymous: Option<&'a [u8]>,
}

/// A longer id is stored under its digest: keys stay short whatever a producer sends.
const ID_BYTES_MAX: usize = 256;

/// Whose identity it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IdentityKey<'a> {
    /// That of a `userId`.
    User(&'a str),
    /// That of an `anonymousId`.
    Anonymous(&'a str),
}

impl IdentityKey<'_> {
    /// The key that it is stored under.
    #[must_use]
    pub fn stored(self) -> String {
        use std::fmt::Write as _;

        let (kind, id) = match self {
            IdentityKey::User(id) => ('u', id),
            IdentityKey::Anonymous(id) => ('a', id),
        };
        if id.len() <= ID_BYTES_MAX {
            return format!("{kind}:{id}");
        }
        let mut key = format!("{kind}#");
        for byte in ring::digest::digest(&ring::digest::SHA256, id.as_bytes()).as_ref() {
            write!(key, "{byte:02x}").expect("writing into memory cannot fail");
        }
        key
    }
}

/// Whose identities an event is about: its `userId`'s and its `anonymousId`'s.
#[must_use]
pub fn identity_keys<'e>(
    event: &'e Event<'_>,
) -> (Option<IdentityKey<'e>>, Option<IdentityKey<'e>>) {
    let user = event.user_id.as_deref().map(IdentityKey::User);
    (user, event.anonymous_id.as_deref().map(IdentityKey::Anonymous))
}

/// What an event changes in the stored identities: for each that it is about, the traits to
/// [merge](crate::event::object::merge).
///
/// Only an identify changes any, with its `traits` over its `context.traits`; a `null` among them is kept,
/// because merging it removes the trait. Empty when it brings no traits, or more than [`TRAITS_BYTES_MAX`],
/// which [`super::map`] refuses.
#[must_use]
pub fn identity_change<'e>(event: &'e Event<'_>) -> Vec<(IdentityKey<'e>, Vec<u8>)> {
    if event.kind != Kind::Identify {
        return Vec::new();
    }
    let traits = all_traits(event);
    if traits.is_empty() || traits.json_bytes() > TRAITS_BYTES_MAX {
        return Vec::new();
    }
    let (user, anonymous) = identity_keys(event);
    let json = traits.to_json();
    user.into_iter().chain(anonymous).map(|key| (key, json.clone())).collect()
}

/// Why the traits of an identify cannot be stored; `None` when they can.
#[must_use]
pub fn too_large(event: &Event<'_>) -> Option<String> {
    let bytes = all_traits(event).json_bytes();
    (bytes > TRAITS_BYTES_MAX)
        .then(|| format!("the traits have {bytes} bytes, the limit is {TRAITS_BYTES_MAX}"))
}

fn all_traits<'a>(event: &Event<'a>) -> Object<'a> {
    match event.context.object("traits") {
        Some(under) => under.overlaid(&event.traits),
        None => event.traits.clone(),
    }
}

/// The e-mail address of the person: what the event itself says, else what is stored for its `userId`, else
/// for its `anonymousId`. Trimmed, otherwise as given; what is blank or no string is passed over.
#[must_use]
pub fn email(event: &Event<'_>, identity: &Identity<'_>) -> Option<String> {
    address(event.context.member("traits", "email"))
        .or_else(|| address(event.traits.get("email")))
        .or_else(|| address(event.properties.get("email")))
        .map(Cow::into_owned)
        .or_else(|| stored_address(identity.user))
        .or_else(|| stored_address(identity.anonymous))
}

fn stored_address(traits: Option<&[u8]>) -> Option<String> {
    address(parse_bytes(traits?)?.get("email")).map(Cow::into_owned)
}

fn address(value: Option<&RawValue>) -> Option<Cow<'_, str>> {
    let trimmed = match value::text(value?)? {
        Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
        Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
    };
    Some(trimmed).filter(|address| !address.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;
    use crate::event::single;

    fn read(body: &str, kind: Kind) -> Event<'_> {
        single(body, kind, UnixMillis(0)).unwrap()
    }

    #[test]
    fn the_nearest_address_counts() {
        let stored = Identity {
            user: Some(br#"{"name":"J","email":" user@x "}"#),
            anonymous: Some(br#"{"email":"anonymous@x"}"#),
        };
        let only_anonymous = Identity { user: None, ..stored };
        let useless = Identity { user: Some(br#"{"email":7}"#), anonymous: Some(b"[\xff") };
        let table = [
            (
                r#""context":{"traits":{"email":"c@x"}},"traits":{"email":"t@x"}"#,
                stored,
                Some("c@x"),
            ),
            (
                r#""traits":{"email":"\u00a0t@x\n"},"properties":{"email":"p@x"}"#,
                stored,
                Some("t@x"),
            ),
            (r#""properties":{"email":"Jane.Doe@X "}"#, stored, Some("Jane.Doe@X")),
            (
                r#""context":{"traits":{"email":null}},"traits":{"email":"  "}"#,
                stored,
                Some("user@x"),
            ),
            (r#""context":{"traits":"x"},"properties":{"email":["p@x"]}"#, stored, Some("user@x")),
            (r#""properties":{}"#, only_anonymous, Some("anonymous@x")),
            (r#""properties":{}"#, useless, None),
            (r#""properties":{}"#, Identity::default(), None),
        ];
        for (fields, identity, expected) in table {
            let body = format!(r#"{{"event":"E",{fields}}}"#);
            let found = email(&read(&body, Kind::Track), &identity);
            assert_eq!(found.as_deref(), expected, "{fields}");
        }
    }

    #[test]
    fn an_identify_changes_both_of_its_identities() {
        let body = r#"{"userId":1,"anonymousId":"b","traits":{"email":"e","age": 7.0,"x":null},
            "context":{"traits":{"tier":"gold","email":"c"}}}"#;
        let traits = br#"{"tier":"gold","email":"e","age":7.0,"x":null}"#.to_vec();
        let event = read(body, Kind::Identify);
        let keys = [IdentityKey::User("1"), IdentityKey::Anonymous("b")];
        assert_eq!(identity_keys(&event), (Some(keys[0]), Some(keys[1])));
        assert_eq!(keys.map(IdentityKey::stored), ["u:1", "a:b"]);
        let expected = keys.map(|key| (key, traits.clone())).to_vec();
        assert_eq!(identity_change(&event), expected);
    }

    #[test]
    fn nothing_else_changes_an_identity() {
        let track = r#"{"event":"E","userId":"u","traits":{"email":"e"}}"#;
        assert_eq!(identity_change(&read(track, Kind::Track)), Vec::new());
        for body in [r#"{"userId":"u"}"#, r#"{"userId":"u","traits":{}}"#] {
            assert_eq!(identity_change(&read(body, Kind::Identify)), Vec::new(), "{body}");
        }
    }

    #[test]
    fn traits_have_a_limit() {
        let body =
            format!(r#"{{"userId":"u","traits":{{"x":"{}"}}}}"#, "x".repeat(TRAITS_BYTES_MAX));
        let event = read(&body, Kind::Identify);
        assert_eq!(identity_change(&event), Vec::new());
        assert_eq!(too_large(&event).unwrap(), "the traits have 60009 bytes, the limit is 60000");
    }

    #[test]
    fn a_long_id_has_a_short_key_of_its_own() {
        let (x, y) = ("x".repeat(ID_BYTES_MAX + 1), "y".repeat(1 << 20));
        let keys = [IdentityKey::User(&x), IdentityKey::User(&y), IdentityKey::Anonymous(&y)]
            .map(IdentityKey::stored);
        assert!(keys.iter().all(|key| key.len() == 66));
        assert!(keys[0] != keys[1] && keys[1] != keys[2]);
    }
}
