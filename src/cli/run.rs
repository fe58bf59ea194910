//! `pillarbox run`: the daemon.

use std::io::IsTerminal as _;
use std::time::Duration;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::Failure;
use crate::config::{self, LogFormat, Source};
use crate::daemon::handed::Handed;
use crate::daemon::{self, notify};

/// What is logged unless `RUST_LOG` says otherwise: changes of state, and nothing of the engine's own chatter.
const FILTER: &str = "info,sled=warn";

/// Where systemd holds the producers' socket, whoever waits there has the daemon started again as soon as it has ended. A
/// configuration at fault, which does not mend by itself, holds it up for so long.
const FAULTY_REST: Duration = Duration::from_secs(5);

pub(super) async fn run(source: &Source) -> Result<(), Failure> {
    let handed = Handed::take()?;
    let config = match config::load(source, None) {
        Ok(config) => config,
        Err(faults) => {
            if handed.holds_ingest() {
                notify::status("the configuration is at fault, see the log");
                tokio::time::sleep(FAULTY_REST).await;
            }
            return Err(faults.into());
        }
    };
    start_log(config.admin.log)?;
    if let Some(exposed) = config::exposed(source) {
        tracing::warn!(%exposed, "the configuration file is not private");
    }
    daemon::run(config, source.clone(), handed).await?;
    Ok(())
}

fn start_log(format: LogFormat) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER));
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => {
            let lines = tracing_subscriber::fmt::layer();
            let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            let colour = wanted && std::io::stderr().is_terminal();
            registry
                .with(lines.with_writer(std::io::stderr).with_ansi(colour).with_target(false))
                .try_init()
        }
        LogFormat::Json => {
            let lines = tracing_subscriber::fmt::layer().json().flatten_event(true);
            registry.with(lines.with_writer(std::io::stderr)).try_init()
        }
        LogFormat::Journald => {
            let journal =
                tracing_journald::layer().context("connect to journald (log = \"journald\")")?;
            registry.with(journal).try_init()
        }
    }
    .context("start the log")
}
