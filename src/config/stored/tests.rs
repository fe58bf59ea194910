//! The configuration file and what is stored beside it, and drafts checked as files are.

use std::os::unix::fs::PermissionsExt as _;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::config::load;

const CANARY: &str = "canary-key-0123456789";

/// A state directory, and a configuration file in it.
struct Host {
    folder: TempDir,
}

impl Host {
    fn new(integrations: &str) -> Host {
        let host = Host { folder: tempfile::tempdir().unwrap() };
        let text = format!("state_dir = {:?}\n{integrations}", host.folder.path());
        std::fs::write(host.source(&[]).file(), text).unwrap();
        host
    }

    fn source(&self, set: &[&str]) -> Source {
        let set = set.iter().map(|set| (*set).to_owned()).collect();
        Source { path: Some(self.folder.path().join("p.toml")), set, ..Source::default() }
    }

    fn store(&self, name: &str, text: &str) {
        replace(&files::path(self.folder.path(), name), text.as_bytes()).unwrap();
    }

    fn check(&self, name: Option<&str>, draft: &str, purpose: For) -> Result<Ready, Faults> {
        let draft = serde_json::from_str(draft).unwrap();
        check(&self.source(&[]), self.folder.path(), name, draft, purpose)
    }

    /// Places and messages of a draft's faults.
    fn faults(&self, draft: &str) -> Vec<(String, String)> {
        let faults = self.check(Some("de"), draft, For::Saving).unwrap_err();
        faults.0.into_iter().map(|fault| (fault.place, fault.message)).collect()
    }
}

fn one(name: &str, more: &str) -> String {
    format!("[[integration]]\nname = \"{name}\"\napi_key = \"{CANARY}\"\n{more}\n")
}

/// Names in force, and those set aside: overruled with `=`, broken with their first fault.
fn told(config: &Config) -> (Vec<&str>, Vec<String>) {
    let aside = config.set_aside.iter().map(|aside| match &aside.why {
        Why::Overruled => format!("{}=", aside.name),
        Why::Broken(faults) => {
            let Fault { place, message } = &faults.0[0];
            let place = place.rsplit('/').next().unwrap_or_default();
            format!("{}: {place}: {message}", aside.name)
        }
    });
    let names = config.integrations.iter().map(|known| known.name.as_str());
    (names.collect(), aside.collect())
}

#[test]
fn stored_integrations_stand_beside_those_of_the_file_which_wins() {
    for (file, stored, names, aside) in [
        ("", &[][..], &[][..], &[][..]),
        ("", &[("b", one("b", "")), ("a", one("a", ""))], &["a", "b"], &[]),
        (&one("uk", "")[..], &[("de", one("de", ""))], &["uk", "de"], &[]),
        (&one("uk", ""), &[("de", one("de", "")), ("uk", one("uk", ""))], &["uk", "de"], &["uk="]),
        // What nobody uses need not be right.
        (&one("uk", ""), &[("uk", "x = \n".into())], &["uk"], &["uk="]),
        (
            "",
            &[("a", one("a", "batch = 0")), ("b", one("b", ""))],
            &["b"],
            &["a: a.toml:4:1: `batch` must be a whole number from 1 to 100"],
        ),
        ("", &[("a", "x = \n".into())], &[], &["a: a.toml:1:5: not valid TOML"]),
        (
            "",
            &[("a", one("b", ""))],
            &[],
            &["a: a.toml:2:1: a stored file is called by the `name` in it: b.toml"],
        ),
        (
            "",
            &[("a", format!("{}{}", one("a", ""), one("c", "")))],
            &[],
            &["a: a.toml:5:1: a stored file holds one [[integration]], and no other"],
        ),
        ("", &[("a", String::new())], &[], &["a: a.toml: a stored file holds one [[integration]]"]),
        (
            "",
            &[("a", format!("[spool]\ncache = \"8MiB\"\n{}", one("a", "")))],
            &[],
            &["a: a.toml:2:1: this belongs into the configuration file"],
        ),
        ("", &[("A", one("A", ""))], &[], &["A: A.toml:2:1: `name` must be given: lower-case"]),
    ] {
        let host = Host::new(file);
        for (name, text) in stored {
            host.store(name, text);
        }
        let config = load(&host.source(&[]), None).unwrap();
        let (found, set_aside) = told(&config);
        assert_eq!(found, names, "{stored:?}");
        assert_eq!(set_aside.len(), aside.len(), "{set_aside:?}");
        for (found, expected) in set_aside.iter().zip(aside) {
            assert!(found.starts_with(expected), "{found} is not {expected}");
        }
        assert!(!format!("{config:?} {}", config.effective()).contains(CANARY));
    }
}

#[test]
fn what_is_no_file_of_an_integration_does_no_harm() {
    let host = Host::new("");
    host.store("a", &one("a", ""));
    let folder = files::path(host.folder.path(), "a").parent().unwrap().to_owned();
    std::fs::write(folder.join("b.tmp"), CANARY).unwrap();
    std::fs::write(folder.join("README"), "x").unwrap();
    std::fs::create_dir(folder.join("c.toml")).unwrap();
    std::fs::write(folder.join("d.toml"), b"\xff").unwrap();
    let large = usize::try_from(files::FILE_BYTES_MAX).unwrap() + 1;
    std::fs::write(folder.join("e.toml"), "#".repeat(large)).unwrap();
    let config = load(&host.source(&[]), None).unwrap();
    let (names, aside) = told(&config);
    assert_eq!(names, ["a"]);
    assert_eq!(
        aside,
        [
            "c: c.toml: is no regular file",
            "d: d.toml: holds bytes that are no UTF-8",
            "e: e.toml: is too large to be an integration"
        ]
    );
    sweep(host.folder.path());
    assert!(!folder.join("b.tmp").exists() && folder.join("README").exists());
    // A folder that is none is told as well.
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::write(&folder, "x").unwrap();
    let config = load(&host.source(&[]), None).unwrap();
    let (_, aside) = told(&config);
    assert!(
        aside.len() == 1 && aside[0].starts_with(": integrations: cannot be read"),
        "{aside:?}"
    );
}

#[test]
fn overrides_reach_stored_integrations_too() {
    let host = Host::new(&one("uk", ""));
    host.store("de-shop", &one("de-shop", ""));
    let linger = |set: &[&str]| {
        let config = load(&host.source(set), None)?;
        let found = config.integrations.iter().find(|known| known.name == "de-shop");
        Ok::<_, Faults>(found.map(|known| known.forward.linger.as_millis()))
    };
    assert_eq!(linger(&[]).unwrap(), Some(200));
    assert_eq!(linger(&["integration.de-shop.linger=1s"]).unwrap(), Some(1000));
    assert_eq!(
        linger(&["integration.DE_SHOP.linger=1s", "integration.uk.linger=2s"]).unwrap(),
        Some(1000)
    );
    assert_eq!(linger(&["integration.de-shop.linger=soon"]).unwrap(), None, "set aside");
    let fault = linger(&["integration.fr.linger=1s"]).unwrap_err().to_string();
    assert!(fault.contains("no integration is called \"fr\""), "{fault}");
}

#[test]
fn what_is_saved_or_sent_from_is_what_a_reload_finds() {
    let host = Host::new("");
    let draft = format!(r#"{{"name":"de-shop","api_key":"{CANARY}","endpoint":"https://draft/"}}"#);
    for (set, purpose, expected) in [
        (&[][..], For::Saving, Ok("https://draft/")),
        (&["integration.fr.endpoint=https://set/"], For::Saving, Ok("https://draft/")),
        (&["integration.de-shop.endpoint=https://set/"], For::Saving, Ok("https://set/")),
        (&["integration.DE_SHOP.endpoint=https://set/"], For::Push, Ok("https://set/")),
        (&["integration.de-shop.endpoint=https://set/"], For::Mapping, Ok("https://draft/")),
        (&["integration.de-shop.batch=0"], For::Saving, Err("--set integration.de-shop.batch")),
    ] {
        let given = serde_json::from_str(&draft).unwrap();
        let source = host.source(set);
        let ready = check(&source, host.folder.path(), Some("de-shop"), given, purpose);
        let found = ready.as_ref().map(|ready| ready.integration.forward.endpoint.to_string());
        let found = found.map_err(|faults| faults.0[0].place.clone());
        assert_eq!(found.as_deref().map_err(String::as_str), expected, "{set:?} {purpose:?}");
        if let (Ok(ready), For::Saving) = (ready, purpose) {
            host.store("de-shop", &ready.text.0);
            if set.iter().any(|set| set.contains(".fr.")) {
                continue; // the whole configuration is at fault
            }
            let config = load(&source, None).unwrap();
            assert_eq!(config.integrations, [ready.integration], "{set:?}");
            assert!(ready.text.0.contains("https://draft/"), "an override is not stored");
        }
    }
}

#[test]
fn a_draft_is_checked_as_the_file_is_and_each_fault_names_its_setting() {
    let host = Host::new("");
    for (draft, expected) in [
        (r#"{"lingr":"1s"}"#, &[("lingr", "unknown key `lingr`: did you mean `linger`?")][..]),
        (r#"{"linger":1}"#, &[("linger", "`linger` must be a text in quotes with its unit")]),
        (r#"{"batch":"7"}"#, &[("batch", "`batch` must be a whole number from 1 to 100")]),
        (r#"{"batch":1e400}"#, &[("batch", "`batch` must be a whole number")]),
        (r#"{"consent":"a"}"#, &[("consent", "`consent` must be an array of texts")]),
        (r#"{"retry":{"initial":"10s","max":"1s"}}"#, &[("retry.initial", "must not be longer")]),
        (r#"{"retry":"5s"}"#, &[("retry", "`retry` is a table")]),
        (r#"{"endpoint":"http://example.com/"}"#, &[("endpoint", "must be https://")]),
        (r#"{"name":"fr"}"#, &[("name", "`name` must be \"de\" here")]),
        (r#"{"\u0000é":1}"#, &[("\"\\u0000é\"", "unknown key (not shown)")]),
        (
            r#"{"events":{"Product Viewed":{"event_typ":"x","properties":{"a":"property.x","b.c":[1]}}}}"#,
            &[
                ("events.\"Product Viewed\".event_typ", "unknown key `event_typ`"),
                ("events.\"Product Viewed\".properties.a", "begins with no known root"),
                ("events.\"Product Viewed\".properties.\"b.c\"", "must be a path"),
            ],
        ),
        (r#"{"events":{"page":{}}}"#, &[("events.page", "this table says nothing")]),
        (r#"{"events":{"page":7}}"#, &[("events.page", "an event's mapping must be a table")]),
        (r#"{"events":[1]}"#, &[("events", "`events` holds a table for each event")]),
        (
            r#"{"events":{"page":{"values":{"c":{"x":[1]}}}}}"#,
            &[("events.page.values.c.x", "a value must become a text")],
        ),
        (r#"{"api_key":"a b"}"#, &[("api_key", "must be visible ASCII characters")]),
        (r#"{"api_key_file":"/etc/shadow"}"#, &[("api_key_file", "is read only from")]),
        (
            r#"{"preset":"x","storm_limit":0}"#,
            &[("preset", "must be one of"), ("storm_limit", "of at least 1")],
        ),
    ] {
        let mut with_key: Draft = serde_json::from_str(draft).unwrap();
        if !with_key.has("api_key") {
            with_key.set("api_key", CANARY.into());
        }
        let found = host.faults(&serde_json::to_string(&with_key).unwrap());
        assert_eq!(found.len(), expected.len(), "{draft}: {found:?}");
        for ((place, message), (expected_place, words)) in found.iter().zip(expected) {
            assert_eq!(place, expected_place, "{draft}: {message}");
            assert!(message.contains(words) && !message.contains(CANARY), "{draft}: {message}");
        }
    }
    let missing = host.faults(r#"{"linger":"x"}"#);
    let places: Vec<&str> = missing.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(places, ["api_key", "linger"], "a missing key hides no other fault: {missing:?}");
    for name in ["", "A", "../x", "a/b", ".."] {
        let draft = format!(r#"{{"api_key":"{CANARY}"}}"#);
        let faults = host.check(Some(name), &draft, For::Saving).unwrap_err();
        assert!(faults.0.len() == 1 && faults.0[0].place == "name", "{name}: {faults}");
    }
}

#[test]
fn what_is_saved_is_read_back_with_its_secrets_kept_apart() {
    let host = Host::new("");
    let draft = r#"{"api_key":"canary-key-0123456789","proxy":"http://u:canary@h:1","consent":["m"],
        "events":{"Gift \"Card\"":{"unmapped":"drop","properties":{"z":"properties.a","a":{"constant":79.00}},
        "values":{"z":{"£":"GBP","*":1}}},"page":{"enabled":false}}}"#;
    let ready = host.check(Some("de"), draft, For::Saving).unwrap();
    replace(&ready.path, ready.text.0.as_bytes()).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode(&ready.path), mode(ready.path.parent().unwrap())), (0o600, 0o700));
    let config = load(&host.source(&[]), None).unwrap();
    let [known] = config.integrations.as_slice() else { panic!("{:?}", told(&config)) };
    assert_eq!(*known, ready.integration);
    let shown = serde_json::to_string(&known.settings()).unwrap();
    let Origin::Stored { given, .. } = &known.origin else { panic!("it is stored") };
    let given = serde_json::to_string(given).unwrap();
    assert!(!format!("{config:?}{shown}{given}{ready:?}").contains("canary"), "{shown}{given}");
    assert!(given.contains(r#""proxy":"http://***@h:1""#), "{given}");
    assert!(
        given.contains(r#""properties":{"z":"properties.a","a":{"constant":79.00}}"#),
        "{given}"
    );
    // What an editor begins with is the same again, and keeps what it does not show.
    let again = host.check(Some("de"), &given, For::Saving).unwrap();
    assert_eq!(again.integration.forward, ready.integration.forward);
    // The settings in force are a draft, too.
    let mut settings: Draft = serde_json::from_str(&shown).unwrap();
    settings.set("proxy", "http://u:canary@h:1".into());
    let shown = serde_json::to_string(&settings).unwrap();
    let again = host.check(Some("de"), &shown, For::Push).unwrap();
    let lines = |integration: &Integration| {
        let mut events = integration.events.clone();
        for table in &mut events {
            table.line = 0;
        }
        events
    };
    assert_eq!(again.integration.forward, ready.integration.forward);
    assert_eq!(lines(&again.integration), lines(&ready.integration));
}

#[test]
fn a_draft_without_name_or_key_can_be_tried_out() {
    let host = Host::new("");
    let ready = host.check(None, r#"{"preset":"default"}"#, For::Mapping).unwrap();
    assert_eq!(ready.integration.name, UNNAMED);
    let faults = host.check(None, r#"{"preset":"default"}"#, For::Push).unwrap_err();
    assert_eq!(faults.0[0].place, "api_key");
}

#[test]
fn the_draft_of_a_file_is_the_only_one_or_the_one_named() {
    let text = format!("{}{}", one("a", "batch = 7"), one("b", ""));
    let draft_of = |text: &str, name| draft_of(Path::new("x.toml"), text, name);
    assert!(draft_of(&text, "a").unwrap().has("batch"));
    assert!(!draft_of(&text, "b").unwrap().has("batch"));
    assert!(draft_of(&one("a", "batch = 7"), "other").unwrap().has("batch"));
    for (text, fault) in [
        (
            text.as_str(),
            "x.toml: holds neither one [[integration]] alone nor one that is called \"c\"",
        ),
        ("", "x.toml: holds neither"),
        ("x = ", "x.toml:1:5: not valid TOML"),
        ("[[integration]]\nlingr = 1\n", "x.toml:2:1: unknown key `lingr`"),
    ] {
        let faults = draft_of(text, "c").unwrap_err().to_string();
        assert!(faults.contains(fault), "{faults}");
    }
}

fn settings() -> impl Strategy<Value = Setting> {
    let leaf = prop_oneof![
        any::<String>().prop_map(Setting::Text),
        any::<bool>().prop_map(Setting::Boolean),
        any::<i64>().prop_map(|number| Setting::Number(number.to_string())),
        Just(Setting::Number("79.00".to_owned())),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        let members = proptest::collection::hash_map(any::<String>(), inner.clone(), 0..4);
        prop_oneof![
            proptest::collection::vec(inner, 0..4).prop_map(Setting::List),
            members.prop_map(|members| Setting::Table(members.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Whatever a draft holds, its TOML says the same, in the same order.
    #[test]
    fn a_draft_survives_its_file(members in proptest::collection::hash_map("[a-z\"é.]{0,6}", settings(), 0..5), events in settings()) {
        let mut draft: Draft = members.into_iter().collect();
        draft.set("events", events);
        // Tables of events are written last.
        let last = draft.remove("events").unwrap();
        draft.set("events", last);
        let written = draft::write(&draft);
        let read = draft::read(&written.text, None);
        prop_assert_eq!(read.map(|read| serde_json::to_string(&read).unwrap()), Some(serde_json::to_string(&draft).unwrap()), "{}", written.text);
    }
}
