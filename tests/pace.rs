//! The pace of pushes, by the simulator's own times of arrival: halved by 429, recovered by 202s, slowed by a nearly full queue,
//! and never faster than configured. Each time is counted from before the events were handed over, so that a slow machine can
//! only make a push later than asked for.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use pillarbox::clock;
use support::{Host, Producer, Upstream};

/// Has `count` events leave, one a push, and returns when each push arrived, in milliseconds after they were handed over.
fn arrivals(faults: &[&str], more: &str, count: usize) -> Vec<u64> {
    let upstream = Upstream::start(None, faults);
    let host = Host::new(&upstream.url, "key", &format!("batch = 1\n{more}"));
    let daemon = host.start();
    // Each of another person, so that they spread over the lanes.
    let one = |n: usize| {
        format!(
            r#"{{"type":"track","event":"Product Viewed","userId":"u-{n}","messageId":"e-{n}"}}"#
        )
    };
    let events: Vec<String> = (0..count).map(one).collect();
    let batch = format!("[{}]", events.join(","));
    let began = clock::now();
    assert_eq!(Producer::connect(&host.ingest()).post("/v1/batch", &batch).status, 200);
    host.wait_until_settled();
    assert_eq!(daemon.stop().0, Some(0));
    let pushes = upstream.handle.pushes();
    pushes.iter().map(|push| push.at.0.checked_sub(began.0).unwrap()).collect()
}

/// Every push came after the sum of the intervals before it, in milliseconds.
fn assert_paced(arrivals: &[u64], intervals: impl IntoIterator<Item = f64>) {
    let mut least = 0.0;
    for (n, (arrival, interval)) in arrivals.iter().skip(1).zip(intervals).enumerate() {
        least += interval;
        #[expect(clippy::cast_precision_loss, reason = "a test takes seconds")]
        let arrival = *arrival as f64;
        // Times are cut to whole milliseconds.
        assert!(arrival >= least - 2.0, "push {} after {arrival} ms, not {least}", n + 1);
    }
}

#[test]
fn a_429_halves_the_pace_and_202s_recover_it() {
    let arrivals = arrivals(&["status=429,count=2"], "", 45);
    assert_eq!(arrivals.len(), 47);
    // A tenth less after each 202, until it is next to nothing.
    let recovering = std::iter::successors(Some(500.0), |interval| Some(interval * 0.9));
    assert_paced(&arrivals, [250.0].into_iter().chain(recovering.take_while(|ms| *ms > 15.0)));
}

#[test]
fn a_nearly_full_queue_slows_the_pace_before_there_is_a_429() {
    // A tenth of the 10,000 is missing: a tenth of the 5 s between two pushes to a full one.
    let arrivals = arrivals(&["status=202,queue-remaining=9000,count=7"], "", 9);
    assert_eq!(arrivals.len(), 9);
    assert_paced(&arrivals, [500.0; 7]);
}

#[test]
fn a_configured_rate_is_never_exceeded() {
    let arrivals = arrivals(&["delay=60ms,every=3"], "max_pushes_per_second = 4", 15);
    assert_eq!(arrivals.len(), 15);
    assert_paced(&arrivals, [250.0; 14]);
}

/// One limit for the account: four lanes are no faster than one.
#[test]
fn lanes_share_the_configured_rate() {
    let arrivals = arrivals(&[], "lanes = 4\nmax_pushes_per_second = 4", 12);
    assert_eq!(arrivals.len(), 12);
    assert_paced(&arrivals, [250.0; 11]);
}
