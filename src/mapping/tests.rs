//! What events become, as a producer and an operator see it.

use proptest::prelude::*;
use serde_json::value::RawValue;

use super::*;
use crate::clock::UnixMillis;
use crate::event::testing::{json, string};
use crate::event::{DEPTH_MAX, Object, batch, repair, single};

const JANE: Identity<'_> =
    Identity { user: Some(br#"{"email":"jane.doe@example.com"}"#), anonymous: None };

fn retail() -> Rules {
    Rules::new(Preset::Retail, Vec::new())
}

fn outcome(body: &str, kind: Kind, identity: &Identity<'_>, rules: &Rules) -> Outcome {
    let event = single(body, kind, UnixMillis(1_780_759_972_417)).unwrap();
    map(&event, identity, rules, || "evt_fresh".to_owned())
}

fn record(body: &str, kind: Kind, rules: &Rules) -> String {
    match outcome(body, kind, &Identity::default(), rules) {
        Outcome::Record(record) => String::from_utf8(record.bytes).unwrap(),
        other => panic!("{body}: {other:?}"),
    }
}

/// The properties of the record that a `Product Viewed` with these fields becomes.
fn retail_properties(fields: &str) -> String {
    let body = format!(r#"{{"event":"Product Viewed","messageId":"m",{fields}}}"#);
    let record = record(&body, Kind::Track, &retail());
    Object::parse(&record).unwrap().get("properties").unwrap().get().to_owned()
}

/// The example of the contract, byte for byte.
#[test]
fn the_documented_event_becomes_the_documented_record() {
    let body = r#"{"type":"track","userId":"user-123","event":"Product Viewed","messageId":"abc123","timestamp":"2026-06-06T15:32:52.417Z",
 "properties":{"product_id":"SKU-A","product_name":"Merino Crew Jumper","variant":"navy-m","price":79.00,"currency":"GBP","category":"Knitwear"},
 "context":{"page":{"url":"https://example.com/products/merino-crew"},"consent":{"marketing":true}}}"#;
    let expected = concat!(
        r#"{"@type":"custom_event","id":"abc123","timestamp":"2026-06-06T15:32:52+00:00","event_type":"product_viewed","identity_email":"jane.doe@example.com","#,
        r#""properties":{"product_id":"SKU-A","product_name":"Merino Crew Jumper","variant_id":"navy-m","product_price":79.00,"currency":"GBP","category":"Knitwear","page_url":"https://example.com/products/merino-crew"}}"#,
    );
    let rules = Rules::new(Preset::Retail, vec!["marketing".to_owned()]);
    let Outcome::Record(record) = outcome(body, Kind::Track, &JANE, &rules) else { panic!() };
    assert_eq!(std::str::from_utf8(&record.bytes).unwrap(), expected);
    assert_eq!(record.identity_email.as_deref(), Some("jane.doe@example.com"));
}

#[test]
fn a_bare_event_becomes_the_least_record() {
    let record = record(r#"{"event":"Order Completed"}"#, Kind::Track, &retail());
    let expected = r#"{"@type":"custom_event","id":"evt_fresh","timestamp":"2026-06-06T15:32:52+00:00","event_type":"order_completed","properties":{}}"#;
    assert_eq!(record, expected);
}

#[test]
fn properties_get_their_new_names() {
    let table = [
        (
            r#""properties":{"name":"n","price":1e2,"variant":null}"#,
            r#"{"product_name":"n","product_price":1e2,"variant_id":null}"#,
        ),
        (r#""properties":{"price":1,"product_price":2}"#, r#"{"price":1,"product_price":2}"#),
        (r#""properties":{"a\"b":"\u0041","Price":1}"#, r#"{"a\"b":"\u0041","Price":1}"#),
        (r#""properties":{"price":1,"price":2}"#, r#"{"product_price":2}"#),
        (r#""properties":{"nested":{"price":1}}"#, r#"{"nested":{"price":1}}"#),
        (
            r#""properties":{"products":[ {"name":"a", "price": 1.0}, 7, {"sku": "x" } ]}"#,
            r#"{"products":[{"product_name":"a","product_price":1.0},7,{"sku": "x" }]}"#,
        ),
        (
            r#""properties":{"products":[{"variant":1,"variant_id":2,"name":3}]}"#,
            r#"{"products":[{"variant":1,"variant_id":2,"product_name":3}]}"#,
        ),
        (r#""properties":{"products":[ {"sku": 1} , [] ]}"#, r#"{"products":[ {"sku": 1} , [] ]}"#),
        (r#""properties":{"products":{"price": 1}}"#, r#"{"products":{"price": 1}}"#),
        (r#""properties":{"products":null}"#, r#"{"products":null}"#),
        (r#""context":{"page":{"url":"u"}}"#, r#"{"page_url":"u"}"#),
        (
            r#""properties":{"page_url":"own"},"context":{"page":{"url":"u"}}"#,
            r#"{"page_url":"own"}"#,
        ),
        (r#""properties":{"url":"x"},"context":{"page":{"url":null}}"#, r#"{"url":"x"}"#),
        (r#""properties":{"x":1},"context":{"page":"u"}"#, r#"{"x":1}"#),
    ];
    for (fields, expected) in table {
        assert_eq!(retail_properties(fields), expected, "{fields}");
    }
}

#[test]
fn a_page_keeps_the_names_of_its_properties() {
    let body = r#"{"name":"Home","messageId":"m","properties":{"name":"Home","price":1,"products":[{"name":"a"}]},
        "context":{"page":{"url":"u"}}}"#;
    for preset in [Preset::Retail, Preset::Default] {
        let record = record(body, Kind::Page, &Rules::new(preset, Vec::new()));
        let expected = r#""event_type":"page_view","properties":{"name":"Home","price":1,"products":[{"name":"a"}],"page_url":"u"}}"#;
        assert!(record.ends_with(expected), "{record}");
    }
}

#[test]
fn the_default_preset_passes_properties_as_they_are() {
    let body = r#"{"event":"Gift Card Opened","properties":{"price":1,"products":[{"name":"a"}]},"context":{"page":{"url":"u"}}}"#;
    let record = record(body, Kind::Track, &Rules::new(Preset::Default, Vec::new()));
    let expected = r#""event_type":"gift_card_opened","properties":{"price":1,"products":[{"name":"a"}],"page_url":"u"}}"#;
    assert!(record.ends_with(expected), "{record}");
}

#[test]
fn what_is_not_sent_says_why() {
    let consenting = Rules::new(Preset::Retail, vec!["marketing".to_owned()]);
    let denied =
        r#"{"event":"Product Added","userId":"u","context":{"consent":{"marketing":false}}}"#;
    let unknown = r#"{"event":"Cart Viewed","userId":"u"}"#;
    let table = [
        (unknown, Kind::Track, &retail(), Outcome::Dropped(DropReason::NoMapping)),
        (unknown, Kind::Track, &consenting, Outcome::Dropped(DropReason::NoMapping)),
        (denied, Kind::Track, &consenting, Outcome::Dropped(DropReason::Consent)),
        (denied, Kind::Page, &consenting, Outcome::Dropped(DropReason::Consent)),
        (denied, Kind::Group, &retail(), Outcome::Dropped(DropReason::NoMapping)),
        (denied, Kind::Alias, &retail(), Outcome::Dropped(DropReason::NoMapping)),
        (denied, Kind::Screen, &retail(), Outcome::Dropped(DropReason::NoMapping)),
        (denied, Kind::Identify, &consenting, Outcome::Identity),
    ];
    for (body, kind, rules, expected) in table {
        assert_eq!(outcome(body, kind, &JANE, rules), expected, "{kind:?} {body}");
    }
    assert_eq!(
        [DropReason::NoMapping.code(), DropReason::Consent.code()],
        ["no_mapping", "consent"]
    );
}

#[test]
fn a_record_has_at_most_the_bytes_that_upstream_takes() {
    let body = |filler: usize| {
        let filler = "x".repeat(filler);
        format!(r#"{{"event":"Product Viewed","messageId":"m","properties":{{"x":"{filler}"}}}}"#)
    };
    let frame = record(&body(0), Kind::Track, &retail()).len();
    let fits = body(RECORD_BYTES_MAX - frame);
    assert_eq!(record(&fits, Kind::Track, &retail()).len(), 60_000);
    let over = outcome(&body(RECORD_BYTES_MAX - frame + 1), Kind::Track, &JANE, &retail());
    let detail = "the record has 60041 bytes, the limit is 60000".to_owned();
    assert_eq!(over, Outcome::Refused { reason: "too_large", detail });
    let traits = format!(r#"{{"userId":"u","traits":{{"x":"{}"}}}}"#, "x".repeat(60_000));
    let refused = outcome(&traits, Kind::Identify, &JANE, &retail());
    assert!(matches!(refused, Outcome::Refused { reason: "too_large", .. }));
}

#[test]
fn a_batchs_context_reaches_its_records() {
    let body = r#"{"context":{"page":{"url":"u"},"traits":{"email":"e@x"},"consent":{"m":true}},
        "batch":[{"type":"page","messageId":"m"}]}"#;
    let mut read = batch(body, UnixMillis(0)).unwrap();
    let event = read.take().remove(0).event.unwrap();
    let rules = Rules::new(Preset::Retail, vec!["m".to_owned()]);
    let Outcome::Record(record) = map(&event, &Identity::default(), &rules, String::new) else {
        panic!()
    };
    let text = String::from_utf8(record.bytes).unwrap();
    assert!(text.ends_with(r#""identity_email":"e@x","properties":{"page_url":"u"}}"#), "{text}");
}

proptest! {
    #[test]
    fn every_value_passes_byte_for_byte(values in proptest::collection::vec(json(), 0..20), space in "[ \n\t]{0,3}") {
        let members: Vec<_> =
            values.iter().enumerate().map(|(at, value)| format!("{space}\"k{at}\" :{space}{value}{space}")).collect();
        let written = retail_properties(&format!("\"properties\":{{{}}}", members.join(",")));
        let read = Object::parse(&written).unwrap();
        let passed: Vec<_> = read.iter().map(|(key, value)| (key.to_owned(), value.get().to_owned())).collect();
        let expected: Vec<_> = values.into_iter().enumerate().map(|(at, value)| (format!("k{at}"), value)).collect();
        prop_assert_eq!(passed, expected);
    }

    #[test]
    fn every_record_is_json_with_the_documented_keys(
        id in string(), email in string(), properties in json(), products in json(), url in json(),
        preset in proptest::sample::select(vec![Preset::Retail, Preset::Default]),
    ) {
        let body = format!(
            r#"{{"event":"Product Added","messageId":{id},"traits":{{"email":{email}}},
            "properties":{{"name":{properties},"products":{products}}},"context":{{"page":{{"url":{url}}}}}}}"#
        );
        let record = record(&body, Kind::Track, &Rules::new(preset, Vec::new()));
        let read = Object::parse(&record).unwrap();
        let keys: Vec<_> = read.iter().map(|(key, _)| key).filter(|key| *key != "identity_email").collect();
        prop_assert_eq!(keys, ["@type", "id", "timestamp", "event_type", "properties"]);
        let properties = Object::parse(read.get("properties").unwrap().get()).unwrap();
        let first = if preset == Preset::Retail { "product_name" } else { "name" };
        let mut expected = vec![first, "products"];
        expected.extend((url != "null").then_some("page_url"));
        prop_assert_eq!(properties.iter().map(|(key, _)| key).collect::<Vec<_>>(), expected);
        prop_assert!(serde_json::from_str::<&RawValue>(&record).is_ok());
    }

    #[test]
    fn a_products_values_pass_byte_for_byte(
        products in proptest::collection::vec((json(), json(), json()), 1..4)
    ) {
        let list = |name: &str, price: &str, comma: &str| {
            let items: Vec<_> = products
                .iter()
                .map(|(a, b, c)| format!("{{\"{name}\":{a}{comma}\"{price}\":{b}{comma}\"quantity\":{c}}}"))
                .collect();
            format!("{{\"products\":[{}]}}", items.join(comma))
        };
        let written = retail_properties(&format!("\"properties\":{}", list("name", "price", " ,")));
        prop_assert_eq!(written, list("product_name", "product_price", ","));
    }

    #[test]
    fn any_body_comes_to_one_outcome(body in "[\\[\\]{}:,\"\\\\a-z0-9. -]{0,80}") {
        let text = repair(body.as_bytes(), DEPTH_MAX).unwrap_or_default();
        if let Ok(event) = single(&text, Kind::Page, UnixMillis(0)) {
            let outcome = map(&event, &JANE, &retail(), || "evt_1".to_owned());
            prop_assert!(matches!(outcome, Outcome::Record(_)));
        }
    }
}
