//! What an operator asks for, answered from the spool, the forwarders' reports and the ingest counters.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::value::{RawValue, Value};
use tokio::sync::{Mutex, MutexGuard, mpsc, oneshot, watch};

use super::erase::EraseError;
use super::integration::protocol::Integrations;
use super::integration::{Ask, Drafts};
use super::protocol::{
    ConsoleFound, Dropped, Erased, EventFound, EventQuery, EventsFound, IntegrationStatus,
    LaneStatus, QuarantineEntry, QuarantineFilter, QuarantineQuery, Released, Reloaded, Selection,
    Status, Who,
};
use super::release::{Release, Whither};
use crate::clock::{self, UnixMillis};
use crate::forward::{self, Control, Meter, Report, SharedPace, State, poll};
use crate::ingest::{Counters, Intake};
use crate::mapping::Rules;
use crate::spool::{
    Append, AppendError, End, LaneId, Origin, QuarantineId, Quarantined, ReadError, Settlement,
    Spool,
};

/// Entries in a page, at most.
pub(super) const PAGE_ENTRIES: usize = 100;
/// A page that holds this many bytes of bodies is closed.
const PAGE_BYTES: usize = 4 << 20;
/// Entries read at once: an event in the quarantine may be as large as a request.
const READ_ENTRIES: usize = 8;

/// Records that a dropped queue loses in one step.
const DROP_RECORDS: usize = 1000;
const DROP_BYTES: usize = 4 << 20;

/// Why a queue was not dropped.
#[derive(Debug, thiserror::Error)]
pub enum DropError {
    /// It is delivered.
    #[error("it is configured: remove it from the configuration and reload first")]
    Configured,
    /// It never had a queue.
    #[error("no integration of this name has a queue: `pillarbox status` lists those that have")]
    Unknown,
    /// The spool could not be read.
    #[error("{0}; what was not removed until then is still queued: see `pillarbox status`")]
    Read(#[from] ReadError),
    /// The spool takes nothing.
    #[error("{0}; what was not removed until then is still queued: see `pillarbox status`")]
    Settle(#[from] AppendError),
}

/// An integration that is delivered.
#[derive(Debug)]
pub struct Delivered {
    /// Its name.
    pub name: String,
    /// What becomes of its events.
    pub rules: Rules,
    /// How it is delivered.
    pub settings: forward::Settings,
    /// Its lanes.
    pub lanes: Vec<Lane>,
    /// What is told of its ledger, where that is read.
    pub ledger: Option<watch::Receiver<poll::Report>>,
    /// What became of its pushes.
    pub meter: Arc<Meter>,
    /// How fast it may push.
    pub pace: SharedPace,
}

/// A lane that is delivered.
#[derive(Clone, Debug)]
pub struct Lane {
    /// Its id.
    pub id: LaneId,
    /// What its forwarder says.
    pub report: watch::Receiver<Report>,
    /// What is asked of it.
    pub control: watch::Sender<Control>,
}

/// What an operator may ask for.
#[derive(Debug)]
pub struct Service {
    spool: Spool,
    integrations: RwLock<Arc<[Delivered]>>,
    intake: Arc<Intake>,
    counters: Arc<Counters>,
    started_at: UnixMillis,
    pub(super) asks: mpsc::Sender<Ask>,
    pub(super) drafts: Drafts,
    pub(super) configured: RwLock<Arc<Integrations>>,
    /// Held by the one test delivery that is under way.
    pub(super) testing: Mutex<()>,
    /// Held by who changes who settles the records of a lane: two at once would be two orders.
    settlers: Mutex<()>,
    /// The console's address with its token, where there is a console.
    console: OnceLock<SecretString>,
}

impl Service {
    /// A service over the parts of a daemon, which takes `asks`.
    #[must_use]
    pub fn new(
        spool: Spool,
        intake: Arc<Intake>,
        counters: Arc<Counters>,
        started_at: UnixMillis,
        asks: mpsc::Sender<Ask>,
        drafts: Drafts,
    ) -> Service {
        Service {
            spool,
            integrations: RwLock::new(Vec::new().into()),
            intake,
            counters,
            started_at,
            asks,
            drafts,
            configured: RwLock::default(),
            testing: Mutex::new(()),
            settlers: Mutex::new(()),
            console: OnceLock::new(),
        }
    }

    /// To be held while forwarders come and go, until [`Service::deliver`] has told of them: no queue is dropped meanwhile.
    pub async fn settlers(&self) -> MutexGuard<'_, ()> {
        self.settlers.lock().await
    }

    /// Tells of other integrations from now on.
    pub fn deliver(&self, integrations: Vec<Delivered>) {
        *self.integrations.write().unwrap_or_else(PoisonError::into_inner) = integrations.into();
    }

    pub(super) fn integrations(&self) -> Arc<[Delivered]> {
        self.integrations.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has the daemon read its configuration again.
    ///
    /// # Errors
    /// Why nothing has changed, in words for the operator.
    pub async fn reload(&self) -> Result<Reloaded, String> {
        let (ask, answer) = oneshot::channel();
        let stopping = || "the daemon is stopping".to_owned();
        self.asks.send(Ask::Reload(ask)).await.map_err(|_| stopping())?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }

    /// The daemon as a whole.
    ///
    /// # Errors
    /// Never for a damaged lane: its report says so.
    pub async fn status(&self) -> Result<Status, ReadError> {
        let configured = self.integrations();
        let mut lanes: Vec<(String, Vec<LaneStatus>)> = Vec::new();
        for (id, name, _) in self.spool.lanes() {
            let delivered = configured.iter().find(|known| known.name == name);
            let forwarder =
                delivered.and_then(|known| known.lanes.iter().find(|lane| lane.id == id));
            let mut report =
                forwarder.map_or_else(Report::default, |known| known.report.borrow().clone());
            let lane = match self.spool.stats(id).await {
                Ok(stats) => stats,
                Err(error @ ReadError::Damaged { .. }) => {
                    (report.state, report.cause) = (State::Damaged, error.to_string());
                    self.spool.counts(id)
                }
                Err(error) => return Err(error),
            };
            let lane = LaneStatus { id, lane, report };
            match lanes.iter_mut().find(|(owner, _)| *owner == name) {
                Some((_, of_owner)) => of_owner.push(lane),
                None => lanes.push((name, vec![lane])),
            }
        }
        let integrations = lanes.into_iter().map(|(name, lanes)| {
            let delivered = configured.iter().find(|known| known.name == name);
            let endpoint = delivered.map(|known| known.settings.endpoint.to_string());
            let ledger = delivered.and_then(|known| known.ledger.as_ref());
            let ledger = ledger.map(|report| report.borrow().clone());
            IntegrationStatus { ledger, ..IntegrationStatus::new(name, endpoint, lanes) }
        });
        let integrations = integrations.collect();
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_at: self.started_at,
            now: clock::now(),
            refusing: self.intake.accepting().err().map(|refusal| refusal.message),
            quarantined: self.spool.quarantine_count(),
            disk_free: self.spool.disk_free(),
            erasure_waits: self.spool.erasure_waits(),
            ingest: self.counters.counts(),
            integrations,
            set_aside: self.set_aside(),
        })
    }

    /// A page of the quarantine, oldest first. Shorter than asked for when it holds many bytes; empty only at the end.
    ///
    /// # Errors
    /// When the quarantine cannot be read.
    pub async fn quarantine(
        &self,
        query: &QuarantineQuery,
    ) -> Result<Vec<QuarantineEntry>, ReadError> {
        let limit = query.limit.unwrap_or(PAGE_ENTRIES);
        let entries = self.page(QuarantineId(query.from), limit, &query.filter).await?;
        Ok(entries.into_iter().map(|(id, entry)| shown(id, entry, query.bodies)).collect())
    }

    /// One entry with its body.
    ///
    /// # Errors
    /// When the quarantine cannot be read.
    pub async fn quarantined(
        &self,
        id: QuarantineId,
    ) -> Result<Option<QuarantineEntry>, ReadError> {
        Ok(self.entry(id).await?.map(|entry| shown(id, entry, true)))
    }

    /// Takes entries in again: records go to the end of their lanes with their old ids, events through the mapping.
    ///
    /// # Errors
    /// When the quarantine cannot be read. What the spool refuses stays, and is listed.
    /// # Cancel safety
    /// Each entry is either queued or where it was.
    pub async fn retry(&self, selection: Selection) -> Result<Released, ReadError> {
        Release::run(self, selection, Whither::Queue).await
    }

    /// Removes entries for good.
    ///
    /// # Errors
    /// As [`Service::retry`].
    /// # Cancel safety
    /// Each entry is either removed or where it was.
    pub async fn drop_entries(&self, selection: Selection) -> Result<Released, ReadError> {
        Release::run(self, selection, Whither::Nowhere).await
    }

    // ── for the release ──

    /// Entries from `from` on that `filter` takes, until `limit` or [`PAGE_BYTES`] is reached.
    pub(super) async fn page(
        &self,
        from: QuarantineId,
        limit: usize,
        filter: &QuarantineFilter,
    ) -> Result<Vec<(QuarantineId, Quarantined)>, ReadError> {
        let limit = limit.min(PAGE_ENTRIES);
        let (mut page, mut bytes, mut from) = (Vec::new(), 0, from);
        while page.len() < limit && bytes < PAGE_BYTES {
            let mut some = self.spool.quarantine(from, READ_ENTRIES).await?;
            let Some((last, _)) = some.last() else { break };
            from = QuarantineId(last.0 + 1);
            some.retain(|(_, entry)| filter.takes(entry));
            some.truncate(limit - page.len());
            bytes += some.iter().map(|(_, entry)| entry.body.len()).sum::<usize>();
            page.extend(some);
        }
        Ok(page)
    }

    pub(super) async fn entry(&self, id: QuarantineId) -> Result<Option<Quarantined>, ReadError> {
        let found = self.spool.quarantine(id, 1).await?.into_iter().next();
        Ok(found.filter(|(known, _)| *known == id).map(|(_, entry)| entry))
    }

    pub(super) fn entries(&self) -> u64 {
        self.spool.quarantine_count()
    }

    /// Whether somebody delivers what is in `lane`.
    pub(super) fn delivers(&self, lane: LaneId) -> bool {
        self.integrations().iter().any(|known| known.lanes.iter().any(|known| known.id == lane))
    }

    /// Removes for good what is queued for an integration that is no longer configured, and counts it as erased.
    ///
    /// # Errors
    /// When `name` is configured, or has no queue, or the spool does not take it.
    /// # Cancel safety
    /// What was removed until then is removed.
    pub async fn drop_queue(&self, name: &str) -> Result<Dropped, DropError> {
        let _alone = self.settlers.lock().await;
        if self.integrations().iter().any(|known| known.name == name) {
            return Err(DropError::Configured);
        }
        let lanes = self.spool.lanes().into_iter().filter(|(_, owner, _)| owner == name);
        let lanes: Vec<LaneId> = lanes.map(|(lane, ..)| lane).collect();
        if lanes.is_empty() {
            return Err(DropError::Unknown);
        }
        let mut dropped = Dropped { records: 0, bytes: 0 };
        for lane in lanes {
            loop {
                let first = self.spool.cursor(lane);
                let entries = self.spool.peek_sound(lane, first, DROP_RECORDS, DROP_BYTES).await?;
                if entries.is_empty() {
                    break;
                }
                let records = entries.len() as u64;
                let bytes = entries.iter().map(|entry| entry.bytes() as u64).sum();
                let end = End::Erased;
                let (apart, copies, delivery) = (Vec::new(), Vec::new(), None);
                let settlement =
                    Settlement { lane, first, records, bytes, end, apart, copies, delivery };
                self.spool.settle(settlement).await?;
                dropped.records += records;
                dropped.bytes += bytes;
            }
        }
        Ok(dropped)
    }

    /// A console has been opened, which `url` enters. The first one counts.
    pub(super) fn entered_by(&self, url: SecretString) {
        self.console.get_or_init(|| url);
    }

    /// How the console is entered, where there is one.
    pub(super) fn console(&self) -> Option<ConsoleFound> {
        self.console.get().map(|url| ConsoleFound { url: url.expose_secret().to_owned() })
    }

    /// What is known of one record; `None` when it is neither queued nor kept.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn event(&self, lane: LaneId, seq: u64) -> Result<Option<EventFound>, ReadError> {
        super::events::one(self, lane, seq).await
    }

    /// What is known of records: queued ones, and those that are kept.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn events(&self, query: &EventQuery) -> Result<EventsFound, ReadError> {
        super::events::find(self, query).await
    }

    /// Removes a person: from the identities, the quarantine and the queue.
    ///
    /// # Errors
    /// In words for an operator; asking again does no harm.
    /// # Cancel safety
    /// What is not done yet is done when it is asked for again.
    pub async fn erase(&self, who: Who) -> Result<Erased, EraseError> {
        super::erase::run(self, who).await
    }

    pub(super) fn spool(&self) -> &Spool {
        &self.spool
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) fn intake(&self) -> &Intake {
        &self.intake
    }

    pub(super) async fn append(&self, append: Append) -> Result<(), AppendError> {
        self.spool.append(append).await.map(drop)
    }
}

fn shown(id: QuarantineId, entry: Quarantined, bodies: bool) -> QuarantineEntry {
    let bytes = entry.body.len();
    let named: Named = serde_json::from_slice(&entry.body).unwrap_or_default();
    let body = bodies.then(|| body_json(&entry.body));
    let is_record = matches!(entry.origin, Origin::Record { .. });
    let (record_id, event_type) = if is_record {
        (named.id, named.event_type)
    } else {
        (named.message_id, named.event.or(named.name).or(named.kind))
    };
    let (record_id, event_type) = (text(record_id), text(event_type));
    let Quarantined { origin, reason, detail, status, at, first_at, .. } = entry;
    QuarantineEntry {
        id,
        reason,
        detail,
        status,
        origin,
        first_at,
        at,
        bytes,
        record_id,
        event_type,
        body,
    }
}

/// What names a record or an event, whatever its members hold.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Named {
    id: Option<Value>,
    #[serde(rename = "event_type")]
    event_type: Option<Value>,
    message_id: Option<Value>,
    event: Option<Value>,
    name: Option<Value>,
    #[serde(rename = "type")]
    kind: Option<Value>,
}

fn text(value: Option<Value>) -> Option<String> {
    match value? {
        Value::String(text) if !text.is_empty() => Some(text),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// The body as it stands; what is no JSON as a JSON string.
fn body_json(body: &[u8]) -> Box<RawValue> {
    let text = String::from_utf8_lossy(body);
    match serde_json::from_str::<&RawValue>(&text) {
        // JSON has line breaks only between its tokens; one of them would break a line of NDJSON.
        Ok(raw) if raw.get().contains(['\n', '\r']) => {
            let line = raw.get().replace(['\n', '\r'], " ");
            RawValue::from_string(line).expect("a space may stand where a line break stood")
        }
        Ok(raw) => raw.to_owned(),
        Err(_) => serde_json::value::to_raw_value(&text).expect("text always encodes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::{PersonKeys, Seq};

    fn entry(origin: Origin, body: &str) -> QuarantineEntry {
        let (reason, detail, body) = ("rejected".into(), "why".into(), body.into());
        let (at, first_at, status) = (UnixMillis(2), UnixMillis(1), None);
        let entry = Quarantined { origin, reason, detail, status, at, body, first_at };
        shown(QuarantineId(1), entry, true)
    }

    #[test]
    fn a_body_is_shown_as_it_stands_on_one_line() {
        for (body, json) in [
            (
                r#"{"b":79.00,"a":12345678901234567890123}"#,
                r#"{"b":79.00,"a":12345678901234567890123}"#,
            ),
            ("{\n  \"a\":\r\n 1 }", r#"{   "a":   1 }"#),
            ("{\"a\":", r#""{\"a\":""#),
            ("", r#""""#),
        ] {
            assert_eq!(body_json(body.as_bytes()).get(), json);
        }
        assert_eq!(body_json(b"\xff").get(), "\"\u{fffd}\"");
    }

    #[test]
    fn what_names_an_entry_is_found_whatever_else_it_holds() {
        let record = || Origin::Record {
            lane: LaneId(1),
            integration: "uk".into(),
            seq: Seq(1),
            record_type: "custom_event".into(),
            person: PersonKeys::default(),
        };
        let event = || Origin::Event { kind: "track".into(), integration: None };
        for (origin, body, id, event_type) in [
            (record(), r#"{"id":"a","event_type":"page_view"}"#, Some("a"), Some("page_view")),
            (record(), r#"{"id":7,"event_type":{}}"#, Some("7"), None),
            (event(), r#"{"messageId":"m","type":"track","event":"Nap"}"#, Some("m"), Some("Nap")),
            (event(), r#"{"messageId":"","type":"page","id":"x"}"#, None, Some("page")),
            (event(), "[7]", None, None),
            (event(), "no json", None, None),
        ] {
            let shown = entry(origin, body);
            assert_eq!(
                (shown.record_id.as_deref(), shown.event_type.as_deref()),
                (id, event_type),
                "{body}"
            );
        }
    }
}
