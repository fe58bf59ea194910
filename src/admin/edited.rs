//! PURE. What an operator has edited before a retry, checked as Ometria checks it: another record under the same id and
//! `@type`, or another event under the same `messageId`.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::event::Timestamp;
use crate::forward::verdict::record_id;
use crate::ingest::read_push;
use crate::mapping::person::{self, Person};
use crate::mapping::record::CUSTOM_EVENT;
use crate::spool::{PersonKey, PersonKeys};

/// A record that may take the place of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edited {
    /// Its bytes, on one line.
    pub(super) bytes: Bytes,
    /// The address of its person.
    pub(super) email: Option<String>,
    /// Whose consent it needs.
    pub(super) person: PersonKeys,
}

/// Checks `new` in the place of `old`, a record of `record_type` about `person`.
///
/// # Errors
/// What Ometria would refuse, or what must stay as it was.
pub(super) fn record(
    record_type: &str,
    person: PersonKeys,
    old: &[u8],
    new: &str,
) -> Result<Edited, String> {
    let new = compact(new);
    let (bytes, email) = read(record_type, &new)?;
    let (before, after) = (Fields::of(old), Fields::of(new.as_bytes()));
    if let Some(id) = record_id(&before.id)
        && record_id(&after.id).as_ref() != Some(&id)
    {
        return Err(format!(
            "its `id` must stay {id:?}: another would be a second event to Ometria"
        ));
    }
    if record_type == CUSTOM_EVENT {
        custom_event(&after)?;
    }
    let before = before.identity_email.as_str().or(before.email.as_str()).map(str::to_owned);
    let person = keys(record_type, person, before.as_deref(), email.as_deref());
    Ok(Edited { bytes, email, person })
}

/// The bytes of the one record of `record_type` that `text` is, and the address of its person.
///
/// # Errors
/// What Ometria would refuse, or that it has another type.
pub(super) fn read(record_type: &str, text: &str) -> Result<(Bytes, Option<String>), String> {
    serde_json::from_str::<&RawValue>(text).map_err(|error| format!("it is no JSON: {error}"))?;
    let read = read_push(format!("[{text}]").as_bytes()).map_err(|refusal| {
        let message = refusal.message;
        message.strip_prefix("record 0: ").map_or(message.clone(), str::to_owned)
    })?;
    let is = read.record_type;
    if is != record_type {
        return Err(format!("its `@type` must stay {record_type:?}, and is {is:?}"));
    }
    let pushed = read.records.into_iter().next().expect("one value is one record");
    Ok((pushed.bytes, pushed.email))
}

/// What Ometria asks of a custom event (OMETRIA.md).
fn custom_event(fields: &Fields) -> Result<(), String> {
    if record_id(&fields.id).is_none_or(|id| id.is_empty()) {
        return Err("its `id` must be a text".to_owned());
    }
    if fields.event_type.as_str().is_none_or(str::is_empty) {
        return Err("its `event_type` must be a text".to_owned());
    }
    let time = fields.timestamp.as_str().and_then(Timestamp::parse);
    time.map(drop).ok_or_else(|| {
        "its `timestamp` must be a time, such as 2026-06-06T15:32:52+00:00".to_owned()
    })
}

/// Checks that an event keeps its `messageId`, as far as it had one that can be read. What else it must be, the mapping
/// says.
///
/// # Errors
/// What must stay as it was.
pub(super) fn event(old: &[u8], new: &str) -> Result<String, String> {
    let new = compact(new);
    let (before, after) = (Fields::of(old), Fields::of(new.as_bytes()));
    match record_id(&before.message_id).filter(|id| !id.is_empty()) {
        Some(id) if record_id(&after.message_id).as_ref() != Some(&id) => Err(format!(
            "its `messageId` must stay {id:?}: another would be a second event to Ometria"
        )),
        _ => Ok(new),
    }
}

/// What is read of a record or an event.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    id: Value,
    #[serde(rename = "messageId")]
    message_id: Value,
    event_type: Value,
    timestamp: Value,
    identity_email: Value,
    email: Value,
}

impl Fields {
    fn of(body: &[u8]) -> Fields {
        serde_json::from_slice(body).unwrap_or_default()
    }
}

/// The keys of a person whose address was `before` and is `after`: consent and erasure must find the new one.
fn keys(
    record_type: &str,
    old: PersonKeys,
    before: Option<&str>,
    after: Option<&str>,
) -> PersonKeys {
    if before == after {
        return old;
    }
    let needs = |email| person::needs(Person { email: Some(email), ..Person::default() }).next();
    let ready = |email| Some(person::ready(email));
    let (old_needs, old_ready) = (before.and_then(needs), before.and_then(ready));
    let first = match (before, after) {
        // What was mapped needs consent; what was handed over ready does not.
        (None, Some(email)) if record_type == CUSTOM_EVENT => needs(email),
        (None, Some(email)) => ready(email),
        _ => None,
    };
    let kept = old.iter().filter_map(|key| {
        if Some(key.0) == old_needs {
            after.and_then(needs)
        } else if Some(key.0) == old_ready {
            after.and_then(ready)
        } else {
            Some(key.0)
        }
    });
    PersonKeys::new(first.into_iter().chain(kept).map(PersonKey))
}

/// JSON without the white space between its tokens. What is no JSON stays no JSON.
fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for letter in json.chars() {
        if in_string {
            in_string = escaped || letter != '"';
            escaped = letter == '\\' && !escaped;
        } else if matches!(letter, ' ' | '\t' | '\r' | '\n') {
            continue;
        } else {
            in_string = letter == '"';
        }
        out.push(letter);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = r#"{"@type":"custom_event","id":"a","timestamp":"2026-06-06T15:32:52+00:00","event_type":"nap","identity_email":"Jane@x","properties":{"n":1}}"#;

    fn edited(record_type: &str, new: &str) -> Result<Edited, String> {
        record(record_type, PersonKeys::default(), OLD.as_bytes(), new)
    }

    #[test]
    fn a_record_keeps_its_id_and_type_and_its_tokens() {
        let new = OLD
            .replace(r#"{"n":1}"#, "{\n  \"n\" : 79.00, \"s\": \"a \\\" \\\\\" , \"t\":\" b\"\n}");
        let done = edited("custom_event", &new).unwrap();
        let expected = OLD.replace(r#"{"n":1}"#, r#"{"n":79.00,"s":"a \" \\","t":" b"}"#);
        assert_eq!(done.bytes, expected);
        assert_eq!(done.email.as_deref(), Some("Jane@x"));
        let order = r#"{"@type":"order","id":"a"}"#;
        for (record_type, new, why) in [
            ("order", OLD.to_owned(), "`@type` must stay \"order\""),
            ("custom_event", order.to_owned(), "`@type` must stay \"custom_event\""),
            ("custom_event", OLD.replace(r#""id":"a""#, r#""id":"b""#), "`id` must stay \"a\""),
            ("order", r#"{"@type":"order"}"#.to_owned(), "`id` must stay \"a\""),
            ("custom_event", OLD.replace("nap", ""), "`event_type`"),
            ("custom_event", OLD.replace("2026-", ""), "`timestamp`"),
            ("custom_event", OLD.replace("nap", &"x".repeat(60_000)), "the limit is 60000"),
            ("custom_event", format!("{OLD},{OLD}"), "trailing characters"),
            ("custom_event", "{".to_owned(), "it is no JSON: EOF"),
            ("custom_event", "7".to_owned(), "must be an object"),
            ("custom_event", "{}".to_owned(), "`@type` must be a text"),
        ] {
            let error = edited(record_type, &new).unwrap_err();
            assert!(error.contains(why), "{new}: {error}");
        }
        assert!(edited("order", order).is_ok(), "of other types nothing more is known");
    }

    #[test]
    fn an_event_keeps_the_id_that_it_had() {
        let old = br#"{"messageId":"m","type":"track"}"#;
        assert_eq!(event(old, "{ \"messageId\":\"m\" }").unwrap(), r#"{"messageId":"m"}"#);
        assert!(event(old, r#"{"messageId":"n"}"#).unwrap_err().contains("must stay \"m\""));
        assert!(event(b"no json", r#"{"messageId":"n"}"#).is_ok());
    }

    /// Promise 8 in spirit: who is named after the edit can be erased, and can deny.
    #[test]
    fn another_address_is_another_person() {
        let needs = |email| person::needs(Person { email: Some(email), ..Person::default() });
        let user = PersonKey(7);
        let of = |keys: &[u64]| PersonKeys::new(keys.iter().copied().map(PersonKey));
        let [jane, bob] = ["jane@x", "bob@x"].map(|email| needs(email).next().unwrap());
        let [jane_ready, bob_ready] = ["jane@x", "bob@x"].map(person::ready);
        for (record_type, old, before, after, new) in [
            ("custom_event", of(&[jane, 7]), Some("jane@x"), Some("jane@x"), of(&[jane, 7])),
            ("custom_event", of(&[jane, 7]), Some("jane@x"), Some("bob@x"), of(&[bob, 7])),
            ("custom_event", of(&[7]), None, Some("bob@x"), of(&[bob, 7])),
            ("custom_event", of(&[jane, 7]), Some("jane@x"), None, of(&[7])),
            ("order", of(&[jane_ready]), Some("jane@x"), Some("bob@x"), of(&[bob_ready])),
            ("order", of(&[]), None, Some("bob@x"), of(&[bob_ready])),
        ] {
            assert_eq!(keys(record_type, old, before, after), new, "{before:?} {after:?} {user:?}");
        }
    }
}
