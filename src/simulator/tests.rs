//! The simulator over real loopback sockets, as a client sees it.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;

/// A simulator that runs; dropping `stop` shuts it down.
struct Running {
    url: String,
    address: SocketAddr,
    handle: Handle,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn start(faults: &[&str]) -> Running {
    let faults = faults.iter().map(|text| text.parse().unwrap()).collect();
    start_with(Options { faults, ..Options::default() }).await
}

async fn start_with(options: Options) -> Running {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let simulator = Simulator::bind(Options { listen, ..options }).await.unwrap();
    let (stop, stopped) = oneshot::channel();
    let (url, address, handle) = (simulator.url(), simulator.address(), simulator.handle());
    let task = tokio::spawn(simulator.run(async {
        stopped.await.unwrap_or_default();
    }));
    Running { url, address, handle, stop, task }
}

impl Running {
    async fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let connection = tokio::spawn(connection);
        Client { sender, connection }
    }

    /// One request on a connection of its own.
    async fn request(&self, method: &str, path: &str, body: &str) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(path).body(body.to_owned()).unwrap();
        let answer = self.client().await.send(request).await.unwrap();
        (answer.0, answer.2)
    }
}

struct Client {
    sender: SendRequest<Full<Bytes>>,
    connection: JoinHandle<hyper::Result<()>>,
}

impl Client {
    async fn send(
        &mut self,
        request: Request<String>,
    ) -> hyper::Result<(StatusCode, HeaderMap, String)> {
        self.sender.ready().await?;
        let answer = self.sender.send_request(request.map(Full::from)).await?;
        let (head, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok((head.status, head.headers, String::from_utf8(body.to_vec()).unwrap()))
    }

    async fn push(&mut self, body: &str) -> hyper::Result<(StatusCode, HeaderMap, String)> {
        self.send(push_request(body)).await
    }
}

fn push_request(body: &str) -> Request<String> {
    Request::post("/v2/push")
        .header("X-Ometria-Auth", "key")
        .header("Content-Type", "application/json")
        .body(body.to_owned())
        .unwrap()
}

fn records(ids: &[&str]) -> String {
    let record = |id: &&str| format!(r#"{{"@type":"order","id":"{id}"}}"#);
    format!("[{}]", ids.iter().map(record).collect::<Vec<_>>().join(","))
}

#[tokio::test]
async fn a_good_push_is_accepted_and_kept_byte_for_byte() {
    let running = start(&[]).await;
    let mut client = running.client().await;
    let first = "{ \"@type\":\"custom_event\",\n \"id\":\"a\",\"timestamp\":\"2023-05-25T15:32:52Z\",\
                 \"event_type\":\"view\",\"properties\":{\"price\":79.00}}";
    let (status, headers, body) = client.push(&format!("[ {first} ]")).await.unwrap();
    assert_eq!(
        (status, &headers["content-type"]),
        (StatusCode::ACCEPTED, &"application/json".parse().unwrap())
    );
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&body["status"], &body["accepted"], &body["rejected"]),
        (&json!("OK"), &json!(1), &json!(0))
    );
    body["request_id"].as_str().unwrap().parse::<uuid::Uuid>().unwrap();
    assert_eq!(client.push(&records(&["b", "c"])).await.unwrap().0, StatusCode::ACCEPTED);

    let kept = running.handle.records();
    assert_eq!(kept[0].body, first);
    assert_eq!(kept[0].event_type.as_deref(), Some("view"));
    let seen: Vec<_> =
        kept.iter().map(|record| (record.seq, record.id.as_str(), record.push)).collect();
    assert_eq!(seen, [(1, "a", 1), (2, "b", 2), (3, "c", 2)]);
    assert_eq!(running.handle.pushes()[1].record_ids, ["b", "c"]);
    let counters = running.handle.counters();
    assert_eq!((counters.pushes, counters.records_accepted, counters.connections), (2, 3, 1));

    let (_, ndjson) = running.request("GET", "/_simulator/records", "").await;
    let second = r#"{"@type":"order","id":"b"}"#;
    assert!(ndjson.starts_with(&format!("{}\n{second}\n", first.replace('\n', " "))), "{ndjson}");
    assert_eq!(ndjson.lines().count(), 3);
}

#[tokio::test]
async fn refusals_name_their_reason_and_keep_the_connection() {
    let api_key = Some(SecretString::from("key"));
    let running = start_with(Options { api_key, ..Options::default() }).await;
    let mut client = running.client().await;
    let good = records(&["a"]);
    let no_key = Request::post("/v2/push").body(good.clone()).unwrap();
    let wrong_key =
        Request::post("/v2/push").header("x-ometria-auth", "k").body(good.clone()).unwrap();
    let no_type =
        Request::post("/v2/push").header("x-ometria-auth", "key").body(good.clone()).unwrap();
    let table = [
        (no_key, StatusCode::FORBIDDEN, "X-Ometria-Auth"),
        (wrong_key, StatusCode::FORBIDDEN, "X-Ometria-Auth"),
        (no_type, StatusCode::BAD_REQUEST, "Content-Type"),
        (push_request("{}"), StatusCode::BAD_REQUEST, "not an array"),
        (
            push_request(r#"[{"@type":"order"}]"#),
            StatusCode::BAD_REQUEST,
            "id is missing. (record 0)",
        ),
    ];
    for (request, status, reason) in table {
        let answer = client.send(request).await.unwrap();
        assert_eq!(answer.0, status, "{reason}");
        let body: Value = serde_json::from_str(&answer.2).unwrap();
        assert_eq!(body["status"], "error");
        assert!(body["message"].as_str().unwrap().contains(reason), "{body}");
    }
    assert_eq!(client.push(&good).await.unwrap().0, StatusCode::ACCEPTED);
    let counters = running.handle.counters();
    assert_eq!(
        (counters.pushes_refused, counters.pushes_accepted, counters.connections),
        (5, 1, 1)
    );
}

#[tokio::test]
async fn other_paths_methods_and_sizes_are_told_apart() {
    let running = start(&[]).await;
    let mut client = running.client().await;
    for (method, path, allow) in [
        ("GET", "/v2/push", "POST"),
        ("PUT", "/v2/push", "POST"),
        ("POST", "/v2/push/_errors", "GET"),
        ("POST", "/_simulator/stats", "GET"),
        ("PUT", "/_simulator/faults", "GET, POST, DELETE"),
    ] {
        let request = Request::builder().method(method).uri(path).body(String::new()).unwrap();
        let (status, headers, _) = client.send(request).await.unwrap();
        assert_eq!(
            (status, headers["allow"].to_str().unwrap()),
            (StatusCode::METHOD_NOT_ALLOWED, allow)
        );
    }
    for path in ["/", "/v2/push/", "/_simulator/", "/_simulator/other"] {
        assert_eq!(running.request("GET", path, "").await.0, StatusCode::NOT_FOUND, "{path}");
    }
    let errors =
        Request::get("/v2/push/_errors").header("X-Ometria-Auth", "key").body(String::new());
    assert_eq!(client.send(errors.unwrap()).await.unwrap().2, "[]");
    assert_eq!(running.request("GET", "/v2/push/_errors", "").await.0, StatusCode::FORBIDDEN);
    // Told by its Content-Length, so that the client need not be half way through its body.
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let head = "POST /v2/push HTTP/1.1\r\nhost: a\r\ncontent-length: 9000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(running.handle.counters().pushes, 0);
}

#[tokio::test]
async fn a_status_fault_answers_with_its_headers_and_body_and_accepts_nothing() {
    let text = "status=503,count=1,retry-after=2,queue-remaining=7,body=busy";
    let running = start(&[text, "status=204,count=1"]).await;
    let mut client = running.client().await;
    let (status, headers, body) = client.push(&records(&["a"])).await.unwrap();
    assert_eq!((status, body.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "busy"));
    assert_eq!(
        (&headers["retry-after"], &headers["x-queuesize-remaining"]),
        (&"2".parse().unwrap(), &"7".parse().unwrap())
    );
    assert_eq!(client.push(&records(&["a"])).await.unwrap().0, StatusCode::NO_CONTENT);
    assert_eq!(running.handle.counters().records_accepted, 0);
    assert_eq!(client.push(&records(&["a"])).await.unwrap().0, StatusCode::ACCEPTED);
    let pushes = running.handle.pushes();
    let seen: Vec<_> = pushes.iter().map(|push| (push.status, push.fault.as_deref())).collect();
    assert_eq!(
        seen,
        [(Some(503), Some(text)), (Some(204), Some("status=204,count=1")), (Some(202), None)]
    );
}

#[tokio::test]
async fn a_202_can_carry_a_body_and_headers_of_its_own() {
    let running = start(&[r#"status=202,queue-remaining=500,body={"status":"OK"}"#]).await;
    let mut client = running.client().await;
    let (status, headers, body) = client.push(&records(&["a"])).await.unwrap();
    assert_eq!((status, body.as_str()), (StatusCode::ACCEPTED, r#"{"status":"OK"}"#));
    assert_eq!(headers["x-queuesize-remaining"], "500");
    assert_eq!(running.handle.records().len(), 1);
    let (status, _, body) = client.push("[]").await.unwrap();
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body.contains("holds no record"), "{body}");
}

#[tokio::test]
async fn poison_turns_down_every_push_that_holds_it() {
    let running = start(&["poison=order-666"]).await;
    let mut client = running.client().await;
    let mut statuses = Vec::new();
    for ids in [&["order-1", "order-666"][..], &["order-1"], &["order-666"]] {
        statuses.push(client.push(&records(ids)).await.unwrap().0.as_u16());
    }
    assert_eq!(statuses, [400, 202, 400]);
    assert_eq!(running.handle.records()[0].id, "order-1");
}

#[tokio::test(start_paused = true)]
async fn a_delayed_push_is_accepted_before_its_answer() {
    let running = start(&["delay=250ms"]).await;
    let mut client = running.client().await;
    let started = tokio::time::Instant::now();
    let push = tokio::spawn(async move { client.push(&records(&["a"])).await.unwrap().0 });
    running.handle.wait_until(|counters| counters.records_accepted == 1).await;
    assert!(!push.is_finished());
    assert_eq!(push.await.unwrap(), StatusCode::ACCEPTED);
    assert!(started.elapsed() >= Duration::from_millis(250));
}

#[tokio::test]
async fn a_hanging_push_gets_no_answer_until_the_shutdown_cuts_it() {
    let running = start(&["hang,count=1"]).await;
    let mut client = running.client().await;
    let push = tokio::spawn(async move { client.push(&records(&["a"])).await });
    running.handle.wait_until(|counters| counters.pushes == 1).await;
    assert_eq!(
        running.client().await.push(&records(&["b"])).await.unwrap().0,
        StatusCode::ACCEPTED
    );
    assert!(!push.is_finished());
    running.stop.send(()).unwrap();
    assert!(push.await.unwrap().is_err());
    running.task.await.unwrap();
    assert_eq!(running.handle.records()[0].id, "b");
    assert_eq!(running.handle.pushes()[0].status, None);
}

#[tokio::test]
async fn a_reset_is_a_tcp_reset_and_only_one_of_them_accepts() {
    let running = start(&["reset,count=1", "accept-then-reset,count=1"]).await;
    for accepted in [0, 1] {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        let body = records(&["a"]);
        let head = format!(
            "POST /v2/push HTTP/1.1\r\nhost: a\r\nx-ometria-auth: key\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let ended = stream.read(&mut [0; 64]).await.unwrap_err();
        assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(running.handle.counters().records_accepted, accepted);
    }
    assert_eq!(
        running.client().await.push(&records(&["a"])).await.unwrap().0,
        StatusCode::ACCEPTED
    );
    let ids: Vec<_> = running.handle.records().into_iter().map(|record| record.id).collect();
    assert_eq!(ids, ["a", "a"]);
}

#[tokio::test]
async fn garbage_is_an_answer_that_no_client_can_parse() {
    let running = start(&["garbage,count=1"]).await;
    let mut client = running.client().await;
    let fault = client.push(&records(&["a"])).await.unwrap_err();
    assert!(fault.is_parse(), "{fault:?}");
    assert_eq!(running.handle.counters().records_accepted, 0);
}

#[tokio::test]
async fn faults_come_and_go_over_http() {
    let running = start(&[]).await;
    let one =
        running.request("POST", "/_simulator/faults", r#"{"fault":"status=503,count=1"}"#).await;
    assert_eq!(
        one,
        (StatusCode::OK, r#"[{"fault":"status=503,count=1","hits":0,"seen":0}]"#.to_owned())
    );
    let many =
        running.request("POST", "/_simulator/faults", r#"["poison=x","hang,every=9"]"#).await;
    assert_eq!(many.0, StatusCode::OK);
    for wrong in ["", "{}", r#"{"fault":7}"#, r#"["hang","stauts=1"]"#] {
        let (status, _) = running.request("POST", "/_simulator/faults", wrong).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    let mut client = running.client().await;
    assert_eq!(client.push(&records(&["x"])).await.unwrap().0.as_u16(), 503);
    let left: Vec<_> =
        running.handle.faults().into_iter().map(|active| (active.fault, active.seen)).collect();
    assert_eq!(left, [("poison=x".to_owned(), 1), ("hang,every=9".to_owned(), 1)]);
    assert_eq!(running.request("DELETE", "/_simulator/faults", "").await.1, "[]");
    assert_eq!(running.request("GET", "/_simulator/faults", "").await.1, "[]");
    assert_eq!(client.push(&records(&["x"])).await.unwrap().0, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn pushes_and_totals_are_shown_over_http() {
    let running = start(&[]).await;
    running.client().await.push(&records(&["a", "b"])).await.unwrap();
    let pushes = running.request("GET", "/_simulator/pushes", "").await.1;
    let pushes: Value = serde_json::from_str(&pushes).unwrap();
    assert_eq!(pushes[0]["record_ids"], json!(["a", "b"]));
    assert_eq!(pushes[0]["status"], 202);
    let stats = running.request("GET", "/_simulator/stats", "").await.1;
    let stats: Value = serde_json::from_str(&stats).unwrap();
    assert_eq!((&stats["pushes"], &stats["records_accepted"]), (&json!(1), &json!(2)));
    let cleared = running.request("DELETE", "/_simulator/records", "").await;
    assert_eq!(cleared, (StatusCode::OK, r#"{"cleared":2}"#.to_owned()));
    assert_eq!(running.request("GET", "/_simulator/records", "").await.1, "");
}

#[tokio::test]
async fn subscribers_get_each_push_in_order() {
    let running = start(&[]).await;
    let mut pushes = running.handle.subscribe();
    let mut client = running.client().await;
    for id in ["a", "b"] {
        client.push(&records(&[id])).await.unwrap();
        assert_eq!(pushes.recv().await.unwrap().record_ids, [id]);
    }
}

#[tokio::test]
async fn the_shutdown_ends_idle_connections_and_frees_the_address() {
    let running = start(&[]).await;
    let mut client = running.client().await;
    client.push(&records(&["a"])).await.unwrap();
    running.stop.send(()).unwrap();
    running.task.await.unwrap();
    client.connection.await.unwrap().unwrap();
    assert!(TcpStream::connect(running.address).await.is_err());
}

#[tokio::test]
async fn only_loopback_addresses_are_taken() {
    let listen = "0.0.0.0:0".parse().unwrap();
    let refused = Simulator::bind(Options { listen, ..Options::default() }).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    assert!(refused.to_string().contains("not a loopback address"), "{refused}");
    let running = start(&[]).await;
    assert_eq!(running.url, format!("http://{}/v2/push", running.address));
}
