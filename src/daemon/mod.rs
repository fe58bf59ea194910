//! The wiring: start-up, signals, reload, shutdown order.
//!
//! ```text
//! start   spool ─▶ sockets bound or taken over ─▶ fleet (lanes, upstreams, forwarders) ─▶ admin, ingest
//! reload  configuration read and checked ─▶ new lanes and upstreams made ─▶ ingest fed anew ─▶ forwarders ended, begun
//! stop    all at once: ingest finishes its requests, forwarders settle or abandon their push ─▶ spool closed
//! ```
//! | file | owns |
//! |---|---|
//! | `fleet` | the integrations that are running |
//! | `edit` | integrations that are made, changed and removed at run time |
//! | `layout` (PURE) | which lanes an integration uses |
//! | `handed` | the sockets that systemd hands over |
//! | `notify`, `watchdog`, `status_text` (PURE) | what systemd is told, and that the parts go on |
//!
//! Ingest and forward meet only in the spool, so they stop side by side, and the spool closes when both have ended. A
//! task that ends early ends the daemon; a spool that fails ends it at once: nothing more may be acknowledged.

mod edit;
mod fleet;
pub mod handed;
pub mod layout;
pub mod notify;
mod status_text;
mod watchdog;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use self::fleet::Fleet;
use self::handed::Handed;
use crate::admin::console::Console;
use crate::admin::protocol::Reloaded;
use crate::admin::{self, Ask};
use crate::clock;
use crate::config::{self, Config, Integration, SetAside, Source, stored};
use crate::ingest::{self, Intake};
use crate::socket;
use crate::spool::{AppendError, Drive, Spool};

/// A running daemon; the demo and tests run it in their own process.
#[derive(Debug)]
pub struct Daemon {
    /// What it runs with; after a reload, with the integrations of that.
    config: Config,
    /// Where that came from.
    source: Source,
    spool: Spool,
    stop: watch::Sender<bool>,
    tasks: JoinSet<&'static str>,
    fleet: Fleet,
    /// Forwarders that cannot go on.
    failures: mpsc::Receiver<anyhow::Error>,
    intake: Arc<Intake>,
    admin: Arc<admin::Service>,
    /// What operators ask for.
    asks: mpsc::Receiver<Ask>,
}

/// Runs until SIGTERM or SIGINT. SIGHUP, and operators who ask for it, have `source` read again.
///
/// # Errors
/// When it cannot start, when the spool fails, or when a part ends early.
pub async fn run(config: Config, source: Source, handed: Handed) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    let started =
        notify::extending("starting: opening the spool", Daemon::start_on(config, source, handed));
    let mut daemon = started.await?;
    let _told = daemon.keep_told();
    notify::ready();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), pid = std::process::id(), "ready");
    let spool = daemon.spool.clone();
    loop {
        let done = tokio::select! {
            biased; // a hangup that comes with a stop is answered first
            // The log has told what came of it.
            _ = hangup.recv() => unless_failed(&spool, daemon.reload()).await.map(drop),
            _ = terminate.recv() => { tracing::info!("SIGTERM: stopping"); break }
            _ = interrupt.recv() => { tracing::info!("SIGINT: stopping"); break }
            happened = daemon.next() => match happened {
                Happening::Asked(ask) => unless_failed(&spool, daemon.answer(ask)).await,
                Happening::Failed(failure) => Err(failure),
            }
        };
        if let Err(failure) = done {
            daemon.abandon().await;
            std::mem::forget(spool); // as in `Daemon::abandon`
            return Err(failure);
        }
    }
    notify::stopping();
    let stopped = notify::extending("stopping: what is queued stays queued", daemon.stop());
    tokio::select! {
        reason = spool.failed() => {
            std::mem::forget(spool); // as in `Daemon::abandon`
            return Err(spool_failed(&reason));
        }
        stopped = stopped => stopped?,
    }
    // It may also have failed with the last thing that it did.
    if let Err(AppendError::Failed(reason)) = spool.accepting() {
        std::mem::forget(spool);
        return Err(spool_failed(&reason));
    }
    tracing::info!("stopped: what is queued is delivered after the next start");
    Ok(())
}

/// Does `work`, unless the spool fails meanwhile: on a disk that does not answer it would never end.
async fn unless_failed<T>(spool: &Spool, work: impl Future<Output = T>) -> anyhow::Result<T> {
    tokio::select! {
        done = work => Ok(done),
        reason = spool.failed() => Err(spool_failed(&reason)),
    }
}

/// What a running daemon must see to.
enum Happening {
    Asked(Ask),
    Failed(anyhow::Error),
}

impl Daemon {
    /// Opens the spool, binds the sockets and starts every part. `source`: what `config` was read from.
    ///
    /// # Errors
    /// Nothing is left running; what was made durable stays.
    pub async fn start(config: Config, source: Source) -> anyhow::Result<Daemon> {
        Daemon::start_on(config, source, Handed::default()).await
    }

    /// As [`Daemon::start`], on the sockets that systemd has handed over.
    async fn start_on(
        config: Config,
        source: Source,
        mut handed: Handed,
    ) -> anyhow::Result<Daemon> {
        end_when_the_engine_panics();
        edit::ensure_found(&config.set_aside)?;
        let started_at = clock::now();
        let options = config.spool.clone();
        let opened = tokio::task::spawn_blocking(move || Spool::open(options, Drive::Thread));
        let spool = opened.await.context("open the spool")?.context("open the spool")?;
        stored::sweep(&config.state_dir); // the spool is this daemon's alone, and so is what lies beside it
        edit::tell_set_aside(&config.set_aside);
        let (stop, stopped) = watch::channel(false);
        let (ingest, admin) = (&config.ingest, &config.admin.socket);
        let bound = || socket::bind(&ingest.socket, ingest.socket_mode);
        let ingest_socket = handed.ingest(&ingest.socket).unwrap_or_else(bound)?;
        let mut network = Vec::new();
        for address in &config.ingest.listen {
            network.push(listen(*address).await?);
        }
        let bound = || socket::bind(admin, ADMIN_SOCKET_MODE);
        let admin_socket = handed.admin(admin).unwrap_or_else(bound)?;
        let counters = Arc::new(ingest::Counters::default());
        let intake = Arc::new(Intake::new(spool.clone(), Vec::new()));
        let (ask, asks) = mpsc::channel(1);
        let drafts = edit::drafts(source.clone(), config.state_dir.clone());
        let (fed, counted) = (intake.clone(), counters.clone());
        let admin = admin::Service::new(spool.clone(), fed, counted, started_at, ask, drafts);
        let admin = Arc::new(admin);
        let (failing, failures) = mpsc::channel(1);
        let mut fleet = Fleet::new(spool.clone(), failing);
        fleet.apply(&config.integrations, |fed| intake.feed(fed)).await?;
        admin.deliver(fleet.delivered());
        admin.tell_configured(edit::configured(&config, source.file()));

        let mut tasks = JoinSet::new();
        let limits = config.ingest.limits;
        let service = ingest::Service::new(intake.clone(), counters, limits, stopped.clone())
            .for_producers(config.ingest.producers.clone());
        let (stopped_ingest, stopped_admin, served) =
            (stopped.clone(), stopped.clone(), admin.clone());
        let service = Arc::new(service);
        let keys = Arc::new(config.ingest.write_keys.clone());
        for listener in network {
            let (service, keys, stopped) = (service.clone(), keys.clone(), stopped_ingest.clone());
            tasks.spawn(async move {
                ingest::serve_network(listener, keys, service, stopped).await;
                "a TCP socket"
            });
        }
        tasks.spawn(async move {
            ingest::serve(ingest_socket, service, stopped_ingest).await;
            "the ingest socket"
        });
        if let Some((listener, console)) = open_console(&config, &admin, &stopped).await? {
            tasks.spawn(async move {
                admin::console::serve(listener, Arc::new(console), stopped).await;
                "the web console"
            });
        }
        tasks.spawn(async move {
            admin::serve(admin_socket, served, stopped_admin).await;
            "the admin socket"
        });
        Ok(Daemon { config, source, spool, stop, tasks, fleet, failures, intake, admin, asks })
    }

    /// Does what an operator asks for. One who has gone away finds the outcome in the log.
    async fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Reload(reply) => drop(reply.send(self.reload().await)),
            Ask::Save { name, draft, expected, reply } => {
                drop(reply.send(self.save(name, draft, expected).await));
            }
            Ask::Remove { name, reply } => drop(reply.send(self.remove(name).await)),
        }
    }

    /// Reads the configuration again and brings the integrations in line with it. What is wrong changes nothing; what is
    /// read only at the start is told.
    ///
    /// # Errors
    /// In words for an operator, who also finds them in the log.
    async fn reload(&mut self) -> Result<Reloaded, String> {
        notify::reloading();
        let done = self.try_reload().await;
        notify::ready();
        match &done {
            Ok(done) => {
                let Reloaded { added, changed, removed, needs_restart, set_aside: _ } = done;
                tracing::info!(?added, ?changed, ?removed, "the configuration was reloaded");
                if !needs_restart.is_empty() {
                    tracing::warn!(sections = ?needs_restart, "what has changed there takes effect at the next start");
                }
            }
            Err(reason) => {
                tracing::error!(%reason, "the configuration was not reloaded: the old one stays in force");
            }
        }
        done
    }

    async fn try_reload(&mut self) -> Result<Reloaded, String> {
        let (source, state_dir) = (self.source.clone(), self.config.state_dir.clone());
        let load = move || config::load(&source, Some(&state_dir));
        let loaded = tokio::task::spawn_blocking(load).await;
        let wanted = loaded.map_err(|error| error.to_string())?;
        let wanted = wanted.map_err(|faults| faults.to_string())?;
        edit::tell_set_aside(&wanted.set_aside);
        let needs_restart = self.config.differs_at_start(&wanted);
        let running = edit::kept(&self.config.integrations, &wanted);
        let integrations = wanted.integrations.into_iter().chain(running).collect();
        let mut done = self.apply(integrations, wanted.set_aside).await?;
        done.needs_restart = needs_restart;
        done.set_aside = self.admin.set_aside();
        Ok(done)
    }

    /// Delivers these integrations from now on.
    ///
    /// # Errors
    /// Nothing has changed.
    async fn apply(
        &mut self,
        integrations: Vec<Integration>,
        set_aside: Vec<SetAside>,
    ) -> Result<Reloaded, String> {
        let admin = self.admin.clone();
        let _alone = admin.settlers().await;
        let applied = self.fleet.apply(&integrations, |fed| self.intake.feed(fed)).await;
        let done = applied.map_err(|error| format!("{error:#}"))?;
        self.config.integrations = integrations;
        self.config.set_aside = set_aside;
        self.admin.deliver(self.fleet.delivered());
        self.admin.tell_configured(edit::configured(&self.config, self.source.file()));
        Ok(done)
    }

    /// Keeps systemd told how it is going, as long as what is returned lives.
    fn keep_told(&self) -> JoinSet<()> {
        let mut telling = JoinSet::new();
        telling.spawn(notify::keep_status(self.admin.clone()));
        if let Some(within) = notify::watchdog() {
            telling.spawn(watchdog::feed(within, self.spool.clone(), self.fleet.watched_by()));
        }
        telling
    }

    /// The spool it runs on.
    #[must_use]
    pub fn spool(&self) -> &Spool {
        &self.spool
    }

    /// Resolves when an operator asks for a reload, or the daemon cannot go on: the spool has failed, or a part has ended
    /// early.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    async fn next(&mut self) -> Happening {
        let failure = tokio::select! {
            Some(ask) = self.asks.recv() => return Happening::Asked(ask),
            reason = self.spool.failed() => spool_failed(&reason),
            Some(failure) = self.failures.recv() => failure,
            ended = self.tasks.join_next() => match ended {
                Some(Ok(part)) => anyhow::anyhow!("{part} ended early"),
                Some(Err(error)) => anyhow::Error::from(error).context("a part of the daemon failed"),
                None => anyhow::anyhow!("every part has ended"),
            },
        };
        Happening::Failed(failure)
    }

    /// Lets the requests under way have their refusal, and leaves everything as it is: a store that has failed may wait for
    /// ever when it is closed. What is durable is recovered by a restart.
    async fn abandon(mut self) {
        self.stop.send_replace(true);
        let ended = async {
            self.fleet.stop().await;
            while self.tasks.join_next().await.is_some() {}
        };
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
        self.fleet.stop().await;
        let mut ended = Ok(());
        while let Some(part) = self.tasks.join_next().await {
            ended = ended.and(part.map(drop).context("a part of the daemon failed"));
        }
        if let Ok(failure) = self.failures.try_recv() {
            ended = Err(failure);
        }
        self.spool.close().await;
        ended
    }
}

/// Binds a TCP address, and says which: port 0 takes a free one.
async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!(
            "listen on {address}: choose another address in ingest.listen, or stop what uses it"
        )
    })?;
    let address = listener.local_addr().context("read a socket's address")?;
    tracing::info!(%address, "listening on TCP");
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "events and write keys travel in the clear on this network: prefer the Unix socket or a loopback address");
    }
    Ok(listener)
}

/// Binds the console's address and makes the console, where one is configured.
async fn open_console(
    config: &Config,
    admin: &Arc<admin::Service>,
    stopped: &watch::Receiver<bool>,
) -> anyhow::Result<Option<(TcpListener, Console)>> {
    let Some(address) = config.admin.console else { return Ok(None) };
    let listener = TcpListener::bind(address).await.with_context(|| {
        format!(
            "serve the web console on {address}: choose another address in admin.console, or stop what uses it"
        )
    })?;
    let address = listener.local_addr().context("read a socket's address")?;
    let token_file = config.admin.console_token_file.as_deref();
    let (state_dir, stopped) = (&config.state_dir, stopped.clone());
    let console = Console::open(admin.clone(), address, state_dir, token_file, stopped)?;
    tracing::info!(console = %address, "the web console is served; `pillarbox console` prints how to enter it");
    Ok(Some((listener, console)))
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
