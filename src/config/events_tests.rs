//! Mappings of single events: every form, and each fault with its place.

use super::tests::{INTEGRATION, built, with};
use crate::mapping::source::{Constant, Source};
use crate::mapping::table::{Table, Unmapped};

const FORMS: &str = r#"
[integration.events."Product Viewed"]
event_type = "seen"
unmapped = "drop"
[integration.events."Product Viewed".properties]
net = "properties.price"
sku = "properties.products.0.sku"
shop = "UK shop"
domain = { constant = "example.com" }
count = 1_000
rate = 79.00
test = false
"a.b" = "userId"
currency = "properties.currency"
[integration.events."Product Viewed".values]
currency = { "£" = "GBP", "*" = "other", "7" = 7 }
[integration.events.page]
enabled = false
[integration.events]
"Nap \"Taken\"\n\u007f" = { enabled = true }
Short = { values.tier = { gold = 1 } }
"#;

fn tables(text: &str) -> Vec<Table> {
    built(&format!("{INTEGRATION}{text}")).unwrap().integrations[0].events.clone()
}

#[test]
fn every_form_is_read() {
    let tables = tables(FORMS);
    let names: Vec<_> = tables.iter().map(|table| (table.name.as_str(), table.line)).collect();
    let expected =
        [("Product Viewed", 5), ("page", 20), ("Nap \"Taken\"\n\u{7f}", 23), ("Short", 24)];
    assert_eq!(names, expected);
    let viewed = &tables[0];
    assert_eq!((viewed.event_type.as_deref(), viewed.disabled), (Some("seen"), false));
    assert_eq!(viewed.unmapped, Unmapped::Drop);
    let sources: Vec<_> = viewed
        .properties
        .iter()
        .map(|(target, source)| match source {
            Source::Path(path) => (target.as_str(), path.as_str()),
            Source::Constant(constant) => (target.as_str(), constant.json()),
        })
        .collect();
    let expected = [
        ("net", "properties.price"),
        ("sku", "properties.products.0.sku"),
        ("shop", "\"UK shop\""),
        ("domain", "\"example.com\""),
        ("count", "1000"),
        ("rate", "79.00"),
        ("test", "false"),
        ("a.b", "userId"),
        ("currency", "properties.currency"),
    ];
    assert_eq!(sources, expected);
    let currency = &viewed.values["currency"];
    assert_eq!(currency.others, Some(Constant::text("other")));
    assert_eq!(currency.known["£"], Constant::text("GBP"));
    assert_eq!(currency.known["7"].json(), "7");
    assert!(tables[1].disabled && !tables[2].disabled);
}

#[test]
fn what_is_in_force_is_read_back() {
    let config = built(&format!("{INTEGRATION}{FORMS}")).unwrap();
    let again = built(&config.effective()).unwrap();
    assert_eq!(again.effective(), config.effective());
    let without_line = |tables: &[Table]| -> Vec<Table> {
        tables.iter().map(|table| Table { line: 0, ..table.clone() }).collect()
    };
    let [before, after] = [&config, &again].map(|config| &config.integrations[0].events);
    assert_eq!(without_line(before), without_line(after));
}

#[test]
fn each_fault_has_its_place() {
    let long = format!("event_type = \"{}\"", "é".repeat(513));
    assert_each_told(&[
        (
            "[integration.events.E]\nevent_typ = \"x\"",
            "5:1: unknown key `event_typ`: did you mean `event_type`?",
        ),
        (
            "[integration.events.E]\nwhatever = 1",
            "5:1: unknown key `whatever`: known are event_type, enabled, properties",
        ),
        ("[integration.events.E]", "4:21: this table says nothing: give one of event_type"),
        (
            "[integration.events.\" \"]\nenabled = true",
            "4:21: the name of an event must not be empty",
        ),
        (
            "[integration.events.screen]\nenabled = true",
            "4:21: no mapping sends `screen` events on",
        ),
        ("[integration.events]\nevent_type = \"x\"", "5:1: `event_type` belongs to one event"),
        ("[integration.events]\nE = 1", "5:1: an event's mapping must be a table"),
        ("events = 1", "4:1: `events` holds a table for each event"),
        ("[[integration.events]]\nE = 1", "4:15: `events` holds a table for each event"),
        ("[integration.events.E]\nevent_type = 1", "5:1: `event_type` must be a text"),
        ("[integration.events.E]\nevent_type = \" \"", "5:1: `event_type` must not be empty"),
        (&format!("[integration.events.E]\n{long}"), "5:1: `event_type` has 513 characters"),
        ("[integration.events.E]\nenabled = \"no\"", "5:1: `enabled` must be true or false"),
        (
            "[integration.events.E]\nunmapped = \"all\"",
            "5:1: `unmapped` must be one of \"keep\", \"drop\"",
        ),
    ]);
    built(&format!("{INTEGRATION}[integration.events.E]\n{}\n", long.replacen('é', "", 1)))
        .unwrap();
}

#[test]
fn each_fault_of_a_property_has_its_place() {
    assert_each_told(&[
        (
            "[integration.events.E]\nproperties = {}",
            "5:1: `properties` must be a table that is not empty",
        ),
        ("[integration.events.E]\nproperties = \"x\"", "5:1: `properties` must be a table"),
        (
            "[integration.events.E.properties]\na = \"props.x\"",
            "5:1: the source of this property begins with no known root",
        ),
        (
            "[integration.events.E.properties]\na = \"property.x\"",
            "5:1: the source of this property begins with no known root: did you mean `properties`?",
        ),
        (
            "[integration.events.E.properties]\na = \"\"",
            "5:1: the source of this property is empty",
        ),
        (
            "[integration.events.E.properties]\na = \"traits\"",
            "5:1: the source of this property `traits` alone",
        ),
        (
            "[integration.events.E.properties]\na = [1]",
            "5:1: the source of this property must be a path",
        ),
        (
            "[integration.events.E.properties]\na = 2026-06-06",
            "5:1: the source of this property must be a path",
        ),
        (
            "[integration.events.E.properties]\na = inf",
            "5:1: the source of this property must be a path",
        ),
        (
            "[integration.events.E.properties]\na.b = \"userId\"",
            "5:1: a text that only looks like a path",
        ),
        (
            "[integration.events.E.properties]\n\"\" = \"userId\"",
            "5:1: the name of a property must not be empty",
        ),
        ("[integration.events.E.properties]\na = 1\na = 2", "6:1: not valid TOML: duplicate key"),
        (
            "[integration.events.E]\nvalues = {}",
            "5:1: `values` must hold a table for each property",
        ),
        ("[integration.events.E]\nvalues.a = {}", "5:8: the values of a property must be a table"),
        ("[integration.events.E]\nvalues.a = 1", "5:8: the values of a property must be a table"),
        ("[integration.events.E]\nvalues.a.b = []", "5:10: a value must become a text"),
        (
            "[integration.events.E]\nvalues.a.b = 1\nproperties.a = 1",
            "5:8: these values never apply: the property is a constant",
        ),
        (
            "[integration.events.E]\nvalues.a.b = 1\nunmapped = \"drop\"",
            "5:8: these values never apply: with unmapped",
        ),
    ]);
}

fn assert_each_told(table: &[(&str, &str)]) {
    for (text, expected) in table {
        let faults = built(&format!("{INTEGRATION}{text}\n")).unwrap_err();
        assert_eq!(faults.0.len(), 1, "{text}\n{faults}");
        let told = faults.to_string();
        assert!(told.starts_with(&format!("p.toml:{expected}")), "{text}\n{told}");
    }
}

#[test]
fn several_faults_come_together_with_all_the_others() {
    let text = "batch = 0\n[integration.events.A]\nenabled = 1\nevent_type = \"\"\n[integration.events.B]\nproperties.x = \"context\"\n";
    let faults = built(&format!("{INTEGRATION}{text}")).unwrap_err();
    let places: Vec<_> = faults.0.iter().map(|fault| fault.place.as_str()).collect();
    assert_eq!(places, ["p.toml:4:1", "p.toml:6:1", "p.toml:7:1", "p.toml:9:12"], "{faults}");
}

#[test]
fn an_override_of_a_mapping_is_refused_with_the_reason() {
    for set in ["integration.uk.events=1", "integration.uk.events.Product Viewed.enabled=false"] {
        let told = with(&[set], &[]).unwrap_err().to_string();
        assert!(
            told.contains("`events` holds a table for each event, in the file alone"),
            "{told}"
        );
    }
    let name = "PILLARBOX__INTEGRATION__UK__EVENTS__PAGE__ENABLED";
    let told = with(&[], &[(name, "false")]).unwrap_err().to_string();
    assert!(told.starts_with(&format!("environment {name}: `events` holds")), "{told}");
}
