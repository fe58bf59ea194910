//! What one integration does with events: its preset, its consent, its limits.
//!
//! [`Rules::shape`] is the one place that decides what an event becomes. An integration's own
//! `[integration.events."…"]` tables belong here: looked up by the event's name before the preset is asked,
//! each giving a [`Shape`] of its own (event type, property names and sources, constants, value maps).

use std::borrow::Cow;

use super::Preset;
use super::preset;
use crate::event::{Event, Kind, Object};

/// The most bytes of one record: Ometria documents 60 KB, taken as 60,000 bytes of compact JSON (read 2026-06).
pub const RECORD_BYTES_MAX: usize = 60_000;

/// The rules of one integration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// What happens to an event without rules of its own.
    pub preset: Preset,
    /// Categories that must all be granted; empty: consent is not asked.
    pub consent: Vec<String>,
    /// The most bytes of one record.
    pub record_bytes_max: usize,
}

/// What a record made of one event looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape<'r> {
    /// The record's `event_type`; never empty.
    pub event_type: Cow<'r, str>,
    /// The names that properties, and those of each product, get.
    pub renames: Renames,
}

/// Old and new names of properties.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Renames(pub &'static [(&'static str, &'static str)]);

impl Rules {
    /// The rules of `preset`, where every category of `consent` is granted.
    #[must_use]
    pub fn new(preset: Preset, consent: Vec<String>) -> Rules {
        Rules { preset, consent, record_bytes_max: RECORD_BYTES_MAX }
    }

    /// What becomes of `event`; `None` when it is not sent on. Only tracks and pages ever are.
    #[must_use]
    pub fn shape<'r>(&'r self, event: &'r Event<'_>) -> Option<Shape<'r>> {
        match event.kind {
            Kind::Track => preset::track(self.preset, event.name.as_deref()?),
            Kind::Page => Some(preset::page()),
            Kind::Identify | Kind::Group | Kind::Alias | Kind::Screen => None,
        }
    }
}

impl Renames {
    /// The name that `key` of `object` gets.
    ///
    /// Where the new name is taken by another member, that one keeps it and `key` stays as it is: so neither
    /// value is lost.
    #[must_use]
    pub fn name<'k>(self, key: &'k str, object: &Object<'_>) -> &'k str {
        let rename = self.0.iter().find(|(old, _)| *old == key);
        rename.filter(|(_, new)| object.member(new).is_none()).map_or(key, |(_, new)| new)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_name_is_not_given_away() {
        let renames = Renames(&[("price", "product_price"), ("name", "product_name")]);
        let object = Object::parse(r#"{"price":1,"product_name":null,"name":"n","x":2}"#).unwrap();
        let table = [
            ("price", "product_price"),
            ("name", "name"),
            ("x", "x"),
            ("product_name", "product_name"),
        ];
        for (key, expected) in table {
            assert_eq!(renames.name(key, &object), expected);
        }
        assert_eq!(Renames::default().name("price", &object), "price");
    }
}
