//! PURE. The file and its overrides as sections of raw values, each with its place.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::faults::{Collector, Place};
use super::keys::{self, Kind};
use super::units;

/// A value that is not read yet.
#[derive(Clone)]
enum Raw {
    Text(String),
    Number(String),
    Bool,
    List(Vec<Option<String>>),
    Table,
    /// From an override: its key says how to read it.
    Plain(String),
}

/// One table of the file, with the overrides of its keys.
pub struct Section {
    /// `""`, `ingest`, `admin`, `spool` or `integration`.
    name: &'static str,
    /// Where it begins.
    pub place: Place,
    values: BTreeMap<String, (Raw, Place)>,
}

/// All tables.
pub struct Document {
    /// The top of the file.
    pub top: Section,
    /// `[ingest]`.
    pub ingest: Section,
    /// `[admin]`.
    pub admin: Section,
    /// `[spool]`.
    pub spool: Section,
    /// `[[integration]]`, in order.
    pub integrations: Vec<Section>,
}

/// An override: dotted key, value, place.
pub struct Override {
    /// `spool.sync`, `integration.uk.linger`.
    pub key: String,
    /// As it was given.
    pub value: String,
    /// Where from.
    pub place: Place,
}

impl Document {
    /// Reads the file's text and applies `overrides`, later ones over earlier ones.
    #[must_use]
    pub fn read(text: &str, overrides: &[Override], faults: &mut Collector<'_>) -> Document {
        let section = |name| Section { name, place: Place::File, values: BTreeMap::new() };
        let mut document = Document {
            top: section(""),
            ingest: section("ingest"),
            admin: section("admin"),
            spool: section("spool"),
            integrations: Vec::new(),
        };
        match DeTable::parse(text) {
            Ok(table) => document.fill(table.get_ref(), faults),
            Err(error) => {
                let place = error.span().map_or(Place::File, |span| Place::Byte(span.start));
                faults.add(&place, syntax(error.message()));
            }
        }
        for change in overrides {
            document.apply(change, faults);
        }
        document
    }

    fn fill(&mut self, table: &DeTable<'_>, faults: &mut Collector<'_>) {
        for (key, value) in table {
            let place = Place::Byte(key.span().start);
            let section = match key.get_ref().as_ref() {
                "ingest" => &mut self.ingest,
                "admin" => &mut self.admin,
                "spool" => &mut self.spool,
                "integration" => {
                    self.fill_integrations(value, &place, faults);
                    continue;
                }
                name => {
                    self.top.insert(name, value.get_ref(), place, faults);
                    continue;
                }
            };
            section.place = place.clone();
            match value.get_ref().as_table() {
                Some(table) => section.fill(table, "", faults),
                None => faults
                    .add(&place, format!("`{}` must be a table: [{}]", section.name, section.name)),
            }
        }
    }

    fn fill_integrations(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        place: &Place,
        faults: &mut Collector<'_>,
    ) {
        let Some(tables) = value.get_ref().as_array() else {
            faults.add(place, "integrations are written [[integration]], with two brackets");
            return;
        };
        for value in tables.iter() {
            let place = Place::Byte(value.span().start);
            let Some(table) = value.get_ref().as_table() else {
                faults.add(&place, "an integration must be a table");
                continue;
            };
            let mut section = Section { name: "integration", place, values: BTreeMap::new() };
            section.fill(table, "", faults);
            self.integrations.push(section);
        }
    }

    fn apply(&mut self, change: &Override, faults: &mut Collector<'_>) {
        let place = &change.place;
        let (section, name) = match change.key.split_once('.') {
            None => (&mut self.top, change.key.as_str()),
            Some(("ingest", name)) => (&mut self.ingest, name),
            Some(("admin", name)) => (&mut self.admin, name),
            Some(("spool", name)) => (&mut self.spool, name),
            Some(("integration", rest)) => {
                let (integration, name) = rest.split_once('.').unwrap_or((rest, ""));
                let found =
                    self.integrations.iter_mut().find(|section| section.is_called(integration));
                let Some(section) = found else {
                    faults.add(place, format!("no integration is called {integration:?}"));
                    return;
                };
                (section, name)
            }
            Some((section, _)) => {
                faults.add(
                    place,
                    format!("unknown section `{section}`: {}", keys::suggest("", section)),
                );
                return;
            }
        };
        match keys::find(section.name, name) {
            Some(_) => {
                section
                    .values
                    .insert(name.to_owned(), (Raw::Plain(change.value.clone()), place.clone()));
            }
            None => faults
                .add(place, format!("unknown key `{name}`: {}", keys::suggest(section.name, name))),
        }
    }
}

impl Section {
    /// Whether this is the integration `name`; an environment variable cannot hold a `-` or lower-case letters.
    fn is_called(&self, name: &str) -> bool {
        let plain = |name: &str| name.to_ascii_lowercase().replace('-', "_");
        matches!(self.values.get("name"), Some((Raw::Text(known), _)) if plain(known) == plain(name))
    }

    fn fill(&mut self, table: &DeTable<'_>, prefix: &str, faults: &mut Collector<'_>) {
        for (key, value) in table {
            let name = format!("{prefix}{}", key.get_ref());
            match value.get_ref() {
                DeValue::Table(table) if self.name == "integration" && name == "retry" => {
                    self.fill(table, "retry.", faults);
                }
                value => self.insert(&name, value, Place::Byte(key.span().start), faults),
            }
        }
    }

    fn insert(
        &mut self,
        name: &str,
        value: &DeValue<'_>,
        place: Place,
        faults: &mut Collector<'_>,
    ) {
        if keys::find(self.name, name).is_none() {
            let known = keys::suggest(self.name, name);
            faults.add(&place, format!("unknown key `{name}`: {known}"));
            return;
        }
        let text = |value: &DeValue<'_>| value.as_str().map(str::to_owned);
        let raw = match value {
            DeValue::String(text) => Raw::Text(text.clone().into_owned()),
            DeValue::Integer(number) if number.radix() == 10 => {
                Raw::Number(number.as_str().replace('_', ""))
            }
            DeValue::Integer(_) | DeValue::Datetime(_) | DeValue::Table(_) => Raw::Table,
            DeValue::Float(number) => Raw::Number(number.as_str().replace('_', "")),
            DeValue::Boolean(_) => Raw::Bool,
            DeValue::Array(items) => {
                Raw::List(items.iter().map(|item| text(item.get_ref())).collect())
            }
        };
        self.values.insert(name.to_owned(), (raw, place));
    }

    /// Where `name` was set, else where the section begins.
    #[must_use]
    pub fn place_of(&self, name: &str) -> Place {
        self.values.get(name).map_or_else(|| self.place.clone(), |(_, place)| place.clone())
    }

    /// Whether `name` was set.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// A text, or its default.
    pub fn text(&self, name: &str, faults: &mut Collector<'_>) -> String {
        let read = self.scalar(name, faults, "a text in quotes", |raw| match raw {
            Raw::Text(text) | Raw::Plain(text) => Some(text.clone()),
            _ => None,
        });
        read.unwrap_or_else(|| self.default_of(name).to_owned())
    }

    /// A text that must be one of the key's choices.
    pub fn choice(&self, name: &str, faults: &mut Collector<'_>) -> String {
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
    pub fn size(&self, name: &str, faults: &mut Collector<'_>) -> u64 {
        let text = self.text(name, faults);
        let bounds = match self.kind(name) {
            Some(Kind::Size(from, to)) => (from, to),
            _ => (0, u64::MAX),
        };
        match units::size(&text) {
            Ok(bytes) if bytes < bounds.0 || bytes > bounds.1 => {
                let (from, to) = (units::show_size(bounds.0), units::show_size(bounds.1));
                faults.add(&self.place_of(name), format!("`{name}` must be from {from} to {to}"));
                bytes
            }
            Ok(bytes) => bytes,
            Err(wrong) => self.wrong(name, wrong, faults),
        }
    }

    /// A duration within the key's bounds; `None` for the `"always"` of a sync.
    pub fn duration(&self, name: &str, faults: &mut Collector<'_>) -> Option<Duration> {
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
    pub fn count(&self, name: &str, faults: &mut Collector<'_>) -> u64 {
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
        let read = self.scalar(name, faults, &wanted, |raw| match raw {
            Raw::Number(text) | Raw::Plain(text) => {
                text.parse().ok().filter(|count| (from..=to).contains(count))
            }
            _ => None,
        });
        read.unwrap_or(default)
    }

    /// A number of at least 0.
    pub fn rate(&self, name: &str, faults: &mut Collector<'_>) -> f64 {
        let read = self.scalar(name, faults, "a number of at least 0", |raw| match raw {
            Raw::Number(text) | Raw::Plain(text) => {
                text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate >= 0.0)
            }
            _ => None,
        });
        read.unwrap_or(0.0)
    }

    /// A list of texts; an override separates them by commas.
    pub fn names(&self, name: &str, faults: &mut Collector<'_>) -> Vec<String> {
        let read =
            self.scalar(
                name,
                faults,
                "an array of texts, such as [\"marketing\"]",
                |raw| match raw {
                    Raw::List(items) => items.iter().cloned().collect::<Option<Vec<String>>>(),
                    Raw::Plain(text) => Some(
                        text.split(',')
                            .map(str::trim)
                            .filter(|item| !item.is_empty())
                            .map(str::to_owned)
                            .collect(),
                    ),
                    _ => None,
                },
            );
        read.unwrap_or_default()
    }

    /// Refuses every key that this version does not support, unless it is set to what it is anyway.
    pub fn refuse_later(&self, faults: &mut Collector<'_>) {
        for (name, (raw, place)) in &self.values {
            if self.kind(name) != Some(Kind::Later) {
                continue;
            }
            let said = match raw {
                Raw::Text(text) | Raw::Number(text) | Raw::Plain(text) => {
                    Cow::Borrowed(text.as_str())
                }
                Raw::List(items) if items.is_empty() => Cow::Borrowed("[]"),
                Raw::List(_) | Raw::Table | Raw::Bool => Cow::Borrowed("?"),
            };
            if said != self.default_of(name) {
                faults.add(
                    place,
                    format!("`{name}` is not supported by this version yet: remove it"),
                );
            }
        }
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

/// The parser's message without what it quotes: a quoted piece may be the API key.
fn syntax(message: &str) -> String {
    let plain: String = message.split(['`', '"', '\'']).step_by(2).collect::<Vec<_>>().join("…");
    let first = plain.lines().next().unwrap_or_default();
    format!("not valid TOML: {first}")
}
