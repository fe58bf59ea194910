//! `pillarbox send`: events from files or standard input to the daemon, whatever happens in between.
//!
//! Lines are joined into batches. A batch that was not answered, or answered 503, is sent again until it is taken; an
//! event without a `messageId` gets one first, so that a repeated batch is stored once (Promise 4).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use clap::Args;
use hyper::Method;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::Instant;
use uuid::Uuid;

use super::client::{Answered, Client};
use super::show::{self, number};
use super::{Configured, Failure};
use crate::config;

#[derive(Debug, Args)]
pub(super) struct Send {
    #[command(flatten)]
    configured: Configured,
    /// Give up when the daemon takes nothing for this many seconds [default: never]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// NDJSON files, an event a line; none, or `-`: standard input
    files: Vec<PathBuf>,
}

/// Events in a request.
const BATCH_EVENTS_MAX: usize = 100;
/// Bytes of a request: half of the smallest default limit.
const BATCH_BYTES_MAX: usize = 512 << 10;
/// How long a daemon that has answered before may be gone: an upgrade, a restart.
const GONE_MAX: Duration = Duration::from_secs(60);
/// Between tries, doubling.
const DELAY_FIRST: Duration = Duration::from_millis(100);
const DELAY_MAX: Duration = Duration::from_secs(30);
/// Lines at fault that are told one by one.
const FAULTS_TOLD_MAX: u64 = 20;

/// What the daemon made of a batch.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Taken {
    accepted: u64,
    dropped: u64,
    duplicate: u64,
    quarantined: u64,
    items: Vec<Item>,
}

#[derive(Debug, Deserialize)]
struct Item {
    index: usize,
    outcome: String,
    reason: String,
    message: Option<String>,
}

/// Everything that was sent so far.
#[derive(Debug, Default)]
struct Totals {
    taken: Taken,
    dropped: BTreeMap<String, u64>,
    invalid: u64,
    told: u64,
}

/// Lines that wait to be sent.
#[derive(Debug, Default)]
struct Batch {
    body: Vec<u8>,
    /// Where each event came from: file and line.
    places: Vec<(String, usize)>,
}

pub(super) async fn run(send: &Send) -> Result<(), Failure> {
    let (socket, _) = config::sockets(&send.configured.source());
    let give_up = send.timeout.map(Duration::from_secs);
    let client = Client::connect(&socket).await?;
    let bar = progress(&send.files)?;
    let mut sender = Sender {
        socket,
        client: Some(client),
        give_up,
        totals: Totals::default(),
        batch: Batch::default(),
        bar,
    };
    let standard_input = [PathBuf::from("-")];
    let files = if send.files.is_empty() { &standard_input[..] } else { &send.files };
    for file in files {
        sender.file(file).await?;
    }
    sender.flush().await?;
    sender.bar.finish_and_clear();
    sender.totals.report()
}

/// A bar over the bytes of all files; a spinner when their size is not known; nothing without a terminal.
fn progress(files: &[PathBuf]) -> anyhow::Result<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let sizes: Option<u64> =
        files.iter().map(|file| std::fs::metadata(file).ok().map(|metadata| metadata.len())).sum();
    let known = sizes.filter(|bytes| *bytes > 0 && !files.is_empty());
    let (bar, template) = match known {
        Some(bytes) => (
            ProgressBar::new(bytes),
            "{bar:30} {percent:>3}%  {bytes}/{total_bytes}  {msg}  {eta} left",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes}  {msg}"),
    };
    bar.set_style(ProgressStyle::with_template(template).context("set up the progress bar")?);
    Ok(bar)
}

struct Sender {
    socket: PathBuf,
    client: Option<Client>,
    give_up: Option<Duration>,
    totals: Totals,
    batch: Batch,
    bar: ProgressBar,
}

impl Sender {
    async fn file(&mut self, path: &Path) -> Result<(), Failure> {
        let shown =
            if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() };
        let mut lines: Box<dyn BufRead> = if path == Path::new("-") {
            Box::new(BufReader::new(std::io::stdin()))
        } else {
            Box::new(BufReader::new(File::open(path).with_context(|| format!("open {shown}"))?))
        };
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let bytes =
                lines.read_until(b'\n', &mut line).with_context(|| format!("read {shown}"))?;
            if bytes == 0 {
                break;
            }
            self.bar.inc(bytes as u64);
            let event = line.trim_ascii();
            if event.is_empty() {
                continue;
            }
            match with_id(event, || format!("evt_{}", Uuid::now_v7().simple())) {
                Ok(event) => {
                    if self.batch.is_full(event.len()) {
                        self.flush().await?;
                    }
                    self.batch.push(&event, shown.clone(), number);
                }
                Err(message) => {
                    self.totals.fault(&format!("{shown}:{number}: {message}"), &self.bar)
                }
            }
        }
        Ok(())
    }

    /// Sends what waits, and tries again until it is taken.
    async fn flush(&mut self) -> Result<(), Failure> {
        if self.batch.places.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        let mut body = batch.body;
        body.push(b']');
        let body = Bytes::from(body);
        let begun = Instant::now();
        let mut delay = DELAY_FIRST;
        loop {
            let (asked, why, gone) = match self.post(&body).await {
                Ok(answered) if answered.status == 200 => {
                    let taken = serde_json::from_slice(&answered.body)
                        .context("the daemon's answer is not understood")?;
                    self.totals.add(taken, &batch.places, &self.bar);
                    self.bar
                        .set_message(format!("{} accepted", number(self.totals.taken.accepted)));
                    return Ok(());
                }
                Ok(answered) if answered.status == 503 || answered.status == 408 => (
                    answered.retry_after,
                    String::from_utf8_lossy(&answered.body).into_owned(),
                    false,
                ),
                Ok(answered) => {
                    let said = String::from_utf8_lossy(&answered.body).into_owned();
                    let (file, line) = batch.places.first().cloned().unwrap_or_default();
                    return Err(anyhow!(
                        "the daemon answered {} to the events from {file}:{line} on: {said}",
                        answered.status
                    )
                    .into());
                }
                Err(error) => (None, format!("{error:#}"), true),
            };
            let limit = if gone { Some(self.give_up.unwrap_or(GONE_MAX)) } else { self.give_up };
            if limit.is_some_and(|limit| begun.elapsed() >= limit) {
                let message = format!(
                    "gave up after {}: {why}; {}",
                    show::age(begun.elapsed()),
                    self.totals.so_far()
                );
                let error = anyhow!(message);
                return Err(if gone {
                    Failure::Unreachable(error)
                } else {
                    Failure::Failed(error)
                });
            }
            if delay == DELAY_FIRST {
                self.bar.suspend(|| show::note(&format!("waiting for the daemon: {why}")));
            }
            tokio::time::sleep(wait(delay, asked)).await;
            delay = (delay * 2).min(DELAY_MAX);
        }
    }

    async fn post(&mut self, body: &Bytes) -> anyhow::Result<Answered> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(&self.socket).await.map_err(|failure| match failure {
                Failure::Unreachable(error) | Failure::Failed(error) => error,
                Failure::Said | Failure::Configuration(_) => anyhow!("the daemon is not reachable"),
            })?,
        };
        let answered = client.request(Method::POST, "/v1/batch", body.clone()).await?;
        self.client = Some(client);
        Ok(answered)
    }
}

/// How long to wait before the next try: what was asked, within reason, else `delay`.
fn wait(delay: Duration, asked: Option<u64>) -> Duration {
    asked.map_or(delay, |seconds| Duration::from_secs(seconds).min(DELAY_MAX).min(delay * 16))
}

impl Batch {
    fn is_full(&self, bytes: usize) -> bool {
        let events = self.places.len();
        events == BATCH_EVENTS_MAX || (events > 0 && self.body.len() + bytes + 2 > BATCH_BYTES_MAX)
    }

    fn push(&mut self, event: &[u8], file: String, line: usize) {
        self.body.push(if self.places.is_empty() { b'[' } else { b',' });
        self.body.extend_from_slice(event);
        self.places.push((file, line));
    }
}

impl Totals {
    fn add(&mut self, taken: Taken, places: &[(String, usize)], bar: &ProgressBar) {
        self.taken.accepted += taken.accepted;
        self.taken.dropped += taken.dropped;
        self.taken.duplicate += taken.duplicate;
        self.taken.quarantined += taken.quarantined;
        for item in taken.items {
            match item.outcome.as_str() {
                "dropped" => *self.dropped.entry(item.reason).or_default() += 1,
                "quarantined" => {
                    let (file, line) = places.get(item.index).cloned().unwrap_or_default();
                    let why = item.message.unwrap_or(item.reason);
                    self.tell(&format!("{file}:{line}: quarantined: {why}"), bar);
                }
                _ => {}
            }
        }
    }

    fn fault(&mut self, text: &str, bar: &ProgressBar) {
        self.invalid += 1;
        self.tell(text, bar);
    }

    fn tell(&mut self, text: &str, bar: &ProgressBar) {
        self.told += 1;
        if self.told <= FAULTS_TOLD_MAX {
            bar.suspend(|| show::problem(text));
        } else if self.told == FAULTS_TOLD_MAX + 1 {
            bar.suspend(|| show::note("further lines at fault are only counted"));
        }
    }

    fn so_far(&self) -> String {
        let Taken { accepted, dropped, duplicate, quarantined, .. } = &self.taken;
        let reasons: Vec<String> = self
            .dropped
            .iter()
            .map(|(reason, count)| format!("{reason} {}", number(*count)))
            .collect();
        let reasons =
            if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
        format!(
            "{} accepted, {} seen before, {} dropped{reasons}, {} quarantined, {} invalid lines",
            number(*accepted),
            number(*duplicate),
            number(*dropped),
            number(*quarantined),
            number(self.invalid)
        )
    }

    fn report(&self) -> Result<(), Failure> {
        show::line(&self.so_far());
        if self.invalid + self.taken.quarantined == 0 { Ok(()) } else { Err(Failure::Said) }
    }
}

/// The line with a `messageId`: as it stands when it has one, else with `fresh` put in as its first member.
fn with_id(line: &[u8], fresh: impl FnOnce() -> String) -> Result<Vec<u8>, String> {
    #[derive(Deserialize)]
    struct Named<'a> {
        #[serde(rename = "messageId", borrow)]
        message_id: Option<&'a serde_json::value::RawValue>,
    }
    let empty = |id: &serde_json::value::RawValue| matches!(id.get(), "null" | "\"\"");
    match serde_json::from_slice::<Named<'_>>(line) {
        Ok(Named { message_id: Some(id) }) if !empty(id) && line.first() == Some(&b'{') => {
            return Ok(line.to_vec());
        }
        // NaN and the like, which the daemon mends, and what is no JSON at all.
        Err(_) if serde_json::from_slice::<IgnoredAny>(line).is_err() => {
            let mended = crate::event::repair(line, crate::event::DEPTH_MAX)
                .map_err(|error| error.to_string())?;
            if matches!(mended, std::borrow::Cow::Borrowed(_)) {
                let error = serde_json::from_slice::<IgnoredAny>(line).err();
                return Err(error.map_or_else(String::new, |error| format!("no JSON: {error}")));
            }
            return with_id(mended.as_bytes(), fresh);
        }
        // Serde reads an array as a struct, too.
        _ if line.first() != Some(&b'{') => {
            return Err("an event must be a JSON object".to_owned());
        }
        // A repeated key among them: the last value counts, and it may well be an id.
        Err(_) => return Ok(line.to_vec()),
        Ok(_) => {}
    }
    let rest = line.get(1..).unwrap_or_default().trim_ascii_start();
    let member = format!(r#"{{"messageId":"{}""#, fresh());
    let mut event = Vec::with_capacity(line.len() + member.len() + 1);
    // The last of repeated keys counts: an empty or null `messageId` later in the line would undo one put in front.
    if line.windows(11).any(|window| window == b"\"messageId\"") {
        let end = line.iter().rposition(|byte| *byte == b'}').unwrap_or(line.len());
        event.extend_from_slice(line.get(..end).unwrap_or(line));
        event.extend_from_slice(format!(",{}}}", member.trim_start_matches('{')).as_bytes());
        return Ok(event);
    }
    event.extend_from_slice(member.as_bytes());
    event.extend_from_slice(if rest.starts_with(b"}") { b"" } else { b"," });
    event.extend_from_slice(rest);
    Ok(event)
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
            ("{}", r#"{"messageId":"new"}"#),
            ("{ }", r#"{"messageId":"new"}"#),
            (r#"{"messageId":null,"x":1}"#, r#"{"messageId":null,"x":1,"messageId":"new"}"#),
            (r#"{"x":NaN}"#, r#"{"messageId":"new","x":null}"#),
        ] {
            assert_eq!(named(line).as_deref(), Ok(sent), "{line}");
        }
        assert!(named("{\"x\":").unwrap_err().contains("column"));
        assert_eq!(named("[1]").unwrap_err(), "an event must be a JSON object");
        assert_eq!(named("17").unwrap_err(), "an event must be a JSON object");
    }

    #[test]
    fn what_the_daemon_asks_to_wait_is_kept_within_reason() {
        let seconds = Duration::from_secs;
        assert_eq!(wait(seconds(1), None), seconds(1));
        assert_eq!(wait(seconds(1), Some(5)), seconds(5));
        assert_eq!(wait(seconds(10), Some(3600)), DELAY_MAX);
    }

    proptest! {
        #[test]
        fn any_object_keeps_its_members(members in proptest::collection::btree_map("[a-z]{1,8}", any::<i64>(), 0..8)) {
            let line = serde_json::to_string(&members).unwrap();
            let sent = named(&line).unwrap();
            let mut read: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&sent).unwrap();
            prop_assert_eq!(read.remove("messageId"), Some("new".into()));
            prop_assert_eq!(serde_json::to_string(&read).unwrap(), line);
        }

        #[test]
        fn any_line_is_taken_or_refused(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            drop(with_id(&line, || "new".to_owned()));
        }

        #[test]
        fn batches_stay_within_their_limits(sizes in proptest::collection::vec(1_usize..200_000, 1..300)) {
            let mut batch = Batch::default();
            for size in sizes {
                if batch.is_full(size) {
                    prop_assert!(batch.places.len() <= BATCH_EVENTS_MAX);
                    batch = Batch::default();
                }
                batch.push(&vec![b'x'; size], String::new(), 1);
                prop_assert!(batch.body.len() < BATCH_BYTES_MAX || batch.places.len() == 1);
            }
        }
    }
}
