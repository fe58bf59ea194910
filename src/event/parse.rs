//! PURE. Text → events, one result per event, so that a bad one never spoils its neighbours.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::Kind;
use super::object::{self, Object};
use super::time::Timestamp;
use crate::clock::UnixMillis;

/// Ids (`messageId`, `userId`, `anonymousId`) and names are at most this long.
pub const ID_BYTES_MAX: usize = 512;

/// A valid event. Borrows the text it was read from.
#[derive(Clone, Debug)]
pub struct Event<'a> {
    /// Which call it is.
    pub kind: Kind,
    /// A track's `event`, a page's or screen's `name`.
    pub name: Option<Cow<'a, str>>,
    /// `messageId`: becomes the record's id.
    pub message_id: Option<Cow<'a, str>>,
    /// `userId`.
    pub user_id: Option<Cow<'a, str>>,
    /// `anonymousId`.
    pub anonymous_id: Option<Cow<'a, str>>,
    /// `timestamp`, else `originalTimestamp`, else the time of arrival.
    pub time: Timestamp,
    /// `properties`.
    pub properties: Object<'a>,
    /// `traits`.
    pub traits: Object<'a>,
    /// `context`, with what the batch says for all.
    pub context: Object<'a>,
}

/// Why an event is not valid. Never quotes its values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EventError(String);

/// Why a body gives no events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It is no JSON, nested too deep, or not of the shape that the route takes.
    #[error("{0}")]
    InvalidJson(String),
    /// It is JSON, and no valid event.
    #[error(transparent)]
    InvalidEvent(#[from] EventError),
}

impl BodyError {
    /// The code of the contract.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            BodyError::InvalidJson(_) => "invalid_json",
            BodyError::InvalidEvent(_) => "invalid_event",
        }
    }

    /// `message` with the line and column of the byte at `at`.
    pub(super) fn at(body: &[u8], at: usize, message: &str) -> BodyError {
        let before = body.get(..at).unwrap_or(body);
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
        BodyError::InvalidJson(format!("{message} at line {line} column {column}"))
    }
}

impl From<serde_json::Error> for BodyError {
    fn from(error: serde_json::Error) -> BodyError {
        BodyError::InvalidJson(error.to_string())
    }
}

/// An item of a batch.
#[derive(Debug)]
pub struct BatchItem<'a> {
    /// Its exact text.
    pub raw: &'a str,
    /// The event, or what is wrong with it.
    pub event: Result<Event<'a>, EventError>,
}

/// Reads a body that is one event. The route's `kind` stands whatever `type` says.
///
/// # Errors
/// [`BodyError`]: no JSON, or no valid event.
pub fn single(body: &str, kind: Kind, received: UnixMillis) -> Result<Event<'_>, BodyError> {
    let raw: &RawValue = serde_json::from_str(body)?;
    Ok(event(raw.get(), Some(kind), &Object::default(), received)?)
}

/// Reads `{"batch":[event…], "context":{…}}` or a bare array of events. An empty batch is an empty list.
///
/// # Errors
/// [`BodyError::InvalidJson`] when it is neither; what is wrong with an item stands in that item.
pub fn batch(body: &str, received: UnixMillis) -> Result<Vec<BatchItem<'_>>, BodyError> {
    let whole: &RawValue = serde_json::from_str(body)?;
    let (items, context) = if whole.get().starts_with('[') {
        (whole, Object::default())
    } else {
        let object = Object::parse(whole.get())?;
        let missing = || {
            BodyError::InvalidJson(
                "the body has no array \"batch\": {\"batch\":[event, …]}".to_owned(),
            )
        };
        let items =
            object.get("batch").filter(|items| items.get().starts_with('[')).ok_or_else(missing)?;
        (items, object.object("context").unwrap_or_default())
    };
    let items: Vec<&RawValue> = serde_json::from_str(items.get())?;
    Ok(items
        .into_iter()
        .map(|raw| BatchItem { raw: raw.get(), event: event(raw.get(), None, &context, received) })
        .collect())
}

fn event<'a>(
    text: &'a str,
    kind: Option<Kind>,
    context: &Object<'a>,
    received: UnixMillis,
) -> Result<Event<'a>, EventError> {
    let object =
        Object::parse(text).map_err(|_| EventError("an event must be a JSON object".to_owned()))?;
    let kind = match kind {
        Some(kind) => kind,
        None => item_kind(&object)?,
    };
    let name = id(&object, if kind == Kind::Track { "event" } else { "name" })?;
    if kind == Kind::Track && name.is_none() {
        return Err(EventError("a track needs \"event\", the name of what happened".to_owned()));
    }
    let event = Event {
        kind,
        name,
        message_id: id(&object, "messageId")?,
        user_id: id(&object, "userId")?,
        anonymous_id: id(&object, "anonymousId")?,
        time: time(&object, received)?,
        properties: part(&object, "properties")?,
        traits: part(&object, "traits")?,
        context: part(&object, "context")?.with_defaults(context),
    };
    if kind == Kind::Identify && event.user_id.is_none() && event.anonymous_id.is_none() {
        return Err(EventError("an identify needs \"userId\" or \"anonymousId\"".to_owned()));
    }
    Ok(event)
}

fn item_kind(object: &Object<'_>) -> Result<Kind, EventError> {
    let accepted = "track, page, identify, group, alias or screen";
    let Some(name) = object.string("type") else {
        return Err(EventError(format!("an event in a batch needs \"type\": {accepted}")));
    };
    Kind::of(&name).ok_or_else(|| EventError(format!("\"type\" must be {accepted}")))
}

/// A text that names something: strings, and numbers as they are written; an empty one reads as absent.
fn id<'a>(object: &Object<'a>, key: &str) -> Result<Option<Cow<'a, str>>, EventError> {
    let Some(raw) = object.get(key) else { return Ok(None) };
    let text = match raw.get().bytes().next() {
        Some(b'"') => object::string(raw),
        Some(b'-' | b'0'..=b'9') => Some(Cow::Borrowed(raw.get())),
        _ => None,
    };
    match text {
        None => Err(EventError(format!("{key:?} must be a string"))),
        Some(text) if text.len() > ID_BYTES_MAX => Err(EventError(format!(
            "{key:?} has {} bytes, at most {ID_BYTES_MAX} are taken",
            text.len()
        ))),
        Some(text) => Ok(Some(text).filter(|text| !text.is_empty())),
    }
}

fn part<'a>(object: &Object<'a>, key: &str) -> Result<Object<'a>, EventError> {
    let Some(raw) = object.get(key) else { return Ok(Object::default()) };
    Object::parse(raw.get()).map_err(|_| EventError(format!("{key:?} must be an object")))
}

fn time(object: &Object<'_>, received: UnixMillis) -> Result<Timestamp, EventError> {
    for key in ["timestamp", "originalTimestamp"] {
        let Some(raw) = object.get(key) else { continue };
        let time = match object::string(raw) {
            Some(text) => Timestamp::parse(&text),
            None => Timestamp::parse_number(raw.get()),
        };
        let wrong = || EventError(format!("{key:?} is not a time such as 2026-06-06T15:32:52Z"));
        return time.ok_or_else(wrong);
    }
    Ok(Timestamp::at(received))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_780_759_972_417);

    #[test]
    fn one_event_with_all_its_parts() {
        let body = r#"{"type":"page","userId":7,"anonymousId":null,"event":"Product Viewed","messageId":"abc","timestamp":null,
            "originalTimestamp":"2026-06-06T15:32:52.417Z","properties":{"price":79.00},"context":{"ip":"::1"},"traits":null}"#;
        let event = single(body, Kind::Track, NOW).unwrap();
        assert_eq!(
            (event.kind, event.name.as_deref(), event.user_id.as_deref()),
            (Kind::Track, Some("Product Viewed"), Some("7"))
        );
        assert_eq!((event.anonymous_id, event.message_id.as_deref()), (None, Some("abc")));
        assert_eq!(event.time.to_string(), "2026-06-06T15:32:52+00:00");
        assert_eq!(event.properties.get("price").unwrap().get(), "79.00");
        assert_eq!(single("{}", Kind::Page, NOW).unwrap().time, Timestamp::at(NOW));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_code() {
        for (body, code, message) in [
            ("{", "invalid_json", "EOF while parsing an object at line 1 column 1"),
            (r#"{"event": oops}"#, "invalid_json", "expected value at line 1 column 11"),
            ("[]", "invalid_event", "an event must be a JSON object"),
            ("{}", "invalid_event", "a track needs \"event\", the name of what happened"),
            (
                r#"{"event":""}"#,
                "invalid_event",
                "a track needs \"event\", the name of what happened",
            ),
            (
                r#"{"event":"x","properties":"secret"}"#,
                "invalid_event",
                "\"properties\" must be an object",
            ),
            (r#"{"event":"x","userId":{}}"#, "invalid_event", "\"userId\" must be a string"),
            (
                r#"{"event":"x","timestamp":"soon"}"#,
                "invalid_event",
                "\"timestamp\" is not a time such as 2026-06-06T15:32:52Z",
            ),
        ] {
            let error = single(body, Kind::Track, NOW).unwrap_err();
            assert_eq!((error.code(), error.to_string().as_str()), (code, message), "{body}");
        }
        let error = single("{}", Kind::Identify, NOW).unwrap_err().to_string();
        assert_eq!(error, "an identify needs \"userId\" or \"anonymousId\"");
    }

    #[test]
    fn a_bad_item_costs_its_neighbours_nothing() {
        let body = r#"{"context":{"page":{"url":"u"},"ip":"1"},"batch":[{"type":"track","event":"a","context":{"ip":"2"}},
            {"type":"track"},17,{"type":"nap"},{"event":"x"},{"type":"page"}]}"#;
        let items = batch(body, NOW).unwrap();
        let valid: Vec<bool> = items.iter().map(|item| item.event.is_ok()).collect();
        assert_eq!(valid, [true, false, false, false, false, true]);
        let context = &items[0].event.as_ref().unwrap().context;
        assert_eq!(
            (context.string("ip").as_deref(), context.get("page").unwrap().get()),
            (Some("2"), r#"{"url":"u"}"#)
        );
        assert_eq!(items[2].raw, "17");
        assert_eq!(batch("[]", NOW).unwrap().len(), 0);
        assert_eq!(batch(r#"[{"type":"page"}]"#, NOW).unwrap().len(), 1);
        for body in ["{}", "7", r#"{"batch":{}}"#, r#"{"batch":null}"#] {
            assert_eq!(batch(body, NOW).unwrap_err().code(), "invalid_json", "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,120}") {
            drop(single(&text, Kind::Track, NOW));
            drop(batch(&text, NOW));
        }
    }
}
