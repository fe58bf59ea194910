//! PURE. The text that strace writes (`-f -xx`), as calls.

use std::collections::HashMap;

/// A call, by the numbers of the lines at which it was entered and had returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) name: String,
    pub(crate) entered: usize,
    pub(crate) returned: usize,
    /// As printed, each text replaced by `$`.
    pub(crate) arguments: Vec<String>,
    /// The texts in the arguments, in order.
    pub(crate) texts: Vec<Vec<u8>>,
    /// `None`: the process was killed in it.
    pub(crate) result: Option<i64>,
}

/// The calls of a trace, in the order in which they were entered. Its lines are counted from `first`.
pub(crate) fn calls(trace: &str, first: usize) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut unfinished: HashMap<&str, (usize, String)> = HashMap::new();
    for (line, number) in trace.lines().zip(first..) {
        let Some((thread, text)) = line.trim_start().split_once(' ') else { continue };
        let text = text.trim_start();
        if let Some(begun) = text.strip_suffix("<unfinished ...>") {
            unfinished.insert(thread, (number, begun.to_owned()));
        } else if let Some(rest) = text.strip_prefix("<... ") {
            let Some((entered, begun)) = unfinished.remove(thread) else { continue };
            let rest = rest.split_once(" resumed>").map_or("", |(_, rest)| rest);
            calls.extend(call(&(begun + rest), entered, number));
        } else if text.starts_with(|first: char| first.is_ascii_lowercase()) {
            calls.extend(call(text, number, number));
        }
    }
    let last = first + trace.lines().count();
    calls.extend(
        unfinished
            .into_values()
            .filter_map(|(entered, begun)| call(&format!("{begun}) = ?"), entered, last)),
    );
    calls.sort_by_key(|call| call.entered);
    calls
}

fn call(text: &str, entered: usize, returned: usize) -> Option<Call> {
    let (name, mut rest) = text.split_once('(')?;
    let (mut plain, mut texts) = (String::new(), Vec::new());
    while let Some((before, quoted)) = rest.split_once('"') {
        let (content, after) = quoted.split_once('"')?;
        plain.push_str(before);
        plain.push('$');
        texts.push(content.as_bytes().chunks_exact(4).map(byte).collect());
        rest = after;
    }
    plain.push_str(rest);
    let (arguments, result) = plain.rsplit_once(" = ")?;
    let arguments = arguments.trim_end().strip_suffix(')')?.trim_end();
    let result = result.split_whitespace().next()?;
    let result = match result.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok(),
        None => result.parse().ok(),
    };
    let arguments = arguments.split(", ").map(|argument| argument.trim().to_owned()).collect();
    Some(Call { name: name.to_owned(), entered, returned, arguments, texts, result })
}

/// `\x4f`
fn byte(text: &[u8]) -> u8 {
    let digit = |digit: u8| if digit <= b'9' { digit - b'0' } else { digit - b'a' + 10 };
    digit(text[2]) << 4 | digit(text[3])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_with_their_texts_and_results() {
        let trace = r#"7 openat(AT_FDCWD, "\x2f\x61", O_RDWR|O_CREAT, 0666) = 11
8 writev(12, [{iov_base="\x48", iov_len=1}, {iov_base="", iov_len=0}], 2 <unfinished ...>
7 --- SIGCHLD {si_signo=SIGCHLD} ---
7 pwrite64(11, "\xff\x00", 2, 4096) = -1 EIO (Input/output error)
8 <... writev resumed>)                 = 1
9 fsync(11 <unfinished ...>
9 +++ killed by SIGKILL +++"#;
        let calls = calls(trace, 10);
        let told: Vec<_> = calls
            .iter()
            .map(|call| (call.name.as_str(), call.entered, call.returned, call.result))
            .collect();
        let expected = [
            ("openat", 10, 10, Some(11)),
            ("writev", 11, 14, Some(1)),
            ("pwrite64", 13, 13, Some(-1)),
            ("fsync", 15, 17, None),
        ];
        assert_eq!(told, expected);
        assert_eq!(calls[0].arguments, ["AT_FDCWD", "$", "O_RDWR|O_CREAT", "0666"]);
        assert_eq!(calls[1].texts, [b"H".to_vec(), Vec::new()]);
        assert_eq!(
            (&calls[2].texts[0][..], calls[2].arguments.last().unwrap().as_str()),
            (&[255, 0][..], "4096")
        );
    }
}
