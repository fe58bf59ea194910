//! The admin socket's routes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use tokio::net::UnixListener;
use tokio::sync::watch;

use super::protocol::{Problem, Selection};
use super::service::Service;
use crate::socket;
use crate::spool::{QuarantineId, ReadError};

/// Operators at once; further ones wait.
const CONNECTIONS_MAX: usize = 16;
/// A request's body: a list of ids.
const BODY_BYTES_MAX: usize = 1 << 20;
/// For a header or a body to arrive.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves operators until `shutdown`.
pub async fn serve(listener: UnixListener, service: Arc<Service>, shutdown: watch::Receiver<bool>) {
    let limits = socket::Limits { connections_max: CONNECTIONS_MAX, header_timeout: READ_TIMEOUT };
    let respond = move |request| {
        let service = service.clone();
        async move { answer(&service, request).await }
    };
    socket::serve(listener, limits, shutdown, respond).await;
}

/// Why a request has no answer of its own.
struct Refused(StatusCode, &'static str, String);

impl From<ReadError> for Refused {
    fn from(error: ReadError) -> Refused {
        Refused(StatusCode::INTERNAL_SERVER_ERROR, "storage_failed", error.to_string())
    }
}

async fn answer(service: &Service, request: Request<Incoming>) -> Response<Full<Bytes>> {
    match route(service, request).await {
        Ok(body) => json(StatusCode::OK, body),
        Err(Refused(status, code, message)) => {
            let body = encode(&Problem { code: code.to_owned(), message });
            json(status, body)
        }
    }
}

async fn route(service: &Service, request: Request<Incoming>) -> Result<Vec<u8>, Refused> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    match (&method, path.as_str()) {
        (&Method::GET, "/v1/status") => Ok(encode(&service.status().await?)),
        (&Method::GET, "/v1/quarantine") => {
            let query = query(request.uri().query().unwrap_or_default());
            let number = |key: &str, default: u64| match query.get(key) {
                None => Ok(default),
                Some(text) => {
                    text.parse().map_err(|_| bad(format!("{key} must be a whole number")))
                }
            };
            let (from, limit) = (QuarantineId(number("from", 0)?), number("limit", 100)?);
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            Ok(encode(&service.quarantine(from, limit, query.contains_key("bodies")).await?))
        }
        (&Method::POST, "/v1/quarantine/retry") => {
            let selection = selection(request).await?;
            Ok(encode(&service.retry(selection).await?))
        }
        (&Method::POST, "/v1/quarantine/drop") => {
            let selection = selection(request).await?;
            Ok(encode(&service.drop_entries(selection).await?))
        }
        _ => Err(Refused(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("no such route: {method} {path}"),
        )),
    }
}

async fn selection(request: Request<Incoming>) -> Result<Selection, Refused> {
    let read = Limited::new(request.into_body(), BODY_BYTES_MAX).collect();
    let timed_out = || {
        Refused(
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            "the body did not arrive in time".to_owned(),
        )
    };
    let body = tokio::time::timeout(READ_TIMEOUT, read).await.map_err(|_| timed_out())?;
    let body =
        body.map_err(|error| bad(format!("the body could not be read: {error}")))?.to_bytes();
    serde_json::from_slice(&body).map_err(|error| {
        bad(format!(r#"the body must be {{"ids":[…]}} or {{"all":true}}: {error}"#))
    })
}

fn query(text: &str) -> HashMap<String, String> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn bad(message: String) -> Refused {
    Refused(StatusCode::BAD_REQUEST, "invalid_request", message)
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("numbers and text always encode")
}

fn json(status: StatusCode, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
