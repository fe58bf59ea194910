//! PURE. A draft as the TOML of a stored file, and back.

use toml::de::{DeTable, DeValue};

use crate::config::events::escaped_text;
use crate::config::faults::Place;
use crate::draft::{Draft, Setting};

/// A draft as TOML, and where in it each setting stands.
pub(super) struct Written {
    /// A file with one `[[integration]]`.
    pub(super) text: String,
    /// Bytes at which settings begin, ascending, with their paths.
    places: Vec<(usize, String)>,
}

impl Written {
    /// The setting that `place` is in, such as `events."Product Viewed".event_type`; empty for none.
    pub(super) fn setting(&self, place: &Place) -> &str {
        let Place::Byte(byte) = place else { return "" };
        let after = self.places.partition_point(|(begins, _)| begins <= byte);
        let found = after.checked_sub(1).and_then(|index| self.places.get(index));
        found.map_or("", |(_, path)| path)
    }

    fn key(&mut self, name: &str, path: &str) {
        self.places.push((self.text.len(), path.to_owned()));
        self.text.push_str(&key(name));
    }

    /// One setting on a line of its own, named `dotted` there.
    fn line(&mut self, dotted: &str, path: &str, setting: &Setting) {
        self.places.push((self.text.len(), path.to_owned()));
        self.text.push_str(dotted);
        self.text.push_str(" = ");
        self.value(path, setting);
        self.text.push('\n');
    }

    fn value(&mut self, path: &str, setting: &Setting) {
        match setting {
            Setting::Text(text) => self.text.push_str(&escaped_text(text)),
            Setting::Number(number) => self.text.push_str(number),
            Setting::Boolean(value) => self.text.push_str(if *value { "true" } else { "false" }),
            Setting::List(items) => {
                self.text.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.text.push_str(if index == 0 { "" } else { ", " });
                    self.value(path, item);
                }
                self.text.push(']');
            }
            Setting::Table(members) => {
                self.text.push('{');
                for (index, (name, setting)) in members.iter().enumerate() {
                    self.text.push_str(if index == 0 { " " } else { ", " });
                    let path = below(path, name);
                    self.key(name, &path);
                    self.text.push_str(" = ");
                    self.value(&path, setting);
                }
                self.text.push_str(if members.is_empty() { "}" } else { " }" });
            }
        }
    }

    /// The mapping of one event as a table of its own.
    fn event(&mut self, name: &str, members: &[(String, Setting)]) {
        let path = below(EVENTS, name);
        self.places.push((self.text.len(), path.clone()));
        self.text.push_str("\n[integration.events.");
        self.text.push_str(&key(name));
        self.text.push_str("]\n");
        for (name, setting) in members {
            let path = below(&path, name);
            match setting {
                // A line for each property reads better than one for all.
                Setting::Table(members)
                    if !members.is_empty() && DOTTED.contains(&name.as_str()) =>
                {
                    for (member, setting) in members {
                        let dotted = format!("{}.{}", key(name), key(member));
                        self.line(&dotted, &below(&path, member), setting);
                    }
                }
                setting => self.line(&key(name), &path, setting),
            }
        }
    }
}

const EVENTS: &str = "events";
/// Tables of an event whose members stand on lines of their own.
const DOTTED: [&str; 2] = ["properties", "values"];

/// Writes a draft as the file of one integration.
pub(super) fn write(draft: &Draft) -> Written {
    let mut written = Written { text: "[[integration]]\n".to_owned(), places: Vec::new() };
    let mut events = None;
    for (name, setting) in draft.iter() {
        match setting {
            // Tables of their own come after all plain settings.
            Setting::Table(tables)
                if name == EVENTS && !tables.is_empty() && tables.iter().all(is_table) =>
            {
                events = Some(tables);
            }
            setting => written.line(&key(name), &below("", name), setting),
        }
    }
    for (name, setting) in events.into_iter().flatten() {
        if let Setting::Table(members) = setting {
            written.event(name, members);
        }
    }
    written
}

fn is_table((_, setting): &(String, Setting)) -> bool {
    matches!(setting, Setting::Table(_))
}

/// An integration of a file, as a draft: the only one, or of several the one of this name. `None` when there is none, or the
/// text is no TOML.
pub(super) fn read(text: &str, name: Option<&str>) -> Option<Draft> {
    let table = DeTable::parse(text).ok()?;
    let integrations = table.get_ref().get("integration")?.get_ref().as_array()?;
    let tables = integrations.iter().filter_map(|integration| integration.get_ref().as_table());
    let drafts: Vec<Draft> = tables.map(|table| members(table).into_iter().collect()).collect();
    let named =
        |draft: &&Draft| drafts.len() == 1 || (name.is_some() && draft.text("name") == name);
    drafts.iter().find(named).cloned()
}

fn members(table: &DeTable<'_>) -> Vec<(String, Setting)> {
    let mut members: Vec<_> = table.iter().collect();
    members.sort_by_key(|(key, _)| key.span().start);
    let member = |(key, value): &(&toml::Spanned<_>, &toml::Spanned<DeValue<'_>>)| {
        let key: &toml::Spanned<std::borrow::Cow<'_, str>> = key;
        (key.get_ref().clone().into_owned(), setting(value.get_ref()))
    };
    members.iter().map(member).collect()
}

fn setting(value: &DeValue<'_>) -> Setting {
    match value {
        DeValue::String(text) => Setting::Text(text.clone().into_owned()),
        DeValue::Integer(number) => {
            let digits = number.as_str().replace('_', "");
            let whole = u64::from_str_radix(&digits, number.radix());
            number_or_text(&whole.map_or(digits, |whole| whole.to_string()))
        }
        DeValue::Float(number) => number_or_text(&number.as_str().replace('_', "")),
        DeValue::Boolean(value) => Setting::Boolean(*value),
        DeValue::Datetime(time) => Setting::Text(time.to_string()),
        DeValue::Array(items) => {
            Setting::List(items.iter().map(|item| setting(item.get_ref())).collect())
        }
        DeValue::Table(table) => Setting::Table(members(table)),
    }
}

/// A number, when JSON knows it.
fn number_or_text(text: &str) -> Setting {
    let text = text.strip_prefix('+').unwrap_or(text);
    if serde_json::from_str::<serde_json::Number>(text).is_ok() {
        Setting::Number(text.to_owned())
    } else {
        Setting::Text(text.to_owned())
    }
}

/// The path of `name` below `path`.
fn below(path: &str, name: &str) -> String {
    let separator = if path.is_empty() { "" } else { "." };
    format!("{path}{separator}{}", key(name))
}

/// `name` as a key of TOML, bare where it can be.
fn key(name: &str) -> String {
    let bare = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
    if !name.is_empty() && name.chars().all(bare) { name.to_owned() } else { escaped_text(name) }
}
