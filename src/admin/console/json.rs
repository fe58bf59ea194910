//! PURE. JSON cut into pieces that are shown in different colours. Every byte of it is in exactly one piece.

/// A piece, and the class that it is shown with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece<'t> {
    pub(super) class: &'static str,
    pub(super) text: &'t str,
}

/// Cuts `text`; what is no JSON comes out in some pieces all the same.
pub(super) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces: Vec<Piece<'_>> = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (class, length) = match first {
            '"' => {
                let length = string(rest);
                let after = rest.get(length..).unwrap_or_default().trim_start();
                (if after.starts_with(':') { "jk" } else { "js" }, length)
            }
            '-' | '0'..='9' => {
                ("jn", run(rest, |l| l.is_ascii_alphanumeric() || "+-.".contains(l)))
            }
            'a'..='z' => ("jl", run(rest, |l| l.is_ascii_lowercase())),
            _ => (
                "",
                run(rest, |l| {
                    !(l == '"' || l == '-' || l.is_ascii_lowercase() || l.is_ascii_digit())
                }),
            ),
        };
        let (text, after) = rest.split_at(length.max(first.len_utf8()).min(rest.len()));
        pieces.push(Piece { class, text });
        rest = after;
    }
    pieces
}

/// How long the string is that `text` begins with, both quotes included.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (index, letter) in text.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return index + 1,
            _ => {}
        }
    }
    text.len()
}

fn run(text: &str, of: impl Fn(char) -> bool) -> usize {
    text.find(|letter| !of(letter)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_texts_numbers_and_words_are_told_apart() {
        let text = r#"{"a": "x\"y", "n": -1.5e+3, "l": [true, null]}"#;
        let classes: Vec<(&str, &str)> = pieces(text)
            .iter()
            .filter(|piece| !piece.class.is_empty())
            .map(|piece| (piece.class, piece.text))
            .collect();
        let expected = [
            ("jk", "\"a\""),
            ("js", r#""x\"y""#),
            ("jk", "\"n\""),
            ("jn", "-1.5e+3"),
            ("jk", "\"l\""),
            ("jl", "true"),
            ("jl", "null"),
        ];
        assert_eq!(classes, expected);
    }

    proptest! {
        #[test]
        fn nothing_is_lost(text in "[\\[\\]{},:\"\\\\ a0é<\n-]{0,40}") {
            let joined: String = pieces(&text).iter().map(|piece| piece.text).collect();
            prop_assert_eq!(joined, text);
        }
    }
}
