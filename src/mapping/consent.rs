//! PURE. Whether an event says that its person agrees.

use crate::event::object::Object;

/// Where the consent managers of DESIGN.md section 5 put a category, under `context.consent`.
const PLACES: [Option<&str>; 4] =
    [None, Some("categoryPreferences"), Some("canonical"), Some("categories")];

/// Whether every one of `categories` is granted in `context.consent`, in any of its shapes. A category that is missing,
/// no boolean, or denied in any shape reads as denied.
#[must_use]
pub fn granted(context: &Object<'_>, categories: &[String]) -> bool {
    if categories.is_empty() {
        return true;
    }
    let Some(consent) = context.object("consent") else { return false };
    let places: Vec<Object<'_>> = PLACES
        .into_iter()
        .filter_map(|place| match place {
            None => Some(consent.clone()),
            Some(key) => consent.object(key),
        })
        .collect();
    categories.iter().all(|category| {
        let mut said = places
            .iter()
            .filter_map(|place| place.get(category))
            .map(|value| value.get() == "true")
            .peekable();
        said.peek().is_some() && said.all(|granted| granted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_read_and_missing_is_denied() {
        let marketing = ["marketing".to_owned()];
        let both = ["marketing".to_owned(), "analytics".to_owned()];
        for (context, categories, expected) in [
            (r#"{"consent":{"marketing":true}}"#, &marketing[..], true),
            (r#"{"consent":{"categoryPreferences":{"marketing":true}}}"#, &marketing, true),
            (r#"{"consent":{"canonical":{"marketing":true}}}"#, &marketing, true),
            (r#"{"consent":{"categories":{"marketing":true}}}"#, &marketing, true),
            (r#"{"consent":{"marketing":false}}"#, &marketing, false),
            (r#"{"consent":{"marketing":"true"}}"#, &marketing, false),
            (r#"{"consent":{"marketing":1}}"#, &marketing, false),
            (r#"{"consent":{"marketing":null}}"#, &marketing, false),
            (r#"{"consent":{"analytics":true}}"#, &marketing, false),
            (r#"{"consent":true}"#, &marketing, false),
            ("{}", &marketing, false),
            ("{}", &[], true),
            (r#"{"consent":{"marketing":true,"analytics":true}}"#, &both, true),
            (r#"{"consent":{"marketing":true,"categories":{"analytics":true}}}"#, &both, true),
            (r#"{"consent":{"marketing":true}}"#, &both, false),
            (
                r#"{"consent":{"marketing":true,"categories":{"marketing":false}}}"#,
                &marketing,
                false,
            ),
        ] {
            assert_eq!(
                granted(&Object::parse(context).unwrap(), categories),
                expected,
                "{context}"
            );
        }
    }
}
