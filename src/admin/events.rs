//! The event debugger: every record that is queued, and those that are kept, with what became of them. It reads the log
//! itself: no second copy is written. The event that a record was made of lies beside it in the log, where that is asked for.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::protocol::{EventFound, EventQuery, EventsFound, PushFound};
use super::service::Service;
use crate::clock::UnixMillis;
use crate::forward::batch::RECORDS_MAX;
use crate::forward::verdict::record_id;
use crate::spool::{Delivery, End, Entry, LaneId, ReadError, Seq, Spool};

const LIMIT: usize = 50;
const LIMIT_MAX: usize = 1000;
/// Bytes of the records and events in one answer.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Records of a lane that are looked at, unless all are asked for.
const SEARCHED_MAX: u64 = 100_000;
/// Records that are read at once, each of which may have the largest size.
const PAGE: u64 = 100;

/// One lane that is looked through.
struct Lane {
    id: LaneId,
    integration: String,
    cursor: u64,
    newest: u64,
}

/// Finds what `query` asks for.
///
/// # Errors
/// See [`ReadError`].
pub(super) async fn find(service: &Service, query: &EventQuery) -> Result<EventsFound, ReadError> {
    let spool = service.spool();
    let lanes = spool.lanes().into_iter().filter_map(|(id, integration, _)| {
        let asked = query.integration.as_ref().is_none_or(|name| *name == integration);
        let (cursor, newest) = (spool.cursor(id).0, *spool.newest(id).borrow());
        asked.then_some(Lane { id, integration, cursor, newest })
    });
    let limit = query.limit.unwrap_or(LIMIT).min(LIMIT_MAX);
    let mut found = EventsFound { events: Vec::new(), more: false, ended: BTreeMap::new() };
    for lane in lanes {
        if let Some(after) = &query.after {
            ended_since(spool, &lane, after, query, limit, &mut found).await?;
        } else {
            newest(spool, &lane, query, limit, &mut found).await?;
            found.keep_newest(limit);
        }
    }
    found.events.sort_by_key(order);
    Ok(found)
}

/// The record `seq` of a lane, if it is queued or kept.
///
/// # Errors
/// See [`ReadError`].
pub(super) async fn one(
    service: &Service,
    id: LaneId,
    seq: u64,
) -> Result<Option<EventFound>, ReadError> {
    let spool = service.spool();
    let Some((_, integration, _)) = spool.lanes().into_iter().find(|(known, ..)| *known == id)
    else {
        return Ok(None);
    };
    let (cursor, newest) = (spool.cursor(id).0, *spool.newest(id).borrow());
    if seq < spool.oldest(id).0 || seq > newest {
        return Ok(None);
    }
    let lane = Lane { id, integration, cursor, newest };
    let found = page(spool, &lane, seq, seq + 1).await?;
    // What was settled may have been removed since: then the oldest that is kept comes in its place.
    Ok(found.into_iter().find(|event| event.seq == seq))
}

/// From the oldest to the newest.
fn order(event: &EventFound) -> (UnixMillis, u32, u64) {
    (event.committed_at, event.lane, event.seq)
}

impl EventsFound {
    /// Keeps what fits into an answer.
    fn keep_newest(&mut self, limit: usize) {
        self.events.sort_by_key(order);
        let mut bytes = 0;
        let kept = self.events.iter().rev().take(limit).take_while(|event| {
            bytes += event.bytes();
            bytes <= ANSWER_BYTES_MAX
        });
        let over = self.events.len() - kept.count();
        self.more |= over > 0;
        self.events.drain(..over);
    }

    fn bytes(&self) -> usize {
        self.events.iter().map(EventFound::bytes).sum()
    }
}

/// The newest of a lane, at most `limit`.
async fn newest(
    spool: &Spool,
    lane: &Lane,
    query: &EventQuery,
    limit: usize,
    found: &mut EventsFound,
) -> Result<(), ReadError> {
    found.ended.insert(lane.id.0, lane.cursor - 1);
    let (mut end, mut left, mut bytes) = (lane.newest + 1, limit, 0);
    let lowest = if query.all { 0 } else { lane.newest.saturating_sub(SEARCHED_MAX) };
    loop {
        // What is settled may be removed while this goes on.
        let oldest = spool.oldest(lane.id).0.max(lowest + 1);
        if end <= oldest {
            found.more |= spool.oldest(lane.id).0 < oldest;
            return Ok(());
        }
        if left == 0 || bytes > ANSWER_BYTES_MAX {
            found.more = true;
            return Ok(());
        }
        let from = end.saturating_sub(PAGE).max(oldest);
        let page = page(spool, lane, from, end).await?;
        for event in page.into_iter().rev().filter(|event| fits(event, query)) {
            if left == 0 {
                found.more = true;
                return Ok(());
            }
            left -= 1;
            bytes += event.bytes();
            found.events.push(event);
        }
        end = from;
    }
}

/// What has ended since `after`, in order, at most `limit` of a lane.
async fn ended_since(
    spool: &Spool,
    lane: &Lane,
    after: &BTreeMap<u32, u64>,
    query: &EventQuery,
    limit: usize,
    found: &mut EventsFound,
) -> Result<(), ReadError> {
    let told = after.get(&lane.id.0).copied().unwrap_or(lane.cursor - 1);
    let from = (told + 1).max(spool.oldest(lane.id).0);
    let end = lane.cursor.min(from + PAGE);
    let mut last = told.max(from - 1);
    // Lanes that find the answer full are told of in the next one.
    if from < end && found.bytes() < ANSWER_BYTES_MAX {
        let page = page(spool, lane, from, end).await?;
        let mut taken = 0;
        for event in page {
            let is_asked = fits(&event, query);
            if is_asked && taken == limit {
                break;
            }
            last = event.seq;
            if is_asked {
                taken += 1;
                found.events.push(event);
            }
        }
    }
    found.more |= last + 1 < lane.cursor;
    found.ended.insert(lane.id.0, last);
    Ok(())
}

/// The records `from..end` of a lane with what became of them.
async fn page(
    spool: &Spool,
    lane: &Lane,
    from: u64,
    end: u64,
) -> Result<Vec<EventFound>, ReadError> {
    let records = usize::try_from(end - from).unwrap_or_default();
    let entries = spool.peek_kept(lane.id, Seq(from), records, usize::MAX).await?;
    let entries: Vec<Entry> = entries.into_iter().filter(|entry| entry.seq.0 < end).collect();
    let erased = spool.erased(lane.id, &entries).await?;
    // A push may have begun so far before.
    let first = Seq(from.saturating_sub(RECORDS_MAX as u64));
    let deliveries = spool.deliveries(lane.id, first, records + RECORDS_MAX).await?;
    let known = entries.iter().map(|entry| {
        let known = known(lane, entry, &deliveries);
        if erased.contains(&entry.seq) { known.emptied() } else { known }
    });
    Ok(known.collect())
}

/// What is known of one record.
fn known(lane: &Lane, entry: &Entry, deliveries: &[Delivery]) -> EventFound {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Fields {
        id: Value,
        event_type: Value,
        identity_email: Value,
        email: Value,
    }
    let seq = entry.seq.0;
    let ended = seq < lane.cursor;
    let mut ends = deliveries.iter().filter_map(|push| Some((push, push.end_of(entry.seq)?)));
    let (push, end) = ends.next().filter(|_| ended).unzip();
    let state = end.map_or(if ended { "settled" } else { "queued" }, End::as_str);
    // A number in it may be larger than any that Rust knows: then nothing of it is read.
    let fields: Fields = serde_json::from_slice(&entry.record).unwrap_or_default();
    EventFound {
        integration: lane.integration.clone(),
        lane: lane.id.0,
        seq,
        state: state.to_owned(),
        committed_at: entry.committed_at,
        record_type: entry.record_type.to_string(),
        id: record_id(&fields.id),
        event_type: record_id(&fields.event_type),
        email: record_id(&fields.identity_email).or_else(|| record_id(&fields.email)),
        push: push.map(|push| PushFound {
            first: push.first.0,
            records: push.records,
            status: push.status,
            attempt: push.attempt,
            sent_at: push.sent_at,
            answered_at: push.answered_at,
            answer: push.answer.clone(),
            request_id: request_id(&push.answer),
        }),
        record: json(&entry.record),
        event: entry.event.as_deref().map(json),
    }
}

/// What is stored, as it stands.
fn json(bytes: &[u8]) -> Box<RawValue> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    RawValue::from_string(text).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

impl EventFound {
    /// Without anything of its person, who was erased since.
    fn emptied(self) -> EventFound {
        let record = RawValue::NULL.to_owned();
        let (id, event_type, email, push, event) = (None, None, None, None, None);
        EventFound { id, event_type, email, push, record, event, ..self }
    }

    fn bytes(&self) -> usize {
        self.record.get().len() + self.event.as_ref().map_or(0, |event| event.get().len())
    }
}

fn request_id(answer: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Answer {
        request_id: Value,
    }
    record_id(&serde_json::from_str::<Answer>(answer).ok()?.request_id)
}

/// Whether a record is asked for.
fn fits(event: &EventFound, query: &EventQuery) -> bool {
    let is = |wanted: &Option<String>, found: Option<&str>| {
        wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
    };
    let email = query.email.as_ref().map(|email| email.trim().to_lowercase());
    let found_email = event.email.as_ref().map(|email| email.trim().to_lowercase());
    let record_type = Some(event.record_type.as_str());
    is(&query.id, event.id.as_deref())
        && is(&email, found_email.as_deref())
        && is(&query.state, Some(&event.state))
        && query.since.is_none_or(|since| event.committed_at >= since)
        && query.until.is_none_or(|until| event.committed_at < until)
        && (is(&query.r#type, event.event_type.as_deref()) || is(&query.r#type, record_type))
}
