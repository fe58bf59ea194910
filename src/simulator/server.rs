//! Connections: taken, served with keep-alive, cut where a fault asks for it, drained at the end.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::routes::{self, Context};
use super::state::Handle;

/// Connections served at once; more wait to be taken.
const CONNECTIONS_MAX: usize = 512;

/// How long a request under way at the shutdown may take to arrive and be answered.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// The pause after a failed accept, which is most often a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Not HTTP, and no prefix of it.
const GARBAGE: &[u8] = b"\x15\x03\x01\x00\x02\x02\x16 this is not HTTP\r\n\r\n";

/// How a connection ends before its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// With a TCP reset.
    Reset,
    /// With bytes that are no HTTP.
    Garbage,
}

/// Serves the listener until `shutdown` is ready, then drains.
pub(super) async fn run(listener: TcpListener, handle: Handle, shutdown: impl Future<Output = ()>) {
    let mut shutdown = pin!(shutdown);
    let (stop, stopping) = watch::channel(false);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        if let Some((stream, place)) = accepted {
            handle.count_connection();
            let served = serve(stream, handle.clone(), stopping.clone());
            connections.spawn(async move {
                served.await;
                drop(place);
            });
        }
    }
    drop(listener);
    stop.send_replace(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    // What is not done in time is cut when the set is dropped.
    let _ = tokio::time::timeout(DRAIN_MAX, drained).await;
}

/// The next connection and its place among those allowed; `None`: try again.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(fault) => {
            tracing::warn!(%fault, "the simulator cannot take a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn serve(stream: TcpStream, handle: Handle, stopping: watch::Receiver<bool>) {
    // Answers are small: without this each would wait for the peer's acknowledgement of the last.
    // A failure costs speed only.
    let _ = stream.set_nodelay(true);
    let (cut, mut cuts) = mpsc::channel(1);
    let context = Arc::new(Context { handle, cut, stopping: stopping.clone() });
    let service = service_fn(move |request| routes::answer(Arc::clone(&context), request));
    let mut connection = http1::Builder::new()
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    let mut draining = false;
    loop {
        tokio::select! {
            // An error is the client's going away in the middle, which needs no report here.
            _ = &mut connection => return,
            Some(cut) = cuts.recv() => {
                end(connection.into_parts().io.into_inner(), cut).await;
                return;
            }
            () = stopped(&stopping), if !draining => {
                draining = true;
                std::pin::Pin::new(&mut connection).graceful_shutdown();
            }
        }
    }
}

/// Ready once the server stops.
pub(super) async fn stopped(stopping: &watch::Receiver<bool>) {
    // It fails when the server is gone, which is a stop too.
    let _ = stopping.clone().wait_for(|stopping| *stopping).await;
}

/// Ends a connection whose request has been read. The peer may be gone already: no failure matters.
async fn end(mut stream: TcpStream, cut: Cut) {
    match cut {
        Cut::Reset => {
            let _ = stream.set_zero_linger();
        }
        Cut::Garbage => {
            let _ = stream.write_all(GARBAGE).await;
            let _ = stream.shutdown().await;
        }
    }
}
