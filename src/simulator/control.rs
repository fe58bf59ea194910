//! The control routes: faults, pushes, records and totals over HTTP.

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;

use super::faults::Fault;
use super::routes::{error_answer, json_answer, method_not_allowed, not_found, read_body};
use super::state::{Handle, RecordSeen};

/// What the paths of the control routes begin with.
pub(super) const PREFIX: &str = "/_simulator/";

/// The largest body of a request for faults.
const BODY_BYTES_MAX: usize = 64 << 10;

/// The most faults in force; more by HTTP are refused.
const FAULTS_MAX: usize = 1_000;

/// Answers the control route `name`, the path behind [`PREFIX`].
pub(super) async fn answer(
    handle: &Handle,
    name: &str,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let method = request.method();
    match name {
        "faults" if method == Method::GET => shown(&handle.faults()),
        "faults" if method == Method::POST => {
            match read_body(request.into_body(), BODY_BYTES_MAX).await {
                Ok(body) => add_faults(handle, &body),
                Err(answer) => answer,
            }
        }
        "faults" if method == Method::DELETE => {
            handle.clear_faults();
            shown(&handle.faults())
        }
        "faults" => method_not_allowed("GET, POST, DELETE"),
        "pushes" if method == Method::GET => shown(&handle.pushes()),
        "records" if method == Method::GET => ndjson(&handle.records()),
        "records" if method == Method::DELETE => {
            shown(&json!({ "cleared": handle.clear_records() }))
        }
        "records" => method_not_allowed("GET, DELETE"),
        "stats" if method == Method::GET => shown(&handle.counters()),
        "pushes" | "stats" => method_not_allowed("GET"),
        _ => not_found(),
    }
}

/// The two forms of a request for faults.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum FaultTexts {
    One { fault: String },
    Many(Vec<String>),
}

/// Adds all of the faults or, when one of them is wrong, none.
fn add_faults(handle: &Handle, body: &[u8]) -> Response<Full<Bytes>> {
    let texts = match serde_json::from_slice(body) {
        Ok(FaultTexts::One { fault }) => vec![fault],
        Ok(FaultTexts::Many(texts)) => texts,
        Err(_) => {
            let form = r#"send {"fault":"status=503,count=3"} or an array of such texts"#;
            return error_answer(StatusCode::BAD_REQUEST, form);
        }
    };
    if handle.faults().len() + texts.len() > FAULTS_MAX {
        let message = format!("at most {FAULTS_MAX} faults can be in force");
        return error_answer(StatusCode::BAD_REQUEST, &message);
    }
    let faults: Result<Vec<Fault>, _> = texts.iter().map(|text| text.parse()).collect();
    match faults {
        Ok(faults) => {
            for fault in faults {
                handle.add_fault(fault);
            }
            shown(&handle.faults())
        }
        Err(fault) => error_answer(StatusCode::BAD_REQUEST, &fault.to_string()),
    }
}

fn shown(value: &impl serde::Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_value(value) {
        Ok(value) => json_answer(StatusCode::OK, &value),
        Err(fault) => error_answer(StatusCode::INTERNAL_SERVER_ERROR, &fault.to_string()),
    }
}

/// One record a line. A line break inside a record can only be white space between tokens; it becomes
/// a space, every other byte stays.
fn ndjson(records: &[RecordSeen]) -> Response<Full<Bytes>> {
    let bytes = records.iter().map(|record| record.body.len() + 1).sum();
    let mut lines = BytesMut::with_capacity(bytes);
    for record in records {
        let start = lines.len();
        lines.put_slice(&record.body);
        for byte in lines.iter_mut().skip(start) {
            if matches!(byte, b'\n' | b'\r') {
                *byte = b' ';
            }
        }
        lines.put_u8(b'\n');
    }
    let mut answer = Response::new(Full::from(lines.freeze()));
    let ndjson = HeaderValue::from_static("application/x-ndjson");
    answer.headers_mut().insert(CONTENT_TYPE, ndjson);
    answer
}
