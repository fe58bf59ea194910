//! Workload: 64 connections to a Unix socket, each sending the example event (one a request, or 100 in a batch) and
//! awaiting the answer before the next; and one connection alone. Ours answers after its commit.
//!
//! Limits: a bare hyper server on the same kind of socket that reads the body and answers 200, and stores nothing; a
//! plain file that gets the same bytes in as many appends as ours made commits, or one append a request, with an
//! fdatasync each.

mod support;

use std::cell::Cell;
use std::convert::Infallible;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use pillarbox::ingest::{self, Counters, Intake, Integration, Limits, Service};
use pillarbox::mapping::{Preset, Rules};
use pillarbox::socket;
use pillarbox::spool::{Drive, Spool, durable};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::Instant;

const CONNECTIONS: u32 = 64;
/// What the example event becomes, about.
const RECORD_BYTES: usize = 400;
const EVENT: &str = r#"{"type":"track","userId":"user-123","event":"Product Viewed","timestamp":"2026-06-06T15:32:52.417Z","properties":{"product_id":"SKU-A","product_name":"Merino Crew Jumper","variant":"navy-m","price":79.00,"currency":"GBP","category":"Knitwear"},"context":{"page":{"url":"https://example.com/products/merino-crew"}}}"#;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let directory = tempfile::tempdir_in(".").expect("a temporary folder on the disk under test");
    let (_stop, stopped) = watch::channel(false);
    let spool = runtime
        .block_on(async { Spool::open(support::options(directory.path()), Drive::Thread) })
        .expect("a spool");
    let ours = directory.path().join("ours.sock");
    let bare = directory.path().join("bare.sock");
    runtime.block_on(serve(&spool, &ours, stopped));
    runtime.block_on(async { serve_bare(UnixListener::bind(&bare).expect("a socket")) });
    let batch = format!("[{}]", vec![EVENT; 100].join(","));
    for (name, path, body, events) in [
        ("one event a request", "/v1/track", EVENT, 1),
        ("100 events a request", "/v1/batch", &batch, 100),
    ] {
        let requests = if support::smoke() {
            1
        } else if events == 1 {
            20
        } else {
            4
        };
        let body = Bytes::from(body.to_owned());
        support::side_by_side(
            &format!("ingest, {CONNECTIONS} connections, {name}"),
            "events",
            CONNECTIONS * requests * events,
            || runtime.block_on(send(&ours, path, &body, CONNECTIONS, requests)),
            || runtime.block_on(send(&bare, path, &body, CONNECTIONS, requests)),
        );
    }
    let mut file = File::create(directory.path().join("plain")).expect("a plain file");
    let body = Bytes::from(batch);
    let requests = if support::smoke() { 1 } else { 4 };
    let all = CONNECTIONS * requests;
    for (name, own) in [("same commits", true), ("a commit each", false)] {
        let commits = Cell::new(all);
        support::side_by_side(
            &format!("ingest, 100 a request, by a plain file, {name}"),
            "events",
            all * 100,
            || {
                let before = durable::flushes();
                let took = runtime.block_on(send(&ours, "/v1/batch", &body, CONNECTIONS, requests));
                let made = u32::try_from(durable::flushes() - before).expect("few");
                commits.set(if own { made.max(1) } else { all });
                took
            },
            || plain(&mut file, commits.get(), RECORD_BYTES * 100 * (all / commits.get()) as usize),
        );
    }
    let body = Bytes::from(EVENT);
    let requests = if support::smoke() { 1 } else { 200 };
    support::side_by_side(
        "ingest, a lone event, by a plain file",
        "events",
        requests,
        || runtime.block_on(send(&ours, "/v1/track", &body, 1, requests)),
        || plain(&mut file, requests, RECORD_BYTES),
    );
    runtime.block_on(spool.close());
}

/// Appends of `bytes` each, with an fdatasync each.
fn plain(file: &mut File, commits: u32, bytes: usize) -> Duration {
    let bytes = vec![b'x'; bytes];
    let begun = Instant::now();
    for _ in 0..commits {
        file.write_all(&bytes).and_then(|()| file.sync_data()).expect("a durable write");
    }
    begun.elapsed()
}

async fn send(
    socket: &Path,
    path: &'static str,
    body: &Bytes,
    connections: u32,
    requests: u32,
) -> Duration {
    let mut senders = Vec::new();
    for _ in 0..connections {
        let stream = UnixStream::connect(socket).await.expect("the server listens");
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tokio::spawn(connection);
        senders.push(sender);
    }
    let begun = Instant::now();
    let tasks: Vec<_> = senders
        .into_iter()
        .map(|mut sender| {
            let body = body.clone();
            tokio::spawn(async move {
                for _ in 0..requests {
                    let request = Request::post(path)
                        .header("host", "x")
                        .body(Full::new(body.clone()))
                        .expect("a request");
                    sender.ready().await.expect("a connection");
                    let response = sender.send_request(request).await.expect("an answer");
                    assert_eq!(response.status(), 200);
                    response.into_body().collect().await.expect("a body");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("every request is answered");
    }
    begun.elapsed()
}

async fn serve(spool: &Spool, socket: &Path, stopped: watch::Receiver<bool>) {
    let lane = spool.lane("bench", 0).await.expect("a lane");
    let integration = Integration {
        name: "bench".into(),
        lanes: vec![lane],
        scope: lane.0,
        rules: Rules::new(Preset::Retail, Vec::new()),
    };
    let intake = Arc::new(Intake::new(spool.clone(), vec![integration]));
    let limits = Limits {
        request_bytes_max: 1 << 20,
        connections_max: 512,
        read_timeout: Duration::from_secs(10),
    };
    let service =
        Arc::new(Service::new(intake, Arc::new(Counters::default()), limits, stopped.clone()));
    let listener = socket::bind(&PathBuf::from(socket), 0o600).expect("a socket");
    tokio::spawn(ingest::serve(listener, service, stopped));
}

fn serve_bare(listener: UnixListener) {
    let answer = |request: Request<Incoming>| async move {
        request.into_body().collect().await.expect("a body");
        let body =
            r#"{"success":true,"accepted":1,"dropped":0,"duplicate":0,"quarantined":0,"items":[]}"#;
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(body))))
    };
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service_fn(answer)));
        }
    });
}
