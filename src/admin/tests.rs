//! The operators' socket over a real spool: what is asked for over HTTP, and what then is on disk.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::service::PAGE_ENTRIES;
use super::{Ask, Delivered, Drafts, IntegrationError, Lane, Service, serve};
use crate::clock::UnixMillis;
use crate::forward::{Report, RetryPolicy, Settings, SharedPace, State, Way};
use crate::ingest::{Counters, Intake, Integration};
use crate::mapping::{Preset, Rules};
use crate::spool::model_tests::{damage, record};
use crate::spool::{
    Append, Content, Drive, Item, LaneId, Options, Origin, PersonKeys, QuarantineId, Quarantined,
    Seq, Spool, SyncMode,
};

fn settings(endpoint: &str) -> Settings {
    Settings {
        integration: "uk".into(),
        endpoint: endpoint.parse().unwrap(),
        api_key: "k".into(),
        batch_records_max: 100,
        linger: Duration::ZERO,
        timeout: Duration::from_secs(30),
        retry: RetryPolicy { initial: Duration::from_secs(1), max: Duration::from_secs(1) },
        storm_limit: 1000,
        pace: SharedPace::new(0.0),
        way: Way::default(),
        consent: Vec::new(),
        poll_errors: Duration::ZERO,
    }
}

/// A spool with one integration, and the socket over it.
struct Host {
    folder: TempDir,
    spool: Spool,
    lane: LaneId,
    report: watch::Sender<Report>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Host {
    async fn start() -> Host {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            directory: folder.path().join("spool"),
            sync: SyncMode::Always,
            cache_bytes: 4 << 20,
            records_max: 10_000,
            bytes_max: 1 << 30,
            free_disk_min_bytes: 0,
            keep_delivered: 10,
            keep_events: false,
            dedupe_window: 100,
            identities_max: 1_000_000,
        };
        let spool = Spool::open(options, Drive::Thread).unwrap();
        let lane = spool.lane("uk", 0).await.unwrap();
        let rules = Rules::new(Preset::Retail, Vec::new());
        let integrations =
            vec![Integration { name: "uk".into(), lanes: vec![lane], scope: lane.0, rules }];
        let intake = Arc::new(Intake::new(spool.clone(), integrations));
        let (report, reported) = watch::channel(Report::default());
        let lanes = vec![Lane { id: lane, report: reported, control: watch::Sender::default() }];
        let (meter, pace) = (Arc::default(), SharedPace::new(0.0));
        let delivered = vec![Delivered {
            name: "uk".into(),
            rules: Rules::new(Preset::Retail, Vec::new()),
            settings: settings("https://x/"),
            lanes,
            ledger: None,
            meter,
            pace,
        }];
        let counters = Arc::new(Counters::default());
        let (reloads, mut asked) = mpsc::channel::<Ask>(1);
        tokio::spawn(async move {
            while let Some(asked) = asked.recv().await {
                if let Ask::Reload(reply) = asked {
                    drop(reply.send(Err("line 7 is at fault".to_owned())));
                }
            }
        });
        let drafts = Drafts::new(|_, _| Err(IntegrationError::Stopping));
        let service = Service::new(spool.clone(), intake, counters, UnixMillis(7), reloads, drafts);
        service.deliver(delivered);
        let listener = UnixListener::bind(folder.path().join("admin.sock")).unwrap();
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(serve(listener, Arc::new(service), stopped));
        Host { folder, spool, lane, report, stop, serving }
    }

    /// One request over a connection of its own: status and body.
    async fn ask(&self, method: Method, path: &str, body: &str) -> (u16, String) {
        let stream = UnixStream::connect(self.folder.path().join("admin.sock")).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        let body = Full::new(Bytes::from(body.to_owned()));
        let request = Request::builder().method(method).uri(path).header("host", "x");
        let answer = sender.send_request(request.body(body).unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        drop(sender);
        connection.await.unwrap().unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(Method::GET, path, "").await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        let (status, body) = self.ask(Method::POST, path, &body.to_string()).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    async fn set_aside(&self, entries: Vec<Quarantined>) {
        let item = |entry| Item { once: None, content: Content::Quarantine(Box::new(entry)) };
        let items = entries.into_iter().map(item).collect();
        self.spool.append(Append { items, ..Append::default() }).await.unwrap();
    }

    async fn queued(&self) -> Vec<String> {
        let entries = self.spool.peek(self.lane, Seq(1), 10_000, 1 << 30).await.unwrap();
        entries.iter().map(|entry| String::from_utf8(entry.record.to_vec()).unwrap()).collect()
    }

    async fn stop(self) {
        self.stop.send_replace(true);
        self.serving.await.unwrap();
        self.spool.close().await;
    }
}

fn refused_record(lane: LaneId, number: u64) -> Quarantined {
    Quarantined {
        origin: Origin::Record {
            lane,
            integration: "uk".into(),
            seq: Seq(number),
            record_type: "custom_event".into(),
            person: PersonKeys::default(),
        },
        reason: "rejected".into(),
        detail: "no".into(),
        status: Some(400),
        at: UnixMillis(5),
        body: format!(r#"{{"id":"r-{number}","event_type":"nap","price":1.00}}"#).into(),
        first_at: UnixMillis(5),
    }
}

fn refused_event(body: &str) -> Quarantined {
    Quarantined {
        origin: Origin::Event { kind: "track".into(), integration: None },
        reason: "invalid_event".into(),
        detail: "event is missing".into(),
        status: None,
        at: UnixMillis(5),
        body: body.into(),
        first_at: UnixMillis(5),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_gathers_spool_forwarder_and_lanes_that_nobody_delivers() {
    let host = Host::start().await;
    host.spool.lane("old", 0).await.unwrap();
    host.set_aside(vec![refused_record(host.lane, 1)]).await;
    host.report.send_replace(Report { state: State::Unauthorized, ..Report::default() });
    let status = host.get("/v1/status").await;
    assert_eq!(status["pid"], std::process::id());
    assert_eq!((&status["started_at"], &status["refusing"]), (&json!(7), &Value::Null));
    assert_eq!(status["quarantined"], 1);
    let integrations = status["integrations"].as_array().unwrap();
    assert_eq!(integrations.len(), 2);
    assert_eq!(integrations[0]["report"]["state"], "unauthorized");
    assert_eq!(integrations[0]["endpoint"], "https://x/");
    assert_eq!(
        (&integrations[1]["name"], &integrations[1]["endpoint"]),
        (&json!("old"), &Value::Null)
    );
    host.stop().await;
}

/// What is no longer delivered can be dropped, and counts as erased; what is delivered cannot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_nobody_delivers_can_be_dropped() {
    let host = Host::start().await;
    let old = host.spool.lane("old", 0).await.unwrap();
    let content = |lane| Content::Record {
        lane,
        record_type: Arc::from("custom_event"),
        record: Bytes::from_static(b"{}"),
        person: PersonKeys::default(),
        first_seen: None,
        event: None,
    };
    for lane in [old, host.lane] {
        let items = (0..2500).map(|_| Item { once: None, content: content(lane) }).collect();
        host.spool.append(Append { items, ..Append::default() }).await.unwrap();
    }
    let drop_queue = |name: &str| format!("/v1/integrations/{name}/drop-queue");
    let (status, body) = host.ask(Method::POST, &drop_queue("uk"), "").await;
    assert!(status == 409 && body.contains("remove it from the configuration"), "{body}");
    assert_eq!(host.ask(Method::POST, &drop_queue("nobody"), "").await.0, 404);
    assert_eq!(host.ask(Method::GET, &drop_queue("old"), "").await.0, 404);
    // Two at once do not get into each other's way.
    let path = drop_queue("old");
    let (one, other) =
        tokio::join!(host.ask(Method::POST, &path, ""), host.ask(Method::POST, &path, ""));
    let mut answers = [one, other];
    answers.sort();
    assert_eq!(answers[0], (200, r#"{"records":0,"bytes":0}"#.to_owned()));
    assert_eq!(answers[1], (200, r#"{"records":2500,"bytes":5000}"#.to_owned()));
    let left = host.spool.stats(old).await.unwrap();
    assert!(left.erased == 2500 && left.queued_records == 0 && left.is_conserved());
    assert_eq!(host.spool.stats(host.lane).await.unwrap().queued_records, 2500);
    host.stop().await;
}

/// Goal: of a damaged queue goes what can be read, and the damage is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_queue_is_dropped_up_to_the_damage() {
    let host = Host::start().await;
    let old = host.spool.lane("old", 0).await.unwrap();
    for n in 1..=3 {
        let items = vec![record(old, "t", format!("record-{n}").as_bytes())];
        host.spool.append(Append { items, ..Append::default() }).await.unwrap();
    }
    damage(&host.folder.path().join("spool/log/0000000001.log"), "record-3");
    let (status, body) = host.ask(Method::POST, "/v1/integrations/old/drop-queue", "").await;
    assert!(status == 500 && body.contains("damaged at lane"), "{status} {body}");
    assert_eq!(host.spool.cursor(old), Seq(3));
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_is_passed_on_and_its_refusal_told() {
    let host = Host::start().await;
    let (status, body) = host.ask(Method::POST, "/v1/reload", "").await;
    assert_eq!(status, 409);
    assert!(body.contains("not_reloaded") && body.contains("line 7 is at fault"), "{body}");
    assert_eq!(host.ask(Method::GET, "/v1/reload", "").await.0, 405);
    host.stop().await;
}

/// Pages by ids and by the export give the same entries, each once, in order, with their bytes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_quarantine_is_listed_shown_and_exported_page_by_page() {
    let host = Host::start().await;
    let count = PAGE_ENTRIES as u64 + 30;
    host.set_aside((1..=count).map(|number| refused_record(host.lane, number)).collect()).await;
    let first = host.get("/v1/quarantine?limit=1000").await;
    assert_eq!(first.as_array().unwrap().len(), PAGE_ENTRIES);
    assert!(first[0].get("body").is_none(), "bodies only when asked for");
    assert_eq!((&first[0]["record_id"], &first[0]["event_type"]), (&json!("r-1"), &json!("nap")));
    let next = host.get("/v1/quarantine?from=101&limit=2&bodies").await;
    assert_eq!(next[1]["body"]["id"], "r-102");
    let (mut from, mut export) = (0, String::new());
    loop {
        let path = format!("/v1/quarantine/export?from={from}");
        let (status, page) = host.ask(Method::GET, &path, "").await;
        assert_eq!(status, 200, "{page}");
        let Some(last) = page.lines().last() else { break };
        from = serde_json::from_str::<Value>(last).unwrap()["id"].as_u64().unwrap() + 1;
        export += &page;
    }
    let ids: Vec<u64> = export
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids, (1..=count).collect::<Vec<_>>());
    assert!(export.contains(r#""body":{"id":"r-130","event_type":"nap","price":1.00}"#));
    let (status, shown) = host.ask(Method::GET, "/v1/quarantine/3", "").await;
    assert!(status == 200 && shown.contains(r#""price":1.00"#), "{shown}");
    host.stop().await;
}

/// A page of large events is closed early, and the pages together still are everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_is_bounded_in_bytes() {
    let host = Host::start().await;
    let large = format!(r#"{{"type":"track","pad":"{}"}}"#, "x".repeat(500_000));
    for _ in 0..20 {
        host.set_aside(vec![refused_event(&large)]).await;
    }
    let mut seen = Vec::new();
    loop {
        let from = seen.last().map_or(0, |id| id + 1);
        let page = host.get(&format!("/v1/quarantine?from={from}&limit=100")).await;
        let page: Vec<u64> =
            page.as_array().unwrap().iter().map(|entry| entry["id"].as_u64().unwrap()).collect();
        if page.is_empty() {
            break;
        }
        assert!(page.len() <= 16, "{} large entries in a page", page.len());
        seen.extend(page);
    }
    assert_eq!(seen, (1..=20).collect::<Vec<_>>());
    host.stop().await;
}

/// Promises 4 and 6: the same bytes at the end of the lane, each once, and what stays says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_queues_each_entry_once_in_order_with_its_bytes() {
    let host = Host::start().await;
    let event = r#"{"type":"page","messageId":"p","timestamp":"2026-06-06T15:32:52Z"}"#;
    let old = host.spool.lane("old", 0).await.unwrap();
    let mut entries: Vec<_> = (1..=250).map(|number| refused_record(host.lane, number)).collect();
    entries.insert(120, refused_event(event)); // entry 121
    entries.push(refused_event(r#"{"type":"track"}"#)); // entry 252
    entries.push(refused_record(old, 1)); // entry 253
    host.set_aside(entries).await;
    let released = host.post("/v1/quarantine/retry", &json!({"ids": [2, 2, 999, 1]})).await;
    assert_eq!((&released["released"], &released["gone"]), (&json!(2), &json!([999])));
    assert_eq!(host.queued().await.len(), 2);
    let released = host.post("/v1/quarantine/retry", &json!({"all": true})).await;
    assert_eq!(
        (&released["released"], &released["stopped"]),
        (&json!(249), &Value::Null),
        "{released}"
    );
    let kept = released["kept"].as_array().unwrap();
    assert_eq!((&kept[0]["id"], &kept[1]["id"], kept.len()), (&json!(252), &json!(253), 2));
    assert!(kept[1]["message"].as_str().unwrap().contains("not configured any more"), "{kept:?}");
    let queued = host.queued().await;
    let mut expected: Vec<String> = [2, 1]
        .into_iter()
        .chain(3..=250)
        .map(|number| String::from_utf8(refused_record(host.lane, number).body).unwrap())
        .collect();
    let page_view = queued.iter().position(|record| record.contains("page_view")).unwrap();
    assert_eq!(page_view, 120, "the event keeps its place among the records");
    expected.insert(page_view, queued[page_view].clone());
    assert_eq!(queued, expected);
    assert_eq!(host.spool.quarantine_count(), 2);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drop_removes_what_it_names_and_nothing_else() {
    let host = Host::start().await;
    host.set_aside((1..=300).map(|number| refused_record(host.lane, number)).collect()).await;
    for body in [r#"{"all":false}"#, "{}", r#"{"ids":[1],"all":true}"#, "[1]", "nonsense"] {
        let (status, answer) = host.ask(Method::POST, "/v1/quarantine/drop", body).await;
        assert!(status == 400 && answer.contains("invalid_request"), "{body}: {status} {answer}");
    }
    assert_eq!(host.spool.quarantine_count(), 300);
    let released = host.post("/v1/quarantine/drop", &json!({"ids": [300, 1]})).await;
    assert_eq!(released["released"], 2);
    let left = host.spool.quarantine(QuarantineId(0), 1000).await.unwrap();
    assert_eq!((left.len(), left[0].0, left[297].0), (298, QuarantineId(2), QuarantineId(299)));
    let released = host.post("/v1/quarantine/drop", &json!({"all": true})).await;
    assert_eq!((&released["released"], host.spool.quarantine_count()), (&json!(298), 0));
    assert!(host.queued().await.is_empty());
    host.stop().await;
}

/// Once the spool takes nothing any more, the rest is not tried, and is said to have stayed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_spool_stops_a_retry() {
    let host = Host::start().await;
    host.set_aside((1..=5).map(|number| refused_record(host.lane, number)).collect()).await;
    host.spool.close().await;
    let released = host.post("/v1/quarantine/retry", &json!({"all": true})).await;
    assert_eq!((&released["released"], released["kept"].as_array().unwrap().len()), (&json!(0), 5));
    assert_eq!(released["stopped"], "the spool is closed");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_asked_well_is_refused_with_a_code() {
    let host = Host::start().await;
    for (method, path, status, code) in [
        (Method::GET, "/nonsense", 404, "not_found"),
        (Method::GET, "/v1/quarantine/17", 404, "not_found"),
        (Method::GET, "/v1/quarantine/x", 404, "not_found"),
        (Method::POST, "/v1/status", 405, "method_not_allowed"),
        (Method::GET, "/v1/quarantine/drop", 405, "method_not_allowed"),
        (Method::GET, "/v1/quarantine?limit=many", 400, "invalid_request"),
        (Method::GET, "/v1/quarantine?from=-1", 400, "invalid_request"),
    ] {
        let (answered, body) = host.ask(method, path, "").await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((answered, &body["code"]), (status, &json!(code)), "{path}");
    }
    // Refused by its announced length: nothing of the body needs to arrive.
    let mut stream = UnixStream::connect(host.folder.path().join("admin.sock")).await.unwrap();
    let head = b"POST /v1/quarantine/retry HTTP/1.1\r\nhost: x\r\ncontent-length: 2000000\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 400");
    drop(stream);
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn further_operators_wait_and_are_served_then() {
    let host = Host::start().await;
    let socket = host.folder.path().join("admin.sock");
    let mut idle = Vec::new();
    for _ in 0..super::socket::CONNECTIONS_MAX {
        idle.push(UnixStream::connect(&socket).await.unwrap());
    }
    let mut asked = Box::pin(host.get("/v1/status"));
    let early = tokio::time::timeout(Duration::from_millis(100), &mut asked).await;
    assert!(early.is_err(), "served beyond the limit");
    drop(idle);
    assert_eq!(asked.await["quarantined"], 0);
    host.stop().await;
}

/// Goal: the debugger never passes over records that it cannot read.
#[tokio::test]
async fn damage_is_told_by_the_debugger() {
    let host = Host::start().await;
    for n in 1..=3 {
        let items =
            vec![record(host.lane, "custom_event", format!(r#"{{"id":"record-{n}"}}"#).as_bytes())];
        host.spool.append(Append { items, ..Append::default() }).await.unwrap();
    }
    let (status, body) = host.ask(Method::POST, "/v1/events", "{}").await;
    assert!(status == 200 && body.contains("record-3"), "{status} {body}");
    damage(&host.folder.path().join("spool/log/0000000001.log"), "record-2");
    let (status, body) = host.ask(Method::POST, "/v1/events", "{}").await;
    assert!(status == 500 && body.contains("damaged at lane 1 seq 2"), "{status} {body}");
    host.stop().await;
}

/// A scraper gets the format that it reads, by its `Accept`, and is told which.
#[tokio::test]
async fn metrics_are_told_in_the_format_that_was_asked_for() {
    let host = Host::start().await;
    let (status, body) = host.ask(Method::GET, "/v1/metrics", "").await;
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("pillarbox_up 1\n") && body.ends_with("# EOF\n"), "{body}");
    assert_eq!(host.ask(Method::POST, "/v1/metrics", "").await.0, 405);
    let stream = UnixStream::connect(host.folder.path().join("admin.sock")).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    for (accept, content_type) in [
        ("*/*", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("text/plain", "text/plain; version=0.0.4; charset=utf-8"),
    ] {
        let request = Request::get("/v1/metrics").header("host", "x").header("accept", accept);
        let request = request.body(Full::new(Bytes::new())).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.headers()["content-type"], content_type);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body.ends_with(b"# EOF\n"), accept == "*/*");
    }
    drop(sender);
    connection.await.unwrap().unwrap();
    host.stop().await;
}
