//! PURE. An integration as somebody writes it: settings by their names in the configuration file, in order, not checked.
//!
//! ```json
//! {"preset":"retail","api_key":"…","consent":["marketing"],"retry":{"initial":"1s"},
//!  "events":{"Product Viewed":{"event_type":"viewed","properties":{"net_price":"properties.price"}}}}
//! ```
//! It knows nothing of which settings there are: the configuration reads it as it reads its file, and tells every fault.
//! Order is kept, as the order of a mapping's properties is that of the record; numbers stay as they are written, and `null`
//! reads as absent. No `Debug` shows a value: one of them is the API key (Promise 8).

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Error as _, Serialize, SerializeMap as _, Serializer};
use serde_json::value::RawValue;

use crate::event::{Object, value};

/// Tables within tables, at most: `events`, an event, `values`, a property. Deeper is nothing that a setting could be.
const DEPTH_MAX: usize = 8;

/// The settings of one integration.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Draft(Vec<(String, Setting)>);

/// A value of a setting.
#[derive(Clone, PartialEq, Eq)]
pub enum Setting {
    /// A text.
    Text(String),
    /// A number as JSON writes it.
    Number(String),
    /// `true` or `false`.
    Boolean(bool),
    /// A list.
    List(Vec<Setting>),
    /// Names and values, in order.
    Table(Vec<(String, Setting)>),
}

impl Draft {
    /// The setting `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Setting> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, setting)| setting)
    }

    /// The setting `name`, if it is a text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Setting::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Whether there is a setting `name`.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Sets `name`, at its place when it was there before.
    pub fn set(&mut self, name: &str, setting: Setting) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = setting,
            None => self.0.push((name.to_owned(), setting)),
        }
    }

    /// Sets `name`, before all others when it is new.
    pub fn set_first(&mut self, name: &str, setting: Setting) {
        if !self.has(name) {
            self.0.insert(0, (name.to_owned(), setting.clone()));
        }
        self.set(name, setting);
    }

    /// Takes every setting `name` away, and returns the first.
    pub fn remove(&mut self, name: &str) -> Option<Setting> {
        let found = self.get(name).cloned();
        self.0.retain(|(known, _)| known != name);
        found
    }

    /// All settings, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.0.iter().map(|(name, setting)| (name.as_str(), setting))
    }

    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(String, Setting)> for Draft {
    fn from_iter<T: IntoIterator<Item = (String, Setting)>>(settings: T) -> Draft {
        Draft(settings.into_iter().collect())
    }
}

impl From<&str> for Setting {
    fn from(text: &str) -> Setting {
        Setting::Text(text.to_owned())
    }
}

impl fmt::Debug for Draft {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Draft({} settings)", self.0.len())
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Setting(…)")
    }
}

/// From a JSON object alone, read by `serde_json`.
impl<'de> Deserialize<'de> for Draft {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Draft, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        match setting(&raw, DEPTH_MAX).map_err(D::Error::custom)? {
            Some(Setting::Table(settings)) => Ok(Draft(settings)),
            _ => Err(D::Error::custom("a draft must be an object of settings")),
        }
    }
}

impl Serialize for Draft {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        members(&self.0, serializer)
    }
}

impl Serialize for Setting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Setting::Text(text) => serializer.serialize_str(text),
            Setting::Number(number) => {
                let raw = RawValue::from_string(number.clone()).map_err(S::Error::custom)?;
                raw.serialize(serializer)
            }
            Setting::Boolean(value) => serializer.serialize_bool(*value),
            Setting::List(items) => serializer.collect_seq(items),
            Setting::Table(settings) => members(settings, serializer),
        }
    }
}

fn members<S: Serializer>(
    settings: &[(String, Setting)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(settings.len()))?;
    for (name, setting) in settings {
        map.serialize_entry(name, setting)?;
    }
    map.end()
}

/// The setting that `raw` is; `None` when it is `null`.
fn setting(raw: &RawValue, depth: usize) -> Result<Option<Setting>, &'static str> {
    let within = depth.checked_sub(1).ok_or("a setting lies within too many others");
    if value::is_null(raw) {
        return Ok(None);
    }
    if let Some(value) = value::boolean(raw) {
        return Ok(Some(Setting::Boolean(value)));
    }
    if let Some(number) = value::number(raw) {
        return Ok(Some(Setting::Number(number.to_owned())));
    }
    if let Some(text) = value::text(raw) {
        return Ok(Some(Setting::Text(text.into_owned())));
    }
    if let Some(items) = value::array(raw) {
        let depth = within?;
        let read = items.into_iter().map(|item| setting(item, depth));
        // A list with a hole is no list that anybody meant.
        let items: Option<Vec<Setting>> = read.collect::<Result<_, _>>()?;
        return items.map(|items| Some(Setting::List(items))).ok_or("a list must not hold null");
    }
    let object: Object<'_> = value::object(raw).ok_or("a setting must be JSON")?;
    let depth = within?;
    let mut settings = Vec::new();
    for (name, value) in object.iter() {
        settings.extend(setting(value, depth)?.map(|setting| (name.to_owned(), setting)));
    }
    Ok(Some(Setting::Table(settings)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Draft, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn settings_keep_their_order_and_numbers_their_digits() {
        for (json, again) in [
            (r#"{"z":1,"a":{"y":79.00,"b":[true,"x"]}}"#, None),
            (r#"{"n":12345678901234567890123,"e":1e5,"t":"\"é\""}"#, None),
            ("{}", None),
            // `null` is absent, and of a repeated setting the last counts.
            (r#"{"a":null,"b":{"c":null},"d":1,"d":2}"#, Some(r#"{"b":{},"d":2}"#)),
        ] {
            let draft = read(json).unwrap();
            assert_eq!(serde_json::to_string(&draft).unwrap(), again.unwrap_or(json));
        }
    }

    #[test]
    fn what_is_no_draft_is_refused_and_nothing_of_it_told() {
        let deep = |depth| format!("{}1{}", r#"{"canary":"#.repeat(depth), "}".repeat(depth));
        read(&deep(DEPTH_MAX)).unwrap();
        for json in [
            "[]",
            "\"canary\"",
            "7",
            "null",
            r#"{"a":[1,null]}"#,
            r#"{"a":"canary"#,
            &deep(DEPTH_MAX + 1),
        ] {
            let error = read(json).unwrap_err().to_string();
            assert!(!error.contains("canary"), "{json}: {error}");
        }
        let draft = read(r#"{"api_key":"canary"}"#).unwrap();
        assert!(!format!("{draft:?} {:?}", draft.get("api_key")).contains("canary"));
    }

    #[test]
    fn settings_are_changed_in_their_place() {
        let mut draft = read(r#"{"a":1,"b":2}"#).unwrap();
        draft.set("a", "x".into());
        draft.set("c", "y".into());
        draft.set_first("name", "z".into());
        draft.set_first("b", "w".into());
        draft.remove("c");
        assert_eq!(serde_json::to_string(&draft).unwrap(), r#"{"name":"z","a":"x","b":"w"}"#);
    }
}
