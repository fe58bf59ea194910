//! PURE. What forms and links carry: `application/x-www-form-urlencoded` (URL standard), read and written.

/// The fields of a form or a query, in order; a name may come several times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// Reads `text`; what is no UTF-8 becomes U+FFFD. Browsers send line breaks as CR LF: they become LF.
    pub(super) fn read(text: &str) -> Form {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        Form(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decoded(name), decoded(value).replace("\r\n", "\n"))
                })
                .collect(),
        )
    }

    /// The first value of `name`, trimmed; `None` when it is absent or blank.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.raw(name).map(str::trim).filter(|value| !value.is_empty())
    }

    /// The first value of `name` as it stands.
    pub(super) fn raw(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Every value of `name`.
    pub(super) fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Every name with its value, in order.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let escaped = || {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            is_hex.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
        };
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => match escaped() {
                Some(byte) => {
                    bytes.push(byte);
                    rest = after.get(2..).unwrap_or_default();
                }
                None => bytes.push(b'%'),
            },
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `text` for a link: everything but letters, digits and `-._~` escaped.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&super::session::hex(&[byte]).to_ascii_uppercase());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forms_are_read_as_browsers_write_them() {
        let form = Form::read("a=1&b=x+y%26z&a=2&c&=d&&e=%zz%4&f=%C3%A9%ff&g=1%0D%0A2&h=%20%20");
        assert_eq!(form.all("a").collect::<Vec<_>>(), ["1", "2"]);
        for (name, expected) in [
            ("b", Some("x y&z")),
            ("c", Some("")),
            ("e", Some("%zz%4")),
            ("f", Some("é\u{fffd}")),
            ("g", Some("1\n2")),
            ("h", Some("  ")),
            ("z", None),
        ] {
            assert_eq!(form.raw(name), expected, "{name}");
        }
        assert_eq!((form.text("h"), form.text("c"), form.pairs().count()), (None, None, 9));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(name in "[^\r]{0,8}", value in "[^\r]{0,20}") {
            let form = Form::read(&format!("{}={}", encoded(&name), encoded(&value)));
            prop_assert_eq!(form.raw(&name), Some(value.as_str()));
        }

        #[test]
        fn anything_is_read(text in ".{0,40}") {
            drop(Form::read(&text));
        }
    }
}
