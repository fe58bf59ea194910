//! Consent: the latest word of each person counts, at ingest and again at delivery, however long lies between the two.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use support::{Daemon, Host, Producer, Upstream, wait_until};

const ASKS: &str = "consent = [\"marketing\"]";

/// One person's event. `who` are the members that name the person, `consent` is `context.consent`.
fn track(id: &str, who: &str, consent: &str) -> String {
    format!(
        r#"{{"type":"track","event":"Product Viewed","messageId":"{id}",{who},"context":{{"consent":{consent}}}}}"#
    )
}

/// Posts a batch; (accepted, dropped, duplicates).
fn send(host: &Host, events: &[String]) -> (u64, u64, u64) {
    let mut producer = Producer::connect(&host.ingest());
    let answer = producer.post("/v1/batch", &format!("[{}]", events.join(",")));
    assert_eq!(answer.status, 200, "{}", answer.body);
    let of = |key: &str| answer.json()[key].as_u64().unwrap();
    (of("accepted"), of("dropped"), of("duplicate"))
}

/// How the records of the integration ended.
fn ends(host: &Host) -> [u64; 4] {
    ["delivered", "quarantined", "withheld", "queued_records"].map(|end| host.lane(end))
}

/// A host whose upstream is away, and an identified person: Jane, on the device `web`.
fn offline() -> (Upstream, Host, Daemon) {
    let upstream = Upstream::start(None, &["status=503"]);
    let host = Host::new(&upstream.url, "key", ASKS);
    let daemon = host.start();
    let jane =
        r#"{"type":"identify","userId":"jane","anonymousId":"web","traits":{"email":"Jane@x"}}"#;
    assert_eq!(send(&host, &[jane.to_owned()]), (1, 0, 0));
    (upstream, host, daemon)
}

/// Goal: what a person has revoked while the host was offline is not sent, in whatever shape and under whichever id that was
/// said; others are not held back, and the order of what is sent is kept. A `kill -9` changes nothing of it.
#[test]
fn a_revocation_while_offline_withholds_what_is_queued() {
    let yes = r#"{"marketing":true}"#;
    for (who, no) in [
        (r#""userId":"jane""#, r#"{"marketing":false}"#),
        (r#""anonymousId":"web""#, r#"{"categoryPreferences":{"marketing":false}}"#),
        (
            r#""traits":{"email":" jane@X "}"#,
            r#"{"canonical":{"marketing":false,"analytics":true}}"#,
        ),
        (r#""userId":"jane","anonymousId":"phone""#, r#"{"categories":{"marketing":"no"}}"#),
    ] {
        let (upstream, host, daemon) = offline();
        let queued = [
            track("bob-1", r#""userId":"bob""#, yes),
            track("jane-1", r#""userId":"jane""#, yes),
            track("kiosk-1", r#""anonymousId":"kiosk""#, yes),
            track("jane-2", r#""userId":"jane","anonymousId":"kiosk""#, yes),
            track("bob-2", r#""userId":"bob","anonymousId":"kiosk""#, yes),
            track("jane-3", r#""userId":"jane""#, yes),
        ];
        assert_eq!(send(&host, &queued), (6, 0, 0));
        // No mapping sends it on, and it counts all the same.
        let revoked = format!(
            r#"{{"type":"group","messageId":"no",{who},"groupId":"g","context":{{"consent":{no}}}}}"#
        );
        assert_eq!(send(&host, &[revoked]), (0, 1, 0), "{who}");
        // It says nothing about marketing.
        let silent = track("silent", r#""userId":"jane""#, r#"{"analytics":true}"#);
        assert_eq!(send(&host, &[silent]), (0, 1, 0));
        assert_eq!(ends(&host), [0, 0, 0, 6]);
        daemon.kill();

        upstream.handle.clear_faults();
        let daemon = host.start();
        host.wait_until_settled();
        assert_eq!(upstream.ids(), ["bob-1", "kiosk-1", "bob-2"], "{who} {no}");
        assert_eq!(ends(&host), [3, 0, 3, 0]);
        let status = String::from_utf8(host.pillarbox(&["status"]).stdout).unwrap();
        assert!(status.contains("3 withheld: consent was revoked"), "{status}");

        // Granted again: what comes from now on is sent.
        let again = [track("jane-4", r#""userId":"jane""#, yes)];
        assert_eq!(send(&host, &again), (1, 0, 0));
        host.wait_until_settled();
        assert_eq!(upstream.ids(), ["bob-1", "kiosk-1", "bob-2", "jane-4"]);
        assert_eq!(daemon.stop().0, Some(0));
        let exported = String::from_utf8(host.pillarbox(&["spool", "export"]).stdout).unwrap();
        for (id, end) in [("jane-1", "withheld"), ("bob-2", "delivered"), ("jane-3", "withheld")] {
            let line = exported.lines().find(|line| line.contains(&format!("\"id\":\"{id}\"")));
            let line: serde_json::Value = serde_json::from_str(line.unwrap()).unwrap();
            assert_eq!(line["state"], end, "{line}");
        }
    }
}

/// Goal: what was said last counts, in the order in which it was said, and a repeat says nothing.
#[test]
fn the_latest_word_counts_and_a_repeat_is_none() {
    let (upstream, host, daemon) = offline();
    let (yes, no) = (r#"{"marketing":true}"#, r#"{"marketing":false}"#);
    let jane = r#""userId":"jane""#;
    // In one request, and over several.
    assert_eq!(send(&host, &[track("1", jane, yes), track("2", jane, no)]), (1, 1, 0));
    assert_eq!(send(&host, &[track("3", jane, yes)]), (1, 0, 0));
    // The answer to the refusal was lost.
    assert_eq!(send(&host, &[track("2", jane, no)]), (0, 1, 0));
    upstream.handle.clear_faults();
    host.wait_until_settled();
    assert_eq!(upstream.ids(), ["1", "3"]);
    upstream.handle.add_fault("status=503".parse().unwrap());
    let bob = r#""userId":"bob""#;
    assert_eq!(send(&host, &[track("4", jane, yes), track("5", bob, yes)]), (2, 0, 0));
    assert_eq!(send(&host, &[track("6", jane, no)]), (0, 1, 0));
    // The answer to the grant was lost: it is older than the refusal.
    assert_eq!(send(&host, &[track("4", jane, yes)]), (0, 0, 1));
    upstream.handle.clear_faults();
    host.wait_until_settled();
    assert_eq!(upstream.ids(), ["1", "3", "5"]);
    assert_eq!(ends(&host), [3, 0, 1, 0]);
    assert_eq!(daemon.stop().0, Some(0));
}

/// Goal: what is retried from the quarantine is asked for again.
#[test]
fn a_retried_record_needs_consent_too() {
    let upstream = Upstream::start(None, &["status=400"]);
    let host = Host::new(&upstream.url, "key", ASKS);
    let daemon = host.start();
    let (yes, no) = (r#"{"marketing":true}"#, r#"{"marketing":false}"#);
    let jane = r#""userId":"jane""#;
    assert_eq!(send(&host, &[track("1", jane, yes)]), (1, 0, 0));
    wait_until("the quarantine", || host.lane("quarantined") == 1);
    upstream.handle.clear_faults();
    assert_eq!(send(&host, &[track("2", jane, no)]), (0, 1, 0));
    let retried = host.pillarbox(&["quarantine", "retry", "--all"]);
    assert!(retried.status.success(), "{retried:?}");
    wait_until("the end", || ends(&host) == [0, 1, 1, 0]);
    assert!(upstream.ids().is_empty());
    assert_eq!(daemon.stop().0, Some(0));
}
