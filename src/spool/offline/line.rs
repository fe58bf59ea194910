//! PURE. A record or a quarantine entry as one line of NDJSON.

use serde::Serialize;
use serde_json::value::RawValue;

use super::super::entry::{Origin, Quarantined};
use crate::clock::UnixMillis;

/// A record, or an entry of the quarantine. What does not apply to one is left out.
#[derive(Debug, Default, Serialize)]
pub(super) struct Line<'a> {
    integration: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lane: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    state: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    quarantine: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(rename = "type")]
    record_type: &'a str,
    /// Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    committed_at: Option<UnixMillis>,
    /// Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    quarantined_at: Option<UnixMillis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    record: Option<&'a RawValue>,
    /// Where the record is no JSON: its bytes, as far as they are text.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// What the record was made of.
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Box<RawValue>>,
}

/// A record of a lane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    /// The integration's name, when it is known.
    pub(super) integration: Option<&'a str>,
    /// The lane's id.
    pub(super) lane: u32,
    /// Its seq there.
    pub(super) seq: u64,
    /// `queued`, or how it ended.
    pub(super) state: &'a str,
    /// Its `@type`.
    pub(super) record_type: &'a str,
    /// When it was committed.
    pub(super) committed_at: UnixMillis,
    /// Its bytes.
    pub(super) record: &'a [u8],
    /// The event that it was made of, where that is kept.
    pub(super) event: Option<&'a [u8]>,
}

/// The line of a record, with its line end.
#[must_use]
pub(super) fn of_record(record: &Row<'_>) -> Vec<u8> {
    let (json, text) = body(record.record);
    written(&Line {
        integration: record.integration,
        lane: Some(record.lane),
        seq: Some(record.seq),
        state: record.state,
        record_type: record.record_type,
        committed_at: Some(record.committed_at),
        record: json,
        text,
        event: record.event.map(event),
        ..Line::default()
    })
}

/// The line of an entry of the quarantine, with its line end.
#[must_use]
pub(super) fn of_quarantined(id: u64, entry: &Quarantined) -> Vec<u8> {
    let (json, text) = body(&entry.body);
    let mut line = Line {
        state: "quarantined",
        quarantine: Some(id),
        reason: Some(&entry.reason),
        detail: Some(&entry.detail).filter(|detail| !detail.is_empty()).map(String::as_str),
        status: entry.status,
        quarantined_at: Some(entry.at),
        record: json,
        text,
        ..Line::default()
    };
    match &entry.origin {
        Origin::Record { lane, integration, seq, record_type, .. } => {
            line.integration = Some(integration);
            (line.lane, line.seq) = (Some(lane.0), Some(seq.0));
            line.record_type = record_type;
        }
        Origin::Event { kind, integration } => {
            line.integration = integration.as_deref();
            line.record_type = kind;
        }
    }
    written(&line)
}

/// The body as it is, or as text where it is no JSON. A line end within it is white space: it would end the line.
fn body(bytes: &[u8]) -> (Option<&RawValue>, Option<String>) {
    let json = if bytes.contains(&b'\n') { None } else { serde_json::from_slice(bytes).ok() };
    let text = json.is_none().then(|| String::from_utf8_lossy(bytes).into_owned());
    (json, text)
}

/// The event on one line: a line end within it is white space, and nobody is sent it byte for byte. As a text where it is no
/// JSON.
fn event(bytes: &[u8]) -> Box<RawValue> {
    let text = String::from_utf8_lossy(bytes).replace(['\r', '\n'], " ");
    RawValue::from_string(text).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(bytes);
        serde_json::value::to_raw_value(&text).expect("text always encodes")
    })
}

fn written(line: &Line<'_>) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(line).expect("text and numbers always encode");
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_keeps_its_bytes() {
        let record = Row {
            integration: Some("uk"),
            lane: 1,
            seq: 7,
            state: "queued",
            record_type: "custom_event",
            committed_at: UnixMillis(5),
            record: br#"{"n":79.00,"s":"\u00e9"}"#,
            event: None,
        };
        assert_eq!(
            String::from_utf8(of_record(&record)).unwrap(),
            "{\"integration\":\"uk\",\"lane\":1,\"seq\":7,\"state\":\"queued\",\"type\":\"custom_event\",\"committed_at\":5,\
             \"record\":{\"n\":79.00,\"s\":\"\\u00e9\"}}\n"
        );
        let text = of_record(&Row { integration: None, record: b"a\nb", ..record });
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.contains("\"integration\":null") && text.ends_with("\"text\":\"a\\nb\"}\n"),
            "{text}"
        );
        for (event, written) in [
            (&b"{\n \"n\": 79.00}"[..], "\"event\":{  \"n\": 79.00}}\n"),
            (b"a\nb", "\"event\":\"a\\nb\"}\n"),
        ] {
            let text = String::from_utf8(of_record(&Row { event: Some(event), ..record })).unwrap();
            assert!(text.ends_with(written) && text.contains("79.00,"), "{text}");
        }
    }
}
