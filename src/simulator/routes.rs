//! From request to answer: the push route, and what is neither it nor a control route.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use serde_json::json;
use tokio::sync::{mpsc, watch};

use super::checks;
use super::control;
use super::faults::Effect;
use super::server::{Cut, stopped};
use super::state::{self, Handle, Reply};

/// Where pushes go.
pub(super) const PUSH_PATH: &str = "/v2/push";
const ERRORS_PATH: &str = "/v2/push/_errors";
const KEY_HEADER: &str = "x-ometria-auth";

/// The largest body: one hundred of the largest records are 6 MB, and white space may come on top.
const BODY_BYTES_MAX: usize = 8 << 20;

/// What a connection's requests share.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) handle: Handle,
    /// Ends the connection before the answer.
    pub(super) cut: mpsc::Sender<Cut>,
    /// True from the shutdown on.
    pub(super) stopping: watch::Receiver<bool>,
}

/// Answers one request; for a push with a fault that may mean never.
pub(super) async fn answer(
    context: Arc<Context>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    Ok(match path.as_str() {
        PUSH_PATH if request.method() == Method::POST => push(&context, request).await,
        PUSH_PATH => method_not_allowed("POST"),
        ERRORS_PATH if request.method() == Method::GET => {
            errors(&context.handle, request.headers())
        }
        ERRORS_PATH => method_not_allowed("GET"),
        path => match path.strip_prefix(control::PREFIX) {
            Some(name) => control::answer(&context.handle, name, request).await,
            None => not_found(),
        },
    })
}

async fn push(context: &Context, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = match read_body(body, BODY_BYTES_MAX).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    let text = |name| head.headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let reply = context.handle.receive(&state::Request {
        admitted: admitted(&context.handle, &head.headers),
        headers: checks::check_headers(text(CONTENT_TYPE), text(CONTENT_ENCODING)),
        body: &body,
    });
    drop(body);
    wait(context, reply.injection.delay).await;
    match reply.injection.effect {
        Effect::Checked | Effect::Status(_) | Effect::RejectLater => push_answer(reply),
        Effect::Hang => {
            stopped(&context.stopping).await;
            cut(context, Cut::Reset).await
        }
        Effect::Reset | Effect::AcceptThenReset => cut(context, Cut::Reset).await,
        Effect::Garbage => cut(context, Cut::Garbage).await,
    }
}

fn push_answer(reply: Reply) -> Response<Full<Bytes>> {
    let status = reply.verdict.status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let message = match reply.verdict.refusal {
        Some(refusal) if reply.verdict.by_checks => refusal,
        _ => "a fault of the simulator".to_owned(),
    };
    let mut answer = match reply.injection.body {
        // The fault's body is meant for the fault's answer, not for a refusal in its place.
        Some(body) if reply.verdict.accepts || !reply.verdict.by_checks => {
            let mut answer = Response::new(Full::from(body));
            *answer.status_mut() = status;
            answer
        }
        _ if reply.verdict.accepts => json_answer(
            status,
            &json!({
                "status": "OK",
                "request_id": reply.request_id,
                "accepted": reply.accepted,
                "rejected": 0,
            }),
        ),
        _ => error_answer(status, &message),
    };
    for (name, value) in reply.injection.headers {
        answer.headers_mut().insert(name, value);
    }
    answer
}

fn errors(handle: &Handle, headers: &HeaderMap) -> Response<Full<Bytes>> {
    if admitted(handle, headers) {
        json_answer(StatusCode::OK, &json!(handle.ledger()))
    } else {
        error_answer(StatusCode::FORBIDDEN, "the key in X-Ometria-Auth is missing or invalid")
    }
}

fn admitted(handle: &Handle, headers: &HeaderMap) -> bool {
    handle.admits(headers.get(KEY_HEADER).map(HeaderValue::as_bytes))
}

/// Waits for the delay, or for the shutdown if that comes first.
async fn wait(context: &Context, delay: std::time::Duration) {
    if !delay.is_zero() {
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = stopped(&context.stopping) => {}
        }
    }
}

/// Has the connection ended; the caller's future is dropped with it.
async fn cut(context: &Context, cut: Cut) -> Response<Full<Bytes>> {
    // It fails when the connection has ended already.
    let _ = context.cut.send(cut).await;
    std::future::pending().await
}

/// The whole body, or the answer to give instead.
pub(super) async fn read_body(
    body: Incoming,
    bytes_max: usize,
) -> Result<Bytes, Response<Full<Bytes>>> {
    let too_large = || {
        let message = format!("the body has more than {bytes_max} bytes");
        error_answer(StatusCode::PAYLOAD_TOO_LARGE, &message)
    };
    // A Content-Length over the limit is answered before the body is sent.
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    match Limited::new(body, bytes_max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(fault) if fault.is::<LengthLimitError>() => Err(too_large()),
        Err(fault) => {
            Err(error_answer(StatusCode::BAD_REQUEST, &format!("the body is unreadable: {fault}")))
        }
    }
}

pub(super) fn not_found() -> Response<Full<Bytes>> {
    error_answer(StatusCode::NOT_FOUND, "no such path")
}

pub(super) fn method_not_allowed(allow: &'static str) -> Response<Full<Bytes>> {
    let mut answer = error_answer(
        StatusCode::METHOD_NOT_ALLOWED,
        &format!("the methods of this path are: {allow}"),
    );
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    answer
}

pub(super) fn error_answer(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    json_answer(status, &json!({"status": "error", "message": message}))
}

pub(super) fn json_answer(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(body.to_string()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
