//! PURE. JSON objects whose values keep their bytes: `79.00` stays `79.00`, and keys keep their order.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// An object as ordered pairs. A repeated key keeps its first place and takes its last value.
#[derive(Clone, Debug, Default)]
pub struct Object<'a> {
    pairs: Vec<(Cow<'a, str>, &'a RawValue)>,
}

/// From this many pairs on, repeated keys are looked for by hash.
const FEW: usize = 32;

impl<'a> Object<'a> {
    /// Reads the text of an object.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn parse(text: &'a str) -> Result<Object<'a>, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// The pairs, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> + '_ {
        self.pairs.iter().map(|(key, value)| (key.as_ref(), *value))
    }

    /// Whether it has no pairs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The value of `key`; `null` reads as absent.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&'a RawValue> {
        let (_, value) = self.pairs.iter().find(|(known, _)| known == key)?;
        (value.get() != "null").then_some(*value)
    }

    /// The string under `key`; anything else reads as absent.
    #[must_use]
    pub fn string(&self, key: &str) -> Option<Cow<'a, str>> {
        string(self.get(key)?)
    }

    /// The object under `key`; anything else reads as absent.
    #[must_use]
    pub fn object(&self, key: &str) -> Option<Object<'a>> {
        Object::parse(self.get(key)?.get()).ok()
    }

    /// Adds the pairs of `defaults` whose keys are absent here.
    #[must_use]
    pub fn with_defaults(mut self, defaults: &Object<'a>) -> Object<'a> {
        for (key, value) in &defaults.pairs {
            if self.get(key).is_none() {
                self.pairs.retain(|(known, _)| known != key);
                self.pairs.push((key.clone(), value));
            }
        }
        self
    }

    /// Sets `key`, at its old place when it has one.
    fn set(&mut self, key: Cow<'a, str>, value: &'a RawValue) {
        match self.pairs.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old)) => *old = value,
            None => self.pairs.push((key, value)),
        }
    }

    /// Appends the object's text to `out`.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut separator = b'{';
        for (key, value) in self.iter() {
            out.push(separator);
            write_string(out, key);
            out.push(b':');
            out.extend_from_slice(value.get().as_bytes());
            separator = b',';
        }
        out.extend_from_slice(if separator == b'{' { b"{}" } else { b"}" });
    }
}

/// The text of a JSON string, unescaped.
#[must_use]
pub fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    let text = value.get();
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(text).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// Appends `text` as a JSON string.
pub fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("text written into memory always encodes");
}

/// Merges two JSON objects: the values of `new` win, keys keep their places, a `null` removes its key.
/// An `old` that is no object counts as empty.
#[must_use]
pub fn merge(old: Option<&[u8]>, new: &[u8]) -> Vec<u8> {
    fn read(bytes: &[u8]) -> Object<'_> {
        std::str::from_utf8(bytes)
            .ok()
            .and_then(|text| Object::parse(text).ok())
            .unwrap_or_default()
    }
    let mut merged = old.map(read).unwrap_or_default();
    for (key, value) in read(new).pairs {
        merged.set(key, value);
    }
    merged.pairs.retain(|(_, value)| value.get() != "null");
    let mut out = Vec::with_capacity(old.map_or(0, <[u8]>::len) + new.len());
    merged.write(&mut out);
    out
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Object<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut object = Object { pairs: Vec::with_capacity(16) };
                let mut seen = std::collections::HashMap::new();
                while let Some((Key(key), value)) = map.next_entry::<Key<'de>, &'de RawValue>()? {
                    if object.pairs.len() < FEW {
                        object.set(key, value);
                        continue;
                    }
                    if seen.is_empty() {
                        seen.extend(object.pairs.iter().map(|(key, _)| key.clone()).zip(0_usize..));
                    }
                    let place = *seen.entry(key.clone()).or_insert(object.pairs.len());
                    match object.pairs.get_mut(place) {
                        Some((_, old)) => *old = value,
                        None => object.pairs.push((key, value)),
                    }
                }
                Ok(object)
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// A key that borrows when it has no escapes; serde's own `Cow` always copies.
struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_keep_their_bytes_and_keys_their_order() {
        let text = r#"{"b": 79.00,"a":12345678901234567890123,"\u0041":[ 1 , 2 ],"b":1e5}"#;
        let mut out = Vec::new();
        Object::parse(text).unwrap().write(&mut out);
        assert_eq!(out, br#"{"b":1e5,"a":12345678901234567890123,"A":[ 1 , 2 ]}"#);
    }

    #[test]
    fn merging() {
        for (old, new, merged) in [
            (None, r#"{"a":1}"#, r#"{"a":1}"#),
            (Some(r#"{"a":1,"b":2}"#), r#"{"b":3,"c":4}"#, r#"{"a":1,"b":3,"c":4}"#),
            (Some(r#"{"a":1,"b":2}"#), r#"{"a":null}"#, r#"{"b":2}"#),
            (Some("not json"), r#"{"a":1}"#, r#"{"a":1}"#),
            (Some(r#"{"a":1}"#), "{}", r#"{"a":1}"#),
        ] {
            assert_eq!(
                merge(old.map(str::as_bytes), new.as_bytes()),
                merged.as_bytes(),
                "{old:?} {new}"
            );
        }
    }

    proptest! {
        #[test]
        fn repeated_keys_take_the_last_value(keys in proptest::collection::vec("[a-z]{1,2}", 0..200)) {
            let text: Vec<String> = keys.iter().enumerate().map(|(n, key)| format!("\"{key}\":{n}")).collect();
            let text = format!("{{{}}}", text.join(","));
            let object = Object::parse(&text).unwrap();
            let mut order: Vec<&String> = Vec::new();
            for key in &keys {
                if !order.contains(&key) { order.push(key); }
            }
            prop_assert!(object.iter().map(|(key, _)| key).eq(order.iter().map(|key| key.as_str())));
            for (key, value) in object.iter() {
                let last = keys.iter().rposition(|known| known == key).unwrap();
                prop_assert_eq!(value.get(), last.to_string());
            }
        }
    }
}
