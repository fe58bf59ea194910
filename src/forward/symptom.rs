//! PURE. What should be known of records that were delivered: Ometria took them, and will do less with them than was meant.
//!
//! Only custom events are looked at. Those that the mapping wrote all begin alike, so that a look at the first bytes is enough:
//! it costs a fraction of what their push does. Records that were handed over ready are parsed.

use memchr::memchr2;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::advice::AUTOMATION_MAX;
use crate::clock::UnixMillis;
use crate::spool::Entry;

const CUSTOM_EVENT: &str = "custom_event";
/// Of a time of the mapping's: what stands before its offset, which is always that of UTC.
const TIME_BYTES: usize = "2026-06-06T15:32:52".len();

/// Delivered records that Ometria will do less with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Symptoms {
    /// They name no customer.
    pub without_email: u64,
    /// They came so late that no automation starts.
    pub late: u64,
}

impl Symptoms {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Symptoms) -> Symptoms {
        Symptoms {
            without_email: self.without_email + other.without_email,
            late: self.late + other.late,
        }
    }
}

/// What is to be known of `entries`, delivered at `at`.
#[must_use]
pub fn of<'e>(entries: impl Iterator<Item = &'e Entry>, at: UnixMillis) -> Symptoms {
    let deadline = Deadline::new(at);
    let mut symptoms = Symptoms::default();
    for entry in entries {
        symptoms = symptoms.plus(deadline.judge(&entry.record_type, &entry.record));
    }
    symptoms
}

/// What is to be known of one record of `record_type`, delivered at `at`.
#[must_use]
pub fn of_record(record_type: &str, record: &[u8], at: UnixMillis) -> Symptoms {
    Deadline::new(at).judge(record_type, record)
}

/// The moment before which what happened comes too late.
struct Deadline {
    at: jiff::Timestamp,
    /// As the mapping writes times.
    text: String,
}

impl Deadline {
    fn new(delivered_at: UnixMillis) -> Deadline {
        let millis = u64::try_from(AUTOMATION_MAX.as_millis()).unwrap_or(u64::MAX);
        let seconds = delivered_at.0.saturating_sub(millis) / 1000;
        let at = i64::try_from(seconds).ok().and_then(|it| jiff::Timestamp::from_second(it).ok());
        let at = at.unwrap_or(jiff::Timestamp::MAX);
        Deadline { at, text: at.to_string() }
    }

    fn judge(&self, record_type: &str, record: &[u8]) -> Symptoms {
        if record_type != CUSTOM_EVENT {
            return Symptoms::default();
        }
        let text = self.text.as_bytes().get(..TIME_BYTES).unwrap_or_default();
        let (late, named) = match written(record) {
            Some((time, named)) => (time < text, named),
            None => parsed(record, self.at),
        };
        Symptoms { without_email: u64::from(!named), late: u64::from(late) }
    }
}

/// The time of a record as the mapping writes it, and whether it names a customer.
fn written(record: &[u8]) -> Option<(&[u8], bool)> {
    let rest = record.strip_prefix(br#"{"@type":"custom_event","id":"#)?;
    let rest = after_text(rest)?.strip_prefix(br#","timestamp":""#)?;
    let (time, rest) = rest.split_at_checked(TIME_BYTES)?;
    let rest = rest.strip_prefix(br#"+00:00","event_type":"#)?;
    Some((time, after_text(rest)?.starts_with(br#","identity_email":"#)))
}

/// What follows the JSON string that `json` begins with.
fn after_text(json: &[u8]) -> Option<&[u8]> {
    let mut rest = json.strip_prefix(b"\"")?;
    loop {
        let found = memchr2(b'"', b'\\', rest)?;
        if rest.get(found) == Some(&b'"') {
            return rest.get(found + 1..);
        }
        rest = rest.get(found + 2..)?;
    }
}

/// Whether any other record came later than `latest`, and whether it names a customer.
fn parsed(record: &[u8], latest: jiff::Timestamp) -> (bool, bool) {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Fields {
        timestamp: Value,
        identity_email: Value,
        identity_account_id: Value,
        profile_id: Value,
    }
    let Ok(fields) = serde_json::from_slice::<Fields>(record) else { return (false, true) };
    let time = fields.timestamp.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let is_given = |value: &Value| !value.is_null() && value.as_str() != Some("");
    let names = [&fields.identity_email, &fields.identity_account_id, &fields.profile_id];
    (time.is_some_and(|time| time < latest), names.into_iter().any(is_given))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::batch::tests::entries;

    /// 2026-06-06T15:32:52Z.
    const NOW: UnixMillis = UnixMillis(1_780_759_972_000);

    fn found(record_type: &str, record: &str) -> (u64, u64) {
        let mut entries = entries(&[record_type]);
        entries[0].record = record.to_owned().into();
        let Symptoms { without_email, late } = of(entries.iter(), NOW);
        (without_email, late)
    }

    #[test]
    fn records_of_the_mapping_are_known_by_how_they_begin() {
        let record = |id: &str, time: &str, rest: &str| {
            format!(
                r#"{{"@type":"custom_event","id":"{id}","timestamp":"{time}+00:00","event_type":"e"{rest},"properties":{{}}}}"#
            )
        };
        let named = r#","identity_email":"e@x""#;
        for (record, expected) in [
            (record("a", "2026-06-06T15:32:52", named), (0, 0)),
            (record("a", "2026-06-06T11:32:52", named), (0, 0)),
            (record("a", "2026-06-06T11:32:51", named), (0, 1)),
            (record("a", "2025-12-31T23:59:59", ""), (1, 1)),
            (record(r#"a\"b\\"#, "2026-06-06T15:32:52", named), (0, 0)),
            (record(r#"a\\\","#, "2026-06-06T15:32:52", ""), (1, 0)),
        ] {
            assert!(written(record.as_bytes()).is_some(), "{record}");
            assert_eq!(found("custom_event", &record), expected, "{record}");
            assert_eq!(found("order", &record), (0, 0));
        }
    }

    #[test]
    fn records_of_others_are_read() {
        for (record, expected) in [
            (r#"{"timestamp":"2026-06-06T13:32:51+02:00","identity_email":"e@x"}"#, (0, 1)),
            (r#"{ "timestamp":"2026-06-06T13:32:52+02:00","identity_email":"e@x"}"#, (0, 0)),
            (r#"{"@type":"custom_event","id":"a","identity_email":""}"#, (1, 0)),
            (r#"{"@type":"custom_event","profile_id":"p"}"#, (0, 0)),
            (r#"{"@type":"custom_event","identity_account_id":7}"#, (0, 0)),
            ("no JSON", (0, 0)),
        ] {
            assert_eq!(found("custom_event", record), expected, "{record}");
        }
    }
}
