//! PURE. An integration as the fields of a form, and back: form → draft, draft → fields.
//!
//! Fields come in the order of the page: an `event` begins a mapping, a `property` or `value_of` a row of it; what follows
//! belongs to it, up to the next one. So rows can be added and taken away without renaming any. What a form does not show of a
//! draft stays as it was.

use super::form::Form;
use crate::draft::{Draft, Setting};
use crate::event::value;
use crate::mapping::source::Source;

/// Mappings, and properties or values of one, that a form may have.
const ROWS_MAX: usize = 500;

/// A plain setting: what it is called in the draft, what people call it, an example, and what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plain {
    pub(super) name: &'static str,
    pub(super) label: &'static str,
    pub(super) example: &'static str,
    pub(super) hint: &'static str,
}

const fn plain(
    name: &'static str,
    label: &'static str,
    example: &'static str,
    hint: &'static str,
) -> Plain {
    Plain { name, label, example, hint }
}

/// Settings that few need.
pub(super) const FINE: [Plain; 11] = [
    plain("batch", "Records in a push", "100", "At most."),
    plain("linger", "Linger", "200ms", "How long an incomplete push waits for more."),
    plain(
        "lanes",
        "Lanes",
        "1",
        "People are spread over them, each with a push of its own under way.",
    ),
    plain("timeout", "Timeout", "30s", "For one push, to the end of the answer."),
    plain("retry.initial", "First retry after", "500ms", "At most; doubles with each failure."),
    plain("retry.max", "Retries apart", "5min", "At most."),
    plain(
        "max_pushes_per_second",
        "Pushes a second",
        "0",
        "0: no limit, the pace follows Ometria's answers.",
    ),
    plain("storm_limit", "Storm limit", "1000", "Records rejected in a row that hold it."),
    plain("poll_errors", "Read later rejections", "0s", "How often; 0s: never."),
    plain(
        "proxy",
        "Proxy",
        "http://HOST:PORT",
        "Empty: the daemon's environment says; direct: none.",
    ),
    plain("ca_file", "CA file", "/etc/ssl/proxy.pem", "Authorities to trust beside the host's."),
];

/// An integration as its form shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) name: String,
    pub(super) preset: String,
    pub(super) endpoint: String,
    /// Separated by commas.
    pub(super) consent: String,
    /// The values of [`FINE`], in its order.
    pub(super) fine: Vec<String>,
    pub(super) events: Vec<EventFields>,
}

/// The mapping of one event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct EventFields {
    pub(super) name: String,
    pub(super) disabled: bool,
    pub(super) event_type: String,
    /// Whether properties that no row names are left out.
    pub(super) drops: bool,
    pub(super) properties: Vec<PropertyFields>,
    pub(super) values: Vec<ValueFields>,
}

/// A property of the record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PropertyFields {
    pub(super) name: String,
    /// Whether `source` is the value itself, and no path.
    pub(super) is_fixed: bool,
    pub(super) source: String,
}

/// What one value of a property becomes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ValueFields {
    pub(super) property: String,
    pub(super) from: String,
    pub(super) to: String,
}

impl Fields {
    /// What a new integration begins with.
    pub(super) fn fresh() -> Fields {
        let (preset, fine) = ("retail".to_owned(), vec![String::new(); FINE.len()]);
        Fields { preset, fine, ..Fields::default() }
    }

    /// The fields of a form.
    ///
    /// # Errors
    /// In words for an operator: it has more rows than may be. None is left out silently.
    pub(super) fn of_form(form: &Form) -> Result<Fields, String> {
        let text = |name: &str| form.text(name).unwrap_or_default().to_owned();
        let mut events: Vec<EventFields> = Vec::new();
        for (name, value) in form.pairs() {
            let value = value.trim();
            if name == "event" {
                events.push(EventFields { name: value.to_owned(), ..EventFields::default() });
            } else if let Some(event) = events.last_mut() {
                event.take(name, value);
            }
            let rows = |event: &EventFields| event.properties.len().max(event.values.len());
            if events.len().max(events.last().map_or(0, rows)) > ROWS_MAX {
                return Err(format!(
                    "this form takes at most {ROWS_MAX} mappings, and as many properties and values of each: edit it with the \
                     command line, `pillarbox integration add NAME --from FILE.toml`"
                ));
            }
        }
        Ok(Fields {
            name: text("name"),
            preset: text("preset"),
            endpoint: text("endpoint"),
            consent: text("consent"),
            fine: FINE.iter().map(|known| text(known.name)).collect(),
            events,
        })
    }

    pub(super) fn of_draft(name: &str, draft: &Draft) -> Fields {
        let text = |name: &str| draft.text(name).unwrap_or_default().to_owned();
        let consent = match draft.get("consent") {
            Some(Setting::List(items)) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
            Some(other) => shown(other),
            None => String::new(),
        };
        let fine = FINE.iter().map(|known| match known.name.split_once('.') {
            Some((table, name)) => member(draft.get(table), name).map(shown).unwrap_or_default(),
            None => draft.get(known.name).map(shown).unwrap_or_default(),
        });
        Fields {
            name: name.to_owned(),
            preset: draft.text("preset").unwrap_or("retail").to_owned(),
            endpoint: text("endpoint"),
            consent,
            fine: fine.collect(),
            events: members(draft.get("events")).iter().map(EventFields::of).collect(),
        }
    }

    /// The draft that these fields are, over what was `given` before. `key` is the API key that was typed, if any.
    pub(super) fn draft(&self, given: &Draft, key: Option<&str>) -> Draft {
        let mut draft = given.clone();
        let mut set = |name: &str, value: Option<Setting>| match value {
            Some(value) => draft.set(name, value),
            None => drop(draft.remove(name)),
        };
        set("preset", text(&self.preset));
        set("endpoint", text(&self.endpoint));
        let consent =
            self.consent.split(',').map(str::trim).filter(|category| !category.is_empty());
        let consent: Vec<Setting> = consent.map(Setting::from).collect();
        set("consent", (!consent.is_empty()).then_some(Setting::List(consent)));
        let mut retry = Vec::new();
        for (known, value) in FINE.iter().zip(&self.fine) {
            match known.name.strip_prefix("retry.") {
                Some(name) => retry.extend(text(value).map(|value| (name.to_owned(), value))),
                None => set(known.name, scalar_for(known.name, value)),
            }
        }
        set("retry", (!retry.is_empty()).then_some(Setting::Table(retry)));
        let events = self.events.iter().filter(|event| !event.is_blank());
        let events: Vec<_> = events.map(|event| (event.name.clone(), event.setting())).collect();
        set("events", (!events.is_empty()).then_some(Setting::Table(events)));
        if let Some(key) = key {
            // It takes the place of any other that was named before.
            set("api_key_file", None);
            set("api_key_credential", None);
            set("api_key", Some(key.into()));
        }
        draft
    }
}

impl EventFields {
    fn take(&mut self, name: &str, value: &str) {
        let text = || value.to_owned();
        match name {
            "event_type" => self.event_type = text(),
            "sent" => self.disabled = value == "no",
            "unmapped" => self.drops = value == "drop",
            "property" => {
                self.properties.push(PropertyFields { name: text(), ..PropertyFields::default() });
            }
            "value_of" => {
                self.values.push(ValueFields { property: text(), ..ValueFields::default() });
            }
            "kind" | "source" => {
                let Some(property) = self.properties.last_mut() else { return };
                match name {
                    "kind" => property.is_fixed = value == "fixed",
                    _ => property.source = text(),
                }
            }
            "value_from" | "value_to" => {
                let Some(row) = self.values.last_mut() else { return };
                match name {
                    "value_from" => row.from = text(),
                    _ => row.to = text(),
                }
            }
            _ => {}
        }
    }

    fn of((name, setting): &(String, Setting)) -> EventFields {
        let get = |name: &str| member(Some(setting), name);
        let rows = members(get("values")).iter().flat_map(|(property, map)| {
            members(Some(map)).iter().map(|(from, to)| ValueFields {
                property: property.clone(),
                from: from.clone(),
                to: quoted(to),
            })
        });
        EventFields {
            name: name.clone(),
            disabled: get("enabled") == Some(&Setting::Boolean(false)),
            event_type: get("event_type").map(shown).unwrap_or_default(),
            drops: get("unmapped").map(shown).is_some_and(|unmapped| unmapped == "drop"),
            properties: members(get("properties")).iter().map(PropertyFields::of).collect(),
            values: rows.collect(),
        }
    }

    /// Whether nobody has filled anything in.
    fn is_blank(&self) -> bool {
        let EventFields { name, disabled, event_type, drops, properties, values } = self;
        name.is_empty()
            && event_type.is_empty()
            && !(*disabled || *drops)
            && properties.iter().all(PropertyFields::is_blank)
            && values.iter().all(|row| *row == ValueFields::default())
    }

    fn setting(&self) -> Setting {
        let mut members: Vec<(String, Setting)> = Vec::new();
        let mut add = |name: &str, value: Setting| members.push((name.to_owned(), value));
        if self.disabled {
            add("enabled", Setting::Boolean(false));
        }
        if let Some(event_type) = text(&self.event_type) {
            add("event_type", event_type);
        }
        if self.drops {
            add("unmapped", "drop".into());
        }
        let properties = self.properties.iter().filter(|row| !row.is_blank());
        let properties: Vec<_> = properties.map(|row| (row.name.clone(), row.setting())).collect();
        if !properties.is_empty() {
            add("properties", Setting::Table(properties));
        }
        let mut values: Vec<(String, Setting)> = Vec::new();
        for row in self.values.iter().filter(|row| **row != ValueFields::default()) {
            let becomes = (row.from.clone(), constant(&row.to));
            match values.iter_mut().find(|(property, _)| *property == row.property) {
                Some((_, Setting::Table(map))) => map.push(becomes),
                _ => values.push((row.property.clone(), Setting::Table(vec![becomes]))),
            }
        }
        if !values.is_empty() {
            add("values", Setting::Table(values));
        }
        if members.is_empty() {
            // A table that says nothing more switches its event on.
            members.push(("enabled".to_owned(), Setting::Boolean(true)));
        }
        Setting::Table(members)
    }
}

impl PropertyFields {
    fn is_blank(&self) -> bool {
        self.name.is_empty() && self.source.is_empty()
    }

    fn of((name, setting): &(String, Setting)) -> PropertyFields {
        let name = name.clone();
        if let Some(constant) = member(Some(setting), "constant") {
            return PropertyFields { name, is_fixed: true, source: quoted(constant) };
        }
        match setting {
            Setting::Text(text) if !matches!(Source::parse(text), Ok(Source::Constant(_))) => {
                PropertyFields { name, is_fixed: false, source: text.clone() }
            }
            other => PropertyFields { name, is_fixed: true, source: quoted(other) },
        }
    }

    fn setting(&self) -> Setting {
        if !self.is_fixed {
            return Setting::Text(self.source.clone());
        }
        match constant(&self.source) {
            // One that looks like a path must say that it is none.
            Setting::Text(text) if !matches!(Source::parse(&text), Ok(Source::Constant(_))) => {
                Setting::Table(vec![("constant".to_owned(), Setting::Text(text))])
            }
            constant => constant,
        }
    }
}

fn text(value: &str) -> Option<Setting> {
    (!value.is_empty()).then(|| value.into())
}

/// The value of a plain setting; a number where the setting is one.
fn scalar_for(name: &str, value: &str) -> Option<Setting> {
    let counts = ["batch", "lanes", "storm_limit", "max_pushes_per_second"];
    match constant(value) {
        number @ Setting::Number(_) if counts.contains(&name) => Some(number),
        _ => text(value),
    }
}

/// A constant as it is typed: a number, `true`, `false` or a text in quotes as in JSON, else the text itself.
fn constant(typed: &str) -> Setting {
    let raw = serde_json::from_str::<&serde_json::value::RawValue>(typed).ok();
    let read = raw.and_then(|raw| {
        value::boolean(raw)
            .map(Setting::Boolean)
            .or_else(|| value::number(raw).map(|number| Setting::Number(number.to_owned())))
            .or_else(|| value::text(raw).map(|text| Setting::Text(text.into_owned())))
    });
    read.unwrap_or_else(|| typed.into())
}

/// A constant as it would be typed.
fn quoted(setting: &Setting) -> String {
    match setting {
        Setting::Text(text)
            if constant(text) != *setting || text.is_empty() || text.trim() != text =>
        {
            serde_json::to_string(text).unwrap_or_default()
        }
        other => shown(other),
    }
}

fn shown(setting: &Setting) -> String {
    match setting {
        Setting::Text(text) | Setting::Number(text) => text.clone(),
        Setting::Boolean(value) => value.to_string(),
        Setting::List(_) | Setting::Table(_) => serde_json::to_string(setting).unwrap_or_default(),
    }
}

fn members(setting: Option<&Setting>) -> &[(String, Setting)] {
    match setting {
        Some(Setting::Table(members)) => members,
        _ => &[],
    }
}

fn member<'s>(setting: Option<&'s Setting>, name: &str) -> Option<&'s Setting> {
    members(setting).iter().find(|(known, _)| known == name).map(|(_, setting)| setting)
}

#[cfg(test)]
mod tests {
    use super::super::form::encoded;
    use super::*;

    /// The fields as the page would send them.
    fn sent(fields: &Fields) -> Form {
        let mut pairs: Vec<(String, String)> = Vec::new();
        let mut add = |name: &str, value: &str| pairs.push((name.to_owned(), value.to_owned()));
        add("name", &fields.name);
        add("preset", &fields.preset);
        add("endpoint", &fields.endpoint);
        add("consent", &fields.consent);
        for (known, value) in FINE.iter().zip(&fields.fine) {
            add(known.name, value);
        }
        for event in &fields.events {
            add("event", &event.name);
            add("sent", if event.disabled { "no" } else { "yes" });
            add("event_type", &event.event_type);
            add("unmapped", if event.drops { "drop" } else { "keep" });
            for row in &event.properties {
                add("property", &row.name);
                add("kind", if row.is_fixed { "fixed" } else { "path" });
                add("source", &row.source);
            }
            for row in &event.values {
                add("value_of", &row.property);
                add("value_from", &row.from);
                add("value_to", &row.to);
            }
        }
        let text =
            pairs.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
        Form::read(&text.collect::<Vec<_>>().join("&"))
    }

    const DRAFT: &str = r#"{"endpoint":"https://e/","preset":"default","consent":["marketing","ads"],"batch":50,"retry":{"max":"1min"},
        "events":{"Product Viewed":{"event_type":"viewed","properties":{"net":"properties.price","channel":"web shop","code":7,"on":true,
        "odd":{"constant":"properties.x"},"digits":"12"},"values":{"currency":{"£":"GBP","*":"other"},"n":{"1":1,"2":"2"}}},
        "Product Removed":{"enabled":false},"Gift":{"enabled":true},"page":{"unmapped":"drop","properties":{"u":"context.page.url"}}}}"#;

    #[test]
    fn a_draft_is_the_same_after_its_form() {
        let draft: Draft = serde_json::from_str(DRAFT).unwrap();
        let fields = Fields::of_draft("uk", &draft);
        assert_eq!(fields.consent, "marketing, ads");
        let viewed = &fields.events[0];
        let fixed: Vec<bool> = viewed.properties.iter().map(|row| row.is_fixed).collect();
        assert_eq!(fixed, [false, true, true, true, true, true]);
        let typed: Vec<&str> = viewed.properties.iter().map(|row| row.source.as_str()).collect();
        assert_eq!(typed, ["properties.price", "web shop", "7", "true", "properties.x", "\"12\""]);
        assert_eq!(Fields::of_form(&sent(&fields)).as_ref(), Ok(&fields));
        let again = Fields::of_form(&sent(&fields)).unwrap().draft(&Draft::default(), None);
        let sorted = |draft: &Draft| {
            serde_json::from_str::<serde_json::Value>(&serde_json::to_string(draft).unwrap())
                .unwrap()
        };
        assert_eq!(sorted(&again), sorted(&draft));
    }

    #[test]
    fn more_rows_than_a_form_takes_are_a_fault_and_none_is_lost() {
        let of = |name: &str, source: &str| {
            Form::read(&format!("event=First{}", {
                let row = |n: usize| format!("&{name}=n{n}&{source}=s{n}");
                (0..ROWS_MAX).map(row).collect::<String>()
            }))
        };
        let more = |form: &Form, name: &str| {
            let pairs = form.pairs().map(|(name, value)| format!("{name}={value}"));
            Form::read(&format!("{}&{name}=more", pairs.collect::<Vec<_>>().join("&")))
        };
        for (name, source) in [("property", "source"), ("value_of", "value_to")] {
            let full = of(name, source);
            let fields = Fields::of_form(&full).unwrap();
            let event = &fields.events[0];
            assert_eq!(event.properties.len().max(event.values.len()), ROWS_MAX);
            let fault = Fields::of_form(&more(&full, name)).unwrap_err();
            assert!(fault.contains("command line"), "{name}: {fault}");
        }
        // One event is there already.
        let full = of("event", "event_type");
        assert!(Fields::of_form(&full).is_err());
        let pairs = full.pairs().skip(1).map(|(name, value)| format!("{name}={value}"));
        let full = Form::read(&pairs.collect::<Vec<_>>().join("&"));
        let fields = Fields::of_form(&full).unwrap();
        let last = fields.events.last().unwrap();
        assert_eq!((fields.events.len(), last.event_type.as_str()), (ROWS_MAX, "s499"));
    }

    #[test]
    fn what_a_form_does_not_show_stays_and_a_typed_key_replaces_the_others() {
        let given: Draft =
            serde_json::from_str(r#"{"api_key_file":"/k","consent":["old"],"future":1}"#).unwrap();
        let fields = Fields::fresh();
        let kept = serde_json::to_string(&fields.draft(&given, None)).unwrap();
        assert_eq!(kept, r#"{"api_key_file":"/k","future":1,"preset":"retail"}"#);
        let keyed = serde_json::to_string(&fields.draft(&given, Some("k"))).unwrap();
        assert_eq!(keyed, r#"{"future":1,"preset":"retail","api_key":"k"}"#);
    }

    #[test]
    fn rows_that_are_blank_are_nothing_and_numbers_stay_as_they_are_written() {
        let form = "preset=retail&batch=ten&lanes=2&event=&sent=yes&event_type=&property=&kind=path&source=&event=A&property=p&kind=fixed&source=79.00";
        let draft = Fields::of_form(&Form::read(form)).unwrap().draft(&Draft::default(), None);
        assert_eq!(
            serde_json::to_string(&draft).unwrap(),
            r#"{"preset":"retail","batch":"ten","lanes":2,"events":{"A":{"properties":{"p":79.00}}}}"#
        );
    }
}
