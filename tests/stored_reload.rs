//! Stored integrations when something changes around them: the configuration file, their folder, overrides, another editor.
//! None of it takes one out of service, or sends its records elsewhere, without a word.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support;

use std::path::PathBuf;

use serde_json::{Value, json};
use support::{Answer, Host, Producer, Upstream, event, wait_until};

const KEY: &str = "canary-key-0123456789";

/// A host whose configuration file has no integration, and `state_dir` as given.
fn configure(host: &Host, state_dir: &str, more: &str) {
    let at = host.folder.path().display();
    let text = format!(
        "state_dir = \"{at}/{state_dir}\"\n[ingest]\nsocket = \"{at}/ingest.sock\"\n[admin]\nsocket = \"{at}/admin.sock\"\n[spool]\nmin_free_disk = \"0B\"\n{more}"
    );
    std::fs::write(host.config(), text).unwrap();
}

fn host() -> Host {
    let host = Host { folder: tempfile::tempdir().unwrap() };
    configure(&host, "state", "");
    host
}

fn integrations(host: &Host) -> PathBuf {
    host.folder.path().join("state/integrations")
}

/// One request to the admin socket, with more header lines.
fn ask(host: &Host, method: &str, path: &str, more: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut admin = Producer::connect(&host.folder.path().join("admin.sock"));
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{more}Content-Length: {length}\r\n\r\n");
    admin.raw(head.as_bytes(), body.as_bytes()).unwrap()
}

fn ok(host: &Host, method: &str, path: &str, body: &Value) -> Value {
    let answer = ask(host, method, path, "", body);
    assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
    answer.json()
}

fn draft(endpoint: &str) -> Value {
    json!({"api_key": KEY, "endpoint": endpoint, "linger": "10ms"})
}

fn send(host: &Host, id: &str) {
    let answer = Producer::connect(&host.ingest()).post("/v1/track", &event(id));
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn another_state_dir_waits_for_the_next_start_and_takes_nothing_out_of_service() {
    let upstream = Upstream::start(Some(KEY), &[]);
    let host = host();
    let daemon = host.start();
    ok(&host, "PUT", "/v1/integrations/uk", &draft(&upstream.url));
    configure(&host, "other", "");
    let told = ok(&host, "POST", "/v1/reload", &json!({}));
    assert_eq!((&told["needs_restart"][0], &told["removed"]), (&json!("state_dir"), &json!([])));
    send(&host, "a");
    wait_until("the delivery", || upstream.ids() == ["a"]);
    // What is stored later is stored where the daemon runs.
    ok(&host, "PUT", "/v1/integrations/de", &draft(&upstream.url));
    assert!(integrations(&host).join("de.toml").exists());
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_folder_that_cannot_be_read_stops_a_start_and_nothing_that_runs() {
    let upstream = Upstream::start(Some(KEY), &[]);
    let host = host();
    let daemon = host.start();
    for name in ["uk", "de"] {
        ok(&host, "PUT", &format!("/v1/integrations/{name}"), &draft(&upstream.url));
    }
    let (folder, away) = (integrations(&host), host.folder.path().join("away"));
    std::fs::rename(&folder, &away).unwrap();
    std::fs::write(&folder, "no folder").unwrap();
    // The file has one of their names by now: that one is the file's.
    let endpoint = &upstream.url;
    let in_the_file = format!(
        "[[integration]]\nname = \"de\"\napi_key = \"{KEY}\"\nendpoint = \"{endpoint}\"\nlinger = \"10ms\"\n"
    );
    configure(&host, "state", &in_the_file);
    let told = ok(&host, "POST", "/v1/reload", &json!({}));
    assert_eq!(told["removed"], json!([]), "{told}");
    let aside = told["set_aside"][0].as_str().unwrap();
    assert!(aside.contains("integrations cannot be read, and those that ran go on"), "{aside}");
    send(&host, "a");
    wait_until("a delivery for each", || upstream.ids() == ["a", "a"]);
    let (code, _, log) = daemon.stop();
    assert_eq!(code, Some(0));
    assert!(log.contains("ERROR the folder of the stored integrations cannot be read"), "{log}");

    // Also with an override for one that is stored, which is none of an unknown integration then.
    let command = host.command(&["--set", "integration.uk.batch=7"]);
    let (code, log) = Host::try_start_as(command).err().expect("it must not start");
    assert_eq!(code, Some(1), "to be tried again: {log}");
    assert!(
        log.contains("look for stored integrations") && log.contains("start it again"),
        "{log}"
    );
    std::fs::remove_file(&folder).unwrap();
    std::fs::rename(&away, &folder).unwrap();
    let daemon = host.start();
    send(&host, "b");
    wait_until("a delivery for each", || upstream.ids() == ["a", "a", "b", "b"]);
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn what_is_saved_goes_where_an_override_leads() {
    let (elsewhere, upstream) = (Upstream::start(Some(KEY), &[]), Upstream::start(Some(KEY), &[]));
    let host = host();
    let daemon = host.start();
    ok(&host, "PUT", "/v1/integrations/uk", &draft(&elsewhere.url));
    assert_eq!(daemon.stop().0, Some(0));
    let set = format!("integration.uk.endpoint={}", upstream.url);
    let daemon = Host::start_as(host.command(&["--set", &set]));
    let mut changed = draft(&elsewhere.url);
    changed["linger"] = json!("20ms");
    let tested = json!({"draft": {"name": "uk", "endpoint": elsewhere.url, "linger": "20ms"}});
    let told = ok(&host, "POST", "/v1/test-delivery", &tested);
    assert_eq!(told["outcome"], "delivered", "{told}");
    let saved = ok(&host, "PUT", "/v1/integrations/uk", &changed);
    assert_eq!(saved["reloaded"]["changed"], json!(["uk"]));
    send(&host, "a");
    wait_until("the delivery", || upstream.ids().len() == 2 && upstream.ids()[1] == "a");
    assert_eq!(elsewhere.handle.pushes().len(), 0, "the key went elsewhere");
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn the_later_of_two_editors_undoes_nothing_without_knowing() {
    let upstream = Upstream::start(Some(KEY), &[]);
    let host = host();
    let daemon = host.start();
    let path = "/v1/integrations/uk";
    let of = |batch: u32| {
        let mut draft = draft(&upstream.url);
        draft["batch"] = json!(batch);
        draft
    };
    let put = |condition: &str, batch: u32| {
        let answer = ask(&host, "PUT", path, condition, &of(batch));
        (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned())
    };
    let (saved, changed) = ((200, String::new()), (409, "changed_meanwhile".to_owned()));
    let invalid = (400, "invalid_request".to_owned());
    let batch = || ok(&host, "GET", path, &Value::Null)["settings"]["batch"].as_u64().unwrap();
    let version = || {
        let answer = ask(&host, "GET", path, "", &Value::Null);
        let version = answer.json()["version"].as_str().unwrap().to_owned();
        assert!(answer.head.contains(&format!("etag: \"{version}\"")), "{answer:?}");
        format!("If-Match: \"{version}\"\r\n")
    };
    let new = "If-None-Match: *\r\n";
    assert_eq!(put("If-Match: \"0123\"\r\n", 1), changed, "it is not there");
    assert_eq!(put(new, 1), saved);
    assert_eq!((put(new, 2), batch()), (changed.clone(), 1));
    let seen = version();
    assert_eq!((put(&seen, 3), batch()), (saved.clone(), 3));
    assert_eq!((put(&seen, 4), batch()), (changed.clone(), 3), "the second editor");
    assert_eq!((put("", 5), batch()), (saved.clone(), 5), "the last writer wins");
    for unclear in
        ["If-Match: *\r\n", "If-Match: 12\r\n", "If-Match: \"\"\r\n", "If-None-Match: \"1\"\r\n"]
    {
        assert_eq!(put(unclear, 6), invalid, "{unclear}");
    }
    // A restart changes no version, an edited file does.
    let seen = version();
    assert_eq!(daemon.stop().0, Some(0));
    let daemon = host.start();
    assert_eq!(version(), seen);
    let file = integrations(&host).join("uk.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("batch = 5", "batch = 7")).unwrap();
    assert_eq!((put(&seen, 8), batch()), (changed, 5));
    ok(&host, "POST", "/v1/reload", &json!({}));
    assert_eq!((put(&version(), 8), batch()), (saved, 8));
    assert_eq!(daemon.stop().0, Some(0));
}
