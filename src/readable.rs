//! PURE. Numbers, ages and JSON as people read them, on a terminal and in the console.

use std::time::Duration;

/// JSON with a member or an element a line. Every token keeps its bytes: numbers and escapes stay as they are.
///
/// What is no JSON comes out with other spaces, but never fails.
pub(crate) fn pretty(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut letters = json.chars().peekable();
    while let Some(letter) = letters.next() {
        if in_string {
            out.push(letter);
            match letter {
                '\\' => out.extend(letters.next()),
                '"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match letter {
            ' ' | '\t' | '\r' | '\n' => {}
            '{' | '[' => {
                out.push(letter);
                while letters.next_if(|next| matches!(next, ' ' | '\t' | '\r' | '\n')).is_some() {}
                if let Some(close) = letters.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    indent(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                indent(&mut out, depth);
                out.push(letter);
            }
            ',' => {
                out.push(letter);
                indent(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => {
                in_string = letter == '"';
                out.push(letter);
            }
        }
    }
    out
}

fn indent(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

/// A number with its thousands apart: `12,345`.
pub(crate) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A duration in its two largest units: `3 min 20 s`.
pub(crate) fn age(age: Duration) -> String {
    units(age, 2)
}

/// A duration in its largest unit: `3 min`.
pub(crate) fn short_age(age: Duration) -> String {
    units(age, 1)
}

fn units(age: Duration, shown: usize) -> String {
    let seconds = age.as_secs();
    let units = [("d", 86_400), ("h", 3600), ("min", 60), ("s", 1)];
    let Some(first) = units.iter().position(|(_, unit)| seconds >= *unit) else {
        return "0 s".to_owned();
    };
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (name, unit) in units.iter().skip(first).take(shown) {
        let count = rest / unit;
        rest %= unit;
        if count > 0 {
            parts.push(format!("{count} {name}"));
        }
    }
    parts.join(" ")
}

/// Bytes in the largest binary unit that they fill: `1.4 GiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let units = [("TiB", 1_u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, unit)| bytes >= *unit) {
        None => format!("{bytes} B"),
        Some((name, unit)) => {
            let tenths = u128::from(bytes) * 10 / u128::from(*unit);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_as_people_read_them() {
        assert_eq!([0, 999, 1000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        let seconds = [0, 59, 60, 200, 3600, 90_061];
        assert_eq!(
            seconds.map(|s| age(Duration::from_secs(s))),
            ["0 s", "59 s", "1 min", "3 min 20 s", "1 h", "1 d 1 h"]
        );
        assert_eq!(short_age(Duration::from_secs(90_061)), "1 d");
        assert_eq!(
            [0, 1023, 1024, 1_500_000, u64::MAX].map(bytes),
            ["0 B", "1023 B", "1.0 KiB", "1.4 MiB", "16777215.9 TiB"]
        );
    }

    #[test]
    fn pretty_json_is_laid_out_and_keeps_its_tokens() {
        assert_eq!(
            pretty(r#"{"a":79.00,"b":[1,{"c":"x, {\"y\": [1]}"}],"d":{ },"e":[]}"#),
            "{\n  \"a\": 79.00,\n  \"b\": [\n    1,\n    {\n      \"c\": \"x, {\\\"y\\\": [1]}\"\n    }\n  ],\n  \"d\": {},\n  \"e\": []\n}"
        );
        assert_eq!(pretty("17"), "17");
    }

    proptest! {
        #[test]
        fn pretty_json_is_the_same_json(text in "[\\[\\]{},:\"\\\\ a0\n]{0,40}", list in proptest::collection::vec(any::<String>(), 0..5)) {
            let json = serde_json::to_string(&serde_json::json!({"list": list, "text": text})).unwrap();
            let read: serde_json::Value = serde_json::from_str(&pretty(&json)).unwrap();
            prop_assert_eq!(serde_json::to_string(&read).unwrap(), json);
            // What is no JSON must do no harm.
            drop(pretty(&text));
        }
    }
}
