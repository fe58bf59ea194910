//! The routes of integrations, drafts and test deliveries.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};

use super::EditError;
use crate::admin::protocol::Problem;
use crate::admin::service::Service;
use crate::admin::socket::{Answer, Refused, body, json};

/// What the bodies look like.
const DRAFT: &str = r#"an integration's settings, such as {"preset":"retail","api_key":"…"}"#;
const PREVIEW: &str = r#"{"draft":{…},"events":[…]} or {"integration":"…","events":[…]}"#;
const TEST: &str = r#"{"integration":"…"} or {"draft":{…}}, and with them "event":{…}"#;

impl From<EditError> for Refused {
    fn from(error: EditError) -> Refused {
        let (status, code) = match &error {
            EditError::Faulty(_) => (StatusCode::BAD_REQUEST, "invalid_integration"),
            EditError::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid_request"),
            EditError::InFile { .. } => (StatusCode::CONFLICT, "in_the_file"),
            EditError::Unknown(_) => (StatusCode::NOT_FOUND, "not_found"),
            EditError::Busy => (StatusCode::CONFLICT, "busy"),
            EditError::NotApplied(_) => (StatusCode::CONFLICT, "not_applied"),
            EditError::Storage(_) => (StatusCode::INTERNAL_SERVER_ERROR, "storage_failed"),
            EditError::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "shutting_down"),
        };
        let message = error.to_string();
        let faults = if let EditError::Faulty(faults) = error { faults } else { Vec::new() };
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
            let known = known.ok_or_else(|| EditError::Unknown(name.to_owned()))?;
            Ok(json(known))
        }
        Method::PUT => Ok(json(&service.save(name, body(request, DRAFT).await?).await?)),
        Method::DELETE => Ok(json(&service.remove(name).await?)),
        _ => {
            let path = request.uri().path().to_owned();
            Err(Refused::not_allowed(&path, &method, "GET, PUT, DELETE"))
        }
    }
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
