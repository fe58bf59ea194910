//! One HTTP attempt: a body in, an [`Answer`] or a [`PushError`] out. Never retries, never sleeps, follows no redirect.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::RootCertStore;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::{Instant, timeout_at};

use super::Settings;
use super::failure::{PushError, classify};
use super::route::{Route, connector};
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
        cut(String::from_utf8_lossy(&self.body).into_owned())
    }
}

/// A text cut to what is kept.
pub(super) fn cut(mut text: String) -> String {
    let end = (0..=DETAIL_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text
}

/// A client of Ometria's push endpoint.
#[derive(Clone, Debug)]
pub struct HttpUpstream {
    client: Client<HttpsConnector<Route>, Full<Bytes>>,
    endpoint: Uri,
    headers: HeaderMap,
    api_key: SecretString,
    timeout: Duration,
}

/// An idle connection is not used again after this: servers close theirs without a word.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);
/// As much of an answer is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// And of a ledger: a hundred of the largest records, with room to spare.
const LEDGER_BYTES_MAX: usize = 8 << 20;
/// Ometria's header for the key (OMETRIA.md).
const AUTH: HeaderName = HeaderName::from_static("x-ometria-auth");
const QUEUE_REMAINING: &str = "x-queuesize-remaining";
/// Shorter than any real key.
const KEY_BYTES_MIN: usize = 8;

impl HttpUpstream {
    /// A client for `settings`. `roots` replaces the host's certificates.
    ///
    /// # Errors
    /// When the endpoint is neither https nor http on a loopback address, the key is no header value, or there are no root
    /// certificates.
    pub fn new(settings: &Settings, roots: Option<RootCertStore>) -> anyhow::Result<HttpUpstream> {
        let secure = settings.endpoint.scheme_str() == Some("https");
        anyhow::ensure!(
            secure || settings.endpoint.scheme_str() == Some("http"),
            "the endpoint must be an https:// address"
        );
        anyhow::ensure!(
            secure || is_loopback(&settings.endpoint),
            "the endpoint must be https: the key would travel in the clear"
        );
        let connector = connector(settings, roots, secure)?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
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
            api_key: settings.api_key.clone(),
            timeout: settings.timeout,
        })
    }

    /// Reads the ledger of what was rejected after its 202.
    ///
    /// # Errors
    /// As a push.
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn ledger(&self) -> Result<Answer, PushError> {
        let mut request = Request::new(Full::default());
        let mut parts = self.endpoint.clone().into_parts();
        parts.path_and_query = self.ledger_path().parse().ok();
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_else(|_| self.endpoint.clone());
        self.attempt(request, LEDGER_BYTES_MAX).await
    }

    /// Where the ledger lies: below the endpoint.
    pub(super) fn ledger_path(&self) -> String {
        format!("{}/_errors", self.endpoint.path().trim_end_matches('/'))
    }

    async fn attempt(
        &self,
        mut request: Request<Full<Bytes>>,
        answer_bytes_max: usize,
    ) -> Result<Answer, PushError> {
        let deadline = Instant::now() + self.timeout;
        *request.headers_mut() = self.headers.clone();
        let response = timeout_at(deadline, self.client.request(request))
            .await
            .map_err(|_| PushError::Timeout(self.timeout))?
            .map_err(|error| classify(&error, error.is_connect()))?;
        let (head, body) = response.into_parts();
        let text = |name: &str| head.headers.get(name)?.to_str().ok().map(str::to_owned);
        let retry_after = text(RETRY_AFTER.as_str());
        let queue_remaining = text(QUEUE_REMAINING).and_then(|text| text.trim().parse().ok());
        // The status stands, whatever becomes of the rest of the body: a 202 cut off in its body is a 202.
        let mut read = Vec::new();
        let reading = read_body(body, &mut read, answer_bytes_max);
        let cut_off = timeout_at(deadline, reading).await.is_err();
        let status = head.status.as_u16();
        tracing::trace!(status, cut_off, bytes = read.len(), "answered");
        let body = without(read, self.api_key.expose_secret().as_bytes());
        Ok(Answer { status, retry_after, queue_remaining, body })
    }
}

impl Upstream for HttpUpstream {
    async fn push(&self, body: Bytes) -> Result<Answer, PushError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.endpoint.clone();
        self.attempt(request, ANSWER_BYTES_MAX).await
    }
}

/// Reads the body of an answer, as far as it comes and at most `bytes_max` of it.
async fn read_body(mut body: Incoming, read: &mut Vec<u8>, bytes_max: usize) {
    while let Some(Ok(frame)) = body.frame().await {
        let Some(data) = frame.data_ref() else { continue };
        let room = bytes_max - read.len();
        read.extend_from_slice(data.get(..room).unwrap_or(data));
        if read.len() == bytes_max {
            return;
        }
    }
}

/// Blackens the key in an answer: an endpoint that echoes its request must not bring it into the spool or to the
/// console (Promise 8). A key too short to be one is left, as it would stand in any text.
fn without(body: Vec<u8>, key: &[u8]) -> Vec<u8> {
    if key.len() < KEY_BYTES_MIN || !body.windows(key.len()).any(|window| window == key) {
        return body;
    }
    let (mut clean, mut rest) = (Vec::with_capacity(body.len()), &body[..]);
    while let Some((first, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(key) {
            clean.extend_from_slice(b"***");
            rest = after;
        } else {
            clean.push(*first);
            rest = after;
        }
    }
    clean
}

/// Whether an endpoint is on this host: the only place where http is allowed.
#[must_use]
pub fn is_loopback(endpoint: &Uri) -> bool {
    let Some(host) = endpoint.host() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or(host.eq_ignore_ascii_case("localhost"), |address| address.is_loopback())
}

#[cfg(test)]
#[path = "push_tests.rs"]
mod tests;
