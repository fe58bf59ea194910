//! PURE. Why an event became what it became, for those who try a mapping out.

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

use super::consent::{Consent, Stance};
use super::record::Record;
use super::rules::Rules;
use crate::advice;
use crate::event::{Event, Timestamp};

/// Seconds after which an event starts no automation.
const AUTOMATION_SECONDS_MAX: i64 = advice::AUTOMATION_MAX.as_secs().cast_signed();

/// What should be known of a record that is sent nevertheless.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Note {
    /// Nobody's address is known.
    NoIdentityEmail,
    /// Ometria cuts its event type.
    EventTypeTruncated,
    /// It happened too long ago.
    Old,
}

impl Note {
    const ALL: [Note; 3] = [Note::NoIdentityEmail, Note::EventTypeTruncated, Note::Old];

    /// A stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Note::NoIdentityEmail => "no_identity_email",
            Note::EventTypeTruncated => "event_type_truncated",
            Note::Old => "old",
        }
    }

    /// What it is, in a few words.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Note::NoIdentityEmail => "no identity_email",
            Note::EventTypeTruncated => "event type over 512 characters",
            Note::Old => "older than four hours",
        }
    }

    /// What follows from it, and its cure.
    #[must_use]
    pub fn cure(self) -> &'static str {
        match self {
            Note::NoIdentityEmail => advice::NO_IDENTITY_EMAIL,
            Note::EventTypeTruncated => advice::EVENT_TYPE_TRUNCATED,
            Note::Old => advice::OLD,
        }
    }
}

/// Its code, and a sentence.
#[derive(serde::Serialize, serde::Deserialize)]
struct Noted {
    code: String,
    message: String,
}

impl Serialize for Note {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let message = format!("{}: {}", self.title(), self.cure());
        Noted { code: self.code().to_owned(), message }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Note {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Note, D::Error> {
        let noted = Noted::deserialize(deserializer)?;
        let known = Note::ALL.into_iter().find(|note| note.code() == noted.code);
        known.ok_or_else(|| D::Error::custom("unknown note"))
    }
}

/// What should be known of `record`, made of `event`, at `now`.
#[must_use]
pub fn notes(record: &Record, event: &Event<'_>, now: Timestamp) -> Vec<Note> {
    let old = now.seconds() - event.time.seconds() > AUTOMATION_SECONDS_MAX;
    [
        (record.identity_email.is_none(), Note::NoIdentityEmail),
        (record.event_type_truncated, Note::EventTypeTruncated),
        (old, Note::Old),
    ]
    .into_iter()
    .filter_map(|(applies, note)| applies.then_some(note))
    .collect()
}

/// The categories that `rules` ask for and `event` does not grant, with what it says.
#[must_use]
pub fn lacking<'r>(rules: &'r Rules, event: &Event<'_>) -> Vec<(&'r str, Stance)> {
    let consent = Consent::read(&event.context);
    let said = rules.consent.iter().map(|category| (category.as_str(), consent.stance(category)));
    said.filter(|(_, stance)| *stance != Stance::Granted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;
    use crate::event::{Kind, single};
    use crate::mapping::{Identity, Outcome, Preset, map};

    #[test]
    fn a_record_is_noted_for_what_it_lacks() {
        let known = r#""traits":{"email":"e@x"}"#;
        let long = "x".repeat(513);
        let at = |time: &str| format!("\"timestamp\":\"2026-06-06T{time}Z\"");
        let [young, old] = ["08:00:00", "07:59:59"].map(at);
        for (event, fields, expected) in [
            ("E", format!("{known},{young}"), &[][..]),
            ("E", format!("{known},{old}"), &[Note::Old]),
            ("E", young.clone(), &[Note::NoIdentityEmail]),
            (&long, format!("{known},{young}"), &[Note::EventTypeTruncated]),
        ] {
            let body = format!("{{\"event\":\"{event}\",{fields}}}");
            let event = single(&body, Kind::Track, UnixMillis(0)).unwrap();
            let rules = Rules::new(Preset::Default, Vec::new());
            let Outcome::Record(record) = map(&event, &Identity::default(), &rules, String::new)
            else {
                panic!()
            };
            let now = Timestamp::parse("2026-06-06T12:00:00Z").unwrap();
            assert_eq!(notes(&record, &event, now), expected, "{fields}");
        }
    }

    #[test]
    fn what_is_lacking_is_named_with_what_was_said() {
        let body = r#"{"context":{"consent":{"a":true,"b":false}}}"#;
        let event = single(body, Kind::Page, UnixMillis(0)).unwrap();
        let asked = ["a", "b", "c"].map(str::to_owned).to_vec();
        let rules = Rules::new(Preset::Default, asked);
        let expected = [("b", Stance::Denied), ("c", Stance::Unstated)];
        assert_eq!(lacking(&rules, &event), expected);
    }
}
