//! What `pillarbox spool` says to people.

use std::path::Path;

use super::super::show::{self, BAD, BOLD, GOOD, WARN, number, printable};
use super::records;
use crate::spool::offline::{LaneSalvaged, Salvaged, Verified};

/// Ranges of missing seqs that are listed for a lane.
const RANGES_SHOWN: usize = 8;

pub(super) fn verified(verified: &Verified, state_dir: &Path) {
    for lane in &verified.lanes {
        let name = printable(&lane.integration);
        show::line(&format!("{BOLD}lane {} ({name}){BOLD:#}", lane.lane));
        let held = match lane.records {
            0 => "no records".to_owned(),
            count => {
                format!("{}, seq {} to {}", records(count), number(lane.first), number(lane.newest))
            }
        };
        let (cursor, queued) = (number(lane.cursor), number(lane.queued));
        show::line(&format!("  {held}; cursor {cursor}; {queued} queued"));
    }
    show::line(&format!(
        "{} quarantined, {} identities, {} deliveries",
        number(verified.quarantined),
        number(verified.identities),
        number(verified.deliveries)
    ));
    if verified.faults.is_empty() {
        show::line(&format!("{GOOD}ok{GOOD:#}    every record, sequence and checksum is sound"));
        return;
    }
    for fault in &verified.faults {
        let place =
            if fault.place.is_empty() { String::new() } else { format!("{}: ", fault.place) };
        let file = fault.file.display();
        show::line(&format!(
            "{BAD}fault{BAD:#} {file}: {}",
            printable(&format!("{place}{}", fault.what))
        ));
    }
    show::problem(&format!(
        "{} at fault: `pillarbox spool salvage --state-dir {} --output salvaged.ndjson` reads what is left",
        number(verified.faults.len() as u64),
        state_dir.display()
    ));
}

pub(super) fn salvaged(salvaged: &Salvaged) {
    show::note(&format!(
        "{} files, {} looked through",
        number(salvaged.files),
        show::bytes(salvaged.bytes)
    ));
    for told in &salvaged.lanes {
        lane(told);
    }
    show::note(&format!(
        "{} read ({} queued), {} quarantined entries (some may have been released since)",
        records(salvaged.records),
        number(salvaged.queued),
        number(salvaged.quarantined)
    ));
    if salvaged.queued > 0 {
        show::note(
            "records before a lane's cursor were settled. The queued ones are Ometria records, no events: `pillarbox send` \
             cannot take them; push them yourself (README, \"When the spool is damaged\"). Ometria merges a repeated id",
        );
    }
    for (count, what) in [
        (salvaged.conflicts, "records with two contents: the one committed last was taken"),
        (salvaged.unreadable_bytes, "bytes that the disk refuses to read"),
        (salvaged.parts_damaged, "found damaged (old copies count as well)"),
    ] {
        if count > 0 {
            show::note(&format!("{WARN}{}{WARN:#} {what}", number(count)));
        }
    }
    if salvaged.cut_off {
        show::problem("the store's file is missing or cut off: how much it held is not known");
    }
    if salvaged.missing_queued > 0 {
        show::problem(&format!(
            "{} that waited for delivery could not be read",
            records(salvaged.missing_queued)
        ));
    } else if salvaged.lanes.is_empty() && salvaged.quarantined == 0 {
        show::problem("nothing was found: neither a lane nor a record");
    }
}

fn lane(lane: &LaneSalvaged) {
    let name = lane.integration.as_deref().map_or_else(|| "name not found".to_owned(), printable);
    let cursor = lane.cursor.map_or_else(
        || "cursor not found: all count as queued".to_owned(),
        |cursor| format!("cursor {}", number(cursor)),
    );
    show::note(&format!(
        "lane {} ({name}): {} read, {} queued; newest seq {}; {cursor}",
        lane.lane,
        records(lane.records),
        number(lane.queued),
        number(lane.newest)
    ));
    if lane.missing_settled > 0 {
        show::note(&format!(
            "  {} that were settled are no longer there",
            records(lane.missing_settled)
        ));
    }
    if lane.missing_queued.is_empty() {
        return;
    }
    let shown =
        lane.missing_queued.iter().take(RANGES_SHOWN).map(|(from, to)| {
            if from == to { from.to_string() } else { format!("{from} to {to}") }
        });
    let more = lane.missing_queued.len().saturating_sub(RANGES_SHOWN);
    let more = if more > 0 { format!(", and {more} more ranges (--json)") } else { String::new() };
    let shown = shown.collect::<Vec<_>>().join(", ");
    show::problem(&format!("  missing: seq {shown}{more}"));
}
