//! Many events in one body: `{"batch":[event…],"context":{…},"integrations":{…}}`, or a bare array.
//!
//! Nearly every batch is read in one pass, its events with what surrounds them. One that holds more events than most, or
//! something that is no event, is read in two: its envelope whole, then each event by itself, so that one that cannot be
//! read is an item with its error, and never spoils its neighbours. The text of single events is looked for only when it is
//! asked for.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::OnceLock;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::error::{BodyError, EventError};
use super::object::Object;
use super::parse::{Event, Fields, Kind, fault, object};
use super::part::{Key, Part};
use super::value::{self, ObjectWriter};
use crate::clock::UnixMillis;

/// Events that are read in one pass with what surrounds them: so many take more memory than their text.
const ONE_PASS_MAX: usize = 5000;

/// The events of one body, in its order.
#[derive(Debug)]
pub struct Batch<'a> {
    body: &'a str,
    found: Found<'a>,
    /// Where in `body` each event stands, once that was asked for.
    places: OnceLock<Vec<Range<usize>>>,
    received: UnixMillis,
    context: Object<'a>,
    integrations: Object<'a>,
}

/// The events, as far as they are read.
#[derive(Debug)]
enum Found<'a> {
    Fields(Vec<Fields<'a>>),
    Texts(Vec<&'a RawValue>),
}

/// One event of a batch.
#[derive(Clone, Debug)]
pub struct BatchItem<'b> {
    /// What its `type` names; `None` when it names nothing.
    pub kind: Option<Kind>,
    /// The event, with the batch's context under its own.
    pub event: Result<Event<'b>, EventError>,
    batch: &'b Batch<'b>,
    index: usize,
}

/// Reads the envelope of a batch. `body` has passed [`super::repair()`]; `received` stands in for missing
/// timestamps. A batch without events is a batch.
///
/// # Errors
/// `InvalidJson`: the body is no JSON. `InvalidEvent`: it is, but no batch.
pub fn batch(body: &str, received: UnixMillis) -> Result<Batch<'_>, BodyError> {
    let one_pass = serde_json::from_str::<Envelope<'_, Fields<'_>>>(body);
    let read = one_pass.map(|read| read.found(Found::Fields)).or_else(|_| {
        // Whatever is wrong, it may be the fault of one event alone.
        serde_json::from_str::<Envelope<'_, &RawValue>>(body).map(|read| read.found(Found::Texts))
    });
    let (found, context, integrations) = read.map_err(|_| fault(body, EventError::NotABatch))?;
    Ok(Batch {
        body,
        found: found.ok_or(EventError::NotABatch)?,
        places: OnceLock::new(),
        received,
        context: object("context", context)?,
        // Nothing is decided by it, so no batch is refused for it.
        integrations: object("integrations", integrations).unwrap_or_default(),
    })
}

impl<'a> Batch<'a> {
    /// Number of events, readable or not, that are not taken yet.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.found {
            Found::Fields(found) => found.len(),
            Found::Texts(found) => found.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the events, in their order. There are none after it.
    #[must_use]
    pub fn take<'b>(&'b mut self) -> Vec<BatchItem<'b>>
    where
        'a: 'b,
    {
        let found = std::mem::replace(&mut self.found, Found::Fields(Vec::new()));
        let batch: &'b Batch<'b> = self;
        let item = |(index, fields)| batch.item(index, fields);
        match found {
            Found::Fields(found) => found.into_iter().map(Ok).enumerate().map(item).collect(),
            Found::Texts(found) => {
                let read = |text: &'a RawValue| {
                    serde_json::from_str(text.get()).map_err(|_| EventError::NotAnObject)
                };
                found.into_iter().map(read).enumerate().map(item).collect()
            }
        }
    }

    fn item<'b>(&'b self, index: usize, fields: Result<Fields<'b>, EventError>) -> BatchItem<'b> {
        let kind = fields.as_ref().map_err(EventError::clone).and_then(Fields::kind);
        let shared = (!self.context.is_empty()).then_some(&self.context);
        let event = kind.clone().and_then(|kind| {
            fields.and_then(|fields| fields.into_event(kind, self.received, shared))
        });
        BatchItem { kind: kind.ok(), event, batch: self, index }
    }

    /// The text of the event at `index`.
    fn text(&self, index: usize) -> &'a str {
        let places = self.places.get_or_init(|| {
            let read: Envelope<'_, &RawValue> =
                serde_json::from_str(self.body).expect("it was read before, more closely");
            let place = |text: &RawValue| {
                let begin = text.get().as_ptr().addr() - self.body.as_ptr().addr();
                begin..begin + text.get().len()
            };
            read.items.0.unwrap_or_default().into_iter().map(place).collect()
        });
        let place = places.get(index).and_then(|place| self.body.get(place.clone()));
        place.expect("an item is one of those that were found")
    }
}

impl<'b> BatchItem<'b> {
    /// Its text as it stands in the batch.
    #[must_use]
    pub fn raw(&self) -> &'b str {
        self.batch.text(self.index)
    }

    /// What of the batch belongs to each of its events, by field.
    fn shared(&self) -> [(&'static str, &'b Object<'b>); 2] {
        [("context", &self.batch.context), ("integrations", &self.batch.integrations)]
    }

    /// The event as text that stands alone: what the batch says for all of its events is merged into it.
    ///
    /// This is what to keep of an event that is set aside: read again later, it is the same event.
    #[must_use]
    pub fn body(&self) -> Cow<'b, str> {
        let raw = self.raw();
        if self.shared().iter().all(|(_, shared)| shared.is_empty()) {
            return Cow::Borrowed(raw);
        }
        let Some(own) = Object::parse(raw) else { return Cow::Borrowed(raw) };
        let mut out = Vec::with_capacity(raw.len() + 256);
        let mut writer = ObjectWriter::new(&mut out);
        for (key, value) in own.iter() {
            match self.merged(key, value) {
                Some(merged) => writer.key(key).extend_from_slice(&merged.to_json()),
                None => writer.raw(key, value),
            }
        }
        for (key, shared) in self.shared() {
            if !shared.is_empty() && own.member(key).is_none() {
                writer.key(key).extend_from_slice(&shared.to_json());
            }
        }
        writer.close();
        Cow::Owned(text_of(out))
    }

    /// The event's own `value` of `key` over the batch's; `None` where it stands as it is.
    fn merged(&self, key: &str, value: &'b RawValue) -> Option<Object<'b>> {
        let mut shared = self.shared().into_iter();
        let (_, shared) = shared.find(|(field, shared)| *field == key && !shared.is_empty())?;
        if value::is_null(value) {
            return Some(shared.clone());
        }
        Some(shared.overlaid(&value::object(value)?.without_nulls()))
    }
}

fn text_of(written: Vec<u8>) -> String {
    String::from_utf8(written).expect("what is written from text is text")
}

/// What an event is read as, together with what surrounds it.
trait Item<'de>: Deserialize<'de> {
    /// So many are read at most.
    const MOST: usize;
}

impl<'de> Item<'de> for Fields<'de> {
    const MOST: usize = ONE_PASS_MAX;
}

impl<'de> Item<'de> for &'de RawValue {
    const MOST: usize = usize::MAX;
}

/// The events, each read as `T`, and what surrounds them, found but not yet judged.
struct Envelope<'a, T> {
    items: Items<T>,
    context: Part<'a>,
    integrations: Part<'a>,
}

impl<'a, T> Envelope<'a, T> {
    fn found(self, found: fn(Vec<T>) -> Found<'a>) -> (Option<Found<'a>>, Part<'a>, Part<'a>) {
        (self.items.0.map(found), self.context, self.integrations)
    }
}

impl<'de: 'a, 'a, T: Item<'de>> Deserialize<'de> for Envelope<'a, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Envelope<'a, T>, D::Error> {
        deserializer.deserialize_any(EnvelopeVisitor(PhantomData))
    }
}

struct EnvelopeVisitor<T>(PhantomData<T>);

impl<'de, T: Item<'de>> Visitor<'de> for EnvelopeVisitor<T> {
    type Value = Envelope<'de, T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a batch")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Envelope<'de, T>, A::Error> {
        let items = ItemsVisitor(PhantomData).visit_seq(seq)?;
        Ok(Envelope { items, context: Part::Absent, integrations: Part::Absent })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope<'de, T>, A::Error> {
        let mut envelope =
            Envelope { items: Items(None), context: Part::Absent, integrations: Part::Absent };
        while let Some(Key(key)) = map.next_key()? {
            match &*key {
                "batch" => envelope.items = map.next_value()?,
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

/// The items of an array; `None` for anything else.
struct Items<T>(Option<Vec<T>>);

impl<'de, T: Item<'de>> Deserialize<'de> for Items<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Items<T>, D::Error> {
        deserializer.deserialize_any(ItemsVisitor(PhantomData))
    }
}

struct ItemsVisitor<T>(PhantomData<T>);

impl<'de, T: Item<'de>> Visitor<'de> for ItemsVisitor<T> {
    type Value = Items<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Items<T>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            if items.len() == T::MOST {
                return Err(A::Error::custom("more events than are read in one pass"));
            }
            items.push(item);
        }
        Ok(Items(Some(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Items<T>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Items(None))
    }

    fn visit_unit<E>(self) -> Result<Items<T>, E> {
        Ok(Items(None))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Items<T>, E> {
        Ok(Items(None))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Items<T>, E> {
        Ok(Items(None))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Items<T>, E> {
        Ok(Items(None))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Items<T>, E> {
        Ok(Items(None))
    }

    fn visit_str<E>(self, _: &str) -> Result<Items<T>, E> {
        Ok(Items(None))
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
            let mut read = batch(body, RECEIVED).unwrap();
            let kinds: Vec<_> =
                read.take().into_iter().map(|item| item.event.unwrap().kind).collect();
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
        let mut read = batch(body, RECEIVED).unwrap();
        assert_eq!(read.len(), expected.len());
        for (item, (kind, error)) in read.take().into_iter().zip(expected) {
            let found = item.event.as_ref().err().map(ToString::to_string);
            assert_eq!((item.kind, found), (kind, error), "{}", item.raw());
            assert_eq!(item.body(), item.raw());
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
        for (item, (page, whole)) in batch(body, RECEIVED).unwrap().take().into_iter().zip(expected)
        {
            let found = item.event.as_ref().ok().and_then(|event| event.context.get("page"));
            assert_eq!(found.map(RawValue::get), page, "{}", item.raw());
            assert_eq!(item.body(), whole);
        }
    }

    /// One event too many, or one that is none, is read in another way: nothing else may come of it.
    #[test]
    fn both_ways_of_reading_agree() {
        let event = r#"{"type":"track","event":"E","messageId":7,"properties":{"a":[1,{}]}}"#;
        let few = format!("[{event},{event}]");
        let odd = format!("[{event},7,{event}]");
        let many = format!(r#"{{"batch":[{}]}}"#, vec![event; ONE_PASS_MAX + 1].join(","));
        for (body, count, one_pass) in [(few, 2, true), (odd, 3, false), (many, 5001, false)] {
            let mut read = batch(&body, RECEIVED).unwrap();
            assert_eq!(matches!(read.found, Found::Fields(_)), one_pass);
            let items = read.take();
            assert_eq!(items.len(), count);
            for item in items.iter().filter(|item| item.raw() != "7") {
                let found = item.event.as_ref().unwrap();
                assert_eq!((item.raw(), found.message_id.as_deref()), (event, Some("7")));
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(text) = repair(&body, DEPTH_MAX)
                && let Ok(mut read) = batch(&text, RECEIVED)
            {
                let events = read.len();
                prop_assert_eq!(read.take().len(), events);
            }
        }

        #[test]
        fn any_values_are_one_item_each(items in proptest::collection::vec(json(), 0..8), context in json()) {
            let body = format!(r#"{{"batch":[{}],"context":{context}}}"#, items.join(","));
            if let Ok(mut read) = batch(&body, RECEIVED) {
                let read = read.take();
                let raws: Vec<_> = read.iter().map(|item| item.raw().to_owned()).collect();
                prop_assert_eq!(raws, items);
                for item in &read {
                    prop_assert!(serde_json::from_str::<&RawValue>(&item.body()).is_ok());
                }
            }
        }
    }
}
