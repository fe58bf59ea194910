//! PURE. Which events become which records, and how their properties are renamed.

use std::borrow::Cow;

use crate::event::Kind;
use crate::event::parse::Event;

/// Which events become which records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preset {
    /// The eight events of a shop's journey; everything else is dropped.
    #[default]
    Retail,
    /// Every `track` and `page`.
    Default,
}

/// How one event becomes a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping<'a> {
    /// The record's `event_type`.
    pub event_type: Cow<'a, str>,
    /// (source, target) of properties, also inside `products[]`.
    pub renames: &'static [(&'static str, &'static str)],
}

/// Names of the Segment specification → Ometria's event types (DESIGN.md section 5).
const RETAIL: [(&str, &str); 7] = [
    ("Products Searched", "search"),
    ("Product Viewed", "product_viewed"),
    ("Product Added to Wishlist", "wishlist_add"),
    ("Product Added", "cart_add"),
    ("Product Removed", "cart_remove"),
    ("Checkout Started", "checkout_started"),
    ("Order Completed", "order_completed"),
];

/// The `event_type` of every page.
const PAGE: &str = "page_view";

/// What the retail preset renames in a product.
const PRODUCT: &[(&str, &str)] =
    &[("variant", "variant_id"), ("price", "product_price"), ("name", "product_name")];

impl Preset {
    /// The presets by their name in the configuration.
    pub const NAMES: [(&'static str, Preset); 2] =
        [("retail", Preset::Retail), ("default", Preset::Default)];

    /// How `event` becomes a record; `None` when it is not sent on. A page's `name` is no product's: it stays.
    #[must_use]
    pub fn mapping<'a>(self, event: &'a Event<'_>) -> Option<Mapping<'a>> {
        let name = event.name.as_deref().unwrap_or_default();
        match (event.kind, self) {
            (Kind::Page, _) => Some(Mapping { event_type: Cow::Borrowed(PAGE), renames: &[] }),
            (Kind::Track, Preset::Retail) => {
                let (_, event_type) = RETAIL.iter().find(|(known, _)| *known == name)?;
                Some(Mapping { event_type: Cow::Borrowed(event_type), renames: PRODUCT })
            }
            (Kind::Track, Preset::Default) => {
                Some(Mapping { event_type: Cow::Owned(snake_case(name)), renames: &[] })
            }
            _ => None,
        }
    }
}

/// `Product Viewed`, `productViewed` and `product-viewed` → `product_viewed`. A name without a letter or digit stays.
#[must_use]
pub fn snake_case(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 8);
    let mut previous: Option<char> = None;
    let mut letters = name.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter.is_alphanumeric() {
            let after_lower =
                previous.is_some_and(|previous| previous.is_lowercase() || previous.is_numeric());
            let ends_acronym = previous.is_some_and(char::is_uppercase)
                && letters.peek().is_some_and(|next| next.is_lowercase());
            if letter.is_uppercase() && (after_lower || ends_acronym) && !snake.ends_with('_') {
                snake.push('_');
            }
            snake.extend(letter.to_lowercase());
        } else if !snake.is_empty() && !snake.ends_with('_') {
            snake.push('_');
        }
        previous = Some(letter);
    }
    let trimmed = snake.trim_end_matches('_');
    if trimmed.is_empty() { name.to_owned() } else { trimmed.to_owned() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::UnixMillis;
    use crate::event::parse::single;

    fn event_type(preset: Preset, kind: Kind, name: &str) -> Option<String> {
        let body = serde_json::json!({"event": name, "name": name, "userId": "u"}).to_string();
        let event = single(&body, kind, UnixMillis(0)).unwrap();
        preset.mapping(&event).map(|mapping| mapping.event_type.into_owned())
    }

    #[test]
    fn the_retail_preset_sends_eight_events_and_nothing_else() {
        for (kind, name, expected) in [
            (Kind::Page, "Home", Some("page_view")),
            (Kind::Track, "Products Searched", Some("search")),
            (Kind::Track, "Product Viewed", Some("product_viewed")),
            (Kind::Track, "Product Added to Wishlist", Some("wishlist_add")),
            (Kind::Track, "Product Added", Some("cart_add")),
            (Kind::Track, "Product Removed", Some("cart_remove")),
            (Kind::Track, "Checkout Started", Some("checkout_started")),
            (Kind::Track, "Order Completed", Some("order_completed")),
            (Kind::Track, "product viewed", None),
            (Kind::Track, "Nap Taken", None),
            (Kind::Screen, "Home", None),
            (Kind::Group, "x", None),
            (Kind::Alias, "x", None),
        ] {
            assert_eq!(
                event_type(Preset::Retail, kind, name).as_deref(),
                expected,
                "{kind:?} {name}"
            );
        }
        assert_eq!(
            event_type(Preset::Default, Kind::Track, "Nap Taken").as_deref(),
            Some("nap_taken")
        );
        assert_eq!(event_type(Preset::Default, Kind::Page, "Home").as_deref(), Some("page_view"));
        assert_eq!(event_type(Preset::Default, Kind::Group, "x"), None);
    }

    #[test]
    fn names_in_snake_case() {
        for (name, snake) in [
            ("Product Viewed", "product_viewed"),
            ("productViewed", "product_viewed"),
            ("Product-Viewed!", "product_viewed"),
            ("HTTPServer Error", "http_server_error"),
            ("already_snake", "already_snake"),
            ("Step 2 Done", "step_2_done"),
            ("Étage Élevé", "étage_élevé"),
            ("!!", "!!"),
        ] {
            assert_eq!(snake_case(name), snake, "{name}");
        }
    }

    proptest! {
        #[test]
        fn snake_case_of_snake_case_is_itself(name in "[A-Za-z0-9 _-]{0,30}") {
            let once = snake_case(&name);
            prop_assert_eq!(snake_case(&once), once);
        }
    }
}
