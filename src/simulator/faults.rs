//! PURE. What goes wrong on purpose: which pushes a fault hits, and what those pushes then get.
//!
//! - Every fault sees every push and counts those it could hit, so `every=10` means the same whatever
//!   other faults are active.
//! - Faults that only slow or adorn an answer all apply together, in the order they were added.
//! - Of the faults that replace the answer the first one that hits applies; the others are not spent.
//! - A fault that looks for a text never hits a push whose key is refused: a wrong key is told as such.

use std::num::NonZeroU64;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};

use super::checks::Record;

/// One thing that goes wrong on purpose; its text form is described at [`super::FAULT_GRAMMAR`].
///
/// The conditions hold together: a push is hit when it contains the text, and is a k-th such push, and
/// the count is not used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Only pushes whose body, or a record's id or event type, contains this text.
    pub contains: Option<String>,
    /// Only every k-th of those pushes.
    pub every: Option<NonZeroU64>,
    /// Only so many times; then the fault is gone.
    pub count: Option<NonZeroU64>,
    /// Waited before the effect. The push is judged, and counted as accepted, before the wait.
    pub delay: Duration,
    /// What becomes of the answer.
    pub effect: Effect,
    /// Set on the answer, replacing headers of the same name.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Replaces the answer's body.
    pub body: Option<String>,
}

/// What becomes of the answer to a push that is hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The checks decide as ever; the fault only adds a delay, headers or a body.
    Checked,
    /// This status, and nothing is accepted; 202 reads as [`Effect::Checked`].
    Status(StatusCode),
    /// No answer, the connection stays open.
    Hang,
    /// No answer, the connection is reset; nothing is accepted.
    Reset,
    /// The push is processed, then the connection is reset before the answer: it will come again.
    AcceptThenReset,
    /// Bytes that are no HTTP, then the end of the connection; nothing is accepted.
    Garbage,
    /// The push is accepted; later the ledger says that its records were rejected: those with the fault's text, or all.
    RejectLater,
}

impl Effect {
    /// Whether the client gets an HTTP answer.
    pub(super) fn answers(self) -> bool {
        matches!(self, Effect::Checked | Effect::Status(_) | Effect::RejectLater)
    }
}

/// What the faults do to one push.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Injection {
    /// The text forms of the faults that hit, joined by `; `; `None`: nothing hit.
    pub(super) faults: Option<String>,
    pub(super) delay: Duration,
    pub(super) effect: Effect,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) body: Option<String>,
    /// The text of the records that are rejected later.
    pub(super) later: Option<String>,
}

/// The active faults, in the order they were added.
#[derive(Debug, Default)]
pub(super) struct Faults {
    active: Vec<Active>,
}

/// A fault and its counts.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) fault: Fault,
    /// Pushes that the fault's text allows.
    pub(super) seen: u64,
    /// Pushes it was applied to.
    pub(super) hits: u64,
}

impl Faults {
    pub(super) fn add(&mut self, fault: Fault) {
        self.active.push(Active { fault, seen: 0, hits: 0 });
    }

    pub(super) fn clear(&mut self) {
        self.active.clear();
    }

    pub(super) fn active(&self) -> &[Active] {
        &self.active
    }

    /// Decides one push, and drops the faults it has used up.
    ///
    /// `content` is the push's body and records, or `None` when its key is refused.
    pub(super) fn decide(&mut self, content: Option<(&[u8], &[Record<'_>])>) -> Injection {
        let body = content.map(|(body, _)| String::from_utf8_lossy(body));
        let records = content.map_or(&[][..], |(_, records)| records);
        let mut injection = Injection {
            faults: None,
            delay: Duration::ZERO,
            effect: Effect::Checked,
            headers: Vec::new(),
            body: None,
            later: None,
        };
        for active in &mut self.active {
            if active.hits_next(body.as_deref(), records) && injection.admits(&active.fault) {
                active.hits += 1;
                injection.apply(&active.fault);
            }
        }
        self.active
            .retain(|active| active.fault.count.is_none_or(|count| active.hits < count.get()));
        injection
    }
}

impl Active {
    fn hits_next(&mut self, body: Option<&str>, records: &[Record<'_>]) -> bool {
        let contained = match &self.fault.contains {
            None => true,
            Some(text) => body.is_some_and(|body| contains(text, body, records)),
        };
        self.seen += u64::from(contained);
        contained && self.fault.every.is_none_or(|every| self.seen.is_multiple_of(every.get()))
    }
}

impl Injection {
    /// Whether `fault` may still apply: only one fault replaces the answer.
    fn admits(&self, fault: &Fault) -> bool {
        fault.effect == Effect::Checked || self.effect == Effect::Checked
    }

    fn apply(&mut self, fault: &Fault) {
        let text = fault.to_string();
        self.faults = Some(match self.faults.take() {
            Some(others) => format!("{others}; {text}"),
            None => text,
        });
        self.delay = self.delay.saturating_add(fault.delay);
        if fault.effect != Effect::Checked {
            self.effect = fault.effect;
        }
        if fault.effect == Effect::RejectLater {
            self.later = Some(fault.contains.clone().unwrap_or_default());
        }
        self.headers.extend(fault.headers.iter().cloned());
        if self.body.is_none() {
            self.body.clone_from(&fault.body);
        }
    }
}

impl Injection {
    /// Whether `record` is rejected later.
    pub(super) fn rejects_later(&self, record: &Record<'_>) -> bool {
        let rejected = |text: &String| contains(text, record.body, std::slice::from_ref(record));
        self.later.as_ref().is_some_and(rejected)
    }
}

/// A text escaped in JSON is not found in the body, so the decoded names are looked at too.
fn contains(text: &str, body: &str, records: &[Record<'_>]) -> bool {
    let named = |record: &Record<'_>| {
        record.id.contains(text)
            || record.event_type.as_ref().is_some_and(|event_type| event_type.contains(text))
    };
    body.contains(text) || records.iter().any(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(texts: &[&str]) -> Faults {
        let mut faults = Faults::default();
        for text in texts {
            faults.add(text.parse().unwrap());
        }
        faults
    }

    /// The statuses (0: no status) that a row of bodies gets.
    fn statuses(faults: &mut Faults, bodies: &[&str]) -> Vec<u16> {
        let status = |body: &&str| match faults.decide(Some((body.as_bytes(), &[]))).effect {
            Effect::Status(status) => status.as_u16(),
            _ => 0,
        };
        bodies.iter().map(status).collect()
    }

    #[test]
    fn conditions_hit_the_pushes_they_name() {
        let table: &[(&str, &[u16])] = &[
            ("status=503", &[503, 503, 503, 503, 503]),
            ("status=503,count=2", &[503, 503, 0, 0, 0]),
            ("status=503,every=2", &[0, 503, 0, 503, 0]),
            ("status=503,every=2,count=1", &[0, 503, 0, 0, 0]),
            ("poison=b", &[0, 400, 0, 400, 400]),
            ("poison=b,status=422,every=3", &[0, 0, 0, 0, 422]),
            ("contains=b,status=503,count=1", &[0, 503, 0, 0, 0]),
        ];
        for (text, expected) in table {
            let seen = statuses(&mut faults(&[text]), &["a", "ab", "a", "b", "cb"]);
            assert_eq!(seen, *expected, "{text}");
        }
    }

    #[test]
    fn the_first_replacing_fault_applies_and_the_second_is_not_spent() {
        let mut faults = faults(&["status=503,count=1", "status=429,count=1"]);
        assert_eq!(statuses(&mut faults, &["a", "a", "a"]), [503, 429, 0]);
        assert!(faults.active().is_empty());
    }

    #[test]
    fn delays_and_headers_of_all_faults_add_up_whatever_their_order() {
        let mut faults =
            faults(&["delay=1s", "poison=b", "delay=2s,retry-after=3", "every=2,hang"]);
        let injection = faults.decide(Some((b"b", &[])));
        assert_eq!(injection.delay, Duration::from_secs(3));
        assert_eq!(injection.effect, Effect::Status(StatusCode::BAD_REQUEST));
        assert_eq!(injection.headers.len(), 1);
        assert_eq!(injection.faults.as_deref(), Some("delay=1s; poison=b; delay=2s,retry-after=3"));
        // `every` has counted the first push although another fault took it.
        assert_eq!(faults.decide(Some((b"a", &[]))).effect, Effect::Hang);
    }

    #[test]
    fn a_text_is_found_in_decoded_names_and_never_behind_a_refused_key() {
        let mut faults = faults(&["poison=caf\u{e9}"]);
        let body = br#"[{"id":"caf\u00e9"}]"#;
        let record = Record { id: "caf\u{e9}".to_owned(), ..Record::default() };
        assert_eq!(faults.decide(Some((body, &[]))).faults, None);
        assert!(faults.decide(Some((body, &[record]))).faults.is_some());
        assert_eq!(faults.decide(None).faults, None);
    }
}
