//! What producers on TCP, and those with clients of their own, meet: write keys, browsers, compressed bodies.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use flate2::Compression;
use flate2::write::GzEncoder;
use support::{Answer, Host, PATIENCE, Producer, Upstream, event, wait_until};

const KEY: &str = "a-write-key";
/// `a-write-key:` as Basic credentials.
const BASIC: &str = "Authorization: Basic YS13cml0ZS1rZXk6";

fn host(upstream: &Upstream, ingest: &str) -> Host {
    let host = Host::new(&upstream.url, "key", "");
    let text = std::fs::read_to_string(host.config()).unwrap();
    std::fs::write(host.config(), text.replace("[ingest]\n", &format!("[ingest]\n{ingest}\n")))
        .unwrap();
    host
}

fn tcp() -> String {
    format!("listen = [\"127.0.0.1:0\"]\nwrite_keys = [\"{KEY}\"]")
}

/// One request over a connection of its own.
fn ask(address: &str, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head[9..12].parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

fn gzip(body: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// Goal: over TCP events are taken from those who show a write key, and from nobody else; the Unix socket asks for none.
#[test]
fn tcp_asks_for_a_write_key() {
    let upstream = Upstream::start(None, &[]);
    let host = host(&upstream, &tcp());
    let daemon = host.start();
    let address = daemon.tcp_address();
    let track = |headers: &str, id: &str| {
        let headers = if headers.is_empty() { String::new() } else { format!("{headers}\r\n") };
        ask(&address, "POST", "/v1/track", &headers, event(id).as_bytes())
    };
    for headers in [
        "",
        "Authorization: Bearer a-write-kez",
        "Authorization: Basic OmEtd3JpdGUta2V5",
        "Authorization: a-write-key",
    ] {
        let answer = track(headers, "stranger");
        assert_eq!(answer.status, 401, "{headers}");
        assert!(
            answer.head.to_ascii_lowercase().contains("www-authenticate: basic"),
            "{}",
            answer.head
        );
        // Who shows no key holds no place among the connections.
        assert!(answer.head.to_ascii_lowercase().contains("connection: close"), "{}", answer.head);
        assert!(answer.body.contains(r#""code":"unauthorized""#) && !answer.body.contains(KEY));
    }
    assert_eq!(ask(&address, "GET", "/health", "", b"").status, 401);
    assert_eq!(track(BASIC, "basic").status, 200);
    let bearer = format!("Authorization: Bearer {KEY}");
    let answer = track(&bearer, "bearer");
    assert!(answer.status == 200 && answer.body.contains(r#""success":true"#), "{}", answer.body);
    assert_eq!(ask(&address, "GET", "/health", &format!("{bearer}\r\n"), b"").status, 200);
    assert_eq!(Producer::connect(&host.ingest()).post("/v1/track", &event("socket")).status, 200);
    wait_until("the deliveries", || upstream.ids() == ["basic", "bearer", "socket"]);
    let (code, _, log) = daemon.stop();
    assert_eq!(code, Some(0));
    assert!(!log.contains(KEY), "{log}");
}

/// No page that a browser shows may hand over events, neither by what it may send unasked nor by asking first.
#[test]
fn requests_of_web_pages_are_refused_on_every_socket() {
    let upstream = Upstream::start(None, &[]);
    let host = host(&upstream, &tcp());
    let daemon = host.start();
    let address = daemon.tcp_address();
    for header in [
        "Origin: https://evil.example",
        "Origin: null",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
    ] {
        for method in ["POST", "OPTIONS"] {
            let headers = format!("{BASIC}\r\n{header}\r\n");
            let answer = ask(&address, method, "/v1/track", &headers, event("page").as_bytes());
            assert_eq!(
                (answer.status, answer.body.contains("cross_origin")),
                (403, true),
                "{header}"
            );
            assert!(
                !answer.head.to_ascii_lowercase().contains("access-control"),
                "{}",
                answer.head
            );
        }
        let body = event("page");
        let head = format!(
            "POST /v1/track HTTP/1.1\r\nHost: x\r\n{header}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let answer =
            Producer::connect(&host.ingest()).raw(head.as_bytes(), body.as_bytes()).unwrap();
        assert_eq!(answer.status, 403, "{header}");
    }
    let headers = format!("{BASIC}\r\nSec-Fetch-Site: none\r\n");
    assert_eq!(ask(&address, "POST", "/v1/track", &headers, event("app").as_bytes()).status, 200);
    wait_until("the delivery", || upstream.ids() == ["app"]);
    assert_eq!(daemon.stop().0, Some(0));
}

/// Compressed bodies are read whatever their type, and cost no more than the limit that they inflate to.
#[test]
fn gzip_bodies_are_read_within_the_limit() {
    let upstream = Upstream::start(None, &[]);
    let host = host(&upstream, "max_request = \"64KiB\"");
    let daemon = host.start();
    let mut producer = Producer::connect(&host.ingest());
    let mut post = |headers: &str, body: &[u8]| {
        let head = format!(
            "POST /v1/batch HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        if let Ok(answer) = producer.raw(head.as_bytes(), body) {
            return answer;
        }
        // The answer before had closed the connection.
        producer = Producer::connect(&host.ingest());
        producer.raw(head.as_bytes(), body).unwrap()
    };
    let body = gzip(&format!("[{}]", event("zipped")));
    for (headers, again) in [
        ("Content-Encoding: gzip\r\n", "accepted"),
        ("Content-Encoding: GZIP\r\nContent-Type: text/plain\r\n", "duplicate"),
        ("Content-Encoding: x-gzip\r\nContent-Type: application/json\r\n", "duplicate"),
    ] {
        let answer = post(headers, &body);
        assert_eq!((answer.status, answer.json()[again].as_u64()), (200, Some(1)), "{headers}");
    }
    for (headers, body, status, code) in [
        ("Content-Encoding: gzip\r\n", gzip(&" ".repeat(10 << 20)), 413, "too_large"),
        ("Content-Encoding: gzip\r\n", body[..body.len() - 3].to_vec(), 400, "invalid_json"),
        ("Content-Encoding: gzip\r\n", b"[]".to_vec(), 400, "invalid_json"),
        ("Content-Encoding: br\r\n", body.clone(), 415, "unsupported_encoding"),
        ("", body.clone(), 400, "invalid_json"),
    ] {
        let answer = post(headers, &body);
        assert_eq!((answer.status, answer.body.contains(code)), (status, true), "{}", answer.body);
    }
    wait_until("the delivery", || upstream.ids() == ["zipped"]);
    assert_eq!(daemon.stop().0, Some(0));
}
