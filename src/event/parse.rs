//! One event: JSON text → [`Event`].
//!
//! | field | read from | may be |
//! |---|---|---|
//! | `kind` | the route, or a batch item's `type` | one of six |
//! | `name` | a track's `event`, a page's or screen's `name` | text; required of a track |
//! | ids | `messageId`, `userId`, `anonymousId` | text or a number (as its text); empty reads as absent |
//! | `time` | `timestamp`, else `originalTimestamp`, else the time of arrival | see [`Timestamp::from_json`] |
//! | objects | `properties`, `traits`, `context` | an object |
//!
//! `null` reads as absent everywhere. Every other field of an event is passed over.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::context::Context;
use super::error::{BodyError, EventError};
use super::object::Object;
use super::part::{Key, Part};
use super::time::Timestamp;
use super::value;
use crate::clock::UnixMillis;

/// The most bytes a `messageId`, `userId` or `anonymousId` may have: each becomes a key in the spool, or a
/// record's id.
pub const ID_BYTES_MAX: usize = 512;

/// What an event tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Something was done.
    Track,
    /// A page was seen.
    Page,
    /// Who somebody is.
    Identify,
    /// What group somebody belongs to.
    Group,
    /// That two ids are one person.
    Alias,
    /// A screen of an app was seen.
    Screen,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 6] =
        [Kind::Track, Kind::Page, Kind::Identify, Kind::Group, Kind::Alias, Kind::Screen];

    /// The word of the route and of `type`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Track => "track",
            Kind::Page => "page",
            Kind::Identify => "identify",
            Kind::Group => "group",
            Kind::Alias => "alias",
            Kind::Screen => "screen",
        }
    }

    /// The kind whose word is `word`, exactly.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// One event, as it was handed in.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// What it tells.
    pub kind: Kind,
    /// What happened, or what the page or screen is called. Never blank; always there for a track.
    pub name: Option<Cow<'a, str>>,
    /// The producer's id of this event.
    pub message_id: Option<Cow<'a, str>>,
    /// The producer's id of a known person.
    pub user_id: Option<Cow<'a, str>>,
    /// The producer's id of a device or session.
    pub anonymous_id: Option<Cow<'a, str>>,
    /// When it happened.
    pub time: Timestamp,
    /// What is told about the event.
    pub properties: Object<'a>,
    /// What is told about the person.
    pub traits: Object<'a>,
    /// What is told about the surroundings.
    pub context: Context<'a>,
}

/// Reads the body of a route that takes one event. The route's `kind` wins over a `type` in the body.
///
/// `body` has passed [`super::repair()`]; `received` stands in for a missing timestamp.
///
/// # Errors
/// `InvalidJson`: the body is no JSON. `InvalidEvent`: it is, but no event.
pub fn single(body: &str, kind: Kind, received: UnixMillis) -> Result<Event<'_>, BodyError> {
    let fields: Fields<'_> =
        serde_json::from_str(body).map_err(|_| fault(body, EventError::NotAnObject))?;
    Ok(fields.into_event(kind, received, None)?)
}

/// Why `body` could not be read: because it is no JSON, else for `reason`.
///
/// Only what `serde_json` says about syntax is passed on: about types it quotes values.
pub(super) fn fault(body: &str, reason: EventError) -> BodyError {
    match serde_json::from_str::<&RawValue>(body) {
        Err(error) => BodyError::InvalidJson(error.to_string()),
        Ok(_) => reason.into(),
    }
}

/// The fields of an event, found but not yet judged.
#[derive(Debug, Default)]
pub(super) struct Fields<'a> {
    kind: Option<&'a RawValue>,
    event: Option<&'a RawValue>,
    name: Option<&'a RawValue>,
    message_id: Option<&'a RawValue>,
    user_id: Option<&'a RawValue>,
    anonymous_id: Option<&'a RawValue>,
    timestamp: Option<&'a RawValue>,
    original_timestamp: Option<&'a RawValue>,
    properties: Part<'a>,
    traits: Part<'a>,
    context: Part<'a>,
}

impl<'a> Fields<'a> {
    /// The kind that `type` names.
    pub(super) fn kind(&self) -> Result<Kind, EventError> {
        let value = self.kind.filter(|value| !value::is_null(value));
        let word =
            value.map(|value| value::text(value).ok_or(EventError::TypeUnknown)).transpose()?;
        match word.as_deref() {
            None | Some("") => Err(EventError::TypeMissing),
            Some(word) => Kind::from_word(word).ok_or(EventError::TypeUnknown),
        }
    }

    /// The event, `shared` being its batch's context.
    pub(super) fn into_event(
        self,
        kind: Kind,
        received: UnixMillis,
        shared: Option<&'a Object<'a>>,
    ) -> Result<Event<'a>, EventError> {
        let event = Event {
            kind,
            name: self.name(kind)?,
            message_id: id("messageId", self.message_id)?,
            user_id: id("userId", self.user_id)?,
            anonymous_id: id("anonymousId", self.anonymous_id)?,
            time: match time("timestamp", self.timestamp)? {
                Some(time) => time,
                None => time("originalTimestamp", self.original_timestamp)?
                    .unwrap_or_else(|| Timestamp::from_clock(received)),
            },
            properties: object("properties", self.properties)?,
            traits: object("traits", self.traits)?,
            context: Context::new(object("context", self.context)?, shared),
        };
        if kind == Kind::Identify && event.user_id.is_none() && event.anonymous_id.is_none() {
            return Err(EventError::NobodyIdentified);
        }
        Ok(event)
    }

    /// A track's name is what it is about; that of a page decides nothing, so no error comes of it.
    fn name(&self, kind: Kind) -> Result<Option<Cow<'a, str>>, EventError> {
        let not_blank = |name: &Cow<'_, str>| !name.trim().is_empty();
        match kind {
            Kind::Track => {
                let present = self.event.filter(|value| !value::is_null(value));
                let value = present.ok_or(EventError::EventNameMissing)?;
                let wrong = EventError::WrongType { field: "event", wanted: "a string" };
                let name = value::text(value).ok_or(wrong)?;
                Some(name).filter(not_blank).ok_or(EventError::EventNameMissing).map(Some)
            }
            Kind::Page | Kind::Screen => Ok(self.name.and_then(value::text).filter(not_blank)),
            Kind::Identify | Kind::Group | Kind::Alias => Ok(None),
        }
    }
}

fn id<'a>(
    field: &'static str,
    value: Option<&'a RawValue>,
) -> Result<Option<Cow<'a, str>>, EventError> {
    let Some(value) = value.filter(|value| !value::is_null(value)) else { return Ok(None) };
    let wrong = EventError::WrongType { field, wanted: "a string or a number" };
    let id = value::text_or_number(value).ok_or(wrong)?;
    if id.len() > ID_BYTES_MAX {
        return Err(EventError::IdTooLong { field, limit: ID_BYTES_MAX });
    }
    Ok(Some(id).filter(|id| !id.is_empty()))
}

fn time(field: &'static str, value: Option<&RawValue>) -> Result<Option<Timestamp>, EventError> {
    match value {
        None => Ok(None),
        Some(value) if matches!(value.get(), "null" | "\"\"") => Ok(None),
        Some(value) => Timestamp::from_json(value).map(Some).ok_or(EventError::NotATime { field }),
    }
}

/// What an object in an event holds; nothing when it is absent.
pub(super) fn object<'a>(field: &'static str, part: Part<'a>) -> Result<Object<'a>, EventError> {
    match part {
        Part::Absent => Ok(Object::default()),
        Part::Object(object) => Ok(object),
        Part::Other => Err(EventError::WrongType { field, wanted: "an object" }),
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Fields<'a>, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an event")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields::default();
        while let Some(Key(key)) = map.next_key()? {
            match &*key {
                "type" => fields.kind = Some(map.next_value()?),
                "event" => fields.event = Some(map.next_value()?),
                "name" => fields.name = Some(map.next_value()?),
                "messageId" => fields.message_id = Some(map.next_value()?),
                "userId" => fields.user_id = Some(map.next_value()?),
                "anonymousId" => fields.anonymous_id = Some(map.next_value()?),
                "timestamp" => fields.timestamp = Some(map.next_value()?),
                "originalTimestamp" => fields.original_timestamp = Some(map.next_value()?),
                "properties" => fields.properties = map.next_value()?,
                "traits" => fields.traits = map.next_value()?,
                "context" => fields.context = map.next_value()?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(fields)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::repair::{DEPTH_MAX, repair};

    /// 2026-06-06T15:32:52.999Z.
    const RECEIVED: UnixMillis = UnixMillis(1_780_759_972_999);

    fn track(body: &str) -> Event<'_> {
        single(body, Kind::Track, RECEIVED).unwrap()
    }

    #[test]
    fn a_whole_event_is_read() {
        let event = track(
            r#"{"type":"identify","event":"Product \u0056iewed","name":"no","messageId":"m","userId":"u",
                "anonymousId":17.50,"timestamp":"2026-06-06T01:00:00Z","originalTimestamp":"x","sentAt":1e999,
                "properties":{"price":79.00},"traits":{"email":"e"},"context":{"page":{"url":"p"}}}"#,
        );
        assert_eq!(event.kind, Kind::Track);
        assert_eq!(event.name.as_deref(), Some("Product Viewed"));
        assert_eq!(event.message_id.as_deref(), Some("m"));
        assert_eq!(event.user_id.as_deref(), Some("u"));
        assert_eq!(event.anonymous_id.as_deref(), Some("17.50"));
        assert_eq!(event.time.to_string(), "2026-06-06T01:00:00+00:00");
        assert_eq!(event.properties.get("price").unwrap().get(), "79.00");
        assert_eq!(event.traits.get("email").unwrap().get(), "\"e\"");
        assert!(event.context.object("page").is_some());
    }

    #[test]
    fn null_and_empty_read_as_absent() {
        let event = track(
            r#"{"event":"E","messageId":null,"userId":"","anonymousId":null,"timestamp":null,
                "originalTimestamp":"","properties":null,"traits":null,"context":null}"#,
        );
        assert!(
            event.message_id.is_none() && event.user_id.is_none() && event.anonymous_id.is_none()
        );
        assert!(event.properties.is_empty() && event.traits.is_empty());
        assert_eq!(event.time.to_string(), "2026-06-06T15:32:52+00:00");
        for (name, expected) in
            [("null", None), ("\" \"", None), ("7", None), ("\"Home\"", Some("Home"))]
        {
            let body = format!(r#"{{"name":{name}}}"#);
            let page = single(&body, Kind::Page, RECEIVED).unwrap();
            assert_eq!(page.name.as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn the_first_time_that_is_given_counts() {
        let table = [
            (r#""originalTimestamp":"2026-01-01T00:00:00Z""#, "2026-01-01T00:00:00+00:00"),
            (r#""timestamp":"","originalTimestamp":1767225600000"#, "2026-01-01T00:00:00+00:00"),
            (r#""timestamp":"2026-01-01","originalTimestamp":"no""#, "2026-01-01T00:00:00+00:00"),
            (r#""sentAt":"2026-01-01T00:00:00Z""#, "2026-06-06T15:32:52+00:00"),
        ];
        for (fields, expected) in table {
            let body = format!(r#"{{"event":"E",{fields}}}"#);
            assert_eq!(track(&body).time.to_string(), expected, "{fields}");
        }
    }

    #[test]
    fn what_is_no_event_is_refused_with_its_field() {
        let table = [
            ("[]", "an event must be a JSON object"),
            ("\"jane@example.com\"", "an event must be a JSON object"),
            ("{}", "event is missing: a track must name its event"),
            (r#"{"event":""}"#, "event is missing: a track must name its event"),
            (r#"{"event":" \t"}"#, "event is missing: a track must name its event"),
            (r#"{"event":null}"#, "event is missing: a track must name its event"),
            (r#"{"event":7}"#, "event must be a string"),
            (r#"{"event":"E","userId":true}"#, "userId must be a string or a number"),
            (r#"{"event":"E","messageId":{}}"#, "messageId must be a string or a number"),
            (r#"{"event":"E","anonymousId":["a"]}"#, "anonymousId must be a string or a number"),
            (r#"{"event":"E","properties":"jane@example.com"}"#, "properties must be an object"),
            (r#"{"event":"E","traits":[]}"#, "traits must be an object"),
            (r#"{"event":"E","context":12}"#, "context must be an object"),
            (
                r#"{"event":"E","timestamp":"jane@example.com"}"#,
                "timestamp is not a time: it must be RFC 3339 text, as 2026-06-06T15:32:52Z",
            ),
            (
                r#"{"event":"E","originalTimestamp":false}"#,
                "originalTimestamp is not a time: it must be RFC 3339 text, as 2026-06-06T15:32:52Z",
            ),
        ];
        for (body, message) in table {
            let error = single(body, Kind::Track, RECEIVED).unwrap_err();
            assert_eq!(
                (error.to_string().as_str(), error.code()),
                (message, "invalid_event"),
                "{body}"
            );
        }
        let nobody = single(r#"{"userId":"","traits":{}}"#, Kind::Identify, RECEIVED).unwrap_err();
        assert_eq!(nobody.to_string(), "identify needs a userId or an anonymousId");
    }

    #[test]
    fn ids_have_a_limit() {
        for (field, bytes, fits) in
            [("messageId", 512, true), ("messageId", 513, false), ("userId", 513, false)]
        {
            let body = format!(r#"{{"event":"E","{field}":"{}"}}"#, "x".repeat(bytes));
            assert_eq!(single(&body, Kind::Track, RECEIVED).is_ok(), fits, "{field} of {bytes}");
        }
    }

    #[test]
    fn what_is_no_json_is_told_with_its_place() {
        let table = [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("{\"event\":\"E\",}", "key must be a string at line 1 column 14"),
            ("{\"event\":\n nope}", "expected ident at line 2 column 3"),
            ("{} {}", "trailing characters at line 1 column 4"),
            ("jane@example.com", "expected value at line 1 column 1"),
        ];
        for (body, message) in table {
            let error = single(body, Kind::Track, RECEIVED).unwrap_err();
            assert_eq!(
                (error.to_string().as_str(), error.code()),
                (message, "invalid_json"),
                "{body}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(text) = repair(&body, DEPTH_MAX) {
                let _ = single(&text, Kind::Track, RECEIVED);
            }
        }

        #[test]
        fn any_value_in_any_field_is_read_or_refused(
            kind in proptest::sample::select(Kind::ALL.to_vec()),
            fields in proptest::collection::vec((proptest::sample::select(vec![
                "type", "event", "name", "messageId", "userId", "anonymousId", "timestamp",
                "originalTimestamp", "properties", "traits", "context", "other",
            ]), crate::event::testing::json()), 0..12)
        ) {
            let members: Vec<_> = fields.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            match single(&format!("{{{}}}", members.join(",")), kind, RECEIVED) {
                Ok(event) => prop_assert_eq!(event.kind, kind),
                Err(error) => prop_assert_eq!(error.code(), "invalid_event"),
            }
        }
    }
}
