//! PURE. One pass over a request's body, before it is parsed: what must hold, and what real clients send wrong.
//!
//! - It is UTF-8, and nested at most so deep: parsing never recurses further than that.
//! - A byte order mark is forgiven. Bare `NaN`, `Infinity` and `-Infinity` (Python's `json` writes them) read as
//!   `null`. An escaped lone surrogate (JavaScript's `JSON.stringify` of a cut string) reads as U+FFFD.

use std::borrow::Cow;

use super::parse::BodyError;

/// Arrays and objects in each other.
pub const DEPTH_MAX: usize = 64;

/// The body as text that a JSON parser can take; borrowed when nothing had to be repaired.
///
/// # Errors
/// [`BodyError::InvalidJson`] with line and column.
pub fn repair(body: &[u8], depth_max: usize) -> Result<Cow<'_, str>, BodyError> {
    let text = std::str::from_utf8(body)
        .map_err(|error| BodyError::at(body, error.valid_up_to(), "the body is not UTF-8"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let bytes = text.as_bytes();
    let mut repaired = String::new();
    let mut copied = 0;
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let (found, replacement) = match byte {
            b'"' => {
                at = string_end(text, at + 1, &mut repaired, &mut copied);
                continue;
            }
            b'{' | b'[' => {
                depth += 1;
                if depth > depth_max {
                    let message = format!("nested deeper than {depth_max} levels");
                    return Err(BodyError::at(bytes, at, &message));
                }
                at += 1;
                continue;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at += 1;
                continue;
            }
            b'N' => (word(bytes, at, b"NaN"), "null"),
            b'I' => (word(bytes, at, b"Infinity"), "null"),
            b'-' => (word(bytes, at, b"-Infinity"), "null"),
            _ => (None, ""),
        };
        let Some(length) = found else {
            at += 1;
            continue;
        };
        repaired.push_str(text.get(copied..at).unwrap_or_default());
        repaired.push_str(replacement);
        at += length;
        copied = at;
    }
    if copied == 0 {
        return Ok(Cow::Borrowed(text));
    }
    repaired.push_str(text.get(copied..).unwrap_or_default());
    Ok(Cow::Owned(repaired))
}

fn word(bytes: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    bytes.get(at..).is_some_and(|rest| rest.starts_with(word)).then_some(word.len())
}

/// Goes to the end of a string, from behind its opening quote; replaces lone surrogates on the way.
fn string_end(text: &str, mut at: usize, repaired: &mut String, copied: &mut usize) -> usize {
    let bytes = text.as_bytes();
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => {}
            _ => {
                at += 1;
                continue;
            }
        }
        let (length, lone) = match unit(bytes, at) {
            Some(0xD800..=0xDBFF) => match unit(bytes, at + 6) {
                Some(0xDC00..=0xDFFF) => (12, false),
                _ => (6, true),
            },
            Some(0xDC00..=0xDFFF) => (6, true),
            _ => (2, false),
        };
        if lone {
            repaired.push_str(text.get(*copied..at).unwrap_or_default());
            repaired.push_str("\\ufffd");
            *copied = at + length;
        }
        at += length;
    }
    at
}

/// The UTF-16 unit that `\uXXXX` at `at` stands for.
fn unit(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    let text = std::str::from_utf8(digits)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u32::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_clients_send_wrong_is_mended() {
        for (sent, read) in [
            (r#"{"a":NaN}"#, r#"{"a":null}"#),
            (r"[Infinity,-Infinity, -1]", r"[null,null, -1]"),
            (r#"{"a":"NaN Infinity"}"#, r#"{"a":"NaN Infinity"}"#),
            (r#"{"a":"\ud800"}"#, r#"{"a":"\ufffd"}"#),
            (r#"{"a":"x\udc00y\ud83d\ude00\ud83dz"}"#, r#"{"a":"x\ufffdy\ud83d\ude00\ufffdz"}"#),
            (r#"{"a":"\\ud800"}"#, r#"{"a":"\\ud800"}"#),
            ("\u{feff}{}", "{}"),
            (r#"["\ud800\n",NaN]"#, r#"["\ufffd\n",null]"#),
        ] {
            assert_eq!(repair(sent.as_bytes(), 8).unwrap(), read, "{sent}");
        }
    }

    #[test]
    fn depth_and_encoding_are_refused_with_their_place() {
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(repair(deep(8).as_bytes(), 8).is_ok());
        let error = repair(deep(9).as_bytes(), 8).unwrap_err().to_string();
        assert_eq!(error, "nested deeper than 8 levels at line 1 column 9");
        assert!(repair(br#"["[[[[[[[[[[["]"#, 8).is_ok());
        let error = repair(b"{\n\"a\":\"\xff\"}", 8).unwrap_err().to_string();
        assert_eq!(error, "the body is not UTF-8 at line 2 column 6");
    }

    proptest! {
        #[test]
        fn any_bytes_are_repaired_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop(repair(&bytes, 8));
        }

        #[test]
        fn any_json_text_is_left_alone(text in any::<String>(), numbers: Vec<f64>) {
            let numbers: Vec<f64> = numbers.into_iter().filter(|number| number.is_finite()).collect();
            let json = serde_json::json!({"text": text, "numbers": numbers}).to_string();
            prop_assert!(matches!(repair(json.as_bytes(), 8), Ok(Cow::Borrowed(same)) if same == json));
        }

        #[test]
        fn any_escapes_become_readable(units in proptest::collection::vec(any::<u16>(), 0..20)) {
            let text: String = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
            let json = format!("[\"{text}\"]");
            let repaired = repair(json.as_bytes(), 8).unwrap();
            let read: Vec<String> = serde_json::from_str(&repaired).unwrap();
            prop_assert_eq!(&read[0], &String::from_utf16_lossy(&units));
        }
    }
}
