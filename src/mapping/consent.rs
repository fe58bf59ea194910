//! What a person has consented to, as an event's context tells it.
//!
//! | place | written by |
//! |---|---|
//! | `context.consent.<category>` | Datafly |
//! | `context.consent.categoryPreferences.<category>` | Segment |
//! | `context.consent.canonical.<category>`, `context.consent.categories.<category>` | consent platforms |
//!
//! Only `true` grants. Where the places contradict one another, the one that denies counts.

use crate::event::{Context, Object, value};

/// Objects in `context.consent` that list categories, beside those in `consent` itself.
const LISTS: [&str; 3] = ["categoryPreferences", "canonical", "categories"];

/// What an event says about one category.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stance {
    /// `true` in at least one place, and nothing else in any.
    Granted,
    /// `false`, or something that is no boolean, in at least one place.
    Denied,
    /// Nothing in any place.
    Unstated,
}

/// Whether every one of `categories` is granted. What is not stated reads as denied.
#[must_use]
pub fn granted(context: &Context<'_>, categories: &[String]) -> bool {
    if categories.is_empty() {
        return true;
    }
    let consent = Consent::read(context);
    categories.iter().all(|category| consent.stance(category) == Stance::Granted)
}

/// What an event says about `categories`: those that it states, and whether it grants them.
#[must_use]
pub fn stated<'c>(
    context: &Context<'_>,
    categories: impl IntoIterator<Item = &'c str>,
) -> Vec<(&'c str, bool)> {
    let mut categories = categories.into_iter().peekable();
    if categories.peek().is_none() {
        return Vec::new();
    }
    let consent = Consent::read(context);
    let stated = categories.filter_map(|category| match consent.stance(category) {
        Stance::Unstated => None,
        stance => Some((category, stance == Stance::Granted)),
    });
    stated.collect()
}

/// The consent that one event carries.
#[derive(Clone, Debug)]
pub struct Consent<'a> {
    places: Vec<Object<'a>>,
}

impl<'a> Consent<'a> {
    /// Finds the places in an event's context.
    #[must_use]
    pub fn read(context: &Context<'a>) -> Consent<'a> {
        let mut places = Vec::new();
        if let Some(consent) = context.object("consent") {
            places
                .extend(LISTS.iter().filter_map(|list| consent.get(list).and_then(value::object)));
            places.push(consent);
        }
        Consent { places }
    }

    /// What is said about `category`. `null` says nothing, and neither does an object, which may be one of
    /// the lists under a category's name.
    #[must_use]
    pub fn stance(&self, category: &str) -> Stance {
        let mut stance = Stance::Unstated;
        for said in self.places.iter().filter_map(|place| place.get(category)) {
            match value::boolean(said) {
                Some(true) => stance = Stance::Granted,
                None if said.get().starts_with('{') => {}
                Some(false) | None => return Stance::Denied,
            }
        }
        stance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_read() {
        let table = [
            // consent, marketing, analytics
            (r#"{"marketing":true}"#, Stance::Granted, Stance::Unstated),
            (r#"{"marketing":true,"analytics":false}"#, Stance::Granted, Stance::Denied),
            (
                r#"{"categoryPreferences":{"marketing":true,"analytics":true}}"#,
                Stance::Granted,
                Stance::Granted,
            ),
            (
                r#"{"canonical":{"marketing":false,"analytics":true}}"#,
                Stance::Denied,
                Stance::Granted,
            ),
            (r#"{"categories":{"marketing":true}}"#, Stance::Granted, Stance::Unstated),
            (
                r#"{"marketing":true,"categories":{"analytics":true}}"#,
                Stance::Granted,
                Stance::Granted,
            ),
            (
                r#"{"marketing":true,"categoryPreferences":{"marketing":false}}"#,
                Stance::Denied,
                Stance::Unstated,
            ),
            (
                r#"{"marketing":false,"canonical":{"marketing":true}}"#,
                Stance::Denied,
                Stance::Unstated,
            ),
            (r#"{"marketing":"true","analytics":1}"#, Stance::Denied, Stance::Denied),
            (r#"{"marketing":[true],"analytics":"granted"}"#, Stance::Denied, Stance::Denied),
            (
                r#"{"marketing":null,"analytics":{"granted":true}}"#,
                Stance::Unstated,
                Stance::Unstated,
            ),
            (
                r#"{"Marketing":true,"categories":["marketing"]}"#,
                Stance::Unstated,
                Stance::Unstated,
            ),
            (r#"{"advertising":true}"#, Stance::Unstated, Stance::Unstated),
            ("true", Stance::Unstated, Stance::Unstated),
            ("null", Stance::Unstated, Stance::Unstated),
        ];
        for (consent, marketing, analytics) in table {
            let text = format!(r#"{{"consent":{consent}}}"#);
            let context = Context::new(Object::parse(&text).unwrap(), None);
            let read = Consent::read(&context);
            assert_eq!(read.stance("marketing"), marketing, "{consent}");
            assert_eq!(read.stance("analytics"), analytics, "{consent}");
            let both = [marketing, analytics] == [Stance::Granted; 2];
            let asked = ["marketing".to_owned(), "analytics".to_owned()];
            assert_eq!(granted(&context, &asked), both, "{consent}");
            assert!(granted(&context, &[]), "{consent}");
            let expected: Vec<_> = [("marketing", marketing), ("analytics", analytics)]
                .into_iter()
                .filter(|(_, stance)| *stance != Stance::Unstated)
                .map(|(category, stance)| (category, stance == Stance::Granted))
                .collect();
            assert_eq!(stated(&context, ["marketing", "analytics"]), expected, "{consent}");
        }
        assert!(!granted(&Context::default(), &["marketing".to_owned()]));
    }

    #[test]
    fn a_category_may_bear_the_name_of_a_list() {
        let text = r#"{"consent":{"canonical":{"canonical":true,"categories":false}}}"#;
        let consent = Consent::read(&Context::new(Object::parse(text).unwrap(), None));
        assert_eq!(consent.stance("canonical"), Stance::Granted);
        assert_eq!(consent.stance("categories"), Stance::Denied);
    }
}
