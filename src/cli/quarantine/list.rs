//! Entries of the quarantine as people read them: a row each, or one with everything.

use anyhow::Context as _;
use comfy_table::Table;

use super::super::Failure;
use super::super::client::Client;
use super::super::show::{self, BOLD, DIM, age, cell, number, pretty, printable, short_age};
use crate::admin::protocol::{QuarantineEntry, QuarantineFilter, QuarantineQuery};
use crate::advice;
use crate::clock::{self, UnixMillis};
use crate::spool::Origin;

/// Entries asked for at once.
const PAGE: u64 = 100;
/// Widths at which a row fits in 80 columns.
const NAME_WIDTH: usize = 12;
const REASON_WIDTH: usize = 14;
const ID_WIDTH: usize = 16;

/// Lists what `filter` takes.
pub(super) async fn list(
    client: &mut Client,
    filter: QuarantineFilter,
    json: bool,
    limit: Option<u64>,
) -> Result<(), Failure> {
    let mut left = limit.unwrap_or(if json { u64::MAX } else { LISTED });
    let is_filtered = !filter.is_empty();
    let mut query = QuarantineQuery { filter, ..QuarantineQuery::default() };
    let (mut entries, mut more) = (Vec::new(), false);
    while left > 0 {
        query.limit = usize::try_from(left.min(PAGE)).ok();
        let page: Vec<QuarantineEntry> = client.post("/v1/quarantine/list", &query).await?;
        let Some(last) = page.last() else { break };
        query.from = last.id.0 + 1;
        left = left.saturating_sub(page.len() as u64);
        more = left == 0;
        if json {
            for entry in &page {
                show::line(&serde_json::to_string(entry).context("write the entry")?);
            }
        } else {
            entries.extend(page);
        }
    }
    if json {
        return Ok(());
    }
    if entries.is_empty() {
        show::line(if is_filtered { "no entry fits" } else { "the quarantine is empty" });
        return Ok(());
    }
    show::line(&table(&entries, clock::now()));
    show::line(&format!("\n{DIM}`pillarbox quarantine show ID` shows why{DIM:#}"));
    if more {
        show::note(&format!(
            "shown are {}; there may be more: --limit N",
            number(entries.len() as u64)
        ));
    }
    Ok(())
}

/// Entries that are listed for people unless `--limit` says otherwise.
const LISTED: u64 = 200;

fn table(entries: &[QuarantineEntry], now: UnixMillis) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["id", "age", "integration", "reason", "answer", "event", "record"]);
    for entry in entries {
        let integration = match &entry.origin {
            Origin::Record { integration, .. } => Some(integration.as_str()),
            Origin::Event { integration, .. } => integration.as_deref(),
        };
        let or_dash = |text: Option<&str>, width| cell(text.unwrap_or("-"), width);
        table.add_row([
            entry.id.0.to_string(),
            short_age(entry.at.age(now)),
            or_dash(integration, NAME_WIDTH),
            cell(&entry.reason, REASON_WIDTH),
            entry.status.map_or_else(|| "-".to_owned(), |status| status.to_string()),
            or_dash(entry.event_type.as_deref(), ID_WIDTH),
            or_dash(entry.record_id.as_deref(), ID_WIDTH),
        ]);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    show::trimmed(&table.to_string())
}

/// Shows one entry.
pub(super) async fn show_entry(client: &mut Client, id: u64, json: bool) -> Result<(), Failure> {
    let entry: QuarantineEntry = client.get(&format!("/v1/quarantine/{id}")).await?;
    if json {
        show::line(&serde_json::to_string(&entry).context("write the entry")?);
    } else {
        show::line(&described(&entry, clock::now()));
    }
    Ok(())
}

/// Everything there is to say of an entry.
fn described(entry: &QuarantineEntry, now: UnixMillis) -> String {
    let origin = match &entry.origin {
        Origin::Record { integration, seq, record_type, .. } => {
            format!("{record_type}, seq {} of integration {integration:?}", seq.0)
        }
        Origin::Event { kind, integration } => {
            let kind = if kind.is_empty() { "unknown type" } else { kind };
            let whose = integration.as_ref().map(|name| format!(" for integration {name:?}"));
            format!("event ({kind}){}", whose.unwrap_or_default())
        }
    };
    let last = age(entry.at.age(now));
    let since = if entry.first_at < entry.at {
        format!("set aside {} ago, and again {last} ago", age(entry.first_at.age(now)))
    } else {
        format!("set aside {last} ago")
    };
    let mut lines = vec![format!("{BOLD}entry {}{BOLD:#}, {since}", entry.id.0)];
    let mut field = |name: &str, text: &str| {
        if !text.is_empty() {
            lines.push(format!("{name:<7} {}", printable(text)));
        }
    };
    field("what", &origin);
    field("id", entry.record_id.as_deref().unwrap_or_default());
    field("event", entry.event_type.as_deref().unwrap_or_default());
    field("reason", &entry.reason);
    match entry.status {
        Some(status) => field("answer", &format!("{status} {}", entry.detail)),
        None => field("detail", &entry.detail),
    }
    field("do", advice::set_aside(&entry.reason));
    field("body", &format!("{} bytes", number(entry.bytes as u64)));
    let body = entry.body.as_ref().map(|body| pretty(body.get())).unwrap_or_default();
    lines.extend(body.lines().map(printable));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::{LaneId, PersonKeys, QuarantineId, Seq};

    fn entry(id: u64, record_id: &str) -> QuarantineEntry {
        QuarantineEntry {
            id: QuarantineId(id),
            reason: "rejected".into(),
            detail: "\u{1b}[2Jno".into(),
            status: Some(400),
            origin: Origin::Record {
                lane: LaneId(1),
                integration: "a-rather-long-name-of-a-shop".into(),
                seq: Seq(7),
                record_type: "custom_event".into(),
                person: PersonKeys::default(),
            },
            first_at: UnixMillis(0),
            at: UnixMillis(0),
            bytes: 1234,
            record_id: Some(record_id.into()),
            event_type: Some("product_added_to_a_very_long_list".into()),
            body: Some(
                serde_json::value::RawValue::from_string(r#"{"id":"x","n":1.00}"#.into()).unwrap(),
            ),
        }
    }

    #[test]
    fn a_row_fits_a_terminal_and_cannot_drive_it() {
        let entries =
            [entry(1_234_567, "evt_0123456789abcdef0123456789abcdef"), entry(2, "\u{1b}]0;x\n")];
        let table = table(&entries, UnixMillis(90_061_000));
        assert_eq!(table.lines().count(), 3, "{table}");
        for line in table.lines() {
            assert!(line.chars().count() <= 80, "{}: {line}", line.chars().count());
        }
        assert!(!table.contains('\u{1b}') && table.contains("1 d "), "{table}");
    }

    #[test]
    fn an_entry_is_shown_whole() {
        let mut again = entry(5, "r-5");
        again.at = UnixMillis(140_000);
        let text = described(&again, UnixMillis(200_000));
        assert!(text.contains("set aside 3 min 20 s ago, and again 1 min ago"), "{text}");
        let text = described(&entry(5, "r-5"), UnixMillis(200_000));
        let text = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(
            text,
            "entry 5, set aside 3 min 20 s ago\n\
             what    custom_event, seq 7 of integration \"a-rather-long-name-of-a-shop\"\n\
             id      r-5\n\
             event   product_added_to_a_very_long_list\n\
             reason  rejected\n\
             answer  400 \\u{1b}[2Jno\n\
             do      Ometria refused this record alone: see what the answer says, then mend it (`quarantine edit`), or the mapping of its event for those to come\n\
             body    1,234 bytes\n\
             {\n  \"id\": \"x\",\n  \"n\": 1.00\n}"
        );
    }
}
