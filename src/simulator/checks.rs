//! PURE. What a push must be: body bytes → the records in it and the first fault found.
//!
//! The rules are those of Ometria's documentation; where it is silent the stricter reading is taken, so
//! that what passes here is safe to send. Nothing is checked that depends on other pushes.

use std::collections::HashMap;

use serde_json::value::RawValue;

/// The most records one push may hold (Ometria, Data API).
pub const PUSH_RECORDS_MAX: usize = 100;

/// The most bytes one record may have as compact JSON (Ometria says 60 KB; the lower reading is taken).
pub const RECORD_BYTES_MAX: usize = 60_000;

/// The record type with rules of its own.
const CUSTOM_EVENT: &str = "custom_event";

/// A push as far as it could be read, and why it is refused, if it is.
#[derive(Debug, Default)]
pub(super) struct Report<'a> {
    /// How many elements the array has; 0 when the body is no array.
    pub(super) records_total: usize,
    /// The first [`PUSH_RECORDS_MAX`] elements, in order, also of a push that is refused.
    pub(super) records: Vec<Record<'a>>,
    /// The first fault; `None`: the push is accepted.
    pub(super) refusal: Option<Refusal>,
}

/// One element of the array. Fields are empty where the element does not have them as text.
#[derive(Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "`record_type` is the word for `@type` everywhere")]
pub(super) struct Record<'a> {
    pub(super) id: String,
    pub(super) record_type: String,
    pub(super) event_type: Option<String>,
    /// The bytes as received, without the white space around them.
    pub(super) body: &'a str,
}

/// Why a push is refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// The guilty record's place in the array, from 0; `None`: the fault is not in one record.
    pub(super) index: Option<usize>,
    /// What is wrong, without the index.
    pub(super) what: String,
}

impl Refusal {
    fn push(what: impl Into<String>) -> Refusal {
        Refusal { index: None, what: what.into() }
    }

    /// The sentence of the answer.
    pub(super) fn message(&self) -> String {
        match self.index {
            Some(index) => format!("Payload invalid: {} (record {index})", self.what),
            None => format!("Payload invalid: {}", self.what),
        }
    }
}

/// Reads and checks the body of one push. Never panics, whatever the bytes.
pub(super) fn check(body: &[u8]) -> Report<'_> {
    let elements = match read_array(body) {
        Ok(elements) => elements,
        Err(refusal) => return Report { refusal: Some(refusal), ..Report::default() },
    };
    let mut report = Report { records_total: elements.len(), ..Report::default() };
    if elements.is_empty() {
        report.refusal = Some(Refusal::push("the array holds no record."));
    } else if elements.len() > PUSH_RECORDS_MAX {
        report.refusal = Some(Refusal::push(format!(
            "{} records, at most {PUSH_RECORDS_MAX} are allowed.",
            elements.len()
        )));
    }
    for (index, element) in elements.into_iter().take(PUSH_RECORDS_MAX).enumerate() {
        let (record, verdict) = read_record(element.get());
        let verdict = verdict.and_then(|()| same_type(report.records.first(), &record));
        report.records.push(record);
        if let (Err(what), None) = (verdict, &report.refusal) {
            report.refusal = Some(Refusal { index: Some(index), what });
        }
    }
    report
}

/// Checks the two headers that say what the body is: `None` is a header that is missing or no text.
pub(super) fn check_headers(
    content_type: Option<&str>,
    content_encoding: Option<&str>,
) -> Result<(), Refusal> {
    let Some(content_type) = content_type else {
        return Err(Refusal::push("no Content-Type, application/json is required."));
    };
    let mut parts = content_type.split(';').map(str::trim);
    if !parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json")) {
        return Err(Refusal::push("the Content-Type is not application/json."));
    }
    let utf8 = |charset: &str| charset.trim_matches('"').eq_ignore_ascii_case("utf-8");
    let is_utf8 = |parameter: &str| match parameter.split_once('=') {
        Some((name, charset)) if name.eq_ignore_ascii_case("charset") => utf8(charset),
        _ => true,
    };
    if !parts.all(is_utf8) {
        return Err(Refusal::push("the charset is not utf-8."));
    }
    match content_encoding {
        Some(encoding) if !encoding.eq_ignore_ascii_case("identity") => {
            Err(Refusal::push("a Content-Encoding is not accepted."))
        }
        _ => Ok(()),
    }
}

fn read_array(body: &[u8]) -> Result<Vec<&RawValue>, Refusal> {
    let text = std::str::from_utf8(body)
        .map_err(|fault| Refusal::push(format!("not UTF-8 at byte {}.", fault.valid_up_to())))?;
    if let Ok(elements) = serde_json::from_str::<Vec<&RawValue>>(text) {
        return Ok(elements);
    }
    Err(match serde_json::from_str::<&RawValue>(text) {
        Ok(_) => Refusal::push("the body is not an array of records."),
        Err(fault) => Refusal::push(format!("not JSON: {fault}.")),
    })
}

/// Reads what it can of one element, and says what is wrong with it.
fn read_record(body: &str) -> (Record<'_>, Result<(), String>) {
    let mut record = Record { body, ..Record::default() };
    let fields = match serde_json::from_str::<HashMap<String, &RawValue>>(body) {
        Ok(fields) => fields,
        Err(_) if !body.starts_with('{') => {
            return (record, Err("the record is not an object.".to_owned()));
        }
        Err(fault) => return (record, Err(format!("the record is unreadable: {fault}."))),
    };
    let record_type = required(&fields, "@type");
    let id = required(&fields, "id");
    record.record_type = record_type.clone().unwrap_or_default();
    record.id = id.clone().unwrap_or_default();
    record.event_type = text(&fields, "event_type").ok().flatten();
    let verdict = record_type
        .and_then(|record_type| id.map(|_| record_type))
        .and_then(|record_type| match record_type.as_str() {
            CUSTOM_EVENT => check_custom_event(&fields),
            _ => Ok(()),
        })
        .and_then(|()| match compact_bytes(body) {
            bytes if bytes > RECORD_BYTES_MAX => Err("Record is too large.".to_owned()),
            _ => Ok(()),
        });
    (record, verdict)
}

fn check_custom_event(fields: &HashMap<String, &RawValue>) -> Result<(), String> {
    let timestamp = required(fields, "timestamp")?;
    if !is_timestamp(&timestamp) {
        return Err("timestamp is not an ISO 8601 time with an offset.".to_owned());
    }
    required(fields, "event_type")?;
    for optional in ["identity_email", "profile_id", "identity_account_id"] {
        text(fields, optional)?;
    }
    match fields.get("properties") {
        Some(properties) if !properties.get().starts_with('{') => {
            Err("properties is not an object.".to_owned())
        }
        _ => Ok(()),
    }
}

/// `2023-05-25T15:32:52+00:00` and its kin; no local times, no time zone names.
fn is_timestamp(text: &str) -> bool {
    text.contains(['T', 't']) && !text.contains('[') && text.parse::<jiff::Timestamp>().is_ok()
}

fn required(fields: &HashMap<String, &RawValue>, name: &str) -> Result<String, String> {
    match text(fields, name)? {
        Some(value) if value.is_empty() => Err(format!("{name} is empty.")),
        Some(value) => Ok(value),
        None => Err(format!("{name} is missing.")),
    }
}

fn text(fields: &HashMap<String, &RawValue>, name: &str) -> Result<Option<String>, String> {
    let Some(value) = fields.get(name) else { return Ok(None) };
    match serde_json::from_str(value.get()) {
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(format!("{name} is not a string.")),
    }
}

fn same_type(first: Option<&Record<'_>>, record: &Record<'_>) -> Result<(), String> {
    match first {
        Some(first) if first.record_type != record.record_type => Err(format!(
            "@type {} in a push of {}, one push takes one type.",
            record.record_type, first.record_type
        )),
        _ => Ok(()),
    }
}

/// Length of valid JSON once the white space between its tokens is gone.
fn compact_bytes(json: &str) -> usize {
    let (mut bytes, mut in_string, mut escaped) = (0, false, false);
    for byte in json.bytes() {
        if in_string || !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
            bytes += 1;
        }
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            _ => {}
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = r#"{"@type":"custom_event","id":"a","timestamp":"2023-05-25T15:32:52+00:00","event_type":"page_view"}"#;

    fn message(body: &str) -> String {
        check(body.as_bytes()).refusal.map(|refusal| refusal.message()).unwrap_or_default()
    }

    /// `GOOD` with one field replaced (or added), or removed when `value` is empty.
    fn with(name: &str, value: &str) -> String {
        let mut fields: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(GOOD).unwrap();
        if value.is_empty() {
            fields.remove(name);
        } else {
            fields.insert(name.to_owned(), serde_json::from_str(value).unwrap());
        }
        serde_json::to_string(&fields).unwrap()
    }

    #[test]
    fn each_rule_of_a_record_has_its_message() {
        let table: &[(&str, &str, &str)] = &[
            ("@type", "", "@type is missing."),
            ("@type", "7", "@type is not a string."),
            ("@type", r#""""#, "@type is empty."),
            ("id", "", "id is missing."),
            ("id", "17", "id is not a string."),
            ("id", r#""""#, "id is empty."),
            ("timestamp", "", "timestamp is missing."),
            ("timestamp", "1685028772", "timestamp is not a string."),
            ("timestamp", r#""yesterday""#, "timestamp is not an ISO 8601 time with an offset."),
            (
                "timestamp",
                r#""2023-05-25T15:32:52""#,
                "timestamp is not an ISO 8601 time with an offset.",
            ),
            (
                "timestamp",
                r#""2023-05-25 15:32:52Z""#,
                "timestamp is not an ISO 8601 time with an offset.",
            ),
            (
                "timestamp",
                r#""2023-02-30T15:32:52Z""#,
                "timestamp is not an ISO 8601 time with an offset.",
            ),
            ("event_type", "", "event_type is missing."),
            ("event_type", r#""""#, "event_type is empty."),
            ("event_type", "null", "event_type is not a string."),
            ("identity_email", "null", "identity_email is not a string."),
            ("profile_id", "5", "profile_id is not a string."),
            ("properties", "[]", "properties is not an object."),
            ("properties", "null", "properties is not an object."),
        ];
        for (name, value, what) in table {
            let body = format!("[{GOOD},{}]", with(name, value));
            assert_eq!(message(&body), format!("Payload invalid: {what} (record 1)"), "{body}");
        }
    }

    #[test]
    fn optional_fields_and_other_types_are_accepted() {
        let table = [
            with("timestamp", r#""2023-05-25T15:32:52Z""#),
            with("timestamp", r#""2023-05-25T15:32:52.417+02:00""#),
            with("identity_email", r#""jane.doe@example.com""#),
            with("profile_id", r#""p-1""#),
            with("properties", r#"{"price":79.00,"nested":[{"a":null}]}"#),
            with("unknown", "null"),
            r#"{"@type":"order","id":"1"}"#.to_owned(),
            r#"{"@type":"contact","id":"1","timestamp":5,"properties":[]}"#.to_owned(),
        ];
        for record in table {
            assert_eq!(message(&format!("[{record}]")), "", "{record}");
        }
    }

    #[test]
    fn each_rule_of_a_push_has_its_message() {
        let table = [
            ("", "not JSON: EOF while parsing a value at line 1 column 0."),
            ("[", "not JSON: EOF while parsing a list at line 1 column 1."),
            ("[] x", "not JSON: trailing characters at line 1 column 4."),
            ("{}", "the body is not an array of records."),
            ("null", "the body is not an array of records."),
            ("[]", "the array holds no record."),
            ("[[]]", "the record is not an object. (record 0)"),
            (r#"["text"]"#, "the record is not an object. (record 0)"),
            (
                r#"[{"@type":"order","id":"1"},{"@type":"product","id":"2"}]"#,
                "@type product in a push of order, one push takes one type. (record 1)",
            ),
        ];
        for (body, what) in table {
            assert_eq!(message(body), format!("Payload invalid: {what}"), "{body}");
        }
        let not_utf8 = check(b"[\"\xff\"]").refusal.unwrap();
        assert_eq!(not_utf8.message(), "Payload invalid: not UTF-8 at byte 2.");
    }

    #[test]
    fn a_push_takes_one_hundred_records_and_not_one_more() {
        let push = |records: usize| format!("[{}]", vec![GOOD; records].join(","));
        assert_eq!(message(&push(100)), "");
        assert_eq!(message(&push(101)), "Payload invalid: 101 records, at most 100 are allowed.");
        let push = push(101);
        let report = check(push.as_bytes());
        assert_eq!((report.records_total, report.records.len()), (101, 100));
    }

    #[test]
    fn a_record_takes_sixty_thousand_compact_bytes_and_not_one_more() {
        let sized = |bytes: usize| {
            let empty = with("filler", r#""""#).len();
            with("filler", &format!("\"{}\"", "x".repeat(bytes - empty)))
        };
        assert_eq!(message(&format!("[{}]", sized(60_000))), "");
        let spaced = sized(60_000).replacen(':', " : \n", 1);
        assert_eq!(message(&format!("[{spaced}]")), "");
        assert_eq!(
            message(&format!("[{GOOD},{}]", sized(60_001))),
            "Payload invalid: Record is too large. (record 1)"
        );
    }

    #[test]
    fn compact_bytes_counts_white_space_only_inside_strings() {
        for (json, bytes) in
            [("{ }", 2), ("[1, 2]", 5), (r#"{"a b" : "\" \\" }"#, 15), ("\"\t\"", 3)]
        {
            assert_eq!(compact_bytes(json), bytes, "{json}");
        }
    }

    #[test]
    fn records_are_read_byte_for_byte_also_when_refused() {
        let body = br#"[ {"@type":"order","id":"\u0061", "price":79.00} ,{"id":"b"}, 5]"#;
        let report = check(body);
        let read: Vec<_> =
            report.records.iter().map(|record| (record.id.as_str(), record.body)).collect();
        let first = r#"{"@type":"order","id":"\u0061", "price":79.00}"#;
        assert_eq!(read, [("a", first), ("b", r#"{"id":"b"}"#), ("", "5")]);
        assert_eq!(report.refusal.unwrap().index, Some(1));
    }

    #[test]
    fn headers_name_json_in_utf8_without_encoding() {
        let table = [
            (Some("application/json"), None, true),
            (Some("Application/JSON; charset=UTF-8"), Some("identity"), true),
            (Some("application/json;charset=\"utf-8\""), None, true),
            (Some("application/json; charset=latin1"), None, false),
            (Some("text/plain"), None, false),
            (Some("application/x-ndjson"), None, false),
            (None, None, false),
            (Some("application/json"), Some("gzip"), false),
        ];
        for (content_type, encoding, accepted) in table {
            let checked = check_headers(content_type, encoding);
            assert_eq!(checked.is_ok(), accepted, "{content_type:?} {encoding:?}: {checked:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_checked_without_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
            let report = check(&body);
            prop_assert!(report.refusal.is_some() || !report.records.is_empty());
        }

        #[test]
        fn bytes_changed_in_a_good_push_are_checked_without_panic(
            at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
        ) {
            let mut body = format!("[{GOOD},{GOOD}]").into_bytes();
            let at = at.index(body.len());
            body[at] = byte;
            check(&body);
            body.truncate(cut.index(body.len()));
            prop_assert!(check(&body).refusal.is_some());
        }
    }
}
