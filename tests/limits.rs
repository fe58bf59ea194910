//! Promise 7 under load: `max_records` and `max_bytes` hold exactly, and are left again as the queue drains; what is kept of
//! one request is bounded; and what `sync = "500ms"` gives up for its speed.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::process::Command;

use support::{Host, Producer, Upstream, event, wait_until};

const PRODUCERS: usize = 6;

/// Posts batches of `size` events of about `bytes` from every producer at once until each is refused; returns the ids
/// accepted.
fn fill(host: &Host, round: &str, size: usize, bytes: usize) -> Vec<String> {
    std::thread::scope(|scope| {
        let post = |name: usize| {
            let mut producer = Producer::connect(&host.ingest());
            let mut accepted = Vec::new();
            for n in 0.. {
                let ids: Vec<String> =
                    (0..size).map(|k| format!("{round}-{name}-{n:05}-{k}")).collect();
                let filled = format!("79.00,\"filler\":\"{}\"", "x".repeat(bytes));
                let events: Vec<String> =
                    ids.iter().map(|id| event(id).replace("79.00", &filled)).collect();
                let answer = producer.post("/v1/batch", &format!("[{}]", events.join(",")));
                if answer.status != 200 {
                    assert_eq!(answer.status, 503, "{answer:?}");
                    assert_eq!(answer.json()["code"], "spool_full", "{answer:?}");
                    assert!(
                        answer.head.to_ascii_lowercase().contains("retry-after: "),
                        "{answer:?}"
                    );
                    break;
                }
                accepted.extend(ids);
            }
            accepted
        };
        let producers: Vec<_> =
            (0..PRODUCERS).map(|name| scope.spawn(move || post(name))).collect();
        producers.into_iter().flat_map(|name| name.join().unwrap()).collect::<Vec<_>>()
    })
}

fn delivered_all(upstream: &Upstream, accepted: &[String]) {
    let arrived = upstream.ids();
    assert_eq!(arrived.len(), accepted.len());
    let set = |ids: &[String]| ids.iter().cloned().collect::<BTreeSet<_>>();
    assert_eq!(set(&arrived), set(accepted));
}

/// Six producers at once reach the limit of records exactly, one record more is refused, and a drained queue fills again.
#[test]
fn the_queue_holds_exactly_max_records() {
    let upstream = Upstream::start(None, &["status=503"]);
    let host = Host::new(&upstream.url, "key", "");
    let daemon = Host::start_as(host.command(&["--set", "spool.max_records=300"]));
    let mut accepted = fill(&host, "a", 1, 0);
    assert_eq!(accepted.len(), 300);
    assert_eq!(host.lane("queued_records"), 300);
    let health =
        Producer::connect(&host.ingest()).raw(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"");
    assert_eq!(health.unwrap().status, 503);
    upstream.handle.clear_faults();
    host.wait_until_settled();
    delivered_all(&upstream, &accepted);

    upstream.handle.add_fault("status=503".parse().unwrap());
    // A request is taken whole or not at all: the last few may not fit.
    accepted.extend(fill(&host, "b", 7, 0));
    let queued = usize::try_from(host.lane("queued_records")).unwrap();
    assert_eq!(accepted.len(), 300 + queued);
    assert!((300 - 6..=300).contains(&queued), "{queued} queued");
    upstream.handle.clear_faults();
    host.wait_until_settled();
    delivered_all(&upstream, &accepted);
    assert_eq!(daemon.stop().0, Some(0));
}

/// The limit of bytes is kept to the record, over a restart too.
#[test]
fn the_queue_never_holds_more_than_max_bytes() {
    const MAX: u64 = 1 << 20;
    let upstream = Upstream::start(None, &["status=503"]);
    let host = Host::new(&upstream.url, "key", "");
    let start = || Host::start_as(host.command(&["--set", "spool.max_bytes=1MiB"]));
    let daemon = start();
    let mut accepted = fill(&host, "a", 1, 4000);
    let queued = host.lane("queued_bytes");
    let record = queued / accepted.len() as u64;
    assert!((MAX - record - 1..=MAX).contains(&queued), "{queued} of {MAX} bytes queued");
    daemon.kill();
    let daemon = start();
    assert_eq!(host.lane("queued_bytes"), queued);
    assert!(fill(&host, "b", 1, 4000).is_empty());
    upstream.handle.clear_faults();
    wait_until("room in the queue", || {
        let answer = Producer::connect(&host.ingest()).post("/v1/track", &event("later"));
        answer.status == 200
    });
    accepted.push("later".to_owned());
    host.wait_until_settled();
    delivered_all(&upstream, &accepted);
    assert_eq!(daemon.stop().0, Some(0));
}

/// Goal: `sync = "500ms"` answers before the flush, which follows within the interval (a power cut may take what came
/// since), and `kill -9` takes nothing: what is answered is with the kernel.
/// Method: a trace with times shows the write of an event, its 200 and the next fdatasync of the log.
#[test]
fn an_interval_of_sync_answers_first_and_flushes_within_it() {
    let upstream = Upstream::start(None, &["status=503"]);
    let host = Host::new(&upstream.url, "key", "");
    let trace = host.folder.path().join("trace");
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-y", "-ttt", "-s", "100000", "-o"]).arg(&trace);
    command.args(["-e", "trace=pwrite64,fdatasync,write,writev,sendto"]);
    command.arg(env!("CARGO_BIN_EXE_pillarbox")).args(["run", "--config"]).arg(host.config());
    command.args(["--set", "spool.sync=500ms"]);
    let daemon = Host::start_as(command);
    let mut producer = Producer::connect(&host.ingest());
    let read = || String::from_utf8_lossy(&std::fs::read(&trace).unwrap()).into_owned();
    for n in 0..3 {
        let id = format!("traced-{n}");
        assert_eq!(producer.post("/v1/track", &event(&id)).status, 200);
        let mut seconds = Vec::new();
        wait_until("the flush", || {
            let trace = read();
            let (mut lines, mut wanted) =
                (trace.lines(), [" pwrite64(", "HTTP/1.1 200 OK", " fdatasync("].iter());
            let Some(written) =
                lines.find(|line| line.contains(" pwrite64(") && line.contains(&id))
            else {
                return false;
            };
            wanted.next();
            seconds = vec![written.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap()];
            for wanted in wanted {
                let next = lines.find(|line| {
                    assert!(
                        seconds.len() > 1 || !line.contains(" fdatasync("),
                        "flushed before the answer: {line}"
                    );
                    line.contains(wanted)
                });
                let Some(next) = next else { return false };
                let words: Vec<&str> = next.split_whitespace().collect();
                seconds.push(words[1].parse().unwrap());
            }
            true
        });
        let (answered, flushed) = (seconds[1] - seconds[0], seconds[2] - seconds[0]);
        assert!(answered < 0.4, "the answer took {answered} s: it waited for the interval");
        assert!((0.3..2.0).contains(&flushed), "the flush came {flushed} s after the write");
    }
    daemon.kill();
}

/// A kill right after the answer, long before the flush of the interval, loses nothing.
#[test]
fn an_interval_of_sync_loses_nothing_to_a_kill() {
    let upstream = Upstream::start(None, &["status=503"]);
    let host = Host::new(&upstream.url, "key", "");
    let ids: Vec<String> = (0..5).map(|n| format!("e-{n}")).collect();
    for id in &ids {
        let daemon = Host::start_as(host.command(&["--set", "spool.sync=1h"]));
        let answer = Producer::connect(&host.ingest()).post("/v1/track", &event(id));
        assert_eq!(answer.status, 200);
        daemon.kill();
    }
    upstream.handle.clear_faults();
    let daemon = host.start();
    host.wait_until_settled();
    assert_eq!(upstream.ids(), ids);
    assert_eq!(daemon.stop().0, Some(0));
}

/// A context that counts for a whole batch lies in each of its events: what is kept of them is bounded all the same, and
/// each event is accepted.
#[test]
fn what_is_kept_of_one_request_is_bounded() {
    let upstream = Upstream::start(None, &["status=503"]);
    let host = Host::new(&upstream.url, "key", "");
    let daemon = Host::start_as(host.command(&["--set", "spool.keep_events=true"]));
    let events: Vec<String> = (0..1000).map(|n| event(&format!("e-{n}"))).collect();
    let pad = "x".repeat(59_000);
    let body = format!(r#"{{"context":{{"pad":"{pad}"}},"batch":[{}]}}"#, events.join(","));
    let answer = Producer::connect(&host.ingest()).post("/v1/batch", &body);
    assert_eq!((answer.status, &answer.json()["accepted"]), (200, &1000.into()));
    let (queued, kept_max) = (host.lane("queued_bytes"), 4 * body.len() as u64);
    let records = 1000 * 500;
    assert!((kept_max - 60_000..kept_max + records).contains(&queued), "{queued}");
    upstream.handle.clear_faults();
    host.wait_until_settled();
    assert_eq!((upstream.ids().len(), host.lane("queued_bytes")), (1000, 0));
    assert_eq!(daemon.stop().0, Some(0));
}

/// Promise 7: invalid events of a batch are set aside with the batch's context; where that would make much of little, the
/// request is refused whole, and the daemon goes on (Promise 2).
#[test]
fn a_context_is_not_set_aside_over_and_over() {
    let upstream = Upstream::start(None, &[]);
    let host = Host::new(&upstream.url, "key", "");
    let daemon = host.start();
    let pad = "x".repeat(100_000);
    let batch = |invalid: usize| {
        let invalid: Vec<String> = (0..invalid).map(|n| format!(r#"{{"type":"x{n}"}}"#)).collect();
        let events = [event("good"), invalid.join(",")].join(",");
        format!(r#"{{"context":{{"pad":"{pad}"}},"batch":[{events}]}}"#)
    };
    let post = |body: &str| Producer::connect(&host.ingest()).post("/v1/batch", body);
    let refused = post(&batch(400));
    assert_eq!((refused.status, refused.json()["code"].as_str()), (413, Some("too_large")));
    assert_eq!((host.status()["quarantined"].as_u64(), host.lane("newest")), (Some(0), 0));
    let taken = post(&batch(50));
    assert_eq!((taken.status, &taken.json()["quarantined"]), (200, &50.into()));
    host.wait_until_settled();
    assert_eq!(upstream.ids(), ["good"]);
    assert_eq!(daemon.stop().0, Some(0));
}
