//! PURE. The file and its overrides as sections of raw values, each with its place.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::faults::{Collector, Place};
use super::keys;
use super::section::Section;

/// All tables.
pub(super) struct Document {
    /// The top of the file.
    pub(super) top: Section,
    /// `[ingest]`.
    pub(super) ingest: Section,
    /// `[admin]`.
    pub(super) admin: Section,
    /// `[spool]`.
    pub(super) spool: Section,
    /// `[[integration]]`, in order.
    pub(super) integrations: Vec<Section>,
}

/// An override: dotted key, value, place.
pub(super) struct Override {
    /// `spool.sync`, `integration.uk.linger`.
    pub(super) key: String,
    /// As it was given.
    pub(super) value: String,
    /// Where from.
    pub(super) place: Place,
}

impl Override {
    /// Whether it is for the integration `name`, as an override may spell it.
    pub(super) fn is_for(&self, name: &str) -> bool {
        let rest = self.key.strip_prefix("integration.");
        let named = rest.and_then(|rest| rest.split_once('.')).map(|(named, _)| named);
        named.is_some_and(|named| named == name || folded(named) == folded(name))
    }
}

/// An environment variable often holds neither `-` nor lower-case letters.
fn folded(name: &str) -> String {
    name.to_ascii_lowercase().replace('-', "_")
}

impl Document {
    /// A document that sets nothing.
    #[must_use]
    pub(super) fn empty() -> Document {
        let section = |name| Section::new(name, Place::File);
        Document {
            top: section(""),
            ingest: section("ingest"),
            admin: section("admin"),
            spool: section("spool"),
            integrations: Vec::new(),
        }
    }

    /// Reads the file's text and applies `overrides`, later ones over earlier ones. Those for integrations that are not in it
    /// and `elsewhere` are left to others; an empty name there stands for names that cannot be known. `None` when it is no TOML: nothing more can be said of it then.
    #[must_use]
    pub(super) fn read<'o>(
        text: &str,
        overrides: impl IntoIterator<Item = &'o Override>,
        elsewhere: &[&str],
        faults: &mut Collector<'_>,
    ) -> Option<Document> {
        let mut document = Document::empty();
        match DeTable::parse(text) {
            Ok(table) => document.fill(table.get_ref(), faults),
            Err(error) => {
                let place = error.span().map_or(Place::File, |span| Place::Byte(span.start));
                faults.add(&place, syntax(error.message()));
                return None;
            }
        }
        for change in overrides {
            let left = elsewhere.iter().any(|name| match *name {
                "" => change.key.starts_with("integration."),
                name => change.is_for(name),
            });
            if !left || document.has(change) {
                document.apply(change, faults);
            }
        }
        Some(document)
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
                None => faults.add(
                    &place,
                    format!("`{}` must be a table: [{}]", section.name(), section.name()),
                ),
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
        for value in tables {
            let place = Place::Byte(value.span().start);
            let Some(table) = value.get_ref().as_table() else {
                faults.add(&place, "an integration must be a table");
                continue;
            };
            let mut section = Section::new("integration", place);
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
                let Some((integration, name)) = rest.split_once('.') else {
                    faults.add(place, keys::whole("", "integration").unwrap_or_default());
                    return;
                };
                match self.integration(integration) {
                    Ok(section) => (section, name),
                    Err(message) => {
                        faults.add(place, message);
                        return;
                    }
                }
            }
            Some((section, _)) => {
                let (shown, near) = (keys::shown(section), keys::suggest("", section));
                faults.add(place, format!("unknown section {shown}: {near}"));
                return;
            }
        };
        section.override_with(name, &change.value, place, faults);
    }

    /// Whether an override is for an integration in it.
    fn has(&self, change: &Override) -> bool {
        self.integrations.iter().any(|known| change.is_for(known.given("name").unwrap_or_default()))
    }

    /// The integration `name`; one that differs in what [`folded`] folds is taken too, when it is the only one.
    fn integration(&mut self, name: &str) -> Result<&mut Section, String> {
        let named: Vec<&str> =
            self.integrations.iter().map(|known| known.given("name").unwrap_or_default()).collect();
        let exact = named.iter().position(|known| *known == name);
        let mut near = (0..).zip(&named).filter(|(_, known)| folded(known) == folded(name));
        let index = match (exact, near.next(), near.next()) {
            (Some(index), ..) | (None, Some((index, _)), None) => index,
            (None, Some((_, one)), Some((_, other))) => {
                return Err(format!("both {one:?} and {other:?} may be meant by {name:?}"));
            }
            (None, None, _) => return Err(format!("no integration is called {name:?}")),
        };
        self.integrations.get_mut(index).ok_or_else(|| format!("no integration is called {name:?}"))
    }
}

/// The parser's message, without any word that may come from the file: a line of it may hold the API key.
fn syntax(message: &str) -> String {
    let harmless = |word: &&str| {
        let quotes = word.contains(['`', '"', '\'']);
        let plain = !quotes || !word.contains(char::is_alphanumeric);
        plain && word.len() <= WORD_MAX && !word.contains(|letter: char| letter.is_ascii_digit())
    };
    let words = message.lines().next().unwrap_or_default().split(' ');
    let words: Vec<&str> = words.map(|word| if harmless(&word) { word } else { "…" }).collect();
    format!("not valid TOML: {}", words.join(" "))
}

/// Letters of the longest word that a parser's own message has.
const WORD_MAX: usize = 20;
