//! PURE. `POST /v2/push`: what clients of Ometria send, read as Ometria reads it.
//!
//! An array of 1 to 100 records of one `@type`, each at most [`RECORD_BYTES_MAX`] bytes. What passes is queued and delivered
//! byte for byte; nothing is mapped, no consent is asked, no identity is read or changed. Beyond what Ometria documents
//! nothing is refused: what else it refuses is found when the record is delivered, and isolated.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::answer::Refusal;
use crate::event::{DEPTH_MAX, repair};
use crate::mapping::RECORD_BYTES_MAX;

/// The most records of a push (Ometria, Data API; read 2026-06).
const RECORDS_MAX: usize = 100;

/// A push as it was read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Push {
    /// The `@type` of all its records.
    pub(crate) record_type: String,
    /// In their order.
    pub(crate) records: Vec<Pushed>,
}

/// One record.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// The person's address, as far as it can be read: it chooses the lane.
    pub(crate) email: Option<String>,
    /// Its bytes as they came, without the white space around them.
    pub(crate) bytes: Bytes,
}

/// The answer to a push that is stored, as Ometria gives it.
#[derive(Debug, Serialize)]
pub(crate) struct Accepted {
    pub(crate) status: &'static str,
    pub(crate) request_id: String,
    #[expect(clippy::struct_field_names, reason = "the name is Ometria's")]
    pub(crate) accepted: u64,
    pub(crate) rejected: u64,
}

/// What is read of a record; the rest is not looked at.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow, rename = "@type")]
    record_type: Option<&'a RawValue>,
    #[serde(borrow)]
    identity_email: Option<&'a RawValue>,
    #[serde(borrow)]
    email: Option<&'a RawValue>,
}

/// Reads a push.
///
/// # Errors
/// The first thing that Ometria would refuse, with the record's place in the array.
pub(crate) fn read(body: &[u8]) -> Result<Push, Refusal> {
    // Looks at encoding and depth; what it would repair is not this body's business.
    repair(body, DEPTH_MAX)?;
    let invalid = |message: String| Refusal::new("invalid_event", message);
    let records: Vec<&RawValue> = serde_json::from_slice(body).map_err(|error| {
        let code = if error.is_data() { "invalid_event" } else { "invalid_json" };
        Refusal::new(code, format!("the body must be an array of records: {error}"))
    })?;
    if records.is_empty() || records.len() > RECORDS_MAX {
        let message =
            format!("a push holds 1 to {RECORDS_MAX} records, this one has {}", records.len());
        return Err(invalid(message));
    }
    let mut push = Push { record_type: String::new(), records: Vec::with_capacity(records.len()) };
    for (index, record) in records.into_iter().enumerate() {
        let at = |message: &str| invalid(format!("record {index}: {message}"));
        let text = record.get();
        let fields = text.starts_with('{').then(|| serde_json::from_str::<Fields<'_>>(text));
        let Some(fields) = fields else { return Err(at("it must be an object")) };
        let fields = fields.map_err(|error| at(&error.to_string()))?;
        let record_type = fields.record_type.and_then(text_of).filter(|name| !name.is_empty());
        let Some(record_type) = record_type else { return Err(at("`@type` must be a text")) };
        if index == 0 {
            push.record_type = record_type;
        } else if record_type != push.record_type {
            return Err(at(
                "its `@type` is another than the first record's: a push holds one type",
            ));
        }
        if text.len() > RECORD_BYTES_MAX {
            let bytes = text.len();
            return Err(at(&format!("it has {bytes} bytes, the limit is {RECORD_BYTES_MAX}")));
        }
        let email = fields.identity_email.or(fields.email).and_then(text_of);
        push.records.push(Pushed { email, bytes: Bytes::copy_from_slice(text.as_bytes()) });
    }
    Ok(push)
}

fn text_of(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: &str = r#"{"@type":"order","id":"o-1","email":"a@b.c","total": 79.00}"#;

    fn refused(body: &str) -> (&'static str, String) {
        let refusal = read(body.as_bytes()).unwrap_err();
        (refusal.code, refusal.message)
    }

    #[test]
    fn records_keep_their_bytes() {
        let body =
            format!(" [ {ORDER} ,\n{{ \"@type\" : \"order\",\n\"x\":[1e400,\"\\ud800\"] }}\t]");
        let push = read(body.as_bytes()).unwrap();
        assert_eq!(push.record_type, "order");
        assert_eq!(push.records[0].bytes, ORDER);
        assert_eq!(push.records[0].email.as_deref(), Some("a@b.c"));
        assert_eq!(push.records[1].bytes, "{ \"@type\" : \"order\",\n\"x\":[1e400,\"\\ud800\"] }");
        let hundred = format!("[{}]", vec![ORDER; 100].join(","));
        assert_eq!(read(hundred.as_bytes()).unwrap().records.len(), 100);
    }

    #[test]
    fn what_ometria_refuses_is_refused_with_its_place() {
        let large = format!(r#"{{"@type":"order","x":"{}"}}"#, "x".repeat(RECORD_BYTES_MAX));
        let many = vec![ORDER; 101].join(",");
        let deep = format!(r#"{{"@type":"order","x":{}1{}}}"#, "[".repeat(70), "]".repeat(70));
        for (body, code, message) in [
            ("[]".to_owned(), "invalid_event", "1 to 100 records, this one has 0"),
            (format!("[{many}]"), "invalid_event", "this one has 101"),
            (ORDER.to_owned(), "invalid_event", "must be an array"),
            ("7".to_owned(), "invalid_event", "must be an array"),
            (format!("[{ORDER}"), "invalid_json", "must be an array"),
            ("[NaN]".to_owned(), "invalid_json", "line 1 column 2"),
            (format!("[{ORDER},7]"), "invalid_event", "record 1: it must be an object"),
            (format!("[{ORDER},{{}}]"), "invalid_event", "record 1: `@type` must be a text"),
            (r#"[{"@type":7}]"#.to_owned(), "invalid_event", "record 0: `@type` must be a text"),
            (r#"[{"@type":""}]"#.to_owned(), "invalid_event", "record 0: `@type` must be a text"),
            (
                format!(r#"[{ORDER},{{"@type":"product"}}]"#),
                "invalid_event",
                "record 1: its `@type` is another",
            ),
            (
                r#"[{"@type":"a","@type":"b"}]"#.to_owned(),
                "invalid_event",
                "record 0: duplicate field",
            ),
            (format!("[{ORDER},{large}]"), "invalid_event", "the limit is 60000"),
            (format!("[{deep}]"), "invalid_json", "nested deeper"),
        ] {
            let (found, told) = refused(&body);
            assert_eq!(found, code, "{told}");
            assert!(told.contains(message), "{told}");
        }
        assert_eq!(read(b"[\xff]").unwrap_err().code, "invalid_json");
    }
}
