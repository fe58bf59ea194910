//! `pillarbox send`: events from files or standard input to the daemon, whatever happens in between.
//!
//! ```text
//! files, stdin ──thread──▶ lines ──▶ batches ──▶ POST /v1/batch ──▶ taken │ later: the same again │ refused: its halves
//! ```
//! A batch that was not answered, or answered 503, is sent again until it is taken; an event without a `messageId` gets
//! one first, so that a repeated batch is stored once (Promise 4). One event that no daemon would take costs only itself.
//!
//! Finished records go the same way to `/v2/push`, in order, at most 100 of one type at a time. A batch of them whose answer
//! was lost is queued twice; Ometria merges a record that it has seen.

mod batch;
mod input;
mod line;
mod record;
mod totals;

#[cfg(test)]
mod tests;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use hyper::Method;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep, timeout_at};

use self::batch::{Batch, DELAY_FIRST, DELAY_MAX, Meaning, Taken, judge, wait};
use self::input::{Input, Lines};
use self::totals::Totals;
use super::client::{Answered, Client};
use super::show::{self, number};
use super::{Configured, Failure};

#[derive(Debug, Args)]
pub(super) struct Send {
    #[command(flatten)]
    configured: Configured,
    /// The daemon's ingest socket [default: that of the configuration]
    #[arg(long, value_name = "PATH", env = "PILLARBOX_SOCKET")]
    socket: Option<PathBuf>,
    /// Give up when the daemon takes nothing for this many seconds [default: never]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// The lines are finished Ometria records, or hold one as `record`, as `spool export` and `spool salvage` write them; of
    /// those only what was queued is sent
    #[arg(long)]
    records: bool,
    /// With --records: only what is for this integration, or does not say for which
    #[arg(long, value_name = "NAME", requires = "records")]
    integration: Option<String>,
    /// NDJSON files, an event a line; none, or `-`: standard input
    files: Vec<PathBuf>,
}

/// An incomplete batch waits so long for more lines: what comes through a pipe now and then is not kept back.
const LINGER: Duration = Duration::from_millis(200);
/// How long a daemon that has answered before may be gone: an upgrade, a restart.
const GONE_MAX: Duration = Duration::from_secs(60);
/// For the answer to one batch: longer than the daemon waits for its disk before it gives up.
const ANSWER_MAX: Duration = Duration::from_secs(120);

pub(super) async fn run(send: &Send) -> Result<(), Failure> {
    let socket = send.configured.ingest_socket(send.socket.as_deref())?;
    let client = Client::connect(&socket).await?;
    let are = if send.records { Lines::Records(send.integration.clone()) } else { Lines::Events };
    let mut lines = input::read(&send.files, are)?;
    let mut sender = Sender {
        socket,
        client: Some(client),
        give_up: send.timeout.map(Duration::from_secs),
        totals: Totals::default(),
        bar: progress(&send.files)?,
    };
    let ended = sender.all(&mut lines).await;
    sender.bar.finish_and_clear();
    // What was taken is said either way: those events are safe.
    show::line(&sender.totals.to_string());
    ended?;
    if sender.totals.all_well() { Ok(()) } else { Err(Failure::Said) }
}

/// A bar over the bytes of all files; a spinner when their size is not known; nothing without a terminal.
fn progress(files: &[PathBuf]) -> anyhow::Result<ProgressBar> {
    if !std::io::stderr().is_terminal() {
        return Ok(ProgressBar::hidden());
    }
    let size = |file: &PathBuf| {
        let metadata = std::fs::metadata(file).ok().filter(std::fs::Metadata::is_file);
        metadata.map(|metadata| metadata.len())
    };
    let sizes: Option<u64> = files.iter().map(size).sum();
    let (bar, template) = match sizes.filter(|bytes| *bytes > 0) {
        Some(bytes) => (
            ProgressBar::new(bytes),
            "{bar:30} {percent:>3}%  {bytes}/{total_bytes}  {msg}  {eta} left",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes}  {msg}"),
    };
    bar.set_style(ProgressStyle::with_template(template).context("set up the progress bar")?);
    bar.enable_steady_tick(Duration::from_millis(100));
    Ok(bar)
}

struct Sender {
    socket: PathBuf,
    client: Option<Client>,
    give_up: Option<Duration>,
    totals: Totals,
    bar: ProgressBar,
}

/// Connections that a batch may cost before it is suspected: a daemon that refuses a large body early closes while it is
/// still being written, and its 413 is lost with the connection.
const LOST_MAX: u32 = 3;

/// How a batch ended.
enum Ended {
    Taken(Taken),
    Refused(String),
}

impl Sender {
    /// Sends line after line until the input ends.
    async fn all(&mut self, lines: &mut mpsc::Receiver<Input>) -> Result<(), Failure> {
        let mut batch = Batch::default();
        let mut due: Option<Instant> = None;
        loop {
            let Ok(next) = next(lines, due).await else {
                due = None;
                self.deliver(std::mem::take(&mut batch)).await?;
                continue;
            };
            match next {
                None => return self.deliver(batch).await,
                Some(Input::Failed(error)) => {
                    self.deliver(batch).await?;
                    return Err(error.into());
                }
                Some(Input::Line(place, bytes, event)) => {
                    self.bar.inc(bytes);
                    match event {
                        Err(message) => self.totals.invalid(&place, &message, &self.bar),
                        Ok(None) => self.totals.skipped(),
                        Ok(Some((kind, event))) => {
                            if batch.is_full_for(&kind, event.len()) {
                                due = None;
                                self.deliver(std::mem::take(&mut batch)).await?;
                            }
                            batch.push(place, kind, event);
                            due.get_or_insert_with(|| Instant::now() + LINGER);
                        }
                    }
                }
            }
        }
    }

    /// Sends a batch until each of its events has an end: what is refused as a whole goes in halves, in order.
    async fn deliver(&mut self, batch: Batch) -> Result<(), Failure> {
        let mut left = vec![batch];
        while let Some(batch) = left.pop() {
            if batch.is_empty() {
                continue;
            }
            match self.push(&batch).await? {
                Ended::Taken(taken) => self.totals.add(taken, &batch, &self.bar),
                Ended::Refused(message) => match batch.halves() {
                    Ok((first, second)) => left.extend([second, first]),
                    Err(Some(place)) => self.totals.invalid(&place, &message, &self.bar),
                    Err(None) => {}
                },
            }
            self.bar.set_message(format!("{} accepted", number(self.totals.accepted())));
        }
        Ok(())
    }

    /// Sends one batch, again and again while it may still be taken.
    async fn push(&mut self, batch: &Batch) -> Result<Ended, Failure> {
        let (kind, body) = (batch.kind(), batch.body());
        let begun = Instant::now();
        let mut gone_since: Option<Instant> = None;
        let mut lost = 0;
        let mut delay = DELAY_FIRST;
        loop {
            let (asked, why) = match self.post(&kind.path(), &body).await {
                Err(error) => {
                    gone_since.get_or_insert_with(Instant::now);
                    lost += 1;
                    (None, format!("{error:#}"))
                }
                Ok(answered) => {
                    (gone_since, lost) = (None, 0);
                    match judge(kind.taken(), answered.status, answered.retry_after, &answered.body)
                    {
                        Meaning::Taken(taken) => return Ok(Ended::Taken(taken)),
                        Meaning::Refused(message) => return Ok(Ended::Refused(message)),
                        Meaning::Later(asked, why) => (asked, why),
                        Meaning::Wrong(why) => {
                            let socket = self.socket.display();
                            let from = batch.place(0).map(ToString::to_string).unwrap_or_default();
                            return Err(anyhow!(
                                "{socket} does not take what follows from {from} on: {why}"
                            )
                            .into());
                        }
                    }
                }
            };
            if let Some(failure) = self.tired(begun, gone_since, &why) {
                return Err(failure);
            }
            if lost >= LOST_MAX && self.is_alive().await {
                let advice = "is it larger than ingest.max_request?";
                return Ok(Ended::Refused(format!(
                    "the daemon is well, but not with this ({advice}): {why}"
                )));
            }
            if delay == DELAY_FIRST {
                let note = format!("waiting for the daemon: {}", show::printable(&why));
                self.bar.suspend(|| show::note(&note));
            }
            sleep(wait(delay, asked)).await;
            delay = (delay * 2).min(DELAY_MAX);
        }
    }

    /// Whether it is time to give up. A daemon that says no may do so for ever; one that is gone, only so long.
    fn tired(&self, begun: Instant, gone_since: Option<Instant>, why: &str) -> Option<Failure> {
        let (since, limit) = match gone_since {
            Some(since) => (since, Some(self.give_up.unwrap_or(GONE_MAX))),
            None => (begun, self.give_up),
        };
        if since.elapsed() < limit? {
            return None;
        }
        let error = anyhow!("gave up after {}: {why}", show::age(since.elapsed()));
        Some(if gone_since.is_some() {
            Failure::Unreachable(error)
        } else {
            Failure::Failed(error)
        })
    }

    /// Whether the daemon answers to anything else: then it is the batch that it cannot stand.
    async fn is_alive(&mut self) -> bool {
        let Ok(mut client) = reconnect(&self.socket).await else { return false };
        let health = client.request(Method::GET, "/health", bytes::Bytes::new(), Some(ANSWER_MAX));
        health.await.is_ok_and(|answered| matches!(answered.status, 200 | 503))
    }

    async fn post(&mut self, path: &str, body: &bytes::Bytes) -> anyhow::Result<Answered> {
        // The daemon closes a connection that was quiet for long: that is no trouble.
        let mut client = match self.client.take().filter(Client::is_open) {
            Some(client) => client,
            None => reconnect(&self.socket).await?,
        };
        let sent = client.request(Method::POST, path, body.clone(), Some(ANSWER_MAX));
        let answered = sent.await?;
        self.client = Some(client);
        Ok(answered)
    }
}

/// The next piece of input, `None` at its end; an error when `due` comes first.
///
/// # Cancel safety
/// No input is lost.
async fn next(
    lines: &mut mpsc::Receiver<Input>,
    due: Option<Instant>,
) -> Result<Option<Input>, Elapsed> {
    match due {
        Some(at) => timeout_at(at, lines.recv()).await,
        None => Ok(lines.recv().await),
    }
}

async fn reconnect(socket: &Path) -> anyhow::Result<Client> {
    Client::connect(socket).await.map_err(|failure| match failure {
        Failure::Unreachable(error) | Failure::Failed(error) => error,
        Failure::Said | Failure::Configuration(_) => anyhow!("the daemon is not reachable"),
    })
}
