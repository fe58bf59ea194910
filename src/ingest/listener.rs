//! The Unix socket: binding it, its connections, draining them.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};

use super::service::Service;

/// How long requests under way may take to finish once a shutdown began.
const DRAIN: Duration = Duration::from_secs(4);
/// After an error of `accept` (too many open files): connections wait in the backlog meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Binds a Unix socket at `path` with permission bits `mode`, replacing a socket that nobody answers on.
///
/// The socket is bound under another name, given its mode, and renamed: nobody can connect before the mode holds.
///
/// # Errors
/// When another process answers on it, when `path` is something else than a socket, or on any I/O error.
pub fn bind(path: &Path, mode: u32) -> anyhow::Result<UnixListener> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("look at {shown}")),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            anyhow::bail!("{shown} exists and is no socket: remove it, or configure another path")
        }
        Ok(_) => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                anyhow::bail!(
                    "another process answers on {shown}: stop it, or configure another path"
                );
            }
        }
    }
    let directory = path.parent().unwrap_or(Path::new("/"));
    if !directory.exists() {
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
    }
    let beside = directory.join(format!(".{}", std::process::id()));
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("remove {}", beside.display()));
        }
        _ => {}
    }
    let listener = UnixListener::bind(&beside).with_context(|| format!("bind {shown}"))?;
    fs::set_permissions(&beside, fs::Permissions::from_mode(mode))
        .with_context(|| format!("set the mode of {shown}"))?;
    fs::rename(&beside, path).with_context(|| format!("bind {shown}"))?;
    Ok(listener)
}

/// Serves connections until `shutdown`, then lets requests under way finish.
pub async fn serve(
    listener: UnixListener,
    service: Arc<Service>,
    mut shutdown: watch::Receiver<bool>,
) {
    let connections = Arc::new(Semaphore::new(service.limits().connections_max));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = async {
            let held = connections.clone().acquire_owned().await;
            (held, listener.accept().await)
        };
        let (held, accepted) = tokio::select! {
            accepted = accepted => accepted,
            _ = shutdown.wait_for(|stop| *stop) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let serving = connection(stream, &service, &graceful);
                tokio::spawn(async move {
                    let _held = held;
                    serving.await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections were closed before their requests had ended");
    }
}

fn connection(
    stream: UnixStream,
    service: &Arc<Service>,
    graceful: &GracefulShutdown,
) -> impl Future<Output = ()> + Send + 'static {
    let answer = service_fn({
        let service = service.clone();
        move |request| {
            let service = service.clone();
            async move { service.answer(request).await }
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(service.limits().read_timeout)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(stream), answer);
    let connection = graceful.watch(connection);
    async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a producer's connection ended early");
        }
    }
}
