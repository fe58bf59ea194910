//! What is counted of the spool as a whole. Read from memory, but for the free space of the disk.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Spool;
use super::entry::{LaneId, LaneStats};
use super::shared::Counted;
use crate::clock::UnixMillis;
use crate::histogram::Distribution;

/// Upper bounds of how long a commit takes: from a fast drive to one that is dying.
pub(super) const COMMIT_BOUNDS: [Duration; 14] = [
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figures {
    /// How long the commits took that somebody waited for, from the first of their requests to the answers, since the spool
    /// was opened. Without the settlements that are answered before they are durable.
    pub commits: Distribution,
    /// Entries in the quarantine.
    pub quarantine_entries: u64,
    /// Their stored bytes.
    pub quarantine_bytes: u64,
    /// Entries that were ever put there, since the spool began.
    pub quarantine_added: u64,
    /// What the disk has free; `None` when that cannot be read.
    pub disk_free_bytes: Option<u64>,
    /// As configured.
    pub free_disk_min_bytes: u64,
    /// As configured.
    pub records_max: u64,
    /// As configured.
    pub bytes_max: u64,
}

impl Spool {
    /// The figures as they stand.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let shared = &self.shared;
        let (quarantine_entries, quarantine_bytes) = shared.quarantine_size();
        Figures {
            commits: shared.commits.read(),
            quarantine_entries,
            quarantine_bytes,
            quarantine_added: shared.quarantine_added(),
            disk_free_bytes: shared.free_bytes().ok(),
            free_disk_min_bytes: shared.options.free_disk_min_bytes,
            records_max: shared.options.records_max,
            bytes_max: shared.options.bytes_max,
        }
    }

    /// Whether what was erased stays on the disk because the log's next segment cannot be begun: most of all on a full disk.
    #[must_use]
    pub fn erasure_waits(&self) -> bool {
        self.shared.erasure_waits.load(Ordering::Acquire)
    }

    /// The numbers of `lane` as far as memory has them: all but the age of the oldest record. Also of a lane that is damaged.
    #[must_use]
    pub fn counts(&self, lane: LaneId) -> LaneStats {
        let counted = self.shared.lane(lane).counted();
        let held = self.shared.log.held(lane, counted.tallies.cursor(), counted.newest);
        stats(&counted, held, None)
    }
}

/// A lane's numbers, brought together.
pub(super) fn stats(counted: &Counted, held: u64, oldest_at: Option<UnixMillis>) -> LaneStats {
    let tallies = counted.tallies;
    LaneStats {
        newest: counted.newest,
        cursor: tallies.cursor().0,
        queued_records: counted.newest - tallies.settled(),
        queued_bytes: counted.bytes.saturating_sub(tallies.bytes),
        oldest_at,
        delivered: tallies.delivered,
        quarantined: tallies.quarantined,
        withheld: tallies.withheld,
        erased: tallies.erased,
        held,
    }
}

#[cfg(test)]
mod tests {
    use crate::spool::model_tests::{options, quarantined, record, reopen, settlement};
    use crate::spool::{Append, Content, Item, Once, QuarantineId, Settlement};

    #[tokio::test]
    async fn commits_are_timed_and_the_quarantine_is_counted_across_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let options = options(directory.path());
        let spool = reopen(&options);
        let lane = spool.lane("uk", 0).await.unwrap();
        let begun = spool.figures();
        assert_eq!((begun.commits.count(), begun.quarantine_added), (1, 0), "the new lane");
        assert!(begun.disk_free_bytes.is_some_and(|free| free > 0));

        let set_aside =
            Item { once: None, content: Content::Quarantine(Box::new(quarantined(b"x"))) };
        let items = vec![record(lane, "t", b"x"), record(lane, "t", b"yz"), set_aside.clone()];
        spool.append(Append { items, ..Append::default() }).await.unwrap();
        let copies = vec![quarantined(b"x")];
        spool.settle(Settlement { copies, ..settlement(lane, 1, 1, 1) }).await.unwrap();
        // Nobody waits for this one.
        spool.settle(settlement(lane, 2, 1, 2)).await.unwrap();
        let figures = spool.figures();
        assert_eq!(figures.commits.count(), 3);
        assert!(!figures.commits.sum.is_zero());
        assert_eq!((figures.quarantine_entries, figures.quarantine_added), (2, 2));
        assert_eq!(spool.counts(lane), spool.stats(lane).await.unwrap());

        let releases = vec![QuarantineId(1), QuarantineId(2)];
        spool.append(Append { releases, ..Append::default() }).await.unwrap();
        let once = Some(Once::new(1, "m"));
        let items = vec![Item { once, ..set_aside.clone() }, Item { once, ..set_aside }];
        spool.append(Append { items, ..Append::default() }).await.unwrap();
        spool.close().await;
        drop(spool);
        let spool = reopen(&options);
        let figures = spool.figures();
        assert_eq!((figures.quarantine_entries, figures.quarantine_added), (1, 3));
        assert_eq!(figures.commits.count(), 0, "since it was opened");
        spool.close().await;
    }
}
