//! Whether the spool can go on: its failure, and whether its disk answers.
//!
//! A thread of its own looks at the disk, because a runtime may sleep while one of its workers waits for it: who hands out
//! what the sockets and timers bring is then that worker, and the others were told of nothing.
//!
//! | a step is under way | what the thread does |
//! |---|---|
//! | longer than [`SLOW`] | gives the runtime something to do, so that another worker wakes up and takes over |
//! | longer than [`STEP_DEADLINE`] | fails the spool |

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;

/// A step that takes longer counts as failed: a dying disk may never answer, and sled may wait for ever after an I/O error.
const STEP_DEADLINE: Duration = Duration::from_secs(60);
const SLOW: Duration = Duration::from_millis(50);
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// See the module. Its thread ends with it.
#[derive(Debug)]
pub(super) struct Health {
    seen: Arc<Seen>,
    callers_may_wait: bool,
    _ended: mpsc::Sender<()>,
}

#[derive(Debug)]
struct Seen {
    /// The committer's step under way, by [`ticks`]; 0 when none is.
    committing: AtomicU64,
    /// The checkpoint's flush under way.
    flushing: AtomicU64,
    failure: watch::Sender<Option<String>>,
    /// The runtime of who settles.
    runtime: Option<Handle>,
}

impl Health {
    /// Starts the thread, which wakes the runtime that this is called in. `elsewhere`: the committer has a thread outside of it.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn start(elsewhere: bool) -> io::Result<Health> {
        let runtime = Handle::try_current().ok();
        let callers_may_wait = runtime.as_ref().is_some_and(|runtime| {
            runtime.runtime_flavor() == RuntimeFlavor::CurrentThread
                || elsewhere && runtime.metrics().num_workers() > 1
        });
        let seen = Arc::new(Seen {
            committing: AtomicU64::new(0),
            flushing: AtomicU64::new(0),
            failure: watch::Sender::new(None),
            runtime,
        });
        let looks = seen.clone();
        let (end, ended) = mpsc::channel::<()>();
        std::thread::Builder::new().name("disk-watch".into()).spawn(move || {
            while ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                looks.look();
            }
        })?;
        Ok(Health { seen, callers_may_wait, _ended: end })
    }

    /// Whether who settles may wait for the disk in its own thread: there is another worker to go on, or no other task of
    /// the daemon's (a runtime of one thread is a test's).
    pub(super) fn callers_may_wait(&self) -> bool {
        self.callers_may_wait
    }

    /// Takes a step of the committer.
    pub(super) fn commit<T>(&self, step: impl FnOnce() -> T) -> T {
        watched(&self.seen.committing, step)
    }

    /// Takes the store's flush.
    pub(super) fn flush<T>(&self, step: impl FnOnce() -> T) -> T {
        watched(&self.seen.flushing, step)
    }

    /// Marks the spool as failed, for good. The first reason stays.
    pub(super) fn fail(&self, reason: &str) {
        self.seen.fail(reason);
    }

    /// Why the spool failed, if it has.
    pub(super) fn failure(&self) -> Option<String> {
        self.seen.failure.borrow().clone()
    }

    /// Resolves with the reason once the spool has failed, or the disk does not answer.
    pub(super) async fn failed(&self) -> String {
        let mut failure = self.seen.failure.subscribe();
        let changed = failure.wait_for(Option::is_some).await;
        changed.ok().and_then(|reason| reason.clone()).unwrap_or_default()
    }

    /// A step of the committer that began long ago.
    #[cfg(test)]
    pub(super) fn hang(&self) {
        self.seen.committing.store(1, Ordering::Release);
    }
}

impl Seen {
    fn look(&self) {
        let took = |since: &AtomicU64| match since.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            since => Duration::from_millis(ticks().saturating_sub(since)),
        };
        let longest = took(&self.committing).max(took(&self.flushing));
        if longest > STEP_DEADLINE {
            self.fail("the disk has not answered within a minute");
        }
        if longest > SLOW
            && let Some(runtime) = &self.runtime
        {
            drop(runtime.spawn(async {})); // it has done its work by being there
        }
    }

    fn fail(&self, reason: &str) {
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            failure.get_or_insert_with(|| reason.to_owned());
            first
        });
    }
}

fn watched<T>(since: &AtomicU64, step: impl FnOnce() -> T) -> T {
    since.store(ticks(), Ordering::Release);
    let done = step();
    since.store(0, Ordering::Release);
    done
}

/// Milliseconds of a clock that neither NTP nor an operator sets: a host whose clock jumps while a step is under way has no
/// bad disk. Never 0, and 1 is long ago.
#[expect(clippy::disallowed_types, reason = "the disk does not pause with a simulation's time")]
fn ticks() -> u64 {
    static BEGAN: OnceLock<std::time::Instant> = OnceLock::new();
    let since = BEGAN.get_or_init(std::time::Instant::now).elapsed() + 2 * STEP_DEADLINE;
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
