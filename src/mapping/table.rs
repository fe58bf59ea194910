//! PURE. One `[integration.events."…"]` table: what it adds to the preset, or says instead of it, for one event.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::identity::Identity;
use super::source::{Constant, Found, Source};
use crate::event::Event;
use crate::event::value::{self, ObjectWriter};

/// The table of this name is for all pages; every other name is that of a track, exactly.
pub const PAGE: &str = "page";

/// The longest `event_type` that Ometria keeps whole, in characters (read 2026-06).
pub const EVENT_TYPE_CHARS_MAX: usize = 512;

/// What one event becomes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The event's name, or [`PAGE`].
    pub name: String,
    /// The line of the configuration file that it begins on, from 1.
    pub line: usize,
    /// The record's `event_type`; `None`: that of the preset, or the event's name in `snake_case`.
    pub event_type: Option<String>,
    /// Whether the event is not sent on.
    pub disabled: bool,
    /// The properties that it gives the record, by their names there; no name twice.
    pub properties: Vec<(String, Source)>,
    /// What becomes of the event's other properties.
    pub unmapped: Unmapped,
    /// What single properties become, by their names in the record.
    pub values: BTreeMap<String, Values>,
}

/// What becomes of properties that no source names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unmapped {
    /// Sent on as the preset says.
    #[default]
    Keep,
    /// Left out.
    Drop,
}

/// What the values of one property become.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// By the text of a string, a number as it is written, `true` or `false`.
    pub known: BTreeMap<String, Constant>,
    /// What every other value but `null` becomes; `None`: it stays.
    pub others: Option<Constant>,
}

impl Table {
    /// Whether it gives the record a property of this name.
    #[must_use]
    pub fn gives(&self, target: &str) -> bool {
        self.properties.iter().any(|(name, _)| name == target)
    }

    /// Whether the event's property `key` is sent under another name, or its own, by a source that names it.
    pub(super) fn moves(&self, key: &str) -> bool {
        self.properties.iter().any(|(_, source)| match source {
            Source::Path(path) => path.property() == Some(key),
            Source::Constant(_) => false,
        })
    }

    /// Whether some property is the page's address already.
    pub(super) fn moves_page_url(&self) -> bool {
        self.properties.iter().any(|(_, source)| match source {
            Source::Path(path) => path.as_str() == "context.page.url",
            Source::Constant(_) => false,
        })
    }

    /// What `value` becomes as the property `target`; `None`: it stays.
    pub(super) fn instead(&self, target: &str, value: &RawValue) -> Option<&Constant> {
        let values = self.values.get(target).filter(|_| !value::is_null(value))?;
        let text = value::text_or_number(value)
            .or_else(|| value::boolean(value).map(|_| value.get().into()));
        values.of(text.as_deref())
    }

    /// Writes the properties that it gives the record. A path that leads nowhere gives none.
    pub(super) fn write(
        &self,
        writer: &mut ObjectWriter<'_>,
        event: &Event<'_>,
        identity: &Identity<'_>,
    ) {
        for (target, source) in &self.properties {
            let found = match source {
                Source::Path(path) => path.find(event, identity),
                Source::Constant(constant) => {
                    write_constant(writer, target, constant);
                    continue;
                }
            };
            match found {
                None => {}
                Some(Found::Value(value)) => match self.instead(target, value) {
                    Some(constant) => write_constant(writer, target, constant),
                    None => writer.raw(target, value),
                },
                Some(Found::Text(text)) => {
                    let values = self.values.get(target);
                    match values.and_then(|values| values.of(Some(&text))) {
                        Some(constant) => write_constant(writer, target, constant),
                        None => writer.text(target, &text),
                    }
                }
            }
        }
    }
}

impl Values {
    fn of(&self, text: Option<&str>) -> Option<&Constant> {
        text.and_then(|text| self.known.get(text)).or(self.others.as_ref())
    }
}

pub(super) fn write_constant(writer: &mut ObjectWriter<'_>, target: &str, constant: &Constant) {
    writer.key(target).extend_from_slice(constant.json().as_bytes());
}
