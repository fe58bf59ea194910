//! Tells systemd that the daemon goes on, and only when it does: the committer has come to a probe, and each forwarder has
//! gone on within the time that it gave itself.
//!
//! | what stands still | who notices |
//! |---|---|
//! | the disk, in a write or a flush | the spool, after a minute: the daemon ends by itself |
//! | the committer otherwise, a forwarder, the runtime, the process | the watchdog: systemd kills and restarts |
//!
//! The unit's `WatchdogSec=` is longer than the spool's minute, so that the message that names the disk comes first.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use crate::forward::Pulse;
use crate::spool::Spool;

use super::notify;

/// Signs of life in the time after which systemd gives up: one may be lost, one may be late.
const SIGNS: u32 = 4;

/// The forwarders that run, by the name of their integration.
#[derive(Clone, Debug, Default)]
pub(super) struct Watched(Arc<Mutex<Vec<OfForwarder>>>);

/// The integration, and the sign of life as long as the forwarder runs.
type OfForwarder = (String, Weak<Pulse>);

impl Watched {
    /// Another forwarder; it leaves by ending.
    pub(super) fn add(&self, name: String, pulse: Weak<Pulse>) {
        let mut pulses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pulses.retain(|(_, pulse)| pulse.strong_count() > 0);
        pulses.push((name, pulse));
    }

    /// An integration with a forwarder that should have gone on by now.
    fn overdue(&self) -> Option<String> {
        let pulses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut running = pulses.iter().filter_map(|(name, pulse)| Some((name, pulse.upgrade()?)));
        running.find(|(_, pulse)| pulse.is_overdue()).map(|(name, _)| name.clone())
    }
}

/// Gives systemd, which waits for `within`, a sign of life as long as everything goes on.
pub(super) async fn feed(within: Duration, spool: Spool, watched: Watched) {
    give_signs(within, || spool.probe(), &watched, notify::alive).await;
}

/// The same, of the committer that answers `probe`; calls `alive` for each sign.
async fn give_signs<P: Future>(
    within: Duration,
    probe: impl Fn() -> P,
    watched: &Watched,
    alive: impl Fn(),
) {
    let every = within / SIGNS;
    let mut turns = tokio::time::interval(every);
    // A slow disk answers late, and goes on all the same: it has half of the time.
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        match stands_still(within / 2, probe(), watched).await {
            None => alive(),
            Some(part) => tracing::error!(
                part,
                "stands still: without a sign of life, systemd ends and restarts the daemon"
            ),
        }
    }
}

/// What gives no sign of life: the committer, which is to answer `probe`, or a forwarder.
async fn stands_still(patience: Duration, probe: impl Future, watched: &Watched) -> Option<String> {
    // A refusal is an answer as well: the committer has ended in order, or the daemon is about to.
    if tokio::time::timeout(patience, probe).await.is_err() {
        return Some("the committer".to_owned());
    }
    watched.overdue().map(|name| format!("the forwarder of {name:?}"))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::{pending, ready};

    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn committer_and_forwarders_must_go_on() {
        let watched = Watched::default();
        assert_eq!(stands_still(PATIENCE, ready(()), &watched).await, None);
        let stuck = stands_still(PATIENCE, pending::<()>(), &watched).await;
        assert_eq!(stuck.as_deref(), Some("the committer"));

        let (uk, de) = (Arc::new(Pulse::resting()), Arc::new(Pulse::resting()));
        watched.add("uk".into(), Arc::downgrade(&uk));
        watched.add("de".into(), Arc::downgrade(&de));
        let rounds = [(&uk, None), (&de, None), (&uk, Some("the forwarder of \"de\""))];
        for (alive, expected) in rounds {
            // Whoever waits shows that it lives; the other one does nothing for half a minute.
            let waited = tokio::time::timeout(Duration::from_secs(30), alive.wait(pending::<()>()));
            assert!(waited.await.is_err());
            if expected.is_some() {
                tokio::time::advance(Duration::from_secs(110)).await;
                alive.wait(ready(())).await;
            }
            let stuck = stands_still(PATIENCE, ready(()), &watched).await;
            assert_eq!(stuck.as_deref(), expected);
        }
        drop(de);
        assert_eq!(stands_still(PATIENCE, ready(()), &watched).await, None, "it has ended");
        assert_eq!(watched.0.lock().unwrap().len(), 2);
        watched.add("fr".into(), Arc::downgrade(&uk));
        assert_eq!(watched.0.lock().unwrap().len(), 2, "who has ended is forgotten");
    }

    /// When a sign was given, within ten times `within`, by a committer whose step takes `step`.
    async fn signs(within: Duration, step: Duration) -> Vec<Duration> {
        let begun = Instant::now();
        let signs = RefCell::new(Vec::new());
        let alive = || signs.borrow_mut().push(begun.elapsed());
        let watched = Watched::default();
        let feeding = give_signs(within, || sleep(step), &watched, alive);
        assert!(timeout(10 * within, feeding).await.is_err(), "it goes on for ever");
        signs.into_inner()
    }

    /// Goal: a disk that is slow and goes on keeps the daemon alive as systemd counts; one that hangs gives not one sign.
    #[tokio::test(start_paused = true)]
    async fn a_slow_disk_lives_and_one_that_hangs_does_not() {
        let within = Duration::from_secs(90);
        for percent in [0, 10, 24, 26, 40, 49] {
            let signs = signs(within, within * percent / 100).await;
            let times = std::iter::once(Duration::ZERO).chain(signs).chain([10 * within]);
            let times: Vec<Duration> = times.collect();
            let gaps = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0]));
            let longest = gaps.max().unwrap();
            // One that is late by a quarter for another reason is in time as well.
            assert!(longest <= within * 3 / 4, "steps of {percent} %: no sign for {longest:?}");
        }
        assert!(signs(within, 20 * within).await.is_empty());
    }
}
