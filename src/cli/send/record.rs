//! PURE. One line of input → the finished record that is sent, and whither.
//!
//! A line is a record itself, or holds one as `record`, as `pillarbox spool export` and `salvage` write them: of those only
//! what was queued is sent.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::batch::Kind;

/// What is read of a line.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, rename = "@type")]
    record_type: Option<&'a RawValue>,
    #[serde(borrow)]
    record: Option<&'a RawValue>,
    state: Option<&'a RawValue>,
    integration: Option<&'a RawValue>,
    /// In the place of a record that is no JSON.
    text: Option<&'a RawValue>,
}

/// What is read of a record.
#[derive(Deserialize)]
struct Typed<'a> {
    #[serde(borrow, rename = "@type")]
    record_type: &'a RawValue,
}

/// The record of a line and what it may share a push with; `None` when it needs no sending: it was not queued, or it is
/// another integration's than the one `wanted`.
///
/// # Errors
/// What is wrong with the line.
pub(super) fn read(line: &[u8], wanted: Option<&str>) -> Result<Option<(Kind, Vec<u8>)>, String> {
    let read: Line<'_> = serde_json::from_slice(line).map_err(|error| {
        let text = error.to_string();
        let what = text.split(" at line ").next().unwrap_or_default();
        format!("no record at column {}: {what}", error.column())
    })?;
    let to = wanted.map(str::to_owned);
    if let Some(record_type) = read.record_type {
        return Ok(Some((kind(record_type, to)?, line.to_vec())));
    }
    if read.state.and_then(text_of).is_some_and(|state| state != "queued") {
        return Ok(None);
    }
    let Some(record) = read.record else {
        return Err(if read.text.is_some() {
            "its record is no JSON: it cannot be sent".to_owned()
        } else {
            "neither a record, which has an `@type`, nor a line with a `record`".to_owned()
        });
    };
    let to = match (read.integration.and_then(text_of), to) {
        (Some(integration), Some(wanted)) if integration != wanted => return Ok(None),
        (Some(integration), _) => integration,
        (None, Some(wanted)) => wanted,
        (None, None) => {
            return Err("its integration is not known: name one with --integration".to_owned());
        }
    };
    let typed: Typed<'_> = serde_json::from_str(record.get())
        .map_err(|_| "its record has no `@type`: it cannot be sent".to_owned())?;
    Ok(Some((kind(typed.record_type, Some(to))?, record.get().as_bytes().to_vec())))
}

fn kind(record_type: &RawValue, integration: Option<String>) -> Result<Kind, String> {
    let record_type = text_of(record_type).filter(|name| !name.is_empty());
    let record_type = record_type.ok_or("its `@type` must be a text")?;
    Ok(Kind::Record { record_type, integration })
}

fn text_of(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: &str = r#"{"@type":"order","n":79.00,"record":7}"#;

    fn wrapped(more: &str) -> String {
        format!("{{{more}\"record\":{ORDER}}}")
    }

    #[test]
    fn a_record_goes_as_it_stands_to_its_integration() {
        for (line, wanted, to) in [
            (ORDER.to_owned(), None, None),
            (ORDER.to_owned(), Some("uk"), Some("uk")),
            (wrapped(r#""integration":"uk","state":"queued","seq":7,"#), None, Some("uk")),
            (wrapped(r#""integration":"uk","#), Some("uk"), Some("uk")),
            (wrapped(r#""integration":null,"#), Some("uk"), Some("uk")),
        ] {
            let (kind, bytes) = read(line.as_bytes(), wanted).unwrap().unwrap();
            assert_eq!(bytes, ORDER.as_bytes(), "{line}");
            let integration = to.map(str::to_owned);
            assert_eq!(kind, Kind::Record { record_type: "order".into(), integration });
        }
    }

    #[test]
    fn what_needs_no_sending_is_passed_over() {
        for more in [
            r#""integration":"fr","state":"queued","#,
            r#""integration":"uk","state":"delivered","#,
            r#""integration":"uk","state":"quarantined","quarantine":3,"#,
        ] {
            assert_eq!(read(wrapped(more).as_bytes(), Some("uk")), Ok(None), "{more}");
        }
    }

    #[test]
    fn what_cannot_be_sent_says_why() {
        for (line, why) in [
            ("{".to_owned(), "no record at column 1: EOF"),
            ("[]".to_owned(), "no record at column 2"),
            ("{}".to_owned(), "neither a record"),
            (r#"{"@type":7}"#.to_owned(), "must be a text"),
            (r#"{"state":"queued","integration":"uk","text":"{"}"#.to_owned(), "is no JSON"),
            (r#"{"integration":"uk","record":{}}"#.to_owned(), "has no `@type`"),
            (r#"{"integration":"uk","record":{"@type":""}}"#.to_owned(), "must be a text"),
            (wrapped(""), "--integration"),
        ] {
            let error = read(line.as_bytes(), None).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
