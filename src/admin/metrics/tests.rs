use std::time::Duration;

use super::{Format, Integration, Snapshot, render};
use crate::admin::protocol::{IntegrationStatus, LaneStatus, Status};
use crate::clock::UnixMillis;
use crate::forward::{Meter, Report, State, poll};
use crate::ingest::{Counts, Tallied};
use crate::spool::{Figures, LaneId, LaneStats};

fn integration(name: &str, state: State, delivered: bool) -> Integration {
    let lane = LaneStats {
        newest: 10,
        cursor: 8,
        queued_records: 3,
        queued_bytes: 300,
        oldest_at: Some(UnixMillis(5_000)),
        delivered: 4,
        quarantined: 1,
        withheld: 1,
        erased: 1,
        held: 3,
    };
    let report = Report { state, failures: 2, pushes_retried: 7, ..Report::default() };
    let lanes = vec![LaneStatus { id: LaneId(1), lane, report }];
    let endpoint = delivered.then(|| "https://x/".to_owned());
    let mut status = IntegrationStatus::new(name.to_owned(), endpoint, lanes);
    status.ledger = delivered.then(|| poll::Report { found: 9, ..poll::Report::default() });
    Integration {
        status,
        tallied: delivered.then(|| Tallied {
            accepted: 8,
            dropped: [0, 0, 2],
            ..Tallied::default()
        }),
        pushes: delivered.then(|| Meter::default().read()),
        push_interval: delivered.then(|| Duration::from_millis(250)),
    }
}

fn snapshot() -> Snapshot {
    let mut ingest = Counts { requests: 5, ..Counts::default() };
    ingest.event_types_truncated.insert("uk".to_owned(), 6);
    ingest.requests_refused.insert("disk_low".to_owned(), 4);
    let mut damaged = integration("bad", State::Damaged, false);
    damaged.status.lane.held = 1;
    Snapshot {
        status: Status {
            version: "1.2.3".into(),
            pid: 7,
            started_at: UnixMillis(1_500),
            now: UnixMillis(9_000),
            refusing: Some("the disk is low".into()),
            quarantined: 3,
            ingest,
            integrations: Vec::new(),
            set_aside: Vec::new(),
            disk_free: None,
            erasure_waits: true,
        },
        refusing: Some("disk_low"),
        connections: 2,
        spool: Figures {
            commits: Meter::default().read().took,
            quarantine_entries: 3,
            quarantine_bytes: 400,
            quarantine_added: 11,
            disk_free_bytes: None,
            free_disk_min_bytes: 1,
            records_max: 2,
            bytes_max: 3,
        },
        integrations: vec![
            integration("old", State::Idle, false),
            damaged,
            integration("uk", State::Unauthorized, true),
        ],
    }
}

#[test]
fn each_number_stands_where_it_belongs() {
    let shown = render(snapshot(), Format::OpenMetrics);
    let lines: Vec<&str> = shown.body.lines().collect();
    for line in [
        "pillarbox_build_info{version=\"1.2.3\"} 1",
        "pillarbox_start_time_seconds 1.5",
        "pillarbox_refusing{reason=\"disk_low\"} 1",
        "pillarbox_refusing{reason=\"spool_full\"} 0",
        "pillarbox_ingest_connections 2",
        "pillarbox_ingest_requests_total{code=\"ok\"} 5",
        "pillarbox_ingest_requests_total{code=\"disk_low\"} 4",
        "pillarbox_quarantine_added_total 11",
        "pillarbox_erasure_waits 1",
        "pillarbox_queue_oldest_age_seconds{integration=\"uk\"} 4.0",
        "pillarbox_queue_missing_records{integration=\"uk\"} 0",
        "pillarbox_queue_missing_records{integration=\"bad\"} 2",
        "pillarbox_events_accepted_total{integration=\"uk\"} 8",
        "pillarbox_events_dropped_total{integration=\"uk\",reason=\"consent\"} 2",
        "pillarbox_event_types_truncated_total{integration=\"uk\"} 6",
        "pillarbox_pushes_total{integration=\"uk\",status=\"202\"} 0",
        "pillarbox_push_retries_total{integration=\"uk\"} 7",
        "pillarbox_push_interval_seconds{integration=\"uk\"} 0.25",
        "pillarbox_records_rejected_later_total{integration=\"uk\"} 9",
        "pillarbox_integration_state{integration=\"uk\",state=\"unauthorized\"} 1",
        "pillarbox_integration_state{integration=\"uk\",state=\"idle\"} 0",
        "pillarbox_integration_state{integration=\"old\",state=\"not_configured\"} 1",
        "pillarbox_integration_state{integration=\"old\",state=\"idle\"} 0",
        "pillarbox_integration_state{integration=\"bad\",state=\"damaged\"} 1",
    ] {
        assert!(lines.contains(&line), "{line}\n{}", shown.body);
    }
    // Of what is not delivered nothing is told that it has not; a disk that cannot be read has no free space to tell.
    for absent in ["pushes_total{integration=\"old\"", "disk_free_bytes", "last_delivery"] {
        assert!(!shown.body.contains(absent), "{absent}\n{}", shown.body);
    }
    assert!(shown.body.ends_with("# EOF\n"));
}

/// Promise 6, as a scrape shows it.
#[test]
fn what_was_accepted_is_the_sum_of_its_ends_and_the_queue() {
    let body = render(snapshot(), Format::Plain).body;
    let value = |name: &str| {
        let sample = format!("pillarbox_{name}{{integration=\"uk\"}} ");
        let line = body.lines().find_map(|line| line.strip_prefix(&sample)).unwrap();
        line.parse::<u64>().unwrap()
    };
    let ends = ["delivered", "quarantined", "withheld", "erased"];
    let ended: u64 = ends.iter().map(|end| value(&format!("records_{end}_total"))).sum();
    assert_eq!(value("records_accepted_total"), ended + value("queue_records"));
}

#[test]
fn every_counter_says_whether_a_restart_resets_it() {
    let body = render(snapshot(), Format::Plain).body;
    let lines: Vec<&str> = body.lines().collect();
    let mut counters = 0;
    for pair in lines.windows(2).filter(|pair| pair[1].ends_with("_total counter")) {
        let says = ["Since the daemon started", "Survives a restart."];
        assert!(says.iter().any(|says| pair[0].contains(says)), "{}", pair[0]);
        counters += 1;
    }
    assert!(counters >= 18, "{counters}");
}
