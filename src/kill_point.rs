//! A test instrument: the process kills itself at a named point, with SIGKILL, as a power cut of its own.
//!
//! `PILLARBOX_KILL_AT=written:3` kills at the third passing of the point `written`; `torn:3` cuts the third write of a
//! frame in the middle. Only debug builds have it: in a release build every function here is empty.
//!
//! | point | passed |
//! |---|---|
//! | `generation-filled`, `-named`, `-current` | while a generation of the store is made: before its name, before and after `CURRENT` names it |
//! | `generation-removed` | before an old generation is removed |
//! | `open-locked`, `-store`, `-log`, `-checked` | during open: with the lock, the store, the log replayed, what is there checked |
//! | `segment-made`, `-named` | a segment of the log is complete, has its name |
//! | `torn` | in the middle of the write of a frame |
//! | `written` | a group is in the log, not flushed |
//! | `flushed` | a group is durable (if it had to be), not applied to the store |
//! | `apply` | before each change of the store: of an identity, a quarantine copy, a message id |
//! | `applied` | a group is in the store but for cursors and deliveries, nobody has been answered |
//! | `accepted` | upstream has answered 202, nothing is settled |
//! | `rejected` | upstream has refused a record that stood alone, nothing is settled |
//! | `rolling`, `rolled` | a full segment of the log is durable, the next one is under way |
//! | `spool-file-written`, `integration-written` | a small file of the spool, a stored integration is complete beside the one that it replaces |
//! | `checkpoint-told` | cursors and deliveries are in the store, which does not say yet how far it is |
//! | `checkpoint`, `checkpoint-flushed`, `checkpoint-floor` | before the store's flush, before the new floor, before segments go |
//! | `segment-removed` | a settled segment has gone, its directory is not flushed |

#[cfg(debug_assertions)]
mod armed {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// Names a point and the passing of it that kills: `written:3`.
    const VARIABLE: &str = "PILLARBOX_KILL_AT";

    static ARMED: LazyLock<Option<(String, u64)>> = LazyLock::new(|| {
        let text = std::env::var(VARIABLE).ok()?;
        let (point, nth) = text.rsplit_once(':')?;
        Some((point.to_owned(), nth.parse().ok()?))
    });
    static PASSINGS: AtomicU64 = AtomicU64::new(0);

    /// Whether this passing of `point` is the one that kills.
    pub(super) fn is_due(point: &str) -> bool {
        ARMED.as_ref().is_some_and(|(armed, nth)| {
            armed == point && PASSINGS.fetch_add(1, Ordering::AcqRel) + 1 == *nth
        })
    }

    pub(super) fn kill() -> ! {
        loop {
            let killed = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
            killed.expect("a process may kill itself");
        }
    }
}

/// Ends the process here when `PILLARBOX_KILL_AT` says so.
#[inline]
pub(crate) fn pass(point: &str) {
    #[cfg(debug_assertions)]
    if armed::is_due(point) {
        armed::kill();
    }
    #[cfg(not(debug_assertions))]
    let _ = point;
}

/// Hands the first half of `bytes` to `write` and ends the process when `PILLARBOX_KILL_AT` names `torn`.
#[inline]
pub(crate) fn tear(bytes: &[u8], write: impl FnOnce(&[u8]) -> std::io::Result<()>) {
    #[cfg(debug_assertions)]
    if armed::is_due("torn") {
        // Whether it succeeds is all the same: nobody lives to see it.
        drop(write(bytes.get(..bytes.len() / 2).unwrap_or_default()));
        armed::kill();
    }
    #[cfg(not(debug_assertions))]
    let _ = (bytes, write);
}
