//! What the console answers: pages, parts of pages, streams, refusals; each with the headers that keep a browser from doing
//! anything else with it.

use askama::Template;
use bytes::Bytes;
use http_body_util::channel::Channel;
use http_body_util::{Either, Full};
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
    LOCATION, REFERRER_POLICY, SET_COOKIE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{Response, StatusCode};

/// A whole body, or one that goes on.
pub(super) type Answer = Response<Either<Full<Bytes>, Channel<Bytes>>>;

/// Everything from this very console, and nothing inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// In every answer. `no-referrer` would have browsers send `Origin: null` with the console's own forms.
pub(super) fn secure(headers: &mut HeaderMap) {
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "same-origin"),
        (CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// A template as a page.
pub(super) fn page(template: &impl Template) -> Answer {
    html(StatusCode::OK, template)
}

pub(super) fn html(status: StatusCode, template: &impl Template) -> Answer {
    let text =
        template.render().expect("templates write into memory, and their values always show");
    typed(status, "text/html; charset=utf-8", text)
}

pub(super) fn typed(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Either::Left(Full::new(body.into())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// A few words, for who has no use for a page.
pub(super) fn plain(status: StatusCode, text: &str) -> Answer {
    typed(status, "text/plain; charset=utf-8", format!("{text}\n"))
}

/// To be asked for with `GET`.
pub(super) fn see_other(path: &str) -> Answer {
    let mut answer = plain(StatusCode::SEE_OTHER, "see the page that Location names");
    let path = HeaderValue::from_str(path).unwrap_or(HeaderValue::from_static("/"));
    answer.headers_mut().insert(LOCATION, path);
    answer
}

/// Sets the cookie `name` for so many seconds, for this host alone; 0 removes it.
pub(super) fn set_cookie(answer: &mut Answer, name: &str, value: &str, seconds: u64) {
    let cookie = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict");
    let cookie = HeaderValue::from_str(&cookie).expect("a cookie's name and value are plain ASCII");
    answer.headers_mut().append(SET_COOKIE, cookie);
}

/// A stream of events (HTML standard, section 9.2) that `sent` will fill.
pub(super) fn stream(body: Channel<Bytes>) -> Answer {
    let mut answer = Response::new(Either::Right(body));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    answer
}
