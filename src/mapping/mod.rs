//! PURE. What an event becomes: event + identity + rules → record bytes.
//!
//! ```text
//! Event ─▶ consent ─▶ preset (event_type, renames) ─▶ record (exact bytes) ─▶ limits
//! ```
//! A record's bytes are made here once and never parsed again on their way out.

pub mod consent;
pub mod preset;
mod record;

use crate::event::Kind;
use crate::event::object::Object;
use crate::event::parse::Event;
use crate::spool::RECORD_BYTES_MAX;

pub use self::preset::Preset;

/// A record that ends over this is refused: Ometria says "Payload invalid: Record is too large." (OMETRIA.md).
pub const RECORD_LIMIT: usize = RECORD_BYTES_MAX;

/// What one integration makes of events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Which events become which records.
    pub preset: Preset,
    /// Categories that must all be granted; empty: consent is not asked.
    pub consent: Vec<String>,
}

/// Stored traits (JSON objects) of the person of an event.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity<'a> {
    /// Under its `userId`.
    pub user: Option<&'a [u8]>,
    /// Under its `anonymousId`.
    pub anonymous: Option<&'a [u8]>,
}

/// What an event became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A record to deliver.
    Record(Record),
    /// Nothing: an identify is applied to its identity instead.
    Identity,
    /// Nothing, on purpose.
    Dropped(DropReason),
    /// Nothing, because the record would break a limit.
    Refused {
        /// A short code.
        reason: &'static str,
        /// What is wrong.
        detail: String,
    },
}

/// A record, ready to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its `@type`.
    pub record_type: &'static str,
    /// The exact JSON bytes.
    pub bytes: Vec<u8>,
}

/// Why an event is not sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// No mapping sends it on.
    NoMapping,
    /// A required category of consent is not granted.
    Consent,
}

impl DropReason {
    /// As answers and counters name it.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            DropReason::NoMapping => "no_mapping",
            DropReason::Consent => "consent",
        }
    }
}

/// Maps one event by one integration's rules. `fresh_id` names a record whose event has no `messageId`.
pub fn map(
    event: &Event<'_>,
    identity: &Identity<'_>,
    rules: &Rules,
    fresh_id: impl FnOnce() -> String,
) -> Outcome {
    if event.kind == Kind::Identify {
        return Outcome::Identity;
    }
    let Some(mapping) = rules.preset.mapping(event) else {
        return Outcome::Dropped(DropReason::NoMapping);
    };
    if !consent::granted(&event.context, &rules.consent) {
        return Outcome::Dropped(DropReason::Consent);
    }
    let id = event.message_id.as_deref().map_or_else(fresh_id, str::to_owned);
    let bytes = record::write(event, &mapping, &id, email(event, identity).as_deref());
    if bytes.len() > RECORD_LIMIT {
        let detail = format!(
            "the record would have {} bytes, Ometria takes at most {RECORD_LIMIT}",
            bytes.len()
        );
        return Outcome::Refused { reason: "too_large", detail };
    }
    Outcome::Record(Record { record_type: record::TYPE, bytes })
}

/// The keys under which the traits of an event's person are stored: by `userId`, by `anonymousId`.
#[must_use]
pub fn identity_keys(event: &Event<'_>) -> (Option<String>, Option<String>) {
    let key = |prefix: &str, id: &Option<_>| id.as_ref().map(|id| format!("{prefix}:{id}"));
    (key("u", &event.user_id), key("a", &event.anonymous_id))
}

/// What an identify changes: for each of its keys the traits to merge, as a JSON object.
#[must_use]
pub fn identity_change(event: &Event<'_>) -> Vec<(String, Vec<u8>)> {
    let more = event.context.object("traits").unwrap_or_default();
    let mut traits = Vec::new();
    event.traits.clone().with_defaults(&more).write(&mut traits);
    let (user, anonymous) = identity_keys(event);
    user.into_iter().chain(anonymous).map(|key| (key, traits.clone())).collect()
}

/// The email of the event's person: its own, else the one stored for its user, else for its anonymous id.
/// Trimmed, otherwise as given.
fn email(event: &Event<'_>, identity: &Identity<'_>) -> Option<String> {
    fn of(object: &Object<'_>) -> Option<String> {
        let email = object.string("email")?;
        let trimmed = email.trim();
        (!trimmed.is_empty()).then(|| trimmed.to_owned())
    }
    fn stored(traits: Option<&[u8]>) -> Option<String> {
        of(&Object::parse(std::str::from_utf8(traits?).ok()?).ok()?)
    }
    event
        .context
        .object("traits")
        .and_then(|traits| of(&traits))
        .or_else(|| of(&event.traits))
        .or_else(|| of(&event.properties))
        .or_else(|| stored(identity.user))
        .or_else(|| stored(identity.anonymous))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;
    use crate::event::parse::single;

    fn rules(preset: Preset) -> Rules {
        Rules { preset, consent: Vec::new() }
    }

    fn mapped(body: &str, kind: Kind, rules: &Rules, identity: &Identity<'_>) -> Outcome {
        let event = single(body, kind, UnixMillis(1_780_759_972_000)).unwrap();
        map(&event, identity, rules, || "evt_1".to_owned())
    }

    fn text(outcome: Outcome) -> String {
        match outcome {
            Outcome::Record(record) => String::from_utf8(record.bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_example_of_the_contract_byte_for_byte() {
        let body = r#"{"type":"track","userId":"user-123","event":"Product Viewed","messageId":"abc123","timestamp":"2026-06-06T15:32:52.417Z",
 "properties":{"product_id":"SKU-A","product_name":"Merino Crew Jumper","variant":"navy-m","price":79.00,"currency":"GBP","category":"Knitwear"},
 "context":{"page":{"url":"https://example.com/products/merino-crew"},"consent":{"marketing":true}}}"#;
        let identity =
            Identity { user: Some(br#"{"email":"jane.doe@example.com"}"#), anonymous: None };
        let rules = Rules { preset: Preset::Retail, consent: vec!["marketing".to_owned()] };
        let expected = concat!(
            r#"{"@type":"custom_event","id":"abc123","timestamp":"2026-06-06T15:32:52+00:00","event_type":"product_viewed","identity_email":"jane.doe@example.com","#,
            r#""properties":{"product_id":"SKU-A","product_name":"Merino Crew Jumper","variant_id":"navy-m","product_price":79.00,"currency":"GBP","category":"Knitwear","page_url":"https://example.com/products/merino-crew"}}"#
        );
        assert_eq!(text(mapped(body, Kind::Track, &rules, &identity)), expected);
    }

    #[test]
    fn consent_is_asked_for_what_would_be_sent() {
        let rules = Rules { preset: Preset::Retail, consent: vec!["marketing".to_owned()] };
        let none = Identity::default();
        let denied = mapped(r#"{"event":"Product Viewed"}"#, Kind::Track, &rules, &none);
        assert_eq!(denied, Outcome::Dropped(DropReason::Consent));
        let unknown = mapped(r#"{"event":"Nap Taken"}"#, Kind::Track, &rules, &none);
        assert_eq!(unknown, Outcome::Dropped(DropReason::NoMapping));
    }

    #[test]
    fn the_email_is_the_nearest_one() {
        let identity = Identity {
            user: Some(br#"{"email":" user@x "}"#),
            anonymous: Some(br#"{"email":"anon@x"}"#),
        };
        for (body, email) in [
            (
                r#"{"context":{"traits":{"email":" a@x "}},"traits":{"email":"b@x"},"properties":{"email":"c@x"}}"#,
                "a@x",
            ),
            (r#"{"traits":{"email":"b@x"},"properties":{"email":"c@x"}}"#, "b@x"),
            (r#"{"context":{"traits":{"email":" "}},"properties":{"email":"C@X"}}"#, "C@X"),
            (r#"{"properties":{"email":7}}"#, "user@x"),
            ("{}", "user@x"),
        ] {
            let record = text(mapped(body, Kind::Page, &rules(Preset::Retail), &identity));
            assert!(record.contains(&format!(r#""identity_email":"{email}""#)), "{record}");
        }
        let anonymous = Identity { user: None, ..identity };
        assert!(
            text(mapped("{}", Kind::Page, &rules(Preset::Retail), &anonymous)).contains("anon@x")
        );
        let none = text(mapped("{}", Kind::Page, &rules(Preset::Retail), &Identity::default()));
        assert!(!none.contains("identity_email") && none.contains(r#""id":"evt_1""#), "{none}");
    }

    #[test]
    fn identities_take_traits_from_both_places_under_both_keys() {
        let body = r#"{"userId":"u","anonymousId":"a","traits":{"tier":"gold"},"context":{"traits":{"email":"x@y","tier":"old"}}}"#;
        let event = single(body, Kind::Identify, UnixMillis(0)).unwrap();
        let traits = br#"{"tier":"gold","email":"x@y"}"#.to_vec();
        assert_eq!(
            identity_change(&event),
            [("u:u".to_owned(), traits.clone()), ("a:a".to_owned(), traits)]
        );
        assert_eq!(
            map(&event, &Identity::default(), &Rules::default(), String::new),
            Outcome::Identity
        );
    }

    #[test]
    fn a_record_over_the_limit_is_refused() {
        let body = |bytes: usize| {
            format!(
                r#"{{"event":"Product Viewed","properties":{{"text":"{}"}}}}"#,
                "x".repeat(bytes)
            )
        };
        let overhead =
            text(mapped(&body(0), Kind::Track, &rules(Preset::Retail), &Identity::default())).len();
        let fits = mapped(
            &body(RECORD_LIMIT - overhead),
            Kind::Track,
            &rules(Preset::Retail),
            &Identity::default(),
        );
        assert!(matches!(fits, Outcome::Record(_)));
        let over = mapped(
            &body(RECORD_LIMIT - overhead + 1),
            Kind::Track,
            &rules(Preset::Retail),
            &Identity::default(),
        );
        assert!(matches!(over, Outcome::Refused { reason: "too_large", .. }));
    }
}
