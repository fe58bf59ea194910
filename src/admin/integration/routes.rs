//! The routes of integrations, drafts and test deliveries.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{ETAG, HeaderMap, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use hyper::{Method, Request, Response, StatusCode};

use super::{Expected, IntegrationError};
use crate::admin::protocol::Problem;
use crate::admin::service::Service;
use crate::admin::socket::{Answer, Refused, body, json};

/// What the bodies look like.
const DRAFT: &str = r#"an integration's settings, such as {"preset":"retail","api_key":"…"}"#;
const PREVIEW: &str = r#"{"draft":{…},"events":[…]} or {"integration":"…","events":[…]}"#;
const TEST: &str = r#"{"integration":"…"} or {"draft":{…}}, and with them "event":{…}"#;

impl From<IntegrationError> for Refused {
    fn from(error: IntegrationError) -> Refused {
        let (status, code) = match &error {
            IntegrationError::Faulty(_) => (StatusCode::BAD_REQUEST, "invalid_integration"),
            IntegrationError::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid_request"),
            IntegrationError::InFile { .. } => (StatusCode::CONFLICT, "in_the_file"),
            IntegrationError::ChangedMeanwhile(_) => (StatusCode::CONFLICT, "changed_meanwhile"),
            IntegrationError::Unknown(_) => (StatusCode::NOT_FOUND, "not_found"),
            IntegrationError::Busy => (StatusCode::CONFLICT, "busy"),
            IntegrationError::NotApplied(_) => (StatusCode::CONFLICT, "not_applied"),
            IntegrationError::Storage(_) => (StatusCode::INTERNAL_SERVER_ERROR, "storage_failed"),
            IntegrationError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "shutting_down"),
        };
        let message = error.to_string();
        let faults = if let IntegrationError::Faulty(faults) = error { faults } else { Vec::new() };
        let problem = Problem { faults, ..Problem::new(code, message) };
        Refused { status, problem, allowed: None }
    }
}

/// Answers a request to one of these routes; gives back one to another.
pub(in crate::admin) async fn route(
    service: &Arc<Service>,
    request: Request<Incoming>,
) -> Result<Result<Response<Answer>, Refused>, Request<Incoming>> {
    let method = request.method().clone();
    let (get, post) = (method == Method::GET, method == Method::POST);
    let path = request.uri().path().to_owned();
    Ok(match path.as_str() {
        "/v1/integrations" if get => Ok(json(&*service.configured())),
        "/v1/preview" if post => preview(service, request).await,
        "/v1/test-delivery" if post => test(service, request).await,
        "/v1/integrations" => Err(Refused::not_allowed(&path, &method, "GET")),
        "/v1/preview" | "/v1/test-delivery" => Err(Refused::not_allowed(&path, &method, "POST")),
        _ => match path.strip_prefix("/v1/integrations/").filter(|name| !name.contains('/')) {
            Some(name) => one(service, name, request).await,
            None => return Err(request),
        },
    })
}

/// The route of one integration.
async fn one(
    service: &Arc<Service>,
    name: &str,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Refused> {
    let method = request.method().clone();
    match method {
        Method::GET => {
            let known = service.configured();
            let known = known.integrations.iter().find(|known| known.name == name);
            let known = known.ok_or_else(|| IntegrationError::Unknown(name.to_owned()))?;
            let mut answer = json(known);
            if let Ok(tag) = HeaderValue::try_from(format!("\"{}\"", known.version))
                && !known.version.is_empty()
            {
                answer.headers_mut().insert(ETAG, tag);
            }
            Ok(answer)
        }
        Method::PUT => {
            let expected = expected(request.headers())?;
            Ok(json(&service.save(name, body(request, DRAFT).await?, expected).await?))
        }
        Method::DELETE => Ok(json(&service.remove(name).await?)),
        _ => {
            let path = request.uri().path().to_owned();
            Err(Refused::not_allowed(&path, &method, "GET, PUT, DELETE"))
        }
    }
}

/// What a `PUT` says of what it replaces (RFC 9110, section 13.1): `If-Match: "VERSION"` or `If-None-Match: *`.
fn expected(headers: &HeaderMap) -> Result<Expected, IntegrationError> {
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().trim().to_owned();
    let [matching, none_matching] =
        [IF_MATCH, IF_NONE_MATCH].map(|name| headers.get(name).map(text));
    match (matching.as_deref(), none_matching.as_deref()) {
        (None, None) => Ok(Expected::Anything),
        (None, Some("*")) => Ok(Expected::Nothing),
        (Some(tag), None) => {
            let version = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            let version = version.filter(|version| !version.is_empty() && !version.contains('"'));
            version.map(|version| Expected::Version(version.to_owned())).ok_or_else(unclear)
        }
        _ => Err(unclear()),
    }
}

fn unclear() -> IntegrationError {
    let message =
        "a PUT takes If-Match with one version in quotes, or If-None-Match: *, or neither";
    IntegrationError::Invalid(message.to_owned())
}

async fn preview(
    service: &Arc<Service>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Refused> {
    Ok(json(&service.preview(body(request, PREVIEW).await?).await?))
}

async fn test(
    service: &Arc<Service>,
    request: Request<Incoming>,
) -> Result<Response<Answer>, Refused> {
    Ok(json(&service.test_delivery(body(request, TEST).await?).await?))
}
