//! PURE. Every metric: its name, its help, and where its numbers stand in a snapshot.

use std::fmt;
use std::time::Duration;

use super::writer::{Labels, Writer, family};
use super::{Integration, Snapshot};
use crate::clock::UnixMillis;
use crate::forward::State;
use crate::mapping::DropReason;
use crate::spool::LaneStats;

/// Why producers are refused: the codes that a health check may answer with.
const REFUSALS: [&str; 4] = ["spool_full", "disk_low", "storage_failed", "shutting_down"];
/// The state of an integration that only keeps its queue.
const NOT_CONFIGURED: &str = "not_configured";

impl Snapshot {
    /// Every family.
    pub(super) fn write(&self, to: &mut Writer<'_>) -> fmt::Result {
        self.daemon(to)?;
        self.ingest(to)?;
        self.spool(to)?;
        self.records(to)?;
        self.queue(to)?;
        self.events(to)?;
        self.pushes(to)?;
        self.state(to)
    }

    fn daemon(&self, to: &mut Writer<'_>) -> fmt::Result {
        let status = &self.status;
        to.gauges(&family("up", "Whether the daemon answers."), one(1_u64))?;
        let build = family("build", "The version that runs.");
        to.info(&build, &vec![("version", &*status.version)])?;
        // Not `process_start_time_seconds`: where the node exporter reads these from a file, that name is its own.
        let start = family("start_time", "When the daemon started, in unix time.").seconds();
        to.gauges(&start, one(seconds_at(status.started_at)))?;
        let refusing = family(
            "refusing",
            "Whether producers are refused, by reason: spool_full, disk_low, storage_failed or shutting_down.",
        );
        let samples = REFUSALS
            .into_iter()
            .map(|reason| (vec![("reason", reason)], u64::from(self.refusing == Some(reason))));
        to.gauges(&refusing, samples)
    }

    fn ingest(&self, to: &mut Writer<'_>) -> fmt::Result {
        let counts = &self.status.ingest;
        to.gauges(
            &family("ingest_connections", "Connections of producers that are open."),
            one(self.connections),
        )?;
        let requests = family(
            "ingest_requests",
            "Requests of producers, by the code of the answer; ok is a 200, or the 202 of /v2/push. Since the daemon started.",
        );
        let refused = counts.requests_refused.iter().map(|(code, count)| (&**code, *count));
        let codes = [("ok", counts.requests)].into_iter().chain(refused);
        to.counters(&requests, codes.map(|(code, count)| (vec![("code", code)], count)))?;
        let events = family(
            "ingest_events",
            "Events in answered requests, by what the producer was told: each is in exactly one. Since the daemon started.",
        );
        let outcomes = [
            ("accepted", counts.events_accepted),
            ("dropped", counts.events_dropped.values().sum()),
            ("duplicate", counts.events_duplicate),
            ("quarantined", counts.events_quarantined),
        ];
        to.counters(&events, outcomes.map(|(outcome, count)| (vec![("outcome", outcome)], count)))
    }

    fn spool(&self, to: &mut Writer<'_>) -> fmt::Result {
        let spool = &self.spool;
        let commits = family(
            "commit_duration",
            "How long a commit takes that somebody waits for: from the first of its requests to the answers, the flush included. Since the daemon started.",
        );
        to.histograms(&commits.seconds(), one(&spool.commits))?;
        to.gauges(
            &family("quarantine_entries", "Records and events in the quarantine."),
            one(spool.quarantine_entries),
        )?;
        to.gauges(
            &family("quarantine", "Stored bytes of the quarantine.").bytes(),
            one(spool.quarantine_bytes),
        )?;
        let added = family(
            "quarantine_added",
            "Records and events that were ever set aside, those that have left the quarantine included. Survives a restart.",
        );
        to.counters(&added, one(spool.quarantine_added))?;
        let erasure = family(
            "erasure_waits",
            "Whether what was erased stays on the disk, as the log's next segment cannot be begun.",
        );
        to.gauges(&erasure, one(u64::from(self.status.erasure_waits)))?;
        let free = family("disk_free", "What the disk of the spool has free.").bytes();
        to.gauges(&free, spool.disk_free_bytes.map(|free| (Vec::new(), free)))?;
        let min = family(
            "disk_free_min",
            "With less than this free, producers are refused (min_free_disk).",
        );
        to.gauges(&min.bytes(), one(spool.free_disk_min_bytes))?;
        let records =
            family("spool_max_records", "Records that may be queued or quarantined (max_records).");
        to.gauges(&records, one(spool.records_max))?;
        let bytes = family("spool_max", "Bytes that they may have (max_bytes).").bytes();
        to.gauges(&bytes, one(spool.bytes_max))
    }

    /// The spool's own tallies.
    fn records(&self, to: &mut Writer<'_>) -> fmt::Result {
        type Count = fn(&LaneStats) -> u64;
        let counts: [(&str, &str, Count); 5] = [
            (
                "records_accepted",
                "Records that were made durable in the queue; those that an operator retried, again. Equals delivered + quarantined + withheld + erased + queue_records. Survives a restart.",
                |lane| lane.newest,
            ),
            (
                "records_delivered",
                "Records that Ometria answered with 202. Survives a restart.",
                |lane| lane.delivered,
            ),
            (
                "records_quarantined",
                "Records that Ometria rejected and that were set aside. Survives a restart.",
                |lane| lane.quarantined,
            ),
            (
                "records_withheld",
                "Records that were not sent, as consent was revoked after they were queued. Survives a restart.",
                |lane| lane.withheld,
            ),
            (
                "records_erased",
                "Records that were erased on request. Survives a restart.",
                |lane| lane.erased,
            ),
        ];
        for (name, help, count) in counts {
            let samples =
                self.integrations.iter().map(|known| (known.labels(), count(&known.status.lane)));
            to.counters(&family(name, help), samples)?;
        }
        Ok(())
    }

    fn queue(&self, to: &mut Writer<'_>) -> fmt::Result {
        let lanes = || self.integrations.iter().map(|known| (known.labels(), &known.status.lane));
        let records = family("queue_records", "Records that wait for their delivery.");
        to.gauges(&records, lanes().map(|(labels, lane)| (labels, lane.queued_records)))?;
        let bytes = family(
            "queue",
            "Bytes of the records that wait for their delivery, with the events kept beside them.",
        )
        .bytes();
        to.gauges(&bytes, lanes().map(|(labels, lane)| (labels, lane.queued_bytes)))?;
        let age = family(
            "queue_oldest_age",
            "How long the oldest record has waited; 0 when none waits, or where it is damaged. Ometria starts no automation for events over four hours old.",
        );
        let now = self.status.now;
        let age_of = |lane: &LaneStats| lane.oldest_at.map_or(Duration::ZERO, |at| at.age(now));
        to.gauges(
            &age.seconds(),
            lanes().map(|(labels, lane)| (labels, age_of(lane).as_secs_f64())),
        )?;
        let missing = family(
            "queue_missing_records",
            "Records that were accepted, have not ended, and are not in the log: 0, unless the disk has lost something.",
        );
        to.gauges(
            &missing,
            lanes().map(|(labels, lane)| (labels, lane.queued_records.abs_diff(lane.held))),
        )
    }

    /// What the mapping made of events.
    fn events(&self, to: &mut Writer<'_>) -> fmt::Result {
        let tallied = || {
            let known = self.integrations.iter();
            known.filter_map(|known| Some((known.labels(), known.tallied.as_ref()?)))
        };
        let accepted = family(
            "events_accepted",
            "Events that became a record of the integration, and records from /v2/push. Since the daemon started.",
        );
        to.counters(&accepted, tallied().map(|(labels, tallied)| (labels, tallied.accepted)))?;
        let duplicate = family(
            "events_duplicate",
            "Events that the integration has had before, by their messageId. Since the daemon started.",
        );
        to.counters(&duplicate, tallied().map(|(labels, tallied)| (labels, tallied.duplicate)))?;
        let quarantined = family(
            "events_quarantined",
            "Events that the mapping could make no record of, set aside. Since the daemon started.",
        );
        to.counters(
            &quarantined,
            tallied().map(|(labels, tallied)| (labels, tallied.quarantined)),
        )?;
        let dropped = family(
            "events_dropped",
            "Events that the mapping does not send on, by reason: no_mapping, disabled or consent. Since the daemon started.",
        );
        let samples = tallied().flat_map(|(labels, tallied)| {
            let reasons = DropReason::ALL.into_iter().zip(tallied.dropped);
            reasons.map(move |(reason, count)| (with(&labels, "reason", reason.code()), count))
        });
        to.counters(&dropped, samples)?;
        let truncated = family(
            "event_types_truncated",
            "Records whose event_type is so long that Ometria cuts it. Since the daemon started.",
        );
        let counts = &self.status.ingest.event_types_truncated;
        let samples = self.integrations.iter().filter(|known| known.tallied.is_some());
        let samples = samples.map(|known| {
            (known.labels(), counts.get(&known.status.name).copied().unwrap_or_default())
        });
        to.counters(&truncated, samples)
    }

    fn pushes(&self, to: &mut Writer<'_>) -> fmt::Result {
        let delivered = || {
            let known = self.integrations.iter();
            known.filter_map(|known| Some((known.labels(), known, known.pushes.as_ref()?)))
        };
        let answered = family(
            "pushes",
            "Pushes that were answered, by status; rare ones by their hundred. Since the daemon started.",
        );
        let samples = delivered().flat_map(|(labels, _, pushes)| {
            let statuses = pushes.answered.iter();
            statuses.map(move |(status, count)| (with(&labels, "status", status), *count))
        });
        to.counters(&answered, samples)?;
        let unanswered = family(
            "pushes_unanswered",
            "Pushes without an answer, by reason: timeout, dns, connect (refused or unreachable), tls, proxy, closed, not_http or other. Since the daemon started.",
        );
        let samples = delivered().flat_map(|(labels, _, pushes)| {
            let reasons = pushes.unanswered.iter();
            reasons.map(move |(reason, count)| (with(&labels, "reason", reason), *count))
        });
        to.counters(&unanswered, samples)?;
        let retries =
            family("push_retries", "Pushes that have to be made again. Since the daemon started.");
        let reports = || delivered().map(|(labels, known, _)| (labels, &known.status.report));
        to.counters(&retries, reports().map(|(labels, report)| (labels, report.pushes_retried)))?;
        let rejected = family(
            "records_rejected",
            "Records that the body of a 202 names as rejected; they count as delivered. Since the daemon started.",
        );
        to.counters(
            &rejected,
            reports().map(|(labels, report)| (labels, report.records_rejected)),
        )?;
        let took = family(
            "push_duration",
            "How long a push takes, with or without an answer. Since the daemon started.",
        );
        to.histograms(
            &took.seconds(),
            delivered().map(|(labels, _, pushes)| (labels, &pushes.took)),
        )?;
        let interval = family(
            "push_interval",
            "The least time from one push to the next: the pace; 0 when it is not limited.",
        );
        let paces = self
            .integrations
            .iter()
            .filter_map(|known| Some((known.labels(), known.push_interval?.as_secs_f64())));
        to.gauges(&interval.seconds(), paces)
    }

    fn state(&self, to: &mut Writer<'_>) -> fmt::Result {
        let state = family(
            "integration_state",
            "What an integration does: 1 for its state, 0 for the others. Of several lanes, the one in most trouble.",
        );
        let names = || State::ALL.map(State::as_str).into_iter().chain([NOT_CONFIGURED]);
        let samples = self.integrations.iter().flat_map(|known| {
            let current = known.state();
            names()
                .map(move |name| (with(&known.labels(), "state", name), u64::from(name == current)))
        });
        to.gauges(&state, samples)?;
        let failures = family(
            "push_failures_in_a_row",
            "Attempts that have failed since the last answer on the records themselves.",
        );
        let reports =
            || self.integrations.iter().map(|known| (known.labels(), &known.status.report));
        to.gauges(&failures, reports().map(|(labels, report)| (labels, report.failures)))?;
        let last = family(
            "last_delivery_timestamp",
            "When the last 202 arrived, in unix time; absent before the first since the daemon started.",
        );
        let samples = reports()
            .filter_map(|(labels, report)| Some((labels, seconds_at(report.last_delivery_at?))));
        to.gauges(&last.seconds(), samples)?;
        let ledgers = || {
            let known = self.integrations.iter();
            known.filter_map(|known| Some((known.labels(), known.status.ledger.as_ref()?)))
        };
        let later = family(
            "records_rejected_later",
            "Records that Ometria rejected after its 202 and that were copied to the quarantine (poll_errors). Since the daemon started, or the integration was changed.",
        );
        to.counters(&later, ledgers().map(|(labels, ledger)| (labels, ledger.found)))
    }
}

impl Integration {
    fn labels(&self) -> Labels<'_> {
        vec![("integration", &*self.status.name)]
    }

    fn state(&self) -> &'static str {
        match self.status.report.state {
            State::Damaged => State::Damaged.as_str(),
            _ if self.status.endpoint.is_none() => NOT_CONFIGURED,
            state => state.as_str(),
        }
    }
}

/// The one sample of a family without labels.
fn one<'a, V>(value: V) -> [(Labels<'a>, V); 1] {
    [(Vec::new(), value)]
}

/// `labels`, and one more.
fn with<'a>(labels: &Labels<'a>, name: &'static str, value: &'a str) -> Labels<'a> {
    labels.iter().copied().chain([(name, value)]).collect()
}

fn seconds_at(at: UnixMillis) -> f64 {
    Duration::from_millis(at.0).as_secs_f64()
}
