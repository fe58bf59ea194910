//! A person is erased: from identities, quarantine and queue, for good, and nobody else with them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use serde_json::json;
use support::{Host, Producer, Upstream};

fn track(id: &str, who: &str) -> String {
    format!(r#"{{"type":"track","event":"Product Viewed","messageId":"{id}",{who}}}"#)
}

fn post(host: &Host, path: &str, body: &str) -> serde_json::Value {
    let answer = Producer::connect(&host.ingest()).post(path, body);
    assert!([200, 202].contains(&answer.status), "{}", answer.body);
    answer.json()
}

fn erase(host: &Host, arguments: &[&str]) -> serde_json::Value {
    let output = host.pillarbox(&[&["erase", "--json"], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Goal: by address or by user id, everything that is known to be that person goes, whether it was mapped or handed over
/// ready; nobody else's does, nor what comes afterwards; and a `kill -9` brings nothing back.
#[test]
fn a_person_is_erased_and_stays_so() {
    for named in [["--email", "jane@X"], ["--user", "jane"]] {
        let upstream = Upstream::start(None, &["status=503"]);
        let host = Host::new(&upstream.url, "key", "");
        let daemon = host.start();
        let jane = [
            track("before", r#""userId":"jane""#),
            r#"{"type":"identify","userId":"jane","anonymousId":"web","traits":{"email":"Jane@x"}}"#
                .to_owned(),
            r#"{"type":"identify","userId":"bob","traits":{"email":"bob@x"}}"#.to_owned(),
            track("bob-1", r#""userId":"bob""#),
            track("device", r#""anonymousId":"web""#),
            track("mail", r#""traits":{"email":" JANE@x"}"#),
            track("bob-2", r#""userId":"bob""#),
            // Not valid, and hers, or his.
            r#"{"type":"track","messageId":"q-1","userId":"jane"}"#.to_owned(),
            r#"{"type":"track","messageId":"q-2","userId":"bob"}"#.to_owned(),
        ];
        let taken = post(&host, "/v1/batch", &format!("[{}]", jane.join(",")));
        assert_eq!((&taken["accepted"], &taken["quarantined"]), (&json!(7), &json!(2)));
        let order =
            |id: &str, email: &str| format!(r#"{{"@type":"order","id":"{id}","email":"{email}"}}"#);
        let orders = [order("o-jane", "jane@x"), order("o-bob", "bob@x")];
        post(&host, "/v2/push", &format!("[{}]", orders.join(",")));

        let erased = erase(&host, &named);
        assert_eq!(erased, json!({"identities": 2, "quarantined": 1, "queued": 4}), "{named:?}");
        // Who comes back is somebody new.
        post(&host, "/v1/batch", &format!("[{}]", track("after", r#""userId":"jane""#)));
        daemon.kill();

        upstream.handle.clear_faults();
        let daemon = host.start();
        host.wait_until_settled();
        assert_eq!(upstream.ids(), ["bob-1", "bob-2", "o-bob", "after"], "{named:?}");
        let body = |id: &str| {
            let mut records = upstream.handle.records().into_iter();
            let found = records.rfind(|record| record.id == id).unwrap();
            String::from_utf8(found.body.to_vec()).unwrap()
        };
        assert!(body("bob-2").contains("bob@x") && !body("after").contains("identity_email"));
        assert_eq!((host.lane("delivered"), host.lane("erased")), (4, 4));
        assert_eq!(host.status()["quarantined"], 1);
        let again = erase(&host, &named);
        assert_eq!(again, json!({"identities": 0, "quarantined": 0, "queued": 0}));
        let nothing = host.pillarbox(&["erase", "--email", "nobody@x"]);
        assert_eq!(String::from_utf8(nothing.stdout).unwrap(), "nothing was known of nobody@x\n");
        for wrong in [&["erase"][..], &["erase", "--user", "a", "--email", "b"]] {
            assert_eq!(host.pillarbox(wrong).status.code(), Some(2), "{wrong:?}");
        }
        let blank = host.pillarbox(&["erase", "--email", " "]);
        assert_eq!(blank.status.code(), Some(1));
        assert_eq!(daemon.stop().0, Some(0));
    }
}

/// The files of the log that hold `text`.
fn log_files_with(host: &Host, text: &str) -> Vec<std::path::PathBuf> {
    let log = host.config().with_file_name("state/spool/log");
    let files = std::fs::read_dir(log).unwrap().map(|file| file.unwrap().path());
    let holds = |path: &std::path::PathBuf| {
        // One that went meanwhile holds nothing.
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    files.filter(holds).collect()
}

/// Goal: what was delivered of a person long ago is shown no more once the person is erased, and is gone from the disk
/// once all that lay beside it is settled, the event that is kept beside a record with it; what comes later is kept and
/// shown.
#[test]
fn what_was_delivered_of_a_person_goes_from_debugger_and_disk() {
    let upstream = Upstream::start(None, &[]);
    let host = Host::new(&upstream.url, "key", "");
    let keeping = || Host::start_as(host.command(&["--set", "spool.keep_events=true"]));
    let daemon = keeping();
    // What no record holds.
    let only = "only in the event of jane";
    let batch = [
        track("jane-1", &format!(r#""traits":{{"email":"jane@x"}},"context":{{"note":"{only}"}}"#)),
        track("bob-1", r#""traits":{"email":"bob@x"}"#),
    ];
    post(&host, "/v1/batch", &format!("[{}]", batch.join(",")));
    host.wait_until_settled();
    let shown = || {
        let events = host.pillarbox(&["events", "--json"]);
        String::from_utf8(events.stdout).unwrap()
    };
    for text in ["jane@x", only] {
        assert!(shown().contains(text) && !log_files_with(&host, text).is_empty(), "{text}");
    }
    // What is queued beside it keeps its file; nothing of it is shown.
    upstream.handle.add_fault("status=503".parse().unwrap());
    post(&host, "/v1/batch", &format!("[{}]", track("bob-2", r#""traits":{"email":"bob@x"}"#)));
    erase(&host, &["--email", "jane@x"]);
    assert!(!shown().contains("jane") && shown().contains("bob-2"), "{}", shown());
    assert!(!log_files_with(&host, "jane@x").is_empty());
    // A restart does not forget what has to go.
    daemon.kill();
    let daemon = keeping();
    assert!(!log_files_with(&host, only).is_empty());
    upstream.handle.clear_faults();
    assert!(host.pillarbox(&["retry-now"]).status.success());
    host.wait_until_settled();
    for text in ["jane@x", only] {
        support::wait_until("the files to go", || log_files_with(&host, text).is_empty());
    }
    post(&host, "/v1/batch", &format!("[{}]", track("bob-3", r#""traits":{"email":"bob@x"}"#)));
    host.wait_until_settled();
    assert!(shown().contains("bob-3") && !log_files_with(&host, "bob-3").is_empty());
    assert_eq!((host.lane("delivered"), host.lane("erased")), (4, 0));
    assert_eq!(daemon.stop().0, Some(0));
}
