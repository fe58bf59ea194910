//! One request: limits, body, route, answer.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{
    ALLOW, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue,
    ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{Request, Response, StatusCode};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::Limits;
use super::answer::{Refusal, Taken};
use super::counters::Counters;
use super::drafted::Drafted;
use super::encoding::{Encoding, too_large};
use super::intake::Intake;
use super::producers::Producers;
use super::push::Accepted;
use super::routes::{self, Route};
use super::write_key::WriteKeys;
use uuid::Uuid;

use crate::clock;
use crate::socket;

/// Bytes of bodies that may be in memory at once, over all connections; further requests wait to be read.
const BODIES_BYTES_MAX: usize = 64 << 20;
/// The budget of bodies is counted in units of this.
const UNIT_BYTES: usize = 1024;

/// Where clients of Ometria show their key; over TCP they show a write key there, and the daemon's own goes upstream.
const OMETRIA_KEY: &str = "x-ometria-auth";

/// Serves the producers of a Unix socket until `shutdown`, then lets their requests finish.
pub async fn serve(listener: UnixListener, service: Arc<Service>, shutdown: watch::Receiver<bool>) {
    let limits = service.connection_limits();
    let opened = |stream: &UnixStream| {
        let stranger = service.not_admitted(stream);
        let is_admitted = stranger.is_none();
        let connection = Connection::open(&service, None, stranger);
        socket::Opened { answer: move |request| connection.answer(request), is_admitted }
    };
    socket::serve_each(listener, limits, shutdown, opened).await;
}

/// The same over TCP, for producers that show one of `keys`.
pub async fn serve_network(
    listener: TcpListener,
    keys: Arc<WriteKeys>,
    service: Arc<Service>,
    shutdown: watch::Receiver<bool>,
) {
    let limits = service.connection_limits();
    let opened = |_: &TcpStream| {
        let connection = Connection::open(&service, Some(keys.clone()), None);
        socket::Opened { answer: move |request| connection.answer(request), is_admitted: true }
    };
    socket::serve_each(listener, limits, shutdown, opened).await;
}

/// What answers one connection; counted as open until it is dropped.
struct Connection {
    service: Arc<Service>,
    keys: Option<Arc<WriteKeys>>,
    /// Why whoever connected may not hand over anything.
    stranger: Option<Refusal>,
}

impl Connection {
    fn open(
        service: &Arc<Service>,
        keys: Option<Arc<WriteKeys>>,
        stranger: Option<Refusal>,
    ) -> Connection {
        service.counters.connected();
        Connection { service: service.clone(), keys, stranger }
    }

    fn answer(
        &self,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Full<Bytes>>> + use<> {
        let asked = match &self.stranger {
            None => Asked::of(&request, self.keys.as_deref()),
            Some(refusal) => Err(refusal.clone().into()),
        };
        let (service, body) = (self.service.clone(), request.into_body());
        async move { service.answer(asked, body).await }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.service.counters.disconnected();
    }
}

/// Answers requests; shared by all connections.
#[derive(Debug)]
pub struct Service {
    intake: Arc<Intake>,
    counters: Arc<Counters>,
    limits: Limits,
    producers: Producers,
    bodies: Semaphore,
    connections: Arc<Semaphore>,
    shutdown: watch::Receiver<bool>,
}

impl Service {
    /// A service over `intake`, whose health ends once `shutdown` is true.
    #[must_use]
    pub fn new(
        intake: Arc<Intake>,
        counters: Arc<Counters>,
        limits: Limits,
        shutdown: watch::Receiver<bool>,
    ) -> Service {
        // A compressed body takes its own place and that of the text it becomes.
        let units = BODIES_BYTES_MAX.max(2 * limits.request_bytes_max) / UNIT_BYTES + 2;
        let bodies = Semaphore::new(units);
        let connections = Arc::new(Semaphore::new(limits.connections_max));
        let producers = Producers::default();
        Service { intake, counters, limits, producers, bodies, connections, shutdown }
    }

    /// The same, for these producers alone where it serves a Unix socket.
    #[must_use]
    pub fn for_producers(self, producers: Producers) -> Service {
        Service { producers, ..self }
    }

    /// Why whoever is at the other end of a connection may not hand over events; counted.
    fn not_admitted(&self, stream: &UnixStream) -> Option<Refusal> {
        if !self.producers.restricted {
            return None;
        }
        let message = match stream.peer_cred() {
            Ok(peer) if self.producers.admit(peer.uid(), peer.gid()) => return None,
            Ok(peer) => format!(
                "user {} of group {} may not hand over events here: `ingest.allow_users` and `ingest.allow_groups` name who may",
                peer.uid(),
                peer.gid()
            ),
            Err(error) => format!("the kernel does not tell who connected: {error}"),
        };
        self.counters.refused_connection();
        tracing::debug!(reason = message, "a connection was refused");
        Some(Refusal::new("forbidden", message))
    }

    fn connection_limits(&self) -> socket::Limits {
        let connections = self.connections.clone();
        socket::Limits { connections, header_timeout: self.limits.read_timeout }
    }

    /// Answers one request.
    ///
    /// # Cancel safety
    /// A request whose future is dropped may have been stored: the producer got no answer and re-sends.
    async fn answer(&self, asked: Result<Asked, Refused>, body: Incoming) -> Response<Full<Bytes>> {
        let answer = match asked {
            Ok(Asked { route: Route::Health, .. }) => Ok(self.health()),
            Ok(asked) => self.take(asked, body).await.map_err(Refused::from),
            Err(refused) => {
                self.discard(body).await;
                Err(refused)
            }
        };
        answer.unwrap_or_else(|Refused { refusal, allow }| {
            self.counters.refused(&refusal);
            refused(&refusal, allow)
        })
    }

    /// Stores what a request brings.
    async fn take(&self, asked: Asked, body: Incoming) -> Result<Response<Full<Bytes>>, Refusal> {
        let (_held, body) = self.body(body, asked.encoding).await?;
        let drafted = self.draft(&asked, body).await?;
        let taken = self.intake.commit(drafted).await?;
        self.counters.took(&taken);
        Ok(match asked.route {
            Route::Push => pushed(&taken),
            _ => json(StatusCode::OK, encoded(&taken)),
        })
    }

    /// Reads `body`, and lets go of it: what is stored is waited for without it.
    async fn draft(&self, asked: &Asked, body: Bytes) -> Result<Drafted, Refusal> {
        let body = asked.encoding.decode(&body, self.limits.request_bytes_max)?;
        match asked.route {
            Route::Single(kind) => self.intake.single(kind, &body, clock::now()).await,
            Route::Push => self.intake.push(&body, asked.integration.as_deref()),
            _ => self.intake.batch(&body, clock::now()).await,
        }
    }

    /// Reads a refused body to its end and keeps nothing of it, so that the producer sees the answer and can go on with
    /// the connection. What is too long or too late is left: the connection then ends.
    async fn discard(&self, body: Incoming) {
        let mut body = Limited::new(body, self.limits.request_bytes_max);
        let read = async { while let Some(Ok(_)) = body.frame().await {} };
        // A body that is too late is not waited for.
        drop(tokio::time::timeout(self.limits.read_timeout, read).await);
    }

    fn health(&self) -> Response<Full<Bytes>> {
        let refusal = match self.intake.accepting() {
            Ok(()) if *self.shutdown.borrow() => {
                Refusal::new("shutting_down", "the daemon is stopping")
            }
            Ok(()) => return json(StatusCode::OK, br#"{"status":"ok"}"#.to_vec()),
            Err(refusal) => refusal,
        };
        refused(&refusal, None)
    }

    /// Reads the body within its limits; the permit is its share of the memory for bodies.
    async fn body(
        &self,
        body: Incoming,
        encoding: Encoding,
    ) -> Result<(SemaphorePermit<'_>, Bytes), Refusal> {
        let max = self.limits.request_bytes_max;
        let hint = body.size_hint();
        if hint.lower() > max as u64 {
            return Err(too_large(max));
        }
        let bytes = hint.exact().and_then(|exact| usize::try_from(exact).ok()).unwrap_or(max);
        let bytes = if encoding == Encoding::Gzip { bytes + max } else { bytes };
        let units = u32::try_from(bytes / UNIT_BYTES + 1).unwrap_or(u32::MAX);
        let held = self.bodies.acquire_many(units).await.expect("the semaphore is never closed");
        let read = Limited::new(body, max).collect();
        match tokio::time::timeout(self.limits.read_timeout, read).await {
            Ok(Ok(body)) => Ok((held, body.to_bytes())),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(max)),
            Ok(Err(error)) => {
                Err(Refusal::new("invalid_json", format!("the body could not be read: {error}")))
            }
            Err(_) => {
                let waited = self.limits.read_timeout;
                Err(Refusal::new(
                    "timeout",
                    format!("the body did not arrive within {waited:?} (ingest.read_timeout)"),
                ))
            }
        }
    }
}

/// What a request asks for. A shutdown is no reason to refuse it: the spool closes after the sockets.
struct Asked {
    route: Route,
    encoding: Encoding,
    /// The one integration that records are pushed for.
    integration: Option<String>,
}

/// Why a request is refused whatever its body holds.
struct Refused {
    refusal: Refusal,
    /// The method to use instead.
    allow: Option<&'static str>,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Refused {
        Refused { refusal, allow: None }
    }
}

impl Asked {
    fn of<B>(request: &Request<B>, keys: Option<&WriteKeys>) -> Result<Asked, Refused> {
        if let Some(refusal) = stranger(request.headers(), keys) {
            return Err(refusal.into());
        }
        let route = routes::find(request.method(), request.uri().path());
        match route {
            Route::NotFound => {
                let message =
                    "no such path: POST events to /v1/track, /v1/page, /v1/identify or /v1/batch";
                return Err(Refusal::new("not_found", message).into());
            }
            Route::MethodNotAllowed(method) => {
                let message = format!("this path takes {method}");
                let refusal = Refusal::new("method_not_allowed", message);
                return Err(Refused { refusal, allow: Some(method) });
            }
            Route::Health => {
                return Ok(Asked { route, encoding: Encoding::Identity, integration: None });
            }
            Route::Single(_) | Route::Batch | Route::Push => {}
        }
        let encoding = request.headers().get(CONTENT_ENCODING).map(HeaderValue::as_bytes);
        let query = if route == Route::Push { request.uri().query() } else { None };
        let mut pairs = query.into_iter().flat_map(|query| query.split('&'));
        let integration = pairs.find_map(|pair| pair.strip_prefix("integration="));
        let integration = integration.map(str::to_owned);
        Ok(Asked { route, encoding: Encoding::of(encoding)?, integration })
    }
}

/// Why whoever asks is refused whatever is asked: no page of another origin may hand over events through a visitor's browser
/// (Fetch standard: `Origin`, `Sec-Fetch-Site`), and over TCP a key must be shown.
fn stranger(headers: &HeaderMap, keys: Option<&WriteKeys>) -> Option<Refusal> {
    let foreign = headers
        .get("sec-fetch-site")
        .is_some_and(|site| !(site.as_bytes() == b"none" || site.as_bytes() == b"same-origin"));
    if foreign || headers.contains_key(ORIGIN) {
        let message =
            "requests of web pages are refused: hand over events from a server or an application";
        return Some(Refusal::new("cross_origin", message));
    }
    let keys = keys?;
    let shown = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
    let admitted = shown(AUTHORIZATION.as_str()).is_some_and(|value| keys.admit(value))
        || shown(OMETRIA_KEY).is_some_and(|value| keys.has(value));
    if admitted {
        return None;
    }
    let message = "a write key of `ingest.write_keys` must be shown: as the user of Authorization: Basic, as Authorization: Bearer, or as X-Ometria-Auth";
    Some(Refusal::new("unauthorized", message))
}

/// What Ometria's endpoint answers to a push.
fn pushed(taken: &Taken) -> Response<Full<Bytes>> {
    let request_id = Uuid::now_v7().to_string();
    let accepted = taken.accepted;
    json(
        StatusCode::ACCEPTED,
        encoded(&Accepted { status: "OK", request_id, accepted, rejected: 0 }),
    )
}

fn encoded(answer: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(answer).expect("counts and text always encode")
}

fn json(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn refused(refusal: &Refusal, allow: Option<&'static str>) -> Response<Full<Bytes>> {
    let mut response = json(refusal.status(), refusal.body());
    let headers = response.headers_mut();
    if let Some(after) = refusal.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs()));
    }
    if refusal.code == "unauthorized" {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"pillarbox\""));
    }
    if let Some(allow) = allow {
        headers.insert(ALLOW, HeaderValue::from_static(allow));
    }
    if refusal.closes() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
