//! One HTTP attempt: a body in, an [`Answer`] or a [`PushError`] out. Never retries, never sleeps, follows no redirect.

use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use secrecy::ExposeSecret as _;

use super::Settings;
use crate::spool::DETAIL_BYTES_MAX;

/// Where pushes go. The seam at which the simulation puts a scripted upstream.
pub trait Upstream: Send + Sync {
    /// Makes one attempt.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the attempt: upstream may or may not have taken the records.
    fn push(&self, body: Bytes) -> impl Future<Output = Result<Answer, PushError>> + Send;
}

/// What upstream said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// `Retry-After` as it stands.
    pub retry_after: Option<String>,
    /// `X-QueueSize-Remaining`.
    pub queue_remaining: Option<u64>,
    /// The body, as far as it was read.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text, cut to what is kept.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.body).into_owned();
        let end =
            (0..=DETAIL_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        text
    }
}

/// Why there was no answer. All of it may pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The whole attempt took too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The name does not resolve.
    #[error("the endpoint's name does not resolve: {0}")]
    Dns(String),
    /// Refused or unreachable.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// No trust, or no TLS at all.
    #[error("TLS failed: {0}; SSL_CERT_FILE can name further roots")]
    Tls(String),
    /// Closed or reset before the answer had ended.
    #[error("the connection was closed before the answer: {0}")]
    Closed(String),
    /// The answer was no HTTP.
    #[error("the answer is no HTTP: {0}")]
    NotHttp(String),
    /// Anything else.
    #[error("the push failed: {0}")]
    Other(String),
}

#[cfg(test)]
impl PushError {
    /// One of each.
    pub(super) const EXAMPLES: [PushError; 7] = [
        PushError::Timeout(Duration::from_secs(30)),
        PushError::Dns(String::new()),
        PushError::Connect(String::new()),
        PushError::Tls(String::new()),
        PushError::Closed(String::new()),
        PushError::NotHttp(String::new()),
        PushError::Other(String::new()),
    ];
}

/// A client of Ometria's push endpoint.
#[derive(Debug)]
pub struct HttpUpstream {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    endpoint: Uri,
    headers: HeaderMap,
    timeout: Duration,
}

/// For a TCP connection to be made, unless the whole attempt has less.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An idle connection is not used again after this: servers close theirs without a word.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// As much of an answer is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Ometria's header for the key (OMETRIA.md).
const AUTH: HeaderName = HeaderName::from_static("x-ometria-auth");
const QUEUE_REMAINING: &str = "x-queuesize-remaining";

impl HttpUpstream {
    /// A client for `settings`. `roots` replaces the host's certificates.
    ///
    /// # Errors
    /// When the endpoint is neither https nor http on a loopback address, the key is no header value, or the host has no
    /// root certificates.
    pub fn new(settings: &Settings, roots: Option<RootCertStore>) -> anyhow::Result<HttpUpstream> {
        let secure = settings.endpoint.scheme_str() == Some("https");
        anyhow::ensure!(
            secure || is_loopback(&settings.endpoint),
            "the endpoint must be https: the key would travel in the clear"
        );
        let builder =
            ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .context("set up TLS")?;
        let tls = match roots {
            Some(roots) => builder.with_root_certificates(roots),
            None if secure => builder
                .with_native_roots()
                .context("read the host's root certificates (package ca-certificates)")?,
            None => builder.with_root_certificates(RootCertStore::empty()),
        }
        .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT.min(settings.timeout)));
        let https = HttpsConnectorBuilder::new().with_tls_config(tls);
        let connector = if secure { https.https_only() } else { https.https_or_http() }
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(1)
            .retry_canceled_requests(false) // every attempt is the forwarder's, and counted
            .build(connector);
        let mut key = HeaderValue::from_str(settings.api_key.expose_secret())
            .map_err(|_| anyhow::anyhow!("the API key holds characters that no header may hold"))?;
        key.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert(AUTH, key);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("pillarbox/", env!("CARGO_PKG_VERSION"))),
        );
        Ok(HttpUpstream {
            client,
            endpoint: settings.endpoint.clone(),
            headers,
            timeout: settings.timeout,
        })
    }

    async fn attempt(&self, body: Bytes) -> Result<Answer, PushError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.clone();
        *request.headers_mut() = self.headers.clone();
        let response = self.client.request(request).await.map_err(|error| classify(&error))?;
        let (head, body) = response.into_parts();
        let text = |name: &str| head.headers.get(name)?.to_str().ok().map(str::to_owned);
        let retry_after = text(RETRY_AFTER.as_str());
        let queue_remaining = text(QUEUE_REMAINING).and_then(|text| text.trim().parse().ok());
        // The status stands, whatever becomes of the rest of the body: a 202 cut off in its body is a 202.
        let body = Limited::new(body, ANSWER_BYTES_MAX)
            .collect()
            .await
            .map(|body| body.to_bytes().to_vec());
        let body = body.unwrap_or_default();
        Ok(Answer { status: head.status.as_u16(), retry_after, queue_remaining, body })
    }
}

impl Upstream for HttpUpstream {
    async fn push(&self, body: Bytes) -> Result<Answer, PushError> {
        let attempt = tokio::time::timeout(self.timeout, self.attempt(body)).await;
        attempt.unwrap_or(Err(PushError::Timeout(self.timeout)))
    }
}

/// Whether an endpoint is on this host: the only place where http is allowed.
#[must_use]
pub fn is_loopback(endpoint: &Uri) -> bool {
    let Some(host) = endpoint.host() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or(host.eq_ignore_ascii_case("localhost"), |address| address.is_loopback())
}

/// Sorts a failure by what its chain of sources holds.
fn classify(error: &hyper_util::client::legacy::Error) -> PushError {
    let mut words = String::new();
    let mut at: Option<&(dyn Error + 'static)> = Some(error);
    let (mut tls, mut not_http) = (false, false);
    while let Some(error) = at {
        words = error.to_string();
        tls |= error.is::<rustls::Error>();
        not_http |= error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse);
        if words.starts_with("dns error") {
            let why = error.source().map_or(words, ToString::to_string);
            return PushError::Dns(why);
        }
        if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            tls |= inner.is::<rustls::Error>();
            if inner.is::<rustls::Error>() {
                words = inner.to_string();
            }
        }
        at = error.source();
    }
    if tls {
        PushError::Tls(words)
    } else if error.is_connect() {
        PushError::Connect(words)
    } else if not_http {
        PushError::NotHttp(words)
    } else if is_closed(error) {
        PushError::Closed(words)
    } else {
        PushError::Other(words)
    }
}

fn is_closed(error: &(dyn Error + 'static)) -> bool {
    let mut at = Some(error);
    while let Some(error) = at {
        let hyper = error.downcast_ref::<hyper::Error>();
        if hyper.is_some_and(|error| {
            error.is_incomplete_message() || error.is_canceled() || error.is_closed()
        }) {
            return true;
        }
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        let closed = [
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::ConnectionAborted,
            io::ErrorKind::BrokenPipe,
            io::ErrorKind::UnexpectedEof,
        ];
        if kind.is_some_and(|kind| closed.contains(&kind)) {
            return true;
        }
        at = error.source();
    }
    false
}
