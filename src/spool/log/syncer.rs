//! Flushes beside the writer's work what was answered before its flush.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use super::super::durable;

/// A segment's file, and the newest frame that was written to it.
type Wanted = (Arc<File>, u64);

/// A thread that flushes the log when it is asked to; one flush serves all who asked before it began.
#[derive(Debug)]
pub(crate) struct Syncer {
    wanted: Option<mpsc::Sender<Wanted>>,
    thread: Option<JoinHandle<()>>,
    durable: Arc<AtomicU64>,
    asked: u64,
}

impl Syncer {
    /// Starts the thread; `fail` is told of a flush that failed, which is final. After each flush `beside` is called: work
    /// that nobody waits for.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(crate) fn start(
        beside: impl Fn() + Send + 'static,
        fail: impl Fn(&io::Error) + Send + 'static,
    ) -> io::Result<Syncer> {
        let (wanted, asked) = mpsc::channel::<Wanted>();
        let durable = Arc::new(AtomicU64::new(0));
        let reached = durable.clone();
        let thread = std::thread::Builder::new().name("syncer".into()).spawn(move || {
            while let Ok((mut file, mut frame)) = asked.recv() {
                // The writer flushes a segment itself before it leaves it: only the last one matters.
                while let Ok(later) = asked.try_recv() {
                    (file, frame) = later;
                }
                match durable::fdatasync(&file) {
                    Ok(()) => reached.store(frame, Ordering::Release),
                    Err(error) => return fail(&error),
                }
                beside();
            }
        })?;
        Ok(Syncer { wanted: Some(wanted), thread: Some(thread), durable, asked: 0 })
    }

    /// The newest frame that it has made durable.
    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// Asks for `frame` of `file`, once.
    pub(crate) fn ask(&mut self, file: impl FnOnce() -> Arc<File>, frame: u64) {
        if self.asked < frame
            && let Some(wanted) = &self.wanted
        {
            self.asked = frame;
            // The thread ends early only after a failure, which is final for all.
            drop(wanted.send((file(), frame)));
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        drop(self.wanted.take());
        if let Some(thread) = self.thread.take() {
            // Its panic is printed, and there is nothing left to do for it.
            drop(thread.join());
        }
    }
}
