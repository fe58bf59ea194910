//! The event debugger: what became of each record, live.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use askama::Template;

use super::answer::{self, Answer};
use super::form::{Form, encoded};
use super::json::{self, Piece};
use super::live::{self, Seen};
use super::server::{self, Asked, Refused};
use super::shell::Shell;
use super::words::{self, Moment, Tone};
use super::{Console, locked};
use crate::admin::Service;
use crate::admin::protocol::{EventFound, EventQuery, EventsFound, PushFound, Status};
use crate::clock::{self, UnixMillis};
use crate::event::Timestamp;
use crate::readable::{self, number};
use crate::spool::LaneId;

/// Records on a page.
const ROWS: usize = 50;
const ROWS_MAX: usize = 500;
/// What may be chosen as their state.
const STATES: [&str; 5] = ["queued", "delivered", "quarantined", "withheld", "erased"];
/// How far back, as it is chosen.
const WITHIN: [(&str, &str, u64); 4] = [
    ("5m", "Last 5 minutes", 5 * 60),
    ("1h", "Last hour", 3600),
    ("4h", "Last 4 hours", 4 * 3600),
    ("1d", "Last day", 24 * 3600),
];

#[derive(Template)]
#[template(path = "events.html", config = "src/admin/console/askama.toml")]
struct Page {
    shell: Shell,
    filter: Filter,
    integrations: Vec<String>,
    states: [&'static str; 5],
    withins: [(&'static str, &'static str, u64); 4],
    live: Listing,
}

#[derive(Template)]
#[template(path = "events_live.html", config = "src/admin/console/askama.toml")]
struct Live {
    live: Listing,
}

#[derive(Template)]
#[template(path = "event.html", config = "src/admin/console/askama.toml")]
struct Detail {
    shell: Shell,
    event: One,
}

/// What the page is asked to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Filter {
    integration: String,
    id: String,
    email: String,
    kind: String,
    state: String,
    within: String,
    from: String,
    until: String,
    limit: usize,
}

impl Filter {
    fn read(form: &Form) -> Filter {
        let text = |name: &str| form.text(name).unwrap_or_default().to_owned();
        let limit = form.text("limit").and_then(|limit| limit.parse().ok());
        Filter {
            integration: text("integration"),
            id: text("id"),
            email: text("email"),
            kind: text("type"),
            state: text("state"),
            within: text("within"),
            from: text("from"),
            until: text("until"),
            limit: limit.unwrap_or(ROWS).clamp(1, ROWS_MAX),
        }
    }

    fn query(&self, now: UnixMillis) -> EventQuery {
        let given = |text: &String| (!text.is_empty()).then(|| text.clone());
        let within = WITHIN.iter().find(|(code, ..)| *code == self.within);
        let back = within.map(|(.., seconds)| UnixMillis(now.0.saturating_sub(seconds * 1000)));
        EventQuery {
            integration: given(&self.integration),
            id: given(&self.id),
            email: given(&self.email),
            r#type: given(&self.kind),
            state: given(&self.state),
            limit: Some(self.limit),
            since: moment(&self.from).max(back),
            // The second that is named belongs to it.
            until: moment(&self.until).map(|at| at.after(Duration::from_secs(1))),
            ..EventQuery::default()
        }
    }

    /// As a link carries it; empty when nothing is asked for.
    fn link(&self) -> String {
        let limit = if self.limit == ROWS { String::new() } else { self.limit.to_string() };
        let fields = [
            ("integration", &self.integration),
            ("id", &self.id),
            ("email", &self.email),
            ("type", &self.kind),
            ("state", &self.state),
            ("within", &self.within),
            ("from", &self.from),
            ("until", &self.until),
            ("limit", &limit),
        ];
        let given = fields.iter().filter(|(_, value)| !value.is_empty());
        given
            .map(|(name, value)| format!("{name}={}", encoded(value)))
            .collect::<Vec<_>>()
            .join("&")
    }

    /// Whether something is asked for that is not on the first row of the form.
    fn is_fine(&self) -> bool {
        !(self.from.is_empty() && self.until.is_empty() && self.kind.is_empty())
    }

    fn is_empty(&self) -> bool {
        self.link().is_empty()
    }
}

/// A time as it is typed, in UTC.
fn moment(text: &str) -> Option<UnixMillis> {
    let seconds = Timestamp::parse(text)?.seconds();
    Some(UnixMillis(u64::try_from(seconds).ok()? * 1000))
}

/// The table, newest first.
#[derive(Clone, Debug)]
struct Listing {
    rows: Vec<Row>,
    more: bool,
    wider: String,
    is_filtered: bool,
}

#[derive(Clone, Debug)]
struct Row {
    lane: u32,
    seq: u64,
    at: Moment,
    integration: String,
    what: String,
    id: String,
    email: String,
    state: String,
    tone: Tone,
    answer: String,
}

impl Listing {
    fn new(found: &EventsFound, filter: &Filter, now: UnixMillis) -> Listing {
        let wider = Filter { limit: ROWS_MAX, ..filter.clone() }.link();
        let rows = found.events.iter().rev().map(|event| Row {
            lane: event.lane,
            seq: event.seq,
            at: Moment::new(event.committed_at, now),
            integration: event.integration.clone(),
            what: event.event_type.clone().unwrap_or_else(|| event.record_type.clone()),
            id: event.id.clone().unwrap_or_default(),
            email: event.email.clone().unwrap_or_default(),
            state: event.state.clone(),
            tone: words::record_state(&event.state).1,
            answer: event.push.as_ref().map_or_else(String::new, |push| match push.status {
                0 => "not sent".to_owned(),
                status if push.attempt > 1 => format!("{status}, attempt {}", push.attempt),
                status => status.to_string(),
            }),
        });
        let (rows, is_filtered) = (rows.collect(), !filter.is_empty());
        Listing { rows, more: found.more, wider, is_filtered }
    }
}

/// Everything that is known of one record.
struct One {
    title: String,
    state: String,
    tone: Tone,
    meaning: &'static str,
    facts: Vec<(&'static str, String)>,
    committed: Moment,
    /// Why it still waits, where something is wrong.
    waits: Option<String>,
    push: Option<Push>,
    notes: Vec<String>,
    integration: String,
    email: String,
    record: String,
    /// The event before the mapping; empty where it is not kept.
    before: String,
}

struct Push {
    status: u16,
    attempt: u32,
    what: String,
    sent: Moment,
    took: String,
    request_id: String,
    answer: String,
}

impl One {
    fn new(event: &EventFound, status: &Status) -> One {
        let (meaning, tone) = words::record_state(&event.state);
        let id = event.id.clone().unwrap_or_default();
        let email = event.email.clone().unwrap_or_default();
        let known = status.integrations.iter().find(|known| known.name == event.integration);
        let trouble = known.filter(|_| event.state == "queued").and_then(words::trouble);
        let waits = trouble.map(|trouble| match trouble.cause.trim_end_matches('.') {
            "" => format!("{}.", trouble.title),
            cause => format!("{}. {cause}.", trouble.title),
        });
        let facts = vec![
            ("Integration", event.integration.clone()),
            ("Event type", event.event_type.clone().unwrap_or_default()),
            ("Record type", event.record_type.clone()),
            ("Record id", id),
            ("Person", if email.is_empty() { "unknown".to_owned() } else { email.clone() }),
            ("Place", format!("lane {}, seq {}", event.lane, number(event.seq))),
        ];
        One {
            title: event.event_type.clone().unwrap_or_else(|| event.record_type.clone()),
            state: event.state.clone(),
            tone,
            meaning,
            facts: facts.into_iter().filter(|(_, value)| !value.is_empty()).collect(),
            committed: Moment::new(event.committed_at, status.now),
            waits,
            push: event
                .push
                .as_ref()
                .filter(|push| push.status > 0)
                .map(|push| Push::new(push, status.now)),
            notes: notes(event),
            integration: event.integration.clone(),
            email,
            record: readable::pretty(event.record.get()),
            before: event.event.as_ref().map_or(String::new(), |it| readable::pretty(it.get())),
        }
    }

    /// The person's address as a link carries it.
    fn email_link(&self) -> String {
        encoded(&self.email)
    }

    /// The record in coloured pieces.
    fn pieces(&self) -> Vec<Piece<'_>> {
        json::pieces(&self.record)
    }

    /// The event before the mapping, likewise.
    fn pieces_before(&self) -> Vec<Piece<'_>> {
        json::pieces(&self.before)
    }
}

/// What should be known of a record although nothing went wrong with it.
fn notes(event: &EventFound) -> Vec<String> {
    let mut notes = Vec::new();
    let delivered = event.state == "delivered";
    if event.email.is_none() {
        notes.push("Nobody's address is in it: Ometria cannot link it to a customer. Call identify with the email before track.".to_owned());
    }
    if delivered && event.record_type == "custom_event" {
        let kind = event.event_type.as_deref().unwrap_or_default();
        notes.push(format!(
            "Not at the contact in Ometria? Its event type {kind:?} must exist there: Settings > Custom events."
        ));
    }
    let happened = serde_json::from_str::<Happened>(event.record.get()).ok();
    let happened = happened.and_then(|it| Timestamp::parse(&it.timestamp));
    let answered = event.push.as_ref().map(|push| Timestamp::from_clock(push.answered_at));
    if let (true, Some(happened), Some(answered)) = (delivered, happened, answered)
        && answered.seconds() - happened.seconds() > AUTOMATION_SECONDS_MAX
    {
        notes.push(
            "It was more than four hours old when it arrived: it starts no automation.".to_owned(),
        );
    }
    notes
}

/// Seconds after which an event starts no automation at Ometria (read 2026-06).
const AUTOMATION_SECONDS_MAX: i64 = 4 * 3600;

#[derive(serde::Deserialize)]
struct Happened {
    timestamp: String,
}

impl Push {
    fn new(push: &PushFound, now: UnixMillis) -> Push {
        let last = push.first + push.records.saturating_sub(1);
        Push {
            status: push.status,
            attempt: push.attempt,
            what: format!(
                "{} records, seq {} to {}",
                number(push.records),
                number(push.first),
                number(last)
            ),
            sent: Moment::new(push.sent_at, now),
            took: format!("{} ms", number(push.answered_at.0.saturating_sub(push.sent_at.0))),
            request_id: push.request_id.clone().unwrap_or_default(),
            answer: readable::pretty(&push.answer),
        }
    }

    fn pieces(&self) -> Vec<Piece<'_>> {
        json::pieces(&self.answer)
    }
}

/// The pages below `/events`, and their stream.
pub(super) async fn answer(console: &Arc<Console>, asked: &Asked) -> Result<Answer, Refused> {
    let (path, _) = asked.wanted();
    match path.as_slice() {
        ["events"] => {
            let status = console.service.status().await?;
            let filter = Filter::read(&asked.query);
            let found = console.service.events(&filter.query(status.now)).await?;
            let live = Listing::new(&found, &filter, status.now);
            let integrations = status.integrations.iter().map(|known| known.name.clone()).collect();
            let shell = server::shell(console, "Events", "events", &status, asked);
            Ok(answer::page(&Page {
                shell,
                filter,
                integrations,
                states: STATES,
                withins: WITHIN,
                live,
            }))
        }
        ["live", "events"] => Ok(stream(console, Filter::read(&asked.query))),
        ["events", lane, seq] => {
            let gone = || {
                Refused::NotFound(
                    "This record is not kept any more (spool.keep_delivered), or never was.",
                )
            };
            let (lane, seq) = lane.parse().ok().zip(seq.parse().ok()).ok_or_else(gone)?;
            let event = console.service.event(LaneId(lane), seq).await?.ok_or_else(gone)?;
            let status = console.service.status().await?;
            let event = One::new(&event, &status);
            let shell = server::shell(console, &event.title, "events", &status, asked);
            Ok(answer::page(&Detail { shell, event }))
        }
        _ => Err(Refused::NotFound("There is no such page.")),
    }
}

/// The rows of `filter`, whenever something has come or gone.
fn stream(console: &Arc<Console>, filter: Filter) -> Answer {
    let watched = console.clone();
    let looked_at = Arc::new(Mutex::new(None));
    live::stream(console, move || {
        let (console, filter, looked_at) = (watched.clone(), filter.clone(), looked_at.clone());
        async move {
            let place = places(&console.service);
            // What is shown by its age alone changes without them.
            let is_still = filter.within.is_empty() && locked(&looked_at).as_ref() == Some(&place);
            if is_still {
                return Seen::default();
            }
            let now = clock::now();
            let Ok(found) = console.service.events(&filter.query(now)).await else {
                return Seen::default();
            };
            *locked(&looked_at) = Some(place);
            let part = Live { live: Listing::new(&found, &filter, now) }.render().ok();
            Seen { part, said: None }
        }
    })
}

/// How far each lane has come.
fn places(service: &Service) -> BTreeMap<u32, (u64, u64)> {
    let spool = service.spool();
    let lanes = spool.lanes().into_iter();
    lanes.map(|(lane, ..)| (lane.0, (*spool.newest(lane).borrow(), spool.cursor(lane).0))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    #[test]
    fn a_filter_is_read_and_written() {
        let form = Form::read(
            "integration=uk&email=+Jane@x+&type=&within=1h&limit=9000&until=2027-01-15T08:00",
        );
        let filter = Filter::read(&form);
        assert_eq!(
            filter.link(),
            "integration=uk&email=Jane%40x&within=1h&until=2027-01-15T08%3A00&limit=500"
        );
        assert!(filter.is_fine() && !filter.is_empty());
        let now = UnixMillis(1_800_000_000_000);
        let query = filter.query(now);
        assert_eq!((query.integration.as_deref(), query.r#type.as_deref()), (Some("uk"), None));
        assert_eq!(query.since, Some(UnixMillis(now.0 - 3_600_000)));
        assert_eq!(query.until, Some(UnixMillis(now.0 + 1000)));
        let both = Filter { from: "2027-01-15T07:30:00Z".into(), ..filter };
        assert_eq!(both.query(now).since, Some(UnixMillis(now.0 - 1_800_000)));
        let nothing = Filter::read(&Form::default());
        assert!(nothing.is_empty() && !nothing.is_fine());
        assert_eq!(nothing.query(now), EventQuery { limit: Some(ROWS), ..EventQuery::default() });
    }

    fn event(record: &str) -> EventFound {
        EventFound {
            integration: "uk".into(),
            lane: 1,
            seq: 2,
            state: "delivered".into(),
            committed_at: UnixMillis(1),
            record_type: "custom_event".into(),
            id: Some("<script>alert(1)</script>".into()),
            event_type: Some("\"><img src=x>".into()),
            email: None,
            push: None,
            record: RawValue::from_string(record.to_owned()).unwrap(),
            event: None,
        }
    }

    #[test]
    fn what_events_hold_is_escaped() {
        let found = EventsFound {
            events: vec![event(r#"{"a":"<script>alert(1)</script>"}"#)],
            more: false,
            ended: BTreeMap::new(),
        };
        let rows = Listing::new(&found, &Filter::default(), UnixMillis(2));
        let text = Live { live: rows }.render().unwrap();
        assert!(!text.contains("<script") && !text.contains("<img"), "{text}");
        assert!(text.contains("&#60;script&#62;alert(1)"), "{text}");
    }

    #[test]
    fn what_marketers_ask_is_answered() {
        let mut event = event(r#"{"timestamp":"1970-01-01T00:00:00Z"}"#);
        assert!(notes(&event).iter().any(|note| note.contains("Call identify")));
        assert!(notes(&event).iter().any(|note| note.contains("Settings > Custom events")));
        event.email = Some("e@x".into());
        event.push = Some(PushFound {
            first: 1,
            records: 2,
            status: 202,
            attempt: 1,
            sent_at: UnixMillis(5 * 3_600_000),
            answered_at: UnixMillis(5 * 3_600_000 + 20),
            request_id: Some("r-1".into()),
            answer: r#"{"status":"OK","request_id":"r-1"}"#.into(),
        });
        let told = notes(&event);
        assert!(told.len() == 2 && told[1].contains("four hours"), "{told:?}");
        let push = Push::new(event.push.as_ref().unwrap(), UnixMillis(0));
        assert_eq!((&*push.request_id, &*push.took), ("r-1", "20 ms"));
        assert_eq!(push.what, "2 records, seq 1 to 2");
    }
}
