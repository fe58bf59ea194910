//! The commands: one file each. Those that need the daemon talk to its sockets.

mod check;
mod client;
mod completions;
mod console;
mod control;
mod demo;
mod drop_queue;
mod erase;
mod events;
mod explain;
mod integration;
mod man;
mod map;
mod metrics;
mod quarantine;
mod reload;
mod run;
mod send;
mod show;
mod simulate;
mod spool;
mod status;
mod top;
mod when;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::available_parallelism;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use self::client::Client;
use crate::config::{self, Fault, Faults, Source};

/// Durable store-and-forward of retail events: takes them over a Unix socket, answers once they are on stable
/// storage, and delivers them in order to Ometria.
#[derive(Debug, Parser)]
#[command(
    name = "pillarbox",
    version,
    arg_required_else_help = true,
    after_help = "\
Try it:\n  pillarbox demo                                  the whole way of ten events, on this machine alone\n\n\
Run it:\n  pillarbox check && pillarbox run                with /etc/pillarbox/pillarbox.toml\n\n\
Exit codes: 0 done, 1 the operation failed, 2 usage, 69 daemon not reachable, 78 configuration"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the whole way of ten events: no configuration, no network, no root
    #[command(after_help = "Example:\n  pillarbox demo")]
    Demo,
    /// Run the daemon until SIGTERM or SIGINT
    #[command(
        after_help = "Examples:\n  pillarbox run --config shop.toml\n  pillarbox run --set spool.sync=500ms"
    )]
    Run(Configured),
    /// Check configuration, permissions, sockets and spool, and print all faults
    #[command(
        after_help = "Examples:\n  pillarbox check\n  pillarbox check --config shop.toml --effective"
    )]
    Check(check::Check),
    /// Hand events from files or standard input to the daemon
    #[command(
        after_help = "Examples:\n  pillarbox send events.ndjson\n  journalctl -o cat -u shop | pillarbox send\n  pillarbox send --records salvaged.ndjson --integration shop"
    )]
    Send(send::Send),
    /// Show what events become and by which rule, without sending them
    #[command(
        after_help = "Examples:\n  pillarbox map events.ndjson\n  pillarbox map --json events.ndjson | jq .reason\n  echo '{\"type\":\"page\"}' | pillarbox map --preset retail -"
    )]
    Map(map::Map),
    /// Show queue, state and cause of each integration
    #[command(
        after_help = "Examples:\n  pillarbox status\n  pillarbox status --json | jq '.integrations[].lane.queued_records'"
    )]
    Status(status::Status),
    /// Print the figures for a monitoring system, or write them to a file for the node exporter
    #[command(
        after_help = "Examples:\n  pillarbox metrics\n  pillarbox metrics --output /var/lib/prometheus/node-exporter/pillarbox.prom\n\nWith --output the file is replaced whole or not at all. When the daemon cannot be reached it says pillarbox_up 0, and the\nexit code is 69."
    )]
    Metrics(metrics::Metrics),
    /// Show the status live, with keys to pause, resume and retry
    #[command(after_help = "Example:\n  pillarbox top")]
    Top(top::Live),
    /// List, show, retry, edit, drop, export or import what was set aside
    #[command(
        after_help = "Examples:\n  pillarbox quarantine list --status 400 --since 1d\n  pillarbox quarantine show 17\n  pillarbox quarantine edit 17\n  pillarbox quarantine retry --reason rejected --type product_viewed"
    )]
    Quarantine(quarantine::Quarantine),
    /// Send nothing until resumed, also after a restart; events are still taken
    #[command(
        after_help = "Examples:\n  pillarbox pause             every integration\n  pillarbox pause uk"
    )]
    Pause(control::Control),
    /// Go on with what was paused
    #[command(after_help = "Examples:\n  pillarbox resume\n  pillarbox resume uk")]
    Resume(control::Control),
    /// Try again at once instead of waiting for the next attempt
    #[command(after_help = "Examples:\n  pillarbox retry-now\n  pillarbox retry-now uk")]
    RetryNow(control::Control),
    /// Have the running daemon read its configuration again; a broken one changes nothing
    #[command(after_help = "Examples:\n  pillarbox reload\n  pillarbox check && pillarbox reload")]
    Reload(reload::Reload),
    /// List, show, add, change, remove and test integrations, while the daemon runs
    #[command(after_help = integration::EXAMPLES)]
    Integration(integration::Integration),
    /// Remove what is queued for an integration that is no longer configured
    #[command(
        after_help = "Examples:\n  pillarbox drop-queue old-shop          how much would be gone\n  pillarbox drop-queue old-shop --yes"
    )]
    DropQueue(drop_queue::DropQueue),
    /// Show what became of each event: its payload, state, push and answer
    #[command(
        after_help = "Examples:\n  pillarbox events --email jane.doe@example.com\n  pillarbox events --id abc123\n  pillarbox events --state quarantined --json | jq .push.answer\n  pillarbox events --follow"
    )]
    Events(events::Events),
    /// Print the address of the web console, with what signs in
    #[command(
        after_help = "Examples:\n  xdg-open \"$(pillarbox console)\"\n  ssh -L 8481:127.0.0.1:8481 HOST             from elsewhere, then there: pillarbox console"
    )]
    Console(console::Console),
    /// Remove a person from identities, queue and quarantine
    #[command(
        after_help = "Examples:\n  pillarbox erase --email jane.doe@example.com\n  pillarbox erase --user user-123 --json"
    )]
    Erase(erase::Erase),
    /// Check, export or salvage a spool that no daemon runs on; never changes it
    #[command(
        after_help = "Examples:\n  pillarbox spool verify\n  pillarbox spool export --queued --output queued.ndjson\n  pillarbox spool salvage --state-dir /var/lib/pillarbox --output salvaged.ndjson"
    )]
    Spool(spool::Spool),
    /// Stand in for Ometria: strict checks, faults on demand
    Simulate(simulate::Args),
    /// Print what a shell needs to complete commands and options
    #[command(
        after_help = "Examples:\n  pillarbox completions bash > /etc/bash_completion.d/pillarbox\n  pillarbox completions fish > ~/.config/fish/completions/pillarbox.fish"
    )]
    Completions(completions::Completions),
    /// Print the manual page
    #[command(
        after_help = "Examples:\n  pillarbox man | man -l -\n  pillarbox man --dir /usr/local/share/man/man1"
    )]
    Man(man::Man),
}

/// Where the configuration is.
#[derive(Clone, Debug, Args)]
pub(super) struct Configured {
    /// The configuration file [default: /etc/pillarbox/pillarbox.toml]
    #[arg(short, long, global = true, value_name = "FILE", env = "PILLARBOX_CONFIG")]
    config: Option<PathBuf>,
    /// Override a key, such as spool.sync=500ms or integration.uk.linger=1s
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<String>,
}

impl Configured {
    fn source(&self) -> Source {
        Source::of_process(self.config.clone(), self.set.clone())
    }

    /// The operators' socket: as given, else as configured.
    fn admin_socket(&self, given: Option<&Path>) -> Result<PathBuf, Failure> {
        given.map_or_else(|| Ok(self.sockets()?.1), |given| Ok(given.to_owned()))
    }

    /// The producers' socket: as given, else as configured.
    fn ingest_socket(&self, given: Option<&Path>) -> Result<PathBuf, Failure> {
        given.map_or_else(|| Ok(self.sockets()?.0), |given| Ok(given.to_owned()))
    }

    /// Ingest and admin socket. A configuration at fault elsewhere will do, and so will none; but a file that was named
    /// and cannot be read would silently lead to another daemon.
    fn sockets(&self) -> Result<(PathBuf, PathBuf), Failure> {
        if let Some(file) = &self.config
            && let Err(error) = std::fs::File::open(file)
        {
            let place = file.display().to_string();
            return Err(Faults(vec![Fault { place, message: error.to_string() }]).into());
        }
        Ok(config::sockets(&self.source()))
    }
}

/// The daemon's admin socket, for the commands that use nothing else.
#[derive(Clone, Debug, Args)]
pub(super) struct Admin {
    #[command(flatten)]
    configured: Configured,
    /// The daemon's admin socket [default: that of the configuration]
    #[arg(long, global = true, value_name = "PATH", env = "PILLARBOX_ADMIN_SOCKET")]
    socket: Option<PathBuf>,
}

impl Admin {
    async fn connect(&self) -> Result<Client, Failure> {
        Client::connect(&self.configured.admin_socket(self.socket.as_deref())?).await
    }
}

fn key_and_value(text: &str) -> Result<String, &'static str> {
    match text.split_once('=') {
        Some((key, _)) if !key.trim().is_empty() => Ok(text.to_owned()),
        _ => Err("must be KEY=VALUE, such as spool.sync=500ms"),
    }
}

/// How a command ended, when not well.
#[derive(Debug)]
pub(super) enum Failure {
    /// The operation failed.
    Failed(anyhow::Error),
    /// The operation failed, and everything has been said.
    Said,
    /// The daemon is not reachable.
    Unreachable(anyhow::Error),
    /// The configuration is at fault.
    Configuration(Faults),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::Failed(error)
    }
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Failure {
        Failure::Configuration(faults)
    }
}

impl Failure {
    /// Says what happened on stderr, and gives the exit code of DESIGN.md section 8 (numbers of sysexits.h).
    fn report(self) -> ExitCode {
        match self {
            Failure::Failed(error) => {
                show::problem(&show::printable(&format!("{error:#}")));
                ExitCode::from(1)
            }
            Failure::Said => ExitCode::from(1),
            Failure::Unreachable(error) => {
                show::problem(&show::printable(&format!("{error:#}")));
                ExitCode::from(69)
            }
            Failure::Configuration(faults) => {
                show::problem(&told(&faults));
                ExitCode::from(78)
            }
        }
    }
}

/// All faults of a configuration, with their number.
fn told(faults: &Faults) -> String {
    let count = faults.0.len();
    let word = if count == 1 { "fault" } else { "faults" };
    format!("the configuration has {count} {word}:\n{faults}")
}

/// Runs one command.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // Commands other than the daemon are slight: one thread does.
    let mut runtime = match cli.command {
        Command::Run(_) | Command::Demo | Command::Simulate(_) => {
            tokio::runtime::Builder::new_multi_thread()
        }
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    // One may wait for the disk.
    runtime.worker_threads(available_parallelism().map_or(2, |cores| cores.get().max(2)));
    let runtime = match runtime.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return Failure::from(anyhow::Error::from(error).context("start the runtime")).report();
        }
    };
    let ended = runtime.block_on(dispatch(cli.command));
    // A read of standard input cannot be interrupted: it must not keep the process.
    runtime.shutdown_background();
    ended.map_or_else(Failure::report, |()| ExitCode::SUCCESS)
}

async fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Demo => Ok(demo::run().await?),
        Command::Run(configured) => run::run(&configured.source()).await,
        Command::Check(check) => check::run(&check).await,
        Command::Send(send) => send::run(&send).await,
        Command::Map(map) => map::run(&map),
        Command::Status(status) => status::run(&status).await,
        Command::Metrics(metrics) => metrics::run(&metrics).await,
        Command::Top(live) => top::run(&live).await,
        Command::Quarantine(quarantine) => quarantine::run(&quarantine).await,
        Command::Pause(control) => {
            control::run(&control, "pause", "paused; events are taken, nothing is sent").await
        }
        Command::Resume(control) => control::run(&control, "resume", "resumed").await,
        Command::RetryNow(control) => control::run(&control, "retry-now", "tried again now").await,
        Command::Reload(reload) => reload::run(&reload).await,
        Command::Integration(integration) => integration::run(&integration).await,
        Command::DropQueue(drop_queue) => drop_queue::run(&drop_queue).await,
        Command::Events(events) => events::run(&events).await,
        Command::Console(console) => console::run(&console).await,
        Command::Erase(erase) => erase::run(&erase).await,
        Command::Spool(spool) => spool::run(&spool),
        Command::Simulate(args) => Ok(simulate::run(args).await?),
        Command::Completions(completions) => {
            completions::run(&completions);
            Ok(())
        }
        Command::Man(man) => man::run(&man),
    }
}

/// The command line's definition, for man pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound_and_every_command_has_an_example() {
        let command = command();
        command.clone().debug_assert();
        for sub in command.get_subcommands() {
            let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("pillarbox"), "{} has no example", sub.get_name());
        }
    }

    #[test]
    fn a_socket_is_found_in_the_order_flag_configuration_default() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.toml");
        // The key file cannot be read, and another key is wrong: neither matters to reach a daemon.
        let text = "nonsense = 1\n[admin]\nsocket = \"/a\"\n[[integration]]\nname = \"uk\"\napi_key_file = \"/nowhere\"\n";
        std::fs::write(&file, text).unwrap();
        let socket = |config: Option<PathBuf>, set: &[&str], given: Option<&str>| {
            let set = set.iter().map(|text| (*text).to_owned()).collect();
            Configured { config, set }.admin_socket(given.map(Path::new))
        };
        let is = |path: &str, found: Result<PathBuf, Failure>| {
            assert_eq!(found.unwrap(), Path::new(path));
        };
        is("/g", socket(Some(file.clone()), &[], Some("/g")));
        is("/a", socket(Some(file.clone()), &[], None));
        is("/s", socket(Some(file), &["admin.socket=/s"], None));
        let missing = Some(folder.path().join("missing"));
        is("/g", socket(missing.clone(), &[], Some("/g")));
        assert!(matches!(socket(missing, &[], None), Err(Failure::Configuration(_))));
    }

    #[test]
    fn what_is_no_key_and_value_is_a_usage_error() {
        for (text, good) in
            [("a.b=1", true), ("a=", true), ("=1", false), ("a", false), (" =1", false)]
        {
            assert_eq!(key_and_value(text).is_ok(), good, "{text:?}");
        }
    }
}
