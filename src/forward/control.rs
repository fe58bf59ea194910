//! What is asked of a forwarder, and waiting until something is.

use std::time::Duration;

use tokio::sync::watch;

/// What is asked of a forwarder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// To end: a shutdown began.
    pub stop: bool,
    /// To send nothing until it is resumed; a push in flight is seen through.
    pub paused: bool,
    /// Counts how often it was asked to try again at once, instead of waiting on.
    pub retries: u64,
}

/// Waits, unless an operator asks for something else meanwhile; `true` on shutdown.
pub(super) async fn pause(delay: Duration, control: &mut watch::Receiver<Control>) -> bool {
    let before = *control.borrow();
    tokio::select! {
        biased;
        // A shutdown may have begun before.
        changed = control.wait_for(|control| control.stop || *control != before) => {
            changed.map_or(true, |control| control.stop)
        }
        () = tokio::time::sleep(delay) => false,
    }
}

/// Resolves once a shutdown began, or an operator has it paused.
pub(super) async fn held_up(control: &mut watch::Receiver<Control>) {
    drop(control.wait_for(|control| control.stop || control.paused).await);
}

/// Resolves once a shutdown began. A sender that is gone counts as one.
pub(super) async fn stopped(control: &mut watch::Receiver<Control>) {
    // An error means that the daemon's end has been dropped: the same as a shutdown.
    drop(control.wait_for(|control| control.stop).await);
}
