//! The quarantine to a file, and back: here or on another host.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read as _, Write};
use std::mem;
use std::path::Path;

use anyhow::Context as _;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::Failure;
use super::super::client::Client;
use super::super::show::{self, number, printable};
use crate::admin::protocol::{Imported, QuarantineFilter, QuarantineQuery, RefusedLine};
use crate::spool::QuarantineId;

/// Writes everything, or leaves what was there before: to a file that only its owner may read (Promise 8).
pub(super) async fn export(
    client: &mut Client,
    filter: QuarantineFilter,
    output: Option<&Path>,
) -> Result<(), Failure> {
    let Some(path) = output else {
        let written = write_all(client, filter, &mut std::io::stdout().lock()).await;
        return match written {
            // A reader such as `head` has seen enough.
            Err(Failure::Failed(error)) if is_broken_pipe(&error) => Ok(()),
            written => written.map(drop),
        };
    };
    let failed = || format!("write {}", path.display());
    let special = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
    if special {
        let mut out = fs::OpenOptions::new().write(true).open(path).with_context(failed)?;
        return write_all(client, filter, &mut out).await.map(drop);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut out = tempfile::NamedTempFile::new_in(folder).with_context(failed)?;
    let entries = write_all(client, filter, &mut out).await?;
    out.as_file().sync_all().with_context(failed)?;
    out.persist(path).with_context(failed)?;
    show::note(&format!("{} entries written", number(entries)));
    Ok(())
}

/// Writes every entry that `filter` takes, page by page, as the daemon gives it; returns how many.
async fn write_all(
    client: &mut Client,
    filter: QuarantineFilter,
    out: &mut impl Write,
) -> Result<u64, Failure> {
    let mut query = QuarantineQuery { filter, ..QuarantineQuery::default() };
    let mut entries = 0;
    while let Some(page) = next_page(client, &mut query).await? {
        entries += lines(&page).count() as u64;
        out.write_all(&page).context("write the entries")?;
    }
    out.flush().context("write the entries")?;
    Ok(entries)
}

/// The next page of an export, and `query` set to the one after it; `None` after the last.
async fn next_page(
    client: &mut Client,
    query: &mut QuarantineQuery,
) -> Result<Option<Bytes>, Failure> {
    #[derive(Deserialize)]
    struct Line {
        id: QuarantineId,
    }
    let page = client.post_raw("/v1/quarantine/export", query).await?;
    let Some(last) = lines(&page).next_back() else { return Ok(None) };
    let last: Line = serde_json::from_slice(last).context("read the last entry of a page")?;
    query.from = last.id.0 + 1;
    Ok(Some(page))
}

fn lines(page: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    page.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Lines that are sent at once …
const IMPORT_LINES: usize = 100;
/// … and about how many bytes.
const IMPORT_BYTES: usize = 4 << 20;
/// The longest line: more the daemon does not take.
const LINE_BYTES_MAX: u64 = 70 << 20;

/// Takes the entries of a file into the quarantine, but for those that are in it already. A bad line is told, and costs the
/// others nothing.
pub(super) async fn import(client: &mut Client, file: &Path) -> Result<(), Failure> {
    let mut input: Box<dyn BufRead> = if file == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        let opened = File::open(file).with_context(|| format!("open {}", file.display()))?;
        Box::new(BufReader::new(opened))
    };
    let mut known = HashSet::new();
    let mut query = QuarantineQuery::default();
    while let Some(page) = next_page(client, &mut query).await? {
        known.extend(lines(&page).filter_map(content));
    }
    let mut import = Import { known, ..Import::default() };
    let ended = import.all(client, &mut input, file).await;
    // What was taken in is said either way.
    let Import { imported, repeated, refused, .. } = import;
    let seen = if repeated > 0 {
        format!(", {} were there already", number(repeated))
    } else {
        String::new()
    };
    show::line(&format!("{} imported{seen}", number(imported)));
    ended?;
    if refused == 0 { Ok(()) } else { Err(Failure::Said) }
}

/// An import under way.
#[derive(Default)]
struct Import {
    /// What the quarantine holds.
    known: HashSet<[u8; 32]>,
    /// Lines that wait to be sent, with their numbers.
    waiting: Vec<u64>,
    body: Vec<u8>,
    imported: u64,
    repeated: u64,
    refused: u64,
}

impl Import {
    async fn all(
        &mut self,
        client: &mut Client,
        input: &mut impl BufRead,
        file: &Path,
    ) -> Result<(), Failure> {
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let read = input.take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
            let bytes = read.with_context(|| format!("read {}", file.display()))?;
            if bytes == 0 {
                break;
            }
            if bytes as u64 == LINE_BYTES_MAX && line.last() != Some(&b'\n') {
                input.skip_until(b'\n').with_context(|| format!("read {}", file.display()))?;
                self.refuse(number, "it is longer than any entry");
                continue;
            }
            let text = line.trim_ascii();
            if text.is_empty() {
                continue;
            }
            if content(text).is_some_and(|content| !self.known.insert(content)) {
                self.repeated += 1;
                continue;
            }
            if self.waiting.len() == IMPORT_LINES || self.body.len() + text.len() > IMPORT_BYTES {
                self.send(client).await?;
            }
            self.waiting.push(number);
            self.body.extend_from_slice(text);
            self.body.push(b'\n');
        }
        self.send(client).await
    }

    async fn send(&mut self, client: &mut Client) -> Result<(), Failure> {
        let (waiting, body) = (mem::take(&mut self.waiting), mem::take(&mut self.body));
        let Some(first) = waiting.first() else { return Ok(()) };
        let taken: Result<Imported, Failure> =
            client.post_bytes("/v1/quarantine/import", Bytes::from(body)).await;
        let taken = taken.map_err(|failure| match failure {
            Failure::Failed(error) => {
                Failure::Failed(error.context(format!("import from line {first} on")))
            }
            failure => failure,
        })?;
        self.imported += taken.imported;
        for RefusedLine { line, message } in &taken.refused {
            let number = waiting.get(line.saturating_sub(1)).copied().unwrap_or_default();
            self.refuse(number, message);
        }
        Ok(())
    }

    fn refuse(&mut self, line: u64, message: &str) {
        self.refused += 1;
        show::problem(&format!("line {line}: {}", printable(message)));
    }
}

/// A digest of what makes an entry, whatever its id and its lane: two of them are one. `None` when it is none.
fn content(line: &[u8]) -> Option<[u8; 32]> {
    #[derive(Deserialize)]
    struct Content<'a> {
        reason: String,
        status: Option<u16>,
        origin: Value,
        at: u64,
        #[serde(borrow)]
        body: &'a RawValue,
    }
    let entry: Content<'_> = serde_json::from_slice(line).ok()?;
    let named = |key: &str| entry.origin.pointer(key).unwrap_or(&Value::Null).to_string();
    let origin =
        ["/Record/integration", "/Record/record_type", "/Event/integration", "/Event/kind"];
    let mut text = serde_json::json!([entry.reason, entry.status, entry.at, origin.map(named)]);
    let parts = text.as_array_mut()?;
    parts.push(entry.body.get().into());
    let whole = ring::digest::digest(&ring::digest::SHA256, text.to_string().as_bytes());
    whole.as_ref().try_into().ok()
}
