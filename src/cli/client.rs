//! HTTP over a Unix socket of the daemon.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HOST, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{Failure, show};
use crate::admin::protocol::Problem;

/// For an answer that needs no waiting.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// A connection to a socket of the daemon.
pub(super) struct Client {
    socket: PathBuf,
    sender: SendRequest<Full<Bytes>>,
    /// What the next request depends on.
    condition: Option<(HeaderName, HeaderValue)>,
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
        Ok(Client { socket: socket.to_owned(), sender, condition: None })
    }

    /// Has the next request depend on a condition, such as `If-Match`.
    pub(super) fn only(&mut self, condition: HeaderName, value: HeaderValue) {
        self.condition = Some((condition, value));
    }

    /// Whether the daemon has not closed the connection, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Sends one request and reads the whole answer, which must have come within `patience`.
    pub(super) async fn request(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Option<Duration>,
    ) -> anyhow::Result<Answered> {
        let shown = self.socket.display().to_string();
        let answered = async {
            let response = self.send(method, path, body).await?;
            let status = response.status().as_u16();
            let retry_after = response.headers().get(RETRY_AFTER);
            let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
            let body = response.into_body().collect().await.with_context(|| lost(&self.socket))?;
            Ok(Answered { status, retry_after, body: body.to_bytes() })
        };
        let Some(patience) = patience else { return answered.await };
        tokio::time::timeout(patience, answered).await.unwrap_or_else(|_| {
            Err(anyhow!("the daemon on {shown} has not answered within {} s", patience.as_secs()))
        })
    }

    /// `GET`s a JSON document.
    pub(super) async fn get<T: DeserializeOwned>(&mut self, path: &str) -> Result<T, Failure> {
        let answered = self.request(Method::GET, path, Bytes::new(), Some(ANSWER_MAX)).await;
        answered.map_err(Failure::Unreachable)?.json()
    }

    /// `POST`s a JSON document and reads one, however long that takes.
    pub(super) async fn post<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        self.send_json(Method::POST, path, body).await
    }

    /// The same by another method.
    pub(super) async fn send_json<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let body = Bytes::from(serde_json::to_vec(body).context("write the request")?);
        let answered = self.request(method, path, body, None).await;
        answered.map_err(Failure::Unreachable)?.json()
    }

    /// `POST`s a document as it stands and reads a JSON document, however long that takes.
    pub(super) async fn post_bytes<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: Bytes,
    ) -> Result<T, Failure> {
        let answered = self.request(Method::POST, path, body, None).await;
        answered.map_err(Failure::Unreachable)?.json()
    }

    /// `GET`s a document as it stands.
    pub(super) async fn get_raw(&mut self, path: &str) -> Result<Bytes, Failure> {
        let answered = self.request(Method::GET, path, Bytes::new(), Some(ANSWER_MAX)).await;
        let answered = answered.map_err(Failure::Unreachable)?;
        if answered.status == 200 { Ok(answered.body) } else { Err(answered.problem().into()) }
    }

    /// `POST`s a JSON document and reads a document as it stands.
    pub(super) async fn post_raw(
        &mut self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Bytes, Failure> {
        let body = Bytes::from(serde_json::to_vec(body).context("write the request")?);
        let answered = self.request(Method::POST, path, body, Some(ANSWER_MAX)).await;
        let answered = answered.map_err(Failure::Unreachable)?;
        if answered.status == 200 { Ok(answered.body) } else { Err(answered.problem().into()) }
    }

    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> anyhow::Result<Response<Incoming>> {
        let request = Request::builder().method(method).uri(path).header(HOST, "pillarbox");
        let mut request = request.body(Full::new(body))?;
        request.headers_mut().extend(self.condition.take());
        self.sender.ready().await.with_context(|| lost(&self.socket))?;
        self.sender.send_request(request).await.with_context(|| lost(&self.socket))
    }
}

fn lost(socket: &Path) -> String {
    format!("the daemon on {} closed the connection", socket.display())
}

impl Answered {
    fn problem(&self) -> anyhow::Error {
        let problem = serde_json::from_slice::<Problem>(&self.body);
        let message = problem.map_or_else(
            |_| String::from_utf8_lossy(&self.body).into_owned(),
            |problem| problem.message,
        );
        anyhow!("the daemon answered {}: {message}", self.status)
    }

    fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        if self.status != 200 {
            return Err(self.failure());
        }
        let read = serde_json::from_slice(&self.body)
            .context("the daemon's answer is not understood: is it of another version?");
        Ok(read?)
    }

    /// Faults of a draft are said a line each.
    fn failure(&self) -> Failure {
        let problem = serde_json::from_slice::<Problem>(&self.body);
        let faults = problem.map(|problem| problem.faults).unwrap_or_default();
        if faults.is_empty() {
            return self.problem().into();
        }
        let word = if faults.len() == 1 { "fault" } else { "faults" };
        let listed =
            faults.iter().map(|fault| format!("\n  {}", show::printable(&fault.to_string())));
        let listed: String = listed.collect();
        show::problem(&format!("the integration has {} {word}:{listed}", faults.len()));
        Failure::Said
    }
}

/// Why there is nobody on a socket, and what to do.
fn unreachable(socket: &Path, error: &io::Error) -> Failure {
    let advice = match error.kind() {
        io::ErrorKind::NotFound => {
            "no such socket: is the daemon running? Name its configuration with --config or its socket with --socket, or start it: pillarbox run"
        }
        io::ErrorKind::PermissionDenied => {
            "permission denied: run this as the daemon's user or as root; for the ingest socket, membership of its group will do"
        }
        io::ErrorKind::ConnectionRefused => "nobody answers: the daemon is not running",
        _ => "the daemon is not reachable",
    };
    Failure::Unreachable(anyhow!("{}: {advice} ({error})", socket.display()))
}
