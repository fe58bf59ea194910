//! PURE. What daemon and commands say to each other.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

pub use super::filter::QuarantineFilter;
use super::integration::protocol::DraftFault;
use crate::clock::UnixMillis;
use crate::forward::{Report, poll};
use crate::ingest::Counts;
use crate::spool::{LaneId, LaneStats, Origin, QuarantineId};

/// The daemon as a whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// When it started.
    pub started_at: UnixMillis,
    /// The daemon's clock when it answered.
    pub now: UnixMillis,
    /// Why producers are refused; `None` while they are served.
    pub refusing: Option<String>,
    /// Entries in the quarantine.
    pub quarantined: u64,
    /// Bytes that the spool's file system has free.
    #[serde(default)]
    pub disk_free: Option<u64>,
    /// What was erased stays on the disk: the log's next segment cannot be begun, most of all on a full disk.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub erasure_waits: bool,
    /// What came in since the start.
    pub ingest: Counts,
    /// Every integration that has a lane.
    pub integrations: Vec<IntegrationStatus>,
    /// Stored integrations that are not in force, and why; a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_aside: Vec<String>,
}

/// One integration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IntegrationStatus {
    /// Its name.
    pub name: String,
    /// Where it is delivered; `None` when it is no longer configured and only keeps its queue.
    pub endpoint: Option<String>,
    /// What is in its lanes, and how the rest of it ended: their sums, and the age of the oldest record.
    pub lane: LaneStats,
    /// What its forwarder does; of several, the one in most trouble.
    pub report: Report,
    /// What was rejected after its 202, where that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<poll::Report>,
    /// Each of its lanes, where it has several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lanes: Vec<LaneStatus>,
}

impl IntegrationStatus {
    /// An integration of these lanes.
    pub(super) fn new(name: String, endpoint: Option<String>, mut lanes: Vec<LaneStatus>) -> Self {
        let stats = lanes.iter().map(|lane| lane.lane);
        let lane = stats.reduce(LaneStats::plus).unwrap_or_default();
        let reports = lanes.iter().map(|lane| lane.report.clone());
        let report = reports.reduce(Report::beside).unwrap_or_default();
        if lanes.len() == 1 {
            lanes.clear();
        }
        IntegrationStatus { name, endpoint, lane, report, ledger: None, lanes }
    }
}

/// One lane of an integration that has several.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LaneStatus {
    /// Its id.
    pub id: LaneId,
    /// What is in it, and how the rest of it ended.
    pub lane: LaneStats,
    /// What its forwarder does.
    pub report: Report,
}

/// What a reload came to: the names of the integrations that it touched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// New ones, delivered from now on.
    pub added: Vec<String>,
    /// Those that have other settings now.
    pub changed: Vec<String>,
    /// Those that are no longer configured: they keep their queue, and nobody delivers it.
    pub removed: Vec<String>,
    /// Sections that have changed and are read only at the start.
    pub needs_restart: Vec<String>,
    /// Stored integrations that are not in force, and why; a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_aside: Vec<String>,
}

/// What became of the queue of an integration that is no longer configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Records that left the queue, counted as erased.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Which records the event debugger is asked for. What is not given does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventQuery {
    /// Of this integration.
    pub integration: Option<String>,
    /// With this id.
    pub id: Option<String>,
    /// About this e-mail address, without regard to case.
    pub email: Option<String>,
    /// With this `event_type` or `@type`.
    pub r#type: Option<String>,
    /// In this state: `queued`, `delivered`, `quarantined`, `withheld` or `erased`.
    pub state: Option<String>,
    /// Committed at this time or later.
    pub since: Option<UnixMillis>,
    /// Committed before this time.
    pub until: Option<UnixMillis>,
    /// At most so many, the newest; 50 unless told, 1,000 at most.
    pub limit: Option<usize>,
    /// Look at everything that is kept, instead of the newest 100,000 records of each lane.
    pub all: bool,
    /// Instead of the newest: those that have ended since an earlier answer, whose `ended` this is. `{}` finds none and
    /// begins.
    pub after: Option<BTreeMap<u32, u64>>,
}

/// What the event debugger has found, oldest first.
#[derive(Debug, Serialize, Deserialize)]
pub struct EventsFound {
    /// The records.
    pub events: Vec<EventFound>,
    /// Whether there are, or may be, others.
    pub more: bool,
    /// By lane, the seq up to which the records that have ended are told of.
    pub ended: BTreeMap<u32, u64>,
}

/// A record as the event debugger knows it.
#[derive(Debug, Serialize, Deserialize)]
pub struct EventFound {
    /// The integration.
    pub integration: String,
    /// The lane's id.
    pub lane: u32,
    /// The record's place in it.
    pub seq: u64,
    /// `queued`, `delivered`, `quarantined`, `withheld` or `erased`; `settled` when how is not known any more.
    pub state: String,
    /// When it was committed.
    pub committed_at: UnixMillis,
    /// Its `@type`.
    pub record_type: String,
    /// Its `id`, as far as it can be read.
    pub id: Option<String>,
    /// Its `event_type`.
    pub event_type: Option<String>,
    /// The person's address.
    pub email: Option<String>,
    /// The push that settled it.
    pub push: Option<PushFound>,
    /// What is or was pushed, byte for byte.
    pub record: Box<RawValue>,
    /// The event that it was made of, as it came in, where that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Box<RawValue>>,
}

/// A push that settled records.
#[derive(Debug, Serialize, Deserialize)]
pub struct PushFound {
    /// The first seq that it settled.
    pub first: u64,
    /// How many it settled.
    pub records: u64,
    /// The answer's status; 0 when nothing was pushed.
    pub status: u16,
    /// Which attempt was answered.
    pub attempt: u32,
    /// When it began.
    pub sent_at: UnixMillis,
    /// When the answer had arrived.
    pub answered_at: UnixMillis,
    /// The answer's body.
    pub answer: String,
    /// The `request_id` in it: what Ometria's support asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// Who is to be erased.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Who {
    /// By e-mail address, without regard to case.
    Email(String),
    /// By `userId`.
    User(String),
}

/// A retry of one entry with another body.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EditedBody {
    /// The record or event, in the place of the one that was set aside.
    pub body: Box<RawValue>,
}

/// Which page of the quarantine is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuarantineQuery {
    /// The first id.
    pub from: u64,
    /// At most so many; 100 unless told, and no more.
    pub limit: Option<usize>,
    /// With their bodies.
    pub bodies: bool,
    /// Only these.
    pub filter: QuarantineFilter,
}

/// What an import came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// Entries that are in the quarantine now.
    pub imported: u64,
    /// Lines that are no entries, or none for this host.
    pub refused: Vec<RefusedLine>,
}

/// A line that was not taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedLine {
    /// Which, from 1.
    pub line: usize,
    /// Why.
    pub message: String,
}

/// The receipt of an erasure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    /// Stored identities that were removed.
    pub identities: u64,
    /// Entries of the quarantine that were removed.
    pub quarantined: u64,
    /// Queued records that will not be sent: counted as erased when their turn comes.
    pub queued: u64,
}

/// An entry of the quarantine.
#[derive(Debug, Serialize, Deserialize)]
pub struct QuarantineEntry {
    /// Its number.
    pub id: QuarantineId,
    /// A short code.
    pub reason: String,
    /// What the answer or the parser said.
    pub detail: String,
    /// The answer's status.
    pub status: Option<u16>,
    /// Where it came from.
    pub origin: Origin,
    /// When it was set aside for the first time.
    #[serde(default)]
    pub first_at: UnixMillis,
    /// When it was set aside the last time: later where it was retried since.
    pub at: UnixMillis,
    /// Bytes of its body.
    pub bytes: usize,
    /// The `id` of the record or `messageId` of the event, as far as it can be read.
    pub record_id: Option<String>,
    /// The record's `event_type`, or the event's name or type, as far as it can be read.
    pub event_type: Option<String>,
    /// The record or event, byte for byte (as a JSON string where it is no JSON); only when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Box<RawValue>>,
}

/// Which entries: `{"ids":[…]}`, `{"all":true}` or `{"filter":{…}}`, and nothing else: `{"all":false}` or an empty filter
/// must not mean all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "SelectionBody", into = "SelectionBody")]
pub enum Selection {
    /// These.
    Ids(Vec<QuarantineId>),
    /// Every one that is there when the request arrives.
    All,
    /// Of these the ones that fit.
    Filter(QuarantineFilter),
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SelectionBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ids: Option<Vec<QuarantineId>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    all: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    filter: Option<QuarantineFilter>,
}

impl TryFrom<SelectionBody> for Selection {
    type Error = &'static str;

    fn try_from(body: SelectionBody) -> Result<Selection, &'static str> {
        match body {
            SelectionBody { ids: Some(ids), all: None, filter: None } => Ok(Selection::Ids(ids)),
            SelectionBody { ids: None, all: Some(true), filter: None } => Ok(Selection::All),
            SelectionBody { ids: None, all: None, filter: Some(filter) } if !filter.is_empty() => {
                Ok(Selection::Filter(filter))
            }
            _ => Err(
                "one of ids, all and filter must be given; all must be true, and a filter must say something",
            ),
        }
    }
}

impl From<Selection> for SelectionBody {
    fn from(selection: Selection) -> SelectionBody {
        match selection {
            Selection::Ids(ids) => SelectionBody { ids: Some(ids), ..SelectionBody::default() },
            Selection::All => SelectionBody { all: Some(true), ..SelectionBody::default() },
            Selection::Filter(filter) => {
                SelectionBody { filter: Some(filter), ..SelectionBody::default() }
            }
        }
    }
}

/// What a retry or a drop came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// Entries that left the quarantine.
    pub released: u64,
    /// Entries that were asked for by their number and do not exist, or no longer.
    pub gone: Vec<QuarantineId>,
    /// Entries that stayed, with the reason; the first [`KEPT_MAX`].
    pub kept: Vec<Kept>,
    /// Entries that stayed and are not in `kept`.
    pub kept_more: u64,
    /// Why the rest was not tried: the spool takes nothing any more.
    pub stopped: Option<String>,
}

/// Entries that are told one by one when they stay.
pub const KEPT_MAX: usize = 100;

/// An entry that stayed in the quarantine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its number.
    pub id: QuarantineId,
    /// Why.
    pub message: String,
}

/// How the web console is entered.
#[derive(Clone, Serialize, Deserialize)]
pub struct ConsoleFound {
    /// Its address, with the token behind `#`: who has it may do everything that an operator may.
    pub url: String,
}

/// The body of every answer that is no 200.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// A short code.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// Of a draft of an integration: each fault with its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<DraftFault>,
}

impl Problem {
    /// A problem without faults.
    #[must_use]
    pub fn new(code: &str, message: String) -> Problem {
        Problem { code: code.to_owned(), message, faults: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::State;

    #[test]
    fn lanes_are_summed_and_the_worst_report_is_told() {
        let lane = |id, oldest: Option<u64>, state, cause: &str| LaneStatus {
            id: LaneId(id),
            lane: LaneStats {
                newest: 10,
                cursor: 8,
                queued_records: 3,
                queued_bytes: 30,
                oldest_at: oldest.map(UnixMillis),
                delivered: 4,
                quarantined: 1,
                withheld: 1,
                erased: 1,
                held: 3,
            },
            report: Report { state, cause: cause.into(), pushes: 2, ..Report::default() },
        };
        let one = lane(1, Some(7), State::Idle, "");
        let alone = IntegrationStatus::new("uk".into(), None, vec![one.clone()]);
        assert_eq!((alone.lane, &alone.report, alone.lanes.len()), (one.lane, &one.report, 0));
        let held = lane(2, Some(5), State::Held, "404");
        let waits = lane(3, None, State::Idle, "waits");
        let all = IntegrationStatus::new("uk".into(), None, vec![one, held, waits]);
        let sum = &all.lane;
        assert_eq!((sum.newest, sum.cursor, sum.queued_records, sum.held), (30, 22, 9, 9));
        assert_eq!((sum.oldest_at, sum.queued_bytes), (Some(UnixMillis(5)), 90));
        assert!(sum.is_conserved());
        assert_eq!(
            (all.report.state, &*all.report.cause, all.report.pushes),
            (State::Held, "404", 6)
        );
        assert_eq!(all.lanes.len(), 3);
    }

    #[test]
    fn a_selection_never_means_more_than_it_says() {
        let read = |text: &str| serde_json::from_str::<Selection>(text).ok();
        for (text, selection) in [
            (r#"{"all":true}"#, Some(Selection::All)),
            (r#"{"ids":[1,7]}"#, Some(Selection::Ids(vec![QuarantineId(1), QuarantineId(7)]))),
            (r#"{"ids":[]}"#, Some(Selection::Ids(vec![]))),
            (
                r#"{"filter":{"reason":"rejected"}}"#,
                Some(Selection::Filter(QuarantineFilter {
                    reason: Some("rejected".into()),
                    ..QuarantineFilter::default()
                })),
            ),
            (r#"{"filter":{}}"#, None),
            (r#"{"filter":{"reson":"x"}}"#, None),
            (r#"{"filter":{"reason":"x"},"all":true}"#, None),
            (r#"{"all":false}"#, None),
            (r#"{"all":true,"ids":[1]}"#, None),
            (r#"{"al":true}"#, None),
            ("{}", None),
            ("[1]", None),
            (r#"{"ids":[-1]}"#, None),
        ] {
            assert_eq!(read(text), selection, "{text}");
            if let Some(selection) = selection {
                assert_eq!(serde_json::to_string(&selection).unwrap(), text);
            }
        }
    }
}
