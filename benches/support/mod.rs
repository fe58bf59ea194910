//! Measures a piece of Pillarbox side by side with its limit, in one run.
//!
//! The machines are shared and noisy: a figure alone says little. So both sides take turns, round by round, and what
//! is printed is the median of the rounds' ratios: noise that lasts longer than a round meets both.

use std::path::Path;
use std::time::Duration;

use pillarbox::spool::{Options, SyncMode};

/// Rounds of each side; `--test` makes one short round of each, which shows that the benchmark runs.
const ROUNDS: usize = 21;

/// Whether this is a smoke run.
pub(crate) fn smoke() -> bool {
    std::env::args().any(|argument| argument == "--test")
}

/// Whether a piece is asked for: without words on the command line all are, else those whose name has one of them
/// (`cargo bench --bench ingest -- "a lone event"`).
fn asked_for(name: &str) -> bool {
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with('-')).peekable();
    words.peek().is_none() || words.any(|word| name.contains(&word))
}

/// Runs both sides in turns and prints the ratio of their speeds.
///
/// Each side does the same amount of `unit`s in a round, and returns how long they took.
///
/// # Panics
/// When a side fails.
pub(crate) fn side_by_side(
    name: &str,
    unit: &str,
    units: u32,
    mut ours: impl FnMut() -> Duration,
    mut limit: impl FnMut() -> Duration,
) {
    if !asked_for(name) {
        return;
    }
    let rounds = if smoke() { 1 } else { ROUNDS };
    let mut pairs = Vec::with_capacity(rounds);
    for round in 0..rounds {
        // The order alternates, so that neither side always comes first.
        let (a, b) = if round % 2 == 0 {
            let a = ours();
            (a, limit())
        } else {
            let b = limit();
            (ours(), b)
        };
        pairs.push((a, b));
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().expect("at least one round")
    };
    let rate = |side: fn(&(Duration, Duration)) -> Duration| {
        f64::from(units) / median(pairs.iter().map(|pair| side(pair).as_secs_f64()).collect())
    };
    let ratio = median(
        pairs.iter().map(|(ours, limit)| limit.as_secs_f64() / ours.as_secs_f64()).collect(),
    );
    let (ours, limit) = (rate(|pair| pair.0), rate(|pair| pair.1));
    println!(
        "{name:<44} ratio {ratio:>5.2}   ({ours:>10.0} of {limit:>10.0} {unit}/s, {rounds} rounds)"
    );
}

/// A spool as in production, without limits.
pub(crate) fn options(directory: &Path) -> Options {
    Options {
        directory: directory.join("spool"),
        sync: SyncMode::Always,
        cache_bytes: 32 << 20,
        records_max: u64::MAX,
        bytes_max: u64::MAX,
        free_disk_min_bytes: 0,
        keep_delivered: 10_000,
        keep_events: false,
        dedupe_window: 100_000,
        identities_max: 1_000_000,
    }
}
