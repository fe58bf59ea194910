//! The client against small servers on loopback: each way in which an endpoint can fail, and what leaves this host.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::forward::{RetryPolicy, SharedPace, Way};

const KEY: &str = "key-that-must-not-be-seen";
const BODY: &str = r#"[{"id":"a"}]"#;

fn settings(endpoint: &str, timeout: Duration) -> Settings {
    Settings {
        integration: "uk".into(),
        endpoint: endpoint.parse().unwrap(),
        api_key: KEY.into(),
        batch_records_max: 100,
        linger: Duration::ZERO,
        timeout,
        retry: RetryPolicy { initial: Duration::ZERO, max: Duration::ZERO },
        storm_limit: 1000,
        pace: SharedPace::new(0.0),
        way: Way::default(),
        consent: Vec::new(),
        poll_errors: Duration::ZERO,
    }
}

fn upstream(endpoint: &str) -> HttpUpstream {
    HttpUpstream::new(&settings(endpoint, Duration::from_secs(20)), None).unwrap()
}

async fn push(upstream: &HttpUpstream) -> Result<Answer, PushError> {
    upstream.push(Bytes::from_static(BODY.as_bytes())).await
}

/// Reads one request: its head in lower case, and its body.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<(String, Vec<u8>)> {
    let mut read = Vec::new();
    let end = loop {
        match read.windows(4).position(|window| window == b"\r\n\r\n") {
            Some(end) => break end + 4,
            None if stream.read_buf(&mut read).await.ok()? == 0 => return None,
            None => {}
        }
    };
    let head = String::from_utf8(read[..end].to_vec()).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.unwrap().parse().unwrap();
    let mut body = read.split_off(end);
    while body.len() < length {
        stream.read_buf(&mut body).await.ok()?;
    }
    Some((head, body))
}

/// What a server does once it has read a request.
#[derive(Clone)]
enum Then {
    /// Sends these bytes and keeps the connection.
    Say(Vec<u8>),
    /// Sends these bytes and closes.
    SayAndClose(Vec<u8>),
    /// Closes with a reset.
    Reset,
    /// Sends these bytes, then nothing.
    Hang(Vec<u8>),
}

fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let bytes = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {bytes}\r\n\r\n{body}").into_bytes()
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, then: &Then, seen: &Seen) {
    while let Some(request) = read_request(&mut stream).await {
        seen.send(request).await.unwrap();
        match then {
            Then::Say(bytes) => stream.write_all(bytes).await.unwrap(),
            // The client may have left already.
            Then::SayAndClose(bytes) => return drop(stream.write_all(bytes).await),
            Then::Reset => return,
            Then::Hang(bytes) => {
                stream.write_all(bytes).await.unwrap();
                std::future::pending::<()>().await;
            }
        }
    }
}

type Seen = mpsc::Sender<(String, Vec<u8>)>;

/// A server on a free port; what it reads comes out of the channel, a connection counts by its number.
async fn server(then: Then) -> (String, mpsc::Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, requests) = mpsc::channel(100);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if matches!(then, Then::Reset) {
                stream.set_zero_linger().unwrap();
            }
            let (then, seen) = (then.clone(), seen.clone());
            tokio::spawn(async move { serve(stream, &then, &seen).await });
        }
    });
    (format!("http://{address}/v2/push"), requests)
}

#[tokio::test]
async fn a_push_is_what_ometria_documents() {
    let headers = "Retry-After: 7\r\nX-QueueSize-Remaining: 49000\r\n";
    let (endpoint, mut requests) =
        server(Then::Say(answer("202 Accepted", headers, "{\"status\":\"OK\"}"))).await;
    let upstream = upstream(&endpoint);
    for _ in 0..2 {
        let answer = push(&upstream).await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (202, "{\"status\":\"OK\"}"));
        assert_eq!(
            (answer.retry_after.as_deref(), answer.queue_remaining),
            (Some("7"), Some(49000))
        );
        let (head, body) = requests.recv().await.unwrap();
        assert_eq!(body, BODY.as_bytes());
        for line in [
            "post /v2/push http/1.1",
            "content-type: application/json",
            concat!("user-agent: pillarbox/", env!("CARGO_PKG_VERSION")),
            &format!("x-ometria-auth: {KEY}"),
        ] {
            assert!(head.lines().any(|found| found == line), "{line:?} in {head}");
        }
    }
    // Promise 8
    assert!(!format!("{upstream:?}").contains(KEY));
}

#[tokio::test]
async fn no_answer_but_what_was_said_is_made_up() {
    for (said, status) in [
        (answer("200 OK", "", "<html>portal"), 200),
        (b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(), 204),
        (answer("403 Forbidden", "", ""), 403),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n".to_vec(),
            503,
        ),
    ] {
        let (endpoint, _requests) = server(Then::Say(said)).await;
        assert_eq!(push(&upstream(&endpoint)).await.unwrap().status, status);
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (elsewhere, mut requests) = server(Then::Say(answer("202 Accepted", "", ""))).await;
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        let location = format!("Location: {elsewhere}\r\n");
        let (endpoint, _requests) = server(Then::Say(answer(status, &location, ""))).await;
        let answered = push(&upstream(&endpoint)).await.unwrap().status;
        assert_eq!(answered.to_string(), status[..3]);
    }
    assert!(requests.try_recv().is_err());
}

#[tokio::test]
async fn a_failure_is_sorted_and_tried_once() {
    let cut = b"HTTP/1.1 202 Acc".to_vec();
    for (then, variant) in [
        (Then::SayAndClose(Vec::new()), "Closed("),
        (Then::SayAndClose(cut), "Closed("),
        (Then::Reset, "Closed("),
        (Then::SayAndClose(b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec()), "NotHttp("),
        (Then::SayAndClose(b"\x15\x03\x01\x00\x02\x02\x46\r\n\r\n".to_vec()), "NotHttp("),
    ] {
        let (endpoint, mut requests) = server(then).await;
        let failed = push(&upstream(&endpoint)).await.unwrap_err();
        assert!(format!("{failed:?}").starts_with(variant), "{failed:?}, not {variant}");
        assert!(!failed.to_string().contains(KEY));
        assert!(requests.try_recv().is_ok());
        assert!(requests.try_recv().is_err(), "each attempt is the forwarder's");
    }
}

#[tokio::test]
async fn a_closed_port_is_refused_and_a_wrong_name_does_not_resolve() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let failed = push(&upstream(&endpoint)).await.unwrap_err();
    assert!(matches!(&failed, PushError::Connect(why) if why.contains("refused")), "{failed:?}");

    let roots = Some(RootCertStore::empty());
    // RFC 6761: `.invalid` never resolves.
    let settings = settings("https://pillarbox.invalid/", Duration::from_secs(20));
    let failed = push(&HttpUpstream::new(&settings, roots).unwrap()).await.unwrap_err();
    assert!(matches!(failed, PushError::Dns(_)), "{failed:?}");
}

#[tokio::test]
async fn an_attempt_has_a_time_out_and_a_status_outlives_it() {
    let timeout = Duration::from_millis(300);
    let (endpoint, _requests) = server(Then::Hang(Vec::new())).await;
    let silent = HttpUpstream::new(&settings(&endpoint, timeout), None).unwrap();
    assert_eq!(push(&silent).await.unwrap_err(), PushError::Timeout(timeout));

    let begun = b"HTTP/1.1 202 Accepted\r\ncontent-length: 100\r\n\r\n{\"sta".to_vec();
    for then in [Then::Hang(begun.clone()), Then::SayAndClose(begun)] {
        let (endpoint, _requests) = server(then).await;
        let upstream = HttpUpstream::new(&settings(&endpoint, timeout), None).unwrap();
        let answer = push(&upstream).await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (202, "{\"sta"));
    }
}

#[tokio::test]
async fn an_answer_is_read_up_to_its_limit_and_without_the_key() {
    let long = "x".repeat(ANSWER_BYTES_MAX + 5000);
    let (endpoint, _requests) = server(Then::Say(answer("400 Bad", "", &long))).await;
    let read = push(&upstream(&endpoint)).await.unwrap();
    assert_eq!((read.status, read.body.len()), (400, ANSWER_BYTES_MAX));
    assert_eq!(read.text().len(), DETAIL_BYTES_MAX);

    // Promise 8
    let echo = format!("{{\"x-ometria-auth\":\"{KEY}\",\"again\":\"{KEY}{KEY}\"}}");
    let (endpoint, _requests) = server(Then::Say(answer("400 Bad", "", &echo))).await;
    let read = push(&upstream(&endpoint)).await.unwrap();
    assert_eq!(read.text(), "{\"x-ometria-auth\":\"***\",\"again\":\"******\"}");
}

/// A CA of this name, and a server's certificate from it for `localhost`.
fn certificates(name: &str) -> (CertificateDer<'static>, Arc<ServerConfig>) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.distinguished_name.push(DnType::CommonName, name);
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = ca.self_signed(&ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        );
    (root.der().clone(), Arc::new(config.unwrap()))
}

/// A TLS server that accepts everything; its port.
async fn tls_server(config: Arc<ServerConfig>) -> (u16, mpsc::Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (seen, requests) = mpsc::channel(100);
    tokio::spawn(async move {
        let then = Then::Say(answer("202 Accepted", "", "{}"));
        while let Ok((stream, _)) = listener.accept().await {
            let accepted = tokio_rustls::TlsAcceptor::from(config.clone()).accept(stream).await;
            // A client without trust breaks the handshake off.
            if let Ok(stream) = accepted {
                let (then, seen) = (then.clone(), seen.clone());
                tokio::spawn(async move { serve(stream, &then, &seen).await });
            }
        }
    });
    (port, requests)
}

/// A server that answers whatever comes with HTTP, as one without TLS answers a handshake; its port.
async fn plain_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut hello = [0; 4096];
            // Reading what came first keeps the close from being a reset.
            if stream.read(&mut hello).await.is_ok() {
                drop(stream.write_all(&answer("400 Bad Request", "", "")).await);
            }
        }
    });
    port
}

#[tokio::test]
async fn tls_is_always_verified() {
    let (root, config) = certificates("ours");
    let (port, mut requests) = tls_server(config).await;
    let mut trusted = RootCertStore::empty();
    trusted.add(root).unwrap();
    let mut others = RootCertStore::empty();
    others.add(certificates("another").0).unwrap();
    let plain = format!("https://localhost:{}/", plain_server().await);
    for (endpoint, roots, words) in [
        (format!("https://localhost:{port}/"), others, "`ca_file`"),
        (format!("https://127.0.0.1:{port}/"), trusted.clone(), "check the name in `endpoint`"),
        (plain, trusted.clone(), "does not speak TLS"),
    ] {
        let settings = settings(&endpoint, Duration::from_secs(20));
        let failed = push(&HttpUpstream::new(&settings, Some(roots)).unwrap()).await.unwrap_err();
        let PushError::Tls(why) = &failed else { panic!("{failed:?}") };
        assert!(why.contains(words), "{why}");
    }
    assert!(requests.try_recv().is_err(), "nothing was sent without trust");
    let settings = settings(&format!("https://localhost:{port}/"), Duration::from_secs(20));
    let upstream = HttpUpstream::new(&settings, Some(trusted)).unwrap();
    assert_eq!(push(&upstream).await.unwrap().status, 202);
    assert_eq!(requests.recv().await.unwrap().1, BODY.as_bytes());
}

#[test]
fn the_key_travels_only_over_tls_or_on_this_host() {
    for (endpoint, allowed) in [
        ("https://api.ometria.com/v2/push", true),
        ("http://127.0.0.1:8480/v2/push", true),
        ("http://127.9.9.9/", true),
        ("http://[::1]:80/", true),
        ("http://localhost/", true),
        ("http://api.ometria.com/v2/push", false),
        ("http://localhost.example.com/", false),
        ("http://10.0.0.1/", false),
        ("http://0.0.0.0/", false),
        ("ftp://localhost/", false),
        ("/v2/push", false),
    ] {
        let settings = settings(endpoint, Duration::from_secs(1));
        let made = HttpUpstream::new(&settings, Some(RootCertStore::empty()));
        assert_eq!(made.is_ok(), allowed, "{endpoint}");
    }
    let mut settings = settings("https://api.ometria.com/", Duration::from_secs(1));
    settings.api_key = "two\nlines-of-key".into();
    let refused = HttpUpstream::new(&settings, Some(RootCertStore::empty())).unwrap_err();
    assert!(!format!("{refused:?}").contains("lines-of-key"));
}
