//! PURE. Bins of the history as the paths of a drawing: 1,000 wide, 100 high, stretched by the page.

use std::fmt::Write as _;

use super::history::{Bin, Range};
use super::words;
use crate::clock::UnixMillis;
use crate::event::Timestamp;
use crate::readable;

const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 100.0;

/// A chart of throughput and queue.
#[derive(Clone, Debug, Default)]
pub(super) struct Chart {
    /// Paths of lines.
    pub(super) accepted: String,
    pub(super) delivered: String,
    pub(super) queued: String,
    /// The area under the queue.
    pub(super) queued_area: String,
    /// What the upper edges stand for.
    pub(super) rate_max: String,
    pub(super) queued_max: String,
    /// Under the left edge, the middle and the right one.
    pub(super) times: Vec<Tick>,
    /// Each bin, to point at.
    pub(super) bars: Vec<Bar>,
    /// Whether there is nothing to draw yet.
    pub(super) is_empty: bool,
}

/// A label of the axis of time.
#[derive(Clone, Debug, Default)]
pub(super) struct Tick {
    pub(super) iso: String,
    /// `07:59`, in UTC.
    pub(super) text: String,
}

/// A bin to point at.
#[derive(Clone, Debug, Default)]
pub(super) struct Bar {
    pub(super) x: String,
    pub(super) width: String,
    pub(super) iso: String,
    pub(super) accepted: String,
    pub(super) delivered: String,
    pub(super) queued: String,
}

impl Chart {
    /// Draws `bins`, the last of which ends at `now`.
    pub(super) fn new(bins: &[Option<Bin>], range: Range, now: UnixMillis) -> Chart {
        let known = || bins.iter().flatten();
        let rate_max = known().map(|bin| bin.accepted.max(bin.delivered)).fold(0.0, f64::max);
        let queued_max = known().map(|bin| number(bin.queued)).fold(0.0, f64::max);
        let (rate_max, queued_max) = (ceiling(rate_max, 10.0), ceiling(queued_max, 10.0));
        let line = |of: &dyn Fn(&Bin) -> f64, most: f64| line(bins, of, most);
        let queued = line(&|bin| number(bin.queued), queued_max);
        let span =
            u64::try_from((range.bin() * u32::try_from(bins.len()).unwrap_or(1)).as_millis());
        let span = span.unwrap_or_default();
        let times =
            [span, span / 2, 0].map(|before| tick(UnixMillis(now.0.saturating_sub(before))));
        Chart {
            accepted: joined(&line(&|bin| bin.accepted, rate_max)),
            delivered: joined(&line(&|bin| bin.delivered, rate_max)),
            queued_area: area(&queued),
            queued: joined(&queued),
            rate_max: words::rate(rate_max),
            queued_max: words::rate(queued_max),
            times: times.to_vec(),
            bars: bars(bins),
            is_empty: known().next().is_none(),
        }
    }
}

/// The line of one value alone, scaled to its own largest.
pub(super) fn sparkline(bins: &[Option<Bin>], of: impl Fn(&Bin) -> f64) -> String {
    let most = bins.iter().flatten().map(&of).fold(0.0, f64::max);
    if most > 0.0 { joined(&line(bins, &of, most)) } else { String::new() }
}

type Points = Vec<(f64, f64)>;

/// The points of each stretch without a gap.
fn line(bins: &[Option<Bin>], of: &dyn Fn(&Bin) -> f64, most: f64) -> Vec<Points> {
    let step = WIDTH / number(bins.len().max(1) as u64);
    let mut stretches = vec![Points::new()];
    for (index, bin) in (0_u64..).zip(bins) {
        match (bin, stretches.last_mut()) {
            (Some(bin), Some(last)) => {
                let height = (of(bin) / most).clamp(0.0, 1.0);
                last.push(((number(index) + 0.5) * step, HEIGHT * (1.0 - height)));
            }
            (None, Some(last)) if !last.is_empty() => stretches.push(Points::new()),
            _ => {}
        }
    }
    stretches.retain(|points| !points.is_empty());
    stretches
}

fn joined(stretches: &[Points]) -> String {
    let mut path = String::new();
    for points in stretches {
        for (index, (x, y)) in points.iter().enumerate() {
            // Writing into a `String` cannot fail.
            let _ = write!(path, "{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' });
        }
        if let [(x, y)] = points.as_slice() {
            // One point is no line: a short one is.
            let _ = write!(path, "L{:.1} {y:.1}", x + 8.0);
        }
    }
    path
}

fn area(stretches: &[Points]) -> String {
    let mut path = String::new();
    for points in stretches {
        // As above: writing into a `String` cannot fail.
        if let (Some((first, _)), Some((last, _))) = (points.first(), points.last()) {
            let _ = write!(path, "M{first:.1} {HEIGHT:.1}");
            for (x, y) in points {
                let _ = write!(path, "L{x:.1} {y:.1}");
            }
            let _ = write!(path, "L{last:.1} {HEIGHT:.1}Z");
        }
    }
    path
}

fn bars(bins: &[Option<Bin>]) -> Vec<Bar> {
    let step = WIDTH / number(bins.len().max(1) as u64);
    let known = (0_u64..).zip(bins).filter_map(|(index, bin)| Some((index, bin.as_ref()?)));
    known
        .map(|(index, bin)| Bar {
            x: format!("{:.1}", number(index) * step),
            width: format!("{step:.1}"),
            iso: tick(bin.end).iso,
            accepted: words::rate(bin.accepted),
            delivered: words::rate(bin.delivered),
            queued: readable::number(bin.queued),
        })
        .collect()
}

fn tick(at: UnixMillis) -> Tick {
    let iso = Timestamp::from_clock(at).to_string();
    let text = iso.get(11..16).unwrap_or_default().to_owned();
    Tick { iso, text }
}

/// The next round number that is not below `value`, and at least `least`.
fn ceiling(value: f64, least: f64) -> f64 {
    let mut unit = least;
    loop {
        for round in [1.0, 2.0, 5.0] {
            if unit * round >= value || unit > 1e18 {
                return unit * round;
            }
        }
        unit *= 10.0;
    }
}

#[expect(clippy::cast_precision_loss, reason = "it is drawn")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bin(accepted: f64, queued: u64) -> Bin {
        Bin { end: UnixMillis(1_800_000_000_000), accepted, delivered: accepted / 2.0, queued }
    }

    #[test]
    fn lines_break_where_nothing_is_known() {
        let bins = [None, Some(bin(0.0, 0)), Some(bin(20.0, 10)), None, Some(bin(10.0, 5))];
        let chart = Chart::new(&bins, Range::Hour, UnixMillis(1_800_000_000_000));
        assert_eq!(chart.accepted, "M300.0 100.0L500.0 0.0M900.0 50.0L908.0 50.0");
        assert_eq!(
            chart.queued_area,
            "M300.0 100.0L300.0 100.0L500.0 0.0L500.0 100.0ZM900.0 100.0L900.0 50.0L900.0 100.0Z"
        );
        assert_eq!((&*chart.rate_max, &*chart.queued_max), ("20", "10"));
        assert_eq!(chart.bars.len(), 3);
        assert_eq!((&*chart.bars[1].x, &*chart.bars[1].accepted), ("400.0", "20"));
        let times: Vec<&str> = chart.times.iter().map(|tick| tick.text.as_str()).collect();
        assert_eq!(times, ["07:55", "07:57", "08:00"]);
        assert!(!chart.is_empty);
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        let chart = Chart::new(&[None, None], Range::Day, UnixMillis(0));
        assert!(chart.is_empty && chart.accepted.is_empty() && chart.bars.is_empty());
        assert_eq!(sparkline(&[None, Some(bin(0.0, 0))], |bin| bin.accepted), "");
        assert_eq!(
            sparkline(&[Some(bin(1.0, 0)), Some(bin(2.0, 0))], |bin| bin.accepted),
            "M250.0 50.0L750.0 0.0"
        );
    }

    #[test]
    fn edges_are_round_numbers() {
        let edges =
            [0.0, 3.0, 10.0, 11.0, 21.0, 51.0, 101.0, 1e30].map(|value| ceiling(value, 10.0));
        assert_eq!(edges[..7], [10.0, 10.0, 10.0, 20.0, 50.0, 100.0, 200.0]);
        assert!(edges[7].is_finite());
    }
}
