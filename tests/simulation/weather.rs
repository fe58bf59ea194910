//! Upstream: what it does with each push, and what it checks of them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use pillarbox::forward::{Answer, PushError, Upstream};
use tokio::time::Instant;

use crate::Scene;

/// A push as upstream saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    ids: Vec<u64>,
    body: Bytes,
    /// Whether the forwarder could know its end, and what it then had to be.
    known: Known,
    /// Which start of the forwarder sent it.
    run: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Known {
    /// No answer yet, or none at all, or one that acknowledges nothing: the same push again.
    Nothing,
    Accepted,
    Refused,
}

/// What upstream remembers.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) pushes: Vec<Seen>,
    /// Ids in the order in which they were first taken.
    pub(crate) taken: Vec<u64>,
    /// Ids that a 202 named as rejected.
    pub(crate) named: HashSet<u64>,
    /// Who denies consent, and since when.
    pub(crate) denied: HashMap<u64, Instant>,
    pub(crate) run: usize,
}

impl Memory {
    /// Whether the person of a record denies consent by now.
    pub(crate) fn is_denied(&self, scene: &Scene, id: u64) -> bool {
        scene.person(id).is_some_and(|person| self.denied.contains_key(&person))
    }
}

/// The stand-in for upstream.
#[derive(Clone)]
pub(crate) struct Weather {
    pub(crate) scene: Arc<Scene>,
    pub(crate) rng: Arc<Mutex<fastrand::Rng>>,
    pub(crate) memory: Arc<Mutex<Memory>>,
}

/// What becomes of a push.
enum Fate {
    /// Judged by its records.
    Judged,
    /// Taken, but the answer never arrives.
    TakenUnheard(PushError),
    /// An answer that says nothing about the records.
    Status(u16, Option<&'static str>),
    Lost(PushError),
    /// Answered never: the attempt's own time-out.
    Hang,
}

impl Weather {
    fn fate(&self, pushes: usize) -> (Duration, Fate) {
        let mut rng = self.rng.lock().unwrap();
        let delay = Duration::from_millis(rng.u64(0..2000));
        if pushes > self.scene.clears_after || rng.u64(0..100) >= self.scene.faults {
            return (delay, Fate::Judged);
        }
        let closed = || PushError::Closed("reset".into());
        let fate = match rng.u64(0..8) {
            0 => Fate::TakenUnheard(closed()),
            1 => Fate::Hang,
            2 => Fate::Lost(closed()),
            3 => Fate::Lost(PushError::Connect("refused".into())),
            4 => Fate::Status([401, 403, 404, 405, 410][rng.usize(..5)], None),
            5 => Fate::Status([200, 201, 204, 301, 302][rng.usize(..5)], None),
            6 => Fate::Status(429, [None, Some("0"), Some("30"), Some("soon")][rng.usize(..4)]),
            _ => Fate::Status([408, 425, 500, 502, 503][rng.usize(..5)], None),
        };
        (delay, fate)
    }

    /// Checks a push as it arrives, against the one before it.
    fn arrive(&self, body: &Bytes) -> usize {
        let records: Vec<serde_json::Value> = serde_json::from_slice(body).unwrap();
        let of = |record: &serde_json::Value| record["id"].as_str().unwrap().parse().unwrap();
        let ids: Vec<u64> = records.iter().map(of).collect();
        assert!((1..=self.scene.batch_records_max).contains(&ids.len()));
        assert!(ids.is_sorted());
        assert!(records.iter().all(|record| record["@type"] == records[0]["@type"]));
        let mut memory = self.memory.lock().unwrap();
        let run = memory.run;
        let since = |id: &u64| memory.denied.get(&self.scene.person(*id)?).copied();
        let sent = ids.iter().filter_map(since).find(|since| *since < Instant::now());
        assert!(sent.is_none(), "{ids:?} holds a record of somebody who denies consent");
        let withheld = |id: &u64| memory.is_denied(&self.scene, *id);
        let gap = |from: u64, to: u64| (from..to).all(|id| withheld(&id));
        assert!(ids.windows(2).all(|pair| gap(pair[0] + 1, pair[1])), "a gap: {ids:?}");
        if let Some(before) = memory.pushes.last() {
            let (first, last) = (before.ids[0], before.ids[before.ids.len() - 1]);
            let settled = match before.known {
                Known::Accepted => true,
                Known::Refused => before.ids.len() == 1,
                Known::Nothing => false,
            };
            let goes_on = ids[0] > last && gap(last + 1, ids[0]);
            let goes_on = goes_on && (settled || before.ids.iter().all(withheld));
            // After a start, the last push may repeat even though it was answered: its settlement may not have been made.
            // One that stands alone because others are withheld may be refused once more before it is found guilty.
            let may_repeat = !settled
                || before.run != run
                || (before.known == Known::Refused && self.scene.people > 0);
            let repeats = ids[0] <= last && ids[0] >= first && gap(first, ids[0]) && may_repeat;
            assert!(goes_on || repeats, "after {before:?}: {ids:?}");
            if before.known == Known::Nothing && before.run == run && repeats {
                let left: Vec<u64> =
                    before.ids.iter().copied().filter(|id| !withheld(id)).collect();
                assert_eq!(left, ids, "a retry is the same push, but for what is withheld");
                assert!(left != before.ids || before.body == body, "byte for byte");
            }
        } else {
            assert!(gap(1, ids[0]));
        }
        memory.pushes.push(Seen { ids, body: body.clone(), known: Known::Nothing, run });
        memory.pushes.len() - 1
    }

    /// Takes the records of push `at`, unless one of them is guilty. What upstream answers.
    fn judge(&self, at: usize) -> Answer {
        let mut rng = self.rng.lock().unwrap();
        let mut memory = self.memory.lock().unwrap();
        let ids = memory.pushes[at].ids.clone();
        if ids.iter().any(|id| self.scene.guilty.contains(id)) {
            return answer([400, 422, 413][rng.usize(..3)], "no");
        }
        for id in &ids {
            if !memory.taken.contains(id) {
                memory.taken.push(*id);
            }
        }
        if rng.u64(0..20) > 0 {
            return answer(202, r#"{"status":"OK"}"#);
        }
        let id = ids[rng.usize(..ids.len())];
        memory.named.insert(id);
        answer(202, &format!(r#"{{"rejected":1,"rejected_items":["{id}"]}}"#))
    }
}

fn answer(status: u16, body: &str) -> Answer {
    Answer { status, retry_after: None, queue_remaining: None, body: body.into() }
}

impl Upstream for Weather {
    async fn push(&self, body: Bytes) -> Result<Answer, PushError> {
        let at = self.arrive(&body);
        let (delay, fate) = self.fate(at);
        tokio::time::sleep(delay).await;
        match fate {
            Fate::Judged => {
                let answer = self.judge(at);
                let known = if answer.status == 202 { Known::Accepted } else { Known::Refused };
                self.memory.lock().unwrap().pushes[at].known = known;
                Ok(answer)
            }
            Fate::TakenUnheard(error) => {
                self.judge(at);
                Err(error)
            }
            Fate::Status(status, retry_after) => {
                let retry_after = retry_after.map(str::to_owned);
                Ok(Answer { retry_after, ..answer(status, "") })
            }
            Fate::Lost(error) => Err(error),
            Fate::Hang => {
                tokio::time::sleep(Duration::from_secs(30)).await;
                Err(PushError::Timeout(Duration::from_secs(30)))
            }
        }
    }
}
