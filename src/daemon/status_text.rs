//! PURE. The status in a line, for `systemctl status`.
//!
//! Every user of the host may read it: it holds numbers and states, and nothing that upstream or a producer said.

use std::time::Duration;

use crate::admin::protocol::{IntegrationStatus, Status};
use crate::forward::State;

/// Integrations that are named; the others are counted.
const NAMED_MAX: usize = 8;

/// What is queued, and what each integration does.
pub(super) fn text(status: &Status) -> String {
    let mut parts = Vec::new();
    if status.refusing.is_some() {
        parts.push("refusing producers, see `pillarbox status`".to_owned());
    }
    let queued: u64 = status.integrations.iter().map(|known| known.lane.queued_records).sum();
    let oldest = status.integrations.iter().filter_map(|known| known.lane.oldest_at).min();
    parts.push(match oldest {
        Some(oldest) => format!("{queued} queued, the oldest {}", age(oldest.age(status.now))),
        None => "nothing queued".to_owned(),
    });
    parts.extend(status.integrations.iter().take(NAMED_MAX).map(told));
    if let Some(others) = status.integrations.len().checked_sub(NAMED_MAX + 1) {
        parts.push(format!("{} more", others + 1));
    }
    if status.quarantined > 0 {
        parts.push(format!("{} in quarantine", status.quarantined));
    }
    parts.join("; ")
}

fn told(known: &IntegrationStatus) -> String {
    let name = &known.name;
    if known.endpoint.is_none() {
        return format!("{name}: not configured");
    }
    let state = match known.report.state {
        State::Idle => "idle",
        State::Pushing => "delivering",
        State::Isolating => "looking for a record at fault",
        State::Retrying => {
            return format!("{name}: retrying after {} failures", known.report.failures);
        }
        State::Paused => "paused",
        State::Unauthorized => "unauthorized",
        State::Held => "held, wrong endpoint",
        State::Storm => "held, too many rejections",
        State::Damaged => "damaged",
    };
    format!("{name}: {state}")
}

/// Coarse, so that the text seldom changes.
fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => "under a minute".to_owned(),
        60..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;
    use crate::forward::Report;
    use crate::ingest::Counts;
    use crate::spool::LaneStats;

    fn known(name: &str, state: State, queued: u64, oldest_at: Option<u64>) -> IntegrationStatus {
        let report = Report { state, failures: 3, cause: "secret".into(), ..Report::default() };
        let oldest_at = oldest_at.map(UnixMillis);
        let lane = LaneStats { queued_records: queued, oldest_at, ..LaneStats::default() };
        let endpoint = Some("https://endpoint.example".to_owned());
        IntegrationStatus { name: name.into(), endpoint, lane, report, ledger: None, lanes: vec![] }
    }

    fn of(integrations: Vec<IntegrationStatus>) -> Status {
        Status {
            version: "1".into(),
            pid: 1,
            started_at: UnixMillis(0),
            now: UnixMillis(10_000_000),
            refusing: None,
            quarantined: 0,
            ingest: Counts::default(),
            integrations,
            set_aside: Vec::new(),
            disk_free: None,
            erasure_waits: false,
        }
    }

    #[test]
    fn queue_and_states_are_told_and_nothing_that_was_said() {
        let quiet = of(vec![known("uk", State::Idle, 0, None)]);
        assert_eq!(text(&quiet), "nothing queued; uk: idle");
        let mut gone = known("old", State::Idle, 1, Some(9_990_000));
        gone.endpoint = None;
        let mut busy = of(vec![known("uk", State::Retrying, 12, Some(9_000_000)), gone]);
        (busy.quarantined, busy.refusing) = (2, Some("secret".into()));
        assert_eq!(
            text(&busy),
            "refusing producers, see `pillarbox status`; 13 queued, the oldest 16 min; uk: retrying after 3 failures; \
             old: not configured; 2 in quarantine"
        );
        let many = of((0..NAMED_MAX + 2).map(|_| known("x", State::Held, 0, None)).collect());
        assert!(text(&many).ends_with("x: held, wrong endpoint; 2 more"));
        let named = of((0..NAMED_MAX).map(|_| known("x", State::Held, 0, None)).collect());
        assert!(!text(&named).contains("more"));
    }

    #[test]
    fn an_age_is_coarse() {
        for (seconds, told) in [
            (59, "under a minute"),
            (119, "1 min"),
            (7199, "119 min"),
            (7200, "2 h"),
            (172_800, "2 days"),
        ] {
            assert_eq!(age(Duration::from_secs(seconds)), told);
        }
    }
}
