//! The client behind small proxies: each way in which one can fail, and what it is told.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::*;
use crate::forward::way::Proxy;
use crate::forward::{HttpUpstream, PushError, RetryPolicy, Upstream as _};

/// What a proxy does once it has read a head; nothing to say: it waits.
type Said = Option<&'static [u8]>;

/// A proxy on a free port, and the heads that it reads.
async fn proxy(said: Said) -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (seen, heads) = mpsc::channel(10);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                assert!(stream.read_buf(&mut head).await.unwrap() > 0);
            }
            seen.send(String::from_utf8(head).unwrap()).await.unwrap();
            match said {
                Some(said) => stream.write_all(said).await.unwrap(),
                None => std::future::pending().await,
            }
        }
    });
    (port, heads)
}

async fn push(proxy: &str, timeout: Duration) -> PushError {
    let proxy = Some(Proxy::parse(proxy).unwrap());
    let settings = Settings {
        integration: "uk".into(),
        endpoint: "https://endpoint.invalid/v2/push".parse().unwrap(),
        api_key: "key-that-must-not-be-seen".into(),
        batch_records_max: 100,
        linger: Duration::ZERO,
        timeout,
        retry: RetryPolicy { initial: Duration::ZERO, max: Duration::ZERO },
        storm_limit: 1000,
        pace: crate::forward::SharedPace::new(0.0),
        way: Way { proxy, authorities: None },
        consent: Vec::new(),
        poll_errors: Duration::ZERO,
    };
    let upstream = HttpUpstream::new(&settings, Some(RootCertStore::empty())).unwrap();
    assert!(!format!("{upstream:?}").contains("pass"), "{upstream:?}");
    upstream.push("[]".into()).await.unwrap_err()
}

#[tokio::test]
async fn a_proxy_that_fails_is_named_with_what_to_do() {
    let patience = Duration::from_secs(30);
    for (said, words) in [
        (&b"HTTP/1.1 407 Authenticate\r\n\r\n"[..], "(407): check the user and password"),
        (b"HTTP/1.0 401 Unauthorized\r\nx: y\r\n\r\n", "(401): check the user and password"),
        (b"HTTP/1.1 403 Filtered\r\n\r\n", "may not connect to the endpoint (403)"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "cannot connect to the endpoint (502)"),
        (b"HTTP/1.1 301 Moved\r\n\r\n", "cannot connect to the endpoint (301)"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "does not answer as an HTTP proxy"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "does not answer as an HTTP proxy"),
        (b"HTTP/1.1\r\n\r\n", "does not answer as an HTTP proxy"),
        (&[b'x'; HEAD_BYTES_MAX + 1], "does not answer as an HTTP proxy"),
        (b"", "broke the connection off"),
        (b"HTTP/1.1 200 O", "broke the connection off"),
    ] {
        let (port, mut heads) = proxy(Some(said)).await;
        let failed = push(&format!("http://user:pass%40word@127.0.0.1:{port}"), patience).await;
        let PushError::Proxy(_) = failed else { panic!("{failed:?}") };
        let told = failed.to_string();
        assert!(told.starts_with(&format!("the proxy http://127.0.0.1:{port} ")), "{told}");
        assert!(told.contains(words) && !told.contains("pass%40word"), "{told}");
        let head = heads.recv().await.unwrap();
        assert!(head.starts_with("CONNECT endpoint.invalid:443 HTTP/1.1\r\n"), "{head}");
        // user:pass@word; and the key is for the endpoint alone.
        assert!(head.contains("Proxy-Authorization: Basic dXNlcjpwYXNzQHdvcmQ=\r\n"), "{head}");
        assert!(!head.contains("key-that-must-not-be-seen"), "{head}");
    }
}

#[tokio::test]
async fn a_proxy_that_cannot_be_reached_or_is_silent_is_named() {
    let patience = Duration::from_secs(30);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let refused = push(&closed, patience).await.to_string();
    assert!(refused.contains("cannot be reached: Connection refused"), "{refused}");

    // RFC 6761: `.invalid` never resolves.
    let unknown = push("http://proxy.invalid:3128", patience).await.to_string();
    assert!(unknown.contains("has a name that does not resolve"), "{unknown}");

    let (port, _heads) = proxy(None).await;
    let silent = push(&format!("http://127.0.0.1:{port}"), Duration::from_millis(300)).await;
    let PushError::Proxy(told) = &silent else { panic!("{silent:?}") };
    assert!(told.contains("made no connection to the endpoint within 270ms"), "{told}");
}

/// The tunnel stands, and what is behind it is no TLS: that is the endpoint's fault, or a false proxy's.
#[tokio::test]
async fn what_is_behind_the_tunnel_must_be_tls() {
    let (port, _heads) = proxy(Some(b"HTTP/1.1 200 OK\r\n\r\nno TLS")).await;
    let failed = push(&format!("http://127.0.0.1:{port}"), Duration::from_secs(30)).await;
    assert!(!matches!(failed, PushError::Proxy(_) | PushError::Timeout(_)), "{failed:?}");
}
