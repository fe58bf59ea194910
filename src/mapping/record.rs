//! PURE. Writes the bytes of a record. Property values are copied, never interpreted.

use serde_json::value::RawValue;

use super::preset::Mapping;
use crate::event::object::{Object, write_string};
use crate::event::parse::Event;

/// The `@type` of every record made of an event.
pub(super) const TYPE: &str = "custom_event";
const PAGE_URL: &str = "page_url";

/// The record of `event`.
pub(super) fn write(
    event: &Event<'_>,
    mapping: &Mapping<'_>,
    id: &str,
    email: Option<&str>,
) -> Vec<u8> {
    let values: usize =
        event.properties.iter().map(|(key, value)| key.len() + value.get().len() + 16).sum();
    let mut out = Vec::with_capacity(values + 384);
    out.extend_from_slice(br#"{"@type":"custom_event","id":"#);
    write_string(&mut out, id);
    out.extend_from_slice(format!(r#","timestamp":"{}","event_type":"#, event.time).as_bytes());
    write_string(&mut out, &mapping.event_type);
    if let Some(email) = email {
        out.extend_from_slice(br#","identity_email":"#);
        write_string(&mut out, email);
    }
    out.extend_from_slice(br#","properties":{"#);
    let mut pairs = Pairs { out: &mut out, empty: true };
    for (key, value) in event.properties.iter() {
        pairs.key(renamed(&event.properties, key, mapping.renames));
        if key == "products" && !mapping.renames.is_empty() {
            write_products(pairs.out, value, mapping.renames);
        } else {
            pairs.out.extend_from_slice(value.get().as_bytes());
        }
    }
    let url = event.context.object("page").and_then(|page| page.get("url"));
    if let Some(url) = url.filter(|_| event.properties.get(PAGE_URL).is_none()) {
        pairs.key(PAGE_URL);
        pairs.out.extend_from_slice(url.get().as_bytes());
    }
    out.extend_from_slice(b"}}");
    out
}

/// The members of an object under construction.
struct Pairs<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl Pairs<'_> {
    fn key(&mut self, key: &str) {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        write_string(self.out, key);
        self.out.push(b':');
    }
}

/// The target name of `key`. When the object already has a property of that name both stay as they are: no value may
/// vanish by a rename.
fn renamed<'a>(
    object: &Object<'_>,
    key: &'a str,
    renames: &[(&'static str, &'static str)],
) -> &'a str {
    let target = renames.iter().find(|(source, _)| *source == key).map(|(_, target)| *target);
    target.filter(|target| object.iter().all(|(known, _)| known != *target)).unwrap_or(key)
}

/// The `products` array with each object's properties renamed; what is no such array is copied.
fn write_products(
    out: &mut Vec<u8>,
    products: &RawValue,
    renames: &[(&'static str, &'static str)],
) {
    let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(products.get()) else {
        out.extend_from_slice(products.get().as_bytes());
        return;
    };
    let mut separator = b'[';
    for item in &items {
        out.push(separator);
        separator = b',';
        let Ok(product) = Object::parse(item.get()) else {
            out.extend_from_slice(item.get().as_bytes());
            continue;
        };
        out.push(b'{');
        let mut pairs = Pairs { out, empty: true };
        for (key, value) in product.iter() {
            pairs.key(renamed(&product, key, renames));
            pairs.out.extend_from_slice(value.get().as_bytes());
        }
        out.push(b'}');
    }
    out.extend_from_slice(if items.is_empty() { b"[]" } else { b"]" });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::clock::UnixMillis;
    use crate::event::Kind;
    use crate::event::parse::single;
    use crate::mapping::{Identity, Outcome, Preset, Rules, map};

    fn properties(event: &str, properties: &str, context: &str) -> String {
        let body =
            format!(r#"{{"event":"{event}","properties":{properties},"context":{context}}}"#);
        let event = single(&body, Kind::Track, UnixMillis(0)).unwrap();
        let rules = Rules { preset: Preset::Retail, consent: Vec::new() };
        let Outcome::Record(record) = map(&event, &Identity::default(), &rules, || "x".into())
        else {
            panic!()
        };
        let text = String::from_utf8(record.bytes).unwrap();
        text.split_once(r#""properties":"#).unwrap().1.strip_suffix('}').unwrap().to_owned()
    }

    #[test]
    fn renames_keep_values_and_order() {
        for (sent, read) in [
            (
                r#"{"variant":"m","price":79.00,"name":"J"}"#,
                r#"{"variant_id":"m","product_price":79.00,"product_name":"J"}"#,
            ),
            (
                r#"{"price":12345678901234567890123}"#,
                r#"{"product_price":12345678901234567890123}"#,
            ),
            (r#"{"price":1,"product_price":2}"#, r#"{"price":1,"product_price":2}"#),
            (r#"{"a\"b":{"price": [1 , 2]}}"#, r#"{"a\"b":{"price": [1 , 2]}}"#),
            (
                r#"{"products":[{"name":"J","price":1.50},7,{}]}"#,
                r#"{"products":[{"product_name":"J","product_price":1.50},7,{}]}"#,
            ),
            (r#"{"products":[]}"#, r#"{"products":[]}"#),
            (r#"{"products":"none"}"#, r#"{"products":"none"}"#),
            ("{}", "{}"),
            ("null", "{}"),
        ] {
            assert_eq!(properties("Product Viewed", sent, "{}"), read);
        }
    }

    #[test]
    fn the_page_url_comes_last_unless_given() {
        let context = r#"{"page":{"url":"https://x/\u00e9"}}"#;
        assert_eq!(
            properties("Product Viewed", r#"{"a":1}"#, context),
            r#"{"a":1,"page_url":"https://x/\u00e9"}"#
        );
        assert_eq!(
            properties("Product Viewed", r#"{"page_url":"y"}"#, context),
            r#"{"page_url":"y"}"#
        );
        assert_eq!(properties("Product Viewed", "{}", r#"{"page":{"url":null}}"#), "{}");
    }

    /// Any JSON text, with the spellings that a parser would normalise away.
    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            Just("true".to_owned()),
            Just("79.00".to_owned()),
            Just("1E+5".to_owned()),
            "-?[1-9][0-9]{0,30}(\\.[0-9]{1,9})?".prop_map(|number| number),
            any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
            Just(r#""\u00e9\/""#.to_owned()),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4)
                    .prop_map(|items| format!("[ {}]", items.join(" ,"))),
                proptest::collection::vec(inner, 0..4).prop_map(|items| {
                    let members: Vec<String> = items
                        .iter()
                        .enumerate()
                        .map(|(n, item)| format!("\"k{n}\" :{item}"))
                        .collect();
                    format!("{{{}}}", members.join(", "))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_passes_byte_for_byte(value in json()) {
            let read = properties("Order Completed", &format!(r#"{{"first":1,"value":{value}}}"#), "{}");
            prop_assert_eq!(read, format!(r#"{{"first":1,"value":{value}}}"#));
        }

        #[test]
        fn a_record_is_json_with_exactly_its_keys(value in json(), id in any::<String>(), email in "[a-z]{1,5}@x") {
            let id = if id.is_empty() || id.len() > 512 { "x".to_owned() } else { id };
            let body = format!(r#"{{"messageId":{},"event":"Product Viewed","properties":{{"value":{value}}},"traits":{{"email":"{email}"}}}}"#, serde_json::to_string(&id).unwrap());
            let event = single(&body, Kind::Track, UnixMillis(0)).unwrap();
            let Outcome::Record(record) = map(&event, &Identity::default(), &Rules::default(), String::new) else { panic!() };
            let read: serde_json::Value = serde_json::from_slice(&record.bytes).unwrap();
            let mut keys: Vec<&String> = read.as_object().unwrap().keys().collect();
            keys.sort();
            prop_assert_eq!(keys, ["@type", "event_type", "id", "identity_email", "properties", "timestamp"]);
            prop_assert_eq!(read["id"].as_str(), Some(id.as_str()));
        }
    }
}
