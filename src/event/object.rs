//! JSON objects whose values stay the text they came as.
//!
//! An [`Object`] knows the keys of one object and where each value's text is. It keeps the order of the
//! keys and every byte of the values: `79.00` stays `79.00`, a 23-digit integer keeps its digits, whitespace
//! inside a nested value stays. Of a repeated key the last value counts, at the place of the first.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::part::Key;
use super::value::{ObjectWriter, is_null};

/// Objects of more members than this are looked up through a sorted index.
const LINEAR_MEMBERS_MAX: usize = 16;

/// Most objects of an event have no more: they are read into one allocation.
const MEMBERS_USUAL: usize = 8;

/// A JSON object in its own order, with raw values.
#[derive(Clone, Debug, Default)]
pub struct Object<'a> {
    members: Vec<Member<'a>>,
    /// Places in `members`, by key; empty while the object is small enough to search.
    sorted: Vec<u32>,
}

type Member<'a> = (Cow<'a, str>, &'a RawValue);

impl<'a> Object<'a> {
    /// The object that `text` holds; `None` when it holds something else or is no JSON.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Object<'a>> {
        serde_json::from_str(text).ok()
    }

    /// The value of `key` as it stands, also when that is `null`.
    #[must_use]
    pub fn member(&self, key: &str) -> Option<&'a RawValue> {
        if self.sorted.is_empty() {
            return self.members.iter().find(|(name, _)| name == key).map(|&(_, value)| value);
        }
        let by_key = |&at: &u32| self.key_at(at).cmp(key);
        let found = self.sorted.binary_search_by(by_key).ok()?;
        self.sorted
            .get(found)
            .and_then(|&at| self.members.get(at as usize))
            .map(|&(_, value)| value)
    }

    /// The value of `key`; `null` reads as absent.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&'a RawValue> {
        self.member(key).filter(|value| !is_null(value))
    }

    /// The members in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.members.iter().map(|(key, value)| (&**key, *value))
    }

    /// Number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// These members and those of `over`, whose values win at the place of the first.
    #[must_use]
    pub fn overlaid(&self, over: &Object<'a>) -> Object<'a> {
        Object::from_members(self.members.iter().chain(&over.members).cloned().collect())
    }

    /// These members but those that are `null`.
    #[must_use]
    pub fn without_nulls(&self) -> Object<'a> {
        let present = self.members.iter().filter(|(_, value)| !is_null(value));
        Object::from_members(present.cloned().collect())
    }

    /// The object as compact JSON, its values byte for byte.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        write_members(self.json_bytes(), self.iter())
    }

    /// The bytes that [`Object::to_json`] comes to, at most, when no key needs escapes.
    #[must_use]
    pub fn json_bytes(&self) -> usize {
        2 + self.members.iter().map(|(key, value)| key.len() + value.get().len() + 4).sum::<usize>()
    }

    fn from_members(members: Vec<Member<'a>>) -> Object<'a> {
        let mut object = Object { members, sorted: Vec::new() };
        if object.members.len() > LINEAR_MEMBERS_MAX {
            object.settle_wide();
        } else {
            object.settle_narrow();
        }
        object
    }

    /// Lets the last of equal keys win, comparing each key with those before it.
    fn settle_narrow(&mut self) {
        let mut at = 1;
        while let Some((key, value)) = self.members.get(at).map(|(key, value)| (key, *value)) {
            match self.members.iter().take(at).position(|(earlier, _)| earlier == key) {
                None => at += 1,
                Some(first) => {
                    self.set_value(first, value);
                    self.members.remove(at);
                }
            }
        }
    }

    /// The same for many members: n log n, so that no body can make it slow; leaves the index behind.
    fn settle_wide(&mut self) {
        let count = u32::try_from(self.members.len()).expect("a body has fewer than 2^32 bytes");
        let mut sorted: Vec<u32> = (0..count).collect();
        sorted.sort_by(|&left, &right| self.key_at(left).cmp(self.key_at(right)));
        if self.drop_repeated(&sorted) {
            // Places have moved. There are no repeats left, so this goes no deeper.
            return self.settle_wide();
        }
        self.sorted = sorted;
    }

    /// Whether there were repeats among the members, which `sorted` lists by key and, within one, by place.
    fn drop_repeated(&mut self, sorted: &[u32]) -> bool {
        let mut repeated = vec![false; self.members.len()];
        let mut first = sorted.first().copied().unwrap_or_default();
        for &at in sorted.iter().skip(1) {
            if self.key_at(at) != self.key_at(first) {
                first = at;
                continue;
            }
            if let Some(&(_, value)) = self.members.get(at as usize) {
                self.set_value(first as usize, value);
            }
            if let Some(flag) = repeated.get_mut(at as usize) {
                *flag = true;
            }
        }
        let found = repeated.contains(&true);
        let mut flags = repeated.into_iter();
        self.members.retain(|_| !flags.next().unwrap_or_default());
        found
    }

    fn key_at(&self, at: u32) -> &str {
        self.members.get(at as usize).map_or("", |(key, _)| key)
    }

    fn set_value(&mut self, at: usize, value: &'a RawValue) {
        if let Some(member) = self.members.get_mut(at) {
            member.1 = value;
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object<'a>, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<'de>, A::Error> {
                members(map)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

pub(super) fn members<'de, A: MapAccess<'de>>(mut map: A) -> Result<Object<'de>, A::Error> {
    let mut members = Vec::new();
    while let Some(Key(key)) = map.next_key()? {
        if members.is_empty() {
            members.reserve(MEMBERS_USUAL);
        }
        members.push((key, map.next_value()?));
    }
    Ok(Object::from_members(members))
}

/// The stored object `old` after `new` was merged into it: of a key in both the new value counts, at the
/// place of the old; a `null` in `new` removes its key.
///
/// An `old` that cannot be read is replaced. A `new` that cannot be read changes nothing.
#[must_use]
pub fn merge(old: Option<&[u8]>, new: &[u8]) -> Vec<u8> {
    let old = old.and_then(parse_bytes).unwrap_or_default();
    let merged = old.overlaid(&parse_bytes(new).unwrap_or_default());
    write_members(merged.json_bytes(), merged.iter().filter(|(_, value)| !is_null(value)))
}

/// The object that `bytes` hold; `None` when they hold something else.
#[must_use]
pub fn parse_bytes(bytes: &[u8]) -> Option<Object<'_>> {
    std::str::from_utf8(bytes).ok().and_then(Object::parse)
}

fn write_members<'m>(
    bytes: usize,
    members: impl Iterator<Item = (&'m str, &'m RawValue)>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes);
    let mut writer = ObjectWriter::new(&mut out);
    for (key, value) in members {
        writer.raw(key, value);
    }
    writer.close();
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::testing::json;

    fn members_of<'a>(object: &Object<'a>) -> Vec<(String, &'a str)> {
        object.iter().map(|(key, value)| (key.to_owned(), value.get())).collect()
    }

    #[test]
    fn order_and_bytes_are_kept() {
        let object = Object::parse(
            "{ \"price\" : 79.00 , \"n\":12345678901234567890123,\"a\\u0062\":\t{ \"x\" : [ 1 ] } }",
        )
        .unwrap();
        let expected =
            [("price", "79.00"), ("n", "12345678901234567890123"), ("ab", "{ \"x\" : [ 1 ] }")]
                .map(|(key, value)| (key.to_owned(), value));
        assert_eq!(members_of(&object), expected);
        assert_eq!(object.member("ab").unwrap().get(), "{ \"x\" : [ 1 ] }");
    }

    #[test]
    fn null_reads_as_absent_but_stays_a_member() {
        let object = Object::parse(r#"{"a":null,"b":0}"#).unwrap();
        assert!(object.get("a").is_none() && object.member("a").is_some());
        assert!(object.get("b").is_some() && object.get("c").is_none());
    }

    #[test]
    fn only_objects_are_objects() {
        for text in ["", "[]", "1", "\"{}\"", "null", "{", "{}x", r#"{"a":}"#, r#"{"a":1,}"#] {
            assert!(Object::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn merging_lets_the_new_win_and_null_remove() {
        let table: [(Option<&str>, &str, &str); 8] = [
            (None, r#"{"email":"a"}"#, r#"{"email":"a"}"#),
            (None, r#"{"email":null,"x":1.0}"#, r#"{"x":1.0}"#),
            (Some(r#"{"a":1,"b":2}"#), r#"{"c":3,"a":9.90}"#, r#"{"a":9.90,"b":2,"c":3}"#),
            (Some(r#"{"a":1,"b":2}"#), r#"{"a":null}"#, r#"{"b":2}"#),
            (Some("not json"), r#"{"a":1}"#, r#"{"a":1}"#),
            (Some("[1]"), r#"{"a":1}"#, r#"{"a":1}"#),
            (Some(r#"{"a": {"x": 1}}"#), r#"{"b":[ ]}"#, r#"{"a":{"x": 1},"b":[ ]}"#),
            (Some(r#"{"a":1}"#), "broken", r#"{"a":1}"#),
        ];
        for (old, new, expected) in table {
            let merged = merge(old.map(str::as_bytes), new.as_bytes());
            assert_eq!(std::str::from_utf8(&merged).unwrap(), expected, "{old:?} and {new}");
        }
    }

    #[test]
    fn very_wide_objects_are_read_in_good_time() {
        let members: Vec<_> = (0..100_000).map(|at| format!("\"k{}\":{at}", at % 60_000)).collect();
        let text = format!("{{{}}}", members.join(","));
        let object = Object::parse(&text).unwrap();
        assert_eq!(object.len(), 60_000);
        assert_eq!(object.member("k1").unwrap().get(), "60001");
        assert_eq!(object.member("k59999").unwrap().get(), "59999");
        assert!(object.member("k60000").is_none());
    }

    proptest! {
        /// Narrow and wide objects keep to one rule, stated here in the plainest way.
        #[test]
        fn the_last_of_a_repeated_key_counts_at_the_first_place(
            members in proptest::collection::vec((0_u8..30, json()), 0..60)
        ) {
            let body: Vec<_> = members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
            let text = format!("{{{}}}", body.join(","));
            let mut expected: Vec<(String, &str)> = Vec::new();
            for (key, value) in &members {
                let key = key.to_string();
                match expected.iter_mut().find(|(earlier, _)| *earlier == key) {
                    Some(member) => member.1 = value,
                    None => expected.push((key, value)),
                }
            }
            let object = Object::parse(&text).unwrap();
            prop_assert_eq!(members_of(&object), expected.clone());
            for (key, value) in expected {
                prop_assert_eq!(object.member(&key).unwrap().get(), value);
            }
            prop_assert!(object.member("absent").is_none());
        }

        #[test]
        fn an_object_is_written_as_it_was_read(value in json()) {
            if let Some(object) = Object::parse(&value) {
                let written = object.to_json();
                let again = parse_bytes(&written).unwrap();
                prop_assert_eq!(members_of(&again), members_of(&object));
                prop_assert_eq!(merge(None, &written), merge(Some(&written), b"{}"));
            }
        }
    }
}
