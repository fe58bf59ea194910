//! Answers on their way to who waits for them.
//!
//! ```text
//! group answered ──▶ each waiter is woken, takes its answer ──▶ the next group closes
//! ```
//! Who was just answered is likely to ask again, and while many are, a flush that begins before they have even seen their
//! answers carries few. So a group is closed only once the answers of the last one are taken: the busier the processors, the
//! longer that takes, and the more share the next flush. Who is alone has taken its answer before it can ask again, and never
//! waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::entry::Receipt;

/// A waiter that is held up holds up the others no longer.
const PATIENCE: Duration = Duration::from_millis(1);

/// The answers that were not taken yet.
#[derive(Debug, Default)]
pub(super) struct Unread {
    count: AtomicUsize,
    none_left: Notify,
}

/// An answer to an append; it is unread until this is dropped.
#[derive(Debug)]
pub(super) struct Appended {
    /// What it came to.
    pub(super) receipt: Receipt,
    _unread: One,
}

#[derive(Debug)]
struct One(Arc<Unread>);

impl Appended {
    /// An answer that is counted.
    pub(super) fn new(receipt: Receipt, unread: &Arc<Unread>) -> Appended {
        unread.count.fetch_add(1, Ordering::AcqRel);
        Appended { receipt, _unread: One(unread.clone()) }
    }
}

impl Unread {
    /// Waits until every answer is taken, or gone with who waited for it; but not for long.
    pub(super) async fn taken(&self) {
        let taken = async {
            while self.count.load(Ordering::Acquire) > 0 {
                self.none_left.notified().await;
            }
        };
        // Whoever is late is not waited for.
        drop(tokio::time::timeout(PATIENCE, taken).await);
    }
}

impl Drop for One {
    fn drop(&mut self) {
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none_left.notify_one();
        }
    }
}
