//! HTTP over a Unix socket of the daemon.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, RETRY_AFTER};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::Failure;
use crate::admin::protocol::Problem;

/// A connection to a socket of the daemon.
pub(super) struct Client {
    socket: PathBuf,
    sender: SendRequest<Full<Bytes>>,
}

/// An answer, whatever its status.
pub(super) struct Answered {
    /// The status.
    pub(super) status: u16,
    /// Seconds that it asks to wait.
    pub(super) retry_after: Option<u64>,
    /// The body.
    pub(super) body: Bytes,
}

impl Client {
    /// Connects to `socket`.
    pub(super) async fn connect(socket: &Path) -> Result<Client, Failure> {
        let stream =
            UnixStream::connect(socket).await.map_err(|error| unreachable(socket, &error))?;
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| {
                Failure::Unreachable(
                    anyhow!(error).context(format!("talk to {}", socket.display())),
                )
            })?;
        // Ends with the sender; what is wrong with the connection, the request says.
        tokio::spawn(connection);
        Ok(Client { socket: socket.to_owned(), sender })
    }

    /// Sends one request and reads the whole answer.
    pub(super) async fn request(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<Answered> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "pillarbox")
            .body(Full::new(body))?;
        let lost = || format!("the daemon on {} closed the connection", self.socket.display());
        self.sender.ready().await.with_context(lost)?;
        let response = self.sender.send_request(request).await.with_context(lost)?;
        let status = response.status().as_u16();
        let retry_after =
            response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = response.into_body().collect().await.with_context(lost)?.to_bytes();
        Ok(Answered { status, retry_after, body })
    }

    /// `GET`s a JSON document.
    pub(super) async fn get<T: DeserializeOwned>(&mut self, path: &str) -> anyhow::Result<T> {
        let answered = self.request(Method::GET, path, Bytes::new()).await?;
        answered.json()
    }

    /// `POST`s a JSON document and reads one.
    pub(super) async fn post<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
    ) -> anyhow::Result<T> {
        let answered =
            self.request(Method::POST, path, Bytes::from(serde_json::to_vec(body)?)).await?;
        answered.json()
    }
}

impl Answered {
    fn json<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        if self.status != 200 {
            let problem = serde_json::from_slice::<Problem>(&self.body);
            let message = problem.map_or_else(
                |_| String::from_utf8_lossy(&self.body).into_owned(),
                |problem| problem.message,
            );
            return Err(anyhow!("the daemon answered {}: {message}", self.status));
        }
        serde_json::from_slice(&self.body)
            .context("the daemon's answer is not understood: is it of another version?")
    }
}

/// Why there is nobody on a socket, and what to do.
fn unreachable(socket: &Path, error: &io::Error) -> Failure {
    let advice = match error.kind() {
        io::ErrorKind::NotFound => {
            "no such socket: is the daemon running? Name its configuration with --config, or start it: pillarbox run"
        }
        io::ErrorKind::PermissionDenied => {
            "permission denied: run this as the daemon's user or as root"
        }
        io::ErrorKind::ConnectionRefused => "nobody answers: the daemon is not running",
        _ => "the daemon is not reachable",
    };
    Failure::Unreachable(anyhow!("{}: {advice} ({error})", socket.display()))
}
