//! PURE. What was accepted, delivered and queued over the last hour and the last day: sums at regular moments, in two rings of
//! fixed size, in memory alone. A restart begins anew.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::admin::protocol::IntegrationStatus;
use crate::clock::UnixMillis;

/// Between two samples.
pub(super) const EVERY: Duration = Duration::from_secs(10);
/// One of so many samples is kept for the day.
const DAY_EACH: u64 = 30;
const HOUR_SAMPLES: usize = 361;
const DAY_SAMPLES: usize = 289;
/// Integrations that have a history of their own; the sums are of all.
const SERIES_MAX: usize = 64;

/// Records since the lanes began, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    /// Taken in.
    pub(super) accepted: u64,
    /// Of these, delivered.
    pub(super) delivered: u64,
    /// Of these, waiting.
    pub(super) queued: u64,
}

/// The sums at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) at: UnixMillis,
    pub(super) sums: Sums,
}

/// How far back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Range {
    /// 60 bins of a minute.
    #[default]
    Hour,
    /// 96 bins of a quarter of an hour.
    Day,
}

impl Range {
    /// What it is called in links.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Range::Hour => "hour",
            Range::Day => "day",
        }
    }

    pub(super) fn read(text: Option<&str>) -> Range {
        if text == Some("day") { Range::Day } else { Range::Hour }
    }

    pub(super) fn bins(self) -> usize {
        match self {
            Range::Hour => 60,
            Range::Day => 96,
        }
    }

    /// All of it.
    fn span(self) -> Duration {
        match self {
            Range::Hour => Duration::from_secs(3600),
            Range::Day => Duration::from_secs(24 * 3600),
        }
    }

    /// A sample stands for what is so much later: some may be missing.
    fn gap_max(self) -> Duration {
        match self {
            Range::Hour => EVERY * 3,
            Range::Day => EVERY * 90,
        }
    }

    /// How long a bin is.
    pub(super) fn bin(self) -> Duration {
        match self {
            Range::Hour => Duration::from_secs(60),
            Range::Day => Duration::from_secs(15 * 60),
        }
    }
}

/// What happened in one bin.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bin {
    /// When it ends.
    pub(super) end: UnixMillis,
    /// Records a minute.
    pub(super) accepted: f64,
    /// Records a minute.
    pub(super) delivered: f64,
    /// Records at its end.
    pub(super) queued: u64,
}

/// The samples of one integration, or of all.
#[derive(Clone, Debug, Default)]
pub(super) struct Series {
    hour: VecDeque<Sample>,
    day: VecDeque<Sample>,
    taken: u64,
}

impl Series {
    fn push(&mut self, sample: Sample) {
        // A clock that was set back would make time run twice: what lies in its future is forgotten.
        for ring in [&mut self.hour, &mut self.day] {
            while ring.back().is_some_and(|last| last.at >= sample.at) {
                ring.pop_back();
            }
        }
        keep(&mut self.hour, sample, HOUR_SAMPLES);
        if self.taken.is_multiple_of(DAY_EACH) {
            keep(&mut self.day, sample, DAY_SAMPLES);
        }
        self.taken += 1;
    }

    fn ring(&self, range: Range) -> &VecDeque<Sample> {
        match range {
            Range::Hour => &self.hour,
            Range::Day => &self.day,
        }
    }

    /// The bins of `range` up to `now`; `None` for those that no sample tells of. They end at whole minutes or quarters, and
    /// the last at `now`: a drawing of them does not tremble.
    pub(super) fn bins(&self, range: Range, now: Sample) -> Vec<Option<Bin>> {
        let (ring, gap_max) = (self.ring(range), range.gap_max());
        let length = millis(range.bin());
        let (newest, count) = (now.at.0 / length, range.bins() as u64);
        let bin = |number: u64| {
            let (from, end) = (number * length, ((number + 1) * length).min(now.at.0));
            // The first bin begins with the first sample.
            let began = || ring.iter().find(|sample| (from..end).contains(&sample.at.0)).copied();
            let first = at(ring, from, gap_max).or_else(began)?;
            let last = if end == now.at.0 { now } else { at(ring, end, gap_max)? };
            let minutes = minutes(first, last)?;
            Some(Bin {
                end: UnixMillis(end),
                accepted: rate(first.sums.accepted, last.sums.accepted, minutes),
                delivered: rate(first.sums.delivered, last.sums.delivered, minutes),
                queued: last.sums.queued,
            })
        };
        (0..count).map(|index| bin((newest + index + 1).saturating_sub(count))).collect()
    }

    /// Records accepted and delivered a minute, lately.
    pub(super) fn rates(&self, now: Sample) -> Option<(f64, f64)> {
        let lately = now.at.0.saturating_sub(millis(LATELY));
        let first = at(&self.hour, lately, Range::Hour.gap_max()).or(self.hour.front().copied())?;
        let minutes = minutes(first, now)?;
        Some((
            rate(first.sums.accepted, now.sums.accepted, minutes),
            rate(first.sums.delivered, now.sums.delivered, minutes),
        ))
    }

    /// Records accepted and delivered within `range`, as far as is known.
    pub(super) fn totals(&self, range: Range, now: Sample) -> (u64, u64) {
        let from = now.at.0.saturating_sub(millis(range.span()));
        let first = self.ring(range).iter().find(|sample| sample.at.0 >= from);
        let first = first.map_or(now.sums, |first| first.sums);
        (
            now.sums.accepted.saturating_sub(first.accepted),
            now.sums.delivered.saturating_sub(first.delivered),
        )
    }
}

/// What a rate is taken over.
const LATELY: Duration = Duration::from_secs(60);

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The newest sample that is not newer than `moment`, if it is near enough to stand for it.
fn at(ring: &VecDeque<Sample>, moment: u64, gap_max: Duration) -> Option<Sample> {
    let after = ring.partition_point(|sample| sample.at.0 <= moment);
    let before = after.checked_sub(1).and_then(|index| ring.get(index)).copied();
    before.filter(|sample| sample.at.age(UnixMillis(moment)) <= gap_max)
}

fn rate(from: u64, to: u64, minutes: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "it is drawn, and so large a rate is none")]
    let records = to.saturating_sub(from) as f64;
    records / minutes
}

fn keep(ring: &mut VecDeque<Sample>, sample: Sample, most: usize) {
    if ring.len() >= most {
        ring.pop_front();
    }
    ring.push_back(sample);
}

/// Minutes between two samples; `None` when there are none.
fn minutes(first: Sample, last: Sample) -> Option<f64> {
    let minutes = first.at.age(last.at).as_secs_f64() / 60.0;
    (minutes > 0.0).then_some(minutes)
}

/// Of all integrations together, and of each.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    all: Series,
    each: BTreeMap<String, Series>,
}

impl History {
    /// Takes note of how things stand at `now`.
    pub(super) fn note(&mut self, now: UnixMillis, integrations: &[IntegrationStatus]) {
        self.all.push(Sample { at: now, sums: sums(integrations) });
        self.each.retain(|name, _| integrations.iter().any(|known| known.name == *name));
        for known in integrations.iter().take(SERIES_MAX) {
            let sums = self::sums(std::slice::from_ref(known));
            let series = self.each.entry(known.name.clone()).or_default();
            series.push(Sample { at: now, sums });
        }
    }

    pub(super) fn all(&self) -> &Series {
        &self.all
    }

    pub(super) fn of(&self, integration: &str) -> Option<&Series> {
        self.each.get(integration)
    }
}

/// What integrations have taken in, delivered and hold.
pub(super) fn sums(integrations: &[IntegrationStatus]) -> Sums {
    let add = |sums: Sums, known: &IntegrationStatus| Sums {
        accepted: sums.accepted + known.lane.newest,
        delivered: sums.delivered + known.lane.delivered,
        queued: sums.queued + known.lane.queued_records,
    };
    integrations.iter().fold(Sums::default(), add)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2027-01-15T08:00:00Z, a whole quarter.
    const START: u64 = 1_800_000_000_000;

    fn sample(second: u64, accepted: u64, delivered: u64) -> Sample {
        let sums = Sums { accepted, delivered, queued: accepted - delivered };
        Sample { at: UnixMillis(START + second * 1000), sums }
    }

    /// Sampled each 10 s, with 2 records accepted and 1 delivered each second.
    fn series(seconds: u64) -> Series {
        let mut series = Series::default();
        for second in (0..=seconds).step_by(10) {
            series.push(sample(second, 2 * second, second));
        }
        series
    }

    #[test]
    fn bins_tell_what_each_minute_brought() {
        let bins = series(600).bins(Range::Hour, sample(605, 1210, 605));
        assert_eq!(bins.len(), 60);
        assert!(bins[..49].iter().all(Option::is_none), "nothing is known before the start");
        for bin in bins[49..].iter().flatten() {
            assert!(
                (bin.accepted - 120.0).abs() < 0.1 && (bin.delivered - 60.0).abs() < 0.1,
                "{bin:?}"
            );
        }
        let [.., before, last] = bins.as_slice() else { panic!() };
        let (before, last) = (before.unwrap(), last.unwrap());
        assert_eq!((before.end.0, before.queued), (START + 600_000, 600));
        assert_eq!((last.end.0, last.queued), (START + 605_000, 605));
        assert_eq!(bins[48], None);
    }

    #[test]
    fn memory_is_bounded_and_the_day_is_told_from_few_samples() {
        let day = 26 * 3600;
        let series = series(day);
        assert_eq!((series.hour.len(), series.day.len()), (HOUR_SAMPLES, DAY_SAMPLES));
        let now = sample(day, 2 * day, day);
        let bins = series.bins(Range::Day, now);
        assert_eq!(bins.len(), 96);
        let known: Vec<Bin> = bins.into_iter().flatten().collect();
        assert!(known.len() >= 94, "{}", known.len());
        assert!(known.iter().all(|bin| (bin.accepted - 120.0).abs() < 1.0));
        let (accepted, delivered) = series.totals(Range::Hour, now);
        assert_eq!((accepted, delivered), (7200, 3600));
        assert_eq!(series.totals(Range::Day, now), (2 * 24 * 3600, 24 * 3600));
        let (accepted, delivered) = series.rates(now).unwrap();
        assert!((accepted - 120.0).abs() < 0.1 && (delivered - 60.0).abs() < 0.1);
    }

    #[test]
    fn a_clock_that_is_set_back_forgets_what_lies_ahead() {
        let mut series = series(600);
        series.push(sample(300, 1210, 605));
        assert!(series.hour.iter().all(|sample| sample.at.0 <= START + 300_000));
        assert_eq!(series.hour.back().unwrap().sums.accepted, 1210);
        // Sums that fall, as of a lane that is gone, are no rate.
        let bins = series.bins(Range::Hour, sample(310, 10, 5));
        assert!(bins.into_iter().flatten().all(|bin| bin.accepted >= 0.0));
    }

    #[test]
    fn without_samples_nothing_is_told() {
        let none = Series::default();
        assert!(none.bins(Range::Day, sample(0, 0, 0)).iter().all(Option::is_none));
        assert_eq!(none.rates(sample(0, 5, 5)), None);
        assert_eq!(none.totals(Range::Hour, sample(0, 5, 5)), (0, 0));
        assert_eq!(series(0).rates(sample(0, 0, 0)), None);
    }
}
