//! The admin socket's routes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::{Semaphore, watch};

use super::control::ControlError;
use super::erase::EraseError;
use super::integration;
use super::metrics::Format;
use super::protocol::{EditedBody, Problem, QuarantineQuery, Released};
use super::release::EntryError;
use super::service::{DropError, Service};
use crate::socket;
use crate::spool::{AppendError, QuarantineId, ReadError};

/// Operators at once; further ones wait.
pub(super) const CONNECTIONS_MAX: usize = 16;
/// A request's body: a list of ids.
const BODY_BYTES_MAX: usize = 1 << 20;
/// An import's, and an edited entry's: one may hold as much as the largest request that ingest takes.
const IMPORT_BYTES_MAX: usize = 72 << 20;
/// For a header or a body to arrive.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves operators until `shutdown`.
pub async fn serve(listener: UnixListener, service: Arc<Service>, shutdown: watch::Receiver<bool>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let limits = socket::Limits { connections, header_timeout: READ_TIMEOUT };
    let respond = move |request| {
        let service = service.clone();
        async move { answer(&service, request).await }
    };
    socket::serve(listener, limits, shutdown, respond).await;
}

pub(super) type Answer = Full<Bytes>;

/// Why a request has no answer of its own.
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) problem: Problem,
    /// The methods that would be taken, where another was used.
    pub(super) allowed: Option<&'static str>,
}

impl Refused {
    pub(super) fn new(status: StatusCode, code: &str, message: String) -> Refused {
        Refused { status, problem: Problem::new(code, message), allowed: None }
    }

    pub(super) fn not_allowed(path: &str, method: &Method, allowed: &'static str) -> Refused {
        let message = format!("{path} does not take {method}");
        let allowed = Some(allowed);
        let status = StatusCode::METHOD_NOT_ALLOWED;
        Refused { allowed, ..Refused::new(status, "method_not_allowed", message) }
    }
}

impl From<ReadError> for Refused {
    fn from(error: ReadError) -> Refused {
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "storage_failed", error.to_string())
    }
}

impl From<ControlError> for Refused {
    fn from(error: ControlError) -> Refused {
        match error {
            ControlError::Unknown(_) => not_found(error.to_string()),
            ControlError::Read(_) | ControlError::Append(_) => {
                Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "storage_failed", error.to_string())
            }
        }
    }
}

impl From<EraseError> for Refused {
    fn from(error: EraseError) -> Refused {
        let message = error.to_string();
        match error {
            EraseError::Nobody => bad(message),
            EraseError::Read(_) | EraseError::Append(_) | EraseError::Stopped(_) => {
                Refused::new(StatusCode::INTERNAL_SERVER_ERROR, "not_erased", message)
            }
        }
    }
}

impl From<EntryError> for Refused {
    fn from(error: EntryError) -> Refused {
        let message = error.to_string();
        match error {
            EntryError::NoEntry(_) => not_found(message),
            EntryError::Invalid(_) => bad(message),
            EntryError::NotConfigured(_) => {
                Refused::new(StatusCode::CONFLICT, "not_retried", message)
            }
            EntryError::Read(error) => error.into(),
            EntryError::Append(error) => error.into(),
        }
    }
}

impl From<AppendError> for Refused {
    fn from(error: AppendError) -> Refused {
        Refused::new(StatusCode::SERVICE_UNAVAILABLE, "not_stored", error.to_string())
    }
}

async fn answer(service: &Arc<Service>, request: Request<Incoming>) -> Response<Answer> {
    match route(service, request).await {
        Ok(response) => response,
        Err(Refused { status, problem, allowed }) => {
            let mut response = json(&problem);
            *response.status_mut() = status;
            if let Some(allowed) = allowed {
                response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            }
            response
        }
    }
}

async fn route(
    service: &Arc<Service>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Refused> {
    let request = match integration::routes::route(service, request).await {
        Ok(answered) => return answered,
        Err(request) => request,
    };
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let (get, post) = (method == Method::GET, method == Method::POST);
    match path.as_str() {
        "/v1/status" if get => Ok(json(&service.status().await?)),
        "/v1/metrics" if get => {
            let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
            let shown = service.metrics(Format::asked(accept)).await?;
            Ok(typed(shown.content_type, shown.body.into_bytes()))
        }
        "/v1/console" if get => {
            let none = "no web console is configured: add console = \"127.0.0.1:8481\" to [admin] and restart the daemon";
            service.console().map(|found| json(&found)).ok_or_else(|| not_found(none.to_owned()))
        }
        "/v1/events" if post => {
            let query = body(request, r#"{} or a filter such as {"id":"…","limit":10}"#).await?;
            Ok(json(&service.events(&query).await?))
        }
        "/v1/erase" if post => {
            let who = body(request, r#"{"email":"…"} or {"user":"…"}"#).await?;
            Ok(json(&service.erase(who).await?))
        }
        "/v1/pause" | "/v1/resume" if post => {
            let Named { integration } = body(request, NAMED).await?;
            let paused = path == "/v1/pause";
            Ok(json(&service.pause(integration.as_deref(), paused).await?))
        }
        "/v1/retry-now" if post => {
            let Named { integration } = body(request, NAMED).await?;
            Ok(json(&service.retry_now(integration.as_deref())?))
        }
        "/v1/reload" if post => {
            Ok(json(&service.reload().await.map_err(|reason| not_reloaded(&reason))?))
        }
        "/v1/status" | "/v1/console" | "/v1/metrics" | "/v1/events" | "/v1/erase" | "/v1/pause"
        | "/v1/resume" | "/v1/retry-now" | "/v1/reload" => Err(not_allowed(&path, &method)),
        _ if post && dropped_queue(&path).is_some() => {
            let name = dropped_queue(&path).unwrap_or_default();
            let refused = |error: DropError| {
                let status = match error {
                    DropError::Unknown => StatusCode::NOT_FOUND,
                    DropError::Configured => StatusCode::CONFLICT,
                    _ => StatusCode::INTERNAL_SERVER_ERROR,
                };
                Refused::new(status, "not_dropped", format!("drop the queue of {name:?}: {error}"))
            };
            Ok(json(&service.drop_queue(name).await.map_err(refused)?))
        }
        _ => match path.strip_prefix("/v1/quarantine") {
            Some(rest) => quarantine(service, &path, rest, request).await,
            None => Err(not_found(format!("no such route: {method} {path}"))),
        },
    }
}

/// The routes below `/v1/quarantine`, which `rest` follows in `path`.
async fn quarantine(
    service: &Arc<Service>,
    path: &str,
    rest: &str,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Refused> {
    let method = request.method().clone();
    let (get, post) = (method == Method::GET, method == Method::POST);
    match rest {
        "" if get => {
            let query = page(request.uri().query().unwrap_or_default())?;
            Ok(json(&service.quarantine(&query).await?))
        }
        "/list" if post => Ok(json(&service.quarantine(&body(request, QUERY).await?).await?)),
        "/export" if get => export(service, page(request.uri().query().unwrap_or_default())?).await,
        "/export" if post => export(service, body(request, QUERY).await?).await,
        "/import" if post => {
            let lines = bytes(request, IMPORT_BYTES_MAX).await?;
            Ok(json(&service.import(&lines).await?))
        }
        "/retry" if post => Ok(json(&service.retry(body(request, SELECTION).await?).await?)),
        "/drop" if post => Ok(json(&service.drop_entries(body(request, SELECTION).await?).await?)),
        "" | "/list" | "/export" | "/import" | "/retry" | "/drop" => {
            Err(not_allowed(path, &method))
        }
        _ => match entry(rest) {
            Some((id, "/retry")) if post => {
                let edited = bytes(request, IMPORT_BYTES_MAX).await?;
                let edited: EditedBody = read(&edited, r#"{"body":…}"#)?;
                service.retry_edited(QuarantineId(id), edited.body.get()).await?;
                Ok(json(&Released { released: 1, ..Released::default() }))
            }
            Some((id, "")) if get => {
                let entry = service.quarantined(QuarantineId(id)).await?;
                entry
                    .map(|entry| json(&entry))
                    .ok_or_else(|| not_found(format!("there is no entry {id} in the quarantine")))
            }
            _ => Err(not_found(format!("no such route: {method} {path}"))),
        },
    }
}

/// An entry's number, and what follows it in `/ID…`.
fn entry(rest: &str) -> Option<(u64, &str)> {
    let rest = rest.strip_prefix('/')?;
    let (id, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    Some((id.parse().ok()?, rest))
}

async fn export(
    service: &Arc<Service>,
    query: QuarantineQuery,
) -> Result<Response<Answer>, Refused> {
    let mut lines = Vec::new();
    for entry in service.quarantine(&QuarantineQuery { bodies: true, ..query }).await? {
        serde_json::to_writer(&mut lines, &entry).expect("numbers and text always encode");
        lines.push(b'\n');
    }
    Ok(typed("application/x-ndjson", lines))
}

/// The integration whose queue a path drops.
fn dropped_queue(path: &str) -> Option<&str> {
    path.strip_prefix("/v1/integrations/")?.strip_suffix("/drop-queue")
}

/// First id, limit, and whether bodies are wanted.
fn page(query: &str) -> Result<QuarantineQuery, Refused> {
    let query = pairs(query);
    let number = |key: &str, default: u64| match query.get(key) {
        None => Ok(default),
        Some(text) => text.parse().map_err(|_| bad(format!("{key} must be a whole number"))),
    };
    let (from, limit) = (number("from", 0)?, usize::try_from(number("limit", 100)?).ok());
    let bodies = query.contains_key("bodies");
    Ok(QuarantineQuery { from, limit, bodies, ..QuarantineQuery::default() })
}

/// One integration, or all.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    integration: Option<String>,
}

const NAMED: &str = r#"{} or {"integration":"…"}"#;
/// What a body that selects entries looks like.
const SELECTION: &str = r#"{"ids":[…]}, {"all":true} or {"filter":{…}}"#;
/// What a body that asks for a page looks like.
const QUERY: &str = r#"{} or {"from":1,"limit":100,"filter":{…}}"#;

/// The body of a request, which must look like `what`.
pub(super) async fn body<T: DeserializeOwned>(
    request: Request<Incoming>,
    what: &str,
) -> Result<T, Refused> {
    read(&bytes(request, BODY_BYTES_MAX).await?, what)
}

fn read<T: DeserializeOwned>(body: &[u8], what: &str) -> Result<T, Refused> {
    serde_json::from_slice(body).map_err(|error| bad(format!("the body must be {what}: {error}")))
}

/// The body of a request, at most `max` bytes.
async fn bytes(request: Request<Incoming>, max: usize) -> Result<Bytes, Refused> {
    if request.body().size_hint().lower() > max as u64 {
        return Err(bad(format!("the body is over {max} bytes")));
    }
    let read = Limited::new(request.into_body(), max).collect();
    let timed_out = || {
        Refused::new(
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            "the body did not arrive in time".to_owned(),
        )
    };
    let body = tokio::time::timeout(READ_TIMEOUT, read).await.map_err(|_| timed_out())?;
    let body = body.map_err(|error| bad(format!("the body could not be read: {error}")))?;
    Ok(body.to_bytes())
}

fn pairs(text: &str) -> HashMap<&str, &str> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect()
}

fn bad(message: String) -> Refused {
    Refused::new(StatusCode::BAD_REQUEST, "invalid_request", message)
}

fn not_reloaded(reason: &str) -> Refused {
    let message = format!("the old configuration stays in force: {reason}");
    Refused::new(StatusCode::CONFLICT, "not_reloaded", message)
}

fn not_allowed(path: &str, method: &Method) -> Refused {
    Refused::not_allowed(path, method, "GET, POST")
}

fn not_found(message: String) -> Refused {
    Refused::new(StatusCode::NOT_FOUND, "not_found", message)
}

pub(super) fn json<T: Serialize>(value: &T) -> Response<Answer> {
    typed("application/json", serde_json::to_vec(value).expect("numbers and text always encode"))
}

fn typed(content_type: &'static str, body: Vec<u8>) -> Response<Answer> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
