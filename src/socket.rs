//! Sockets with HTTP/1.1: binding, connections and their limits, draining. Knows nothing of what is asked.

use std::convert::Infallible;
use std::error::Error;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, SetOnce, mpsc, watch};

use crate::write_limit::WriteLimited;

/// How long requests under way may take to finish once a shutdown began.
pub const DRAIN: Duration = Duration::from_secs(4);
/// How long a connection that was taken just before may take to bring its first request.
const FIRST_REQUEST: Duration = Duration::from_secs(1);
/// After an error of `accept` (too many open files): connections wait in the backlog meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How long a peer may take nothing of what it is answered.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections of peers that are not admitted, over one socket: so many may wait for their refusal, further ones are closed.
const STRANGERS_MAX: usize = 16;
/// For the header of such a peer to arrive.
const STRANGER_HEADER: Duration = Duration::from_secs(1);
/// What hyper buffers of one connection: also the longest header.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// What connections may take (Promise 7).
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open at once, over all sockets that share it; further ones wait in the socket's backlog. Peers that are not admitted
    /// hold none of these.
    pub connections: Arc<Semaphore>,
    /// For a header to arrive; then the connection is closed, also an idle one.
    pub header_timeout: Duration,
}

/// A connection as it begins.
pub(crate) struct Opened<A> {
    /// What answers its requests.
    pub(crate) answer: A,
    /// Whether whoever connected is one of those whom the socket is for. Others only have their refusal.
    pub(crate) is_admitted: bool,
}

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

/// A socket that connections come from.
pub trait Listener: Send + Sync {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection.
    ///
    /// # Cancel safety
    /// Dropping the future loses no connection.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        Ok(UnixListener::accept(self).await?.0)
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = TcpListener::accept(self).await?;
        // An answer is one small write: waiting for more would only delay it, and that is all that an error here costs.
        drop(stream.set_nodelay(true));
        Ok(stream)
    }
}

/// Answers requests until `shutdown`, then lets those under way finish. An answer that has no end of its own must end with
/// `shutdown`. Connections that were not taken stay in the socket's backlog: where systemd holds it, the next daemon serves them.
pub async fn serve<L, A, F, B>(
    listener: L,
    limits: Limits,
    shutdown: watch::Receiver<bool>,
    answer: A,
) where
    L: Listener,
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let opened = |_: &L::Stream| Opened { answer: answer.clone(), is_admitted: true };
    serve_each(listener, limits, shutdown, opened).await;
}

/// As [`serve`], with an answer for each connection.
pub(crate) async fn serve_each<L, A, F, B>(
    listener: L,
    limits: Limits,
    mut shutdown: watch::Receiver<bool>,
    opened: impl Fn(&L::Stream) -> Opened<A>,
) where
    L: Listener,
    A: Fn(Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    // Each connection holds an end: the channel closes with the last of them.
    let (open, mut gone) = mpsc::channel::<Infallible>(1);
    let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
    loop {
        let accepted = async {
            let held = limits.connections.clone().acquire_owned().await;
            (held, listener.accept().await)
        };
        let (held, accepted) = tokio::select! {
            accepted = accepted => accepted,
            _ = shutdown.wait_for(|stop| *stop) => break,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Opened { answer, is_admitted } = opened(&stream);
        let (held, header_timeout) = if is_admitted {
            (held, limits.header_timeout)
        } else {
            drop(held);
            let Ok(held) = strangers.clone().try_acquire_owned() else { continue };
            (Ok(held), STRANGER_HEADER)
        };
        let (open, shutdown) = (open.clone(), shutdown.clone());
        tokio::spawn(async move {
            let _held = (held, open);
            converse(stream, header_timeout, answer, shutdown).await;
        });
    }
    drop((listener, open));
    if tokio::time::timeout(DRAIN, gone.recv()).await.is_err() {
        tracing::warn!("connections were closed before their requests had ended");
    }
}

/// Answers the requests of one connection until it ends.
async fn converse<S, A, F, B>(
    stream: S,
    header_timeout: Duration,
    answer: A,
    mut shutdown: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    A: Fn(Request<Incoming>) -> F + Send + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let asked = Arc::new(SetOnce::new());
    let asking = asked.clone();
    let service = service_fn(move |request| {
        if !asking.initialized() {
            // Only this connection's requests set it, one after the other.
            drop(asking.set(()));
        }
        let answered = answer(request);
        async { Ok::<_, Infallible>(answered.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(WriteLimited::new(stream, WRITE_TIMEOUT)), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        biased; // what has arrived before a shutdown is read before it
        ended = connection.as_mut() => ended,
        () = leave(&mut shutdown, &asked) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Resolves when a connection must end after the request under way: at the shutdown, or a moment later when it has not asked
/// anything yet. Who had just connected would else be turned away without an answer.
async fn leave(shutdown: &mut watch::Receiver<bool>, asked: &SetOnce<()>) {
    // A sender that is gone counts as a shutdown.
    drop(shutdown.wait_for(|stop| *stop).await);
    drop(tokio::time::timeout(FIRST_REQUEST, asked.wait()).await);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::sync::Mutex;
    use tokio::time::{Instant, timeout};

    use super::*;

    /// Connections that are pipes in memory, so that time can be paused.
    struct Pipes(Mutex<mpsc::Receiver<DuplexStream>>);

    impl Listener for Pipes {
        type Stream = DuplexStream;

        async fn accept(&self) -> io::Result<DuplexStream> {
            self.0.lock().await.recv().await.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
        }
    }

    /// What connects to a service that answers everything with 100 kB.
    struct Peers {
        connecting: mpsc::Sender<DuplexStream>,
        _stop: watch::Sender<bool>,
    }

    impl Peers {
        /// `connections`: how many may be open at once. Admitted are as many as `admitted` has places left.
        fn of_service(connections: usize, admitted: Arc<Semaphore>) -> Peers {
            let (connect, connected) = mpsc::channel(64);
            let (stop, stopped) = watch::channel(false);
            let connections = Arc::new(Semaphore::new(connections));
            let limits = Limits { connections, header_timeout: Duration::from_secs(10) };
            let answer = |_| async { Response::new(Full::new(Bytes::from(vec![b'x'; 100_000]))) };
            let opened = move |_: &DuplexStream| {
                let is_admitted = admitted.try_acquire().map(tokio::sync::SemaphorePermit::forget);
                Opened { answer, is_admitted: is_admitted.is_ok() }
            };
            tokio::spawn(serve_each(Pipes(Mutex::new(connected)), limits, stopped, opened));
            Peers { connecting: connect, _stop: stop }
        }

        async fn connect(&self) -> DuplexStream {
            let (near, far) = duplex(1024);
            self.connecting.send(far).await.unwrap();
            near
        }
    }

    async fn ask(stream: &mut DuplexStream) {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    }

    /// All that comes until the connection ends; an hour is for ever.
    async fn answered(stream: &mut DuplexStream) -> usize {
        let mut read = Vec::new();
        let ended = timeout(Duration::from_secs(3600), stream.read_to_end(&mut read)).await;
        ended.expect("the connection ends").unwrap()
    }

    /// Promise 7: a place among the connections is not held by who asks and never reads.
    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_no_answer_gives_up_its_place() {
        let peers = Peers::of_service(1, Arc::new(Semaphore::new(2)));
        let begun = Instant::now();
        let mut deaf = peers.connect().await;
        ask(&mut deaf).await;
        let mut next = peers.connect().await;
        ask(&mut next).await;
        assert!(answered(&mut next).await > 100_000);
        assert_eq!(begun.elapsed().as_secs(), WRITE_TIMEOUT.as_secs());
        assert!(answered(&mut deaf).await < 100_000);
    }
    /// Peers that are not admitted have places of their own, few and not for long: those of the others stay free.
    #[tokio::test(start_paused = true)]
    async fn strangers_hold_no_place_of_the_admitted() {
        let admitted = Arc::new(Semaphore::new(0));
        let peers = Peers::of_service(1, admitted.clone());
        let begun = Instant::now();
        let mut strangers = Vec::new();
        for _ in 0..=STRANGERS_MAX {
            strangers.push(peers.connect().await);
        }
        // One more than have a place is closed at once, unanswered.
        assert_eq!(answered(strangers.last_mut().unwrap()).await, 0);
        admitted.add_permits(1);
        let mut producer = peers.connect().await;
        ask(&mut producer).await;
        assert!(answered(&mut producer).await > 100_000);
        assert_eq!(begun.elapsed(), Duration::ZERO, "the admitted waited for strangers");
        for stranger in &mut strangers {
            assert_eq!(answered(stranger).await, 0, "who asks nothing is told nothing");
        }
        assert_eq!(begun.elapsed().as_secs(), STRANGER_HEADER.as_secs());
        // Their places are free again.
        let mut stranger = peers.connect().await;
        ask(&mut stranger).await;
        assert!(answered(&mut stranger).await > 100_000);
    }
}
