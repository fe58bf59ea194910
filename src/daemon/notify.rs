//! What systemd is told (`sd_notify(3)`): ready, reloading, stopping, how it is going, that a start or stop goes on.
//!
//! Without `NOTIFY_SOCKET` nothing is said. A message that does not get through is no reason to end: what systemd does not
//! hear, it acts upon.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use super::status_text;
use crate::admin;

/// How often it is looked whether the status has changed.
const STATUS_EVERY: Duration = Duration::from_secs(2);
/// A start or stop asks for more time so often, and for so much each time.
const EXTEND_EVERY: Duration = Duration::from_secs(10);
const EXTENSION: Duration = Duration::from_secs(30);
/// It asks no longer than this: a disk that never answers must not hold up a host for ever.
const EXTENDED_MAX: Duration = Duration::from_secs(15 * 60);

/// Tells that producers are served, also after a reload.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Tells that the configuration is read again; [`ready`] follows. The time is what `Type=notify-reload` asks for.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "the monotonic clock cannot be read"),
    }
}

/// Tells that a shutdown began.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// A sign of life for the watchdog.
pub(super) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// Tells how it is going, in words that every user of the host may read.
pub fn status(text: &str) {
    tell(&[NotifyState::Status(text)]);
}

/// After what time without a sign of life systemd ends the daemon; `None` when it never does.
pub(super) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// Waits for a start or a stop, which is `doing`, and asks systemd for more time as long as it is not done.
pub(super) async fn extending<T>(doing: &str, work: impl Future<Output = T>) -> T {
    status(doing);
    let mut work = pin!(work);
    let mut asked = Duration::ZERO;
    while asked < EXTENDED_MAX {
        if let Ok(done) = tokio::time::timeout(EXTEND_EVERY, work.as_mut()).await {
            return done;
        }
        asked += EXTEND_EVERY;
        let micros = u32::try_from(EXTENSION.as_micros()).unwrap_or(u32::MAX);
        tell(&[NotifyState::ExtendTimeoutUsec(micros)]);
    }
    work.await
}

/// Keeps the status told, as often as it changes.
pub(super) async fn keep_status(admin: Arc<admin::Service>) {
    let mut told = String::new();
    let mut turns = tokio::time::interval(STATUS_EVERY);
    turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        // A spool that cannot be read ends the daemon, or shows in the reports.
        let Ok(now) = admin.status().await else { continue };
        let text = status_text::text(&now);
        if text != told {
            status(&text);
            told = text;
        }
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd could not be told");
    }
}
