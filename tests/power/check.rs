//! What must hold of a spool after a power cut, whatever the cut left.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use bytes::Bytes;
use pillarbox::spool::{
    Append, Content, Drive, Item, LaneId, Once, Options, PersonKeys, QuarantineId, Seq, Spool,
    SyncMode,
};

use super::history::{History, What, ids};
use crate::support::{Host, Producer, Upstream};

/// Settled records that the spool keeps: few, so that the workload sees them go.
pub(crate) const KEEP: u64 = 40;

/// An engine that meets what it does not expect may wait for ever.
const DEADLINE: Duration = Duration::from_secs(60);

/// An event that was in no recording.
const FRESH: &str = "e-9-00000";

/// What was told to producers, or by upstream, before a cut.
#[derive(Debug, Default)]
pub(crate) struct Told<'a> {
    /// By producer, in the order of its answers.
    answered: BTreeMap<&'a str, Vec<&'a str>>,
    accepted: HashSet<&'a str>,
}

/// What an open spool holds.
#[derive(Debug, Default)]
pub(crate) struct Held {
    cursor: u64,
    queued: Vec<String>,
    quarantined: HashSet<String>,
}

impl<'a> Told<'a> {
    /// Up to the line `cut`.
    pub(crate) fn before(history: &'a History, cut: usize) -> Told<'a> {
        let mut told = Told::default();
        for heard in history.heard.iter().filter(|heard| heard.at <= cut) {
            let ids = heard.ids.iter().map(String::as_str);
            match heard.what {
                What::Accepted => told.accepted.extend(ids),
                What::Answered => {
                    ids.for_each(|id| told.answered.entry(producer(id)).or_default().push(id));
                }
            }
        }
        told
    }

    fn answered(&self, kind: &str) -> impl Iterator<Item = &'a str> {
        self.answered.values().flatten().copied().filter(move |id| id.starts_with(kind))
    }

    /// Opens the spool in `directory` and checks the promises.
    ///
    /// # Errors
    /// The promise that is broken, in words.
    pub(crate) fn check(&self, directory: &Path) -> Result<Held, String> {
        let (done, result) = channel();
        let identities: Vec<(String, &str)> = (self.answered.iter())
            .filter_map(|(producer, ids)| {
                Some((
                    format!("u:u-{producer}"),
                    ids.iter().copied().rfind(|id| id.starts_with("i-"))?,
                ))
            })
            .collect();
        let newest: Vec<String> = self
            .answered
            .values()
            .filter_map(|ids| Some(ids.iter().rfind(|id| id.starts_with("e-"))?.to_string()))
            .collect();
        let keys = identities.iter().map(|(key, _)| key.clone()).collect();
        let options = options(directory);
        // A thread that hangs is left behind.
        std::thread::spawn(move || drop(done.send(look(options, keys, &newest))));
        let (held, traits) = match result.recv_timeout(DEADLINE) {
            Ok(looked) => looked?,
            Err(RecvTimeoutError::Timeout) => return Err("the spool hangs".to_owned()),
            Err(RecvTimeoutError::Disconnected) => return Err("the spool panicked".to_owned()),
        };
        for ((key, last), traits) in identities.iter().zip(traits) {
            let stored = traits.and_then(|traits| ids(&traits).pop()).unwrap_or_default();
            if stored.as_str() < *last {
                return Err(format!("identity {key} was answered with {last}, and is {stored:?}"));
            }
        }
        self.judge(&held)?;
        Ok(held)
    }

    fn judge(&self, held: &Held) -> Result<(), String> {
        let queued: HashSet<&str> = held.queued.iter().map(String::as_str).collect();
        if queued.len() < held.queued.len() {
            return Err(format!("an id is queued twice: {:?}", held.queued));
        }
        let ended = |id: &str| self.accepted.contains(id) || held.quarantined.contains(id);
        if let Some(lost) = self.answered("e-").find(|id| !queued.contains(id) && !ended(id)) {
            return Err(format!(
                "{lost} was answered 200 and is lost (the cursor is at {}, {} are queued)",
                held.cursor,
                queued.len()
            ));
        }
        if let Some(lost) = self.answered("x-").find(|id| !held.quarantined.contains(*id)) {
            return Err(format!("{lost} was answered 200 and is not in the quarantine"));
        }
        // A record that is settled was accepted, or its copy came first.
        let quarantined = held.quarantined.iter().map(String::as_str);
        let ended: HashSet<&str> = self
            .accepted
            .iter()
            .copied()
            .chain(quarantined)
            .filter(|id| id.starts_with("e-") && !queued.contains(id))
            .collect();
        if held.cursor - 1 > ended.len() as u64 {
            return Err(format!(
                "the cursor is at {}, and only {} records were accepted or quarantined",
                held.cursor,
                ended.len()
            ));
        }
        for (name, answered) in &self.answered {
            let mine: Vec<&str> =
                held.queued.iter().map(String::as_str).filter(|id| producer(id) == *name).collect();
            if !mine.is_sorted() {
                return Err(format!("the records of producer {name} are out of order: {mine:?}"));
            }
            let settled =
                answered.iter().filter(|id| id.starts_with("e-") && !queued.contains(*id)).max();
            if let (Some(settled), Some(first)) = (settled, mine.first())
                && *settled > *first
            {
                return Err(format!("{settled} is settled before {first}"));
            }
        }
        Ok(())
    }
}

/// Starts the daemon on `host`, and sees that it delivers what is queued, in order, and then what is new.
///
/// # Errors
/// As [`Told::check`].
pub(crate) fn deliver(held: &Held, host: &Host, upstream: &Upstream) -> Result<(), String> {
    let daemon = host.start();
    let answer = Producer::connect(&host.ingest()).post("/v1/track", &crate::support::event(FRESH));
    if answer.status != 200 {
        return Err(format!("{answer:?}"));
    }
    host.wait_until_settled();
    if daemon.stop().0 != Some(0) {
        return Err("the daemon failed".to_owned());
    }
    let arrived = upstream.ids();
    if arrived.iter().eq(held.queued.iter().chain([&FRESH.to_owned()])) {
        Ok(())
    } else {
        Err(format!("{:?} were queued, and {arrived:?} arrived", held.queued))
    }
}

fn producer(id: &str) -> &str {
    id.get(2..3).unwrap_or_default()
}

fn options(directory: &Path) -> Options {
    Options {
        directory: directory.to_owned(),
        sync: SyncMode::Always,
        cache_bytes: 8 << 20,
        records_max: 1_000_000,
        bytes_max: 1 << 30,
        free_disk_min_bytes: 0,
        keep_delivered: KEEP,
        keep_events: false,
        dedupe_window: 100_000,
        identities_max: 1_000_000,
    }
}

type Looked = Result<(Held, Vec<Option<Bytes>>), String>;

fn look(options: Options, identities: Vec<String>, newest: &[String]) -> Looked {
    let spool = Spool::open(options, Drive::Thread)
        .map_err(|error| format!("it does not open: {}", chain(&error)))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut held = Held { cursor: 1, ..Held::default() };
        let traits = spool.identities(identities).await.map_err(|error| chain(&error))?;
        for (_, entry) in
            spool.quarantine(QuarantineId(0), usize::MAX).await.map_err(|error| chain(&error))?
        {
            held.quarantined.extend(ids(&entry.body));
        }
        if let Some((lane, ..)) = spool.lanes().first().cloned() {
            held.cursor = spool.cursor(lane).0;
            held.queued = queued(&spool, lane).await?;
            again(&spool, lane, newest).await?;
        }
        spool.close().await;
        Ok((held, traits))
    })
}

/// The ids of what is queued.
async fn queued(spool: &Spool, lane: LaneId) -> Result<Vec<String>, String> {
    let mut queued = Vec::new();
    let mut next = spool.cursor(lane);
    let newest = *spool.newest(lane).borrow();
    while next.0 <= newest {
        let entries = spool.peek(lane, next, 1000, 8 << 20).await.map_err(|error| chain(&error))?;
        for entry in &entries {
            if entry.seq != next {
                return Err(format!("{:?} stands where {next:?} should", entry.seq));
            }
            let id = ids(&entry.record).into_iter().next();
            let kept = entry.event.as_ref().map(|event| ids(event).into_iter().next());
            if kept.is_some_and(|kept| kept != id) {
                return Err(format!("beside the record at {next:?} lies another's event"));
            }
            queued.push(id.ok_or_else(|| format!("the record at {next:?} has no id"))?);
            next = Seq(next.0 + 1);
        }
        if entries.is_empty() {
            return Err(format!("nothing is read at {next:?}, and the newest is {newest}"));
        }
    }
    Ok(queued)
}

/// Promise 4: what was answered is known; and what is new is taken.
async fn again(spool: &Spool, lane: LaneId, newest: &[String]) -> Result<(), String> {
    let fresh = FRESH.to_owned();
    let item = |id: &String| Item {
        once: Some(Once::new(lane.0, id)),
        content: Content::Record {
            lane,
            record_type: Arc::from("custom_event"),
            record: Bytes::from(format!(r#"{{"id":"{id}"}}"#)),
            person: PersonKeys::default(),
            first_seen: None,
            event: None,
        },
    };
    let items = newest.iter().chain([&fresh]).map(item).collect();
    let before = *spool.newest(lane).borrow();
    let receipt =
        spool.append(Append { items, ..Append::default() }).await.map_err(|error| chain(&error))?;
    if !receipt.duplicates.iter().copied().eq(0..newest.len()) {
        return Err(format!("of {newest:?} only {:?} are known", receipt.duplicates));
    }
    let read =
        spool.peek(lane, Seq(before + 1), 2, usize::MAX).await.map_err(|error| chain(&error))?;
    let read: Vec<String> = read.iter().flat_map(|entry| ids(&entry.record)).collect();
    if read == [fresh] { Ok(()) } else { Err(format!("a new record is read as {read:?}")) }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect::<Vec<_>>()
        .join(": ")
}
