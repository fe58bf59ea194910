//! The loop over a real spool and a scripted upstream, in paused time: what waits, for how long, and what ends a wait.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::*;
use crate::spool::{
    Append, Consent, Content, Drive, Item, Options, Origin, PersonKey, PersonKeys, QuarantineId,
    RECORD_BYTES_MAX, SyncMode,
};

/// What upstream does with one push; once the script is over, it accepts.
enum Reply {
    Say(u16),
    SayWith { status: u16, retry_after: Option<&'static str>, body: &'static str },
    SayAfter(Duration, u16),
    Remaining(u64),
    Fail(PushError),
    Hang,
}
use Reply::{Fail, Hang, Remaining, Say, SayAfter, SayWith};

/// Every push that arrived, and when.
type Pushes = Arc<Mutex<Vec<(Instant, Bytes)>>>;

#[derive(Clone, Default)]
struct Scripted {
    replies: Arc<Mutex<VecDeque<Reply>>>,
    pushes: Pushes,
}

impl Upstream for Scripted {
    async fn push(&self, body: Bytes) -> Result<Answer, PushError> {
        self.pushes.lock().unwrap().push((Instant::now(), body));
        let reply = self.replies.lock().unwrap().pop_front();
        let mut answer =
            Answer { status: 202, retry_after: None, queue_remaining: None, body: Vec::new() };
        match reply.unwrap_or(Say(202)) {
            Say(status) => answer.status = status,
            SayWith { status, retry_after, body } => {
                answer.status = status;
                answer.retry_after = retry_after.map(str::to_owned);
                answer.body = body.into();
            }
            SayAfter(delay, status) => {
                tokio::time::sleep(delay).await;
                answer.status = status;
            }
            Remaining(records) => answer.queue_remaining = Some(records),
            Fail(error) => return Err(error),
            Hang => std::future::pending().await,
        }
        Ok(answer)
    }
}

/// A lane over a real spool, and the forwarder that may run on it.
struct Lane {
    spool: Spool,
    id: LaneId,
    settings: Settings,
    upstream: Scripted,
    appended: u64,
    began: Instant,
    _directory: tempfile::TempDir,
}

/// A forwarder that runs.
struct Running {
    report: watch::Receiver<Report>,
    stop: watch::Sender<Control>,
    task: JoinHandle<Result<(), RunError>>,
}

impl Lane {
    async fn new(batch_records_max: usize, linger: Duration) -> Lane {
        let directory = tempfile::tempdir().unwrap();
        let options = Options {
            directory: directory.path().join("spool"),
            sync: SyncMode::Always,
            cache_bytes: 8 << 20,
            records_max: 1_000_000,
            bytes_max: 1 << 30,
            free_disk_min_bytes: 0,
            keep_delivered: 50,
            keep_events: false,
            dedupe_window: 10,
            identities_max: 1_000_000,
        };
        let spool = Spool::open(options, Drive::Task).unwrap();
        let id = spool.lane("uk", 0).await.unwrap();
        let settings = Settings {
            integration: "uk".into(),
            endpoint: "https://upstream.invalid/".parse().unwrap(),
            api_key: "key".into(),
            batch_records_max,
            linger,
            timeout: Duration::from_secs(30),
            retry: RetryPolicy { initial: Duration::from_secs(1), max: Duration::from_secs(300) },
            storm_limit: 1000,
            pace: SharedPace::new(0.0),
            way: Way::default(),
            consent: Vec::new(),
            poll_errors: Duration::ZERO,
        };
        let (upstream, began) = (Scripted::default(), Instant::now());
        Lane { spool, id, settings, upstream, appended: 0, began, _directory: directory }
    }

    /// Takes it that the people of these records deny consent.
    async fn deny(&self, ids: impl IntoIterator<Item = u64>) {
        let deny = |id| Consent {
            person: PersonKey(id),
            category: "m".into(),
            granted: false,
            item: None,
        };
        let consents = ids.into_iter().map(deny).collect();
        self.spool.append(Append { consents, ..Append::default() }).await.unwrap();
    }

    /// Appends records of these types; their ids are their seqs, and each has a person of its own.
    async fn append(&mut self, types: &[&str]) {
        let item = |(id, record_type): (u64, &&str)| {
            let (lane, record_type) = (self.id, Arc::from(*record_type));
            let record = format!(r#"{{"id":"{id}"}}"#).into();
            Item {
                once: None,
                content: Content::Record {
                    lane,
                    record_type,
                    record,
                    person: PersonKeys::new([PersonKey(id)]),
                    first_seen: None,
                    event: None,
                },
            }
        };
        let items = (self.appended + 1..).zip(types).map(item).collect();
        self.appended += types.len() as u64;
        self.spool.append(Append { items, ..Append::default() }).await.unwrap();
    }

    fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.upstream.replies.lock().unwrap().extend(replies);
    }

    fn run(&self) -> Running {
        let (tell, report) = watch::channel(Report::default());
        let (stop, stopped) = watch::channel(Control::default());
        let rng = fastrand::Rng::with_seed(7);
        let (settings, spool) = (self.settings.clone(), self.spool.clone());
        let run = run(settings, spool, self.id, self.upstream.clone(), tell, rng, stopped);
        Running { report, stop, task: tokio::spawn(run) }
    }

    /// Each push so far: seconds since the start, ids.
    fn pushes(&self) -> Vec<(f64, Vec<u64>)> {
        let read = |(at, body): &(Instant, Bytes)| {
            let records: Vec<serde_json::Value> = serde_json::from_slice(body).unwrap();
            let ids = records.iter().map(|record| record["id"].as_str().unwrap().parse().unwrap());
            let seconds = (*at - self.began).as_secs_f64();
            ((seconds * 10.0).round() / 10.0, ids.collect())
        };
        self.upstream.pushes.lock().unwrap().iter().map(read).collect()
    }

    fn cursor(&self) -> u64 {
        self.spool.cursor(self.id).0
    }
}

impl Running {
    async fn wait_for(&mut self, what: impl FnMut(&Report) -> bool) -> Report {
        self.report.wait_for(what).await.unwrap().clone()
    }

    /// Stops it; how long that took.
    async fn stop(self) -> Duration {
        let began = Instant::now();
        self.stop.send_modify(|control| control.stop = true);
        self.task.await.unwrap().unwrap();
        began.elapsed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_lingers_for_more_and_leaves_when_nothing_could_join() {
    let mut lane = Lane::new(3, Duration::from_secs(10)).await;
    let mut running = lane.run();
    lane.append(&["a"]).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    lane.append(&["a", "a", "a"]).await;
    running.wait_for(|report| report.pushes_delivered == 2).await;
    lane.append(&["a", "b"]).await;
    running.wait_for(|report| report.pushes_delivered == 4).await;
    running.wait_for(|report| report.state == State::Idle).await;
    running.stop().await;
    let expected = [(4.0, vec![1, 2, 3]), (14.0, vec![4]), (14.0, vec![5]), (24.0, vec![6])];
    assert_eq!(lane.pushes(), expected);
    assert_eq!(lane.cursor(), 7);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_every_wait_at_once() {
    let asked = SayWith { status: 429, retry_after: Some("3600"), body: "" };
    for (reply, state) in [
        (Some(Fail(PushError::Timeout(Duration::ZERO))), State::Retrying),
        (Some(asked), State::Retrying),
        (Some(Say(403)), State::Unauthorized),
        (Some(Say(404)), State::Held),
        (None, State::Idle), // lingers
    ] {
        let mut lane = Lane::new(100, Duration::from_secs(3)).await;
        lane.settings.retry.initial = Duration::from_secs(300);
        lane.append(&["a"]).await;
        let pushes = u64::from(reply.is_some());
        lane.script(reply);
        let mut running = lane.run();
        running.wait_for(|report| report.state == state && report.pushes == pushes).await;
        assert_eq!(running.stop().await, Duration::ZERO, "{state:?}");
        assert_eq!((lane.cursor(), lane.pushes().len() as u64), (1, pushes));
    }
}

#[tokio::test(start_paused = true)]
async fn a_push_in_flight_gets_its_grace_and_repeats_when_given_up() {
    let mut lane = Lane::new(2, Duration::ZERO).await;
    lane.append(&["a", "a", "a", "a"]).await;
    lane.script([SayAfter(Duration::from_secs(4), 202), Hang]);
    let mut running = lane.run();
    running.wait_for(|report| report.pushes == 1).await;
    assert_eq!(running.stop().await, Duration::from_secs(4));
    assert_eq!(lane.cursor(), 3);

    let mut running = lane.run();
    running.wait_for(|report| report.pushes == 1).await;
    assert_eq!(running.stop().await, GRACE);
    assert_eq!(lane.cursor(), 3);

    let mut running = lane.run();
    running.wait_for(|report| report.state == State::Idle && report.pushes == 1).await;
    running.stop().await;
    let ids: Vec<_> = lane.pushes().into_iter().map(|(_, ids)| ids).collect();
    assert_eq!(ids, [[1, 2], [3, 4], [3, 4]]);
}

#[tokio::test(start_paused = true)]
async fn a_held_lane_probes_with_the_same_push_until_the_key_works() {
    let mut lane = Lane::new(100, Duration::ZERO).await;
    lane.append(&["a", "a"]).await;
    lane.script([Say(403), Say(401), Fail(PushError::Dns("no".into())), Say(404)]);
    let mut running = lane.run();
    let report = running.wait_for(|report| report.state == State::Unauthorized).await;
    assert!(report.cause.contains("Data API key"), "{}", report.cause);
    assert_eq!((report.last_status, report.failures), (Some(403), 1));
    assert!(report.next_try_at.is_some_and(|at| at > clock::now()));
    // What arrives meanwhile does not change the push.
    lane.append(&["a"]).await;
    let report = running.wait_for(|report| report.state == State::Retrying).await;
    assert!(report.cause.contains("does not resolve"));
    assert_eq!(report.last_status, None);
    let report = running.wait_for(|report| report.state == State::Held).await;
    assert!(report.cause.contains("`endpoint`"));
    let report = running.wait_for(|report| report.state == State::Idle).await;
    running.stop().await;
    assert_eq!((report.cause.as_str(), report.failures, report.next_try_at), ("", 0, None));
    assert_eq!((report.pushes, report.pushes_delivered, report.pushes_retried), (6, 2, 4));
    let pushes = lane.pushes();
    assert_eq!((pushes[1].0, pushes[2].0), (60.0, 120.0));
    assert!(pushes[..5].iter().all(|(_, ids)| *ids == [1, 2]), "{pushes:?}");
    assert_eq!(pushes[5].1, [3]);
}

#[tokio::test(start_paused = true)]
async fn a_retry_is_the_same_push_whatever_arrives_meanwhile() {
    let mut lane = Lane::new(100, Duration::ZERO).await;
    lane.append(&["a", "a"]).await;
    let asked = || SayWith { status: 503, retry_after: Some("10"), body: "" };
    lane.script([asked(), asked()]);
    let mut running = lane.run();
    for failures in 1..=2 {
        running.wait_for(|report| report.failures == failures).await;
        lane.append(&["a"]).await;
    }
    running.wait_for(|report| report.state == State::Idle && report.pushes == 4).await;
    running.stop().await;
    let ids: Vec<_> = lane.pushes().into_iter().map(|(_, ids)| ids).collect();
    assert_eq!(ids, [vec![1, 2], vec![1, 2], vec![1, 2], vec![3, 4]]);
    let bodies: Vec<_> =
        lane.upstream.pushes.lock().unwrap().iter().map(|(_, body)| body.clone()).collect();
    assert_eq!(bodies[0], bodies[2]);
}

#[tokio::test(start_paused = true)]
async fn guilty_records_are_set_aside_with_the_answer_and_the_others_delivered() {
    let mut lane = Lane::new(100, Duration::ZERO).await;
    lane.append(&["order", "order", "order"]).await;
    let refused = || SayWith { status: 400, retry_after: None, body: "no total" };
    // 1–3 refused, 1–2 delivered, 3 too large.
    lane.script([refused(), SayAfter(Duration::from_secs(1), 202), Say(413)]);
    let mut running = lane.run();
    let isolating = running.wait_for(|report| report.state == State::Isolating).await;
    assert!(isolating.cause.contains("refuses a record"), "{}", isolating.cause);
    let report = running.wait_for(|report| report.state == State::Idle && report.pushes == 3).await;
    assert_eq!(report.cause, "");
    lane.script([refused()]);
    lane.append(&["order"]).await;
    running.wait_for(|report| report.state == State::Idle && report.pushes == 4).await;
    running.stop().await;
    let kept = lane.spool.quarantine(QuarantineId(1), 10).await.unwrap();
    let kept: Vec<_> = kept.into_iter().map(|(_, entry)| entry).collect();
    let told =
        |nth: usize| (kept[nth].reason.as_str(), kept[nth].status, kept[nth].detail.as_str());
    assert_eq!(told(0), ("too_large", Some(413), ""));
    assert_eq!(told(1), ("rejected", Some(400), "no total"));
    assert_eq!(kept[1].body, br#"{"id":"4"}"#);
    assert!(matches!(&kept[1].origin, Origin::Record { integration, seq, record_type, .. }
        if integration == "uk" && *seq == Seq(4) && record_type == "order"));
    let stats = lane.spool.stats(lane.id).await.unwrap();
    assert_eq!((stats.delivered, stats.quarantined, stats.queued_records), (2, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn records_that_a_202_names_are_copied_to_the_quarantine_and_count_as_delivered() {
    let mut lane = Lane::new(100, Duration::ZERO).await;
    lane.append(&["a", "a", "a"]).await;
    let body = r#"{"accepted":2,"rejected":99999999999999999999,"rejected_items":[{"id":"2"}]}"#;
    lane.script([SayWith { status: 202, retry_after: None, body }]);
    let mut running = lane.run();
    let report = running.wait_for(|report| report.state == State::Idle && report.pushes == 1).await;
    running.stop().await;
    assert_eq!(report.records_rejected, 1);
    let kept = lane.spool.quarantine(QuarantineId(1), 10).await.unwrap();
    let bodies: Vec<_> = kept.iter().map(|(_, entry)| (&entry.body[..], entry.status)).collect();
    assert_eq!(bodies, [(&br#"{"id":"2"}"#[..], Some(202))]);
    let stats = lane.spool.stats(lane.id).await.unwrap();
    assert_eq!((stats.delivered, stats.quarantined), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_storm_holds_the_lane_and_a_delivery_ends_it() {
    let mut lane = Lane::new(4, Duration::ZERO).await;
    lane.settings.storm_limit = 2;
    lane.append(&["a"; 5]).await;
    // 1–4, 1–2, 1 and 2 alone; 3–4, 3: the storm; 3 again; delivered.
    lane.script((0..7).map(|_| Say(400)));
    let mut running = lane.run();
    let report = running.wait_for(|report| report.state == State::Storm).await;
    assert!(report.cause.starts_with("2 records in a row were rejected"), "{}", report.cause);
    assert!(!report.cause.contains("  "), "{}", report.cause);
    running.wait_for(|report| report.state == State::Idle).await;
    running.stop().await;
    let pushes = lane.pushes();
    let probes: Vec<_> = pushes[5..8].to_vec();
    assert_eq!(probes, [(0.0, vec![3]), (60.0, vec![3]), (120.0, vec![3])]);
    let stats = lane.spool.stats(lane.id).await.unwrap();
    assert_eq!((stats.delivered, stats.quarantined, stats.queued_records), (3, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn the_pace_is_kept() {
    let mut lane = Lane::new(1, Duration::ZERO).await;
    lane.settings.pace = SharedPace::new(2.0);
    lane.append(&["a"; 4]).await;
    lane.script([Say(202), Say(202), Remaining(0), Say(202)]);
    let mut running = lane.run();
    running.wait_for(|report| report.pushes == 3 && report.next_try_at.is_some()).await;
    running.wait_for(|report| report.state == State::Idle && report.pushes == 4).await;
    running.stop().await;
    let times: Vec<f64> = lane.pushes().into_iter().map(|(at, _)| at).collect();
    assert_eq!(times, [0.0, 0.5, 1.0, 6.0]);
}

#[tokio::test(start_paused = true)]
async fn a_push_of_the_largest_records_goes_whole() {
    let mut lane = Lane::new(100, Duration::ZERO).await;
    let record = |id: u64| {
        let head = format!(r#"{{"id":"{id}","fill":""#);
        Bytes::from(format!("{head}{}\"}}", "x".repeat(RECORD_BYTES_MAX - head.len() - 2)))
    };
    let (of, record_type) = (lane.id, Arc::<str>::from("a"));
    let item = |id| Content::Record {
        lane: of,
        record_type: record_type.clone(),
        record: record(id),
        person: PersonKeys::default(),
        first_seen: None,
        event: None,
    };
    let items = (1..=101).map(|id| Item { once: None, content: item(id) }).collect();
    lane.spool.append(Append { items, ..Append::default() }).await.unwrap();
    lane.appended = 101;
    let mut running = lane.run();
    running.wait_for(|report| report.state == State::Idle && report.pushes_delivered == 2).await;
    running.stop().await;
    assert_eq!(lane.pushes()[0].1.len(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_spool_that_takes_no_settlement_ends_the_forwarder() {
    let mut lane = Lane::new(100, Duration::ZERO).await;
    lane.append(&["a"]).await;
    lane.script([SayAfter(Duration::from_secs(1), 202)]);
    let mut running = lane.run();
    running.wait_for(|report| report.pushes == 1).await;
    lane.spool.close().await;
    let ended = running.task.await.unwrap();
    assert!(matches!(ended, Err(RunError::Settle(AppendError::Closed))), "{ended:?}");
}

/// Goal: who denies consent while a push waits to be repeated, or is split, is left out of the next attempt.
#[tokio::test(start_paused = true)]
async fn consent_is_asked_for_before_each_attempt() {
    let mut lane = Lane::new(3, Duration::ZERO).await;
    lane.settings.consent = vec!["m".into()];
    lane.append(&["a"; 6]).await;
    lane.script([Say(503)]);
    let mut running = lane.run();
    running.wait_for(|report| report.state == State::Retrying).await;
    lane.deny([2, 4, 5, 6]).await;
    running.wait_for(|report| report.state == State::Idle).await;

    lane.script([Say(400), SayAfter(Duration::from_secs(5), 400), Say(400)]);
    lane.append(&["a"; 3]).await;
    running.wait_for(|report| report.pushes == 4).await;
    lane.deny([7]).await;
    running.wait_for(|report| report.state == State::Idle && report.pushes > 4).await;
    running.stop().await;
    let ids: Vec<_> = lane.pushes().into_iter().map(|(_, ids)| ids).collect();
    let expected = [&[1, 2, 3][..], &[1, 3], &[7, 8, 9], &[7, 8], &[8], &[9]];
    assert_eq!(ids, expected);
    let stats = lane.spool.stats(lane.id).await.unwrap();
    assert_eq!((stats.delivered, stats.quarantined, stats.withheld), (3, 1, 5));
    assert!(stats.is_conserved() && lane.cursor() == 10);
}

/// Goal: a pause sees the push in flight through, sends nothing more and outlasts what arrives; a retry ends a wait.
#[tokio::test(start_paused = true)]
async fn an_operator_pauses_and_hurries_a_lane() {
    let mut lane = Lane::new(2, Duration::ZERO).await;
    lane.append(&["a"; 4]).await;
    lane.script([SayAfter(Duration::from_secs(4), 202)]);
    let mut running = lane.run();
    running.wait_for(|report| report.pushes == 1).await;
    running.stop.send_modify(|control| control.paused = true);
    let report = running.wait_for(|report| report.state == State::Paused).await;
    assert!(report.cause.contains("pillarbox resume") && lane.cursor() == 3);
    lane.append(&["a"; 2]).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(lane.pushes().len(), 1);

    lane.script([Say(403), Say(503)]);
    running.stop.send_modify(|control| control.paused = false);
    running.wait_for(|report| report.state == State::Unauthorized).await;
    // Held for a minute; asked for at once.
    running.stop.send_modify(|control| control.retries += 1);
    running.wait_for(|report| report.state == State::Retrying).await;
    running.stop.send_modify(|control| control.retries += 1);
    running.wait_for(|report| report.state == State::Idle).await;
    let pushes = lane.pushes();
    let ids: Vec<_> = pushes.iter().map(|(_, ids)| ids.clone()).collect();
    assert_eq!(ids, [[1, 2], [3, 4], [3, 4], [3, 4], [5, 6]]);
    assert!(pushes[1..].iter().all(|(at, _)| (at - 3604.0).abs() < 1.0), "{pushes:?}");

    // An idle lane pauses at once, and ends while it is paused.
    running.stop.send_modify(|control| control.paused = true);
    running.wait_for(|report| report.state == State::Paused).await;
    assert_eq!(running.stop().await, Duration::ZERO);
}
