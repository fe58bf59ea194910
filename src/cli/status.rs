//! `pillarbox status`: queue, state and cause of each integration.

use std::collections::BTreeMap;

use anstyle::Style;
use clap::Args;
use comfy_table::{CellAlignment, Table};

use super::show::{self, BAD, BOLD, DIM, GOOD, WARN, age, number, printable};
use super::{Admin, Failure};
use crate::admin::protocol::{self, IntegrationStatus};
use crate::advice;
use crate::clock::UnixMillis;
use crate::forward::State;
use crate::mapping::table::EVENT_TYPE_CHARS_MAX;

#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    admin: Admin,
    /// For machines
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(status: &Status) -> Result<(), Failure> {
    let mut client = status.admin.connect().await?;
    let read: protocol::Status = client.get("/v1/status").await?;
    if status.json {
        show::line(&serde_json::to_string(&read).map_err(anyhow::Error::from)?);
    } else {
        show::line(&text(&read));
    }
    Ok(())
}

/// The status as people read it.
fn text(status: &protocol::Status) -> String {
    let up = age(status.started_at.age(status.now));
    let health = match &status.refusing {
        None => format!("{GOOD}accepting{GOOD:#}"),
        Some(reason) => format!("{BAD}refusing producers{BAD:#}: {}", printable(reason)),
    };
    let head = format!(
        "{BOLD}pillarbox {}{BOLD:#}, pid {}, up {up}: {health}",
        status.version, status.pid
    );
    let mut parts = vec![head, table(status)];
    let causes = status.integrations.iter().flat_map(|known| causes(known, status.now));
    let causes: Vec<String> = causes.collect();
    if !causes.is_empty() {
        parts.push(causes.join("\n"));
    }
    for trouble in &status.set_aside {
        parts.push(format!("{BAD}set aside{BAD:#}  {}", printable(trouble)));
    }
    for (name, count) in &status.ingest.event_types_truncated {
        parts.push(format!(
            "{WARN}{}{WARN:#}: {} records have an event type over {EVENT_TYPE_CHARS_MAX} characters: {}",
            printable(name),
            number(*count),
            advice::EVENT_TYPE_TRUNCATED
        ));
    }
    if status.quarantined > 0 {
        let count = number(status.quarantined);
        parts.push(format!(
            "{WARN}quarantine{WARN:#}: {count} set aside; `pillarbox quarantine list` shows them"
        ));
    }
    if status.erasure_waits {
        parts.push(format!("{WARN}erasure{WARN:#}: {}", advice::ERASURE_WAITS));
    }
    parts.push(format!("{DIM}{}{DIM:#}", ingest(status)));
    parts.join("\n\n")
}

fn table(status: &protocol::Status) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([
        "integration",
        "state",
        "queued",
        "oldest",
        "delivered",
        "quarantined",
        "answer",
    ]);
    for known in &status.integrations {
        let lane = &known.lane;
        let oldest = lane.oldest_at.map(|at| age(at.age(status.now)));
        let answer = known.report.last_status.map(|status| status.to_string());
        table.add_row([
            known.name.clone(),
            state(known).0.to_owned(),
            number(lane.queued_records),
            oldest.unwrap_or_else(|| "-".to_owned()),
            number(lane.delivered),
            number(lane.quarantined),
            answer.unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if (2..=5).contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    // The table counts every character: colour comes last, on the first word after the name.
    let lines = show::trimmed(&table.to_string());
    let mut lines = lines.lines().map(str::to_owned);
    let mut shown: Vec<String> = lines.next().into_iter().collect();
    for (line, known) in lines.zip(&status.integrations) {
        let (word, style) = state(known);
        let (name, rest) = line.split_at(known.name.len());
        shown.push(format!("{name}{}", rest.replacen(word, &format!("{style}{word}{style:#}"), 1)));
    }
    shown.join("\n")
}

/// What an operator should know of an integration, a line each; nothing when all is well.
pub(super) fn causes(known: &IntegrationStatus, now: UnixMillis) -> Vec<String> {
    let (name, lane, report) = (&known.name, &known.lane, &known.report);
    let mut causes = Vec::new();
    if !report.cause.is_empty() {
        let style = state(known).1;
        let next = report.next_try_at.map(|at| format!("; next try in {}", age(now.age(at))));
        let next = next.unwrap_or_default();
        causes.push(format!("{style}{name}{style:#}: {}{next}", printable(&report.cause)));
    }
    if !lane.is_conserved() {
        let (accepted, held) = (number(lane.newest), number(lane.held));
        causes.push(format!(
            "{WARN}{name}{WARN:#}: {accepted} records were accepted, but what has ended and the {held} in the log are not as \
             many: stop the daemon and see `pillarbox spool verify`"
        ));
    }
    if known.endpoint.is_none() && lane.queued_records > 0 {
        let (records, size) = (number(lane.queued_records), show::bytes(lane.queued_bytes));
        causes.push(format!(
            "{WARN}{name}{WARN:#}: {records} records ({size}) wait and nobody delivers them: configure it again and reload, or `pillarbox drop-queue {name}`"
        ));
    }
    let ledger = known.ledger.clone().unwrap_or_default();
    if !ledger.cause.is_empty() {
        let cause = printable(&ledger.cause);
        causes.push(format!(
            "{WARN}{name}{WARN:#}: what Ometria rejects after its 202 cannot be read: {cause}; it is tried again, and `poll_errors = \"0s\"` switches it off"
        ));
    }
    let without_email =
        format!("without identity_email since the start: {}", advice::NO_IDENTITY_EMAIL);
    let overdue = format!("over four hours old since the start: {}", advice::OLD);
    for (count, what) in [
        (report.symptoms.without_email, &*without_email),
        (report.symptoms.late, &*overdue),
        (ledger.found, "rejected after their 202: `pillarbox quarantine list` (rejected_later)"),
        (ledger.unknown, "listed by Ometria as rejected and not ours, or no longer kept"),
        (
            report.records_rejected,
            "named as rejected in the answers of its 202s: `pillarbox quarantine list`",
        ),
        (lane.withheld, "withheld: consent was revoked"),
        (lane.erased, "erased on request"),
    ] {
        if count > 0 {
            causes.push(format!("{name}: {} {what}", number(count)));
        }
    }
    causes
}

/// What came in since the start.
fn ingest(status: &protocol::Status) -> String {
    let counts = &status.ingest;
    let listed = |reasons: &BTreeMap<String, u64>| {
        let listed: Vec<String> =
            reasons.iter().map(|(reason, count)| format!("{reason} {}", number(*count))).collect();
        if listed.is_empty() { String::new() } else { format!(" ({})", listed.join(", ")) }
    };
    let sum = |reasons: &BTreeMap<String, u64>| number(reasons.values().sum());
    let strangers = match counts.connections_refused {
        0 => String::new(),
        count => format!(", {} connections of users who are not admitted", number(count)),
    };
    format!(
        "since the start: {} requests answered, {} refused{}{strangers}\n\
         events: {} accepted, {} seen before, {} quarantined, {} dropped{}",
        number(counts.requests),
        sum(&counts.requests_refused),
        listed(&counts.requests_refused),
        number(counts.events_accepted),
        number(counts.events_duplicate),
        number(counts.events_quarantined),
        sum(&counts.events_dropped),
        listed(&counts.events_dropped),
    )
}

/// The state in a word or two, and how serious it is.
pub(super) fn state(known: &IntegrationStatus) -> (&'static str, Style) {
    if known.report.state == State::Damaged {
        return ("damaged", BAD);
    }
    if known.endpoint.is_none() {
        return ("not configured", WARN);
    }
    match known.report.state {
        State::Idle => ("idle", GOOD),
        State::Pushing => ("delivering", GOOD),
        State::Isolating => ("isolating", WARN),
        State::Retrying => ("retrying", WARN),
        State::Paused => ("paused", WARN),
        State::Unauthorized => ("unauthorized", BAD),
        State::Held => ("held", BAD),
        State::Storm => ("held (storm)", BAD),
        State::Damaged => ("damaged", BAD),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::forward::Report;
    use crate::spool::LaneStats;

    pub(in crate::cli) fn known(name: &str, state: State, cause: &str) -> IntegrationStatus {
        IntegrationStatus {
            name: name.into(),
            endpoint: Some("https://x/".into()),
            lane: LaneStats {
                newest: 1_234_567 + 12_345_678,
                queued_records: 1_234_567,
                held: 1_234_567,
                queued_bytes: 5 << 20,
                oldest_at: Some(UnixMillis(0)),
                delivered: 12_345_678,
                ..LaneStats::default()
            },
            report: Report {
                state,
                cause: cause.into(),
                next_try_at: Some(UnixMillis(3_660_000)),
                last_status: Some(403),
                ..Report::default()
            },
            ledger: None,
            lanes: Vec::new(),
        }
    }

    pub(in crate::cli) fn of(integrations: Vec<IntegrationStatus>) -> protocol::Status {
        protocol::Status {
            version: "1".into(),
            pid: 7,
            started_at: UnixMillis(0),
            now: UnixMillis(3_600_000),
            refusing: None,
            quarantined: 0,
            disk_free: Some(3 << 30),
            erasure_waits: false,
            ingest: crate::ingest::Counts::default(),
            integrations,
            set_aside: vec!["es: its stored file has faults".into()],
        }
    }

    fn plain(status: &protocol::Status) -> String {
        anstream::adapter::strip_str(&text(status)).to_string()
    }

    #[test]
    fn a_held_integration_says_why_and_when() {
        let text =
            plain(&of(vec![known("uk", State::Unauthorized, "403: generate a Data API key")]));
        for part in [
            "set aside  es: its stored file has faults",
            "up 1 h: accepting",
            "unauthorized",
            "1,234,567",
            "uk: 403: generate a Data API key; next try in 1 min",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(text.lines().take(5).all(|line| line.chars().count() <= 80), "{text}");
    }

    #[test]
    fn the_state_is_coloured_and_the_name_never() {
        let text = text(&of(vec![
            known("idle", State::Idle, ""),
            known("held", State::Held, "404: the endpoint is wrong"),
        ]));
        assert!(text.contains(&format!("{GOOD}idle{GOOD:#}")), "{text:?}");
        assert!(text.contains(&format!("{BAD}held{BAD:#}")), "{text:?}");
        assert_eq!(text.lines().filter(|line| line.starts_with("idle ")).count(), 1, "{text:?}");
    }

    #[test]
    fn everything_that_did_not_end_as_delivered_is_told() {
        let mut old = known("old", State::Idle, "");
        old.endpoint = None;
        let mut uk = known("uk", State::Idle, "");
        uk.report.records_rejected = 4;
        (uk.report.symptoms.without_email, uk.report.symptoms.late) = (7, 8);
        (uk.lane.withheld, uk.lane.erased) = (5, 6);
        uk.lane.newest += 5 + 6 + 1;
        let mut status = of(vec![uk, old]);
        (status.quarantined, status.erasure_waits) = (9, true);
        status.refusing = Some("the spool is full".into());
        status.ingest.requests_refused.insert("spool_full".into(), 3);
        status.ingest.connections_refused = 1002;
        status.ingest.events_dropped.insert("no_mapping".into(), 1000);
        status.ingest.event_types_truncated.insert("uk".into(), 1234);
        let text = plain(&status);
        for part in [
            "refusing producers: the spool is full",
            "not configured",
            "old: 1,234,567 records (5.0 MiB) wait and nobody delivers them: configure it again",
            "uk: 4 named as rejected",
            "uk: 1,234 records have an event type over 512 characters",
            "uk: 13,580,257 records were accepted, but what has ended and the 1,234,567 in the log are not as many",
            "uk: 5 withheld",
            "uk: 7 without identity_email since the start: delivered, but not linked",
            "uk: 8 over four hours old since the start: delivered, but Ometria starts no automation",
            "uk: 6 erased",
            "quarantine: 9 set aside",
            "erasure: what was erased is no longer sent or shown, but stays on the disk",
            "3 refused (spool_full 3), 1,002 connections of users who are not admitted",
            "1,000 dropped (no_mapping 1,000)",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn what_upstream_said_cannot_drive_the_terminal() {
        let text = plain(&of(vec![known("uk", State::Held, "404: \u{1b}]0;x\u{7}")]));
        assert!(text.contains(r"404: \u{1b}]0;x\u{7}"), "{text:?}");
    }
}
