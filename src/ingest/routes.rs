//! PURE. Method and path → what is asked for.

use hyper::Method;

use crate::event::Kind;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `GET /health`.
    Health,
    /// A body that is one event of this kind.
    Single(Kind),
    /// A body of many events.
    Batch,
    /// A body of records, as Ometria's own endpoint takes them.
    Push,
    /// The path exists, with another method: the one to use.
    MethodNotAllowed(&'static str),
    /// No such path.
    NotFound,
}

/// Finds the route of DESIGN.md section 4; a trailing slash is forgiven.
pub(super) fn find(method: &Method, path: &str) -> Route {
    let path = path.strip_suffix('/').unwrap_or(path);
    let found = match path {
        "/health" if method == Method::GET || method == Method::HEAD => return Route::Health,
        "/health" => return Route::MethodNotAllowed("GET, HEAD"),
        "/v1/track" | "/v1/t" => Route::Single(Kind::Track),
        "/v1/page" | "/v1/p" => Route::Single(Kind::Page),
        "/v1/identify" | "/v1/i" => Route::Single(Kind::Identify),
        "/v1/group" | "/v1/g" => Route::Single(Kind::Group),
        "/v1/alias" => Route::Single(Kind::Alias),
        "/v1/screen" => Route::Single(Kind::Screen),
        "/v1/batch" | "/v1/import" => Route::Batch,
        "/v2/push" => Route::Push,
        _ => return Route::NotFound,
    };
    if method == Method::POST { found } else { Route::MethodNotAllowed("POST") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_of_the_contract_is_found() {
        let post = |path| find(&Method::POST, path);
        for (paths, kind) in [
            (&["/v1/track", "/v1/t", "/v1/track/"][..], Kind::Track),
            (&["/v1/page", "/v1/p"], Kind::Page),
            (&["/v1/identify", "/v1/i"], Kind::Identify),
            (&["/v1/group", "/v1/g"], Kind::Group),
            (&["/v1/alias"], Kind::Alias),
            (&["/v1/screen"], Kind::Screen),
        ] {
            for path in paths {
                assert_eq!(post(path), Route::Single(kind), "{path}");
                assert_eq!(find(&Method::GET, path), Route::MethodNotAllowed("POST"), "{path}");
            }
        }
        assert_eq!((post("/v1/batch"), post("/v1/import")), (Route::Batch, Route::Batch));
        assert_eq!((post("/v2/push"), post("/v2/push/")), (Route::Push, Route::Push));
        assert_eq!(find(&Method::GET, "/health"), Route::Health);
        assert_eq!(post("/health"), Route::MethodNotAllowed("GET, HEAD"));
        for path in ["", "/", "/v1", "/v1/tracks", "/V1/track", "/v1/track/x", "/health/x"] {
            assert_eq!(post(path), Route::NotFound, "{path}");
        }
    }
}
