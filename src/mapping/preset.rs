//! The tables behind the presets.

use std::borrow::Cow;

use super::Preset;
use super::rules::{Renames, Shape};

/// Events of the `retail` preset by their exact names in Segment's e-commerce specification (read 2026-06),
/// and the `event_type` each becomes. Pages come on top.
pub const RETAIL_EVENTS: [(&str, &str); 7] = [
    ("Products Searched", "search"),
    ("Product Viewed", "product_viewed"),
    ("Product Added to Wishlist", "wishlist_add"),
    ("Product Added", "cart_add"),
    ("Product Removed", "cart_remove"),
    ("Checkout Started", "checkout_started"),
    ("Order Completed", "order_completed"),
];

/// Property names that the `retail` preset changes, in a track's properties and in each of its `products`.
/// A page's `name` is the page's, so a page keeps its names.
pub const RETAIL_RENAMES: Renames =
    Renames(&[("variant", "variant_id"), ("price", "product_price"), ("name", "product_name")]);

/// The `event_type` of a page, in every preset.
pub const PAGE_VIEW: &str = "page_view";

/// What `preset` makes of a track of this name; `None` when it is not sent on.
#[must_use]
pub fn track(preset: Preset, name: &str) -> Option<Shape<'_>> {
    match preset {
        Preset::Retail => {
            let (_, event_type) = RETAIL_EVENTS.iter().find(|(event, _)| *event == name)?;
            let event_type = Cow::Borrowed(*event_type);
            Some(Shape { event_type, renames: RETAIL_RENAMES, table: None })
        }
        Preset::Default => Some(own(preset, name)),
    }
}

/// What `preset` makes of a track that it need not know, because a table of its own sends it on.
#[must_use]
pub fn own(preset: Preset, name: &str) -> Shape<'_> {
    let renames = match preset {
        Preset::Retail => RETAIL_RENAMES,
        Preset::Default => Renames::default(),
    };
    Shape { event_type: Cow::Owned(snake_case(name)), renames, table: None }
}

/// What every preset makes of a page.
#[must_use]
pub fn page() -> Shape<'static> {
    Shape { event_type: Cow::Borrowed(PAGE_VIEW), renames: Renames::default(), table: None }
}

/// A name in `snake_case`: `Product Viewed`, `productViewed` and `product-viewed` become `product_viewed`.
///
/// Words end at whitespace and punctuation, before a capital that follows a small letter or a digit, and
/// before the last of several capitals (`HTTPError` → `http_error`). Letters of every script are kept. A name
/// without any word in it stays as it is.
#[must_use]
pub fn snake_case(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 8);
    let mut before = None;
    let mut letters = name.chars().peekable();
    while let Some(letter) = letters.next() {
        if is_separator(letter) {
            before = None;
            continue;
        }
        let begins_word = before.is_none_or(|before: char| {
            let small_follows = letters.peek().is_some_and(|next| next.is_lowercase());
            is_capital(letter) && (!is_capital(before) || small_follows)
        });
        if begins_word && !out.is_empty() {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
        before = Some(letter);
    }
    if out.is_empty() { name.to_owned() } else { out }
}

/// Whether a letter has a small form to become; ornamental capitals have none and count as small.
fn is_capital(letter: char) -> bool {
    letter.is_uppercase() && letter.to_lowercase().next() != Some(letter)
}

/// ASCII punctuation, whitespace, controls, and Unicode's block of general punctuation.
fn is_separator(letter: char) -> bool {
    letter.is_ascii_punctuation()
        || letter.is_whitespace()
        || letter.is_control()
        || matches!(letter, '\u{2000}'..='\u{206f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn retail_knows_its_events_by_their_exact_names() {
        for (name, event_type) in RETAIL_EVENTS {
            let shape = track(Preset::Retail, name).unwrap();
            assert_eq!((&*shape.event_type, shape.renames), (event_type, RETAIL_RENAMES));
        }
        for name in ["product viewed", "Product Viewed ", "Cart Viewed", "page_view", "Page"] {
            assert_eq!(track(Preset::Retail, name), None, "{name}");
        }
    }

    #[test]
    fn default_sends_every_track() {
        let shape = track(Preset::Default, "Anything At All").unwrap();
        assert_eq!((&*shape.event_type, shape.renames.is_empty()), ("anything_at_all", true));
    }

    #[test]
    fn names_become_snake_case() {
        let table = [
            ("Product Viewed", "product_viewed"),
            ("productViewed", "product_viewed"),
            ("ProductViewed", "product_viewed"),
            ("product_viewed", "product_viewed"),
            ("PRODUCT VIEWED", "product_viewed"),
            ("  Product -- Viewed! ", "product_viewed"),
            ("HTTPError", "http_error"),
            ("parseJSON", "parse_json"),
            ("Size2Chosen", "size2_chosen"),
            ("Step 2", "step_2"),
            ("Größe Gewählt", "größe_gewählt"),
            ("Ärger", "ärger"),
            ("商品を見た", "商品を見た"),
            ("A/B Test", "a_b_test"),
            ("Order – Done", "order_done"),
            ("🛒", "🛒"),
            ("!!!", "!!!"),
            ("a𝐀𝐀", "a𝐀𝐀"),
            ("E", "e"),
            ("iPhone15Pro Viewed", "i_phone15_pro_viewed"),
            ("2nd Visit", "2nd_visit"),
            ("v2.0", "v2_0"),
            ("Customer's Choice", "customer_s_choice"),
            ("__Order__Done__", "order_done"),
            ("ÉTÉ", "été"),
            ("заказОформлен", "заказ_оформлен"),
            ("a\tb\nc\u{a0}d", "a_b_c_d"),
            ("", ""),
            (" ", " "),
        ];
        for (name, expected) in table {
            assert_eq!(snake_case(name), expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn snake_case_changes_nothing_twice(name in "\\PC*|[A-Za-z0-9 _-]{0,20}|[ǅİẞ𝐀a ]{0,8}") {
            let once = snake_case(&name);
            prop_assert_eq!(snake_case(&once), once.clone());
            prop_assert_eq!(once.is_empty(), name.is_empty());
        }
    }
}
