//! The sender against a scripted daemon: whatever it answers, every event it can take arrives once, in order.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::net::UnixListener;

use super::*;

/// What the daemon does with a request, unless the body itself is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// Answers 503 and stores nothing.
    Refuse,
    /// Closes the connection before it has stored anything.
    Close,
    /// Stores everything, and closes the connection before the answer.
    CloseAfter,
}

/// A stand-in for the ingest socket that stores each `messageId` once.
#[derive(Default)]
struct Daemon {
    script: Mutex<VecDeque<Act>>,
    stored: Mutex<Vec<String>>,
    requests: Mutex<u64>,
}

impl Daemon {
    async fn serve(self: Arc<Self>, listener: UnixListener) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let daemon = self.clone();
            let answer = service_fn(move |request| {
                let daemon = daemon.clone();
                async move { daemon.answer(request).await }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, &'static str> {
        if request.uri().path() == "/health" {
            return Ok(Response::new(Full::default()));
        }
        let body = request.into_body().collect().await.unwrap().to_bytes();
        *self.requests.lock().unwrap() += 1;
        let act = self.script.lock().unwrap().pop_front();
        let say = |status: u16, body: String| {
            let response = Response::builder().status(status).header("retry-after", "30");
            Ok(response.body(Full::new(Bytes::from(body))).unwrap())
        };
        match act {
            Some(Act::Refuse) => {
                return say(503, r#"{"code":"spool_full","message":"full"}"#.into());
            }
            Some(Act::Close) => return Err("closed"),
            Some(Act::CloseAfter) | None => {}
        }
        if body.windows(6).any(|window| window == b"poison") {
            return say(400, r#"{"code":"invalid_json","message":"poisoned"}"#.into());
        }
        if body.windows(5).any(|window| window == b"large") {
            return Err("closed before the 413 could be read");
        }
        let events: Vec<serde_json::Value> = serde_json::from_slice(&body).unwrap();
        let (mut accepted, mut duplicate) = (0, 0);
        let mut stored = self.stored.lock().unwrap();
        for event in events {
            let id = event["messageId"].as_str().unwrap().to_owned();
            let known = stored.contains(&id);
            (accepted, duplicate) = (accepted + u64::from(!known), duplicate + u64::from(known));
            if !known {
                stored.push(id);
            }
        }
        if act == Some(Act::CloseAfter) {
            return Err("closed");
        }
        say(200, format!(r#"{{"accepted":{accepted},"duplicate":{duplicate}}}"#))
    }
}

/// Sends `lines`; returns what the daemon stored, what the sender says, and how it ended.
async fn sent(
    lines: &[String],
    script: &[Act],
    give_up: Option<Duration>,
) -> (Arc<Daemon>, String, Result<(), Failure>) {
    let folder: TempDir = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let daemon = Arc::new(Daemon {
        script: Mutex::new(script.iter().copied().collect()),
        ..Daemon::default()
    });
    let serving = tokio::spawn(daemon.clone().serve(UnixListener::bind(&socket).unwrap()));
    let file = folder.path().join("events");
    std::fs::write(&file, lines.join("\n")).unwrap();
    let mut sender = Sender {
        client: Some(Client::connect(&socket).await.unwrap()),
        socket,
        give_up,
        totals: Totals::default(),
        bar: ProgressBar::hidden(),
    };
    let mut lines = input::read(&[file], Lines::Events).unwrap();
    let ended = sender.all(&mut lines).await;
    serving.abort();
    (daemon, sender.totals.to_string(), ended)
}

fn events(count: usize) -> Vec<String> {
    (0..count).map(|number| format!(r#"{{"messageId":"{number}"}}"#)).collect()
}

fn ids(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(|number| number.to_string()).collect()
}

/// Promise 4: refusals, lost requests and lost answers in any order, and each event is stored once, in order.
#[tokio::test]
async fn whatever_happens_each_event_is_stored_once_in_order() {
    let script = [Act::CloseAfter, Act::Refuse, Act::Close, Act::CloseAfter];
    let (daemon, said, ended) = sent(&events(250), &script, None).await;
    ended.unwrap();
    assert_eq!(*daemon.stored.lock().unwrap(), ids(0..250));
    // A batch whose answer was lost is counted as seen before: it was stored, though nobody said so.
    assert!(said.starts_with("150 accepted, 100 seen before"), "{said}");
}

#[tokio::test]
async fn events_that_no_daemon_takes_cost_only_themselves() {
    let mut lines = events(230);
    for number in [0, 57, 58, 229] {
        lines[number] = r#"{"messageId":"poison"}"#.to_owned();
    }
    let (daemon, said, ended) = sent(&lines, &[], None).await;
    ended.unwrap();
    let good = (0..230).filter(|number| ![0, 57, 58, 229].contains(number));
    assert_eq!(*daemon.stored.lock().unwrap(), ids(good));
    assert!(said.starts_with("226 accepted") && said.ends_with("4 invalid lines"), "{said}");
}

/// A body that costs the connection each time, while the daemon is well, is isolated as one that is answered 413.
#[tokio::test]
async fn an_event_whose_refusal_never_arrives_costs_only_itself() {
    let mut lines = events(4);
    lines[2] = r#"{"messageId":"large"}"#.to_owned();
    let (daemon, said, ended) = sent(&lines, &[], None).await;
    ended.unwrap();
    assert_eq!(*daemon.stored.lock().unwrap(), ids([0, 1, 3]));
    assert!(said.starts_with("3 accepted") && said.ends_with("1 invalid lines"), "{said}");
}

#[tokio::test]
async fn a_limit_of_patience_ends_it_and_what_was_taken_is_said() {
    let mut script = vec![Act::Refuse; 100];
    let patience = Some(Duration::from_millis(200));
    let (daemon, said, ended) = sent(&events(10), &script, patience).await;
    assert!(matches!(ended, Err(Failure::Failed(_))), "{ended:?}");
    assert!(daemon.stored.lock().unwrap().is_empty() && said.starts_with("0 accepted"), "{said}");
    script.fill(Act::Close);
    let (_, _, ended) = sent(&events(10), &script, patience).await;
    assert!(matches!(ended, Err(Failure::Unreachable(_))), "{ended:?}");
}

/// An event that comes through a pipe is handed over though no other follows.
#[tokio::test]
async fn a_quiet_input_keeps_nothing_back() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s");
    let daemon = Arc::new(Daemon::default());
    let serving = tokio::spawn(daemon.clone().serve(UnixListener::bind(&socket).unwrap()));
    let (to, mut lines) = mpsc::channel(4);
    let mut sender = Sender {
        socket,
        client: None,
        give_up: None,
        totals: Totals::default(),
        bar: ProgressBar::hidden(),
    };
    let sending = tokio::spawn(async move { sender.all(&mut lines).await });
    let place = batch::Place { file: "stdin".into(), line: 1 };
    to.send(Input::Line(
        place,
        1,
        Ok(Some((batch::Kind::Event, br#"{"messageId":"a"}"#.to_vec()))),
    ))
    .await
    .unwrap();
    let arrived = async {
        while daemon.stored.lock().unwrap().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), arrived).await.unwrap();
    drop(to);
    sending.await.unwrap().unwrap();
    assert_eq!(*daemon.requests.lock().unwrap(), 1);
    serving.abort();
}
