//! PURE. Where a property of a record comes from: a path into the event, or a constant.
//!
//! | written | is |
//! |---|---|
//! | `properties.price`, `context.page.url`, `properties.products.0.sku` | a path: a digit part picks from an array |
//! | `traits.tier` | a path: the event's `traits`, else its `context.traits`, else what is stored for its user, else for its anonymous id |
//! | `userId`, `anonymousId`, `messageId`, `event`, `name`, `type`, `timestamp` | a field of the event, as text |
//! | any other text | a constant, unless it looks like a path: that is a fault |
//!
//! A path is parsed once, when the configuration is read. It leads nowhere at a missing key, at `null`, and through
//! what is neither object nor array.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::identity::Identity;
use crate::event::object::parse_bytes;
use crate::event::{Event, Kind, Object, value};

/// Where a property comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Looked up in each event.
    Path(Path),
    /// The same in each record.
    Constant(Constant),
}

/// A string, number or boolean, as the JSON that is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Constant(String);

/// A place in an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    root: Root,
    parts: Vec<Part>,
    text: String,
}

/// What a path leads to.
#[derive(Clone, Debug)]
pub enum Found<'a> {
    /// A value, to be passed on byte for byte.
    Value(&'a RawValue),
    /// A field that was read as text.
    Text(Cow<'a, str>),
}

/// Why a text is no source. No message quotes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Nothing at all.
    #[error("is empty")]
    Empty,
    /// It looks like a path, or like a field with a slip of the pen.
    #[error("begins with no known root{}", nearest(*.0))]
    UnknownRoot(Option<&'static str>),
    /// Such as `properties` alone.
    #[error("`{0}` alone is no value: name a member of it, such as `{0}.tier`")]
    Whole(&'static str),
    /// Such as `userId.x`.
    #[error("`{0}` has no members")]
    NoMembers(&'static str),
    /// Such as `properties..x`.
    #[error("a part of the path is empty")]
    EmptyPart,
    /// Such as `properties.products[0]`.
    #[error("an index is a part of its own, without brackets: `properties.products.0.sku`")]
    Brackets,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    key: String,
    /// The same as a place in an array, when it is one.
    index: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Root {
    Properties,
    Traits,
    Context,
    UserId,
    AnonymousId,
    MessageId,
    Event,
    Name,
    Type,
    Timestamp,
}

impl Root {
    const ALL: [Root; 10] = [
        Root::Properties,
        Root::Traits,
        Root::Context,
        Root::UserId,
        Root::AnonymousId,
        Root::MessageId,
        Root::Event,
        Root::Name,
        Root::Type,
        Root::Timestamp,
    ];

    fn word(self) -> &'static str {
        match self {
            Root::Properties => "properties",
            Root::Traits => "traits",
            Root::Context => "context",
            Root::UserId => "userId",
            Root::AnonymousId => "anonymousId",
            Root::MessageId => "messageId",
            Root::Event => "event",
            Root::Name => "name",
            Root::Type => "type",
            Root::Timestamp => "timestamp",
        }
    }

    fn has_members(self) -> bool {
        matches!(self, Root::Properties | Root::Traits | Root::Context)
    }
}

impl Source {
    /// Reads a source as it stands in the configuration.
    ///
    /// # Errors
    /// [`SourceError`]: it is neither a path nor a text that could only be a constant.
    pub fn parse(text: &str) -> Result<Source, SourceError> {
        if text.trim().is_empty() {
            return Err(SourceError::Empty);
        }
        let (first, rest) =
            text.split_once('.').map_or((text, None), |(first, rest)| (first, Some(rest)));
        let Some(root) = Root::ALL.into_iter().find(|root| root.word() == first) else {
            return not_a_path(text, first);
        };
        let parts = match (rest, root.has_members()) {
            (None, true) => return Err(SourceError::Whole(root.word())),
            (Some(_), false) => return Err(SourceError::NoMembers(root.word())),
            (None, false) => Vec::new(),
            (Some(rest), true) => parts(rest)?,
        };
        Ok(Source::Path(Path { root, parts, text: text.to_owned() }))
    }
}

fn parts(rest: &str) -> Result<Vec<Part>, SourceError> {
    let part = |key: &str| {
        if key.is_empty() {
            return Err(SourceError::EmptyPart);
        }
        if key.ends_with(']') && key.contains('[') {
            return Err(SourceError::Brackets);
        }
        let digits = key.bytes().all(|byte| byte.is_ascii_digit());
        let index = if digits { key.parse().ok() } else { None };
        Ok(Part { key: key.to_owned(), index })
    };
    rest.split('.').map(part).collect()
}

/// A text that begins with no root: a constant, unless a path was meant.
fn not_a_path(text: &str, first: &str) -> Result<Source, SourceError> {
    let folded = |word: &str| word.to_ascii_lowercase().replace(['_', '-', '$'], "");
    let same = |root: &Root| folded(root.word()) == folded(first);
    let object = |root: &Root| root.has_members() && text.starts_with(&format!("{}[", root.word()));
    if Root::ALL.iter().any(object) {
        return Err(SourceError::Brackets);
    }
    let legal = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '$');
    let dotted = text.contains('.')
        && text.split('.').all(|part| !part.is_empty() && part.chars().all(legal))
        && !text.starts_with(|letter: char| letter.is_ascii_digit() || letter == '-');
    match Root::ALL.into_iter().find(same) {
        Some(root) => Err(SourceError::UnknownRoot(Some(root.word()))),
        None if dotted => {
            let near = Root::ALL
                .into_iter()
                .filter(|root| root.has_members())
                .map(|root| (strsim::damerau_levenshtein(root.word(), first), root.word()))
                .min()
                .filter(|(distance, _)| *distance <= 3);
            Err(SourceError::UnknownRoot(near.map(|(_, word)| word)))
        }
        None => Ok(Source::Constant(Constant::text(text))),
    }
}

fn nearest(root: Option<&str>) -> String {
    if let Some(word) = root {
        return format!(": did you mean `{word}`?");
    }
    let words: Vec<&str> = Root::ALL.into_iter().map(Root::word).collect();
    format!(" ({})", words.join(", "))
}

impl Constant {
    /// A string.
    ///
    /// # Panics
    /// Never: every text is a JSON string.
    #[must_use]
    pub fn text(text: &str) -> Constant {
        Constant(serde_json::to_string(text).expect("every text is a JSON string"))
    }

    /// A number as it is written; `None` when JSON has no such number.
    #[must_use]
    pub fn number(text: &str) -> Option<Constant> {
        let digits = text.strip_prefix('+').unwrap_or(text);
        let raw: &RawValue = serde_json::from_str(digits).ok()?;
        value::number(raw).map(|number| Constant(number.to_owned()))
    }

    /// `true` or `false`.
    #[must_use]
    pub fn boolean(value: bool) -> Constant {
        Constant(value.to_string())
    }

    /// The JSON that is written.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.0
    }
}

impl Path {
    /// As it stands in the configuration.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The event's property that this leads to whole; `None` when it leads elsewhere or further in.
    #[must_use]
    pub fn property(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [part] if self.root == Root::Properties => Some(&part.key),
            _ => None,
        }
    }

    /// What this leads to in `event`, whose person is known as `identity`; `None` when it leads nowhere.
    #[must_use]
    pub fn find<'a>(&self, event: &'a Event<'_>, identity: &Identity<'a>) -> Option<Found<'a>> {
        let text = |text: &'a Option<Cow<'_, str>>| text.as_deref().map(Cow::Borrowed);
        let found = match self.root {
            Root::Properties => return self.inside(&event.properties),
            Root::Context => return self.in_context(event),
            Root::Traits => return self.in_traits(event, identity),
            Root::UserId => text(&event.user_id),
            Root::AnonymousId => text(&event.anonymous_id),
            Root::MessageId => text(&event.message_id),
            Root::Event => text(&event.name).filter(|_| event.kind == Kind::Track),
            Root::Name => text(&event.name).filter(|_| event.kind != Kind::Track),
            Root::Type => Some(Cow::Borrowed(event.kind.as_str())),
            Root::Timestamp => Some(Cow::Owned(event.time.to_string())),
        };
        found.map(Found::Text)
    }

    fn in_context<'a>(&self, event: &Event<'a>) -> Option<Found<'a>> {
        let (first, rest) = self.parts.split_first()?;
        walk(event.context.get(&first.key)?, rest)
    }

    fn in_traits<'a>(&self, event: &Event<'a>, identity: &Identity<'a>) -> Option<Found<'a>> {
        let stored = |traits: Option<&'a [u8]>| self.inside(&parse_bytes(traits?)?);
        self.inside(&event.traits)
            .or_else(|| self.inside(&event.context.object("traits")?))
            .or_else(|| stored(identity.user))
            .or_else(|| stored(identity.anonymous))
    }

    fn inside<'a>(&self, object: &Object<'a>) -> Option<Found<'a>> {
        let (first, rest) = self.parts.split_first()?;
        walk(object.get(&first.key)?, rest)
    }
}

fn walk<'a>(from: &'a RawValue, parts: &[Part]) -> Option<Found<'a>> {
    let mut at = from;
    for part in parts {
        at = match part.index {
            Some(index) if at.get().starts_with('[') => value::array(at)?.get(index).copied()?,
            _ => value::object(at)?.member(&part.key)?,
        };
    }
    Some(at).filter(|value| !value::is_null(value)).map(Found::Value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;
    use crate::event::single;

    #[test]
    fn a_text_is_a_path_a_constant_or_a_fault() {
        use SourceError::{Brackets, Empty, EmptyPart, NoMembers, UnknownRoot, Whole};
        for path in [
            "properties.price",
            "properties.Total Price",
            "context.page.url",
            "traits.tier",
            "properties.products.0.sku",
            "userId",
            "timestamp",
        ] {
            let Ok(Source::Path(read)) = Source::parse(path) else { panic!("{path}") };
            assert_eq!(read.as_str(), path);
        }
        for constant in [
            "GBP",
            "web shop",
            "https://example.com/a",
            "Shop Inc.",
            "1.5",
            "2026-06-06T10:00:00.5Z",
            "a@b.c",
        ] {
            let expected = Source::Constant(Constant::text(constant));
            assert_eq!(Source::parse(constant), Ok(expected), "{constant}");
        }
        for (fault, expected) in [
            ("", Empty),
            (" ", Empty),
            ("property.price", UnknownRoot(Some("properties"))),
            ("Properties.price", UnknownRoot(Some("properties"))),
            ("$.properties.price", UnknownRoot(None)),
            ("example.com", UnknownRoot(None)),
            ("user_id", UnknownRoot(Some("userId"))),
            ("userID", UnknownRoot(Some("userId"))),
            ("properties", Whole("properties")),
            ("userId.x", NoMembers("userId")),
            ("properties.", EmptyPart),
            ("properties..x", EmptyPart),
            ("properties.products[0].sku", Brackets),
            ("properties[\"price\"]", Brackets),
        ] {
            assert_eq!(Source::parse(fault), Err(expected), "{fault}");
        }
    }

    #[test]
    fn a_path_leads_to_a_value_or_nowhere() {
        let body = r#"{"event":"E","userId":7,"messageId":"m","timestamp":"2026-06-06T15:32:52.417Z","traits":{"a":"event","none":null},
            "properties":{"price":79.00,"7":"key","empty":null,"products":[{"sku": "x"},{"sku":null}],"nested":{"a":{"0":1e2}}},
            "context":{"page":{"url":"u"},"traits":{"a":"context","b":"context","none":null}}}"#;
        let event = single(body, Kind::Track, UnixMillis(0)).unwrap();
        let identity = Identity {
            user: Some(br#"{"a":"user","b":"user","c":[1 ],"none":0}"#),
            anonymous: Some(br#"{"c":"anonymous","d":"anonymous"}"#),
        };
        for (path, expected) in [
            ("properties.price", Some("79.00")),
            ("properties.7", Some("\"key\"")),
            ("properties.products.0.sku", Some("\"x\"")),
            ("properties.products.0", Some(r#"{"sku": "x"}"#)),
            ("properties.products.1.sku", None),
            ("properties.products.2.sku", None),
            ("properties.products.sku", None),
            ("properties.products.99999999999999999999999", None),
            ("properties.nested.a.0", Some("1e2")),
            ("properties.price.x", None),
            ("properties.empty", None),
            ("properties.absent", None),
            ("context.page.url", Some("\"u\"")),
            ("context.page", Some(r#"{"url":"u"}"#)),
            ("context.absent.url", None),
            ("context.traits.a", Some("\"context\"")),
            ("traits.a", Some("\"event\"")),
            ("traits.b", Some("\"context\"")),
            ("traits.c", Some("[1 ]")),
            ("traits.c.0", Some("1")),
            ("traits.d", Some("\"anonymous\"")),
            ("traits.none", Some("0")),
            ("traits.e", None),
            ("userId", Some("7 as text")),
            ("anonymousId", None),
            ("messageId", Some("m as text")),
            ("event", Some("E as text")),
            ("name", None),
            ("type", Some("track as text")),
            ("timestamp", Some("2026-06-06T15:32:52+00:00 as text")),
        ] {
            let Ok(Source::Path(read)) = Source::parse(path) else { panic!("{path}") };
            let found = read.find(&event, &identity).map(|found| match found {
                Found::Value(value) => value.get().to_owned(),
                Found::Text(text) => format!("{text} as text"),
            });
            assert_eq!(found.as_deref(), expected, "{path}");
        }
        let page = single(r#"{"name":"Home"}"#, Kind::Page, UnixMillis(0)).unwrap();
        for (path, expected) in [("name", Some("Home")), ("event", None), ("type", Some("page"))] {
            let Ok(Source::Path(read)) = Source::parse(path) else { panic!("{path}") };
            let found = match read.find(&page, &Identity::default()) {
                Some(Found::Text(text)) => Some(text.into_owned()),
                _ => None,
            };
            assert_eq!(found.as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn constants_are_json() {
        for (text, expected) in
            [("79.00", Some("79.00")), ("+5", Some("5")), ("-0", Some("-0")), ("1e5", Some("1e5"))]
        {
            assert_eq!(Constant::number(text).as_ref().map(Constant::json), expected, "{text}");
        }
        for text in ["inf", "nan", "-inf", "0x10", "1_000", "\"1\"", "true", ""] {
            assert_eq!(Constant::number(text), None, "{text}");
        }
        assert_eq!(Constant::text("a\"b").json(), r#""a\"b""#);
        assert_eq!(Constant::boolean(true).json(), "true");
    }
}
