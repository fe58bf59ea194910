//! The API key is in nothing that is told of a configuration, wherever it was put by mistake (Promise 8).

use proptest::prelude::*;

use super::tests::{CANARY, WHOLE, built, with};
use super::*;

#[test]
fn no_fault_shows_the_key() {
    let lines = [
        "api_key = \"canary-key-0123456789",
        "api_key = canary-key-0123456789",
        "api_key = \"canary-key-0123456789\" x",
        "api_key = \"canary-key-0123456789\"\napi_key = \"canary-key-0123456789\"",
        "api_key = \"canary-key-0123456789\\q\"",
        "api_key = 'canary-key-0123456789",
        "api_key = [\"canary-key-0123456789\"]",
        "api_key = { x = \"canary-key-0123456789\" }",
        "api_kye = \"canary-key-0123456789\"",
        "api_key = \"canary-key-0123456789 \"",
        "api_key = \"canary-key-0123456789\"\napi_key_file = \"/x\"",
        "name = \"canary-key-0123456789!\"",
        "endpoint = \"https://canary-key-0123456789@x/\"",
        "endpoint = \"https://x/?key=canary-key-0123456789\"",
        "linger = \"canary-key-0123456789\"",
        "preset = \"canary-key-0123456789\"",
        "api_key = 'canary-key-0123456789\n'",
        "api_key = \"\"\"canary-key-0123456789",
        "api_key = \"canary-key-0123456789é\"",
        "api_key = canary-key-0123456789 # x",
        "api_key \"canary-key-0123456789\"",
        "canary-key-0123456789",
        "canary-key-0123456789 = \"api_key\"",
        "\"canary-key-0123456789\" = 1",
        "api_key.canary-key-0123456789 = 1",
        "[canary-key-0123456789]",
        "api_key_file = \"canary-key-0123456789\"",
        "api_key_file = \"/canary-key-0123456789\"",
        "api_key_credential = \"canary-key-0123456789\"",
        "socket = \"canary-key-0123456789\"",
        "state_dir = \"canary-key-0123456789\"",
        "retry = { initial = \"canary-key-0123456789\" }",
        "batch = \"canary-key-0123456789\"",
        "consent = \"canary-key-0123456789\"",
        "lanes = \"canary-key-0123456789\"",
        "endpoint = \"canary-key-0123456789\"",
        "write_keys = \"canary-key-0123456789\"",
        "write_keys = [\"canary-key-0123456789:\"]",
        "write_keys = [\"canary-key-0123456789\", 1]",
        "write_keys = { canary-key-0123456789 = 1 }",
        "listen = [\"canary-key-0123456789\"]",
        "listen = [\"127.0.0.1:1\"]\nwrite_keys = [\"canary-key-0123456789 \"]",
        "proxy = \"canary-key-0123456789:x\"",
        "proxy = \"ftp://u:canary-key-0123456789@x\"",
        "ca_file = \"canary-key-0123456789\"",
        "ca_file = \"/canary-key-0123456789\"",
        "endpoint = \"http://x/canary-key-0123456789\"",
        "endpoint = \"https://x/#canary-key-0123456789\"",
        "[integration.events.canary-key-0123456789]",
        "events.E.canary-key-0123456789 = 1",
        "events.E.unmapped = \"canary-key-0123456789\"",
        "events.E.properties.canary-key-0123456789 = []",
        "events.E.properties.a = \"canary-key-0123456789.x\"",
        "events.E.values.canary-key-0123456789 = {}",
    ];
    for line in lines {
        for text in [
            format!("[[integration]]\n{line}\n"),
            format!("{line}\n"),
            format!("[spool]\n{line}\n"),
        ] {
            assert_silent(built(&text), &text);
        }
    }
}

#[test]
fn no_fault_of_an_override_shows_the_key() {
    for set in [
        "integration.uk.api_key=canary-key-0123456789 x",
        "integration.uk.api_key=\"canary-key-0123456789",
        "integration.uk.api_key=[\"canary-key-0123456789\"]",
        "integration.uk.api_kye=canary-key-0123456789",
        "integration.de.api_key=canary-key-0123456789",
        "integration.uk.api_key_file=canary-key-0123456789",
        "integration.uk.canary-key-0123456789==",
        "canary-key-0123456789==",
        "canary-key-0123456789",
        "canary-key-0123456789.x=1",
        "spool.sync=canary-key-0123456789",
    ] {
        assert_silent(with(&[set], &[]), set);
    }
    for name in ["API_KEY", "API_KYE", "API_KEY_FILE", "API_KEY_CREDENTIAL", "LINGER", "RETRY"] {
        let name = format!("PILLARBOX__INTEGRATION__UK__{name}");
        assert_silent(with(&[], &[(&name, "canary-key-0123456789 x")]), &name);
    }
}

#[test]
fn a_file_or_credential_that_is_no_key_is_not_shown() {
    use std::os::unix::fs::PermissionsExt as _;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("uk.key");
    let source = Source { credentials: Some(directory.path().to_owned()), ..Source::default() };
    let longer = CANARY.repeat(300);
    for content in
        [&b"canary-key-0123456789 x"[..], b"canary-key-0123456789\xff", b"", longer.as_bytes()]
    {
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        for line in
            [format!("api_key_file = {path:?}"), "api_key_credential = \"uk.key\"".to_owned()]
        {
            let text = format!("[[integration]]\nname = \"uk\"\n{line}\n");
            let told = assert_silent(parse(Path::new("p.toml"), &text, &source), &line);
            assert!(told.starts_with("p.toml:3:1: ") && !told.contains('\n'), "{told}");
        }
    }
    for name in ["..", CANARY] {
        let text = format!("[[integration]]\nname = \"uk\"\napi_key_credential = {name:?}\n");
        assert_silent(parse(Path::new("p.toml"), &text, &source), name);
    }
}

#[test]
fn a_source_shows_no_override() {
    let source = Source {
        set: vec![format!("integration.uk.api_key={CANARY}")],
        environment: vec![("PILLARBOX__INTEGRATION__UK__API_KEY".to_owned(), CANARY.to_owned())],
        ..Source::default()
    };
    assert!(!format!("{source:?}").contains(CANARY));
    let config = parse(Path::new("p.toml"), WHOLE, &source).unwrap();
    assert!(!format!("{config:?}{}", config.effective()).contains(CANARY));
}

/// Asserts that nothing told of a configuration at fault holds any part of the key, and returns what is told.
fn assert_silent(read: Result<Config, Faults>, given: &str) -> String {
    let faults = read.expect_err(given);
    let told = faults.to_string();
    assert!(!tells(&told) && !tells(&format!("{faults:?}")), "{given}\n{told}");
    told
}

/// Whether `text` holds twelve letters of the key in a row.
fn tells(text: &str) -> bool {
    CANARY.as_bytes().windows(12).any(|part| text.as_bytes().windows(12).any(|seen| seen == part))
}

proptest! {
    #[test]
    fn a_garbled_file_neither_panics_nor_tells_the_key(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..12, "[ -~\n\t\"'=.é\\[\\]]{0,3}"), 1..6),
        cut: Option<prop::sample::Index>,
    ) {
        let mut letters: Vec<char> = WHOLE.chars().collect();
        for (at, removed, inserted) in changes {
            let at = at.index(letters.len());
            let end = letters.len().min(at + removed);
            letters.splice(at..end, inserted.chars());
        }
        if let Some(cut) = cut {
            letters.truncate(cut.index(letters.len()));
        }
        let text: String = letters.into_iter().collect();
        match built(&text) {
            Err(faults) => {
                prop_assert!(!faults.0.is_empty());
                prop_assert!(!tells(&faults.to_string()), "{}\n{}", text, faults);
            }
            // The key may have become the name of an integration, so only that it can be shown is asked.
            Ok(config) => prop_assert!(built(&config.effective()).is_ok(), "{}", text),
        }
    }
}
