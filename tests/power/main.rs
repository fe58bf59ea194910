//! Promises 1, 3 and 4 through power cuts: what a disk may hold when the power goes, at any moment of the daemon's life.
//!
//! ```text
//! recording ──▶ trace ──▶ history ──▶ disk: a cut after any call ──▶ check: open, read, compare; deliver
//! the real daemon   calls     effects     what was not synced may be lost, torn, out of order
//! under strace
//! ```
//! A failed state prints its seed and where the recording lies; `PILLARBOX_POWER_RECORDING=<folder>
//! PILLARBOX_POWER_SEED=<seed> cargo test --test power every_power_cut` makes the same state again, and leaves it there.
//! `PILLARBOX_POWER_STATES=<number>` tries another number of states.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod check;
mod disk;
mod history;
mod recording;
#[path = "../support/mod.rs"]
mod support;
mod trace;

use std::collections::HashSet;
use std::path::Path;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fastrand::Rng;
use tempfile::TempDir;

use check::Told;
use disk::{Disk, Effect, Image, Node, Step};
use history::{History, What};
use recording::SAVED;
use support::{Host, Upstream};

/// `tests/run` tries ten times as many.
const STATES: u64 = 200;
/// Of so many states one is given to the real daemon.
const DELIVERED: usize = 100;
/// An injected fault must be found among so many states.
const FAULT_STATES: usize = 200;
const THREADS: usize = 2;

static RECORDING: LazyLock<History> = LazyLock::new(recording::take);

/// Goal: after a power cut at any moment the spool opens, and holds what was acknowledged: in order, once, or settled.
/// Method: the recorded calls are replayed to a model of the disk, which is cut at a moment that the seed draws; each
/// state is opened, and some are given to the real daemon, which must deliver what they hold.
#[test]
fn every_power_cut_leaves_a_spool_that_holds_what_was_acknowledged() {
    let history = &RECORDING;
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match (number("PILLARBOX_POWER_SEED"), number("PILLARBOX_POWER_STATES")) {
        (Some(seed), _) => seed..seed + 1,
        (None, states) => 0..states.unwrap_or(STATES),
    };
    if let Some((_, told)) = first_failure(history, seeds) {
        let saved = std::env::var(SAVED)
            .map_or_else(|_| recording::save(history).display().to_string(), Into::into);
        panic!("{told}\nrecording: {saved}");
    }
}

/// Goal: the recording has in it what power cuts are to be tried on.
/// Method: the names that come and go tell it.
#[test]
fn the_recording_has_every_phase_of_a_spool() {
    let changes = RECORDING.steps.iter().filter_map(|step| match &step.effect {
        Effect::Names(names) => Some(names),
        _ => None,
    });
    let texts: HashSet<(&str, bool)> =
        changes.flatten().map(|name| (name.text.as_str(), name.to.is_some())).collect();
    for phase in [
        ("spool", true),          // the spool is made
        ("0000000001", true),     // its store
        ("0000000001.log", true), // its log
        ("manifest.json", true),
        ("0000000001.log", false), // a settled segment goes
        ("0000000004.log", true),  // the log goes on in a new segment
        ("CURRENT", true),
    ] {
        assert!(texts.contains(&phase), "{phase:?} is not among {texts:?}");
    }
    assert_eq!(RECORDING.begins.len(), 3);
}

/// Goal: the instrument would notice a spool that does not sync.
/// Method: for this and the next three, the recorded history is altered as if the daemon had had the fault.
#[test]
fn a_daemon_that_never_syncs_is_found() {
    found("no sync", |history| {
        history.steps.retain(|step| !matches!(step.effect, Effect::Sync { .. }));
    });
}

/// `sync_file_range` in the place of fdatasync: neither the length nor the drive's cache is flushed.
#[test]
fn a_sync_of_the_data_alone_is_found() {
    found("sync_file_range", |history| {
        history.steps.retain(|step| !matches!(step.effect, Effect::Sync { data_only: true, .. }));
    });
}

/// Each 200 goes out before the last sync that had returned before it.
#[test]
fn an_answer_before_the_sync_is_found() {
    found("an early answer", |history| {
        let syncs: Vec<(usize, usize)> = history
            .steps
            .iter()
            .filter(|step| matches!(step.effect, Effect::Sync { data_only: true, .. }))
            .map(|step| (step.returned, step.entered))
            .collect();
        for heard in history.heard.iter_mut().filter(|heard| heard.what == What::Answered) {
            let before = syncs.partition_point(|(returned, _)| *returned < heard.at);
            heard.at = syncs[before - 1].1 - 1;
        }
    });
}

#[test]
fn a_folder_that_is_not_synced_is_found() {
    found("no sync of folders", |history| {
        history
            .steps
            .retain(|step| !matches!(step.effect, Effect::Sync { node: Node::Folder(_), .. }));
    });
}

fn found(fault: &str, alter: impl FnOnce(&mut History)) {
    let mut history = RECORDING.clone();
    alter(&mut history);
    let Some((states, told)) = first_failure(&history, 0..FAULT_STATES as u64) else {
        panic!("{fault}: not found in {FAULT_STATES} states");
    };
    eprintln!("{fault}: found after {states} states: {}", told.lines().next().unwrap_or_default());
}

/// Tries the state of each seed until one fails; returns how many were tried, and what is wrong.
fn first_failure(history: &History, seeds: std::ops::Range<u64>) -> Option<(usize, String)> {
    let begun = tokio::time::Instant::now();
    let moments = Moments::new(history);
    let mut states: Vec<(usize, u64)> =
        seeds.map(|seed| (moments.draw(&mut Rng::with_seed(seed)), seed)).collect();
    // Threads take blocks of cuts that follow each other, in an order that soon has seen every part of the history.
    states.sort_unstable();
    let next = AtomicUsize::new(0);
    let (tried, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let told = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    let mut told = None;
                    let part = |part| states.iter().skip(part).step_by(PARTS);
                    while let Some(cuts) = Some(next.fetch_add(1, Ordering::Relaxed))
                        .filter(|next| *next < PARTS)
                        .map(part)
                    {
                        told = told.or_else(|| first_failure_of(history, cuts, &tried, &failed));
                    }
                    told
                })
            })
            .collect();
        threads.into_iter().find_map(|thread| thread.join().unwrap())
    });
    eprintln!("{} states in {:?}", tried.load(Ordering::Relaxed), begun.elapsed());
    told.map(|told| (tried.load(Ordering::Relaxed), told))
}

/// Each goes through the whole history once.
const PARTS: usize = 16;

fn first_failure_of<'a>(
    history: &History,
    cuts: impl Iterator<Item = &'a (usize, u64)>,
    tried: &AtomicUsize,
    failed: &AtomicBool,
) -> Option<String> {
    let mut disk = Disk::default();
    let mut steps = history.steps.iter().peekable();
    for (cut, seed) in cuts {
        if failed.load(Ordering::Relaxed) {
            return None;
        }
        while let Some(step) = steps.next_if(|step| step.due() <= *cut) {
            disk.apply(step);
        }
        tried.fetch_add(1, Ordering::Relaxed);
        let mut rng = Rng::with_seed(*seed);
        rng = rng.fork();
        if let Err(what) = try_state(&disk.cut(&mut rng), &Told::before(history, *cut), *seed) {
            failed.store(true, Ordering::Relaxed);
            let run = history.begins.partition_point(|begin| begin <= cut);
            return Some(format!("{what}\nseed {seed}: cut at line {cut}, in run {run}"));
        }
    }
    None
}

fn try_state(image: &Image, told: &Told<'_>, seed: u64) -> Result<(), String> {
    let folder = memory_folder();
    disk::write(image, folder.path()).unwrap();
    let state = folder.path().join("state");
    let result = told.check(&state.join("spool"));
    if std::env::var_os("PILLARBOX_POWER_SEED").is_some() {
        let kept = memory_folder().keep();
        disk::write(image, &kept).unwrap();
        eprintln!("the state lies in {}", kept.display());
    }
    let held = result?;
    if !seed.is_multiple_of(DELIVERED as u64) {
        return Ok(());
    }
    let upstream = Upstream::start(None, &[]);
    let host = Host::new(&upstream.url, "key", "");
    disk::write(image, host.folder.path()).unwrap();
    check::deliver(&held, &host, &upstream)
}

/// The lines at which a cut is of interest, by how much.
struct Moments {
    /// Around syncs, changes of names, answers, and everything: each is drawn equally often.
    kinds: Vec<Vec<usize>>,
}

impl Moments {
    fn new(history: &History) -> Moments {
        let around = |wanted: &dyn Fn(&Step) -> bool| {
            let steps = history.steps.iter().filter(|step| wanted(step));
            steps
                .flat_map(|step| {
                    [
                        step.entered.saturating_sub(1),
                        step.entered,
                        step.returned.min(step.entered + 1000),
                    ]
                })
                .collect()
        };
        let kinds: [Vec<usize>; 4] = [
            around(&|step| matches!(step.effect, Effect::Sync { .. })),
            around(&|step| matches!(step.effect, Effect::Names(_))),
            history.heard.iter().map(|heard| heard.at).collect(),
            around(&|_| true),
        ];
        Moments { kinds: kinds.into_iter().filter(|kind| !kind.is_empty()).collect() }
    }

    fn draw(&self, rng: &mut Rng) -> usize {
        let kind = &self.kinds[rng.usize(..self.kinds.len())];
        kind[rng.usize(..kind.len())]
    }
}

/// A folder that costs no disk, where there is one.
fn memory_folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}
