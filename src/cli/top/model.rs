//! PURE. What `top` knows: the last statuses, the rates between them, what is selected. Keys in, what to ask the daemon out.

use std::collections::{BTreeMap, VecDeque};

use crate::admin::protocol::{IntegrationStatus, Status};
use crate::clock::UnixMillis;

/// Answers that are shown of an integration.
const ANSWERS_MAX: usize = 4;

/// What the daemon is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// To pause an integration.
    Pause(String),
    /// To resume it.
    Resume(String),
    /// To have it try again at once.
    Retry(String),
}

/// What a key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    Pause,
    Resume,
    Retry,
    Help,
    /// Closes the help.
    Close,
}

/// Per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    /// Records that come in.
    pub(super) accepted: f64,
    /// Records that leave the queue.
    pub(super) ended: f64,
    /// Pushes that are made.
    pub(super) pushes: f64,
}

impl Rates {
    fn plus(self, other: Rates) -> Rates {
        Rates {
            accepted: self.accepted + other.accepted,
            ended: self.ended + other.ended,
            pushes: self.pushes + other.pushes,
        }
    }
}

/// What was last counted of an integration.
#[derive(Clone, Debug, Default)]
struct Watched {
    accepted: u64,
    ended: u64,
    pushes: u64,
    rates: Rates,
    answers: VecDeque<u16>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Top {
    /// The last status, as long as there was one.
    pub(super) status: Option<Status>,
    /// Why the daemon does not answer, and since when.
    pub(super) lost: Option<(String, UnixMillis)>,
    /// What became of the last key.
    pub(super) note: String,
    /// Whether the help is shown.
    pub(super) help: bool,
    selected: usize,
    watched: BTreeMap<String, Watched>,
}

impl Top {
    /// Takes the daemon's answer, or why there is none at `now`.
    pub(super) fn update(&mut self, answer: Result<Status, String>, now: UnixMillis) {
        let status = match answer {
            Ok(status) => status,
            Err(why) => {
                let since = self.lost.take().map_or(now, |(_, since)| since);
                self.lost = Some((why, since));
                return;
            }
        };
        self.lost = None;
        let before = self.status.take();
        // Another daemon has begun to count anew.
        let before = before.filter(|before| before.started_at == status.started_at);
        let passed = before.map(|before| before.now.age(status.now).as_secs_f64());
        let passed = passed.filter(|seconds| *seconds > 0.0);
        let mut watched = BTreeMap::new();
        for known in &status.integrations {
            let old = self.watched.remove(&known.name);
            watched.insert(known.name.clone(), counted(known, old, passed));
        }
        self.watched = watched;
        self.selected = self.selected.min(status.integrations.len().saturating_sub(1));
        self.status = Some(status);
    }

    /// Takes a key; returns what the daemon is to be asked.
    pub(super) fn press(&mut self, key: Key) -> Option<Ask> {
        let last = self.integrations().len().saturating_sub(1);
        self.note.clear();
        match key {
            Key::Up => self.selected = self.selected.saturating_sub(1),
            Key::Down => self.selected = (self.selected + 1).min(last),
            Key::Help => self.help = !self.help,
            Key::Close => self.help = false,
            Key::Pause | Key::Resume | Key::Retry if self.lost.is_some() => {
                "the daemon does not answer: nothing was asked".clone_into(&mut self.note);
            }
            Key::Pause | Key::Resume | Key::Retry => {
                let name = self.selected()?.name.clone();
                return Some(match key {
                    Key::Pause => Ask::Pause(name),
                    Key::Resume => Ask::Resume(name),
                    _ => Ask::Retry(name),
                });
            }
        }
        None
    }

    /// Those that are shown, in their order.
    pub(super) fn integrations(&self) -> &[IntegrationStatus] {
        self.status.as_ref().map_or(&[], |status| &status.integrations)
    }

    /// The one that keys are for.
    pub(super) fn selected(&self) -> Option<&IntegrationStatus> {
        self.integrations().get(self.selected)
    }

    /// Its place among the others.
    pub(super) fn place(&self) -> usize {
        self.selected
    }

    /// The rates of an integration.
    pub(super) fn rates(&self, name: &str) -> Rates {
        self.watched.get(name).map(|watched| watched.rates).unwrap_or_default()
    }

    /// The rates of all together.
    pub(super) fn sum(&self) -> Rates {
        self.watched.values().map(|watched| watched.rates).fold(Rates::default(), Rates::plus)
    }

    /// The last answers to an integration's pushes, the newest last.
    pub(super) fn answers(&self, name: &str) -> impl Iterator<Item = u16> + '_ {
        self.watched.get(name).into_iter().flat_map(|watched| watched.answers.iter().copied())
    }
}

/// What is counted of an integration, `passed` seconds after what was counted before.
fn counted(known: &IntegrationStatus, old: Option<Watched>, passed: Option<f64>) -> Watched {
    let (lane, report) = (&known.lane, &known.report);
    let (accepted, ended) = (lane.newest, lane.newest.saturating_sub(lane.queued_records));
    let mut old = old.unwrap_or_default();
    let rate = |now: u64, before: u64| {
        // Counts in a second are far from where a float has gaps.
        passed.map_or(0.0, |passed| {
            f64::from(u32::try_from(now.saturating_sub(before)).unwrap_or(u32::MAX)) / passed
        })
    };
    let rates = Rates {
        accepted: rate(accepted, old.accepted),
        ended: rate(ended, old.ended),
        pushes: rate(report.pushes, old.pushes),
    };
    if report.pushes != old.pushes
        && let Some(status) = report.last_status
    {
        old.answers.push_back(status);
        if old.answers.len() > ANSWERS_MAX {
            old.answers.pop_front();
        }
    }
    Watched { accepted, ended, pushes: report.pushes, rates, answers: old.answers }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status::tests::{known, of};
    use crate::forward::State;

    /// A status `seconds` after the beginning, with so many records accepted and ended.
    fn at(seconds: u64, accepted: u64, ended: u64, status: u16) -> Status {
        let mut uk = known("uk", State::Pushing, "");
        (uk.lane.newest, uk.lane.queued_records) = (accepted, accepted - ended);
        (uk.report.pushes, uk.report.last_status) = (ended, Some(status));
        let mut status = of(vec![uk, known("fr", State::Idle, "")]);
        status.now = UnixMillis(seconds * 1000);
        status
    }

    #[test]
    fn rates_are_those_between_two_statuses_of_one_daemon() {
        let mut top = Top::default();
        top.update(Ok(at(1, 100, 50, 202)), UnixMillis(0));
        assert_eq!(top.rates("uk"), Rates::default(), "nothing is known of the time before");
        top.update(Ok(at(3, 140, 60, 403)), UnixMillis(0));
        assert_eq!(top.rates("uk"), Rates { accepted: 20.0, ended: 5.0, pushes: 5.0 });
        assert_eq!(top.answers("uk").collect::<Vec<_>>(), [202, 403]);
        top.update(Ok(at(3, 150, 60, 403)), UnixMillis(0));
        assert_eq!(top.rates("uk"), Rates::default(), "no time has passed");
        let mut restarted = at(9, 150, 60, 202);
        restarted.started_at = UnixMillis(7);
        top.update(Ok(restarted), UnixMillis(0));
        assert_eq!(top.sum(), Rates::default());
        for pushes in 61..70 {
            top.update(Ok(at(10, 150, pushes, 202)), UnixMillis(0));
        }
        assert_eq!(top.answers("uk").count(), ANSWERS_MAX);
    }

    #[test]
    fn keys_are_for_the_selected_integration() {
        let mut top = Top::default();
        assert_eq!((top.press(Key::Down), top.press(Key::Pause)), (None, None));
        top.update(Ok(at(1, 1, 1, 202)), UnixMillis(0));
        assert_eq!(top.press(Key::Pause), Some(Ask::Pause("uk".into())));
        assert_eq!((top.press(Key::Down), top.press(Key::Down)), (None, None));
        assert_eq!(top.press(Key::Retry), Some(Ask::Retry("fr".into())));
        assert_eq!(top.press(Key::Up), None);
        assert_eq!(top.press(Key::Resume), Some(Ask::Resume("uk".into())));
        top.press(Key::Down);
        top.update(Ok(of(vec![known("uk", State::Idle, "")])), UnixMillis(0));
        assert_eq!(top.selected().unwrap().name, "uk", "the other one has gone");
        top.press(Key::Help);
        assert!(top.help);
        top.press(Key::Close);
        assert!(!top.help);
    }

    #[test]
    fn a_daemon_that_is_gone_is_known_since_when() {
        let mut top = Top::default();
        top.update(Ok(at(1, 1, 1, 202)), UnixMillis(0));
        top.update(Err("gone".into()), UnixMillis(5));
        top.update(Err("still".into()), UnixMillis(9));
        assert_eq!(top.lost, Some(("still".to_owned(), UnixMillis(5))));
        assert!(top.press(Key::Pause).is_none() && top.note.contains("nothing was asked"));
        assert_eq!(top.integrations().len(), 2, "what was last known is still shown");
        top.update(Ok(at(20, 1, 1, 202)), UnixMillis(10));
        assert_eq!(top.lost, None);
    }
}
