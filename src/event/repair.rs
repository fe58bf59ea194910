//! One pass over a request's body: what every later step may rely on, and what real clients get wrong.
//!
//! After it the body is UTF-8 text, nests at most so deep, and holds no lone surrogate escape, so that
//! every string in it can be decoded. It is not yet known to be JSON: the parser finds that out.
//!
//! | a client sends | read as | sent by |
//! |---|---|---|
//! | `NaN`, `Infinity`, `-Infinity` as a value | `null` | Python's `json`, some mobile libraries |
//! | a lone `\ud83d` or `\ude00` | `\ufffd` | JavaScript that cut a string inside an emoji |
//! | a UTF-8 byte order mark in front | nothing | .NET |
//!
//! A body that needs none of this is returned as it is, without a copy.

use std::borrow::Cow;

use memchr::memchr2;

use super::error::BodyError;

/// How deep arrays and objects may nest in a body.
pub const DEPTH_MAX: usize = 64;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Words that are no JSON and that clients write for a missing number.
const NOT_NUMBERS: [&[u8]; 3] = [b"NaN", b"Infinity", b"-Infinity"];

/// The text of `body`, repaired where the table above says so; borrowed where nothing was to repair.
///
/// # Errors
/// `InvalidJson`: the body is not UTF-8, or nests deeper than `depth_max`.
pub fn repair(body: &[u8], depth_max: usize) -> Result<Cow<'_, str>, BodyError> {
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
    let text = std::str::from_utf8(body).map_err(|error| {
        BodyError::InvalidJson(format!("invalid UTF-8 at {}", place(body, error.valid_up_to())))
    })?;
    let mut repaired = Repaired { text, out: String::new(), copied: 0 };
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(&byte) = body.get(at) {
        at += 1;
        match byte {
            b'"' => at = scan_string(body, at, &mut repaired),
            b'{' | b'[' => {
                depth += 1;
                if depth > depth_max {
                    return Err(BodyError::InvalidJson(format!(
                        "nested deeper than {depth_max} levels at {}",
                        place(body, at - 1)
                    )));
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'N' | b'I' | b'-' => {
                if let Some(bytes) = not_a_number(body, at - 1) {
                    repaired.replace(at - 1, bytes, "null");
                    at = at - 1 + bytes;
                }
            }
            _ => {}
        }
    }
    Ok(repaired.finish())
}

/// Goes through the string whose first byte after the quote is at `at`; returns where it has ended.
fn scan_string(body: &[u8], mut at: usize, repaired: &mut Repaired<'_>) -> usize {
    loop {
        let rest = body.get(at..).unwrap_or_default();
        let Some(found) = memchr2(b'"', b'\\', rest) else { return body.len() };
        at += found;
        if rest.get(found) == Some(&b'"') {
            return at + 1;
        }
        at += match surrogate(body, at) {
            None => 2,
            Some(0xd800..=0xdbff) if matches!(surrogate(body, at + 6), Some(0xdc00..=0xdfff)) => 12,
            Some(_) => {
                repaired.replace(at, 6, "\\ufffd");
                6
            }
        };
    }
}

/// The surrogate that the escape at `at` stands for; `None` for any other escape and for no escape.
fn surrogate(body: &[u8], at: usize) -> Option<u16> {
    let [b'\\', b'u', b'd' | b'D', digits @ ..] = body.get(at..at + 6)? else { return None };
    let unit = digits.iter().try_fold(0xd_u16, |unit, &digit| {
        let digit = char::from(digit).to_digit(16).and_then(|digit| u16::try_from(digit).ok())?;
        Some(unit << 4 | digit)
    })?;
    (unit >= 0xd800).then_some(unit)
}

/// The length of the word at `at` when it is one of [`NOT_NUMBERS`] and stands alone.
fn not_a_number(body: &[u8], at: usize) -> Option<usize> {
    let rest = body.get(at..)?;
    let word = NOT_NUMBERS.iter().find(|word| rest.starts_with(word))?;
    let before = at.checked_sub(1).and_then(|at| body.get(at));
    let after = rest.get(word.len());
    let stands_alone =
        !before.copied().is_some_and(in_word) && !after.copied().is_some_and(in_word);
    stands_alone.then_some(word.len())
}

/// Whether a byte outside a string continues a word or a number.
fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_' | b'"' | 0x80..)
}

/// The text so far: a copy begins with the first replacement.
struct Repaired<'a> {
    text: &'a str,
    out: String,
    /// How much of `text` is in `out`, or replaced there.
    copied: usize,
}

impl<'a> Repaired<'a> {
    /// Both ends of the `bytes` from `at` on are ASCII, hence boundaries of characters.
    fn replace(&mut self, at: usize, bytes: usize, by: &str) {
        if self.copied == 0 {
            self.out.reserve(self.text.len() + by.len());
        }
        self.out.push_str(self.text.get(self.copied..at).unwrap_or_default());
        self.out.push_str(by);
        self.copied = at + bytes;
    }

    fn finish(mut self) -> Cow<'a, str> {
        if self.copied == 0 {
            return Cow::Borrowed(self.text);
        }
        self.out.push_str(self.text.get(self.copied..).unwrap_or_default());
        Cow::Owned(self.out)
    }
}

/// Where the byte at `at` is, in the words of `serde_json`: lines and columns in bytes, from 1.
fn place(body: &[u8], at: usize) -> String {
    let before = body.get(..at).unwrap_or(body);
    let line = before.split(|&byte| byte == b'\n').count();
    let column = 1 + before.iter().rev().take_while(|&&byte| byte != b'\n').count();
    format!("line {line} column {column}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::testing::json;

    fn repaired(body: &str) -> String {
        repair(body.as_bytes(), DEPTH_MAX).unwrap().into_owned()
    }

    #[test]
    fn what_clients_get_wrong_is_read() {
        let table = [
            (r#"{"a":NaN,"b":Infinity,"c":-Infinity}"#, r#"{"a":null,"b":null,"c":null}"#),
            ("[NaN, NaN ,\nInfinity]", "[null, null ,\nnull]"),
            ("NaN", "null"),
            (r#"["\ud83d"]"#, r#"["\ufffd"]"#),
            (r#"["\uDE00 x \uD83D"]"#, r#"["\ufffd x \ufffd"]"#),
            (r#"["\ud83d\ud83d\ude00"]"#, r#"["\ufffd\ud83d\ude00"]"#),
            (r#"["\ud83d\\ude00"]"#, r#"["\ufffd\\ude00"]"#),
            (r#"{"\udfff":NaN,"é":"\ud800"}"#, r#"{"\ufffd":null,"é":"\ufffd"}"#),
            ("\u{feff}{}", "{}"),
        ];
        for (body, expected) in table {
            assert_eq!(repaired(body), expected, "{body}");
        }
    }

    #[test]
    fn everything_else_is_left_alone() {
        let bodies = [
            r#"{"name":"NaN, Infinity","x":"\"NaN","y":"\\"}"#,
            r#"["\ud83d\ude00","\\ud83d","\ud7ff\ue000"]"#,
            r#"["\ud83","\ud8zz","\u"]"#,
            "[NaNs, xNaN, -NaN, 1Infinity, Infinity1, --Infinity, -1, -]",
            r#"["open"#,
            r#"["open\"#,
            r#"["\ud83d"#,
            "]]]}}}",
            "",
        ];
        for body in bodies.iter().take(6) {
            assert!(
                matches!(repair(body.as_bytes(), DEPTH_MAX), Ok(Cow::Borrowed(text)) if text == *body),
                "{body}"
            );
        }
        for body in bodies {
            repaired(body);
        }
    }

    #[test]
    fn faults_are_told_with_their_place() {
        let deep = format!("[\n{}1{}]", "[".repeat(64), "]".repeat(64));
        let table: [(&[u8], &str); 3] = [
            (deep.as_bytes(), "nested deeper than 64 levels at line 2 column 64"),
            (b"{\"a\":\n\"\xff\"}", "invalid UTF-8 at line 2 column 2"),
            (b"\xff", "invalid UTF-8 at line 1 column 1"),
        ];
        for (body, message) in table {
            let error = repair(body, DEPTH_MAX).unwrap_err();
            assert_eq!((error.to_string().as_str(), error.code()), (message, "invalid_json"));
        }
    }

    #[test]
    fn depth_counts_what_is_open_outside_strings() {
        let allowed = format!("{}{}", "[".repeat(64), "]".repeat(64));
        assert!(repair(allowed.as_bytes(), 64).is_ok());
        assert!(repair(br#"["[[[[","\"[[[["]"#, 1).is_ok());
        assert!(repair(b"[[],[],{}]", 2).is_ok());
        assert!(repair(b"[]", 0).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = repair(&body, DEPTH_MAX);
        }

        #[test]
        fn text_made_of_awkward_pieces_is_repaired_once(
            pieces in proptest::collection::vec(proptest::sample::select(vec![
                "\"", "\\", "\\u", "\\ud83d", "\\ude00", "NaN", "Infinity", "-", "[", "}", ",", "é", "u", "\n",
            ]), 0..30)
        ) {
            let body = pieces.concat();
            let once = repaired(&body);
            prop_assert_eq!(repaired(&once), once);
        }

        #[test]
        fn valid_json_is_returned_as_it_is(text in json()) {
            let read = repair(text.as_bytes(), DEPTH_MAX).unwrap();
            prop_assert!(matches!(read, Cow::Borrowed(read) if read == text));
        }
    }
}
