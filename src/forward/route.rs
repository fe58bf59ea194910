//! Connections to the endpoint: straight or through the tunnel of a proxy, and TLS over either, verified end to end.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use hyper::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

use super::Settings;
use super::failure::{NoTunnel, ProxyFailed};
use super::way::{Proxy, Way};

/// For a TCP connection to be made, unless the whole attempt has less.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For a proxy to be reached and to reach the endpoint, unless the attempt has less.
const TUNNEL_TIMEOUT: Duration = Duration::from_secs(20);
/// The head of a proxy's answer.
const HEAD_BYTES_MAX: usize = 8 << 10;
const HEAD_END: &[u8] = b"\r\n\r\n";

/// Makes the connections for `settings`. `roots` replaces the host's certificates.
///
/// # Errors
/// When TLS cannot be set up, or an https endpoint is to be trusted by nobody.
pub(super) fn connector(
    settings: &Settings,
    roots: Option<RootCertStore>,
    secure: bool,
) -> anyhow::Result<HttpsConnector<Route>> {
    let roots = if secure { trusted(roots, &settings.way)? } else { RootCertStore::empty() };
    let tls =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .context("set up TLS")?
            .with_root_certificates(roots)
            .with_no_client_auth();
    let https = HttpsConnectorBuilder::new().with_tls_config(tls);
    let https = if secure { https.https_only() } else { https.https_or_http() };
    Ok(https.enable_http1().wrap_connector(Route::new(settings, secure)))
}

/// The host's roots, or those in their place, and those of `ca_file`.
fn trusted(roots: Option<RootCertStore>, way: &Way) -> anyhow::Result<RootCertStore> {
    let of_host = roots.is_none();
    let mut trusted = roots.unwrap_or_else(|| {
        let mut roots = RootCertStore::empty();
        let host = rustls_native_certs::load_native_certs();
        for error in &host.errors {
            tracing::warn!(%error, "some of the host's root certificates cannot be read");
        }
        roots.add_parsable_certificates(host.certs);
        roots
    });
    for certificate in way.authorities.iter().flat_map(|ca| &ca.certificates) {
        trusted.add(certificate.clone()).context("trust a certificate of `ca_file`")?;
    }
    anyhow::ensure!(
        !(of_host && trusted.is_empty()),
        "the host has no root certificates (package ca-certificates), and `ca_file` names none"
    );
    Ok(trusted)
}

/// A way on which connections are made.
#[derive(Clone, Debug)]
pub(super) struct Route {
    tcp: HttpConnector,
    through: Option<Arc<Through>>,
}

/// The way through a proxy.
#[derive(Debug)]
struct Through {
    proxy: Proxy,
    /// For the tunnel to stand.
    within: Duration,
}

impl Route {
    fn new(settings: &Settings, secure: bool) -> Route {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT.min(settings.timeout)));
        // An endpoint by http is on this host.
        let proxy = settings.way.proxy.clone().filter(|_| secure);
        // Before the attempt itself is over, so that the proxy is named.
        let within = TUNNEL_TIMEOUT.min(settings.timeout.mul_f64(0.9));
        let through = proxy.map(|proxy| Arc::new(Through { proxy, within }));
        Route { tcp, through }
    }
}

type BoxError = Box<dyn Error + Send + Sync>;

impl Service<Uri> for Route {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, endpoint: Uri) -> Self::Future {
        let Some(through) = self.through.clone() else {
            let connecting = self.tcp.call(endpoint);
            return Box::pin(async { Ok(connecting.await?) });
        };
        let connecting = self.tcp.call(through.proxy.uri().clone());
        Box::pin(async move {
            let tunnel = async {
                let mut stream =
                    connecting.await.map_err(|error| NoTunnel::unconnected(&error))?.into_inner();
                connect(&mut stream, &endpoint, &through.proxy).await?;
                Ok(TokioIo::new(stream))
            };
            let silent = |_| Err(NoTunnel::Silent(through.within));
            let tunnel = timeout(through.within, tunnel).await.unwrap_or_else(silent);
            Ok(tunnel.map_err(|why| ProxyFailed { proxy: through.proxy.to_string(), why })?)
        })
    }
}

/// Has the proxy connect to the endpoint. hyper-util's own tunnel does not tell the status of a refusal, which says what
/// is to be done.
async fn connect(stream: &mut TcpStream, endpoint: &Uri, proxy: &Proxy) -> Result<(), NoTunnel> {
    let (host, port) = (endpoint.host().unwrap_or_default(), endpoint.port_u16().unwrap_or(443));
    let mut request =
        format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n").into_bytes();
    if let Some(authorization) = proxy.authorization() {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    let closed = |error: io::Error| NoTunnel::Closed(error.to_string());
    stream.write_all(&request).await.map_err(closed)?;
    let mut head = Vec::new();
    while !head.ends_with(HEAD_END) {
        if head.len() >= HEAD_BYTES_MAX {
            return Err(NoTunnel::Garbled);
        }
        // A byte at a time: what follows the head is the endpoint's.
        head.push(stream.read_u8().await.map_err(closed)?);
    }
    match status(&head) {
        Some(200..=299) => Ok(()),
        Some(status) => Err(NoTunnel::Refused(status)),
        None => Err(NoTunnel::Garbled),
    }
}

/// The status in the head of an answer.
fn status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let rest = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?;
    let status = rest.split(' ').nth(1)?.parse().ok()?;
    (100..=599).contains(&status).then_some(status)
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
