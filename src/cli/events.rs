//! `pillarbox events`: the event debugger.

use std::time::Duration;

use clap::Args;

use super::show::{self, BAD, BOLD, DIM, GOOD, WARN, cell, pretty, printable};
use super::when::When;
use super::{Admin, Failure};
use crate::admin::protocol::{EventFound, EventQuery, EventsFound};
use crate::advice;
use crate::clock;
use crate::event::Timestamp;
use crate::forward::symptom;

/// How often what has ended meanwhile is asked for.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);

#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command")]
#[derive(Debug, Args)]
pub(super) struct Events {
    #[command(flatten)]
    admin: Admin,
    /// Only of this integration
    #[arg(long, value_name = "NAME")]
    integration: Option<String>,
    /// Only with this id: the event's messageId
    #[arg(long)]
    id: Option<String>,
    /// Only about this e-mail address
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// Only of this event type
    #[arg(long = "type", value_name = "TYPE")]
    event_type: Option<String>,
    /// Only in this state
    #[arg(long, value_parser = ["queued", "delivered", "quarantined", "withheld", "erased"])]
    state: Option<String>,
    /// Only from this time on: 2026-06-06T12:00:00Z, or how long ago: 90min
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    since: Option<When>,
    /// Only before this time
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    until: Option<When>,
    /// The newest so many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: u64,
    /// Look at everything that is kept, not only at the newest 100,000 records of a lane
    #[arg(long)]
    all: bool,
    /// Go on with each record that ends from now on
    #[arg(long)]
    follow: bool,
    /// Show payload and answer of each, and the event before the mapping where it is kept
    #[arg(long)]
    full: bool,
    /// A JSON object a line, for machines
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(events: &Events) -> Result<(), Failure> {
    let mut client = events.admin.connect().await?;
    let now = clock::now();
    let mut query = EventQuery {
        integration: events.integration.clone(),
        id: events.id.clone(),
        email: events.email.clone(),
        r#type: events.event_type.clone(),
        state: events.state.clone(),
        since: events.since.map(|when| when.at(now)),
        until: events.until.map(|when| when.at(now)),
        limit: usize::try_from(events.limit).ok(),
        all: events.all,
        after: events.follow.then(Default::default),
    };
    loop {
        let found: EventsFound = client.post("/v1/events", &query).await?;
        let full = events.full || (events.id.is_some() && !events.follow);
        for event in &found.events {
            if events.json {
                let line = serde_json::to_string(event).map_err(anyhow::Error::from)?;
                // What came in may have line ends between its tokens, which would end the line.
                show::line(&line.replace(['\r', '\n'], " "));
            } else {
                show::line(&text(event, full));
            }
        }
        if !events.follow {
            if found.events.is_empty() {
                show::note("no such record is queued or kept (spool.keep_delivered)");
            }
            if found.more {
                show::note("there may be more: narrow it down, or add --limit or --all");
            }
            return Ok(());
        }
        query.after = Some(found.ended);
        if !found.more {
            tokio::time::sleep(FOLLOW_EVERY).await;
        }
    }
}

/// One record: a line, and with `full` all that is known.
fn text(event: &EventFound, full: bool) -> String {
    let style = match event.state.as_str() {
        "delivered" => GOOD,
        "queued" => BOLD,
        "quarantined" => BAD,
        _ => WARN,
    };
    let state = format!("{style}{}{style:#}", event.state);
    let id = event.id.as_deref().unwrap_or("-");
    let what = event.event_type.as_deref().unwrap_or(&event.record_type);
    let answer = event.push.as_ref().map_or(String::new(), |push| match push.status {
        0 => "  not sent".to_owned(),
        status => format!("  {status}, attempt {}", push.attempt),
    });
    let at = Timestamp::from_clock(event.committed_at);
    let integration = printable(&event.integration);
    let line =
        format!("{at}  {integration}  {state}  {}  {}{answer}", cell(what, 40), cell(id, 60));
    if !full {
        return line;
    }
    let mut lines = vec![line, format!("{DIM}lane {} seq {}{DIM:#}", event.lane, event.seq)];
    if let Some(push) = event.push.as_ref().filter(|push| push.status > 0) {
        let last = push.first + push.records - 1;
        lines.push(format!(
            "push of seqs {} to {last}, sent {}, answered {}: {} {}",
            push.first,
            Timestamp::from_clock(push.sent_at),
            Timestamp::from_clock(push.answered_at),
            push.status,
            printable(&push.answer)
        ));
        if let Some(id) = &push.request_id {
            lines.push(format!("request_id {}", printable(id)));
        }
    }
    lines.extend(advised(event).iter().map(|advice| format!("{DIM}{}{DIM:#}", printable(advice))));
    if let Some(before) = &event.event {
        lines.push(format!("{DIM}before the mapping{DIM:#}"));
        lines.push(printable_lines(&pretty(before.get())));
        lines.push(format!("{DIM}after it{DIM:#}"));
    }
    lines.push(printable_lines(&pretty(event.record.get())));
    lines.join("\n")
}

/// What to do when Ometria does less with a delivered record than was meant.
fn advised(event: &EventFound) -> Vec<String> {
    let push = event.push.as_ref().filter(|_| event.state == "delivered");
    let (Some(push), Some(event_type)) = (push, &event.event_type) else { return Vec::new() };
    let record = event.record.get().as_bytes();
    let symptoms = symptom::of_record(&event.record_type, record, push.answered_at);
    let mut advised = Vec::new();
    if symptoms.without_email > 0 {
        advised.push(format!("no identity_email: {}", advice::NO_IDENTITY_EMAIL));
    }
    if symptoms.late > 0 {
        advised.push(format!("over four hours old when it arrived: {}", advice::OLD));
    }
    advised.push(advice::invisible(event_type));
    advised
}

fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}
