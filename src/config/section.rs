//! PURE. One table of the configuration: raw values with their places, read by key.
//!
//! No message shows a value: any of them may be the API key, in the wrong place.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::events;
use super::faults::{Collector, Place};
use super::keys::{self, Kind};
use super::units;
use crate::mapping::Table;

/// A value that is not read yet.
#[derive(Clone)]
enum Raw {
    Text(String),
    Number(String),
    Bool(bool),
    List(Vec<Option<String>>),
    Table,
    /// From an override: its key says how to read it.
    Plain(String),
}

impl Raw {
    fn of(value: &DeValue<'_>) -> Raw {
        match value {
            DeValue::String(text) => Raw::Text(text.clone().into_owned()),
            DeValue::Integer(number) => {
                let digits = number.as_str().replace('_', "");
                let decimal = match number.radix() {
                    10 => Some(digits),
                    radix => u64::from_str_radix(&digits, radix).ok().map(|n| n.to_string()),
                };
                decimal.map_or(Raw::Table, Raw::Number)
            }
            DeValue::Float(number) => Raw::Number(number.as_str().replace('_', "")),
            DeValue::Boolean(value) => Raw::Bool(*value),
            DeValue::Array(items) => {
                let texts = items.iter().map(|item| item.get_ref().as_str().map(str::to_owned));
                Raw::List(texts.collect())
            }
            DeValue::Datetime(_) | DeValue::Table(_) => Raw::Table,
        }
    }

    /// A number as the standard library reads it.
    fn number(&self) -> Option<Cow<'_, str>> {
        match self {
            Raw::Number(text) => Some(Cow::Borrowed(text)),
            Raw::Plain(text) => Some(Cow::Owned(text.trim().replace('_', ""))),
            _ => None,
        }
    }
}

/// One table of the file, with the overrides of its keys.
pub(super) struct Section {
    /// `""`, `ingest`, `admin`, `spool` or `integration`.
    name: &'static str,
    /// Where it begins.
    pub(super) place: Place,
    /// Mappings of single events, of an integration.
    pub(super) events: Vec<Table>,
    values: BTreeMap<String, (Raw, Place)>,
}

impl Section {
    /// The table `name`, which sets nothing yet and begins at `place`.
    #[must_use]
    pub(super) fn new(name: &'static str, place: Place) -> Section {
        Section { name, place, events: Vec::new(), values: BTreeMap::new() }
    }

    /// What this table is called in the file.
    #[must_use]
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Takes the keys of `table`.
    pub(super) fn fill(&mut self, table: &DeTable<'_>, prefix: &str, faults: &mut Collector<'_>) {
        for (key, value) in table {
            let name = format!("{prefix}{}", key.get_ref());
            match value.get_ref() {
                DeValue::Table(table) if self.name == "integration" && name == "retry" => {
                    self.fill(table, "retry.", faults);
                }
                DeValue::Table(tables) if self.name == "integration" && name == "events" => {
                    self.events = events::read(tables, faults);
                }
                value => self.insert(&name, value, Place::Byte(key.span().start), faults),
            }
        }
    }

    /// Takes a value of the file.
    pub(super) fn insert(
        &mut self,
        name: &str,
        value: &DeValue<'_>,
        place: Place,
        faults: &mut Collector<'_>,
    ) {
        if self.knows(name, &place, faults) {
            self.values.insert(name.to_owned(), (Raw::of(value), place));
        }
    }

    /// Takes the value of an override, in place of the file's. One in quotes or brackets is read as TOML.
    pub(super) fn override_with(
        &mut self,
        name: &str,
        value: &str,
        place: &Place,
        faults: &mut Collector<'_>,
    ) {
        if !self.knows(name, place, faults) {
            return;
        }
        let written = value.trim();
        let raw = if written.starts_with(['"', '\'', '[']) {
            let Ok(value) = DeValue::parse(written) else {
                let message = format!("`{name}`: what begins with a quote or bracket must be TOML");
                faults.add(place, message);
                return;
            };
            Raw::of(value.get_ref())
        } else {
            Raw::Plain(value.to_owned())
        };
        self.values.insert(name.to_owned(), (raw, place.clone()));
    }

    /// Whether there is a key `name`; a fault when not.
    fn knows(&self, name: &str, place: &Place, faults: &mut Collector<'_>) -> bool {
        if keys::find(self.name, name).is_some() {
            return true;
        }
        let message = keys::whole(self.name, name).unwrap_or_else(|| {
            format!("unknown key {}: {}", keys::shown(name), keys::suggest(self.name, name))
        });
        faults.add(place, message);
        false
    }

    /// The text that `name` was set to, if it was set to a text.
    #[must_use]
    pub(super) fn given(&self, name: &str) -> Option<&str> {
        match self.values.get(name) {
            Some((Raw::Text(text) | Raw::Plain(text), _)) => Some(text),
            _ => None,
        }
    }

    /// Where `name` was set, else where the section begins.
    #[must_use]
    pub(super) fn place_of(&self, name: &str) -> Place {
        self.values.get(name).map_or_else(|| self.place.clone(), |(_, place)| place.clone())
    }

    /// Where one of its keys was set, if any was.
    #[must_use]
    pub(super) fn first(&self) -> Option<Place> {
        self.values.values().next().map(|(_, place)| place.clone())
    }

    /// Whether `name` was set.
    #[must_use]
    pub(super) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// A text, or its default.
    pub(super) fn text(&self, name: &str, faults: &mut Collector<'_>) -> String {
        let wanted = match self.kind(name) {
            Some(Kind::Size(..)) => "a text in quotes with its unit, such as \"8GiB\"",
            Some(Kind::Time(..)) => "a text in quotes with its unit, such as \"10s\"",
            Some(Kind::Sync(..)) => {
                "\"always\", or a text in quotes with its unit, such as \"10s\""
            }
            Some(Kind::Mode) => "a text in quotes, such as \"0660\"",
            _ => "a text in quotes",
        };
        let read = self.scalar(name, faults, wanted, |raw| match raw {
            Raw::Text(text) | Raw::Plain(text) => Some(text.clone()),
            _ => None,
        });
        read.unwrap_or_else(|| self.default_of(name).to_owned())
    }

    /// A text that must be one of the key's choices.
    pub(super) fn choice(&self, name: &str, faults: &mut Collector<'_>) -> String {
        let text = self.text(name, faults);
        let Some(Kind::Choice(choices)) = self.kind(name) else { return text };
        if !choices.contains(&text.as_str()) {
            let listed: Vec<String> = choices.iter().map(|choice| format!("{choice:?}")).collect();
            faults.add(
                &self.place_of(name),
                format!("`{name}` must be one of {}", listed.join(", ")),
            );
        }
        text
    }

    /// A size in bytes within the key's bounds.
    pub(super) fn size(&self, name: &str, faults: &mut Collector<'_>) -> u64 {
        let text = self.text(name, faults);
        let bounds = match self.kind(name) {
            Some(Kind::Size(from, to)) => (from, to),
            _ => (0, u64::MAX),
        };
        match units::size(&text) {
            Ok(bytes) if bytes < bounds.0 || bytes > bounds.1 => {
                let from = units::show_size(bounds.0);
                let wanted = if bounds.1 == u64::MAX {
                    format!("at least {from}")
                } else {
                    format!("from {from} to {}", units::show_size(bounds.1))
                };
                faults.add(&self.place_of(name), format!("`{name}` must be {wanted}"));
                bytes
            }
            Ok(bytes) => bytes,
            Err(wrong) => self.wrong(name, wrong, faults),
        }
    }

    /// A duration within the key's bounds; `None` for the `"always"` of a sync.
    pub(super) fn duration(&self, name: &str, faults: &mut Collector<'_>) -> Option<Duration> {
        let text = self.text(name, faults);
        let (from, to) = match self.kind(name) {
            Some(Kind::Sync(_, _)) if text == "always" => return None,
            Some(Kind::Time(from, to) | Kind::Sync(from, to)) => {
                (Duration::from_millis(from), Duration::from_millis(to))
            }
            _ => (Duration::ZERO, Duration::MAX),
        };
        match units::duration(&text) {
            Ok(duration) if duration < from || duration > to => {
                let (from, to) = (units::show_duration(from), units::show_duration(to));
                faults.add(&self.place_of(name), format!("`{name}` must be from {from} to {to}"));
                Some(duration)
            }
            Ok(duration) => Some(duration),
            Err(wrong) => {
                let always = if matches!(self.kind(name), Some(Kind::Sync(..))) {
                    "\"always\", or "
                } else {
                    ""
                };
                Some(self.wrong(name, &format!("{always}{wrong}"), faults))
            }
        }
    }

    /// A whole number within the key's bounds.
    pub(super) fn count(&self, name: &str, faults: &mut Collector<'_>) -> u64 {
        let default = self.default_of(name).replace('_', "").parse().unwrap_or_default();
        let (from, to) = match self.kind(name) {
            Some(Kind::Count(from, to)) => (from, to),
            _ => (0, u64::MAX),
        };
        let wanted = if to == u64::MAX {
            format!("a whole number of at least {from}")
        } else {
            format!("a whole number from {from} to {to}")
        };
        let read = self.scalar(name, faults, &wanted, |raw| {
            raw.number()?.parse().ok().filter(|count| (from..=to).contains(count))
        });
        read.unwrap_or(default)
    }

    /// A number of at least 0.
    pub(super) fn rate(&self, name: &str, faults: &mut Collector<'_>) -> f64 {
        let read = self.scalar(name, faults, "a number of at least 0", |raw| {
            raw.number()?.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate >= 0.0)
        });
        read.unwrap_or(0.0)
    }

    /// Whether the key is switched on.
    pub(super) fn switch(&self, name: &str, faults: &mut Collector<'_>) -> bool {
        let read = self.scalar(name, faults, "true or false", |raw| match raw {
            Raw::Bool(value) => Some(*value),
            Raw::Plain(text) => text.trim().parse().ok(),
            _ => None,
        });
        read.unwrap_or(self.default_of(name) == "true")
    }

    /// A list of texts, none of them empty; an override may separate them by commas. No text at all is no list: what
    /// an unset variable left empty must not switch off a consent.
    pub(super) fn names(&self, name: &str, faults: &mut Collector<'_>) -> Vec<String> {
        let wanted = "an array of texts, none of them empty, such as [\"marketing\"]";
        let read = self.scalar(name, faults, wanted, |raw| {
            let items = match raw {
                Raw::List(items) => items.iter().cloned().collect::<Option<Vec<String>>>()?,
                Raw::Plain(text) => text.split(',').map(|item| item.trim().to_owned()).collect(),
                _ => return None,
            };
            items.iter().all(|item| !item.is_empty() && item.trim() == item).then_some(items)
        });
        read.unwrap_or_default()
    }

    fn scalar<T>(
        &self,
        name: &str,
        faults: &mut Collector<'_>,
        wanted: &str,
        read: impl FnOnce(&Raw) -> Option<T>,
    ) -> Option<T> {
        let (raw, place) = self.values.get(name)?;
        let value = read(raw);
        if value.is_none() {
            faults.add(place, format!("`{name}` must be {wanted}"));
        }
        value
    }

    fn wrong<T: Default>(&self, name: &str, wrong: &str, faults: &mut Collector<'_>) -> T {
        // A value of another type has been told already.
        if matches!(self.values.get(name), None | Some((Raw::Text(_) | Raw::Plain(_), _))) {
            faults.add(&self.place_of(name), format!("`{name}`: {wrong}"));
        }
        T::default()
    }

    fn kind(&self, name: &str) -> Option<Kind> {
        keys::find(self.name, name).map(|key| key.kind)
    }

    fn default_of(&self, name: &str) -> &'static str {
        keys::find(self.name, name).map_or("", |key| key.default)
    }
}
