//! PURE. The first page: how every integration stands, what was accepted and delivered, and that nothing is missing.

use askama::Template;

use super::chart::{Chart, sparkline};
use super::history::{History, Range, Sample, sums};
use super::shell::Shell;
use super::words::{self, Moment, Tone, Trouble};
use crate::admin::protocol::{IntegrationStatus, Status};
use crate::forward::State;
use crate::readable::{bytes, number};

/// The page.
#[derive(Template)]
#[template(path = "overview.html", config = "src/admin/console/askama.toml")]
pub(super) struct Page {
    pub(super) shell: Shell,
    pub(super) live: Overview,
}

/// The part of it that is alive.
#[derive(Template)]
#[template(path = "overview_live.html", config = "src/admin/console/askama.toml")]
pub(super) struct Live {
    pub(super) live: Overview,
}

/// What both show.
pub(super) struct Overview {
    pub(super) range: Range,
    accepting: Option<String>,
    up: String,
    started: Moment,
    queued: String,
    queued_bytes: String,
    oldest: String,
    accepted: String,
    accepted_rate: String,
    delivered: String,
    delivered_rate: String,
    quarantined: u64,
    troubles: Vec<Trouble>,
    chart: Chart,
    summary: String,
    rows: Vec<Row>,
    ingest: Vec<(&'static str, String)>,
    dropped: Vec<(String, String)>,
}

/// An integration.
struct Row {
    name: String,
    state: &'static str,
    tone: Tone,
    detail: String,
    endpoint: String,
    /// What may be asked of it, and how that is called.
    buttons: Vec<(&'static str, &'static str)>,
    queued: String,
    oldest: String,
    accepted_rate: String,
    delivered_rate: String,
    spark: String,
    last_delivery: String,
    last_status: String,
    sums: Vec<(&'static str, String)>,
    accepted: String,
    is_conserved: bool,
}

impl Overview {
    pub(super) fn new(status: &Status, history: &History, range: Range) -> Overview {
        let all = sums(&status.integrations);
        let now = Sample { at: status.now, sums: all };
        let series = history.all();
        let (accepted, delivered) = series.totals(range, now);
        let rates = series.rates(now).unwrap_or_default();
        let lanes = || status.integrations.iter().map(|known| &known.lane);
        let oldest = lanes().filter_map(|lane| lane.oldest_at).min();
        let counts = &status.ingest;
        let refused: u64 = counts.requests_refused.values().sum();
        let dropped: u64 = counts.events_dropped.values().sum();
        let span = if range == Range::Day { "day" } else { "hour" };
        let summary = format!(
            "In the last {span}, as far as this daemon has run: {} records accepted, {} delivered; {} queued now.",
            number(accepted),
            number(delivered),
            number(all.queued)
        );
        let reasons = counts
            .events_dropped
            .iter()
            .map(|(reason, count)| (format!("dropped: {reason}"), count));
        let codes =
            counts.requests_refused.iter().map(|(code, count)| (format!("refused: {code}"), count));
        let troubles = status.integrations.iter().filter_map(words::trouble);
        let set_aside = status.set_aside.iter().map(|why| words::set_aside(why));
        let erasure = status.erasure_waits.then(words::erasure);
        Overview {
            range,
            accepting: status.refusing.clone(),
            up: crate::readable::age(status.started_at.age(status.now)),
            started: Moment::new(status.started_at, status.now),
            queued: number(all.queued),
            queued_bytes: bytes(lanes().map(|lane| lane.queued_bytes).sum()),
            oldest: words::age(oldest, status.now),
            accepted: number(accepted),
            accepted_rate: words::rate(rates.0),
            delivered: number(delivered),
            delivered_rate: words::rate(rates.1),
            quarantined: status.quarantined,
            troubles: set_aside.chain(erasure).chain(troubles).collect(),
            chart: Chart::new(&series.bins(range, now), range, status.now),
            summary,
            rows: status
                .integrations
                .iter()
                .map(|known| Row::new(known, status, history))
                .collect(),
            ingest: vec![
                ("requests answered", number(counts.requests)),
                ("requests refused", number(refused)),
                ("events accepted", number(counts.events_accepted)),
                ("seen before", number(counts.events_duplicate)),
                ("quarantined on arrival", number(counts.events_quarantined)),
                ("dropped by mapping or consent", number(dropped)),
            ],
            dropped: reasons.chain(codes).map(|(what, count)| (what, number(*count))).collect(),
        }
    }

    /// The quarantine's count as people read it.
    fn quarantined_text(&self) -> String {
        number(self.quarantined)
    }

    /// What has changed since `before`, for those who cannot see it.
    pub(super) fn said_since(&self, before: &Overview) -> Option<String> {
        let changed = self.rows.iter().filter_map(|row| {
            let known = before.rows.iter().find(|known| known.name == row.name);
            // Coming and going between idle and delivering is no news.
            let is_news = known.is_none_or(|known| known.state != row.state)
                && known.is_none_or(|known| (known.tone, row.tone) != (Tone::Good, Tone::Good));
            is_news.then(|| format!("{}: {}", row.name, row.state))
        });
        let mut said: Vec<String> = changed.collect();
        if self.quarantined > before.quarantined {
            said.push(format!("{} in the quarantine", number(self.quarantined)));
        }
        (!said.is_empty()).then(|| said.join("; "))
    }
}

impl Row {
    fn new(known: &IntegrationStatus, status: &Status, history: &History) -> Row {
        let (lane, report, at) = (&known.lane, &known.report, status.now);
        let (state, tone) = words::state(known);
        let now = Sample { at, sums: sums(std::slice::from_ref(known)) };
        let series = history.of(&known.name);
        let rates = series.and_then(|series| series.rates(now)).unwrap_or_default();
        let bins = series.map(|series| series.bins(Range::Hour, now)).unwrap_or_default();
        let detail = match report.next_try_at {
            Some(next) if next > at => {
                format!(
                    "attempt {}, next in {}",
                    report.failures + 1,
                    crate::readable::age(at.age(next))
                )
            }
            Some(_) => format!("attempt {}, now", report.failures + 1),
            None => String::new(),
        };
        Row {
            name: known.name.clone(),
            state,
            tone,
            detail,
            endpoint: known.endpoint.clone().unwrap_or_default(),
            buttons: buttons(known),
            queued: number(lane.queued_records),
            oldest: words::age(lane.oldest_at, at),
            accepted_rate: words::rate(rates.0),
            delivered_rate: words::rate(rates.1),
            spark: sparkline(&bins, |bin| bin.delivered),
            last_delivery: report
                .last_delivery_at
                .map_or_else(String::new, |last| Moment::new(last, at).ago),
            last_status: report.last_status.map_or_else(String::new, |status| status.to_string()),
            sums: vec![
                ("delivered", number(lane.delivered)),
                ("queued", number(lane.queued_records)),
                ("quarantined", number(lane.quarantined)),
                ("withheld", number(lane.withheld)),
                ("erased", number(lane.erased)),
            ],
            accepted: number(lane.newest),
            is_conserved: lane.is_conserved(),
        }
    }
}

fn buttons(known: &IntegrationStatus) -> Vec<(&'static str, &'static str)> {
    match known.report.state {
        _ if known.endpoint.is_none() => Vec::new(),
        State::Paused => vec![("resume", "Resume")],
        State::Retrying | State::Unauthorized | State::Held | State::Storm => {
            vec![("retry-now", "Retry now"), ("pause", "Pause")]
        }
        _ => vec![("pause", "Pause")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;
    use crate::forward::Report;
    use crate::ingest::Counts;
    use crate::spool::LaneStats;

    fn status(state: State, name: &str) -> Status {
        let lane = LaneStats {
            newest: 10,
            cursor: 8,
            queued_records: 3,
            queued_bytes: 30,
            delivered: 7,
            held: 3,
            ..LaneStats::default()
        };
        let report = Report { state, cause: "403: <b>no</b>".into(), ..Report::default() };
        let known = IntegrationStatus {
            name: name.into(),
            endpoint: Some("https://e/".into()),
            lane,
            report,
            ledger: None,
            lanes: Vec::new(),
        };
        Status {
            version: "1".into(),
            pid: 1,
            started_at: UnixMillis(0),
            now: UnixMillis(60_000),
            refusing: None,
            quarantined: 0,
            ingest: Counts::default(),
            integrations: vec![known],
            set_aside: vec!["es: <i>broken".into()],
            disk_free: None,
            erasure_waits: false,
        }
    }

    fn overview(status: &Status) -> Overview {
        Overview::new(status, &History::default(), Range::Hour)
    }

    #[test]
    fn what_others_wrote_is_escaped() {
        let text = Live { live: overview(&status(State::Unauthorized, "<script>x</script>")) }
            .render()
            .unwrap();
        assert!(!text.contains("<script>") && !text.contains("<b>no"), "{text}");
        assert!(text.contains("es: &#60;i&#62;broken"), "{text}");
        assert!(text.contains("Settings &#62; API keys"), "{text}");
    }

    #[test]
    fn an_erasure_that_waits_is_told() {
        let mut status = status(State::Idle, "uk");
        let shown = |status: &Status| Live { live: overview(status) }.render().unwrap();
        assert!(!shown(&status).contains("An erasure is not complete"));
        status.erasure_waits = true;
        assert!(shown(&status).contains("An erasure is not complete"));
    }

    #[test]
    fn only_news_is_said() {
        let said = |before: State, after: State| {
            overview(&status(after, "uk")).said_since(&overview(&status(before, "uk")))
        };
        assert_eq!(said(State::Pushing, State::Pushing), None);
        assert_eq!(said(State::Pushing, State::Retrying).as_deref(), Some("uk: retrying"));
        assert_eq!(said(State::Paused, State::Pushing).as_deref(), Some("uk: delivering"));
        let mut idle = status(State::Idle, "uk");
        idle.integrations[0].report.cause.clear();
        assert_eq!(overview(&idle).said_since(&overview(&status(State::Pushing, "uk"))), None);
        let mut more = status(State::Pushing, "uk");
        more.quarantined = 2;
        let said = overview(&more).said_since(&overview(&status(State::Pushing, "uk")));
        assert_eq!(said.as_deref(), Some("2 in the quarantine"));
    }

    #[test]
    fn sums_that_do_not_agree_are_told() {
        let mut status = status(State::Idle, "uk");
        assert!(Live { live: overview(&status) }.render().unwrap().contains("accounted for"));
        status.integrations[0].lane.newest += 1;
        let text = Live { live: overview(&status) }.render().unwrap();
        assert!(text.contains("spool verify"), "{text}");
    }
}
