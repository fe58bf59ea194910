//! PURE. One line of input → the event that is sent.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::event::{DEPTH_MAX, repair};

/// The longest line: no daemon takes more in a request unless it is configured to.
pub(super) const LINE_BYTES_MAX: usize = 1 << 20;

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(rename = "messageId", borrow)]
    message_id: Option<&'a RawValue>,
}

/// The line with a `messageId`: as it stands when it has one, else with `fresh` put in as its first member.
///
/// No other byte changes, but for what is no JSON and what the daemon would mend as well (see `event::repair`).
///
/// # Errors
/// What is wrong with the line, and at which column.
pub(super) fn with_id(line: &[u8], fresh: impl FnOnce() -> String) -> Result<Vec<u8>, String> {
    let text = std::str::from_utf8(line)
        .map_err(|error| format!("not UTF-8 at column {}", error.valid_up_to() + 1))?;
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        let mended = repair(line, DEPTH_MAX).map_err(|error| error.to_string())?;
        return match mended {
            Cow::Owned(mended) => with_id(mended.as_bytes(), fresh),
            Cow::Borrowed(_) => Err(no_json(&error)),
        };
    }
    // Serde reads an array as a struct, too.
    if !text.starts_with('{') {
        return Err("an event must be a JSON object".to_owned());
    }
    match serde_json::from_str::<Named<'_>>(text) {
        Ok(Named { message_id: Some(id) }) if !matches!(id.get(), "null" | "\"\"") => {
            return Ok(line.to_vec());
        }
        // A repeated key: the last value counts, and it may well be an id.
        Err(_) => return Ok(line.to_vec()),
        Ok(_) => {}
    }
    let member = format!(r#""messageId":"{}""#, fresh());
    // The last of repeated keys counts: an empty or null `messageId` later in the line would undo one put in front.
    if text.contains("\"messageId\"") {
        let members = text.strip_suffix('}').unwrap_or(text);
        return Ok(format!("{members},{member}}}").into_bytes());
    }
    let rest = text.strip_prefix('{').unwrap_or(text);
    let comma = if rest.trim_ascii_start().starts_with('}') { "" } else { "," };
    Ok(format!("{{{member}{comma}{rest}").into_bytes())
}

/// The parser's words with the column alone: the line is named by who reads the file.
fn no_json(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or_default();
    format!("no JSON at column {}: {what}", error.column())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(line: &str) -> Result<String, String> {
        with_id(line.as_bytes(), || "new".to_owned()).map(|line| String::from_utf8(line).unwrap())
    }

    #[test]
    fn an_event_gets_an_id_and_keeps_its_bytes() {
        for (line, sent) in [
            (r#"{"messageId":"a","x":1.00}"#, r#"{"messageId":"a","x":1.00}"#),
            (r#"{"x":1.00}"#, r#"{"messageId":"new","x":1.00}"#),
            (r#"{  "x" : 1.00 }"#, r#"{"messageId":"new",  "x" : 1.00 }"#),
            ("{}", r#"{"messageId":"new"}"#),
            ("{ }", r#"{"messageId":"new" }"#),
            (r#"{"messageId":null,"x":1}"#, r#"{"messageId":null,"x":1,"messageId":"new"}"#),
            (r#"{"messageId":"","x":1}"#, r#"{"messageId":"","x":1,"messageId":"new"}"#),
            (
                r#"{"context":{"messageId":"in"},"x":1}"#,
                r#"{"context":{"messageId":"in"},"x":1,"messageId":"new"}"#,
            ),
            (r#"{"messageId":null,"messageId":"a"}"#, r#"{"messageId":null,"messageId":"a"}"#),
            (r#"{"x":NaN}"#, r#"{"messageId":"new","x":null}"#),
        ] {
            assert_eq!(named(line).as_deref(), Ok(sent), "{line}");
        }
    }

    #[test]
    fn a_line_that_is_no_event_says_why_and_where() {
        for (line, why) in [
            (&b"{\"x\":"[..], "no JSON at column 5: EOF while parsing a value"),
            (b"nonsense", "no JSON at column 2: expected ident"),
            (b"{} {}", "no JSON at column 4: trailing characters"),
            (b"[1]", "an event must be a JSON object"),
            (b"17", "an event must be a JSON object"),
            (b"{\"x\":\"caf\xe9\"}", "not UTF-8 at column 10"),
        ] {
            assert_eq!(with_id(line, || "new".to_owned()).unwrap_err(), why);
        }
    }

    proptest! {
        #[test]
        fn any_object_keeps_its_bytes(
            members in proptest::collection::btree_map("\\PC{1,8}", any::<(i64, String)>(), 0..8),
            spaces in "[ \t]{0,3}",
        ) {
            let line = serde_json::to_string(&members).unwrap().replacen('{', &format!("{{{spaces}"), 1);
            let sent = named(&line).unwrap();
            let comma = if members.is_empty() { "" } else { "," };
            prop_assert_eq!(&sent, &line.replacen('{', &format!(r#"{{"messageId":"new"{comma}"#), 1));
            let mut read: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&sent).unwrap();
            prop_assert_eq!(read.remove("messageId"), Some("new".into()));
            prop_assert_eq!(read.len(), members.len());
        }

        #[test]
        fn any_line_is_taken_as_an_object_with_an_id_or_refused(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(event) = with_id(&line, || "new".to_owned()) {
                prop_assert!(serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&event).is_ok());
            }
        }
    }
}
