//! Several integrations, each with its own fate; a configuration that changes while the daemon runs; lanes that keep the order
//! of each person, however many there are.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use support::{Host, Producer, Upstream, event, wait_until};
use tokio::time::Instant;

/// A held integration looks again after a minute: what is delivered within this was tried at once.
const AT_ONCE: Duration = Duration::from_secs(25);

/// Writes a configuration whose integrations are `(name, endpoint, more)`.
fn configure(host: &Host, integrations: &[(&str, &str, &str)]) {
    let at = host.folder.path().display();
    let mut text = format!(
        "state_dir = \"{at}/state\"\n[ingest]\nsocket = \"{at}/ingest.sock\"\n[admin]\nsocket = \"{at}/admin.sock\"\n[spool]\nmin_free_disk = \"0B\"\n"
    );
    for (name, endpoint, more) in integrations {
        let integration = format!(
            "[[integration]]\nname = \"{name}\"\nendpoint = \"{endpoint}\"\nretry = {{ initial = \"10ms\", max = \"50ms\" }}\nlinger = \"20ms\"\n{more}\n"
        );
        text.push_str(&integration);
    }
    std::fs::write(host.config(), text).unwrap();
}

/// What `status` says of an integration.
fn of(host: &Host, name: &str) -> Value {
    let status = host.status();
    let mut known = status["integrations"].as_array().unwrap().iter();
    known.find(|known| known["name"] == name).cloned().unwrap_or_default()
}

fn queued(host: &Host, name: &str) -> u64 {
    of(host, name)["lane"]["queued_records"].as_u64().unwrap()
}

fn reload(host: &Host) -> Value {
    let output = host.pillarbox(&["reload", "--json"]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn one_event_feeds_every_integration_and_a_held_one_delays_no_other() {
    let (uk, de, fr) = (
        Upstream::start(Some("uk-key"), &[]),
        Upstream::start(Some("another"), &[]),
        Upstream::start(Some("fr-key"), &[]),
    );
    let host = Host::new(&uk.url, "uk-key", "");
    configure(
        &host,
        &[
            ("uk", &uk.url, "api_key = \"uk-key\""),
            ("de", &de.url, "api_key = \"de-key\"\npreset = \"default\""),
            ("fr", &fr.url, "api_key = \"fr-key\"\nconsent = [\"marketing\"]"),
        ],
    );
    let daemon = host.start();
    let mut producer = Producer::connect(&host.ingest());
    let mut sent = |body: &str| {
        let answer = producer.post("/v1/track", body);
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()["accepted"].as_u64().unwrap()
    };
    for n in 0..50 {
        let granted = n % 2 == 0;
        let event = format!(
            r#"{{"event":"Product Viewed","messageId":"v{n}","context":{{"consent":{{"marketing":{granted}}}}}}}"#
        );
        assert_eq!(sent(&event), 1);
    }
    // Only the default preset sends this one on.
    assert_eq!(sent(r#"{"event":"Nap Taken","messageId":"nap"}"#), 1);
    wait_until("uk's deliveries", || uk.ids().len() == 50);
    wait_until("fr's deliveries", || fr.ids().len() == 25);
    assert_eq!(uk.ids(), (0..50).map(|n| format!("v{n}")).collect::<Vec<_>>());
    assert_eq!(fr.ids(), (0..50).step_by(2).map(|n| format!("v{n}")).collect::<Vec<_>>());
    wait_until("the hold", || of(&host, "de")["report"]["state"] == "unauthorized");
    assert_eq!((queued(&host, "uk"), queued(&host, "fr"), queued(&host, "de")), (0, 0, 51));
    assert!(de.ids().is_empty());
    assert_eq!(daemon.stop().0, Some(0));
}

/// Goal: records that are ready go where they are asked to, byte for byte, and no push holds two types.
#[test]
fn ready_records_go_to_the_integration_that_is_named_or_to_all() {
    let (uk, de) = (Upstream::start(None, &["status=503"]), Upstream::start(None, &[]));
    let host = Host::new(&uk.url, "key", "");
    let key = "api_key = \"key\"";
    configure(
        &host,
        &[("uk", &uk.url, key), ("de", &de.url, &format!("{key}\nconsent = [\"x\"]"))],
    );
    let daemon = host.start();
    let mut producer = Producer::connect(&host.ingest());
    let record = |kind: &str, id: &str| {
        format!("{{\"@type\": \"{kind}\",\n \"id\":\"{id}\", \"total\":79.00}}")
    };
    for (path, kind, id, status) in [
        ("/v2/push", "order", "o1", 202),
        ("/v2/push?integration=uk", "product", "p1", 202),
        ("/v2/push", "order", "o2", 202),
        ("/v2/push?integration=fr", "order", "o3", 404),
        ("/v2/push", "", "o4", 400),
    ] {
        let answer = producer.post(path, &format!("[ {} ]", record(kind, id)));
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        if status == 202 {
            assert_eq!(
                (&answer.json()["status"], &answer.json()["accepted"]),
                (&Value::from("OK"), &Value::from(1))
            );
        }
    }
    assert_eq!(queued(&host, "uk"), 3);
    uk.handle.clear_faults();
    wait_until("uk's records", || uk.ids() == ["o1", "p1", "o2"]);
    wait_until("de's records", || de.ids() == ["o1", "o2"]);
    assert_eq!(uk.handle.records()[1].body, record("product", "p1").as_bytes());
    // An update comes under the same id, and is no repeat.
    assert_eq!(producer.post("/v2/push", &format!("[{}]", record("order", "o1"))).status, 202);
    wait_until("the update", || uk.ids().len() == 4 && de.ids().len() == 3);
    assert_eq!(daemon.stop().0, Some(0));
}

/// Goal: each change of the configuration takes effect without a restart, and costs no connection and no record.
/// Method: one producer's connection is kept through all of it.
#[test]
fn a_reload_adds_changes_and_removes_integrations() {
    let (uk, de) = (Upstream::start(Some("uk-key"), &[]), Upstream::start(Some("de-key"), &[]));
    let host = Host::new(&uk.url, "uk-key", "");
    let key = host.folder.path().join("uk.key");
    let write_key = |text: &str| {
        std::fs::write(&key, text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&key, mode).unwrap();
    };
    write_key("not-yet-active\n");
    let key_file = format!("api_key_file = \"{}\"", key.display());
    let only_uk = [("uk", &*uk.url, &*key_file)];
    let both = [only_uk[0], ("de", &*de.url, "api_key = \"de-key\"")];
    configure(&host, &only_uk);
    let daemon = host.start();
    let mut producer = Producer::connect(&host.ingest());
    let mut post = |id: &str| assert_eq!(producer.post("/v1/track", &event(id)).status, 200);

    post("1");
    wait_until("the hold", || of(&host, "uk")["report"]["state"] == "unauthorized");
    write_key("uk-key\n");
    let begun = Instant::now();
    assert_eq!(reload(&host)["changed"], serde_json::json!(["uk"]));
    wait_until("the first delivery", || uk.ids() == ["1"]);
    assert!(begun.elapsed() < AT_ONCE, "a changed key was not tried at once");

    configure(&host, &both);
    assert_eq!(reload(&host)["added"], serde_json::json!(["de"]));
    post("2");
    wait_until("de's first", || de.ids() == ["2"]);

    // A broken file changes nothing, and says where it is broken.
    let good = std::fs::read_to_string(host.config()).unwrap();
    std::fs::write(host.config(), format!("{good}\nlingr = 1\n")).unwrap();
    let refused = host.pillarbox(&["reload"]);
    let told = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(told.contains("did you mean `linger`?") && told.contains("pillarbox.toml:"), "{told}");
    post("3");
    wait_until("both go on", || uk.ids().len() == 3 && de.ids().len() == 2);

    std::fs::write(host.config(), &good).unwrap();
    assert_eq!(daemon.stop().0, Some(0));
    assert_eq!(uk.ids().len(), 3);
}

/// A mapping that has changed is in force for the next event, and disturbs no delivery.
#[test]
fn a_reload_brings_changed_mappings_into_force() {
    let upstream = Upstream::start(None, &[]);
    let host = Host::new(&upstream.url, "key", "");
    let daemon = host.start();
    let mut producer = Producer::connect(&host.ingest());
    let mut post = || producer.post("/v1/track", r#"{"event":"Nap Taken"}"#).json();
    assert_eq!(post()["items"][0]["reason"], "no_mapping");
    let text = std::fs::read_to_string(host.config()).unwrap();
    let table = "[integration.events.\"Nap Taken\"]\nevent_type = \"nap\"\n";
    std::fs::write(host.config(), format!("{text}{table}")).unwrap();
    assert_eq!(reload(&host)["changed"], serde_json::json!(["uk"]));
    assert_eq!(post()["accepted"], 1);
    wait_until("the nap", || upstream.handle.records().len() == 1);
    assert_eq!(upstream.handle.records()[0].event_type.as_deref(), Some("nap"));
    assert_eq!(reload(&host)["changed"], serde_json::json!([]));
    assert_eq!(daemon.stop().0, Some(0));
}

/// Goal: what is queued for an integration that is removed stays, until it is configured again or told to go.
#[test]
fn a_removed_integration_keeps_its_queue_until_told_to_drop_it() {
    let (uk, de) = (Upstream::start(None, &[]), Upstream::start(None, &[]));
    let host = Host::new(&uk.url, "key", "");
    let key = "api_key = \"secret-key\"";
    let only_uk = [("uk", &*uk.url, key)];
    let both = [only_uk[0], ("de", &*de.url, key)];
    configure(&host, &both);
    let daemon = host.start();
    let mut producer = Producer::connect(&host.ingest());
    let mut post = |id: &str| assert_eq!(producer.post("/v1/track", &event(id)).status, 200);
    post("3");
    wait_until("de's first", || de.ids().len() == 1);

    de.handle.add_fault("status=503".parse().unwrap());
    post("4");
    wait_until("a queue for de", || queued(&host, "de") == 1);
    configure(&host, &only_uk);
    assert_eq!(reload(&host)["removed"], serde_json::json!(["de"]));
    post("5");
    wait_until("uk's third", || uk.ids().len() == 3);
    assert_eq!((queued(&host, "de"), &of(&host, "de")["endpoint"]), (1, &Value::Null));
    let told = String::from_utf8(host.pillarbox(&["status"]).stdout).unwrap();
    assert!(told.contains("1 records") && told.contains("drop-queue de"), "{told}");
    de.handle.clear_faults();
    configure(&host, &both);
    daemon.hang_up();
    post("6");
    wait_until("de goes on", || de.ids().len() >= 2 && queued(&host, "de") == 0);
    assert_eq!(de.ids()[..2], ["3", "4"]);

    // What is asked for is dropped, and counted.
    de.handle.add_fault("status=503".parse().unwrap());
    post("7");
    wait_until("another queue for de", || queued(&host, "de") == 1);
    let refused = host.pillarbox(&["drop-queue", "de", "--yes"]);
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && told.contains("it is configured"), "{told}");
    configure(&host, &only_uk);
    reload(&host);
    let asked = host.pillarbox(&["drop-queue", "de"]);
    let told = String::from_utf8(asked.stderr).unwrap();
    assert!(
        !asked.status.success() && told.contains("1 records") && told.contains("--yes"),
        "{told}"
    );
    assert!(host.pillarbox(&["drop-queue", "de", "--yes"]).status.success());
    assert_eq!((queued(&host, "de"), &of(&host, "de")["lane"]["erased"]), (0, &Value::from(1)));

    // What only a start reads is told.
    let changed = std::fs::read_to_string(host.config()).unwrap();
    std::fs::write(host.config(), changed.replace("\"0B\"", "\"1B\"")).unwrap();
    assert_eq!(reload(&host)["needs_restart"], serde_json::json!(["[spool]"]));
    let (code, _, log) = daemon.stop();
    assert_eq!(code, Some(0));
    assert!(log.contains("was reloaded") && !log.contains("secret-key"), "{log}");
    assert_eq!(uk.ids().len(), 5);
}

/// Goal: the records of a person arrive in their order, though people are spread over lanes and the number of lanes changes
/// while a queue waits.
/// Method: 20 people, three rounds of events under 4, 1 and 3 lanes, all queued while upstream is down, with a kill before
/// the last round.
#[test]
fn lanes_keep_the_order_of_each_person_when_their_number_changes() {
    let upstream = Upstream::start(None, &["status=503"]);
    let host = Host::new(&upstream.url, "key", "");
    let lanes = |lanes: u32| {
        let more = format!("api_key = \"key\"\nbatch = 7\nlanes = {lanes}");
        configure(&host, &[("uk", &upstream.url, &more)]);
    };
    let post = |round: u32| {
        let mut producer = Producer::connect(&host.ingest());
        for n in 0..10 {
            let events = (0..20).map(|person| {
                format!(r#"{{"type":"track","event":"Product Viewed","userId":"p{person}","messageId":"p{person}-{round}-{n}"}}"#)
            });
            let events: Vec<String> = events.collect();
            assert_eq!(producer.post("/v1/batch", &format!("[{}]", events.join(","))).status, 200);
        }
    };
    lanes(4);
    let daemon = host.start();
    post(0);
    assert_eq!(of(&host, "uk")["lanes"].as_array().unwrap().len(), 4);
    lanes(1);
    assert_eq!(reload(&host)["changed"], serde_json::json!(["uk"]));
    post(1);
    daemon.kill();
    lanes(3);
    let daemon = host.start();
    post(2);
    assert_eq!(queued(&host, "uk"), 600);
    let waits = of(&host, "uk")["lanes"].to_string();
    assert!(waits.contains("before `lanes` was changed"), "{waits}");
    upstream.handle.clear_faults();
    wait_until("an empty queue", || queued(&host, "uk") == 0);

    let mut people: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for id in upstream.ids() {
        let person = id.split('-').next().unwrap().to_owned();
        people.entry(person).or_default().push(id);
    }
    assert_eq!(people.len(), 20);
    for (person, ids) in people {
        let expected: Vec<String> = (0..3)
            .flat_map(|round| (0..10).map(move |n| (round, n)))
            .map(|(round, n)| format!("{person}-{round}-{n}"))
            .collect();
        assert_eq!(ids, expected);
    }
    // A repeat is known, whatever lane it would have now.
    let mut producer = Producer::connect(&host.ingest());
    let repeat = r#"{"event":"Product Viewed","userId":"p1","messageId":"p1-0-3"}"#;
    assert_eq!(producer.post("/v1/track", repeat).json()["duplicate"], 1);
    let delivered: Vec<u64> = of(&host, "uk")["lanes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|lane| lane["lane"]["delivered"].as_u64().unwrap())
        .collect();
    assert_eq!((delivered.len(), delivered.iter().sum::<u64>()), (8, 600));
    assert!(delivered.iter().filter(|delivered| **delivered > 0).count() >= 6, "{delivered:?}");
    assert_eq!(daemon.stop().0, Some(0));
}
