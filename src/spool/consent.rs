//! PURE. What is remembered of a person's consent: the categories that were denied last.
//!
//! It lies among the identities, as `{"marketing":false}` under the key `c:` ‖ the person's key in hexadecimal digits. What is granted
//! is not there: only a record is ever asked for, and that was granted when it came. Where all is granted again, the
//! whole entry goes.

use std::collections::BTreeMap;

use serde_json::Value;

use super::entry::{Consent, PersonKey};

/// Begins the key of every consent, and of nothing else.
pub(super) const PREFIX: &str = "c:";

/// The key of what `person` has denied.
#[must_use]
pub(super) fn key(person: PersonKey) -> String {
    format!("{PREFIX}{:016x}", person.0)
}

/// What is to be merged for `consent`: a denial stays, a `null` removes an earlier one.
#[must_use]
pub(super) fn change(consent: &Consent) -> Vec<u8> {
    let said = if consent.granted { Value::Null } else { Value::Bool(false) };
    let change = BTreeMap::from([(consent.category.as_str(), said)]);
    serde_json::to_vec(&change).expect("a map of texts is written into memory")
}

/// Whether one of `categories` is denied by what is stored. What cannot be read denies all: missing consent reads as denied.
#[must_use]
pub(super) fn denies(stored: &[u8], categories: &[String]) -> bool {
    match serde_json::from_slice::<BTreeMap<String, Value>>(stored) {
        Ok(said) => categories.iter().any(|category| said.contains_key(category)),
        Err(_) => !categories.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::object::merge;

    #[test]
    fn the_latest_word_on_each_category_counts() {
        let mut stored: Option<Vec<u8>> = None;
        let [marketing, odd] = ["marketing", "a \"b\""].map(str::to_owned);
        for (category, granted, denied) in [
            (&marketing, true, [false, false]),
            (&marketing, false, [true, false]),
            (&odd, false, [true, true]),
            (&marketing, true, [false, true]),
            (&odd, true, [false, false]),
        ] {
            let person = PersonKey(7);
            let said = Consent { person, category: category.clone(), granted, item: None };
            stored = Some(merge(stored.as_deref(), &change(&said)));
            let found = [&marketing, &odd]
                .map(|asked| denies(stored.as_deref().unwrap(), std::slice::from_ref(asked)));
            assert_eq!(found, denied, "{said:?}");
        }
        assert_eq!(stored.as_deref(), Some(&b"{}"[..]));
        assert!(denies(b"broken", &[marketing]) && !denies(b"broken", &[]));
        assert_eq!(key(PersonKey(0xAB)), "c:00000000000000ab");
    }
}
