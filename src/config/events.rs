//! PURE. `[integration.events."…"]`: tables of the file → checked [`Table`]s, and back to TOML.
//!
//! No message shows a name or value of the file: any of them may be the API key, in the wrong place.

use std::fmt::Write as _;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::faults::{Collector, Place};
use super::keys;
use crate::mapping::source::{Constant, Source};
use crate::mapping::table::{EVENT_TYPE_CHARS_MAX, PAGE, Table, Unmapped, Values};

/// The keys of one table.
const KEYS: [&str; 5] = ["event_type", "enabled", "properties", "unmapped", "values"];
/// Kinds of events that are never sent on.
const NEVER_SENT: [&str; 4] = ["identify", "group", "alias", "screen"];
/// In `values`: every value that is not listed.
const OTHERS: &str = "*";

type Member<'t, 'i> = (&'t str, Place, &'t DeValue<'i>);

/// Reads the tables of one integration, in the order of the file.
pub(super) fn read(tables: &DeTable<'_>, faults: &mut Collector<'_>) -> Vec<Table> {
    let mut read = Vec::new();
    for (name, place, value) in members(tables) {
        let message = match value {
            DeValue::Table(members) => {
                read.push(table(name, &place, members, faults));
                continue;
            }
            _ if KEYS.contains(&name) => {
                format!("`{name}` belongs to one event: [integration.events.\"Product Viewed\"]")
            }
            _ => "an event's mapping must be a table: [integration.events.\"Product Viewed\"]"
                .to_owned(),
        };
        faults.add(&place, message);
    }
    read
}

/// The members of a table in the order of the file.
fn members<'t, 'i>(table: &'t DeTable<'i>) -> Vec<Member<'t, 'i>> {
    let mut members: Vec<_> = table.iter().collect();
    members.sort_by_key(|(key, _)| key.span().start);
    let member = |(key, value): (&'t Spanned<_>, &'t Spanned<DeValue<'i>>)| {
        let key: &'t Spanned<std::borrow::Cow<'i, str>> = key;
        (key.get_ref().as_ref(), Place::Byte(key.span().start), value.get_ref())
    };
    members.into_iter().map(member).collect()
}

fn table(name: &str, place: &Place, given: &DeTable<'_>, faults: &mut Collector<'_>) -> Table {
    if name.trim().is_empty() {
        faults.add(place, "the name of an event must not be empty");
    }
    if NEVER_SENT.contains(&name) {
        let message = format!(
            "no mapping sends `{name}` events on: name a track's event, or `{PAGE}` for all pages"
        );
        faults.add(place, message);
    }
    if given.is_empty() {
        let message = format!("this table says nothing: give one of {}", KEYS.join(", "));
        faults.add(place, message);
    }
    let mut table = Table { name: name.to_owned(), line: faults.line(place), ..Table::default() };
    let mut value_places = Vec::new();
    for (key, place, value) in members(given) {
        match key {
            "event_type" => table.event_type = event_type(&place, value, faults),
            "enabled" => match value {
                DeValue::Boolean(enabled) => table.disabled = !enabled,
                _ => faults.add(&place, "`enabled` must be true or false"),
            },
            "unmapped" => match value.as_str() {
                Some("keep") => table.unmapped = Unmapped::Keep,
                Some("drop") => table.unmapped = Unmapped::Drop,
                _ => faults.add(&place, "`unmapped` must be one of \"keep\", \"drop\""),
            },
            "properties" => table.properties = properties(&place, value, faults),
            "values" => value_places = values(&place, value, &mut table, faults),
            unknown => {
                let near = keys::nearest(KEYS.into_iter(), unknown);
                let near = near.map_or_else(
                    || format!("known are {}", KEYS.join(", ")),
                    |known| format!("did you mean `{known}`?"),
                );
                faults.add(&place, format!("unknown key {}: {near}", keys::shown(unknown)));
            }
        }
    }
    for (target, place) in value_places {
        check_values(&table, &target, &place, faults);
    }
    table
}

fn event_type(place: &Place, value: &DeValue<'_>, faults: &mut Collector<'_>) -> Option<String> {
    let Some(text) = value.as_str() else {
        faults.add(place, "`event_type` must be a text in quotes, such as \"product_viewed\"");
        return None;
    };
    let characters = text.chars().count();
    if text.trim().is_empty() {
        faults.add(place, "`event_type` must not be empty");
    } else if characters > EVENT_TYPE_CHARS_MAX {
        faults.add(
            place,
            format!("`event_type` has {characters} characters: Ometria cuts it after {EVENT_TYPE_CHARS_MAX}"),
        );
    }
    Some(text.to_owned())
}

fn properties(
    place: &Place,
    value: &DeValue<'_>,
    faults: &mut Collector<'_>,
) -> Vec<(String, Source)> {
    let Some(given) = value.as_table().filter(|given| !given.is_empty()) else {
        let example = "{ net_price = \"properties.price\" }";
        faults.add(
            place,
            format!("`properties` must be a table that is not empty, such as {example}"),
        );
        return Vec::new();
    };
    let mut properties = Vec::new();
    for (target, place, value) in members(given) {
        if target.is_empty() {
            faults.add(&place, "the name of a property must not be empty");
        }
        match source(value) {
            Ok(source) => properties.push((target.to_owned(), source)),
            Err(message) => faults.add(&place, message),
        }
    }
    properties
}

fn source(value: &DeValue<'_>) -> Result<Source, String> {
    let escape = "a text that only looks like a path is written { constant = \"…\" }";
    match value {
        DeValue::String(text) => Source::parse(text)
            .map_err(|error| format!("the source of this property {error}; {escape}")),
        DeValue::Table(given) => {
            let one = given.iter().next().filter(|(key, _)| {
                given.len() == 1 && key.get_ref().as_ref() == "constant"
            });
            let constant = one.and_then(|(_, value)| constant(value.get_ref()));
            constant.map(Source::Constant).ok_or_else(|| {
                format!("{escape}, and the name of a property that holds a dot in quotes")
            })
        }
        other => constant(other).map(Source::Constant).ok_or_else(|| {
            "the source of this property must be a path such as \"properties.price\", a text, a number or a boolean"
                .to_owned()
        }),
    }
}

/// A text, a number that JSON knows, or a boolean.
fn constant(value: &DeValue<'_>) -> Option<Constant> {
    match value {
        DeValue::String(text) => Some(Constant::text(text)),
        DeValue::Integer(number) => match number.radix() {
            10 => Constant::number(&number.as_str().replace('_', "")),
            radix => {
                let digits = number.as_str().replace('_', "");
                Constant::number(&u64::from_str_radix(&digits, radix).ok()?.to_string())
            }
        },
        DeValue::Float(number) => Constant::number(&number.as_str().replace('_', "")),
        DeValue::Boolean(value) => Some(Constant::boolean(*value)),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// Reads `values` into `table`; returns each property with the place of its values.
fn values(
    place: &Place,
    value: &DeValue<'_>,
    table: &mut Table,
    faults: &mut Collector<'_>,
) -> Vec<(String, Place)> {
    let wanted = "such as values.currency = { \"£\" = \"GBP\", \"*\" = \"other\" }";
    let Some(given) = value.as_table().filter(|given| !given.is_empty()) else {
        faults.add(place, format!("`values` must hold a table for each property, {wanted}"));
        return Vec::new();
    };
    let mut places = Vec::new();
    for (target, place, value) in members(given) {
        let Some(given) = value.as_table().filter(|given| !given.is_empty()) else {
            let message =
                format!("the values of a property must be a table that is not empty, {wanted}");
            faults.add(&place, message);
            continue;
        };
        let mut read = Values::default();
        for (seen, place, value) in members(given) {
            match constant(value) {
                Some(constant) if seen == OTHERS => read.others = Some(constant),
                Some(constant) => drop(read.known.insert(seen.to_owned(), constant)),
                None => faults.add(&place, "a value must become a text, a number or a boolean"),
            }
        }
        table.values.insert(target.to_owned(), read);
        places.push((target.to_owned(), place));
    }
    places
}

/// Refuses values that can never apply.
fn check_values(table: &Table, target: &str, place: &Place, faults: &mut Collector<'_>) {
    let source = table.properties.iter().find(|(name, _)| name == target);
    match source {
        Some((_, Source::Constant(_))) => {
            faults.add(place, "these values never apply: the property is a constant");
        }
        None if table.unmapped == Unmapped::Drop => {
            let cure = "with unmapped = \"drop\" it must be among `properties`";
            faults.add(place, format!("these values never apply: {cure}"));
        }
        _ => {}
    }
}

/// Writes the tables as TOML that [`read`] reads back.
pub(super) fn write(text: &mut String, tables: &[Table]) {
    for table in tables {
        // Writing into a `String` cannot fail.
        let _ = writeln!(text, "\n[integration.events.{}]", escaped_text(&table.name));
        let _ = writeln!(text, "enabled = {}", !table.disabled);
        if let Some(event_type) = &table.event_type {
            let _ = writeln!(text, "event_type = {}", escaped_text(event_type));
        }
        let unmapped = match table.unmapped {
            Unmapped::Keep => "keep",
            Unmapped::Drop => "drop",
        };
        let _ = writeln!(text, "unmapped = \"{unmapped}\"");
        for (target, source) in &table.properties {
            let source = match source {
                Source::Path(path) => escaped_text(path.as_str()),
                Source::Constant(constant) => format!("{{ constant = {} }}", escaped(constant)),
            };
            let _ = writeln!(text, "properties.{} = {source}", escaped_text(target));
        }
        for (target, values) in &table.values {
            let others = values.others.iter().map(|constant| (OTHERS, constant));
            let known = values.known.iter().map(|(seen, constant)| (seen.as_str(), constant));
            let listed: Vec<String> = known
                .chain(others)
                .map(|(seen, constant)| format!("{} = {}", escaped_text(seen), escaped(constant)))
                .collect();
            let _ = writeln!(text, "values.{} = {{ {} }}", escaped_text(target), listed.join(", "));
        }
    }
}

/// `text` in quotes, as a key or value of TOML: its escapes are those of JSON, and one more.
pub(super) fn escaped_text(text: &str) -> String {
    escaped(&Constant::text(text))
}

fn escaped(constant: &Constant) -> String {
    constant.json().replace('\u{7f}', "\\u007f")
}
