//! PURE. The ledger: what Ometria rejected after its 202, read from `GET /v2/push/_errors` (OMETRIA.md).
//!
//! Known are its last 100 entries in two shapes: `{"error_message","error_path"}`, which names no record, and `{"request_id",
//! "record_type","record_id","record","timestamp","message":{…}}`. Nothing else is documented, so whatever is missing is
//! lived without. The account may be shared: an entry is ours only where the ids say so.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::verdict::record_id;

/// Entries that are looked at: far more than the ledger is said to hold.
const ENTRIES_MAX: usize = 1000;
/// A shorter id would be found in too many answers.
const REQUEST_ID_BYTES_MIN: usize = 8;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The entry as it stands: the same entry is told in each poll.
    pub text: String,
    /// The request that brought the record.
    pub request_id: Option<String>,
    /// The record's id.
    pub record_id: Option<String>,
    /// What is wrong with it, and where; empty when nothing is said.
    pub message: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    request_id: Option<Value>,
    record_id: Option<Value>,
    message: Option<Value>,
    error_message: Option<Value>,
    error_path: Option<Value>,
}

/// Reads a ledger.
///
/// # Errors
/// What it is instead, for the operator.
pub fn read(body: &[u8]) -> Result<Vec<Rejection>, String> {
    let entries: Vec<&RawValue> = serde_json::from_slice(body)
        .map_err(|error| format!("the ledger is no array of objects: {error}"))?;
    Ok(entries.into_iter().take(ENTRIES_MAX).map(rejection).collect())
}

fn rejection(entry: &RawValue) -> Rejection {
    let text = entry.get().to_owned();
    let entry: Entry = serde_json::from_str(&text).unwrap_or_default();
    let said = entry.message.unwrap_or_default();
    let part = |name: &str, beside: Option<Value>| {
        said.get(name).cloned().or(beside).as_ref().and_then(record_id)
    };
    let parts = [part("error_message", entry.error_message), part("error_path", entry.error_path)];
    let plain = said.as_str().map(str::to_owned);
    let message: Vec<String> = parts.into_iter().chain([plain]).flatten().collect();
    let id = |id: Option<Value>| id.as_ref().and_then(record_id).filter(|id| !id.is_empty());
    Rejection {
        text,
        request_id: id(entry.request_id).filter(|id| id.len() >= REQUEST_ID_BYTES_MIN),
        record_id: id(entry.record_id),
        message: message.join(" at "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_are_read_and_nothing_else_is_relied_on() {
        for (entry, request, record, message) in [
            (r#"{"error_message":"Invalid","error_path":"total"}"#, None, None, "Invalid at total"),
            (
                r#"{"request_id":"0123456789","record_type":"order","record_id":"o-1","record":{"id":"o-1"},"timestamp":7,"message":{"error_message":"Invalid","error_path":"total"}}"#,
                Some("0123456789"),
                Some("o-1"),
                "Invalid at total",
            ),
            (r#"{"request_id":"short","record_id":17,"message":"no"}"#, None, Some("17"), "no"),
            (r#"{"record_id":"","message":{"error_path":["a"]}}"#, None, None, ""),
            (r#"{"record_id":{},"message":null}"#, None, None, ""),
            ("7", None, None, ""),
            (r#"["x"]"#, None, None, ""),
        ] {
            let [found] = read(format!("[{entry}]").as_bytes()).unwrap().try_into().unwrap();
            assert_eq!(found.text, entry);
            assert_eq!(
                (found.request_id.as_deref(), found.record_id.as_deref()),
                (request, record)
            );
            assert_eq!(found.message, message, "{entry}");
        }
        assert_eq!(read(b"[]"), Ok(Vec::new()));
        for wrong in [&b"{}"[..], b"", b"<html>", b"[1"] {
            assert!(read(wrong).unwrap_err().starts_with("the ledger is no array of objects"));
        }
    }
}
