//! PURE. Why a push got no answer, sorted by what an operator can do about it.

use std::error::Error;
use std::io;
use std::iter;
use std::time::Duration;

use rustls::CertificateError;

use crate::advice;

/// Why there was no answer. All of it may pass.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// The whole attempt took too long.
    #[error("no answer within {0:?} (`timeout`)")]
    Timeout(Duration),
    /// The name does not resolve.
    #[error("the name in `endpoint` does not resolve: {0}; {cure}", cure = advice::DNS)]
    Dns(String),
    /// Refused or unreachable.
    #[error("cannot connect: {0}; {cure}", cure = advice::CONNECT)]
    Connect(String),
    /// No trust, or no TLS at all.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// A proxy did not lead to the endpoint.
    #[error("the proxy {0}")]
    Proxy(String),
    /// Closed or reset before the answer had begun.
    #[error("the connection was closed before the answer: {0}")]
    Closed(String),
    /// The answer was no HTTP.
    #[error("the answer is no HTTP: {0}; {cure}", cure = advice::NOT_HTTP)]
    NotHttp(String),
    /// Anything else.
    #[error("the push failed: {0}")]
    Other(String),
}

impl PushError {
    /// Every [`PushError::reason`].
    pub const REASONS: [&'static str; 8] =
        ["timeout", "dns", "connect", "tls", "proxy", "closed", "not_http", "other"];

    /// A short, stable code for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            PushError::Timeout(_) => "timeout",
            PushError::Dns(_) => "dns",
            PushError::Connect(_) => "connect",
            PushError::Tls(_) => "tls",
            PushError::Proxy(_) => "proxy",
            PushError::Closed(_) => "closed",
            PushError::NotHttp(_) => "not_http",
            PushError::Other(_) => "other",
        }
    }
}

#[cfg(test)]
impl PushError {
    /// One of each.
    pub(super) const EXAMPLES: [PushError; 8] = [
        PushError::Timeout(Duration::from_secs(30)),
        PushError::Dns(String::new()),
        PushError::Connect(String::new()),
        PushError::Tls(String::new()),
        PushError::Proxy(String::new()),
        PushError::Closed(String::new()),
        PushError::NotHttp(String::new()),
        PushError::Other(String::new()),
    ];
}

/// A proxy that did not lead to the endpoint, in words that say what to do.
#[derive(Debug, thiserror::Error)]
#[error("{proxy} {why}")]
pub(super) struct ProxyFailed {
    /// As it is shown.
    pub(super) proxy: String,
    /// What became of the attempt.
    pub(super) why: NoTunnel,
}

/// Why there is no tunnel: the end of a sentence that begins with the proxy.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoTunnel {
    /// Its name does not resolve.
    #[error("has a name that does not resolve: {0}; {cure}", cure = advice::PROXY)]
    Dns(String),
    /// Refused or unreachable.
    #[error("cannot be reached: {0}; {cure}", cure = advice::PROXY_DOWN)]
    Connect(String),
    /// Closed or broken before the answer was complete.
    #[error(
        "broke the connection off before it had connected to the endpoint: {0}; {cure}",
        cure = advice::PROXY_LOG
    )]
    Closed(String),
    /// The answer was no HTTP, or too long.
    #[error("does not answer as an HTTP proxy does; {cure}", cure = advice::PROXY)]
    Garbled,
    /// It answered with this status.
    #[error("{}", refused(*.0))]
    Refused(u16),
    /// It did not answer in time.
    #[error("made no connection to the endpoint within {0:?}; {cure}", cure = advice::PROXY_LOG)]
    Silent(Duration),
}

impl NoTunnel {
    /// Why there is no connection to the proxy itself.
    pub(super) fn unconnected(error: &(dyn Error + 'static)) -> NoTunnel {
        match classify(error, true) {
            PushError::Dns(why) => NoTunnel::Dns(why),
            PushError::Connect(why) => NoTunnel::Connect(why),
            other => NoTunnel::Connect(other.to_string()),
        }
    }
}

fn refused(status: u16) -> String {
    match status {
        401 | 407 => format!(
            "lets nobody pass without user and password, or not with these ({status}): {}",
            advice::PROXY_PASSWORD
        ),
        403 | 405 => {
            format!("may not connect to the endpoint ({status}): {}", advice::PROXY_RULES)
        }
        _ => format!("cannot connect to the endpoint ({status}); {}", advice::PROXY_LOG),
    }
}

/// Sorts a failure by what its chain of sources holds. `connecting`: there was no connection yet.
pub(super) fn classify(error: &(dyn Error + 'static), connecting: bool) -> PushError {
    if let Some(tls) = chain(error).find_map(|error| error.downcast_ref::<rustls::Error>()) {
        return PushError::Tls(untrusted(tls));
    }
    if let Some(proxy) = chain(error).find_map(|error| error.downcast_ref::<ProxyFailed>()) {
        return PushError::Proxy(proxy.to_string());
    }
    let why = chain(error).last().map_or_else(String::new, ToString::to_string);
    // hyper-util keeps its connector's errors private: this is their text.
    if chain(error).any(|error| error.to_string().starts_with("dns error")) {
        PushError::Dns(why)
    } else if connecting {
        let timed_out = io_kinds(error).any(|kind| kind == io::ErrorKind::TimedOut);
        PushError::Connect(if timed_out { "timed out".to_owned() } else { why })
    } else if hyper_errors(error).any(hyper::Error::is_parse) {
        PushError::NotHttp(why)
    } else if is_closed(error) {
        PushError::Closed(why)
    } else {
        PushError::Other(why)
    }
}

/// An error and what it wraps, outermost first. `io::Error::source` skips the error that it wraps; this does not.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&error: &&'a (dyn Error + 'static)| {
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
            None => error.source(),
        }
    })
}

fn hyper_errors<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a hyper::Error> {
    chain(error).filter_map(|error| error.downcast_ref())
}

fn io_kinds(error: &(dyn Error + 'static)) -> impl Iterator<Item = io::ErrorKind> {
    chain(error).filter_map(|error| error.downcast_ref::<io::Error>()).map(io::Error::kind)
}

fn is_closed(error: &(dyn Error + 'static)) -> bool {
    let ended = |error: &hyper::Error| {
        error.is_incomplete_message() || error.is_canceled() || error.is_closed()
    };
    let closed = [
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::BrokenPipe,
        io::ErrorKind::UnexpectedEof,
    ];
    hyper_errors(error).any(ended) || io_kinds(error).any(|kind| closed.contains(&kind))
}

/// What a failed handshake means for the operator.
fn untrusted(error: &rustls::Error) -> String {
    let cure = match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => advice::TLS_ISSUER,
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => advice::TLS_TIME,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                advice::TLS_NAME
            }
            _ => advice::TLS_OTHER,
        },
        rustls::Error::InvalidMessage(_) => {
            return format!("the endpoint does not speak TLS ({error}); {}", advice::NO_TLS);
        }
        _ => return error.to_string(),
    };
    format!("certificate not trusted: {error}; {cure}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(error: rustls::Error) -> io::Error {
        io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error))
    }

    #[test]
    fn tls_is_found_however_deep_it_is_wrapped() {
        for (certificate, words) in [
            (CertificateError::UnknownIssuer, "`ca_file`"),
            (CertificateError::Expired, "clock"),
            (CertificateError::NotValidForName, "`endpoint`"),
            (CertificateError::Revoked, "renew"),
        ] {
            let error = wrapped(rustls::Error::InvalidCertificate(certificate));
            let PushError::Tls(said) = classify(&error, true) else { panic!("{error}") };
            assert!(said.starts_with("certificate not trusted") && said.contains(words), "{said}");
        }
    }

    #[test]
    fn a_failure_of_the_operating_system_is_sorted_by_its_kind() {
        use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, TimedOut};
        for (kind, connecting, variant) in [
            (ConnectionRefused, true, "Connect"),
            (TimedOut, true, "Connect(\"timed out\")"),
            (ConnectionReset, true, "Connect"),
            (ConnectionReset, false, "Closed"),
            (BrokenPipe, false, "Closed"),
            (NotFound, false, "Other"),
        ] {
            let sorted = format!("{:?}", classify(&io::Error::from(kind), connecting));
            assert!(sorted.starts_with(variant), "{kind:?}: {sorted}");
        }
    }
}
