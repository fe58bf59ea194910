//! What was set aside: why, and what becomes of it.

use std::sync::Arc;

use askama::Template;
use hyper::StatusCode;

use super::Console;
use super::answer::{self, Answer};
use super::form::{Form, encoded};
use super::json::{self, Piece};
use super::notices::Notice;
use super::server::{self, Asked, Refused, back};
use super::shell::Shell;
use super::words::{self, Moment, Tone};
use crate::admin::EntryError;
use crate::admin::protocol::{
    QuarantineEntry, QuarantineFilter, QuarantineQuery, Released, Selection,
};
use crate::clock::UnixMillis;
use crate::readable::{self, bytes, number};
use crate::spool::{Origin, QuarantineId};

/// Entries on a page.
const ROWS: usize = 50;
/// Entries of a release that stayed and are told one by one.
const TOLD_MAX: usize = 10;

#[derive(Template)]
#[template(path = "quarantine.html", config = "src/admin/console/askama.toml")]
struct Page {
    shell: Shell,
    rows: Vec<Row>,
    filter: Filter,
    integrations: Vec<String>,
    from: u64,
    next: Option<u64>,
}

#[derive(Template)]
#[template(path = "entry.html", config = "src/admin/console/askama.toml")]
struct Detail {
    shell: Shell,
    entry: One,
    /// What was typed in the place of its body, and why that was not taken.
    edited: Option<(String, String)>,
}

impl Detail {
    /// What stands in the field to be edited.
    fn text(&self) -> &str {
        self.edited.as_ref().map_or(&self.entry.body, |(text, _)| text)
    }
}

/// Asks before something is removed for good.
#[derive(Template)]
#[template(path = "drop.html", config = "src/admin/console/askama.toml")]
struct Drop {
    shell: Shell,
    ids: Vec<u64>,
    all: bool,
    /// Those that fit it, instead.
    filter: Option<Filter>,
    count: String,
}

/// Which entries are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Filter {
    integration: String,
    reason: String,
    kind: String,
    email: String,
}

impl Filter {
    fn read(form: &Form) -> Filter {
        let text = |name: &str| form.text(name).unwrap_or_default().to_owned();
        Filter {
            integration: text("integration"),
            reason: text("reason"),
            kind: text("type"),
            email: text("email"),
        }
    }

    fn query(&self) -> QuarantineFilter {
        let given = |text: &String| (!text.is_empty()).then(|| text.clone());
        QuarantineFilter {
            integration: given(&self.integration),
            reason: given(&self.reason),
            r#type: given(&self.kind),
            email: given(&self.email),
            ..QuarantineFilter::default()
        }
    }

    fn is_empty(&self) -> bool {
        *self == Filter::default()
    }

    /// Its fields, by their names in forms and links.
    fn fields(&self) -> [(&'static str, &str); 4] {
        [
            ("integration", &self.integration),
            ("reason", &self.reason),
            ("type", &self.kind),
            ("email", &self.email),
        ]
    }

    /// As a link carries it, to stand after others.
    fn link(&self) -> String {
        let given = self.fields().into_iter().filter(|(_, value)| !value.is_empty());
        given.fold(String::new(), |link, (name, value)| format!("{link}&{name}={}", encoded(value)))
    }
}

struct Row {
    id: u64,
    what: String,
    record_id: String,
    integration: String,
    reason: String,
    status: String,
    detail: String,
    at: Moment,
}

impl Row {
    fn new(entry: &QuarantineEntry, now: UnixMillis) -> Row {
        let (integration, kind) = origin(&entry.origin);
        Row {
            id: entry.id.0,
            what: entry.event_type.clone().unwrap_or_else(|| kind.to_owned()),
            record_id: entry.record_id.clone().unwrap_or_default(),
            integration: integration.unwrap_or_default().to_owned(),
            reason: entry.reason.clone(),
            status: entry.status.map_or_else(String::new, |status| status.to_string()),
            detail: entry.detail.clone(),
            at: Moment::new(entry.at, now),
        }
    }
}

/// Whose it is, and what.
fn origin(origin: &Origin) -> (Option<&str>, &str) {
    match origin {
        Origin::Record { integration, record_type, .. } => (Some(integration), record_type),
        Origin::Event { integration, kind } => (integration.as_deref(), kind),
    }
}

struct One {
    id: u64,
    title: String,
    reason: String,
    advice: &'static str,
    status: String,
    detail: String,
    facts: Vec<(&'static str, String)>,
    at: Moment,
    /// When it was set aside for the first time, where that was another.
    first_at: Option<Moment>,
    is_event: bool,
    body: String,
}

impl One {
    fn new(entry: &QuarantineEntry, now: UnixMillis) -> One {
        let (integration, kind) = origin(&entry.origin);
        let is_event = matches!(entry.origin, Origin::Event { .. });
        let place = match &entry.origin {
            Origin::Record { lane, seq, .. } => format!("lane {}, seq {}", lane.0, number(seq.0)),
            Origin::Event { .. } => String::new(),
        };
        let facts = vec![
            ("Integration", integration.unwrap_or("none: it could not be read").to_owned()),
            ("Kind", if is_event { format!("event ({kind})") } else { format!("record ({kind})") }),
            (
                if is_event { "Message id" } else { "Record id" },
                entry.record_id.clone().unwrap_or_default(),
            ),
            ("It was", place),
            ("Size", bytes(entry.bytes as u64)),
        ];
        let body = entry.body.as_ref().map(|body| body.get()).unwrap_or_default();
        One {
            id: entry.id.0,
            title: entry.event_type.clone().unwrap_or_else(|| kind.to_owned()),
            reason: entry.reason.clone(),
            advice: words::quarantine_advice(&entry.reason),
            status: entry.status.map_or_else(String::new, |status| status.to_string()),
            detail: entry.detail.clone(),
            facts: facts.into_iter().filter(|(_, value)| !value.is_empty()).collect(),
            at: Moment::new(entry.at, now),
            first_at: (entry.first_at.0 > 0 && entry.first_at != entry.at)
                .then(|| Moment::new(entry.first_at, now)),
            is_event,
            body: readable::pretty(body),
        }
    }

    fn pieces(&self) -> Vec<Piece<'_>> {
        json::pieces(&self.body)
    }
}

/// The pages below `/quarantine`.
pub(super) async fn answer(console: &Arc<Console>, asked: &Asked) -> Result<Answer, Refused> {
    let (path, changes) = asked.wanted();
    match (path.as_slice(), changes) {
        (["quarantine"], false) => list(console, asked).await,
        (["quarantine", "retry"], true) => retry(console, &asked.form).await,
        (["quarantine", "drop"], true) => drop_entries(console, asked).await,
        (["quarantine", id], false) => {
            let gone = || Refused::NotFound(GONE);
            let id = id.parse().map_err(|_| gone())?;
            let entry = console.service.quarantined(QuarantineId(id)).await?.ok_or_else(gone)?;
            let status = console.service.status().await?;
            let entry = One::new(&entry, status.now);
            let shell = server::shell(console, &entry.title, "quarantine", &status, asked);
            Ok(answer::page(&Detail { shell, entry, edited: None }))
        }
        (["quarantine", id, "edit"], true) => match id.parse() {
            Ok(id) => edit(console, asked, QuarantineId(id)).await,
            Err(_) => Err(Refused::NotFound(GONE)),
        },
        _ => Err(Refused::NotFound("There is no such page.")),
    }
}

const GONE: &str = "This entry has left the quarantine, or never was in it.";

/// Retries an entry with what was typed in the place of its body.
async fn edit(console: &Console, asked: &Asked, id: QuarantineId) -> Result<Answer, Refused> {
    let text = asked.form.raw("body").unwrap_or_default().to_owned();
    let why = match console.service.retry_edited(id, &text).await {
        Ok(()) => {
            let done =
                Notice::good("1 entry was queued again as it was edited, at the end of the queue.");
            return Ok(back(console, "/quarantine", done));
        }
        Err(EntryError::NoEntry(_)) => return Err(Refused::NotFound(GONE)),
        Err(error) => error.to_string(),
    };
    let entry = console.service.quarantined(id).await?.ok_or(Refused::NotFound(GONE))?;
    let status = console.service.status().await?;
    let entry = One::new(&entry, status.now);
    let shell = server::shell(console, &entry.title, "quarantine", &status, asked);
    let page = Detail { shell, entry, edited: Some((text, why)) };
    Ok(answer::html(StatusCode::UNPROCESSABLE_ENTITY, &page))
}

async fn list(console: &Console, asked: &Asked) -> Result<Answer, Refused> {
    let from = asked.query.text("from").and_then(|from| from.parse().ok()).unwrap_or_default();
    let status = console.service.status().await?;
    let filter = Filter::read(&asked.query);
    let page = |from: u64, limit: usize| {
        let query = QuarantineQuery {
            from,
            limit: Some(limit),
            filter: filter.query(),
            ..QuarantineQuery::default()
        };
        async move { console.service.quarantine(&query).await }
    };
    let entries = page(from, ROWS).await?;
    // A page may be shorter than asked for without being the last.
    let next = match entries.last().map(|last| last.id.0 + 1) {
        Some(next) if !page(next, 1).await?.is_empty() => Some(next),
        _ => None,
    };
    let rows = entries.iter().map(|entry| Row::new(entry, status.now)).collect();
    let integrations = status.integrations.iter().map(|known| known.name.clone()).collect();
    let shell = server::shell(console, "Quarantine", "quarantine", &status, asked);
    Ok(answer::page(&Page { shell, rows, filter, integrations, from, next }))
}

/// What a form selects: `all`, `fitting` a filter, or each `id`.
fn selection(form: &Form) -> Result<Selection, Refused> {
    if form.text("all") == Some("true") {
        return Ok(Selection::All);
    }
    if form.text("fitting") == Some("true") {
        let filter = Filter::read(form).query();
        let nothing = "A filter that says nothing selects nothing.".to_owned();
        return if filter.is_empty() {
            Err(Refused::Bad(nothing))
        } else {
            Ok(Selection::Filter(filter))
        };
    }
    let ids: Result<Vec<QuarantineId>, _> =
        form.all("id").map(|id| id.parse().map(QuarantineId)).collect();
    match ids {
        Ok(ids) if !ids.is_empty() => Ok(Selection::Ids(ids)),
        _ => Err(Refused::Bad("Select at least one entry first.".to_owned())),
    }
}

async fn retry(console: &Console, form: &Form) -> Result<Answer, Refused> {
    let released = console.service.retry(selection(form)?).await?;
    Ok(back(console, "/quarantine", told(&released, "queued again, at the end of the queue")))
}

/// Removes what was selected, once that is confirmed.
async fn drop_entries(console: &Console, asked: &Asked) -> Result<Answer, Refused> {
    let selection = selection(&asked.form)?;
    if asked.form.text("confirmed") == Some("true") {
        let released = console.service.drop_entries(selection).await?;
        return Ok(back(console, "/quarantine", told(&released, "removed for good")));
    }
    let status = console.service.status().await?;
    let shell = server::shell(console, "Remove for good?", "quarantine", &status, asked);
    let entries = |count: u64| {
        if count == 1 { "1 entry".to_owned() } else { format!("{} entries", number(count)) }
    };
    let (ids, all, filter, count) = match selection {
        Selection::Ids(ids) => {
            let count = entries(ids.len() as u64);
            (ids.into_iter().map(|id| id.0).collect(), false, None, count)
        }
        Selection::All => (Vec::new(), true, None, entries(status.quarantined)),
        Selection::Filter(_) => {
            let filter = Some(Filter::read(&asked.form));
            (Vec::new(), false, filter, "every entry that fits the filter".to_owned())
        }
    };
    Ok(answer::page(&Drop { shell, ids, all, filter, count }))
}

/// What a release came to.
fn told(released: &Released, done: &str) -> Notice {
    let entries = |count: u64| {
        if count == 1 {
            "1 entry was".to_owned()
        } else {
            format!("{} entries were", number(count))
        }
    };
    let stayed = released.kept.len() as u64 + released.kept_more;
    let mut notice = Notice::good(format!("{} {done}.", entries(released.released)));
    if stayed > 0 {
        notice.tone = Tone::Warn;
        let kept = released.kept.iter().take(TOLD_MAX);
        notice
            .lines
            .extend(kept.map(|kept| format!("Entry {} stayed: {}", kept.id.0, kept.message)));
        let more = stayed.saturating_sub(TOLD_MAX as u64);
        if more > 0 {
            notice.lines.push(format!("{} more stayed", number(more)));
        }
    }
    if !released.gone.is_empty() {
        notice.lines.push(format!("{} not there any more", entries(released.gone.len() as u64)));
    }
    if let Some(stopped) = &released.stopped {
        notice.tone = Tone::Bad;
        notice.lines.push(format!("The rest was not tried: {stopped}"));
    }
    notice
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::protocol::Kept;

    #[test]
    fn a_selection_is_never_more_than_was_selected() {
        let read = |text: &str| selection(&Form::read(text)).ok();
        for (form, expected) in [
            ("id=1&id=7", Some(Selection::Ids(vec![QuarantineId(1), QuarantineId(7)]))),
            ("all=true", Some(Selection::All)),
            ("", None),
            ("all=", None),
            ("all=false", None),
            ("id=", None),
            ("id=1&id=x", None),
            ("id=-1", None),
            (
                "fitting=true&reason=rejected&type=",
                Some(Selection::Filter(QuarantineFilter {
                    reason: Some("rejected".into()),
                    ..QuarantineFilter::default()
                })),
            ),
            ("fitting=true&reason=", None),
            ("reason=rejected", None),
        ] {
            assert_eq!(read(form), expected, "{form}");
        }
    }

    #[test]
    fn what_stayed_is_told() {
        let kept = |id| Kept { id: QuarantineId(id), message: "why".into() };
        let mut released = Released { released: 1, ..Released::default() };
        assert_eq!(told(&released, "gone"), Notice::good("1 entry was gone."));
        released.kept = (0..12).map(kept).collect();
        released.gone = vec![QuarantineId(3)];
        let notice = told(&released, "gone");
        assert_eq!((notice.tone, notice.lines.len()), (Tone::Warn, TOLD_MAX + 2));
        assert_eq!(notice.lines[TOLD_MAX], "2 more stayed");
        released.stopped = Some("full".into());
        assert_eq!(told(&released, "gone").tone, Tone::Bad);
    }
}
