//! Many events in one body: `{"batch":[event…],"context":{…},"integrations":{…}}`, or a bare array.
//!
//! The envelope is read whole, each event only when its turn comes: a body of very many tiny events takes
//! no more memory than its own text. An event that cannot be read is an item with its error, and never
//! spoils its neighbours.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::error::{BodyError, EventError};
use super::object::Object;
use super::parse::{Event, Fields, Kind, fault, object};
use super::part::{Key, Part};
use super::value::{self, ObjectWriter};
use crate::clock::UnixMillis;

/// The events of one body, in its order.
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    items: Vec<&'a RawValue>,
    received: UnixMillis,
    context: Object<'a>,
    integrations: Object<'a>,
}

/// One event of a batch.
#[derive(Clone, Debug)]
pub struct BatchItem<'b> {
    /// Its text as it stands in the batch.
    pub raw: &'b str,
    /// What its `type` names; `None` when it names nothing.
    pub kind: Option<Kind>,
    /// The event, with the batch's context under its own.
    pub event: Result<Event<'b>, EventError>,
    /// What of the batch belongs to each of its events, by field.
    shared: [(&'static str, &'b Object<'b>); 2],
}

/// Reads the envelope of a batch. `body` has passed [`super::repair()`]; `received` stands in for missing
/// timestamps. A batch without events is a batch.
///
/// # Errors
/// `InvalidJson`: the body is no JSON. `InvalidEvent`: it is, but no batch.
pub fn batch(body: &str, received: UnixMillis) -> Result<Batch<'_>, BodyError> {
    let envelope: Envelope<'_> =
        serde_json::from_str(body).map_err(|_| fault(body, EventError::NotABatch))?;
    let Part::Array(items) = envelope.batch else { return Err(EventError::NotABatch.into()) };
    Ok(Batch {
        items,
        received,
        context: object("context", envelope.context)?,
        // Nothing is decided by it, so no batch is refused for it.
        integrations: object("integrations", envelope.integrations).unwrap_or_default(),
    })
}

impl Batch<'_> {
    /// Number of events, readable or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Reads the events, in their order.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = BatchItem<'_>> {
        self.items.iter().map(|item| self.read(item))
    }

    fn read<'b>(&'b self, item: &'b RawValue) -> BatchItem<'b> {
        let fields: Result<Fields<'b>, _> =
            serde_json::from_str(item.get()).map_err(|_| EventError::NotAnObject);
        let kind = fields.as_ref().map_err(EventError::clone).and_then(Fields::kind);
        let shared = (!self.context.is_empty()).then_some(&self.context);
        let event = kind.clone().and_then(|kind| {
            fields.and_then(|fields| fields.into_event(kind, self.received, shared))
        });
        let shared = [("context", &self.context), ("integrations", &self.integrations)];
        BatchItem { raw: item.get(), kind: kind.ok(), event, shared }
    }
}

impl<'b> BatchItem<'b> {
    /// The event as text that stands alone: what the batch says for all of its events is merged into it.
    ///
    /// This is what to keep of an event that is set aside: read again later, it is the same event.
    #[must_use]
    pub fn body(&self) -> Cow<'b, str> {
        if self.shared.iter().all(|(_, shared)| shared.is_empty()) {
            return Cow::Borrowed(self.raw);
        }
        let Some(own) = Object::parse(self.raw) else { return Cow::Borrowed(self.raw) };
        let mut out = Vec::with_capacity(self.raw.len() + 256);
        let mut writer = ObjectWriter::new(&mut out);
        for (key, value) in own.iter() {
            match self.merged(key, value) {
                Some(merged) => writer.key(key).extend_from_slice(&merged.to_json()),
                None => writer.raw(key, value),
            }
        }
        for (key, shared) in self.shared {
            if !shared.is_empty() && own.member(key).is_none() {
                writer.key(key).extend_from_slice(&shared.to_json());
            }
        }
        writer.close();
        Cow::Owned(text_of(out))
    }

    /// The event's own `value` of `key` over the batch's; `None` where it stands as it is.
    fn merged(&self, key: &str, value: &'b RawValue) -> Option<Object<'b>> {
        let (_, shared) =
            self.shared.iter().find(|(field, shared)| *field == key && !shared.is_empty())?;
        if value::is_null(value) {
            return Some((*shared).clone());
        }
        Some(shared.overlaid(&value::object(value)?.without_nulls()))
    }
}

fn text_of(written: Vec<u8>) -> String {
    String::from_utf8(written).expect("what is written from text is text")
}

/// What surrounds the events, found but not yet judged.
#[derive(Default)]
struct Envelope<'a> {
    batch: Part<'a>,
    context: Part<'a>,
    integrations: Part<'a>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Envelope<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Envelope<'a>, D::Error> {
        deserializer.deserialize_any(EnvelopeVisitor)
    }
}

struct EnvelopeVisitor;

impl<'de> Visitor<'de> for EnvelopeVisitor {
    type Value = Envelope<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a batch")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Envelope<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Envelope { batch: Part::Array(items), ..Envelope::default() })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope<'de>, A::Error> {
        let mut envelope = Envelope::default();
        while let Some(Key(key)) = map.next_key()? {
            match &*key {
                "batch" => envelope.batch = map.next_value()?,
                "context" => envelope.context = map.next_value()?,
                "integrations" => envelope.integrations = map.next_value()?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(envelope)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::repair::{DEPTH_MAX, repair};
    use crate::event::testing::json;

    const RECEIVED: UnixMillis = UnixMillis(1_780_759_972_999);

    #[test]
    fn both_shapes_are_read_in_order() {
        for body in [
            r#"[{"type":"page"}, {"type":"track","event":"E"}]"#,
            r#"{"sentAt":"x","batch":[{"type":"page"}, {"type":"track","event":"E"}],"context":null}"#,
        ] {
            let read = batch(body, RECEIVED).unwrap();
            let kinds: Vec<_> = read.iter().map(|item| item.event.unwrap().kind).collect();
            assert_eq!(kinds, [Kind::Page, Kind::Track], "{body}");
        }
        for body in ["[]", r#"{"batch":[]}"#] {
            assert!(batch(body, RECEIVED).unwrap().is_empty(), "{body}");
        }
    }

    #[test]
    fn a_bad_event_never_spoils_its_neighbours() {
        let body = r#"[{"type":"page"}, 7, {"type":"Track","event":"E"}, {"event":"E"}, {"type":null},
            {"type":"track"}, {"type":"page","properties":[]}, {"type":5}, {"type":"identify"}, {"type":"page"}]"#;
        let types = "must be track, page, identify, group, alias or screen";
        let expected = [
            (Some(Kind::Page), None),
            (None, Some("an event must be a JSON object".to_owned())),
            (None, Some(format!("type {types}, in lower case"))),
            (None, Some(format!("type is missing: it {types}"))),
            (None, Some(format!("type is missing: it {types}"))),
            (Some(Kind::Track), Some("event is missing: a track must name its event".to_owned())),
            (Some(Kind::Page), Some("properties must be an object".to_owned())),
            (None, Some(format!("type {types}, in lower case"))),
            (Some(Kind::Identify), Some("identify needs a userId or an anonymousId".to_owned())),
            (Some(Kind::Page), None),
        ];
        let read = batch(body, RECEIVED).unwrap();
        assert_eq!(read.len(), expected.len());
        for (item, (kind, error)) in read.iter().zip(expected) {
            let found = item.event.as_ref().err().map(ToString::to_string);
            assert_eq!((item.kind, found), (kind, error), "{}", item.raw);
            assert_eq!(item.body(), item.raw);
        }
    }

    #[test]
    fn what_is_no_batch_is_refused() {
        let no_batch = "a batch must be an array of events, or an object whose batch is one";
        let table = [
            ("{}", no_batch, "invalid_event"),
            (r#"{"type":"page"}"#, no_batch, "invalid_event"),
            (r#"{"batch":null}"#, no_batch, "invalid_event"),
            (r#"{"batch":{}}"#, no_batch, "invalid_event"),
            ("\"jane@example.com\"", no_batch, "invalid_event"),
            ("12", no_batch, "invalid_event"),
            ("1e999", no_batch, "invalid_event"),
            (r#"{"batch":[],"context":"x"}"#, "context must be an object", "invalid_event"),
            (r#"{"batch":[{]}"#, "key must be a string at line 1 column 12", "invalid_json"),
            (
                "[{\"type\":\"page\"}",
                "EOF while parsing a list at line 1 column 16",
                "invalid_json",
            ),
        ];
        for (body, message, code) in table {
            let error = batch(body, RECEIVED).unwrap_err();
            assert_eq!((error.to_string().as_str(), error.code()), (message, code), "{body}");
        }
    }

    #[test]
    fn the_batchs_context_lies_under_each_events_own() {
        let body = r#"{"context":{"page":{"url":"all"},"consent":{"m":true}},"integrations":{"All":true},"batch":[
            {"type":"page"},
            {"type":"page","context":{"page":{"title": "own"},"ip":1}},
            {"context":null,"type":"page","integrations":{"X":false}},
            {"type":"page","context":{"page":null}},
            {"type":"page","context":"wrong"},
            null]}"#;
        let shared = r#""context":{"page":{"url":"all"},"consent":{"m":true}}"#;
        let all = r#""integrations":{"All":true}"#;
        let expected = [
            (Some(r#"{"url":"all"}"#), format!(r#"{{"type":"page",{shared},{all}}}"#)),
            (
                Some(r#"{"title": "own"}"#),
                format!(
                    r#"{{"type":"page","context":{{"page":{{"title": "own"}},"consent":{{"m":true}},"ip":1}},{all}}}"#
                ),
            ),
            (
                Some(r#"{"url":"all"}"#),
                format!(r#"{{{shared},"type":"page","integrations":{{"All":true,"X":false}}}}"#),
            ),
            (Some(r#"{"url":"all"}"#), format!(r#"{{"type":"page",{shared},{all}}}"#)),
            (None, format!(r#"{{"type":"page","context":"wrong",{all}}}"#)),
            (None, "null".to_owned()),
        ];
        for (item, (page, whole)) in batch(body, RECEIVED).unwrap().iter().zip(expected) {
            let found = item.event.as_ref().ok().and_then(|event| event.context.get("page"));
            assert_eq!(found.map(RawValue::get), page, "{}", item.raw);
            assert_eq!(item.body(), whole);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(text) = repair(&body, DEPTH_MAX)
                && let Ok(read) = batch(&text, RECEIVED)
            {
                prop_assert_eq!(read.iter().count(), read.len());
            }
        }

        #[test]
        fn any_values_are_one_item_each(items in proptest::collection::vec(json(), 0..8), context in json()) {
            let body = format!(r#"{{"batch":[{}],"context":{context}}}"#, items.join(","));
            if let Ok(read) = batch(&body, RECEIVED) {
                let raws: Vec<_> = read.iter().map(|item| item.raw.to_owned()).collect();
                prop_assert_eq!(raws, items);
                for item in read.iter() {
                    prop_assert!(serde_json::from_str::<&RawValue>(&item.body()).is_ok());
                }
            }
        }
    }
}
