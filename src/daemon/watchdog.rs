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
    let every = within / SIGNS;
    let mut turns = tokio::time::interval(every);
    loop {
        turns.tick().await;
        match stands_still(every, &spool, &watched).await {
            None => notify::alive(),
            Some(part) => tracing::error!(
                part,
                "stands still: without a sign of life, systemd ends and restarts the daemon"
            ),
        }
    }
}

/// What gives no sign of life.
async fn stands_still(patience: Duration, spool: &Spool, watched: &Watched) -> Option<String> {
    // A refusal is an answer as well: the committer has ended in order, or the daemon is about to.
    if tokio::time::timeout(patience, spool.probe()).await.is_err() {
        return Some("the committer".to_owned());
    }
    watched.overdue().map(|name| format!("the forwarder of {name:?}"))
}
