//! The commands as a user meets them: exit codes, messages, and what they do to a running daemon.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::process::{Command, Stdio};

use support::{Host, Producer, Upstream, event, wait_until};

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
    let output =
        command.args(arguments).env_remove("RUST_BACKTRACE").stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn exit_codes_say_what_kind_of_trouble_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("p.toml");
    let config = config.to_str().unwrap();
    let (code, _, error) = run(&["run", "--config", config]);
    assert_eq!(code, Some(78), "{error}");
    assert!(error.contains("p.toml") && error.contains("pillarbox demo"), "{error}");
    std::fs::write(config, "lingr = 1\n[spool]\nsync = \"soon\"\n").unwrap();
    let (code, _, error) = run(&["run", "--config", config]);
    assert_eq!(code, Some(78));
    assert!(
        error.contains("p.toml:1:1") && error.contains("p.toml:3:1") && error.contains("2 faults"),
        "{error}"
    );
    let (code, _, error) = run(&["check", "--config", config]);
    assert_eq!((code, error.matches("p.toml").count()), (Some(1), 2), "{error}");
    let admin = format!("admin.socket={}/admin.sock", folder.path().display());
    let (code, _, error) = run(&["status", "--config", config, "--set", &admin]);
    assert_eq!(code, Some(69), "{error}");
    assert!(error.contains("admin.sock") && error.contains("is the daemon running?"), "{error}");
    assert_eq!(run(&["nonsense"]).0, Some(2));
    assert_eq!(run(&["--help"]).0, Some(0));
}

#[test]
fn the_demo_shows_the_whole_way_and_ends_with_0() {
    let (code, out, error) = run(&["demo"]);
    assert_eq!(code, Some(0), "{out}{error}");
    for part in ["Order Completed", "acknowledged", "quarantined", "All as promised"] {
        assert!(out.contains(part), "{part}\n{out}");
    }
    assert!(!out.contains('\x1b'), "colour without a terminal");
}

#[test]
fn map_shows_what_events_become() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("events.ndjson");
    let events = [
        r#"{"type":"identify","userId":"u","traits":{"email":"x@y.z"}}"#,
        r#"{"type":"track","userId":"u","event":"Product Viewed","messageId":"m","timestamp":"2026-06-06T15:32:52Z","properties":{"price":79.00}}"#,
        r#"{"type":"track","event":"Nap Taken"}"#,
    ];
    std::fs::write(&file, events.join("\n")).unwrap();
    let file = file.to_str().unwrap();
    let (code, out, _) = run(&["map", "--preset", "retail", "--json", file]);
    assert_eq!(code, Some(0), "{out}");
    let record = "{\"@type\":\"custom_event\",\"id\":\"m\",\"timestamp\":\"2026-06-06T15:32:52+00:00\",\"event_type\":\"product_viewed\",\
         \"identity_email\":\"x@y.z\",\"properties\":{\"product_price\":79.00}}";
    assert!(out.contains(&format!("\"record\":{record}}}\n")), "{out}");
    let (code, out, _) = run(&["map", "--preset", "retail", file]);
    assert_eq!(code, Some(0), "{out}");
    for part in [
        "line 2  track \"Product Viewed\"\n  sent by preset retail\n    note: older than four hours\n",
        "\n      \"event_type\": \"product_viewed\",\n",
        "\n        \"product_price\": 79.00\n",
        "line 3  track \"Nap Taken\"\n  dropped (no_mapping): preset retail does not send it",
        "3 events: 1 dropped (no_mapping), 1 identity, 1 record\nolder than four hours (1): ",
    ] {
        assert!(out.contains(part), "{part}\n{out}");
    }
    assert!(!out.contains('\x1b'), "colour without a terminal");
    std::fs::write(file, "{\"type\":\"track\"}\nnonsense\n").unwrap();
    let (code, out, _) = run(&["map", "--preset", "retail", file]);
    assert_eq!((code, out.matches("invalid: ").count()), (Some(1), 2), "{out}");
    assert!(out.contains("line 1\n") && out.contains("line 2\n"), "{out}");
}

#[test]
fn send_hands_over_every_line_and_tells_the_bad_ones() {
    let upstream = Upstream::start(None, &[]);
    let host = Host::new(&upstream.url, "key", "");
    let daemon = host.start();
    let file = host.folder.path().join("events.ndjson");
    let mut lines: Vec<String> = (0..250).map(|n| event(&format!("e-{n}"))).collect();
    lines.insert(100, "nonsense".into());
    lines.push(r#"{"type":"track"}"#.into());
    lines.push(r#"{"type":"group","groupId":"g"}"#.into());
    std::fs::write(&file, lines.join("\n")).unwrap();
    let output = host.pillarbox(&["send", file.to_str().unwrap()]);
    let (out, error) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert_eq!(
        out,
        "250 accepted, 0 seen before, 1 dropped (no_mapping 1), 1 quarantined, 1 invalid lines\n"
    );
    assert!(
        error.contains("events.ndjson:101: no JSON")
            && error.contains("events.ndjson:252: quarantined"),
        "{error}"
    );
    wait_until("all deliveries", || upstream.handle.counters().records_accepted == 250);
    let again = host.pillarbox(&["send", file.to_str().unwrap()]);
    assert!(String::from_utf8(again.stdout).unwrap().starts_with("0 accepted, 250 seen before"));
    assert_eq!(daemon.stop().0, Some(0));
}

/// A full spool answers 503; `send` waits, and goes on when there is room.
#[test]
fn send_resumes_after_a_503() {
    let upstream = Upstream::start(None, &["status=503"]);
    let host = Host::new(&upstream.url, "key", "");
    let mut text = std::fs::read_to_string(host.config()).unwrap();
    text = text.replace("[spool]\n", "[spool]\nmax_records = 150\n");
    std::fs::write(host.config(), text).unwrap();
    let daemon = host.start();
    let file = host.folder.path().join("events.ndjson");
    let lines: Vec<String> = (0..400).map(|n| event(&format!("e-{n}"))).collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
    command.arg("send").arg("--config").arg(host.config()).arg(&file);
    let sending =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("a refusal", || {
        host.status()["ingest"]["requests_refused"]["spool_full"]
            .as_u64()
            .is_some_and(|count| count > 0)
    });
    let refused = Producer::connect(&host.ingest())
        .post("/v1/batch", &format!("[{}]", lines[..100].join(",").replace("e-", "f-")));
    assert_eq!(refused.status, 503);
    assert!(
        refused.head.to_ascii_lowercase().contains("retry-after: ")
            && refused.body.contains("spool_full"),
        "{refused:?}"
    );
    upstream.handle.clear_faults();
    let output = sending.wait_with_output().unwrap();
    let (out, error) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{out}{error}");
    assert!(
        out.starts_with("400 accepted") && error.contains("waiting for the daemon"),
        "{out}{error}"
    );
    host.wait_until_settled();
    assert_eq!(upstream.ids(), (0..400).map(|n| format!("e-{n}")).collect::<Vec<_>>());
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn events_in_the_quarantine_are_listed_exported_dropped_and_retried() {
    let upstream = Upstream::start(None, &[]);
    let host = Host::new(&upstream.url, "key", "");
    let daemon = host.start();
    let mut producer = Producer::connect(&host.ingest());
    let taken =
        producer.post("/v1/batch", r#"[{"type":"track"},{"type":"page","messageId":"p"},7]"#);
    assert_eq!(
        (taken.json()["accepted"].as_u64(), taken.json()["quarantined"].as_u64()),
        (Some(1), Some(2))
    );
    let text = |arguments: &[&str]| String::from_utf8(host.pillarbox(arguments).stdout).unwrap();
    assert!(text(&["quarantine", "list"]).contains("invalid_event"));
    let exported = text(&["quarantine", "export"]);
    let bodies: Vec<serde_json::Value> = exported
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["body"].clone())
        .collect();
    assert_eq!(bodies, [serde_json::json!({"type": "track"}), serde_json::json!(7)]);
    let retried = host.pillarbox(&["quarantine", "retry", "1"]);
    assert_eq!(retried.status.code(), Some(1));
    let error = String::from_utf8(retried.stderr).unwrap();
    assert!(error.contains("entry 1 stays") && error.contains("event is missing"), "{error}");
    assert_eq!(
        host.pillarbox(&["quarantine", "drop", "--all"]).status.code(),
        Some(1),
        "nobody said yes"
    );
    assert_eq!(text(&["quarantine", "drop", "1", "2"]), "2 removed for good\n");
    assert_eq!(text(&["quarantine", "list"]), "the quarantine is empty\n");
    assert_eq!(daemon.stop().0, Some(0));
}

/// Whoever asks for a reload with a broken configuration must not end the daemon by it.
#[test]
fn a_hangup_ends_nothing_and_is_answered_in_the_log() {
    let upstream = Upstream::start(None, &[]);
    let host = Host::new(&upstream.url, "key", "");
    let daemon = host.start();
    std::fs::write(host.config(), "nonsense").unwrap();
    daemon.hang_up();
    assert_eq!(Producer::connect(&host.ingest()).post("/v1/page", "{}").status, 200);
    let (code, _, log) = daemon.stop();
    assert_eq!(code, Some(0));
    assert!(log.contains("was not reloaded: the old one stays in force"), "{log}");
}

#[test]
fn a_second_daemon_is_told_who_is_in_the_way() {
    let upstream = Upstream::start(None, &[]);
    let host = Host::new(&upstream.url, "key", "");
    let daemon = host.start();
    let second = host.pillarbox(&["run"]);
    let error = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{error}");
    assert!(
        error.contains("in use by another process (pid") && error.contains("stop it first"),
        "{error}"
    );
    let check = host.pillarbox(&["check"]);
    assert_eq!(check.status.code(), Some(0), "{check:?}");
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn manual_and_completions_come_from_the_commands_themselves() {
    let (code, page, _) = run(&["man"]);
    assert_eq!(code, Some(0));
    for part in [".TH pillarbox 1", "quarantine", "Exit codes"] {
        assert!(page.contains(part), "{part}");
    }
    let folder = tempfile::tempdir().unwrap();
    let (code, _, error) = run(&["man", "--dir", folder.path().to_str().unwrap()]);
    assert_eq!(code, Some(0), "{error}");
    for name in ["pillarbox.1", "pillarbox-run.1", "pillarbox-quarantine-retry.1"] {
        assert!(folder.path().join(name).exists(), "{name}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, _) = run(&["completions", shell]);
        assert_eq!(code, Some(0));
        assert!(script.contains("retry-now") && script.contains("pillarbox"), "{shell}");
    }
    assert_eq!(run(&["completions", "tcsh"]).0, Some(2));
}
