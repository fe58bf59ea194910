//! `pillarbox status`: queue, state and cause of each integration.

use clap::Args;
use comfy_table::{CellAlignment, Table};

use super::client::Client;
use super::show::{self, BAD, BOLD, DIM, GOOD, WARN, age, number};
use super::{Configured, Failure};
use crate::admin::protocol::{self, IntegrationStatus};
use crate::config;
use crate::forward::State;

#[derive(Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    configured: Configured,
    /// For machines
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(status: &Status) -> Result<(), Failure> {
    let (_, admin) = config::sockets(&status.configured.source());
    let mut client = Client::connect(&admin).await?;
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
        Some(reason) => format!("{BAD}refusing producers{BAD:#}: {reason}"),
    };
    let mut text = format!(
        "{BOLD}pillarbox {}{BOLD:#}, pid {}, up {up}: {health}\n\n",
        status.version, status.pid
    );
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header([
        "integration",
        "state",
        "queued",
        "oldest",
        "delivered",
        "quarantined",
        "last answer",
    ]);
    for column in [2, 3, 4, 5] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for integration in &status.integrations {
        let lane = &integration.lane;
        let oldest = lane.oldest_at.map_or_else(|| "-".to_owned(), |at| age(at.age(status.now)));
        let last = integration
            .report
            .last_status
            .map_or_else(|| "-".to_owned(), |status| status.to_string());
        table.add_row([
            integration.name.clone(),
            word(integration).to_owned(),
            number(lane.queued_records),
            oldest,
            number(lane.delivered),
            number(lane.quarantined),
            last,
        ]);
    }
    text.push_str(&table.to_string());
    for integration in &status.integrations {
        if !integration.report.cause.is_empty() {
            let style = if held(integration.report.state) { BAD } else { WARN };
            text.push_str(&format!(
                "\n\n{style}{}{style:#}: {}",
                integration.name, integration.report.cause
            ));
            if let Some(at) = integration.report.next_try_at {
                text.push_str(&format!("; next try in {}", age(status.now.age(at))));
            }
        }
    }
    let counts = &status.ingest;
    let dropped: u64 = counts.events_dropped.values().sum();
    text.push_str(&format!(
        "\n\n{DIM}events since the start: {} accepted, {} dropped, {} seen before, {} quarantined; {} entries in the quarantine{DIM:#}",
        number(counts.events_accepted),
        number(dropped),
        number(counts.events_duplicate),
        number(counts.events_quarantined),
        number(status.quarantined),
    ));
    text
}

fn held(state: State) -> bool {
    matches!(state, State::Unauthorized | State::Held | State::Storm | State::Damaged)
}

fn word(integration: &IntegrationStatus) -> &'static str {
    if integration.endpoint.is_none() {
        return "not configured";
    }
    match integration.report.state {
        State::Idle => "idle",
        State::Pushing => "delivering",
        State::Isolating => "isolating",
        State::Retrying => "retrying",
        State::Unauthorized => "unauthorized",
        State::Held => "held",
        State::Storm => "held (storm)",
        State::Damaged => "damaged",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;
    use crate::forward::Report;
    use crate::spool::LaneStats;

    #[test]
    fn a_held_integration_says_why_and_when() {
        let status = protocol::Status {
            version: "1".into(),
            pid: 7,
            started_at: UnixMillis(0),
            now: UnixMillis(3_600_000),
            refusing: None,
            quarantined: 0,
            ingest: crate::ingest::Counts::default(),
            integrations: vec![IntegrationStatus {
                name: "uk".into(),
                endpoint: Some("https://x/".into()),
                lane: LaneStats {
                    queued_records: 12_345,
                    oldest_at: Some(UnixMillis(0)),
                    ..LaneStats::default()
                },
                report: Report {
                    state: State::Unauthorized,
                    cause: "403: generate a Data API key".into(),
                    next_try_at: Some(UnixMillis(3_660_000)),
                    ..Report::default()
                },
            }],
        };
        let text = anstream::adapter::strip_str(&text(&status)).to_string();
        for part in [
            "up 1 h: accepting",
            "unauthorized",
            "12,345",
            "uk: 403: generate a Data API key; next try in 1 min",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(text.lines().take(5).all(|line| line.trim_end().chars().count() <= 80), "{text}");
    }
}
