//! What one integration does with events: its preset, its consent, its limits.
//!
//! [`Rules::shape`] is the one place that decides what an event becomes. An integration's own
//! `[integration.events."…"]` tables are looked up by the event's name, once; without any, nothing is looked up.

use std::borrow::Cow;
use std::collections::HashMap;

use super::preset;
use super::table::{PAGE, Table, Unmapped};
use super::{DropReason, Preset};
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
    /// Tables of tracks, by the event's name.
    tracks: HashMap<String, Table>,
    /// The table of all pages.
    pages: Option<Table>,
}

/// Which rule decided about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule<'r> {
    /// A table of the event's own, over the preset.
    Table(&'r Table),
    /// The preset alone.
    Preset(Preset),
    /// None sends it on.
    None,
}

/// What a record made of one event looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape<'r> {
    /// The record's `event_type`; never empty.
    pub event_type: Cow<'r, str>,
    /// The names that properties, and those of each product, get.
    pub renames: Renames,
    /// The event's own table, if it has one.
    pub table: Option<&'r Table>,
}

/// Old and new names of properties.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Renames(pub &'static [(&'static str, &'static str)]);

impl Rules {
    /// The rules of `preset`, where every category of `consent` is granted.
    #[must_use]
    pub fn new(preset: Preset, consent: Vec<String>) -> Rules {
        Rules {
            preset,
            consent,
            record_bytes_max: RECORD_BYTES_MAX,
            tracks: HashMap::new(),
            pages: None,
        }
    }

    /// These rules with tables of single events over the preset. Of two tables of one name the later counts.
    #[must_use]
    pub fn with_tables(mut self, tables: impl IntoIterator<Item = Table>) -> Rules {
        for table in tables {
            if table.name == PAGE {
                self.pages = Some(table);
            } else {
                self.tracks.insert(table.name.clone(), table);
            }
        }
        self
    }

    /// What becomes of `event`. Only tracks and pages are ever sent on.
    ///
    /// # Errors
    /// Why it is not sent on.
    pub fn shape<'r>(&'r self, event: &'r Event<'_>) -> Result<Shape<'r>, DropReason> {
        let table = self.table(event);
        if table.is_some_and(|table| table.disabled) {
            return Err(DropReason::Disabled);
        }
        let shape = match event.kind {
            Kind::Track => {
                let name = event.name.as_deref().ok_or(DropReason::NoMapping)?;
                let own = || table.map(|_| preset::own(self.preset, name));
                preset::track(self.preset, name).or_else(own).ok_or(DropReason::NoMapping)?
            }
            Kind::Page => preset::page(),
            Kind::Identify | Kind::Group | Kind::Alias | Kind::Screen => {
                return Err(DropReason::NoMapping);
            }
        };
        let event_type = table.and_then(|table| table.event_type.as_deref());
        let event_type = event_type.map_or(shape.event_type, Cow::Borrowed);
        Ok(Shape { event_type, renames: shape.renames, table })
    }

    /// Which rule decides about `event`.
    #[must_use]
    pub fn rule(&self, event: &Event<'_>) -> Rule<'_> {
        match (self.table(event), self.shape(event)) {
            (Some(table), _) => Rule::Table(table),
            (None, Ok(_)) => Rule::Preset(self.preset),
            (None, Err(_)) => Rule::None,
        }
    }

    /// The name of an event with rules that differs from `name` in capitals, spaces or punctuation alone.
    #[must_use]
    pub fn near(&self, name: &str) -> Option<&str> {
        let preset = match self.preset {
            Preset::Retail => &preset::RETAIL_EVENTS[..],
            Preset::Default => &[],
        };
        let known = preset.iter().map(|(known, _)| *known);
        let folded = preset::snake_case(name);
        let near = |known: &&str| *known != name && preset::snake_case(known) == folded;
        known.chain(self.tracks.keys().map(String::as_str)).filter(near).min()
    }

    fn table(&self, event: &Event<'_>) -> Option<&Table> {
        match event.kind {
            Kind::Track => self.tracks.get(event.name.as_deref()?),
            Kind::Page => self.pages.as_ref(),
            Kind::Identify | Kind::Group | Kind::Alias | Kind::Screen => None,
        }
    }
}

impl Shape<'_> {
    /// Whether the event's other properties are sent.
    #[must_use]
    pub fn keeps_unmapped(&self) -> bool {
        self.table.is_none_or(|table| table.unmapped == Unmapped::Keep)
    }

    /// The name under which the member `key` of the event's `properties` is sent; `None` when the table sends it
    /// elsewhere, or gives both of its names away.
    #[must_use]
    pub fn name<'k>(&self, key: &'k str, properties: &Object<'_>) -> Option<&'k str> {
        let name = self.renames.name(key, properties);
        let Some(table) = self.table else { return Some(name) };
        if table.moves(key) {
            return None;
        }
        [name, key].into_iter().find(|name| !table.gives(name))
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
