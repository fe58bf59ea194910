//! Mappings of single events as a user writes them: the README's example, and what a daemon does by them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::path::Path;

use support::{Host, Producer, Upstream, wait_until};

/// The fenced blocks of one language in the README's chapter on mapping.
fn readme(language: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(path).unwrap();
    let chapter = text.split("\n## Mapping\n").nth(1).unwrap();
    let chapter = chapter.split("\n## ").next().unwrap();
    let fence = format!("```{language}\n");
    let blocks = chapter.split(&fence).skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn the_readmes_example_is_true() {
    let (config, json) = (readme("toml"), readme("json"));
    let ([config], [event, record]) = (config.as_slice(), json.as_slice()) else {
        panic!("the README's chapter holds one configuration, one event and one record");
    };
    let host = Host::new("http://127.0.0.1:1/v2/push", "key", "");
    std::fs::write(host.config(), config).unwrap();
    let file = host.folder.path().join("event.json");
    std::fs::write(&file, event).unwrap();
    let output = host.pillarbox(&["map", "--json", file.to_str().unwrap()]);
    let told = String::from_utf8(output.stdout).unwrap();
    // In the README the record is broken into lines.
    let record: String = record.lines().map(str::trim_start).collect();
    assert!(told.ends_with(&format!("\"record\":{record}}}\n")), "{told}");
    assert!(told.contains(r#""rule":"[integration.events.\"Product Viewed\"]","rule_line":6"#));

    let others = [
        r#"{"type":"track","event":"Gift Card Opened","properties":{"card":{"code":7.0}}}"#,
        r#"{"type":"track","event":"Product Removed"}"#,
    ];
    std::fs::write(&file, others.join("\n")).unwrap();
    let output = host.pillarbox(&["map", "--json", file.to_str().unwrap()]);
    let told = String::from_utf8(output.stdout).unwrap();
    let switched_on =
        r#""event_type":"gift_card_opened","properties":{"code":7.0,"host":"shop.example.com"}}"#;
    assert!(told.contains(switched_on), "{told}");
    assert!(told.contains(r#""outcome":"dropped","reason":"disabled""#), "{told}");
}

#[test]
fn map_says_why_an_event_is_dropped() {
    let more = "preset = \"retail\"\nconsent = [\"marketing\"]\n[integration.events.page]\nenabled = false";
    let host = Host::new("http://127.0.0.1:1/v2/push", "key", more);
    let file = host.folder.path().join("events.ndjson");
    let events = [
        r#"{"type":"track","event":"Product Viewed","context":{"consent":{"marketing":false}}}"#,
        r#"{"type":"track","event":"Product Viewed"}"#,
        r#"{"type":"track","event":"product viewed"}"#,
        r#"{"type":"page"}"#,
        r#"{"type":"group"}"#,
    ];
    std::fs::write(&file, events.join("\n")).unwrap();
    let output = host.pillarbox(&["map", file.to_str().unwrap()]);
    let told = String::from_utf8(output.stdout).unwrap();
    for part in [
        r#"uk: dropped (consent): "marketing" is denied; context.consent is {"marketing":false}"#,
        r#"uk: dropped (consent): "marketing" is not stated, which reads as denied; context.consent is absent"#,
        r#"has no table [integration.events."product viewed"]; names must be the same to the letter: "Product Viewed" is known"#,
        r#"uk: dropped (disabled): enabled = false in [integration.events."page"] (line "#,
        "uk: dropped (no_mapping): no mapping sends `group` events on",
        "5 events: 2 dropped (consent), 1 dropped (disabled), 2 dropped (no_mapping)\n",
    ] {
        assert!(told.contains(part), "{part}\n{told}");
    }
    assert_eq!(output.status.code(), Some(0));
}

/// What is switched off is told and counted as that; a long event type is sent, counted, and logged once.
#[test]
fn a_daemon_maps_by_its_tables() {
    let upstream = Upstream::start(None, &[]);
    let more = "preset = \"default\"\n[integration.events.page]\nenabled = false\n\
                [integration.events.\"Nap Taken\"]\nevent_type = \"nap\"\nproperties.bed = \"properties.place\"";
    let host = Host::new(&upstream.url, "key", more);
    let daemon = host.start();
    let mut producer = Producer::connect(&host.ingest());
    let name = "x".repeat(513);
    let batch = format!(
        r#"[{{"type":"page"}},{{"type":"track","event":"Nap Taken","messageId":"n","properties":{{"place":1.0}}}},
        {{"type":"track","event":"{name}","messageId":"a"}},{{"type":"track","event":"{name}","messageId":"b"}}]"#
    );
    let answer = producer.post("/v1/batch", &batch);
    let expected = r#"{"success":true,"accepted":3,"dropped":1,"duplicate":0,"quarantined":0,"items":[{"index":0,"outcome":"dropped","reason":"disabled"}]}"#;
    assert_eq!((answer.status, answer.body.as_str()), (200, expected));
    // What was seen before is not sent again, and not counted again.
    assert_eq!(producer.post("/v1/batch", &batch).status, 200);
    wait_until("all deliveries", || upstream.handle.counters().records_accepted == 3);
    let nap = &upstream.handle.records()[0];
    assert_eq!(nap.event_type.as_deref(), Some("nap"));
    assert!(nap.body.ends_with(br#""properties":{"bed":1.0}}"#));
    let status = host.status();
    assert_eq!(status["ingest"]["events_dropped"]["disabled"], 2);
    assert_eq!(status["ingest"]["event_types_truncated"]["uk"], 2);
    let (code, _, log) = daemon.stop();
    assert_eq!((code, log.matches("Ometria cuts it").count()), (Some(0), 1), "{log}");
}
