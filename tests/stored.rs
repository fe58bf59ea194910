//! Integrations made while the daemon runs: over its admin socket and by `pillarbox integration`, with the real daemon, disk and
//! simulator. What is added is delivered and outlasts a restart and a kill; no key is told anywhere.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use support::{Answer, Daemon, Host, Producer, Upstream, event, wait_until};

const KEY: &str = "canary-key-0123456789";
const OTHER_KEY: &str = "canary-key-9876543210";

/// A host whose configuration file has these integrations: name, key and endpoint.
fn host(integrations: &[(&str, &str, &str)]) -> Host {
    let host = Host { folder: tempfile::tempdir().unwrap() };
    configure(&host, integrations);
    host
}

fn configure(host: &Host, integrations: &[(&str, &str, &str)]) {
    let at = host.folder.path().display();
    let mut text = format!(
        "state_dir = \"{at}/state\"\n[ingest]\nsocket = \"{at}/ingest.sock\"\n[admin]\nsocket = \"{at}/admin.sock\"\n[spool]\nmin_free_disk = \"0B\"\n"
    );
    for (name, key, endpoint) in integrations {
        let integration = format!(
            "[[integration]]\nname = \"{name}\"\napi_key = \"{key}\"\nendpoint = \"{endpoint}\"\nlinger = \"10ms\"\n"
        );
        text.push_str(&integration);
    }
    std::fs::write(host.config(), text).unwrap();
}

fn file(host: &Host, name: &str) -> PathBuf {
    host.folder.path().join("state/integrations").join(format!("{name}.toml"))
}

/// One request to the admin socket.
fn ask(host: &Host, method: &str, path: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut admin = Producer::connect(&host.folder.path().join("admin.sock"));
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    let answer = admin.raw(head.as_bytes(), body.as_bytes()).unwrap();
    let told = &answer.body;
    assert!(!told.contains("canary"), "{method} {path} tells a key: {told}");
    answer
}

/// The same; it must be answered 200.
fn ok(host: &Host, method: &str, path: &str, body: &Value) -> Value {
    let answer = ask(host, method, path, body);
    assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
    answer.json()
}

/// The same; it must be refused with this status and code.
fn refused(host: &Host, method: &str, path: &str, body: &Value, as_what: (u16, &str)) -> Value {
    let answer = ask(host, method, path, body);
    let told = answer.json();
    assert_eq!((answer.status, told["code"].as_str().unwrap()), as_what, "{answer:?}");
    told
}

fn draft(endpoint: &str) -> Value {
    json!({"api_key": KEY, "endpoint": endpoint, "linger": "10ms", "retry": {"initial": "10ms", "max": "50ms"}})
}

/// Runs a command with `input`; what it prints holds no key.
fn run(host: &Host, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
    command.args(arguments).arg("--config").arg(host.config()).env_remove("RUST_LOG");
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    // A command that needs no input may have ended.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    assert!(!said(&output).contains("canary"), "{arguments:?} tells a key: {output:?}");
    output
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

fn send(host: &Host, id: &str) {
    let answer = Producer::connect(&host.ingest()).post("/v1/track", &event(id));
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// What the list says of an integration.
fn listed(host: &Host, name: &str) -> Value {
    let list = ok(host, "GET", "/v1/integrations", &Value::Null);
    let mut known = list["integrations"].as_array().unwrap().iter();
    known.find(|known| known["name"] == name).cloned().unwrap_or_default()
}

fn queued(host: &Host, name: &str) -> Option<u64> {
    let status = host.status();
    let mut known = status["integrations"].as_array().unwrap().iter();
    known.find(|known| known["name"] == name)?["lane"]["queued_records"].as_u64()
}

/// Stops a daemon; its log holds no key.
fn stop(daemon: Daemon) -> String {
    let (code, _, log) = daemon.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("canary"), "{log}");
    log
}

/// Files under `folder` that hold `text`.
fn holding(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, text));
        } else if let Ok(bytes) = std::fs::read(&path)
            && bytes.windows(text.len()).any(|window| window == text.as_bytes())
        {
            found.push(path);
        }
    }
    found
}

#[test]
fn an_integration_is_added_changed_and_removed_and_its_queue_outlasts_all_of_it() {
    let upstream = Upstream::start(Some(KEY), &[]);
    let host = host(&[]);
    let daemon = host.start();
    // Without any, events would end nowhere.
    let answer = Producer::connect(&host.ingest()).post("/v1/track", &event("lost"));
    assert_eq!((answer.status, answer.json()["code"].as_str().unwrap()), (503, "no_integration"));
    assert!(answer.head.to_ascii_lowercase().contains("retry-after"), "{answer:?}");

    let saved = ok(&host, "PUT", "/v1/integrations/uk", &draft(&upstream.url));
    assert_eq!((&saved["created"], &saved["reloaded"]["added"]), (&json!(true), &json!(["uk"])));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let path = file(&host, "uk");
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    send(&host, "a");
    wait_until("the first delivery", || upstream.ids() == ["a"]);

    // Without a key it is kept: the change is delivered with it, and a restart finds both.
    let known = listed(&host, "uk");
    assert_eq!((&known["origin"]["from"], &known["key"]), (&json!("stored"), &json!("set")));
    let mut given = known["given"].clone();
    given["events"] = json!({"Product Viewed": {"event_type": "viewed"}});
    let saved = ok(&host, "PUT", "/v1/integrations/uk", &given);
    assert_eq!((&saved["created"], &saved["reloaded"]["changed"]), (&json!(false), &json!(["uk"])));
    stop(daemon);
    let daemon = host.start();
    send(&host, "b");
    wait_until("the second delivery", || upstream.ids() == ["a", "b"]);
    assert_eq!(upstream.handle.records()[1].event_type.as_deref(), Some("viewed"));

    // Removed with a queue: nobody delivers it, until it is there again.
    ok(&host, "POST", "/v1/pause", &json!({"integration": "uk"}));
    send(&host, "c");
    assert_eq!(ok(&host, "DELETE", "/v1/integrations/uk", &Value::Null)["removed"], json!(["uk"]));
    assert!(!path.exists() && queued(&host, "uk") == Some(1));
    assert_eq!(holding(host.folder.path(), KEY), Vec::<PathBuf>::new());
    refused(&host, "DELETE", "/v1/integrations/uk", &Value::Null, (404, "not_found"));
    refused(&host, "GET", "/v1/integrations/uk", &Value::Null, (404, "not_found"));
    ok(&host, "PUT", "/v1/integrations/uk", &draft(&upstream.url));
    ok(&host, "POST", "/v1/resume", &json!({}));
    wait_until("the kept queue", || upstream.ids() == ["a", "b", "c"]);
    stop(daemon);
}

#[test]
fn a_draft_at_fault_and_a_name_of_the_file_are_refused_and_change_nothing() {
    let upstream = Upstream::start(None, &[]);
    let host = host(&[("uk", KEY, &upstream.url)]);
    let daemon = host.start();
    let told = refused(
        &host,
        "PUT",
        "/v1/integrations/de",
        &json!({"api_key": OTHER_KEY, "linger": "soon", "lingr": 1, "events": {"E": {"event_typ": KEY}}}),
        (400, "invalid_integration"),
    );
    let paths: Vec<&str> =
        told["faults"].as_array().unwrap().iter().map(|it| it["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["linger", "lingr", "events.E.event_typ"], "{told}");
    for (method, path, body, status, code) in [
        ("PUT", "/v1/integrations/uk", draft(&upstream.url), 409, "in_the_file"),
        ("DELETE", "/v1/integrations/uk", Value::Null, 409, "in_the_file"),
        ("PUT", "/v1/integrations/UK", draft(&upstream.url), 400, "invalid_integration"),
        ("PUT", "/v1/integrations/..", draft(&upstream.url), 400, "invalid_integration"),
        ("PUT", "/v1/integrations/de", json!({}), 400, "invalid_integration"),
        ("PUT", "/v1/integrations/de", json!([KEY]), 400, "invalid_request"),
        ("POST", "/v1/integrations/de", json!({}), 405, "method_not_allowed"),
        ("GET", "/v1/preview", Value::Null, 405, "method_not_allowed"),
        ("POST", "/v1/test-delivery", json!({"integration": "fr"}), 404, "not_found"),
        ("POST", "/v1/test-delivery", json!({}), 400, "invalid_request"),
        ("POST", "/v1/test-delivery", json!({"draft": {}}), 400, "invalid_integration"),
        ("POST", "/v1/preview", json!({"integration": "uk"}), 400, "invalid_request"),
    ] {
        refused(&host, method, path, &body, (status, code));
    }
    assert!(!file(&host, "de").parent().unwrap().exists());

    // Who has never seen a key cannot have it sent elsewhere.
    ok(&host, "PUT", "/v1/integrations/de", &draft(&upstream.url));
    let elsewhere = json!({"name": "de", "endpoint": format!("{}/elsewhere", upstream.url)});
    let told =
        refused(&host, "PUT", "/v1/integrations/de", &elsewhere, (400, "invalid_integration"));
    assert_eq!(told["faults"][0]["path"], "api_key", "{told}");
    let tested = json!({"draft": elsewhere});
    refused(&host, "POST", "/v1/test-delivery", &tested, (400, "invalid_integration"));
    assert_eq!(upstream.handle.pushes().len(), 0);

    // The file wins as soon as it has the name, and what is stored can be removed then.
    configure(&host, &[("uk", KEY, &upstream.url), ("de", OTHER_KEY, &upstream.url)]);
    let reloaded = run(&host, &["reload"], "");
    assert!(
        said(&reloaded).contains("set aside: de: the stored integration is overruled"),
        "{reloaded:?}"
    );
    assert!(said(&run(&host, &["status"], "")).contains("overruled"));
    let check = run(&host, &["check"], "");
    assert!(check.status.success() && said(&check).contains("is overruled"), "{check:?}");
    ok(&host, "DELETE", "/v1/integrations/de", &Value::Null);
    assert_eq!(listed(&host, "de")["origin"]["from"], "file");
    let log = stop(daemon);
    assert!(log.contains("WARN a stored integration is overruled"), "{log}");
}

#[test]
fn a_preview_shows_what_events_become_and_stores_nothing() {
    let upstream = Upstream::start(None, &[]);
    let host = host(&[("uk", KEY, &upstream.url)]);
    let daemon = host.start();
    let identify = r#"{"userId":"u","traits":{"email":"jane.doe@example.com"}}"#;
    assert_eq!(Producer::connect(&host.ingest()).post("/v1/identify", identify).status, 200);
    let draft = json!({"preset": "default", "consent": ["marketing"],
        "events": {"Nap Taken": {"event_type": "nap", "properties": {"cost": "properties.price"}}}});
    let granted = json!({"consent": {"marketing": true}});
    let events = json!([
        {"type": "track", "userId": "u", "event": "Nap Taken", "properties": {"price": 79}, "context": granted},
        {"type": "track", "event": "Nap Taken"},
        {"type": "identify", "userId": "v", "traits": {"email": "joe@example.com"}},
        {"type": "page", "userId": "v", "context": granted},
        {"type": "track"},
    ]);
    let told = ok(&host, "POST", "/v1/preview", &json!({"draft": draft, "events": events}));
    let told = told["events"].as_array().unwrap();
    let outcomes: Vec<&str> = told.iter().map(|told| told["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["record", "dropped", "identity", "record", "invalid"], "{told:?}");
    let record = &told[0]["record"];
    assert_eq!(
        (&record["event_type"], &record["identity_email"], &record["properties"]["cost"]),
        (&json!("nap"), &json!("jane.doe@example.com"), &json!(79))
    );
    assert_eq!(told[0]["rule"], "[integration.events.\"Nap Taken\"]");
    assert!(told[1]["detail"].as_str().unwrap().contains("\"marketing\" is not stated"));
    assert_eq!(told[3]["record"]["identity_email"], "joe@example.com");
    // One event, and the rules of an integration.
    let one = json!({"integration": "uk", "events": {"type": "track", "event": "Nap Taken"}});
    let told = ok(&host, "POST", "/v1/preview", &one);
    assert_eq!(told["events"][0]["reason"], "no_mapping");
    assert_eq!((queued(&host, "uk"), upstream.handle.pushes().len()), (Some(0), 0));
    stop(daemon);
}

#[test]
fn a_test_delivery_tells_what_the_answer_means_and_leaves_the_queue_alone() {
    let upstream = Upstream::start(Some(KEY), &[]);
    let host = host(&[("uk", OTHER_KEY, &upstream.url)]);
    let daemon = host.start();
    ok(&host, "POST", "/v1/pause", &json!({}));
    send(&host, "queued");
    let told = ok(&host, "POST", "/v1/test-delivery", &json!({"integration": "uk"}));
    assert_eq!((&told["outcome"], &told["status"]), (&json!("unauthorized"), &json!(403)));
    assert!(told["message"].as_str().unwrap().contains("Settings > API keys"), "{told}");

    let mut good = draft(&upstream.url);
    good["consent"] = json!(["marketing"]);
    let told = ok(&host, "POST", "/v1/test-delivery", &json!({"draft": good}));
    assert_eq!((&told["outcome"], &told["status"]), (&json!("delivered"), &json!(202)), "{told}");
    let id = told["record_id"].as_str().unwrap();
    assert!(id.starts_with("test_") && upstream.ids() == [id], "{told}");
    assert!(told["advice"][0].as_str().unwrap().contains("Settings > Custom events"), "{told}");
    assert!(
        told["request_id"].is_string() && told["answer"].as_str().unwrap().contains("accepted")
    );
    // An event of one's own, whose id is not used; one that the mapping drops is not sent.
    let own =
        json!({"type": "page", "messageId": "mine", "context": {"consent": {"marketing": true}}});
    let told = ok(&host, "POST", "/v1/test-delivery", &json!({"draft": good, "event": own}));
    assert_eq!(told["mapped"]["record"]["event_type"], "page_view");
    let told =
        ok(&host, "POST", "/v1/test-delivery", &json!({"draft": good, "event": {"type": "page"}}));
    assert_eq!(told["outcome"], "not_sent");
    assert!(told["message"].as_str().unwrap().contains("\"marketing\" is not stated"), "{told}");
    let mut nowhere = draft("http://127.0.0.1:1/v2/push");
    nowhere["timeout"] = json!("5s");
    let told = ok(&host, "POST", "/v1/test-delivery", &json!({"draft": nowhere}));
    assert_eq!(
        (&told["outcome"], &told["status"]),
        (&json!("unreachable"), &Value::Null),
        "{told}"
    );
    assert_eq!((upstream.ids().len(), queued(&host, "uk")), (2, Some(1)));
    assert!(!upstream.ids().contains(&"mine".to_owned()));
    stop(daemon);
}

#[test]
fn one_test_delivery_at_a_time() {
    let upstream = Upstream::start(None, &["hang,count=1"]);
    let host = host(&[("uk", KEY, &upstream.url)]);
    let daemon = host.start();
    let mut slow = draft(&upstream.url);
    slow["timeout"] = json!("1s");
    std::thread::scope(|scope| {
        let hanging =
            scope.spawn(|| ok(&host, "POST", "/v1/test-delivery", &json!({"draft": slow})));
        wait_until("a push", || upstream.handle.pushes().len() == 1 || hanging.is_finished());
        let other = json!({"integration": "uk"});
        refused(&host, "POST", "/v1/test-delivery", &other, (409, "busy"));
        let told = hanging.join().unwrap();
        assert_eq!(told["outcome"], "unreachable", "{told}");
        assert!(told["message"].as_str().unwrap().contains("no answer within 1s"), "{told}");
    });
    stop(daemon);
}

#[test]
fn a_broken_stored_file_is_told_everywhere_and_stops_nothing_else() {
    let upstream = Upstream::start(None, &[]);
    let host = host(&[("uk", KEY, &upstream.url)]);
    let daemon = host.start();
    for name in ["de", "fr"] {
        ok(&host, "PUT", &format!("/v1/integrations/{name}"), &draft(&upstream.url));
    }
    let text = std::fs::read_to_string(file(&host, "de")).unwrap();
    std::fs::write(file(&host, "de"), format!("{text}batch = 0\n")).unwrap();
    // What runs goes on.
    let told = said(&run(&host, &["reload"], ""));
    assert!(
        told.contains("set aside: de:") && told.contains("it goes on with what it ran with"),
        "{told}"
    );
    send(&host, "a");
    wait_until("three deliveries", || upstream.ids() == ["a", "a", "a"]);
    stop(daemon);

    // A start goes without it.
    let daemon = host.start();
    let known = listed(&host, "de");
    assert_eq!((&known["standing"], &known["key"]), (&json!("broken"), &json!("not_set")));
    assert!(known["faults"][0]["message"].as_str().unwrap().contains("`batch` must be"), "{known}");
    let status = said(&run(&host, &["status"], ""));
    assert!(
        status.contains("set aside  de: its stored file") && status.contains("it is not delivered"),
        "{status}"
    );
    let check = run(&host, &["check"], "");
    assert!(
        !check.status.success() && said(&check).contains("de.toml:7:1: `batch` must be"),
        "{check:?}"
    );
    send(&host, "b");
    wait_until("two deliveries", || upstream.ids().iter().filter(|id| *id == "b").count() == 2);
    // Saved anew, with the key that could still be read.
    ok(&host, "PUT", "/v1/integrations/de", &json!({"endpoint": upstream.url, "linger": "10ms"}));
    send(&host, "c");
    wait_until("three deliveries", || upstream.ids().iter().filter(|id| *id == "c").count() == 3);
    let log = stop(daemon);
    assert!(log.contains("ERROR a stored integration has faults"), "{log}");
}

#[test]
fn a_kill_before_the_rename_leaves_what_was_stored_and_no_half_written_key() {
    let upstream = Upstream::start(None, &[]);
    let host = host(&[]);
    let daemon = host.start();
    ok(&host, "PUT", "/v1/integrations/uk", &draft(&upstream.url));
    stop(daemon);
    let before = std::fs::read(file(&host, "uk")).unwrap();
    let mut command = host.command(&[]);
    command.env("PILLARBOX_KILL_AT", "integration-written:1");
    let daemon = Host::start_as(command);
    let mut changed = draft(&upstream.url);
    changed["api_key"] = json!(OTHER_KEY);
    let mut admin = Producer::connect(&host.folder.path().join("admin.sock"));
    let body = changed.to_string();
    let head = format!(
        "PUT /v1/integrations/uk HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    assert!(admin.raw(head.as_bytes(), body.as_bytes()).is_err(), "it was killed");
    let (code, log) = daemon.wait();
    assert_eq!(code, None, "killed by a signal:\n{log}");
    assert_eq!(holding(host.folder.path(), OTHER_KEY), [file(&host, "uk").with_extension("tmp")]);
    let daemon = host.start();
    assert_eq!(std::fs::read(file(&host, "uk")).unwrap(), before);
    assert_eq!(holding(host.folder.path(), OTHER_KEY), Vec::<PathBuf>::new());
    send(&host, "a");
    wait_until("a delivery", || upstream.ids() == ["a"]);
    stop(daemon);
}

#[test]
fn the_command_adds_changes_tests_and_removes() {
    let upstream = Upstream::start(Some(KEY), &[]);
    let host = host(&[]);
    let daemon = host.start();
    let add = ["integration", "add", "uk", "--endpoint", &upstream.url, "--setting", "linger=10ms"];
    let added = run(&host, &add, &format!("{KEY}\n"));
    assert!(added.status.success() && said(&added).starts_with("uk: added"), "{added:?}");
    // A change keeps what it does not name; standard input is not asked for the key then.
    let changed =
        run(&host, &["integration", "add", "uk", "--preset", "default", "--consent", "a"], "");
    assert!(said(&changed).starts_with("uk: changed"), "{changed:?}");
    let shown = said(&run(&host, &["integration", "show", "uk"], ""));
    for part in ["stored in", "linger = \"10ms\"", "preset = \"default\"", "consent = [\"a\"]"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let list = said(&run(&host, &["integration", "list"], ""));
    assert!(list.contains("uk") && list.contains("stored"), "{list}");
    let tested = run(&host, &["integration", "test", "uk"], "");
    assert!(tested.status.success() && said(&tested).starts_with("delivered  202"), "{tested:?}");
    let tested =
        run(&host, &["integration", "test", "uk", "--event", "-", "--json"], r#"{"type":"page"}"#);
    assert!(tested.status.code() == Some(1) && said(&tested).contains("not_sent"), "{tested:?}");
    let wrong =
        run(&host, &["integration", "add", "uk", "--setting", "batch=0", "--preset", "x"], "");
    assert!(said(&wrong).contains("the integration has 2 faults:\n"), "{wrong:?}");
    assert_eq!(wrong.status.code(), Some(1));

    // From a file that names the file of its key.
    let (key, from) = (host.folder.path().join("de.key"), host.folder.path().join("de.toml"));
    std::fs::write(&key, format!("{KEY}\n")).unwrap();
    let endpoint = &upstream.url;
    std::fs::write(&from, format!("[[integration]]\nname = \"x\"\napi_key_file = {key:?}\nendpoint = {endpoint:?}\n[integration.events.page]\nenabled = false\n")).unwrap();
    let from = from.display().to_string();
    let added = run(&host, &["integration", "add", "de", "--from", &from], "");
    assert!(added.status.success(), "{added:?}");
    let effective = said(&run(&host, &["check", "--effective"], ""));
    assert!(
        effective.contains("# stored in") && effective.contains("[integration.events.\"page\"]"),
        "{effective}"
    );
    let mapped = run(&host, &["map", "-", "--json"], r#"{"type":"page"}"#);
    assert!(
        said(&mapped).contains("\"integration\":\"de\"") && said(&mapped).contains("disabled"),
        "{mapped:?}"
    );

    for name in ["uk", "de"] {
        let removed = run(&host, &["integration", "remove", name], "");
        assert!(removed.status.success() && said(&removed).contains("removed"), "{removed:?}");
    }
    let none = said(&run(&host, &["integration", "list"], ""));
    assert!(none.contains("no integration is configured"), "{none}");
    stop(daemon);
}
