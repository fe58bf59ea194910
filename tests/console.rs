//! The web console over HTTP: who is let in, what keeps a browser from harm, and that everything works without a script.
//! Integrations: see `console_integrations`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use support::console::{Visitor, send, start};
use support::{Answer, Host, Upstream, event, wait_until};

/// Text of an event that must never be part of a page as it stands.
const EVIL: &str = "<script>alert(1)</script>";

fn bad(id: &str) -> String {
    format!(
        r#"{{"type":"track","event":"Product Viewed","messageId":"{id}","properties":{{"name":"{EVIL}","product_id":"poisoned"}}}}"#
    )
}

/// Goal: nobody gets in without the token, whoever shows it does, and whoever signs out is out.
#[test]
fn the_token_lets_in_and_nothing_else_does() {
    let upstream = Upstream::start(None, &[]);
    let (host, daemon) = start(&upstream);
    let stranger = Visitor::new(&daemon);
    assert_eq!(stranger.get("/").header("location").as_deref(), Some("/login"));
    for path in ["/events", "/quarantine", "/integrations", "/nothing"] {
        assert_eq!(stranger.get(path).status, 303, "{path}");
    }
    assert_eq!(stranger.get("/live/overview").status, 401);
    let refused = stranger.post("/control", &[("action", "pause")]);
    assert_eq!(refused.status, 401);
    assert!(refused.body.contains("id=\"login\"") && refused.body.contains("has ended"));
    assert_eq!(refused.header("content-type").unwrap(), "text/html; charset=utf-8");
    assert_eq!(host.status()["integrations"][0]["report"]["state"], "idle");

    let entrance = host.entrance();
    let token = host.token();
    assert!(entrance.starts_with(&format!("http://{}/login#token=", daemon.console_address())));
    assert_eq!(token.len(), 64);
    let file = host.folder.path().join("state/console.token");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), token);

    let visitor = Visitor::signed_in(&host, &daemon);
    assert!(!visitor.cookie.contains(&token));
    assert_eq!(visitor.get("/").status, 200);
    let forged =
        Visitor { cookie: visitor.cookie.replace("=v1.", "=v1.9"), ..Visitor::new(&daemon) };
    assert_eq!(forged.get("/").status, 303);
    let answer = visitor.post("/login", &[("token", &token)]);
    let set = answer.header("set-cookie").unwrap();
    assert!(set.contains("HttpOnly") && set.contains("SameSite=Strict"), "{set}");

    let out = visitor.post("/logout", &[]);
    assert!(out.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert_eq!(visitor.get("/").status, 303, "the session has ended, whoever kept its cookie");
    assert_eq!(visitor.post("/control", &[("action", "pause")]).status, 401);
    assert_eq!(visitor.post("/logout", &[]).header("location").as_deref(), Some("/login"));
    let mut stays = Visitor::signed_in(&host, &daemon);

    let tries = (0..12).map(|_| stranger.post("/login", &[("token", &token[1..])]).status);
    let tries: Vec<u16> = tries.collect();
    assert!(tries.starts_with(&[403; 9]) && tries.ends_with(&[429; 2]), "{tries:?}");
    let late = stranger.post("/login", &[("token", &token[1..])]);
    assert!(late.header("retry-after").is_some(), "{}", late.head);
    let (code, _, log) = daemon.stop();
    assert!(code == Some(0) && !log.contains(&token), "{log}");

    // The same token after a restart, and another when it is told so. What was signed in before, and out, is out.
    let daemon = host.start();
    assert_eq!(host.token(), token);
    for before in [&mut stays, &mut { visitor }] {
        let port = |address: &str| format!("pillarbox-{}=", address.rsplit(':').next().unwrap());
        let address = daemon.console_address();
        before.cookie = before.cookie.replace(&port(&before.address), &port(&address));
        before.address = address;
        assert_eq!(before.get("/").status, 303, "{}", before.cookie);
    }
    // It is the session that is refused, and no other thing of the request.
    stays.cookie = Visitor::signed_in(&host, &daemon).cookie;
    assert_eq!(stays.get("/").status, 200);
    daemon.stop();
    let mine = host.folder.path().join("mine");
    std::fs::write(&mine, "0123456789abcdef0123456789abcdef\n").unwrap();
    std::fs::set_permissions(&mine, std::fs::Permissions::from_mode(0o600)).unwrap();
    let host = host_with_token_file(host, &mine.display().to_string());
    let daemon = host.start();
    assert_eq!(host.token(), "0123456789abcdef0123456789abcdef");
    assert_eq!(Visitor::signed_in(&host, &daemon).get("/").status, 200);
}

fn host_with_token_file(host: Host, file: &str) -> Host {
    let text = std::fs::read_to_string(host.config()).unwrap();
    let named = format!("[admin]\nconsole_token_file = \"{file}\"\n");
    std::fs::write(host.config(), text.replace("[admin]\n", &named)).unwrap();
    host
}

/// Goal: a page of another origin, and a name that was pointed here, reach nothing, not even with a session.
#[test]
fn strangers_are_refused_whatever_they_ask() {
    let upstream = Upstream::start(None, &[]);
    let (host, daemon) = start(&upstream);
    let visitor = Visitor::signed_in(&host, &daemon);
    let at = visitor.address.clone();
    let port = at.rsplit(':').next().unwrap().to_owned();
    for (method, path, headers, expected) in [
        ("GET", "/", format!("Host: {at}\r\n"), 200),
        ("GET", "/", format!("Host: localhost:{port}\r\n"), 200),
        ("GET", "/", "Host: [::1]:9999\r\n".to_owned(), 303), // forwarded: let in, and another cookie
        ("GET", "/", "Host: rebound.example\r\n".to_owned(), 421),
        ("GET", "/login", format!("Host: rebound.example:{port}\r\n"), 421),
        ("GET", "/assets/console.js", format!("Host: 10.0.0.1:{port}\r\n"), 421),
        ("GET", "/", format!("Host: {at}\r\nHost: rebound.example\r\n"), 400),
        ("GET", "/", format!("Host: {at}\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n"), 403),
        ("GET", "/live/overview", format!("Host: {at}\r\nOrigin: http://localhost:1\r\nSec-Fetch-Site: same-site\r\nSec-Fetch-Mode: cors\r\nSec-Fetch-Dest: empty\r\n"), 403),
        ("POST", "/control", format!("Host: {at}\r\n"), 403),
        ("POST", "/control", format!("Host: {at}\r\nOrigin: http://evil.example\r\nSec-Fetch-Site: cross-site\r\n"), 403),
        ("POST", "/control", format!("Host: {at}\r\nOrigin: http://127.0.0.1:1\r\nSec-Fetch-Site: same-site\r\n"), 403),
        ("POST", "/control", format!("Host: {at}\r\nOrigin: null\r\n"), 403),
        ("POST", "/control", "Host: rebound.example\r\nOrigin: http://rebound.example\r\nSec-Fetch-Site: same-origin\r\n".to_owned(), 421),
        ("PUT", "/control", format!("Host: {at}\r\nOrigin: http://{at}\r\n"), 405),
        ("OPTIONS", "/control", format!("Host: {at}\r\n"), 405),
        ("POST", "/control", format!("Host: {at}\r\nOrigin: http://{at}\r\nSec-Fetch-Site: same-origin\r\n"), 303),
    ] {
        // Two hosts are refused by HTTP itself or by us: never served.
        let answer = visitor.ask(method, path, &headers, "integration=uk&action=pause");
        let refused = expected == 400 && [400, 421].contains(&answer.status);
        assert!(answer.status == expected || refused, "{method} {path} {headers}: {}", answer.head);
        let paused = || host.status()["integrations"][0]["report"]["state"] == "paused";
        if method == "POST" && expected == 303 {
            wait_until("the pause", paused);
        } else {
            assert!(!paused(), "{headers}");
        }
    }
    let large = "x".repeat((1 << 20) + 1);
    let answer = visitor.post("/control", &[("action", &large)]);
    assert_eq!(answer.status, 413);
}

fn is_kept_in(answer: &Answer, path: &str) {
    for (name, part) in [
        ("content-security-policy", "default-src 'none'"),
        ("content-security-policy", "frame-ancestors 'none'"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cache-control", "no-store"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert!(answer.header(name).is_some_and(|value| value.contains(part)), "{path}: {name}");
    }
    let policy = answer.header("content-security-policy").unwrap();
    assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    if answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html")) {
        let body = answer.body.to_ascii_lowercase();
        for inline in [
            "<style",
            " style=",
            "javascript:",
            " onclick=",
            " onload=",
            " onerror=",
            "<script>",
            "http-equiv",
        ] {
            assert!(!body.contains(inline), "{path} holds {inline}");
        }
        for outside in ["src=\"http", "href=\"http", "src=\"//", "href=\"//"] {
            assert!(!body.contains(outside), "{path} loads from elsewhere: {outside}");
        }
    }
}

/// Goal: no answer lets a browser do more than show it, what events hold is escaped, and no page shows the key.
#[test]
fn pages_hold_nothing_that_runs_and_no_key() {
    let upstream = Upstream::start(None, &["poison=poisoned"]);
    let (host, daemon) = start(&upstream);
    send(&host, &bad(EVIL));
    send(&host, &event("good-1"));
    host.wait_until_settled();
    let visitor = Visitor::signed_in(&host, &daemon);
    for (path, status, part) in [
        ("/", 200, "accounted for"),
        ("/?range=day", 200, "Last day"),
        ("/events", 200, "&#60;script&#62;alert(1)&#60;/script&#62;"),
        ("/events?email=nobody@x", 200, "fits this filter"),
        ("/events?state=delivered&id=good-1", 200, "good-1"),
        ("/events/1/1", 200, "&#60;script&#62;alert(1)&#60;/script&#62;"),
        ("/events/1/2", 200, "request id"),
        ("/events/1/2", 200, "<code>spool.keep_events</code>"),
        ("/events/1/99", 404, "not kept any more"),
        ("/events/x/y", 404, "not kept any more"),
        ("/quarantine", 200, "rejected"),
        ("/quarantine/1", 200, "&#60;script&#62;alert(1)&#60;/script&#62;"),
        ("/quarantine/99", 404, "has left the quarantine"),
        ("/quarantine?from=99", 200, "No entry is left"),
        ("/integrations", 200, "configuration file"),
        ("/integrations/new", 200, "Save and deliver"),
        ("/integrations/file/uk", 200, "kept as it is"),
        ("/integrations/stored/uk", 404, "no such integration"),
        ("/nowhere", 404, "no such page"),
        (
            "/events?integration=%3Cscript%3Ealert(1)%3C/script%3E&from=%22%3E",
            200,
            "fits this filter",
        ),
        ("/login", 303, ""),
        ("/assets/console.css", 200, "prefers-color-scheme: dark"),
        ("/assets/console.js", 200, "EventSource"),
        ("/assets/icon.svg", 200, "<svg"),
    ] {
        let answer = visitor.get(path);
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(answer.body.contains(part), "{path} lacks {part}: {}", answer.body);
        assert!(!answer.body.contains("the-key-of-uk"), "{path}");
        is_kept_in(&answer, path);
    }
    let stranger = Visitor::new(&daemon);
    is_kept_in(&stranger.get("/login"), "/login");
    is_kept_in(&stranger.ask("GET", "/", "Host: x\r\n", ""), "a stranger's");
}

/// Goal: a kept event is shown beside the record that it became, each under its heading, escaped; and nothing is said to be
/// missing.
#[test]
fn an_event_and_its_record_stand_side_by_side() {
    let upstream = Upstream::start(None, &[]);
    let host = Host::new(&upstream.url, "key", "").with_console("");
    let daemon = Host::start_as(host.command(&["--set", "spool.keep_events=true"]));
    send(&host, &bad("b-1"));
    let page = Visitor::signed_in(&host, &daemon).get("/events/1/1");
    is_kept_in(&page, "/events/1/1");
    let (before, after) = page.body.split_once("<h2 id=\"after\">After the mapping</h2>").unwrap();
    let (_, before) = before.split_once("<h2 id=\"before\">Before the mapping</h2>").unwrap();
    let evil = "&#60;script&#62;alert(1)&#60;/script&#62;";
    assert!(before.contains("&#34;name&#34;") && before.contains(evil), "{before}");
    assert!(after.contains("&#34;product_name&#34;") && after.contains(evil), "{after}");
    assert!(!page.body.contains("spool.keep_events"));
}

/// Goal: by forms alone, integrations are paused, resumed and retried, and entries leave the quarantine.
#[test]
fn forms_do_what_an_operator_may_do() {
    let upstream = Upstream::start(None, &["poison=poisoned"]);
    let (host, daemon) = start(&upstream);
    let visitor = Visitor::signed_in(&host, &daemon);
    let control =
        |action: &str| visitor.post("/control", &[("integration", "uk"), ("action", action)]);
    let paused = visitor.follow(&control("pause"));
    assert!(paused.body.contains("uk is paused"), "{}", paused.body);
    wait_until("the way back", || visitor.get("/").body.contains(">Resume<"));
    send(&host, &bad("b-1"));
    assert!(visitor.get("/events").body.contains("queued"));
    assert!(visitor.get("/events/1/1").body.contains("uk is paused"));
    assert!(visitor.follow(&control("resume")).body.contains("uk goes on"));
    wait_until("the record in the quarantine", || host.status()["quarantined"] == 1);
    assert!(visitor.follow(&control("retry-now")).body.contains("tried again now"));
    assert_eq!(control("explode").status, 400);
    let unknown = visitor.post("/control", &[("integration", "xx"), ("action", "pause")]);
    assert!(visitor.follow(&unknown).body.contains("Nothing was changed"));

    assert_eq!(visitor.post("/quarantine/retry", &[]).status, 400);
    upstream.handle.clear_faults();
    let retried = visitor.follow(&visitor.post("/quarantine/retry", &[("id", "1")]));
    assert!(retried.body.contains("1 entry was queued again"), "{}", retried.body);
    host.wait_until_settled();
    assert_eq!(
        (upstream.ids(), &host.status()["quarantined"]),
        (vec!["b-1".to_owned()], &0.into())
    );

    upstream.handle.add_fault("poison=poisoned".parse().unwrap());
    send(&host, &bad("b-2"));
    wait_until("the next one", || host.status()["quarantined"] == 1);
    filters_and_edits(&host, &visitor, &upstream);
    send(&host, &bad("b-3"));
    wait_until("the last one", || host.status()["quarantined"] == 1);
    let asked = visitor.post("/quarantine/drop", &[("all", "true")]);
    assert!(
        asked.status == 200 && asked.body.contains("Remove 1 entry for good?"),
        "{}",
        asked.body
    );
    assert_eq!(host.status()["quarantined"], 1, "nothing is removed before it is confirmed");
    let dropped = visitor.post("/quarantine/drop", &[("all", "true"), ("confirmed", "true")]);
    assert!(visitor.follow(&dropped).body.contains("removed for good"));
    assert_eq!(host.status()["quarantined"], 0);
    // A notice is shown once.
    assert!(!visitor.follow(&dropped).body.contains("removed for good"));
}

/// The entry is found by what it is, and goes on once what was wrong in it is mended, under its old id.
fn filters_and_edits(host: &Host, visitor: &Visitor, upstream: &Upstream) {
    assert!(visitor.get("/quarantine?reason=too_large").body.contains("No entry fits this filter"));
    let fitting = visitor.get("/quarantine?reason=rejected&integration=uk").body;
    assert!(fitting.contains("Retry all that fit") && fitting.contains("b-2"), "{fitting}");
    let asked = visitor.post("/quarantine/drop", &[("fitting", "true"), ("reason", "rejected")]);
    assert!(
        asked.body.contains("Remove every entry that fits the filter for good?"),
        "{}",
        asked.body
    );
    let nothing = visitor.post("/quarantine/drop", &[("fitting", "true"), ("confirmed", "true")]);
    assert_eq!((nothing.status, &host.status()["quarantined"]), (400, &1.into()));

    let page = fitting.split("href=\"/quarantine/").nth(1).unwrap().split('"').next().unwrap();
    let path = format!("/quarantine/{page}/edit");
    let wrong = visitor.post(&path, &[("body", r#"{"@type":"custom_event","id":"another"}"#)]);
    assert_eq!(wrong.status, 422);
    assert!(wrong.body.contains("must stay") && wrong.body.contains("another"), "{}", wrong.body);
    let mended = r#"{"@type":"custom_event","id":"b-2","timestamp":"2026-06-06T15:32:52+00:00","event_type":"product_viewed","properties":{"a":79.00}}"#;
    let edited = visitor.post(&path, &[("body", mended)]);
    assert!(visitor.follow(&edited).body.contains("queued again as it was edited"));
    wait_until("its delivery", || upstream.ids().contains(&"b-2".to_owned()));
    assert_eq!(visitor.post(&path, &[("body", mended)]).status, 404);
}

/// Goal: what happens is told by itself, streams are few, and none of them keeps the daemon from stopping.
#[test]
fn live_parts_follow_and_end_with_the_daemon() {
    let upstream = Upstream::start(None, &[]);
    let (host, daemon) = start(&upstream);
    let visitor = Visitor::signed_in(&host, &daemon);
    let own = format!("Host: {}\r\nSec-Fetch-Site: same-origin\r\n", visitor.address);
    let follow = |path: &str| BufReader::new(visitor.begin("GET", path, &own, "")).lines();
    let mut lines = follow("/live/events?id=live-1");
    let mut until = |part: &str| {
        let found = lines.find(|line| line.as_ref().unwrap().contains(part));
        assert!(found.is_some(), "the stream ended before {part}");
    };
    until("text/event-stream");
    until("event: part");
    until("fits this filter");
    send(&host, &event("live-1"));
    until("live-1");
    let mut overview = follow("/live/overview");
    assert!(overview.any(|line| line.unwrap().contains("accounted for")));
    visitor.post("/control", &[("action", "pause")]);
    assert!(overview.any(|line| line.unwrap() == "data: uk: paused"));
    let mut others: Vec<_> = (0..14).map(|_| follow("/live/overview")).collect();
    for other in &mut others {
        assert!(other.any(|line| line.unwrap().contains("accounted for")));
    }
    assert_eq!(visitor.ask("GET", "/live/overview", &own, "").status, 503);
    let (code, took, log) = daemon.stop();
    assert_eq!(code, Some(0));
    assert!(
        took < Duration::from_secs(4) && !log.contains("were closed before"),
        "{took:?}\n{log}"
    );
}

#[test]
fn without_a_console_there_is_no_entrance() {
    let upstream = Upstream::start(None, &[]);
    let host = Host::new(&upstream.url, "key", "");
    let daemon = host.start();
    let output = host.pillarbox(&["console"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(told.contains("console = \"127.0.0.1:8481\""), "{told}");
    assert!(!host.folder.path().join("state/console.token").exists());
    drop(daemon);
}
