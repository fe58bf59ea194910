//! `--set` and the environment: what they reach, which of them wins, and what is said of those at fault.

use super::tests::{INTEGRATION, WHOLE, with};
use super::*;

#[test]
fn overrides_win_in_their_order() {
    let sync = |config: Result<Config, Faults>| config.unwrap().spool.sync;
    let every = |millis| crate::spool::SyncMode::Every(std::time::Duration::from_millis(millis));
    assert_eq!(sync(with(&[], &[("PILLARBOX__SPOOL__SYNC", "500ms")])), every(500));
    assert_eq!(sync(with(&["spool.sync=1s"], &[("PILLARBOX__SPOOL__SYNC", "500ms")])), every(1000));
    assert_eq!(sync(with(&["spool.sync=1s", "spool.sync=2s"], &[])), every(2000));
    let config = with(
        &["integration.uk.linger=1s", "integration.uk.batch=7"],
        &[("PILLARBOX__INTEGRATION__UK__CONSENT", "a, b")],
    )
    .unwrap();
    let integration = &config.integrations[0];
    assert_eq!(
        (integration.forward.linger.as_secs(), integration.forward.batch_records_max),
        (1, 7)
    );
    assert_eq!(integration.forward.consent, ["a", "b"]);
    for (set, expected) in [
        (
            "integration.de.linger=1s",
            "--set integration.de.linger: no integration is called \"de\"",
        ),
        ("spool.sinc=1s", "--set spool.sinc: unknown key `sinc`: did you mean `sync`?"),
        ("spool.max_records=many", "--set spool.max_records: `max_records` must be"),
        ("spool.keep_events=on", "--set spool.keep_events: `keep_events` must be true or false"),
        ("nonsense", "--set: must be KEY=VALUE"),
    ] {
        let faults = with(&[set], &[]).unwrap_err().to_string();
        assert!(faults.contains(expected), "{set}: {faults}");
    }
}

#[test]
fn an_override_at_fault_is_told_with_all_the_others() {
    let set = ["nonsense", "spool.sinc=1s", "spool.cache=1"];
    let faults = with(&set, &[("PILLARBOX__SPOOL__MAX_BYTES", "lots")]).unwrap_err();
    let found: Vec<&str> = faults.0.iter().map(|fault| fault.place.as_str()).collect();
    let expected = [
        "environment PILLARBOX__SPOOL__MAX_BYTES",
        "--set",
        "--set spool.sinc",
        "--set spool.cache",
    ];
    assert_eq!(found, expected, "{faults}");
}

#[test]
fn a_table_is_not_overridden_whole() {
    for (set, expected) in [
        ("ingest=1", "--set ingest: `ingest` is a table: set one of its keys, socket, socket_mode"),
        ("integration=1", "--set integration: `integration` is a table: set one key of one"),
        ("integration.uk=1", "--set integration.uk: `integration` is a table: set one key of one"),
        ("integration.uk.retry=5s", "--set integration.uk.retry: `retry` is a table: set"),
        ("=1", "--set: unknown key (not shown): known are state_dir"),
    ] {
        let faults = with(&[set], &[]).unwrap_err().to_string();
        assert!(faults.starts_with(expected), "{set}: {faults}");
    }
}

#[test]
fn values_may_be_written_as_in_the_file() {
    let consent = |value: &str| {
        let config = with(&[&format!("integration.uk.consent={value}")], &[])?;
        Ok::<_, Faults>(config.integrations[0].forward.consent.clone())
    };
    assert_eq!(consent("[\"a\", 'b']").unwrap(), ["a", "b"]);
    assert_eq!(consent("a,b").unwrap(), ["a", "b"]);
    assert_eq!(consent("[]").unwrap(), [""; 0]);
    // An unset variable that was put in here must not switch the consent off.
    for wrong in ["", " ", "a,,b", "[a, b]", "[\"a\"", "[1]"] {
        let fault = consent(wrong).unwrap_err().to_string();
        assert!(fault.starts_with("--set integration.uk.consent: `consent`"), "{wrong}: {fault}");
    }
    let fault = with(&["spool.sync=\"1s"], &[]).unwrap_err().to_string();
    assert!(fault.ends_with("`sync`: what begins with a quote or bracket must be TOML"), "{fault}");
    let config = with(&["spool.max_records=10_000", "spool.cache=\"64MiB\""], &[]).unwrap();
    assert_eq!((config.spool.records_max, config.spool.cache_bytes), (10_000, 64 << 20));
    for (set, environment) in [
        (&["spool.keep_events=true"][..], &[][..]),
        (&[], &[("PILLARBOX__SPOOL__KEEP_EVENTS", "true")]),
    ] {
        let config = with(set, environment).unwrap();
        assert!(config.spool.keep_events && config.effective().contains("\nkeep_events = true\n"));
    }
}

#[test]
fn an_override_reaches_the_integration_of_its_name_alone() {
    let lingers = |names: &[&str], set: &[&str], environment: &[(&str, &str)]| {
        let text: String =
            names.iter().map(|name| INTEGRATION.replace("\"uk\"", &format!("{name:?}"))).collect();
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let source = Source {
            set: set.iter().map(|set| (*set).to_owned()).collect(),
            environment: environment.iter().map(own).collect(),
            ..Source::default()
        };
        let config = parse(Path::new("p.toml"), &text, &source)?;
        let linger = |known: &Integration| known.forward.linger.as_secs();
        Ok::<Vec<u64>, Faults>(config.integrations.iter().map(linger).collect())
    };
    let variable = ("PILLARBOX__INTEGRATION__A_B__LINGER", "1s");
    assert_eq!(lingers(&["a-b", "c"], &[], &[variable]).unwrap(), [1, 0]);
    assert_eq!(lingers(&["a-b", "a_b"], &["integration.a_b.linger=1s"], &[]).unwrap(), [0, 1]);
    assert_eq!(lingers(&["a-b", "a_b"], &["integration.a-b.linger=1s"], &[]).unwrap(), [1, 0]);
    assert_eq!(lingers(&["a-b", "a_b"], &[], &[variable]).unwrap(), [0, 1]);
    let fault = lingers(&["a-b-c", "a_b-c"], &["integration.a_b_c.linger=1s"], &[]).unwrap_err();
    assert!(fault.to_string().contains("both \"a-b-c\" and \"a_b-c\" may be meant"), "{fault}");
}

#[test]
fn a_variable_is_ours_in_any_case_and_must_be_utf_8() {
    let config = with(&[], &[("pillarbox__Spool__keep_delivered", "7"), ("PILLARBOX_CONFIG", "x")]);
    assert_eq!(config.unwrap().spool.keep_delivered, 7);
    let fault = with(&[], &[("PILLARBOX__STATE_DIR", "/a\u{fffd}")]).unwrap_err().to_string();
    assert_eq!(fault, "environment PILLARBOX__STATE_DIR: not UTF-8");
}

#[test]
fn the_sockets_are_known_whatever_else_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("p.toml");
    let set = vec!["admin.socket=/tmp/a.sock".to_owned(), "nonsense".to_owned()];
    let source = Source { path: Some(path.clone()), set, ..Source::default() };
    for text in [None, Some("[ingest]\nsocket = \"/x/i.sock\"\n[spool]\nsinc = 1\n"), Some("x =")] {
        if let Some(text) = text {
            std::fs::write(&path, text).unwrap();
        }
        let found = sockets(&source);
        match text {
            None => assert_eq!(found, ("/run/pillarbox/ingest.sock".into(), "/tmp/a.sock".into())),
            Some("x =") => assert_eq!(found.0, Path::new("/run/pillarbox/ingest.sock")),
            Some(_) => assert_eq!(found, ("/x/i.sock".into(), "/tmp/a.sock".into())),
        }
    }
    assert!(parse(&path, WHOLE, &source).unwrap_err().to_string().ends_with("spool.sync=500ms"));
}
