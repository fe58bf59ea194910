//! Whether the spool can go on: its failure, and whether its disk answers.
//!
//! A thread of its own looks at the disk, because a runtime may sleep while one of its workers waits for it: who hands out
//! what the sockets and timers bring is then that worker, and the others were told of nothing. It looks every
//! [`LOOK_EVERY`] while steps are taken, and sleeps while none are.
//!
//! | a step is under way | what the thread does |
//! |---|---|
//! | when it looks | gives the runtime something to do, so that another worker wakes up and takes over |
//! | longer than [`STEP_DEADLINE`] | fails the spool |
//!
//! What tokio keeps for that worker alone, the task that it was to run next, nobody takes over: whoever waits in a worker
//! lets such a task pass first ([`super::Spool::settle`]).

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;

/// A step that takes longer counts as failed: a dying disk may never answer, and sled may wait for ever after an I/O error.
const STEP_DEADLINE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// See the module. Its thread ends with it.
#[derive(Debug)]
pub(super) struct Health {
    seen: Arc<Seen>,
    callers_may_wait: bool,
    /// Wakes the thread, and ends it.
    wake: mpsc::Sender<()>,
}

#[derive(Debug)]
struct Seen {
    /// The committer's step under way, by [`ticks`]; 0 when none is.
    committing: AtomicU64,
    /// The checkpoint's flush under way.
    flushing: AtomicU64,
    /// The thread sleeps until it is woken.
    asleep: AtomicBool,
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
            asleep: AtomicBool::new(true),
            failure: watch::Sender::new(None),
            runtime,
        });
        let looks = seen.clone();
        let (wake, woken) = mpsc::channel();
        let watch = move || while woken.recv().is_ok() && looks.watch(&woken) {};
        std::thread::Builder::new().name("disk-watch".into()).spawn(watch)?;
        Ok(Health { seen, callers_may_wait, wake })
    }

    /// Whether who settles may wait for the disk in its own thread: there is another worker to go on, or the runtime is
    /// one thread's, which is never the daemon's.
    pub(super) fn callers_may_wait(&self) -> bool {
        self.callers_may_wait
    }

    /// Takes a step of the committer.
    pub(super) fn commit<T>(&self, step: impl FnOnce() -> T) -> T {
        self.watched(&self.seen.committing, step)
    }

    /// Takes the store's flush.
    pub(super) fn flush<T>(&self, step: impl FnOnce() -> T) -> T {
        self.watched(&self.seen.flushing, step)
    }

    fn watched<T>(&self, since: &AtomicU64, step: impl FnOnce() -> T) -> T {
        let _under_way = UnderWay::begin(since);
        if self.seen.asleep.swap(false, Ordering::SeqCst) {
            let _ends_after_this = self.wake.send(());
        }
        step()
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
        self.seen.committing.store(1, Ordering::SeqCst);
        self.wake.send(()).unwrap();
    }
}

impl Seen {
    /// Looks as long as steps are under way; `false` once nobody can take one any more.
    fn watch(&self, woken: &mpsc::Receiver<()>) -> bool {
        loop {
            match woken.recv_timeout(LOOK_EVERY) {
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) | Ok(()) => {}
            }
            if !self.look() {
                // A step that began just before this did not wake anybody.
                self.asleep.store(true, Ordering::SeqCst);
                if self.longest().is_none() {
                    return true;
                }
                self.asleep.store(false, Ordering::SeqCst);
            }
        }
    }

    /// Whether a step is under way, and what follows from it.
    fn look(&self) -> bool {
        let Some(longest) = self.longest() else { return false };
        if longest > STEP_DEADLINE {
            self.fail("the disk has not answered within a minute");
        }
        if let Some(runtime) = &self.runtime {
            drop(runtime.spawn(async {})); // it has done its work by being there
        }
        true
    }

    /// How long the longest step under way has taken.
    fn longest(&self) -> Option<Duration> {
        let steps = [&self.committing, &self.flushing];
        let begun = steps.map(|since| since.load(Ordering::SeqCst));
        let first = begun.into_iter().filter(|since| *since != 0).min()?;
        Some(Duration::from_millis(ticks().saturating_sub(first)))
    }

    fn fail(&self, reason: &str) {
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            failure.get_or_insert_with(|| reason.to_owned());
            first
        });
    }
}

/// A step, until it is dropped: a panic ends it as well.
struct UnderWay<'a>(&'a AtomicU64);

impl UnderWay<'_> {
    fn begin(since: &AtomicU64) -> UnderWay<'_> {
        since.store(ticks(), Ordering::SeqCst);
        UnderWay(since)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::SeqCst);
    }
}

/// Milliseconds of a clock that neither NTP nor an operator sets: a host whose clock jumps while a step is under way has no
/// bad disk. Never 0, and 1 is long ago.
#[expect(clippy::disallowed_types, reason = "the disk does not pause with a simulation's time")]
fn ticks() -> u64 {
    static BEGAN: OnceLock<std::time::Instant> = OnceLock::new();
    let since = BEGAN.get_or_init(std::time::Instant::now).elapsed() + 2 * STEP_DEADLINE;
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
