//! Who drives the committer: a loop that takes what waits, group after group; and the caller of a settlement itself, while
//! nobody else does. A settlement is written without waiting for the disk, so that two changes of thread would be most of
//! what it costs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use tokio::sync::{Notify, mpsc};

use super::super::Drive;
use super::super::error::AppendError;
use super::super::panics;
use super::super::shared::Shared;
use super::super::work::{Work, next_group, refuse};
use super::Committer;

/// The committer, between those who drive it.
#[derive(Debug)]
pub(in crate::spool) struct Driver {
    shared: Arc<Shared>,
    committer: Mutex<Committer>,
    /// Tells the loop that it must look again when to wake.
    written: Notify,
}

impl Driver {
    /// A driver of `committer`; [`Driver::run`] must be run.
    pub(in crate::spool) fn new(shared: Arc<Shared>, committer: Committer) -> Driver {
        Driver { shared, committer: Mutex::new(committer), written: Notify::new() }
    }

    /// Commits a settlement in the caller's thread. Gives it back, for the loop, where that might wait for the disk or for
    /// the committer.
    pub(in crate::spool) fn settle(&self, work: Work) -> Option<Work> {
        let mut committer = match self.committer.try_lock() {
            Ok(committer) => committer,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Some(work),
        };
        if !self.shared.health.callers_may_wait() || !committer.settles_without_waiting(&work) {
            return Some(work);
        }
        let was_due = committer.flush_due.is_some();
        self.take(&mut committer, |committer| committer.commit(vec![work], false));
        if !was_due && committer.flush_due.is_some() {
            self.written.notify_one();
        }
        None
    }

    /// Commits group after group until `Close`, the end of the channel, or a failure.
    pub(in crate::spool) async fn run(
        self: Arc<Self>,
        mut waiting: mpsc::Receiver<Work>,
        drive: Drive,
    ) {
        loop {
            self.shared.unread.taken().await;
            let wake = self.lock().wake_at();
            let (group, last) = tokio::select! {
                biased;
                next = next_group(&mut waiting, wake) => next,
                () = self.written.notified() => continue,
            };
            let step = move |committer: &mut Committer| committer.commit_waiting(group, last);
            self.step(drive, step).await;
            if last || self.shared.health.failure().is_some() {
                break;
            }
        }
        self.step(drive, Committer::end).await;
        waiting.close();
        while let Some(work) = waiting.recv().await {
            let error =
                self.shared.health.failure().map_or(AppendError::Closed, AppendError::Failed);
            refuse(work, &error);
        }
    }

    /// Runs what may block where `drive` says.
    async fn step(
        self: &Arc<Self>,
        drive: Drive,
        step: impl FnOnce(&mut Committer) + Send + 'static,
    ) {
        let driver = self.clone();
        let take = move || {
            let mut committer = driver.lock();
            driver.take(&mut committer, step);
        };
        match drive {
            Drive::Thread => take(),
            Drive::Task => {
                tokio::task::spawn_blocking(take).await.expect("a step's panic is caught");
            }
        }
    }

    /// Takes a step; a panic that it does not catch itself is the spool's failure, so that the daemon ends.
    fn take(&self, committer: &mut Committer, step: impl FnOnce(&mut Committer)) {
        let step = || self.shared.health.commit(|| step(committer));
        if let Err(panic) = catch_unwind(AssertUnwindSafe(step)) {
            self.shared.fail(panics::told(panic.as_ref()));
        }
    }

    /// Calls `seen` while nobody writes to the store, or is about to; `false` when somebody is.
    #[cfg(test)]
    pub(in crate::spool) fn at_rest(&self, seen: impl FnOnce()) -> bool {
        let committer = self.committer.try_lock();
        let _inserting = self.shared.store.turn();
        let rests = committer.as_ref().is_ok_and(|committer| !committer.has_work());
        if rests {
            seen();
        }
        rests
    }

    fn lock(&self) -> MutexGuard<'_, Committer> {
        self.committer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write as _;
    use std::pin::Pin;
    use std::sync::mpsc;
    use std::task::Poll;
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::time::Instant;

    use crate::spool::model_tests::{options, quarantined, record, reopen, settlement};
    use crate::spool::work::{WAITING_MAX, Work};
    use crate::spool::{Append, AppendError, Drive, Seq, Settlement, Spool};

    /// A committer that somebody drives for a long time.
    struct Busy {
        release: mpsc::Sender<()>,
        thread: std::thread::JoinHandle<()>,
    }

    impl Busy {
        fn begin(spool: &Spool) -> Busy {
            let (release, released) = mpsc::channel();
            let (holds, is_held) = mpsc::channel();
            let driver = spool.driver.clone();
            let thread = std::thread::spawn(move || {
                let _held = driver.lock();
                holds.send(()).unwrap();
                released.recv().unwrap();
            });
            is_held.recv().unwrap();
            Busy { release, thread }
        }

        fn end(self) {
            self.release.send(()).unwrap();
            self.thread.join().unwrap();
        }
    }

    /// Goal: a probe tells a committer that is busy from one that goes on.
    #[tokio::test(start_paused = true)]
    async fn a_probe_is_answered_by_a_committer_that_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let spool = reopen(&options(directory.path()));
        spool.probe().await.unwrap();
        let busy = Busy::begin(&spool);
        let mut probe = std::pin::pin!(spool.probe());
        assert!(tokio::time::timeout(Duration::from_secs(60), probe.as_mut()).await.is_err());
        busy.end();
        probe.await.unwrap();
        spool.close().await;
        assert!(spool.probe().await.is_err());
    }

    /// Goal: a step that panics where nobody looks for it ends the daemon, instead of a committer that is never heard of again.
    #[tokio::test]
    async fn a_step_that_panics_fails_the_spool() {
        let directory = tempfile::tempdir().unwrap();
        let spool = reopen(&options(directory.path()));
        spool.driver.step(Drive::Thread, |_| panic!("out of luck")).await;
        let reason = spool.failed().await;
        assert!(reason.contains("panicked: out of luck"), "{reason}");
        assert!(matches!(spool.lane("uk", 0).await, Err(AppendError::Failed(_))));
        spool.close().await;
    }

    /// Goal: an append is handed over by the call, as long as there is a place for it.
    #[tokio::test]
    async fn an_append_that_is_never_polled_is_stored_where_there_is_a_place() {
        let directory = tempfile::tempdir().unwrap();
        let spool = reopen(&options(directory.path()));
        let lane = spool.lane("uk", 0).await.unwrap();
        let append = || {
            let items = vec![record(lane, "t", b"x")];
            spool.append(Append { items, ..Append::default() })
        };
        drop(append());
        spool.probe().await.unwrap();
        assert_eq!(*spool.newest(lane).borrow(), 1);
        let busy = Busy::begin(&spool);
        let asked: Vec<_> = (0..2 * WAITING_MAX + 2).map(|_| append()).collect();
        drop(asked);
        busy.end();
        spool.probe().await.unwrap();
        let (stored, places) = (*spool.newest(lane).borrow(), WAITING_MAX as u64);
        assert!((places..=2 * places + 1).contains(&stored), "{stored}");
        spool.close().await;
    }

    /// Goal: who finds every place before a busy committer taken waits for one, and is served like the others.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_request_waits_to_be_let_in() {
        let directory = tempfile::tempdir().unwrap();
        let spool = reopen(&options(directory.path()));
        let lane = spool.lane("uk", 0).await.unwrap();
        let append = || {
            let items = vec![record(lane, "t", b"x")];
            Box::pin(spool.append(Append { items, ..Append::default() }))
        };
        let busy = Busy::begin(&spool);
        // The committer has taken a group at most, and the channel holds as many.
        let mut asked = Vec::new();
        for _ in 0..=2 * WAITING_MAX {
            let mut one = append();
            assert!(waits(one.as_mut()).await);
            asked.push(one);
        }
        busy.end();
        let requests = asked.len() as u64;
        for one in asked {
            one.await.unwrap();
        }
        assert_eq!(*spool.newest(lane).borrow(), requests);
        spool.close().await;
    }

    /// Goal: a group closes once those whom the last one answered know; who never looks holds nobody up for long.
    #[tokio::test(start_paused = true)]
    async fn a_group_waits_for_who_was_just_answered() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::open(options(directory.path()), Drive::Task).unwrap();
        let lane = spool.lane("uk", 0).await.unwrap();
        let append = || {
            let items = vec![record(lane, "t", b"x")];
            Box::pin(spool.append(Append { items, ..Append::default() }))
        };
        let newest = || *spool.newest(lane).borrow();
        let begun = Instant::now();
        let mut first = append();
        assert!(waits(first.as_mut()).await);
        while newest() < 1 {
            tokio::task::yield_now().await;
        }
        let mut second = append();
        assert!(waits(second.as_mut()).await);
        for _ in 0..1000 {
            tokio::task::yield_now().await;
            assert_eq!(newest(), 1, "the first does not know yet");
        }
        first.await.unwrap();
        second.await.unwrap();
        assert_eq!((newest(), begun.elapsed()), (2, Duration::ZERO));

        let mut deaf = append();
        assert!(waits(deaf.as_mut()).await);
        append().await.unwrap();
        append().await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(1));
        drop(deaf);
        append().await.unwrap();
        assert_eq!(newest(), 6);
        spool.close().await;
    }

    /// Whether a future waits once it was begun.
    async fn waits(mut future: Pin<&mut impl Future>) -> bool {
        poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
    }

    /// Goal: a settlement is flushed soon also while the committer waits for something later.
    #[tokio::test(start_paused = true)]
    async fn a_settlement_is_flushed_soon_whatever_else_waits() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::open(options(directory.path()), Drive::Task).unwrap();
        let lane = spool.lane("uk", 0).await.unwrap();
        let items = vec![record(lane, "t", b"x")];
        spool.append(Append { items, ..Append::default() }).await.unwrap();
        while !spool.driver.at_rest(|| {}) {
            tokio::task::yield_now().await;
        }
        spool.driver.lock().wait_to_roll();
        let begun = Instant::now();
        spool.settle(settlement(lane, 1, 1, 1)).await.unwrap();
        let flushed = async {
            while spool.driver.lock().writer.behind() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(9), flushed).await.unwrap();
        assert!(begun.elapsed() < Duration::from_millis(100), "after {:?}", begun.elapsed());
        spool.close().await;
    }

    fn asked(settlement: Settlement) -> (Work, impl FnMut() -> bool) {
        let (to, mut answer) = oneshot::channel();
        (Work::Settle(settlement, to), move || matches!(answer.try_recv(), Ok(Ok(()))))
    }

    /// Goal: a plain settlement is written and answered in the caller's thread, flushed soon after though nobody asks again;
    /// one that must wait for a flush, or comes while the committer is busy or has ended, goes the long way.
    #[tokio::test]
    async fn an_idle_committer_lets_a_settlement_in_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let options = options(directory.path());
        let spool = reopen(&options);
        let lane = spool.lane("uk", 0).await.unwrap();
        let items = vec![record(lane, "t", b"x"); 40];
        spool.append(Append { items, ..Append::default() }).await.unwrap();

        // The committer answers before it has let go: the first may find it still busy.
        while spool.driver.committer.try_lock().is_err() {}
        let (work, mut answered) = asked(settlement(lane, 1, 1, 1));
        assert!(spool.driver.settle(work).is_none() && answered());
        assert_eq!(spool.cursor(lane), Seq(2));
        while spool.driver.lock().writer.behind() > 0 {
            tokio::task::yield_now().await; // a loop that was not woken hangs here
        }

        let with_copy = Settlement { copies: vec![quarantined(b"x")], ..settlement(lane, 2, 1, 1) };
        let (work, mut answered) = asked(with_copy);
        assert!(spool.driver.settle(work).is_some() && !answered());
        let (work, mut answered) = asked(settlement(lane, 2, 1, 1));
        let busy = spool.driver.lock();
        assert!(spool.driver.settle(work).is_some() && !answered());
        drop(busy);

        // One that finds a flush due would wait for it.
        spool.driver.lock().flush_due = Some(Instant::now());
        let (work, mut answered) = asked(settlement(lane, 2, 1, 1));
        assert!(spool.driver.settle(work).is_some() && !answered());

        // Faster than any disk: those that find too much behind wait for it, and every one counts.
        for seq in 2..=40 {
            spool.settle(settlement(lane, seq, 1, 1)).await.unwrap();
        }
        spool.close().await;
        let (work, _) = asked(settlement(lane, 41, 1, 1));
        assert!(spool.driver.settle(work).is_some());
        drop(spool);
        let spool = reopen(&options);
        assert_eq!(spool.cursor(lane), Seq(41));
        spool.close().await;
    }

    /// Goal: a settlement that waits for a disk which does not answer holds nobody else up.
    /// Method: the worker that was woken by a socket settles, and waits. It has just woken a task, which it alone could run;
    /// the other worker has no reason to wake up but a timer, which nobody looks at unless it does.
    #[test]
    fn a_settlement_on_a_disk_that_hangs_leaves_the_runtime_awake() {
        let workers = |workers| {
            let mut runtime = tokio::runtime::Builder::new_multi_thread();
            runtime.worker_threads(workers).enable_all().build().unwrap()
        };
        for runtime in [workers(1), workers(2)] {
            let directory = tempfile::tempdir().unwrap();
            let opened = async { reopen(&options(directory.path())) };
            let spool = runtime.block_on(opened);
            let lane = runtime.block_on(spool.lane("uk", 0)).unwrap();
            let append = Append { items: vec![record(lane, "t", b"x")], ..Append::default() };
            runtime.block_on(spool.append(append)).unwrap();
            while spool.driver.committer.try_lock().is_err() {}

            let (mut here, there) = std::os::unix::net::UnixStream::pair().unwrap();
            there.set_nonblocking(true).unwrap();
            let (tell, mut told) = tokio::sync::watch::channel(());
            let settled = runtime.spawn({
                let spool = spool.clone();
                async move {
                    let there = tokio::net::UnixStream::from_std(there).unwrap();
                    there.readable().await.unwrap();
                    tell.send_replace(()); // as a forwarder does with its report
                    spool.settle(settlement(lane, 1, 1, 1)).await.unwrap();
                }
            });
            let (rang, rings) = mpsc::channel();
            let heard = rang.clone();
            runtime.spawn(async move {
                heard.send("it begins").unwrap();
                told.changed().await.unwrap();
                heard.send("who was woken just before").unwrap();
            });
            runtime.spawn(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                rang.send("a timer").unwrap();
            });
            assert_eq!(rings.recv(), Ok("it begins"));
            let hangs = spool.shared.log.table_mut();
            here.write_all(b"x").unwrap();
            let mut went_on = [(); 2].map(|()| rings.recv_timeout(Duration::from_secs(20)).ok());
            went_on.sort_unstable();
            assert!(!settled.is_finished(), "it does not hang");
            drop(hangs);
            assert_eq!(went_on, [Some("a timer"), Some("who was woken just before")]);
            runtime.block_on(settled).unwrap();
            runtime.block_on(spool.close());
        }
    }
}
