//! PURE. Faults as text, both ways: `status=503,count=3,retry-after=2`.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue, RETRY_AFTER};

use super::faults::{Effect, Fault};

/// The text form of a fault.
pub const FAULT_GRAMMAR: &str = "\
A fault is a comma-separated list of
  an effect   status=200..599 | hang | reset | accept-then-reset | reject-later | garbage | delay=250ms (or 2s, 1min)
  when        count=N | every=K | contains=TEXT | poison=TEXT (contains, and status=400 unless another is given)
  the answer  retry-after=SECONDS | queue-remaining=N | header=NAME:VALUE | body=TEXT
with `\\,` for a comma inside a TEXT.";

/// Every word of the grammar, for the nearest one to an unknown word.
const WORDS: [&str; 15] = [
    "status",
    "hang",
    "reset",
    "accept-then-reset",
    "reject-later",
    "garbage",
    "delay",
    "count",
    "every",
    "contains",
    "poison",
    "retry-after",
    "queue-remaining",
    "header",
    "body",
];

/// The longest delay: longer than any client waits.
const DELAY_MAX: Duration = Duration::from_secs(3_600);

const QUEUE_REMAINING: HeaderName = HeaderName::from_static("x-queuesize-remaining");

/// A text that is no fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fault `{text}`: {what}\n{FAULT_GRAMMAR}")]
pub struct FaultTextError {
    text: String,
    what: String,
}

impl FromStr for Fault {
    type Err = FaultTextError;

    fn from_str(text: &str) -> Result<Fault, FaultTextError> {
        read(text).map_err(|what| FaultTextError { text: text.to_owned(), what })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let poison = self.effect == Effect::Status(StatusCode::BAD_REQUEST);
        match &self.contains {
            Some(text) if poison => parts.push(format!("poison={}", escape(text))),
            Some(text) => parts.push(format!("contains={}", escape(text))),
            None => {}
        }
        match self.effect {
            Effect::Checked => {}
            Effect::Status(_) if poison && self.contains.is_some() => {}
            Effect::Status(status) => parts.push(format!("status={}", status.as_u16())),
            Effect::Hang => parts.push("hang".to_owned()),
            Effect::Reset => parts.push("reset".to_owned()),
            Effect::AcceptThenReset => parts.push("accept-then-reset".to_owned()),
            Effect::RejectLater => parts.push("reject-later".to_owned()),
            Effect::Garbage => parts.push("garbage".to_owned()),
        }
        if !self.delay.is_zero() {
            parts.push(match self.delay.as_millis() {
                millis if millis % 1_000 == 0 => format!("delay={}s", millis / 1_000),
                millis => format!("delay={millis}ms"),
            });
        }
        parts.extend(self.count.map(|count| format!("count={count}")));
        parts.extend(self.every.map(|every| format!("every={every}")));
        for (name, value) in &self.headers {
            let value = escape(&String::from_utf8_lossy(value.as_bytes()));
            parts.push(match name {
                name if *name == RETRY_AFTER => format!("retry-after={value}"),
                name if *name == QUEUE_REMAINING => format!("queue-remaining={value}"),
                name => format!("header={name}:{value}"),
            });
        }
        parts.extend(self.body.iter().map(|body| format!("body={}", escape(body))));
        f.write_str(&parts.join(","))
    }
}

/// A fault while its text is read.
#[derive(Default)]
struct Draft {
    contains: Option<String>,
    poison: bool,
    every: Option<NonZeroU64>,
    count: Option<NonZeroU64>,
    delay: Option<Duration>,
    effect: Option<(Effect, String)>,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Option<String>,
}

fn read(text: &str) -> Result<Fault, String> {
    let mut draft = Draft::default();
    for part in split(text) {
        draft.take(part.trim_start())?;
    }
    draft.finish()
}

impl Draft {
    fn take(&mut self, part: &str) -> Result<(), String> {
        let (word, value) = match part.split_once('=') {
            Some((word, value)) => (word.trim_end(), Some(value)),
            None => (part.trim_end(), None),
        };
        let given = || match value {
            Some(value) if !value.is_empty() => Ok(value),
            _ => Err(format!("`{word}` needs a value")),
        };
        match word {
            "hang" => self.set_effect(Effect::Hang, word, value),
            "reset" => self.set_effect(Effect::Reset, word, value),
            "accept-then-reset" => self.set_effect(Effect::AcceptThenReset, word, value),
            "reject-later" => self.set_effect(Effect::RejectLater, word, value),
            "garbage" => self.set_effect(Effect::Garbage, word, value),
            "status" => self.set_effect(Effect::Status(status(given()?)?), word, None),
            "delay" => once(&mut self.delay, delay(given()?)?, word),
            "count" => once(&mut self.count, number(given()?, word)?, word),
            "every" => once(&mut self.every, number(given()?, word)?, word),
            "contains" => once(&mut self.contains, unescape(given()?), word),
            "poison" => {
                self.poison = true;
                once(&mut self.contains, unescape(given()?), word)
            }
            "retry-after" => self.add_header(RETRY_AFTER, given()?),
            "queue-remaining" => self.add_header(QUEUE_REMAINING, given()?),
            "header" => {
                let (name, value) =
                    given()?.split_once(':').ok_or("`header` is written header=NAME:VALUE")?;
                let name = HeaderName::from_str(name.trim())
                    .map_err(|_| format!("`{name}` is no header name"))?;
                self.add_header(name, value)
            }
            "body" => once(&mut self.body, unescape(value.unwrap_or_default()), word),
            "" => Err("an empty part".to_owned()),
            unknown => Err(unknown_word(unknown)),
        }
    }

    fn set_effect(
        &mut self,
        effect: Effect,
        word: &str,
        value: Option<&str>,
    ) -> Result<(), String> {
        if value.is_some() {
            return Err(format!("`{word}` takes no value"));
        }
        if let Some((_, other)) = &self.effect {
            return Err(format!("`{other}` and `{word}` exclude each other"));
        }
        self.effect = Some((effect, word.to_owned()));
        Ok(())
    }

    fn add_header(&mut self, name: HeaderName, value: &str) -> Result<(), String> {
        let value = unescape(value.trim());
        let value = HeaderValue::from_str(&value)
            .map_err(|_| format!("`{value}` is no value for the header {name}"))?;
        self.headers.push((name, value));
        Ok(())
    }

    fn finish(self) -> Result<Fault, String> {
        let adorned = !self.headers.is_empty() || self.body.is_some();
        let effect = match self.effect {
            Some((effect, word)) if adorned && !effect.answers() => {
                return Err(format!("`{word}` gives no answer that could carry headers or a body"));
            }
            Some((effect, _)) => effect,
            None if self.poison => Effect::Status(StatusCode::BAD_REQUEST),
            None if adorned || self.delay.is_some() => Effect::Checked,
            None => return Err("it has no effect".to_owned()),
        };
        Ok(Fault {
            contains: self.contains,
            every: self.every,
            count: self.count,
            delay: self.delay.unwrap_or_default(),
            effect,
            headers: self.headers,
            body: self.body,
        })
    }
}

fn once<T>(place: &mut Option<T>, value: T, word: &str) -> Result<(), String> {
    match place.replace(value) {
        Some(_) => Err(format!("`{word}` is given twice, or excluded by another part")),
        None => Ok(()),
    }
}

/// Final statuses only: 101 and its kin are not answers.
fn status(value: &str) -> Result<StatusCode, String> {
    value
        .trim()
        .parse::<u16>()
        .ok()
        .filter(|status| (200..=599).contains(status))
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or_else(|| format!("`{value}` is no status from 200 to 599"))
}

fn number(value: &str, word: &str) -> Result<NonZeroU64, String> {
    value.trim().parse().map_err(|_| format!("`{word}` needs a number from 1, not `{value}`"))
}

fn delay(value: &str) -> Result<Duration, String> {
    let value = value.trim();
    let units = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let (digits, unit) = value.split_at(units);
    let millis_per_unit = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "min" => Some(60_000),
        _ => None,
    };
    let delay = digits
        .parse::<u64>()
        .ok()
        .zip(millis_per_unit)
        .and_then(|(units, millis)| units.checked_mul(millis))
        .map(Duration::from_millis);
    match delay {
        Some(delay) if !delay.is_zero() && delay <= DELAY_MAX => Ok(delay),
        _ => Err(format!("`{value}` is no delay such as 250ms, 2s or 1min, at most an hour")),
    }
}

fn unknown_word(word: &str) -> String {
    let nearest = WORDS
        .into_iter()
        .map(|known| (strsim::damerau_levenshtein(known, word), known))
        .min()
        .filter(|(distance, _)| *distance <= 2);
    match nearest {
        Some((_, known)) => format!("unknown word `{word}`, did you mean `{known}`?"),
        None => format!("unknown word `{word}`"),
    }
}

/// Splits at the commas that no backslash precedes; the escapes stay.
fn split(text: &str) -> Vec<&str> {
    let mut escaped = false;
    text.split(|c| {
        let separates = c == ',' && !escaped;
        escaped = c == '\\' && !escaped;
        separates
    })
    .collect()
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace(',', "\\,")
}

/// A backslash stands for itself unless it precedes a comma or a backslash, so JSON needs few escapes.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\\', Some(&next @ (',' | '\\'))) => {
                chars.next();
                plain.push(next);
            }
            _ => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error(text: &str) -> String {
        text.parse::<Fault>().unwrap_err().what
    }

    #[test]
    fn texts_are_written_as_they_were_read() {
        let table = [
            ("status=503,count=3,retry-after=2", "status=503,count=3,retry-after=2"),
            ("poison=order-666", "poison=order-666"),
            ("contains=order-666,status=400", "poison=order-666"),
            ("poison=order-666,status=422", "contains=order-666,status=422"),
            ("poison=order-666,hang", "contains=order-666,hang"),
            ("delay=250ms", "delay=250ms"),
            ("delay=2000ms", "delay=2s"),
            ("delay=1min", "delay=60s"),
            ("hang,count=1", "hang,count=1"),
            ("reset, every = 10", "reset,every=10"),
            ("accept-then-reset", "accept-then-reset"),
            ("garbage,every=2", "garbage,every=2"),
            ("queue-remaining=500", "queue-remaining=500"),
            ("status=302,header=Location: http://a/", "status=302,header=location:http://a/"),
            (r#"status=202,body={"a":1\,"b":"\n"}"#, r#"status=202,body={"a":1\,"b":"\\n"}"#),
            (r"poison=a\,b\\c", r"poison=a\,b\\c"),
            ("status=200,body=", "status=200,body="),
        ];
        for (text, written) in table {
            let fault: Fault = text.parse().unwrap();
            assert_eq!(fault.to_string(), written, "{text}");
            assert_eq!(written.parse(), Ok(fault), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let table = [
            ("", "an empty part"),
            ("hang,", "an empty part"),
            ("stauts=503", "unknown word `stauts`, did you mean `status`?"),
            ("explode", "unknown word `explode`"),
            ("status", "`status` needs a value"),
            ("status=101", "`101` is no status from 200 to 599"),
            ("status=abc", "`abc` is no status from 200 to 599"),
            ("status=503,hang", "`status` and `hang` exclude each other"),
            ("hang=1", "`hang` takes no value"),
            ("hang,retry-after=1", "`hang` gives no answer that could carry headers or a body"),
            ("count=3", "it has no effect"),
            ("contains=a", "it has no effect"),
            ("hang,count=0", "`count` needs a number from 1, not `0`"),
            ("hang,count=1,count=2", "`count` is given twice, or excluded by another part"),
            ("contains=a,poison=b", "`poison` is given twice, or excluded by another part"),
            ("delay=250", "`250` is no delay such as 250ms, 2s or 1min, at most an hour"),
            ("delay=2h", "`2h` is no delay such as 250ms, 2s or 1min, at most an hour"),
            (
                "delay=99999999min",
                "`99999999min` is no delay such as 250ms, 2s or 1min, at most an hour",
            ),
            ("header=a,hang", "`header` is written header=NAME:VALUE"),
            ("header=a b:c,hang", "`a b` is no header name"),
        ];
        for (text, what) in table {
            assert_eq!(error(text), what, "{text}");
        }
        let shown = "explode".parse::<Fault>().unwrap_err().to_string();
        assert!(WORDS.iter().all(|word| shown.contains(word)), "{shown}");
    }

    fn any_fault() -> impl Strategy<Value = Fault> {
        let effect = prop_oneof![
            (200_u16..=599).prop_map(|code| Effect::Status(StatusCode::from_u16(code).unwrap())),
            Just(Effect::Hang),
            Just(Effect::Reset),
            Just(Effect::AcceptThenReset),
            Just(Effect::Garbage),
        ];
        let counts = (any::<Option<NonZeroU64>>(), any::<Option<NonZeroU64>>());
        let delay = (0_u64..=3_600_000).prop_map(Duration::from_millis);
        (prop::option::of(".{1,20}"), counts, delay, effect, prop::option::of(".{0,20}")).prop_map(
            |(contains, (every, count), delay, effect, body)| Fault {
                contains,
                every,
                count,
                delay,
                effect,
                headers: Vec::new(),
                body: body.filter(|_| effect.answers()),
            },
        )
    }

    proptest! {
        #[test]
        fn any_fault_survives_its_text(fault in any_fault()) {
            prop_assert_eq!(fault.to_string().parse::<Fault>(), Ok(fault));
        }

        #[test]
        fn any_text_is_read_without_panic(text in "[a-z=,\\\\ 0-9:é-]{0,40}") {
            if let Ok(fault) = text.parse::<Fault>() {
                prop_assert_eq!(fault.to_string().parse::<Fault>(), Ok(fault));
            }
        }
    }
}
