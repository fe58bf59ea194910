//! Workload: a backlog of records of 400 bytes leaves in pushes of 100, one after the other, to a bare hyper server in
//! this process that answers 202. Limit: a bare hyper client on one connection that sends the same bodies, prebuilt, to
//! the same server: from the program's main thread, which is woken for each answer; and from a task, which need not be.
//! Ours reads the records from the spool and settles each push durably before the next.

mod support;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use pillarbox::forward::{self, Control, HttpUpstream, Report, RetryPolicy, Settings, SharedPace};
use pillarbox::spool::{Append, Content, Drive, Item, PersonKeys, Spool};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

const RECORD_BYTES: usize = 400;
const PUSH_RECORDS: u32 = 100;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let pushes = if support::smoke() { 2 } else { 300 };
    let directory = tempfile::tempdir_in(".").expect("a temporary folder on the disk under test");
    let server = runtime.block_on(Server::start());
    let spool = runtime
        .block_on(async { Spool::open(support::options(directory.path()), Drive::Thread) })
        .expect("a spool");
    let drained = || runtime.block_on(drain(&spool, &server, pushes));
    let records = pushes * PUSH_RECORDS;
    support::side_by_side("drain, pushes of 100", "records", records, drained, || {
        runtime.block_on(bare(server.address.clone(), pushes))
    });
    let name = "drain, pushes of 100, by a client in a task";
    support::side_by_side(name, "records", records, drained, || {
        runtime.block_on(runtime.spawn(bare(server.address.clone(), pushes))).expect("no panic")
    });
    runtime.block_on(spool.close());
}

/// Queues a backlog, then delivers it.
async fn drain(spool: &Spool, server: &Server, pushes: u32) -> Duration {
    let lane = spool.lane("bench", 0).await.expect("a lane");
    let record = Bytes::from(record());
    for _ in 0..pushes {
        let content = |_| Content::Record {
            lane,
            record_type: Arc::from("custom_event"),
            record: record.clone(),
            person: PersonKeys::default(),
            first_seen: None,
            event: None,
        };
        let items = (0..PUSH_RECORDS).map(|n| Item { once: None, content: content(n) }).collect();
        spool.append(Append { items, ..Append::default() }).await.expect("an append");
    }
    let settings = Settings {
        integration: "bench".into(),
        endpoint: format!("http://{}/v2/push", server.address).parse().expect("an address"),
        api_key: "key".into(),
        batch_records_max: 100,
        linger: Duration::ZERO,
        timeout: Duration::from_secs(30),
        retry: RetryPolicy { initial: Duration::from_millis(500), max: Duration::from_secs(300) },
        storm_limit: 1000,
        pace: SharedPace::new(0.0),
        way: forward::Way::default(),
        consent: Vec::new(),
        poll_errors: Duration::ZERO,
    };
    let upstream = HttpUpstream::new(&settings, None).expect("a client");
    let (report, _told) = watch::channel(Report::default());
    let (stop, stopped) = watch::channel(Control::default());
    server.due.store(pushes, Ordering::Release);
    let begun = Instant::now();
    let forwarder = forward::run(
        settings,
        spool.clone(),
        lane,
        upstream,
        report,
        fastrand::Rng::with_seed(1),
        stopped,
    );
    let forwarder = tokio::spawn(forwarder);
    // Who waited for the cursor from the beginning would be woken after each push.
    server.last.notified().await;
    let newest = *spool.newest(lane).borrow();
    spool.cursors(lane).wait_for(|cursor| *cursor > newest).await.expect("the spool is open");
    let took = begun.elapsed();
    stop.send_modify(|control| control.stop = true);
    forwarder.await.expect("no panic").expect("a clean end");
    took
}

async fn bare(address: String, pushes: u32) -> Duration {
    let mut body = vec![b'['];
    for n in 0..PUSH_RECORDS {
        body.extend(if n == 0 { &b""[..] } else { b"," });
        body.extend(record());
    }
    body.push(b']');
    let body = Bytes::from(body);
    let stream = TcpStream::connect(&address).await.expect("the server listens");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    let connection = tokio::spawn(connection);
    let begun = Instant::now();
    for _ in 0..pushes {
        let request = Request::post("/v2/push")
            .header("host", &address)
            .body(Full::new(body.clone()))
            .expect("a request");
        sender.ready().await.expect("a connection");
        let response = sender.send_request(request).await.expect("an answer");
        assert_eq!(response.status(), 202);
        response.into_body().collect().await.expect("a body");
    }
    let took = begun.elapsed();
    drop(sender);
    connection.await.expect("no panic").expect("a clean end");
    took
}

/// A server that reads every body and answers 202.
struct Server {
    address: String,
    /// Pushes that it is still to take before it tells `last`.
    due: Arc<AtomicU32>,
    last: Arc<Notify>,
}

impl Server {
    async fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (due, last) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let server = Server { address, due: due.clone(), last: last.clone() };
        let answer = move |request: Request<Incoming>| {
            let (due, last) = (due.clone(), last.clone());
            async move {
                request.into_body().collect().await.expect("a body");
                if due.fetch_sub(1, Ordering::AcqRel) == 1 {
                    last.notify_one();
                }
                let body = r#"{"status":"OK","request_id":"r","accepted":100,"rejected":0}"#;
                let body = Full::new(Bytes::from(body));
                Ok::<_, Infallible>(Response::builder().status(202).body(body).expect("a response"))
            }
        };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).expect("a socket");
                let connection = hyper::server::conn::http1::Builder::new();
                let answer = service_fn(answer.clone());
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), answer));
            }
        });
        server
    }
}

/// Of the shape that the mapping gives it.
fn record() -> Vec<u8> {
    let (begin, end) = (
        r#"{"@type":"custom_event","id":"evt_1","timestamp":"2099-06-06T15:32:52+00:00","event_type":"product_viewed","identity_email":"jane.doe@example.com","properties":{"product_name":""#,
        r#""}}"#,
    );
    let name = "x".repeat(RECORD_BYTES - begin.len() - end.len());
    format!("{begin}{name}{end}").into_bytes()
}
