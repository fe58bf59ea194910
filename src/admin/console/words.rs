//! PURE. States and reasons in words that say what to do, after the troubleshooting table of Ometria's documentation.

use std::time::Duration;

use crate::admin::protocol::IntegrationStatus;
use crate::advice;
use crate::clock::UnixMillis;
use crate::event::Timestamp;
use crate::forward::State;
use crate::readable;

/// How much somebody should care: the class that something is shown with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tone {
    /// All is well.
    Good,
    /// Nothing to judge.
    Calm,
    /// Degraded, will heal; or asked for.
    Warn,
    /// An operator must act.
    Bad,
}

impl Tone {
    pub(super) fn class(self) -> &'static str {
        match self {
            Tone::Good => "good",
            Tone::Calm => "calm",
            Tone::Warn => "warn",
            Tone::Bad => "bad",
        }
    }
}

/// The state of an integration in a word.
pub(super) fn state(known: &IntegrationStatus) -> (&'static str, Tone) {
    if known.endpoint.is_none() {
        return (
            "not configured",
            if known.lane.queued_records > 0 { Tone::Bad } else { Tone::Calm },
        );
    }
    match known.report.state {
        State::Idle if known.report.cause.is_empty() => ("idle", Tone::Good),
        State::Idle => ("waiting", Tone::Calm),
        State::Pushing => ("delivering", Tone::Good),
        State::Isolating => ("isolating", Tone::Warn),
        State::Retrying => ("retrying", Tone::Warn),
        State::Paused => ("paused", Tone::Warn),
        State::Unauthorized => ("unauthorized", Tone::Bad),
        State::Held => ("held", Tone::Bad),
        State::Storm => ("held (storm)", Tone::Bad),
        State::Damaged => ("damaged", Tone::Bad),
    }
}

/// What is wrong with an integration, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) title: String,
    pub(super) tone: Tone,
    /// What upstream or the network said, as the forwarder tells it.
    pub(super) cause: String,
    /// One after the other.
    pub(super) steps: Vec<&'static str>,
    /// Whether its settings are to be changed.
    pub(super) is_of_settings: bool,
}

/// Tells the trouble of an integration; `None` when all is well.
pub(super) fn trouble(known: &IntegrationStatus) -> Option<Trouble> {
    let (name, report) = (&known.name, &known.report);
    if known.endpoint.is_none() {
        let waits = known.lane.queued_records;
        let cause = format!(
            "{} records ({}) wait, and nobody delivers them.",
            readable::number(waits),
            readable::bytes(known.lane.queued_bytes)
        );
        let steps = vec![
            "Configure it again under its old name and reload: it goes on where it stopped.",
            "Or remove what waits for good, on the host: pillarbox drop-queue NAME.",
        ];
        let title = format!("{name} is no longer configured");
        return (waits > 0).then_some(Trouble {
            title,
            tone: Tone::Bad,
            cause,
            steps,
            is_of_settings: false,
        });
    }
    let (title, steps): (String, &[&'static str]) = match report.state {
        State::Unauthorized => (format!("{name}: Ometria refuses the API key"), &UNAUTHORIZED),
        State::Held => (format!("{name} is held: the endpoint is wrong"), &HELD),
        State::Storm => {
            (format!("{name} is held: too many records in a row were rejected"), &STORM)
        }
        State::Damaged => (format!("{name}: a part of the queue cannot be read"), &DAMAGED),
        State::Retrying => (format!("{name} is retrying"), &RETRYING),
        State::Paused => (format!("{name} is paused"), &PAUSED),
        State::Isolating => (format!("{name}: a push was rejected"), &ISOLATING),
        State::Idle | State::Pushing => return None,
    };
    let (_, tone) = state(known);
    // The title and the steps say it already, with what to do one after the other.
    let cause = match (report.state, report.last_status) {
        (State::Paused, _) => String::new(),
        (State::Unauthorized, Some(status)) => format!("It answers {status} to every push."),
        _ => report.cause.clone(),
    };
    let is_of_settings = matches!(report.state, State::Unauthorized | State::Held);
    Some(Trouble { title, tone, cause, steps: steps.to_vec(), is_of_settings })
}

/// Tells of a stored integration that is not in force, in the daemon's words.
pub(super) fn set_aside(why: &str) -> Trouble {
    Trouble {
        title: "An integration is not in force".to_owned(),
        tone: Tone::Bad,
        cause: why.to_owned(),
        steps: Vec::new(),
        is_of_settings: true,
    }
}

/// An erasure waits.
pub(super) fn erasure() -> Trouble {
    Trouble {
        title: "An erasure is not complete".to_owned(),
        tone: Tone::Warn,
        cause: format!("Not finished: {}.", advice::ERASURE_WAITS),
        steps: Vec::new(),
        is_of_settings: false,
    }
}

const UNAUTHORIZED: [&str; 4] = [
    "Nothing is lost: events are still taken and wait in the queue.",
    "In Ometria, Settings > API keys, generate a Data API key with push access. A Query API (Website Personalisation) key is refused.",
    "Save it with the integration here, if it was made here; else put it where the configuration file reads it, and reload.",
    "A new key can take ten minutes to work. It is tried again every minute.",
];
const HELD: [&str; 2] = [
    "Nothing is lost: events are still taken and wait in the queue.",
    "Correct the integration's endpoint, here or in the configuration file, and reload. It is tried again every minute.",
];
const STORM: [&str; 3] = [
    "The rest stays queued instead of following into the quarantine.",
    "Look at the answers in the quarantine: they name what is wrong with the records.",
    "Mend the mapping, reload, and retry what was set aside. The next record is tried every minute.",
];
const DAMAGED: [&str; 2] = [
    "This lane stops; nothing is skipped.",
    "Stop the daemon, copy its state folder away, and run pillarbox spool verify: it says how to go on.",
];
const RETRYING: [&str; 1] = [
    "Nothing to do as long as it passes by itself: it is retried for ever, in order, and nothing is lost.",
];
const PAUSED: [&str; 1] =
    ["Events are still taken; nothing is sent until it is resumed, also after a restart."];
const ISOLATING: [&str; 1] = [
    "The push is split until the records at fault stand alone; they go to the quarantine, the others on.",
];

/// What to do about an entry of the quarantine.
pub(super) fn quarantine_advice(reason: &str) -> &'static str {
    match reason {
        "rejected" => {
            "Ometria rejected this record when it stood alone (400). Its answer names the fault: mend the mapping that made it, then retry."
        }
        "too_large" => {
            "It is over the limit of 60,000 bytes a record. Let its mapping leave properties out, then send it again."
        }
        "rejected_later" => {
            "Ometria took it with a 202 and rejected it when it looked closer. Mend the cause that it names, then retry."
        }
        "invalid_event" | "invalid_json" => {
            "The event could not be read. Mend it where it is made; a retry takes it through the mapping again."
        }
        _ => {
            "Mend the cause that is told here, then retry: it goes to the end of the queue, under its old id."
        }
    }
}

/// What the state of a record means.
pub(super) fn record_state(state: &str) -> (&'static str, Tone) {
    match state {
        "delivered" => ("Ometria has it.", Tone::Good),
        "queued" => ("It waits for its turn.", Tone::Calm),
        "quarantined" => {
            ("It was set aside: the quarantine has it until it is retried or dropped.", Tone::Bad)
        }
        "withheld" => ("It was not sent: its person has denied consent since.", Tone::Warn),
        "erased" => ("It was not sent: its person was erased.", Tone::Warn),
        _ => ("It has left the queue; how is not known any more.", Tone::Calm),
    }
}

/// A rate as people read it: `1,204/min`.
pub(super) fn rate(a_minute: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rounded, and never negative"
    )]
    let whole = |rate: f64| readable::number(rate.max(0.0).round() as u64);
    if a_minute > 0.0 && a_minute < 9.95 { format!("{a_minute:.1}") } else { whole(a_minute) }
}

/// An age, or a dash.
pub(super) fn age(of: Option<UnixMillis>, now: UnixMillis) -> String {
    of.map_or_else(|| "–".to_owned(), |at| readable::age(at.age(now)))
}

/// A moment that the script turns into the reader's own time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Moment {
    /// For machines.
    pub(super) iso: String,
    /// `2026-06-06 15:32:52 UTC`.
    pub(super) text: String,
    /// `3 min 20 s ago`.
    pub(super) ago: String,
}

impl Moment {
    pub(super) fn new(at: UnixMillis, now: UnixMillis) -> Moment {
        let iso = Timestamp::from_clock(at).to_string();
        let text = iso.replace('T', " ").replace("+00:00", " UTC");
        let ago = if at > now { "in the future".to_owned() } else { ago(at.age(now)) };
        Moment { iso, text, ago }
    }
}

fn ago(age: Duration) -> String {
    if age < Duration::from_secs(1) {
        "just now".to_owned()
    } else {
        format!("{} ago", readable::age(age))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::Report;
    use crate::spool::LaneStats;

    fn known(state: State) -> IntegrationStatus {
        let report = Report { state, cause: "said so".into(), ..Report::default() };
        IntegrationStatus {
            name: "uk".into(),
            endpoint: Some("e".into()),
            lane: LaneStats::default(),
            report,
            ledger: None,
            lanes: Vec::new(),
        }
    }

    #[test]
    fn whatever_stops_an_integration_is_told_with_what_to_do() {
        for (told, is_trouble, word, tone) in [
            (State::Idle, false, "waiting", Tone::Calm),
            (State::Pushing, false, "delivering", Tone::Good),
            (State::Isolating, true, "isolating", Tone::Warn),
            (State::Retrying, true, "retrying", Tone::Warn),
            (State::Paused, true, "paused", Tone::Warn),
            (State::Unauthorized, true, "unauthorized", Tone::Bad),
            (State::Held, true, "held", Tone::Bad),
            (State::Storm, true, "held (storm)", Tone::Bad),
            (State::Damaged, true, "damaged", Tone::Bad),
        ] {
            let known = known(told);
            assert_eq!(state(&known), (word, tone), "{told:?}");
            let trouble = trouble(&known);
            assert_eq!(trouble.is_some(), is_trouble, "{told:?}");
            assert!(trouble.is_none_or(|trouble| !trouble.steps.is_empty()), "{told:?}");
        }
        let unauthorized = trouble(&known(State::Unauthorized)).unwrap();
        assert!(unauthorized.steps.iter().any(|step| step.contains("Settings > API keys")));
        let mut gone = known(State::Idle);
        gone.endpoint = None;
        assert_eq!((state(&gone).1, trouble(&gone)), (Tone::Calm, None));
        gone.lane.queued_records = 3;
        assert_eq!((state(&gone).1, trouble(&gone).unwrap().tone), (Tone::Bad, Tone::Bad));
    }

    #[test]
    fn rates_and_moments_as_people_read_them() {
        let rates = [0.0, 0.04, 1.25, 9.96, 1234.4].map(rate);
        assert_eq!(rates, ["0", "0.0", "1.2", "10", "1,234"]);
        let now = UnixMillis(1_800_000_000_500);
        let moment = Moment::new(UnixMillis(1_799_999_999_000), now);
        assert_eq!(moment.iso, "2027-01-15T07:59:59+00:00");
        assert_eq!((&*moment.text, &*moment.ago), ("2027-01-15 07:59:59 UTC", "1 s ago"));
        assert_eq!(Moment::new(UnixMillis(now.0 + 9000), now).ago, "in the future");
        assert_eq!(Moment::new(now, now).ago, "just now");
    }
}
