//! The ingest socket as producers meet it: every answer, error code and limit of DESIGN.md section 4.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;

use support::{Host, Producer, Upstream, event, wait_until};

fn with_ingest(settings: &str) -> (Upstream, Host) {
    let upstream = Upstream::start(None, &[]);
    let host = Host::new(&upstream.url, "key", "");
    let text = std::fs::read_to_string(host.config()).unwrap();
    std::fs::write(host.config(), text.replace("[ingest]\n", &format!("[ingest]\n{settings}\n")))
        .unwrap();
    (upstream, host)
}

#[test]
fn each_route_answers_as_the_contract_says() {
    let (_upstream, host) = with_ingest("");
    let daemon = host.start();
    let mut producer = Producer::connect(&host.ingest());
    let accepted =
        r#"{"success":true,"accepted":1,"dropped":0,"duplicate":0,"quarantined":0,"items":[]}"#;
    let dropped = r#"{"success":true,"accepted":0,"dropped":1,"duplicate":0,"quarantined":0,"items":[{"index":0,"outcome":"dropped","reason":"no_mapping"}]}"#;
    for (path, body, expected) in [
        ("/v1/track", r#"{"event":"Order Completed"}"#, accepted),
        ("/v1/t", r#"{"event":"Order Completed"}"#, accepted),
        ("/v1/page", "{}", accepted),
        ("/v1/p", "{}", accepted),
        ("/v1/identify", r#"{"userId":"u"}"#, accepted),
        ("/v1/i", r#"{"userId":"u"}"#, accepted),
        ("/v1/batch", r#"{"batch":[{"type":"page"}]}"#, accepted),
        ("/v1/import", r#"[{"type":"page"}]"#, accepted),
        ("/v1/group", r#"{"groupId":"g"}"#, dropped),
        ("/v1/g", "{}", dropped),
        ("/v1/alias", "{}", dropped),
        ("/v1/screen", "{}", dropped),
        ("/v1/track", r#"{"event":"Nap Taken"}"#, dropped),
        // What real clients send: NaN, a lone surrogate, nulls.
        (
            "/v1/track",
            r#"{"event":"Product Viewed","userId":null,"properties":{"price":NaN,"name":"\ud800"}}"#,
            accepted,
        ),
    ] {
        let answer = producer.post(path, body);
        assert_eq!((answer.status, answer.body.as_str()), (200, expected), "{path} {body}");
    }
    for (path, body, status, expected) in [
        (
            "/v1/track",
            "{\"event\": oops}",
            400,
            r#"{"code":"invalid_json","message":"expected value at line 1 column 11"}"#,
        ),
        (
            "/v1/track",
            "{}",
            400,
            r#"{"code":"invalid_event","message":"event is missing: a track must name its event"}"#,
        ),
        ("/v1/batch", "nonsense", 400, r#"{"code":"invalid_json""#),
        ("/v1/batch", "[[[", 400, r#"{"code":"invalid_json""#),
        ("/v1/nonsense", "{}", 404, r#"{"code":"not_found""#),
    ] {
        let answer = producer.post(path, body);
        assert_eq!(answer.status, status, "{path} {body}");
        assert!(answer.body.starts_with(expected), "{}", answer.body);
    }
    let deep = format!(
        r#"{{"event":"Product Viewed","properties":{{"x":{}{}}}}}"#,
        "[".repeat(64),
        "]".repeat(64)
    );
    assert_eq!(producer.post("/v1/track", &deep).json()["code"], "invalid_json");
    let health = producer.raw(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"").unwrap();
    assert_eq!((health.status, health.body.as_str()), (200, r#"{"status":"ok"}"#));
    let wrong = producer.raw(b"GET /v1/track HTTP/1.1\r\nHost: x\r\n\r\n", b"").unwrap();
    assert_eq!(wrong.status, 405);
    assert!(
        wrong.head.to_ascii_lowercase().contains("allow: post")
            && wrong.body.contains("method_not_allowed")
    );
    let gzip =
        b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\n";
    assert_eq!(producer.raw(gzip, b"{}").unwrap().json()["code"], "unsupported_encoding");
    assert_eq!(daemon.stop().0, Some(0));
}

/// One bad event never costs the other 99: it is in the quarantine, in the same commit.
#[test]
fn a_batch_with_bad_events_keeps_the_good_ones() {
    let (upstream, host) = with_ingest("");
    let daemon = host.start();
    let mut events: Vec<String> = (0..100).map(|n| event(&format!("e-{n}"))).collect();
    events[40] = r#"{"type":"track","timestamp":"soon","event":"Product Viewed"}"#.into();
    let answer =
        Producer::connect(&host.ingest()).post("/v1/batch", &format!("[{}]", events.join(",")));
    let answer = answer.json();
    assert_eq!((answer["accepted"].as_u64(), answer["quarantined"].as_u64()), (Some(99), Some(1)));
    assert_eq!(
        (answer["items"][0]["index"].as_u64(), answer["items"][0]["reason"].as_str()),
        (Some(40), Some("invalid_event"))
    );
    host.wait_until_settled();
    assert_eq!(upstream.ids().len(), 99);
    let status = host.status();
    assert_eq!(
        (status["quarantined"].as_u64(), status["ingest"]["events_accepted"].as_u64()),
        (Some(1), Some(99))
    );
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn limits_are_told_and_cost_nothing_that_was_good() {
    let (upstream, host) =
        with_ingest("max_request = \"64KiB\"\nread_timeout = \"300ms\"\nmax_connections = 3");
    let daemon = host.start();
    let large =
        format!(r#"{{"event":"Product Viewed","properties":{{"text":"{}"}}}}"#, "x".repeat(70_000));
    let answer = Producer::connect(&host.ingest()).post("/v1/track", &large);
    assert_eq!((answer.status, answer.json()["code"].as_str()), (413, Some("too_large")));
    assert!(answer.head.to_ascii_lowercase().contains("connection: close"));
    // Chunked: the length is not announced, and is counted all the same.
    let mut chunked = Producer::connect(&host.ingest());
    let chunk = format!("{:x}\r\n{}\r\n", 70_000, "x".repeat(70_000));
    let head = b"POST /v1/track HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(chunked.raw(head, chunk.as_bytes()).unwrap().status, 413);
    // A record over Ometria's limit, in a body within ours.
    let record =
        format!(r#"{{"event":"Product Viewed","properties":{{"text":"{}"}}}}"#, "x".repeat(60_000));
    let answer = Producer::connect(&host.ingest()).post("/v1/track", &record);
    assert_eq!((answer.status, answer.json()["code"].as_str()), (413, Some("too_large")));
    // A body that does not arrive.
    let mut slow = Producer::connect(&host.ingest());
    let answer = slow
        .raw(b"POST /v1/track HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{", b"")
        .unwrap();
    assert_eq!((answer.status, answer.json()["code"].as_str()), (408, Some("timeout")));
    // Connections at their limit wait; they are served once others have gone.
    let idle: Vec<UnixStream> = (0..3)
        .map(|_| {
            let mut stream = UnixStream::connect(host.ingest()).unwrap();
            stream.write_all(b"POST /v1/").unwrap();
            stream
        })
        .collect();
    let answer = Producer::connect(&host.ingest()).post("/v1/track", &event("waited"));
    assert_eq!(answer.status, 200, "half a header must not hold a connection for ever");
    drop(idle);
    wait_until("the delivery", || upstream.ids() == ["waited"]);
    assert_eq!(host.status()["quarantined"], 0);
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_low_disk_is_told_on_every_way() {
    let (_upstream, host) = with_ingest("");
    let text = std::fs::read_to_string(host.config()).unwrap();
    std::fs::write(
        host.config(),
        text.replace("min_free_disk = \"0B\"", "min_free_disk = \"1000TiB\""),
    )
    .unwrap();
    let daemon = host.start();
    let mut producer = Producer::connect(&host.ingest());
    let answer = producer.post("/v1/page", "{}");
    assert_eq!((answer.status, answer.json()["code"].as_str()), (503, Some("disk_low")));
    assert!(answer.head.to_ascii_lowercase().contains("retry-after: 30"));
    assert_eq!(producer.raw(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"").unwrap().status, 503);
    assert!(host.status()["refusing"].as_str().unwrap().contains("min_free_disk"));
    assert_eq!(daemon.stop().0, Some(0));
}

/// The ingest socket has the configured mode, the admin socket 0600; a stale socket of a killed daemon is replaced.
#[test]
fn sockets_have_their_modes_and_survive_a_kill() {
    let (_upstream, host) = with_ingest("socket_mode = \"0622\"");
    let daemon = host.start();
    let mode = |name: &str| {
        std::fs::metadata(host.folder.path().join(name)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!((mode("ingest.sock"), mode("admin.sock")), (0o622, 0o600));
    daemon.kill();
    let daemon = host.start();
    assert_eq!(Producer::connect(&host.ingest()).post("/v1/page", "{}").status, 200);
    assert_eq!(daemon.stop().0, Some(0));
}
