//! The wiring: start-up, signals, shutdown order.
//!
//! ```text
//! start   spool ─▶ lanes ─▶ upstreams ─▶ sockets bound ─▶ forwarders, admin, ingest
//! stop    all at once: ingest finishes its requests, forwarders settle or abandon their push ─▶ spool closed
//! ```
//! Ingest and forward meet only in the spool, so they stop side by side, and the spool closes when both have ended. A
//! task that ends early ends the daemon; a spool that fails ends it at once: nothing more may be acknowledged.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::admin;
use crate::clock::{self, UnixMillis};
use crate::config::{Config, Integration};
use crate::forward::{self, HttpUpstream, Report};
use crate::ingest::{self, Intake};
use crate::socket;
use crate::spool::{AppendError, Drive, LaneId, Spool};

/// A running daemon; the demo and tests run it in their own process.
#[derive(Debug)]
pub struct Daemon {
    spool: Spool,
    stop: watch::Sender<bool>,
    tasks: JoinSet<anyhow::Result<&'static str>>,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start, when the spool fails, or when a part ends early.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    let mut daemon = Daemon::start(config).await?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "ready");
    loop {
        tokio::select! {
            biased; // a hangup that comes with a stop is answered first
            _ = hangup.recv() => {
                tracing::warn!("SIGHUP: this version reads its configuration only when it starts; restart it");
                continue;
            }
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
            failed = daemon.failed() => {
                daemon.abandon().await;
                return Err(failed);
            }
        }
        break;
    }
    let spool = daemon.spool.clone();
    tokio::select! {
        reason = spool.failed() => {
            std::mem::forget(spool); // as in `Daemon::abandon`
            return Err(spool_failed(&reason));
        }
        stopped = daemon.stop() => stopped?,
    }
    // It may also have failed with the last thing that it did.
    if let Err(AppendError::Failed(reason)) = spool.accepting() {
        std::mem::forget(spool);
        return Err(spool_failed(&reason));
    }
    tracing::info!("stopped: what is queued is delivered after the next start");
    Ok(())
}

impl Daemon {
    /// Opens the spool, binds the sockets and starts every part.
    ///
    /// # Errors
    /// Nothing is left running; what was made durable stays.
    pub async fn start(config: Config) -> anyhow::Result<Daemon> {
        end_when_the_engine_panics();
        let started_at = clock::now();
        let options = config.spool.clone();
        let opened = tokio::task::spawn_blocking(move || Spool::open(options, Drive::Thread));
        let spool = opened.await.context("open the spool")?.context("open the spool")?;
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut lanes = Vec::new();
        let mut upstreams = Vec::new();
        for integration in &config.integrations {
            let upstream = HttpUpstream::new(&integration.forward, None)
                .with_context(|| format!("set up the integration {:?}", integration.name))?;
            let lane = spool.lane(&integration.name, 0).await.context("register a lane")?;
            upstreams.push(upstream);
            lanes.push(Lane {
                integration: integration.clone(),
                id: lane,
                report: watch::channel(Report::default()),
            });
        }
        let counters = Arc::new(ingest::Counters::default());
        let intake = Arc::new(Intake::new(spool.clone(), lanes.iter().map(Lane::intake).collect()));
        let service = ingest::Service::new(
            intake.clone(),
            counters.clone(),
            config.ingest.limits,
            stopped.clone(),
        );
        let ingest_socket = socket::bind(&config.ingest.socket, config.ingest.socket_mode)?;
        let admin_socket = socket::bind(&config.admin.socket, ADMIN_SOCKET_MODE)?;
        let admin = admin_service(&spool, &lanes, intake, counters, started_at);

        for (lane, upstream) in lanes.into_iter().zip(upstreams) {
            let (settings, spool, stopped) =
                (lane.integration.forward, spool.clone(), stopped.clone());
            let (report, id) = (lane.report.0, lane.id);
            tasks.spawn(async move {
                let name = settings.integration.clone();
                let rng = fastrand::Rng::new();
                let ended = forward::run(settings, spool, id, upstream, report, rng, stopped).await;
                ended.with_context(|| format!("deliver to {name:?}")).map(|()| "a forwarder")
            });
        }
        let (stopped_ingest, stopped_admin) = (stopped.clone(), stopped);
        tasks.spawn(async move {
            ingest::serve(ingest_socket, Arc::new(service), stopped_ingest).await;
            Ok("the ingest socket")
        });
        tasks.spawn(async move {
            admin::serve(admin_socket, admin, stopped_admin).await;
            Ok("the admin socket")
        });
        Ok(Daemon { spool, stop, tasks })
    }

    /// The spool it runs on.
    #[must_use]
    pub fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Resolves when the daemon cannot go on: the spool has failed, or a part has ended early.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub async fn failed(&mut self) -> anyhow::Error {
        tokio::select! {
            reason = self.spool.failed() => spool_failed(&reason),
            ended = self.tasks.join_next() => match ended {
                Some(Ok(Ok(part))) => anyhow::anyhow!("{part} ended early"),
                Some(Ok(Err(error))) => error,
                Some(Err(error)) => anyhow::Error::from(error).context("a part of the daemon failed"),
                None => anyhow::anyhow!("every part has ended"),
            },
        }
    }

    /// Lets the requests under way have their refusal, and leaves everything as it is: a store that has failed may wait for
    /// ever when it is closed. What is durable is recovered by a restart.
    async fn abandon(mut self) {
        self.stop.send_replace(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        // Who takes longer gets no answer: as good as a refusal.
        drop(tokio::time::timeout(ABANDON_MAX, ended).await);
        std::mem::forget(self);
    }

    /// Stops every part, then closes the spool. What is queued stays queued.
    ///
    /// # Errors
    /// The first part that ended with an error.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        let mut ended = Ok(());
        while let Some(part) = self.tasks.join_next().await {
            let part = part.context("a part of the daemon failed").and_then(|part| part.map(drop));
            ended = ended.and(part);
        }
        self.spool.close().await;
        ended
    }
}

/// How long the parts of a daemon that cannot go on may take to end.
const ABANDON_MAX: Duration = Duration::from_secs(2);

fn spool_failed(reason: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "the spool failed: {reason}; nothing acknowledged is lost: see to the disk, then start it again"
    )
}

/// Only the operator may ask, and nobody else may even see that there is something to ask.
const ADMIN_SOCKET_MODE: u32 = 0o600;

/// An integration and its lane, while the parts are put together.
struct Lane {
    integration: Integration,
    id: LaneId,
    report: (watch::Sender<Report>, watch::Receiver<Report>),
}

impl Lane {
    fn intake(&self) -> ingest::Integration {
        let (name, rules) = (self.integration.name.clone(), self.integration.rules());
        ingest::Integration { name, lane: self.id, rules }
    }
}

fn admin_service(
    spool: &Spool,
    lanes: &[Lane],
    intake: Arc<Intake>,
    counters: Arc<ingest::Counters>,
    started_at: UnixMillis,
) -> Arc<admin::Service> {
    let integrations = lanes.iter().map(|lane| admin::Delivered {
        name: lane.integration.name.clone(),
        endpoint: lane.integration.forward.endpoint.to_string(),
        lane: lane.id,
        report: lane.report.1.clone(),
    });
    Arc::new(admin::Service::new(
        spool.clone(),
        integrations.collect(),
        intake,
        counters,
        started_at,
    ))
}

/// A panic on one of sled's own threads, most of all after an I/O error, would leave flushes waiting for ever: end the
/// process and say so, so that a restart recovers from the disk.
fn end_when_the_engine_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            before(panic);
            if std::thread::current().name().is_some_and(|name| name.contains("sled")) {
                let failed = spool_failed("its store's engine gave up on an error");
                anstream::eprintln!("pillarbox: {failed}");
                std::process::exit(1);
            }
        }));
    });
}
