//! PURE. Lines that are sent together, and what an answer means for them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;

/// Events in a request.
pub(super) const BATCH_EVENTS_MAX: usize = 100;
/// Bytes of a request: half of the default limit. A daemon that takes less says so, and gets halves.
pub(super) const BATCH_BYTES_MAX: usize = 512 << 10;

/// Where an event stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The file's name, or `stdin`.
    pub(super) file: Arc<str>,
    /// The line, from 1.
    pub(super) line: u64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}", self.file, self.line)
    }
}

/// What lines may share a request: all events, and records of one type for one integration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// An event, to be mapped.
    #[default]
    Event,
    /// A finished record.
    Record {
        /// Its `@type`.
        record_type: String,
        /// Whither; `None`: to every integration.
        integration: Option<String>,
    },
}

impl Kind {
    /// The route that takes it.
    pub(super) fn path(&self) -> String {
        match self {
            Kind::Event => "/v1/batch".to_owned(),
            Kind::Record { integration: None, .. } => "/v2/push".to_owned(),
            Kind::Record { integration: Some(name), .. } => format!("/v2/push?integration={name}"),
        }
    }

    /// The status that says that it was taken.
    pub(super) fn taken(&self) -> u16 {
        match self {
            Kind::Event => 200,
            Kind::Record { .. } => 202,
        }
    }
}

/// Events, or records, that are sent together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    kind: Kind,
    events: Vec<(Place, Vec<u8>)>,
    bytes: usize,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Whether an event of `bytes` must wait for the next batch.
    pub(super) fn is_full_for(&self, kind: &Kind, bytes: usize) -> bool {
        let events = self.events.len();
        let differs = events > 0 && self.kind != *kind;
        let too_large = events > 0 && self.bytes + bytes + 2 > BATCH_BYTES_MAX;
        events == BATCH_EVENTS_MAX || differs || too_large
    }

    pub(super) fn push(&mut self, place: Place, kind: Kind, event: Vec<u8>) {
        self.kind = kind;
        self.bytes += event.len() + 1;
        self.events.push((place, event));
    }

    /// The body of its request: a JSON array of the events as they stand.
    pub(super) fn body(&self) -> Bytes {
        let mut body = Vec::with_capacity(self.bytes + 1);
        for (index, (_, event)) in self.events.iter().enumerate() {
            body.push(if index == 0 { b'[' } else { b',' });
            body.extend_from_slice(event);
        }
        body.push(b']');
        Bytes::from(body)
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }

    pub(super) fn place(&self, index: usize) -> Option<&Place> {
        self.events.get(index).map(|(place, _)| place)
    }

    /// Its two halves, in order; `None` when it is a single event.
    pub(super) fn halves(mut self) -> Result<(Batch, Batch), Option<Place>> {
        if self.events.len() < 2 {
            return Err(self.events.pop().map(|(place, _)| place));
        }
        let second = self.events.split_off(self.events.len() / 2);
        let of = |events: Vec<(Place, Vec<u8>)>| {
            let bytes = events.iter().map(|(_, event)| event.len() + 1).sum();
            Batch { kind: self.kind.clone(), events, bytes }
        };
        Ok((of(self.events), of(second)))
    }
}

/// What the daemon made of a batch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Taken {
    pub(super) accepted: u64,
    pub(super) dropped: u64,
    pub(super) duplicate: u64,
    pub(super) quarantined: u64,
    /// Those that were not accepted.
    pub(super) items: Vec<Item>,
}

/// An event that was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Item {
    pub(super) index: usize,
    pub(super) outcome: String,
    pub(super) reason: String,
    pub(super) message: Option<String>,
}

/// What an answer means for its batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Every event has its end.
    Taken(Taken),
    /// Nothing was stored, and it may be taken later; the time that was asked for.
    Later(Option<Duration>, String),
    /// Nothing was stored, and never will be as it is: an event in it is at fault, or it is too large.
    Refused(String),
    /// Something is wrong that no event can be blamed for.
    Wrong(String),
}

/// Judges an answer of the ingest socket (DESIGN.md section 4), where `taken` is the status that says yes.
pub(super) fn judge(taken: u16, status: u16, retry_after: Option<u64>, body: &[u8]) -> Meaning {
    #[derive(Deserialize)]
    struct Problem {
        message: String,
    }
    let said = || match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => problem.message,
        Err(_) => format!("status {status}: {}", String::from_utf8_lossy(body)),
    };
    match status {
        status if status == taken => match serde_json::from_slice(body) {
            Ok(taken) => Meaning::Taken(taken),
            Err(error) => Meaning::Wrong(format!("its answer is not understood: {error}")),
        },
        408 | 503 => Meaning::Later(retry_after.map(Duration::from_secs), said()),
        400 | 413 => Meaning::Refused(said()),
        _ => Meaning::Wrong(format!("it answered {status}: {}", said())),
    }
}

/// Between tries, doubling.
pub(super) const DELAY_FIRST: Duration = Duration::from_millis(100);
/// The longest.
pub(super) const DELAY_MAX: Duration = Duration::from_secs(30);

/// How long to wait before the next try: what was asked for, else `delay`. The first tries come earlier than asked: on
/// the same host they cost nothing, and the queue may drain in a moment.
pub(super) fn wait(delay: Duration, asked: Option<Duration>) -> Duration {
    asked.map_or(delay, |asked| asked.min(DELAY_MAX).min(delay * 16))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(line: u64) -> Place {
        Place { file: "f".into(), line }
    }

    #[test]
    fn every_status_has_its_meaning() {
        for status in 100..=599 {
            let meaning = judge(200, status, Some(3), br#"{"code":"c","message":"why"}"#);
            let expected = match status {
                200 => Meaning::Taken(Taken::default()),
                400 | 413 => Meaning::Refused("why".into()),
                408 | 503 => Meaning::Later(Some(Duration::from_secs(3)), "why".into()),
                _ => Meaning::Wrong(format!("it answered {status}: why")),
            };
            assert_eq!(meaning, expected, "{status}");
        }
        let pushed = judge(202, 202, None, br#"{"status":"OK","accepted":3,"rejected":0}"#);
        assert_eq!(pushed, Meaning::Taken(Taken { accepted: 3, ..Taken::default() }));
        assert!(matches!(judge(202, 200, None, b"{}"), Meaning::Wrong(_)));
        let wrong = judge(200, 200, None, b"<html>");
        assert!(matches!(wrong, Meaning::Wrong(_)), "a stranger's 200 is no receipt: {wrong:?}");
    }

    #[test]
    fn what_the_daemon_asks_to_wait_is_kept_within_reason() {
        let seconds = Duration::from_secs;
        assert_eq!(wait(seconds(1), None), seconds(1));
        assert_eq!(wait(seconds(1), Some(seconds(5))), seconds(5));
        assert_eq!(wait(seconds(10), Some(seconds(3600))), DELAY_MAX);
        assert!(wait(DELAY_FIRST, Some(seconds(30))) < seconds(2));
    }

    #[test]
    fn a_push_holds_one_type_for_one_integration() {
        let kind = |record_type: &str, integration: Option<&str>| Kind::Record {
            record_type: record_type.into(),
            integration: integration.map(str::to_owned),
        };
        let mut batch = Batch::default();
        assert!(!batch.is_full_for(&kind("order", None), 2));
        batch.push(place(1), kind("order", None), b"{}".to_vec());
        assert!(!batch.is_full_for(&kind("order", None), 2));
        for other in [kind("product", None), kind("order", Some("uk")), Kind::Event] {
            assert!(batch.is_full_for(&other, 2), "{other:?}");
        }
        assert_eq!(kind("order", Some("uk")).path(), "/v2/push?integration=uk");
    }

    proptest! {
        #[test]
        fn batches_stay_within_their_limits(sizes in proptest::collection::vec(1_usize..200_000, 1..300)) {
            let mut batch = Batch::default();
            for (line, size) in (1..).zip(sizes) {
                if batch.is_full_for(&Kind::Event, size) {
                    prop_assert!(batch.events.len() <= BATCH_EVENTS_MAX);
                    batch = Batch::default();
                }
                batch.push(place(line), Kind::Event, vec![b'x'; size]);
                let bytes = batch.body().len();
                prop_assert!(bytes <= BATCH_BYTES_MAX || batch.events.len() == 1);
                prop_assert_eq!(bytes, batch.bytes + 1);
            }
        }

        /// Split until they stand alone, the events come in their order, each once.
        #[test]
        fn halves_keep_order_and_events(count in 1_u64..300) {
            let mut whole = Batch::default();
            (1..=count).for_each(|line| whole.push(place(line), Kind::Event, b"{}".to_vec()));
            let (mut stack, mut alone) = (vec![whole], Vec::new());
            while let Some(batch) = stack.pop() {
                match batch.halves() {
                    Ok((first, second)) => {
                        prop_assert!(!first.is_empty() && !second.is_empty());
                        stack.extend([second, first]);
                    }
                    Err(place) => alone.push(place.unwrap().line),
                }
            }
            prop_assert_eq!(alone, (1..=count).collect::<Vec<_>>());
        }
    }
}
