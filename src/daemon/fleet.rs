//! The integrations that are running: their lanes, forwarders and reports, brought in line with a configuration at the start
//! and at each reload.
//!
//! - A lane has one forwarder at a time: the old one has ended before its successor begins.
//! - What does not change is not touched; an integration whose mapping alone changes keeps its forwarders.
//! - The lanes of an integration that is no longer configured keep what they hold, and nobody delivers it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Context as _;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::layout::{Layout, goes_before};
use super::watchdog::Watched;
use crate::admin::protocol::Reloaded;
use crate::admin::{self, Lane};
use crate::config::Integration;
use crate::forward::{
    self, Control, HttpUpstream, Meter, Metered, Pulse, Report, RunError, SharedPace, Signs, poll,
};
use crate::ingest;
use crate::spool::{LaneId, Spool};

/// See the module.
#[derive(Debug)]
pub(super) struct Fleet {
    spool: Spool,
    running: BTreeMap<String, Running>,
    /// Integrations that an operator has paused, as of the last change of the fleet.
    paused: BTreeSet<String>,
    /// What became of the pushes of each integration, over all its forwarders since the start.
    meters: BTreeMap<String, Arc<Meter>>,
    /// What was last told of the forwarders that have ended: their successors count on.
    told: BTreeMap<LaneId, watch::Receiver<Report>>,
    /// Where a forwarder that cannot go on says so.
    failures: mpsc::Sender<anyhow::Error>,
    /// Where the watchdog finds the forwarders.
    watched: Watched,
}

/// An integration that is delivered.
#[derive(Debug)]
struct Running {
    configured: Integration,
    /// Where new records go, in the order of the layout.
    lanes: Vec<LaneId>,
    forwarders: Vec<Forwarder>,
    /// Who reads the ledger, where that is asked for.
    poller: Option<Poller>,
    meter: Arc<Meter>,
    /// That of its forwarders: what is configured anew has another.
    pace: SharedPace,
}

/// Who reads the ledger of an integration.
#[derive(Debug)]
struct Poller {
    report: watch::Receiver<poll::Report>,
    control: watch::Sender<Control>,
    task: JoinHandle<()>,
}

/// The forwarder of one lane.
#[derive(Debug)]
struct Forwarder {
    lane: LaneId,
    report: watch::Receiver<Report>,
    control: watch::Sender<Control>,
    task: JoinHandle<()>,
}

/// What is ready to run, and not running yet.
struct Ready {
    configured: Integration,
    lanes: Vec<LaneId>,
    upstream: HttpUpstream,
}

impl Fleet {
    /// A fleet without integrations.
    pub(super) fn new(spool: Spool, failures: mpsc::Sender<anyhow::Error>) -> Fleet {
        let (running, paused) = (BTreeMap::new(), BTreeSet::new());
        let (meters, told) = (BTreeMap::new(), BTreeMap::new());
        let watched = Watched::default();
        Fleet { spool, running, paused, meters, told, failures, watched }
    }

    /// The forwarders that run, as they come and go.
    pub(super) fn watched_by(&self) -> Watched {
        self.watched.clone()
    }

    /// Brings the fleet in line with `wanted`. `feed` is told where events go from now on, before any forwarder ends.
    ///
    /// # Errors
    /// Nothing has changed: an integration cannot be set up, or the spool takes no new lane.
    pub(super) async fn apply(
        &mut self,
        wanted: &[Integration],
        feed: impl FnOnce(Vec<ingest::Integration>),
    ) -> anyhow::Result<Reloaded> {
        let mut done = Reloaded::default();
        let mut ready = Vec::new();
        let paused = admin::paused(&self.spool).await.context("read who is paused")?;
        for configured in wanted {
            match self.running.get(&configured.name) {
                Some(running) if running.delivers_like(configured) => {
                    if running.configured != *configured {
                        done.changed.push(configured.name.clone());
                    }
                    continue;
                }
                Some(_) => done.changed.push(configured.name.clone()),
                None => done.added.push(configured.name.clone()),
            }
            ready.push(self.ready(configured).await?);
        }
        let gone = |name: &&String| !wanted.iter().any(|configured| configured.name == **name);
        done.removed.extend(self.running.keys().filter(gone).cloned());

        // From here on nothing fails.
        self.paused = paused;
        let lanes_of = wanted.iter().map(|configured| {
            let ready = ready.iter().find(|ready| ready.configured.name == configured.name);
            let running = || self.running.get(&configured.name).map(|running| &running.lanes);
            let lanes = ready.map(|ready| &ready.lanes).or_else(running);
            self.fed(configured, lanes.expect("what does not run is ready to").clone())
        });
        feed(lanes_of.collect());
        let begun_anew = ready.iter().map(|ready| &ready.configured.name);
        let ending = done.removed.iter().chain(begun_anew);
        let ending: Vec<Running> = ending.filter_map(|name| self.running.remove(name)).collect();
        let forwarders = ending.iter().flat_map(|running| &running.forwarders);
        self.told.extend(forwarders.map(|known| (known.lane, known.report.clone())));
        stop(ending).await;
        for configured in wanted {
            if let Some(running) = self.running.get_mut(&configured.name) {
                running.configured = configured.clone();
            }
        }
        for ready in ready {
            let name = ready.configured.name.clone();
            let running = self.start(ready);
            self.running.insert(name, running);
        }
        Ok(done)
    }

    /// What is delivered, for operators.
    pub(super) fn delivered(&self) -> Vec<admin::Delivered> {
        let running = self.running.values();
        running
            .map(|running| admin::Delivered {
                name: running.configured.name.clone(),
                rules: running.configured.rules(),
                settings: running.configured.forward.clone(),
                lanes: running
                    .forwarders
                    .iter()
                    .map(|known| Lane {
                        id: known.lane,
                        report: known.report.clone(),
                        control: known.control.clone(),
                    })
                    .collect(),
                ledger: running.poller.as_ref().map(|poller| poller.report.clone()),
                meter: running.meter.clone(),
                pace: running.pace.clone(),
            })
            .collect()
    }

    /// Stops every forwarder, and waits until they have ended.
    pub(super) async fn stop(&mut self) {
        stop(std::mem::take(&mut self.running).into_values().collect()).await;
    }

    /// Everything that may fail: the client of its pushes, the lanes.
    async fn ready(&self, configured: &Integration) -> anyhow::Result<Ready> {
        let name = &configured.name;
        let upstream = HttpUpstream::new(&configured.forward, None)
            .with_context(|| format!("set up the integration {name:?}"))?;
        let known: Vec<u32> = self.lanes(name).into_iter().map(|(_, number)| number).collect();
        let layout = Layout::choose(&known, configured.lanes);
        let mut lanes = Vec::new();
        for number in layout.numbers() {
            lanes.push(self.spool.lane(name, number).await.context("register a lane")?);
        }
        Ok(Ready { configured: configured.clone(), lanes, upstream })
    }

    /// The lanes of an integration with their numbers, those of earlier layouts included.
    fn lanes(&self, name: &str) -> Vec<(LaneId, u32)> {
        let lanes = self.spool.lanes().into_iter().filter(|(_, owner, _)| owner == name);
        lanes.map(|(lane, _, number)| (lane, number)).collect()
    }

    fn fed(&self, configured: &Integration, lanes: Vec<LaneId>) -> ingest::Integration {
        let name = configured.name.clone();
        // The first lane that it ever had: ids stay known across layouts.
        let scope = self.lanes(&name).into_iter().map(|(lane, _)| lane.0).min();
        let scope = scope.expect("its lanes are registered");
        ingest::Integration { name, lanes, scope, rules: configured.rules() }
    }

    fn start(&mut self, ready: Ready) -> Running {
        let Ready { configured, lanes, upstream } = ready;
        let meter = self.meters.entry(configured.name.clone()).or_default().clone();
        let metered = Metered::new(upstream.clone(), meter.clone());
        let all = self.lanes(&configured.name);
        let forwarders = all.iter().map(|(lane, number)| {
            let earlier = all.iter().filter(|(_, other)| goes_before(*other, *number));
            let waits_for = earlier.map(|(lane, _)| *lane).collect();
            self.forwarder(&configured, *lane, waits_for, metered.clone())
        });
        let forwarders = forwarders.collect();
        let poller = (!configured.forward.poll_errors.is_zero()).then(|| {
            let (control, controlled) = watch::channel(Control::default());
            let (reports, report) = watch::channel(poll::Report::default());
            let (settings, spool) = (configured.forward.clone(), self.spool.clone());
            let lanes = all.iter().map(|(lane, _)| *lane).collect();
            let run = poll::run(settings, spool, lanes, upstream, reports, controlled);
            let run = async move {
                run.await;
                Ok(())
            };
            let what = format!("who reads the ledger of {:?}", configured.name);
            let task = self.watched(what, control.subscribe(), run);
            Poller { report, control, task }
        });
        let pace = configured.forward.pace.clone();
        Running { configured, lanes, forwarders, poller, meter, pace }
    }

    /// Starts the forwarder of `lane`, which begins once the lanes in `waits_for` are empty.
    fn forwarder(
        &self,
        configured: &Integration,
        lane: LaneId,
        waits_for: Vec<LaneId>,
        upstream: Metered<HttpUpstream>,
    ) -> Forwarder {
        let paused = self.paused.contains(&configured.name);
        let (control, mut controlled) = watch::channel(Control { paused, ..Control::default() });
        let earlier = self.told.get(&lane).map(|told| Report::after(&told.borrow()));
        let (reports, report) = watch::channel(earlier.unwrap_or_default());
        let (spool, settings) = (self.spool.clone(), configured.forward.clone());
        let name = configured.name.clone();
        let pulse = Arc::new(Pulse::resting());
        self.watched.add(name.clone(), Arc::downgrade(&pulse));
        let run = async move {
            if !emptied(&spool, &waits_for, &reports, &mut controlled).await {
                return Ok(());
            }
            let rng = fastrand::Rng::new();
            let signs = Signs { report: reports, pulse };
            forward::run(settings, spool, lane, upstream, signs, rng, controlled).await
        };
        let task = self.watched(format!("the forwarder of {name:?}"), control.subscribe(), run);
        Forwarder { lane, report, control, task }
    }
}

impl Fleet {
    /// Runs a part that ends only when it is told to stop; else the daemon is told of it.
    fn watched(
        &self,
        what: String,
        control: watch::Receiver<Control>,
        run: impl Future<Output = Result<(), RunError>> + Send + 'static,
    ) -> JoinHandle<()> {
        let (failures, run) = (self.failures.clone(), tokio::spawn(run));
        tokio::spawn(async move {
            let failure = match run.await {
                Ok(Ok(())) if control.borrow().stop => return,
                Ok(Ok(())) => anyhow::anyhow!("{what} ended early"),
                Ok(Err(error)) => anyhow::Error::from(error).context(format!("{what} failed")),
                Err(error) => anyhow::Error::from(error).context(format!("{what} failed")),
            };
            // One failure ends the daemon: another need not be told.
            drop(failures.try_send(failure));
        })
    }
}

impl Running {
    /// Whether its forwarders need not change for `configured`.
    fn delivers_like(&self, configured: &Integration) -> bool {
        self.configured.forward == configured.forward && self.configured.lanes == configured.lanes
    }
}

/// All at once: each may take as long as its push.
async fn stop(ending: Vec<Running>) {
    let tasks = ending.into_iter().flat_map(|running| {
        let forwarders = running.forwarders.into_iter().map(|it| (it.control, it.task));
        forwarders.chain(running.poller.map(|it| (it.control, it.task)))
    });
    let tasks: Vec<_> = tasks.collect();
    for (stop, _) in &tasks {
        stop.send_modify(|control| control.stop = true);
    }
    for (_, task) in tasks {
        // Its failure has been told.
        drop(task.await);
    }
}

/// Waits until everything that `lanes` hold now has been settled; `false` when the stop comes first.
async fn emptied(
    spool: &Spool,
    lanes: &[LaneId],
    reports: &watch::Sender<Report>,
    control: &mut watch::Receiver<Control>,
) -> bool {
    for lane in lanes {
        let newest = *spool.newest(*lane).borrow();
        let mut cursor = spool.cursors(*lane);
        if *cursor.borrow() > newest {
            continue;
        }
        let waits = "waits for the records that were queued before `lanes` was changed";
        reports.send_modify(|report| waits.clone_into(&mut report.cause));
        tokio::select! {
            biased;
            _ = control.wait_for(|control| control.stop) => return false,
            reached = cursor.wait_for(|cursor| *cursor > newest) => if reached.is_err() { return false },
        }
    }
    reports.send_modify(|report| report.cause.clear());
    true
}
