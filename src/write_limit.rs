//! A stream whose peer must go on reading: one that takes nothing of what is written ends with an error.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Passes everything on to its stream. A write that makes no progress within its time fails with
/// [`io::ErrorKind::TimedOut`]; the time runs only while a write waits, so that a stream that is idle is left alone.
#[derive(Debug)]
pub(crate) struct WriteLimited<S> {
    stream: S,
    within: Duration,
    /// When the write that waits has failed.
    ends: Option<Pin<Box<Sleep>>>,
}

impl<S> WriteLimited<S> {
    pub(crate) fn new(stream: S, within: Duration) -> WriteLimited<S> {
        WriteLimited { stream, within, ends: None }
    }

    /// What becomes of a write that the stream answers so.
    fn limited<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.ends = None;
            return polled;
        }
        let within = self.within;
        let ends = self.ends.get_or_insert_with(|| Box::pin(tokio::time::sleep(within)));
        ready!(ends.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the peer does not read what it is answered",
        )))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteLimited<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteLimited<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.limited(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.limited(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        // Most streams have nothing to flush and are ready at once: that is no progress of a write that waits.
        if polled.is_ready() { polled } else { self.limited(context, polled) }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.limited(context, polled)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::{Instant, sleep};

    use super::*;

    const WITHIN: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_reads_is_let_go() {
        let (near, _far) = duplex(64);
        let mut stream = WriteLimited::new(near, WITHIN);
        let begun = Instant::now();
        let error = stream.write_all(&[0; 1000]).await.unwrap_err();
        assert_eq!((error.kind(), begun.elapsed().as_secs()), (io::ErrorKind::TimedOut, 30));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_slowly_or_is_told_nothing_stays() {
        let (near, mut far) = duplex(64);
        let mut stream = WriteLimited::new(near, WITHIN);
        let reader = tokio::spawn(async move {
            let mut part = [0; 50];
            for _ in 0..20 {
                sleep(WITHIN * 9 / 10).await;
                far.read_exact(&mut part).await.unwrap();
            }
            far
        });
        stream.write_all(&[0; 1000]).await.unwrap();
        let mut far = reader.await.unwrap();
        sleep(10 * WITHIN).await; // nothing to write
        stream.write_all(b"still there").await.unwrap();
        let mut read = [0; 11];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"still there");
    }
}
