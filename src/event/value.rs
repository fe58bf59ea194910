//! Reading one raw value, and writing raw values into a new object.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::object::Object;
use super::part::Key;

/// Whether a value is `null`.
#[must_use]
pub fn is_null(value: &RawValue) -> bool {
    value.get() == "null"
}

/// The text of a string, borrowed unless it has escapes; `None` for anything else.
#[must_use]
pub fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    let inner = value.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(value.get()).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// The text of a string, or of a number as it is written; `None` for anything else.
#[must_use]
pub fn text_or_number(value: &RawValue) -> Option<Cow<'_, str>> {
    number(value).map(Cow::Borrowed).or_else(|| text(value))
}

/// A number as it is written; `None` for anything else.
#[must_use]
pub fn number(value: &RawValue) -> Option<&str> {
    let text = value.get();
    text.starts_with(|first: char| first == '-' || first.is_ascii_digit()).then_some(text)
}

/// `true` or `false`; `None` for anything else.
#[must_use]
pub fn boolean(value: &RawValue) -> Option<bool> {
    match value.get() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// The members of an object; `None` for anything else.
#[must_use]
pub fn object(value: &RawValue) -> Option<Object<'_>> {
    if value.get().starts_with('{') { Object::parse(value.get()) } else { None }
}

/// The value of `key` in an object, found without reading the others; `null` and anything else than an object read as absent.
#[must_use]
pub fn member<'a>(value: &'a RawValue, key: &str) -> Option<&'a RawValue> {
    struct Member<'k>(&'k str);
    impl<'de> DeserializeSeed<'de> for Member<'_> {
        type Value = Option<&'de RawValue>;

        fn deserialize<D: Deserializer<'de>>(
            self,
            deserializer: D,
        ) -> Result<Self::Value, D::Error> {
            deserializer.deserialize_map(self)
        }
    }
    impl<'de> Visitor<'de> for Member<'_> {
        type Value = Option<&'de RawValue>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = None;
            while let Some(Key(key)) = map.next_key()? {
                if key == self.0 {
                    found = Some(map.next_value()?);
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(found)
        }
    }
    let mut text = serde_json::Deserializer::from_str(value.get());
    Member(key).deserialize(&mut text).ok().flatten().filter(|value| !is_null(value))
}

/// The items of an array; `None` for anything else.
#[must_use]
pub fn array(value: &RawValue) -> Option<Vec<&RawValue>> {
    if value.get().starts_with('[') { serde_json::from_str(value.get()).ok() } else { None }
}

/// Writes one object, member by member, compact. The caller does not repeat a key.
#[derive(Debug)]
pub struct ObjectWriter<'o> {
    out: &'o mut Vec<u8>,
    empty: bool,
}

impl<'o> ObjectWriter<'o> {
    /// Opens the object.
    pub fn new(out: &'o mut Vec<u8>) -> ObjectWriter<'o> {
        out.push(b'{');
        ObjectWriter { out, empty: true }
    }

    /// Writes a member whose value is already JSON.
    pub fn raw(&mut self, key: &str, value: &RawValue) {
        self.key(key).extend_from_slice(value.get().as_bytes());
    }

    /// Writes a member whose value is a string.
    pub fn text(&mut self, key: &str, value: &str) {
        write_text(self.key(key), value);
    }

    /// Writes a key; the caller appends exactly one JSON value to what is returned.
    pub fn key(&mut self, key: &str) -> &mut Vec<u8> {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        write_text(self.out, key);
        self.out.push(b':');
        self.out
    }

    /// Closes the object.
    pub fn close(self) {
        self.out.push(b'}');
    }
}

/// Writes `text` as a JSON string.
fn write_text(out: &mut Vec<u8>, text: &str) {
    // Nearly no text has anything to escape: without a way out of the loop, many bytes are looked at at once.
    let escaped = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    if text.bytes().fold(false, |found, byte| found | escaped(byte)) {
        serde_json::to_writer(out, text).expect("a Vec takes every byte");
        return;
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::testing::json;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_value_is_read_as_what_it_is() {
        let table = [
            // value, text, text or number, boolean
            ("null", None, None, None),
            ("true", None, None, Some(true)),
            ("false", None, None, Some(false)),
            ("\"true\"", Some("true"), Some("true"), None),
            ("\"\"", Some(""), Some(""), None),
            (r#""a\"b\u00e9""#, Some("a\"bé"), Some("a\"bé"), None),
            ("\"é\"", Some("é"), Some("é"), None),
            ("-1.50", None, Some("-1.50"), None),
            ("12345678901234567890123", None, Some("12345678901234567890123"), None),
            ("{}", None, None, None),
            ("[]", None, None, None),
        ];
        for (json, as_text, as_either, as_boolean) in table {
            let value = raw(json);
            assert_eq!(text(value).as_deref(), as_text, "{json}");
            assert_eq!(text_or_number(value).as_deref(), as_either, "{json}");
            assert_eq!(boolean(value), as_boolean, "{json}");
            assert_eq!(is_null(value), json == "null", "{json}");
            assert_eq!(object(value).is_some(), json == "{}", "{json}");
            assert_eq!(array(value).is_some(), json == "[]", "{json}");
        }
    }

    proptest! {
        #[test]
        fn one_member_is_that_of_the_whole_object(value in json(), more in json()) {
            let repeated = format!(r#"{{"a":{value},"b":{more},"a":{more}}}"#);
            for text in [value, repeated] {
                let value = raw(&text);
                let whole = object(value);
                let keys = whole.iter().flat_map(Object::iter).map(|(key, _)| key);
                for key in keys.chain(["absent"]) {
                    let read = whole.as_ref().and_then(|whole| whole.get(key));
                    prop_assert_eq!(member(value, key).map(RawValue::get), read.map(RawValue::get));
                }
            }
        }

        #[test]
        fn what_is_written_is_read_back(key in any::<String>(), written in any::<String>(), other in json()) {
            let mut out = Vec::new();
            let mut writer = ObjectWriter::new(&mut out);
            writer.text("text", &written);
            writer.raw(&format!("_{key}"), raw(&other));
            writer.close();
            let read = Object::parse(std::str::from_utf8(&out).unwrap()).unwrap();
            let keys: Vec<_> = read.iter().map(|(key, _)| key.to_owned()).collect();
            prop_assert_eq!(keys, ["text".to_owned(), format!("_{key}")]);
            prop_assert_eq!(text(read.member("text").unwrap()).unwrap(), written);
            prop_assert_eq!(read.member(&format!("_{key}")).unwrap().get(), other);
        }
    }
}
