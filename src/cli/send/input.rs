//! The files and standard input, read on a thread of their own: a quiet pipe does not keep the rest from going on.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::mpsc;

use super::batch::{Kind, Place};
use super::line::{LINE_BYTES_MAX, with_id};
use super::record;
use crate::clock;
use crate::fresh_id::fresh_id;

/// What is read.
#[derive(Debug)]
pub(super) enum Input {
    /// A line that is not blank, with the bytes that it took in the input.
    Line(Place, u64, Line),
    /// The input cannot be read any further.
    Failed(anyhow::Error),
}

/// What a line holds: the event or record to send, `None` when it needs no sending, or what is wrong with it.
pub(super) type Line = Result<Option<(Kind, Vec<u8>)>, String>;

/// What the lines are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Lines {
    /// Events.
    Events,
    /// Finished records: those for this integration, where one is named.
    Records(Option<String>),
}

impl Lines {
    fn read(&self, text: &[u8]) -> Line {
        match self {
            Lines::Events => {
                let event = with_id(text, || fresh_id(clock::now()));
                event.map(|event| Some((Kind::Event, event)))
            }
            Lines::Records(integration) => record::read(text, integration.as_deref()),
        }
    }
}

/// Lines that wait to be sent; with [`LINE_BYTES_MAX`] it bounds what is in memory.
const WAITING_MAX: usize = 32;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads `files` one after the other, or standard input when there is none. The channel ends after the last line.
///
/// # Errors
/// When a file cannot be opened: before anything of any file is read.
pub(super) fn read(files: &[PathBuf], are: Lines) -> anyhow::Result<mpsc::Receiver<Input>> {
    let files = if files.is_empty() { vec![PathBuf::from("-")] } else { files.to_vec() };
    for file in files.iter().filter(|file| !is_stdin(file)) {
        let opened = File::open(file).and_then(|opened| opened.metadata());
        let metadata = opened.with_context(|| format!("open {}", file.display()))?;
        anyhow::ensure!(!metadata.is_dir(), "{} is a directory: name its files", file.display());
    }
    let (to, lines) = mpsc::channel(WAITING_MAX);
    // Ends with its input, or once nobody takes its lines.
    tokio::task::spawn_blocking(move || {
        for file in files {
            let read = if is_stdin(&file) {
                lines_of(BufReader::new(std::io::stdin()), "stdin", &are, &to)
            } else {
                let shown = file.display().to_string();
                File::open(&file)
                    .with_context(|| format!("open {shown}"))
                    .and_then(|opened| lines_of(BufReader::new(opened), &shown, &are, &to))
            };
            match read {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return drop(to.blocking_send(Input::Failed(error))),
            }
        }
    });
    Ok(lines)
}

pub(super) fn is_stdin(file: &Path) -> bool {
    file == Path::new("-")
}

/// `false` once nobody takes the lines.
fn lines_of(
    mut input: impl BufRead,
    name: &str,
    are: &Lines,
    to: &mpsc::Sender<Input>,
) -> anyhow::Result<bool> {
    let file: Arc<str> = Arc::from(name);
    let mut line = Vec::new();
    for number in 1.. {
        let context = || format!("read {name}, line {number}");
        line.clear();
        let limit = LINE_BYTES_MAX as u64 + 1;
        let mut bytes =
            input.by_ref().take(limit).read_until(b'\n', &mut line).with_context(context)?;
        if bytes == 0 {
            break;
        }
        let too_long = bytes > LINE_BYTES_MAX && line.last() != Some(&b'\n');
        if too_long {
            bytes += input.skip_until(b'\n').with_context(context)?;
        }
        let text = line.strip_prefix(BYTE_ORDER_MARK).filter(|_| number == 1).unwrap_or(&line);
        let text = text.trim_ascii();
        if text.is_empty() {
            continue;
        }
        let event = if too_long {
            Err(format!("longer than {LINE_BYTES_MAX} bytes"))
        } else {
            are.read(text)
        };
        let place = Place { file: file.clone(), line: number };
        if to.blocking_send(Input::Line(place, bytes as u64, event)).is_err() {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(files: &[PathBuf]) -> Vec<(u64, u64, Result<String, String>)> {
        let mut lines = read(files, Lines::Events).unwrap();
        let mut seen = Vec::new();
        while let Some(input) = lines.recv().await {
            match input {
                Input::Line(place, bytes, event) => {
                    let event = event.map(|event| String::from_utf8(event.unwrap().1).unwrap());
                    seen.push((place.line, bytes, event));
                }
                Input::Failed(error) => panic!("{error:#}"),
            }
        }
        seen
    }

    #[tokio::test]
    async fn lines_are_numbered_whatever_ends_them_and_blank_ones_are_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("events");
        let text = "\u{feff}{\"messageId\":\"a\"}\r\n\n  \n{\"messageId\":\"b\"}\nnonsense\n{\"messageId\":\"c\"}";
        std::fs::write(&file, text).unwrap();
        let seen = read_all(&[file.clone(), file]).await;
        let event = |id: &str| Ok(format!(r#"{{"messageId":"{id}"}}"#));
        assert_eq!(seen.len(), 8);
        assert_eq!((&seen[0], &seen[1]), (&(1, 22, event("a")), &(4, 18, event("b"))));
        assert!(seen[2].0 == 5 && seen[2].2.is_err());
        assert_eq!(seen[3], (6, 17, event("c")));
        assert_eq!(seen[4], (1, 22, event("a")), "the next file begins at line 1");
    }

    #[tokio::test]
    async fn a_line_without_end_takes_no_memory_and_costs_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("events");
        let pad = |bytes: usize| format!(r#"{{"messageId":"a","x":"{}"}}"#, "x".repeat(bytes - 24));
        let text = [pad(3 * LINE_BYTES_MAX), pad(LINE_BYTES_MAX), pad(100)].join("\n");
        std::fs::write(&file, text).unwrap();
        let seen = read_all(&[file]).await;
        assert_eq!(seen[0].2, Err("longer than 1048576 bytes".to_owned()));
        assert_eq!(seen[0].1, 3 * LINE_BYTES_MAX as u64 + 1);
        assert!(seen[1].2.is_ok() && seen[2].2.is_ok() && seen.len() == 3);
    }

    #[test]
    fn a_file_that_is_not_there_is_told_before_anything_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        assert!(
            format!("{:#}", read(std::slice::from_ref(&missing), Lines::Events).unwrap_err())
                .contains("missing")
        );
        let directory = read(&[folder.path().to_owned()], Lines::Events).unwrap_err().to_string();
        assert!(directory.contains("is a directory"), "{directory}");
    }
}
