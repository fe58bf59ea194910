//! What `[integration.events."…"]` tables make of events.

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::source::{Constant, Source};
use super::table::{Table, Unmapped, Values};
use super::*;
use crate::clock::UnixMillis;
use crate::event::testing::json;
use crate::event::{Object, single};

fn table(name: &str) -> Table {
    Table { name: name.to_owned(), ..Table::default() }
}

fn giving(name: &str, properties: &[(&str, &str)]) -> Table {
    let source = |(target, text): &(&str, &str)| {
        ((*target).to_owned(), Source::parse(text).unwrap_or_else(|error| panic!("{text} {error}")))
    };
    Table { properties: properties.iter().map(source).collect(), ..table(name) }
}

fn values(known: &[(&str, &str)], others: Option<&str>) -> Values {
    let constant = |text: &str| Constant::number(text).unwrap_or_else(|| Constant::text(text));
    let known = known.iter().map(|(seen, to)| ((*seen).to_owned(), constant(to)));
    Values { known: known.collect(), others: others.map(constant) }
}

fn mapped(body: &str, kind: Kind, preset: Preset, table: Table) -> Outcome {
    let rules = Rules::new(preset, Vec::new()).with_tables([table]);
    let event = single(body, kind, UnixMillis(0)).unwrap();
    let identity = Identity { user: Some(br#"{"tier":"gold","score":7.10}"#), anonymous: None };
    map(&event, &identity, &rules, || "evt_fresh".to_owned())
}

/// `event_type` and properties of the record.
fn sent(body: &str, kind: Kind, preset: Preset, table: Table) -> (String, String) {
    let Outcome::Record(record) = mapped(body, kind, preset, table) else { panic!("{body}") };
    let text = String::from_utf8(record.bytes).unwrap();
    let read = Object::parse(&text).unwrap();
    let member = |key| read.get(key).unwrap().get().to_owned();
    (member("event_type"), member("properties"))
}

#[test]
fn a_table_switches_an_event_on_off_or_renames_it() {
    let named = |name: &str| Table { event_type: Some("own".to_owned()), ..table(name) };
    for (event, preset, table, expected) in [
        ("Product Viewed", Preset::Retail, named("Product Viewed"), "\"own\""),
        ("Product Viewed", Preset::Retail, named("Product viewed"), "\"product_viewed\""),
        ("Nap Taken", Preset::Retail, named("Nap Taken"), "\"own\""),
        ("Nap Taken", Preset::Retail, table("Nap Taken"), "\"nap_taken\""),
        ("Nap Taken", Preset::Default, named("Nap Taken"), "\"own\""),
        ("Nap Taken", Preset::Default, named("page"), "\"nap_taken\""),
        ("page", Preset::Default, named("page"), "\"page\""),
    ] {
        let body = format!("{{\"event\":{event:?}}}");
        assert_eq!(sent(&body, Kind::Track, preset, table).0, expected, "{event}");
    }
    for (name, expected) in [("page", "\"own\""), ("Home", "\"page_view\"")] {
        let body = r#"{"name":"Home"}"#;
        assert_eq!(sent(body, Kind::Page, Preset::Retail, named(name)).0, expected, "{name}");
    }
    let off = |name: &str| Table { disabled: true, ..named(name) };
    let disabled = Outcome::Dropped(DropReason::Disabled);
    let body = r#"{"event":"Product Viewed"}"#;
    let table = off("Product Viewed");
    assert_eq!(mapped(body, Kind::Track, Preset::Retail, table), disabled);
    assert_eq!(mapped("{}", Kind::Page, Preset::Default, off("page")), disabled);
    assert_eq!(DropReason::Disabled.code(), "disabled");
    let screen = mapped("{}", Kind::Screen, Preset::Default, named("screen"));
    assert_eq!(screen, Outcome::Dropped(DropReason::NoMapping));
}

#[test]
fn properties_come_from_paths_and_constants() {
    let body = r#"{"event":"E","userId":"u","properties":{"price":79.00,"variant":"v","x":[1, 2],"products":[{"name":"n"}]},
        "context":{"page":{"url":"a"}}}"#;
    let rest = r#""x":[1, 2],"products":[{"product_name":"n"}]"#;
    for (properties, expected) in [
        // Moved, and not sent twice; the others under the preset's names.
        (
            &[("net", "properties.price")][..],
            format!(r#"{{"variant_id":"v",{rest},"page_url":"a","net":79.00}}"#),
        ),
        // From further in: the whole stays.
        (
            &[("first", "properties.x.0")],
            format!(
                r#"{{"product_price":79.00,"variant_id":"v",{rest},"page_url":"a","first":1}}"#
            ),
        ),
        // A moved list keeps its bytes.
        (
            &[("items", "properties.products"), ("url", "context.page.url")],
            r#"{"product_price":79.00,"variant_id":"v","x":[1, 2],"items":[{"name":"n"}],"url":"a"}"#
                .to_owned(),
        ),
        // A name that the table gives is the table's: the preset's rename gives way, the value stays.
        (
            &[("product_price", "properties.x"), ("page_url", "userId")],
            r#"{"price":79.00,"variant_id":"v","products":[{"product_name":"n"}],"product_price":[1, 2],"page_url":"u"}"#
                .to_owned(),
        ),
        // Also when the path leads nowhere.
        (
            &[("x", "properties.absent")],
            r#"{"product_price":79.00,"variant_id":"v","products":[{"product_name":"n"}],"page_url":"a"}"#
                .to_owned(),
        ),
        (
            &[("tier", "traits.tier"), ("score", "traits.score"), ("shop", "UK shop")],
            format!(
                r#"{{"product_price":79.00,"variant_id":"v",{rest},"page_url":"a","tier":"gold","score":7.10,"shop":"UK shop"}}"#
            ),
        ),
    ] {
        let found = sent(body, Kind::Track, Preset::Retail, giving("E", properties)).1;
        assert_eq!(found, expected, "{properties:?}");
    }
    let dropping =
        Table { unmapped: Unmapped::Drop, ..giving("E", &[("net", "properties.price")]) };
    let (_, found) = sent(body, Kind::Track, Preset::Retail, dropping);
    assert_eq!(found, r#"{"net":79.00}"#);
}

#[test]
fn values_become_others() {
    let with = |target: &str, values: Values| Table {
        values: [(target.to_owned(), values)].into(),
        ..giving("E", &[("who", "userId"), ("c", "properties.currency")])
    };
    let currency = || values(&[("£", "GBP"), ("7", "7.0"), ("true", "yes")], Some("other"));
    for (given, expected) in [
        ("\"£\"", "\"GBP\""),
        (r#""\u00a3""#, "\"GBP\""),
        ("7", "7.0"),
        ("7.0", "\"other\""),
        ("true", "\"yes\""),
        ("[\"£\"]", "\"other\""),
    ] {
        let body = format!(r#"{{"event":"E","userId":"u","properties":{{"currency":{given}}}}}"#);
        let found = sent(&body, Kind::Track, Preset::Default, with("c", currency())).1;
        assert_eq!(found, format!(r#"{{"who":"u","c":{expected}}}"#), "{given}");
    }
    let known = values(&[("u", "somebody")], None);
    for (body, target, values, expected) in [
        (r#"{"event":"E","userId":"u"}"#, "who", known.clone(), r#"{"who":"somebody"}"#),
        (r#"{"event":"E","userId":"v"}"#, "who", known.clone(), r#"{"who":"v"}"#),
        // An unmapped property, by the name that the preset gives it; `null` stays.
        (
            r#"{"event":"E","properties":{"price":null,"variant":"u"}}"#,
            "variant_id",
            known,
            r#"{"product_price":null,"variant_id":"somebody"}"#,
        ),
        (
            r#"{"event":"E","properties":{"price":null}}"#,
            "product_price",
            values(&[], Some("0")),
            r#"{"product_price":null}"#,
        ),
        (
            r#"{"event":"E","context":{"page":{"url":"u"}}}"#,
            "page_url",
            values(&[("u", "v")], None),
            r#"{"page_url":"v"}"#,
        ),
    ] {
        let found = sent(body, Kind::Track, Preset::Retail, with(target, values)).1;
        assert_eq!(found, expected, "{body}");
    }
}

#[test]
fn a_long_event_type_is_flagged_and_sent() {
    for (characters, truncated) in [(512, false), (513, true)] {
        let body = format!("{{\"event\":\"{}\"}}", "é".repeat(characters));
        let Outcome::Record(record) = mapped(&body, Kind::Track, Preset::Default, table("E"))
        else {
            panic!()
        };
        assert_eq!(record.event_type_truncated, truncated, "{characters}");
    }
}

/// Names that collide: of the event, of the preset's renames, of the table.
const NAMES: [&str; 8] =
    ["price", "product_price", "name", "product_name", "products", "page_url", "x", "y"];

fn any_source() -> impl Strategy<Value = Source> {
    let paths = NAMES.map(|name| format!("properties.{name}"));
    let others = ["properties.x.0", "context.page.url", "traits.tier", "userId", "text"];
    let all: Vec<String> = paths.into_iter().chain(others.map(str::to_owned)).collect();
    proptest::sample::select(all).prop_map(|text| Source::parse(&text).unwrap())
}

proptest! {
    /// Whatever table and event: a record of valid JSON, no name twice, and each value one of the event's, byte for byte.
    #[test]
    fn no_name_comes_twice_and_values_keep_their_bytes(
        given in proptest::collection::btree_map(proptest::sample::select(&NAMES[..]), json(), 0..8),
        targets in proptest::collection::btree_map(proptest::sample::select(&NAMES[..]), any_source(), 0..6),
        mapped in proptest::collection::btree_set(proptest::sample::select(&NAMES[..]), 0..3),
        retail: bool, drops: bool,
    ) {
        let preset = if retail { Preset::Retail } else { Preset::Default };
        let members: Vec<_> = given.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        let body = format!(
            r#"{{"event":"E","userId":"u","properties":{{{}}},"context":{{"page":{{"url":"a"}}}}}}"#,
            members.join(",")
        );
        let table = Table {
            properties: targets.iter().map(|(target, source)| ((*target).to_owned(), source.clone())).collect(),
            unmapped: if drops { Unmapped::Drop } else { Unmapped::Keep },
            values: mapped.iter().map(|target| ((*target).to_owned(), values(&[], Some("instead")))).collect(),
            ..table("E")
        };
        let (_, properties) = sent(&body, Kind::Track, preset, table.clone());
        let members: Members<'_> = serde_json::from_str(&properties).unwrap();
        let mut names: Vec<_> = members.0.iter().map(|(name, _)| name.clone()).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        prop_assert_eq!(names.len(), count, "{}", properties);
        for (name, value) in &members.0 {
            let source = targets.get(name.as_str());
            let constant = matches!(source, Some(Source::Constant(_)));
            if mapped.contains(name.as_str()) && !constant {
                prop_assert!(matches!(value.get(), "\"instead\"" | "null"), "{name}: {properties}");
                continue;
            }
            match source {
                Some(Source::Constant(constant)) => prop_assert_eq!(value.get(), constant.json()),
                Some(Source::Path(path)) => if let Some(key) = path.property() {
                    prop_assert_eq!(value.get(), &given[key]);
                },
                None if name == "products" && retail => {}
                None => {
                    prop_assert!(!drops);
                    let passed = given.values().any(|given| given == value.get());
                    prop_assert!(passed || value.get() == "\"a\"", "{}", value.get());
                }
            }
        }
        // Nothing is lost: each property is moved, or there under its own or its new name.
        if !drops {
            for key in given.keys().filter(|key| !table.moves(key) && !table.gives(key)) {
                let new = if retail { format!("product_{key}") } else { (*key).to_owned() };
                prop_assert!(names.iter().any(|name| name == key || *name == new), "{key}: {properties}");
            }
        }
    }
}

/// All members of an object, repeated ones too.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Members<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> serde::de::Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}
