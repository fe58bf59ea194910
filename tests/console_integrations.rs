//! The web console over HTTP: an integration is tried out, made, tested and taken away, without a script.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use support::console::{Visitor, send, start};
use support::{Upstream, wait_until};

/// What is filled in for an integration, with `key` and `more`.
fn filled<'f>(url: &'f str, key: &'f str, more: &[(&'f str, &'f str)]) -> Vec<(&'f str, &'f str)> {
    let fields = [
        ("name", "de"),
        ("api_key", key),
        ("endpoint", url),
        ("preset", "default"),
        ("consent", "marketing, ads"),
        ("linger", "10ms"),
        ("event", "Gift Card Opened"),
        ("sent", "yes"),
        ("event_type", "gift"),
        ("unmapped", "drop"),
        ("property", "code"),
        ("kind", "path"),
        ("source", "properties.card.code"),
        ("value_of", "code"),
        ("value_from", "A"),
        ("value_to", "a<b>"),
        (
            "sample",
            r#"{"type":"track","event":"Gift Card Opened","properties":{"card":{"code":"A"},"x":1},"context":{"consent":{"marketing":true,"ads":true}}}"#,
        ),
    ];
    [&fields[..], more].concat()
}

/// Goal: by forms alone, an integration is tried out: what an event becomes, and whether Ometria takes it.
#[test]
fn an_integration_is_tried_out_without_a_script() {
    let upstream = Upstream::start(Some("the-right-key"), &[]);
    let (host, daemon) = start(&upstream);
    let visitor = Visitor::signed_in(&host, &daemon);
    let with = |key, more: &[_]| filled(&upstream.url, key, more);
    let tried = visitor.post("/integrations/draft", &with("", &[("do", "preview")]));
    for part in ["Gift Card Opened is sent", "&#34;a&#60;b&#62;&#34;", "not linked to a customer"] {
        assert!(tried.body.contains(part), "{part}: {}", tried.body);
    }
    assert!(!tried.body.contains("&#34;x&#34;: 1"), "{}", tried.body);
    let more =
        visitor.post("/integrations/draft", &with("", &[("add", "property-0"), ("part", "")]));
    assert_eq!(
        more.body.matches("name=\"property\"").count(),
        2 + 1,
        "one more, and the script's copy"
    );

    let refused = visitor
        .post("/integrations/draft", &with("a-wrong-key-1", &[("do", "test"), ("part", "yes")]));
    assert!(
        refused.body.contains("The API key is refused")
            && refused.body.contains("Settings &#62; API keys"),
        "{}",
        refused.body
    );
    let taken = visitor
        .post("/integrations/draft", &with("the-right-key", &[("do", "test"), ("part", "yes")]));
    assert!(
        taken.body.contains("Delivered") && taken.body.contains("request id"),
        "{}",
        taken.body
    );
    assert_eq!(upstream.ids().len(), 1);
}

/// Goal: by forms alone, an integration is made, changed and removed, and its key is told to nobody.
#[test]
fn an_integration_is_made_without_a_script() {
    let upstream = Upstream::start(Some("the-right-key"), &[]);
    let (host, daemon) = start(&upstream);
    let visitor = Visitor::signed_in(&host, &daemon);
    let with = |key, more: &[_]| filled(&upstream.url, key, more);
    let faulty = visitor.post("/integrations/save", &with("", &[("batch", "ten")]));
    assert_eq!(faulty.status, 422);
    for part in ["<b>api_key</b>", "<b>batch</b>", "It was not saved", "value=\"marketing, ads\""] {
        assert!(faulty.body.contains(part), "{part}: {}", faulty.body);
    }
    let saved = visitor.post("/integrations/save", &with("the-right-key", &[]));
    assert!(visitor.follow(&saved).body.contains("delivered from now on"));
    let again = visitor.post("/integrations/save", &with("the-right-key", &[]));
    assert!(again.status == 422 && again.body.contains("choose another name"), "{}", again.body);
    let page = visitor.get("/integrations/stored/de").body;
    assert!(page.contains("properties.card.code") && !page.contains("the-right-key"), "{page}");
    send(
        &host,
        r#"{"type":"track","event":"Gift Card Opened","messageId":"g-1","properties":{"card":{"code":"A"}},"context":{"consent":{"marketing":true,"ads":true}}}"#,
    );
    wait_until("its delivery", || upstream.ids().contains(&"g-1".to_owned()));

    // Without a key the old one stays; what is not shown stays as well.
    let known = with("", &[("known", "de"), ("retry.max", "1min")]);
    assert!(
        visitor
            .follow(&visitor.post("/integrations/save", &known))
            .body
            .contains("is saved, and in force")
    );
    // Of two who opened the same form, the later one is told, and told again, until the form is opened anew.
    let page = visitor.get("/integrations/stored/de").body;
    let version = page.split("name=\"version\" value=\"").nth(1).unwrap();
    let version = version.split('"').next().unwrap();
    let save = |batch| {
        let more = [("known", "de"), ("version", version), ("batch", batch)];
        visitor.post("/integrations/save", &with("", &more))
    };
    assert!(visitor.follow(&save("7")).body.contains("is saved, and in force"));
    let later = save("8");
    assert!(later.status == 422 && later.body.contains("changed, added or removed meanwhile"));
    assert!(
        later.body.contains(&format!("name=\"version\" value=\"{version}\"")),
        "{}",
        later.body
    );
    assert!(visitor.get("/integrations/stored/de").body.contains("name=\"batch\" value=\"7\""));
    let asked = visitor.post("/integrations/remove", &[("known", "de")]);
    assert!(asked.status == 200 && asked.body.contains("Remove de?"), "{}", asked.body);
    let removed = visitor.post("/integrations/remove", &[("known", "de"), ("confirmed", "true")]);
    assert!(visitor.follow(&removed).body.contains("de is removed"));
    assert_eq!(visitor.get("/integrations/stored/de").status, 404);
    let reloaded = visitor.follow(&visitor.post("/integrations/reload", &[]));
    assert!(reloaded.body.contains("The configuration was read again"), "{}", reloaded.body);
}
