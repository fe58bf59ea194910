//! `pillarbox simulate`: the stand-in for Ometria, and a line for each push it gets.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;

use anstyle::{AnsiColor, Style};
use anyhow::Context;
use clap::builder::TypedValueParser;
use secrecy::SecretString;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast;

use crate::simulator::{Counters, Fault, LISTEN_DEFAULT, Options, PushSeen, Simulator};

const EXAMPLES: &str = "\
Examples:
  pillarbox simulate
  pillarbox simulate --fault status=503,count=3,retry-after=2 --fault poison=order-666
  pillarbox simulate --fault delay=250ms --fault reset,every=10

While it runs:
  curl http://127.0.0.1:8482/_simulator/records
  curl http://127.0.0.1:8482/_simulator/stats
  curl -d '{\"fault\":\"hang,count=1\"}' http://127.0.0.1:8482/_simulator/faults
  curl -X DELETE http://127.0.0.1:8482/_simulator/faults";

/// The longest id shown on a line, in characters; `--json` shows all of it.
const ID_CHARS_MAX: usize = 40;

const GOOD: Style = AnsiColor::Green.on_default();
const BAD: Style = AnsiColor::Red.on_default();
const ODD: Style = AnsiColor::Yellow.on_default();
const DIM: Style = Style::new().dimmed();

/// Stands in for Ometria's push endpoint: checks each push as strictly as documented, shows it, and
/// fails on demand
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Address to listen on, loopback only; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value_t = LISTEN_DEFAULT)]
    listen: SocketAddr,

    /// Accept only this API key (a made-up one: other users can see a command's flags) [default: any key]
    #[arg(long, value_name = "KEY", conflicts_with = "key_file", value_parser = key_parser())]
    key: Option<SecretString>,

    /// Accept only the API key in this file
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,

    /// Something to go wrong, such as `status=503,count=3`, `poison=order-666`, `delay=250ms`, `hang`,
    /// `reset,every=10`; a wrong one lists them all. Can be repeated
    #[arg(long = "fault", value_name = "FAULT")]
    faults: Vec<Fault>,

    /// No line for each push
    #[arg(long, short)]
    quiet: bool,

    /// Every line a JSON object, the first one `{"listening":URL}`
    #[arg(long)]
    json: bool,
}

/// Serves until SIGINT or SIGTERM, then prints the totals.
///
/// The first line on stdout is `listening on URL`, flushed once connections are taken.
///
/// # Errors
/// The key file is unreadable or empty, or the address is not loopback or taken.
///
/// # Cancel safety
/// Dropping the future closes every connection at once.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let api_key = match &args.key_file {
        Some(path) => Some(read_key(path)?),
        None => args.key.clone(),
    };
    let options =
        Options { listen: args.listen, api_key, faults: args.faults, ..Options::default() };
    let simulator =
        Simulator::bind(options).await.with_context(|| format!("listen on {}", args.listen))?;
    // Before the first line: whoever reads it may signal at once.
    let mut interrupt = signal(SignalKind::interrupt()).context("watch for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    let shutdown = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    let handle = simulator.handle();
    let mut pushes = handle.subscribe();
    let printer = Printer { json: args.json, quiet: args.quiet };
    printer.listening(&simulator.url())?;
    let mut serving = pin!(simulator.run(shutdown));
    loop {
        tokio::select! {
            () = &mut serving => break,
            push = pushes.recv() => printer.arrival(push)?,
        }
    }
    while let Ok(push) = pushes.try_recv() {
        printer.arrival(Ok(push))?;
    }
    printer.summary(&handle.counters())
}

fn key_parser() -> impl TypedValueParser<Value = SecretString> {
    clap::builder::NonEmptyStringValueParser::new().map(SecretString::from)
}

fn read_key(path: &Path) -> anyhow::Result<SecretString> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("read the key file {}", path.display()))?;
    let key = text.trim();
    anyhow::ensure!(!key.is_empty(), "the key file {} is empty", path.display());
    Ok(SecretString::from(key))
}

#[derive(Clone, Copy, Debug)]
struct Printer {
    json: bool,
    quiet: bool,
}

impl Printer {
    fn listening(self, url: &str) -> anyhow::Result<()> {
        if self.json {
            print_line(&serde_json::json!({ "listening": url }).to_string())
        } else {
            print_line(&format!("listening on {url}"))
        }
    }

    fn arrival(self, push: Result<PushSeen, broadcast::error::RecvError>) -> anyhow::Result<()> {
        match push {
            _ if self.quiet => Ok(()),
            Ok(push) if self.json => print_line(&serde_json::to_string(&push)?),
            Ok(push) => print_line(&push_line(&push)),
            Err(broadcast::error::RecvError::Lagged(pushes)) if self.json => {
                print_line(&serde_json::json!({ "not_shown": pushes }).to_string())
            }
            Err(broadcast::error::RecvError::Lagged(pushes)) => {
                print_line(&format!("{DIM}… {pushes} pushes not shown{DIM:#}"))
            }
            // Cannot be: the handle lives as long as the loop that asks.
            Err(broadcast::error::RecvError::Closed) => Ok(()),
        }
    }

    fn summary(self, counters: &Counters) -> anyhow::Result<()> {
        if self.json {
            print_line(&serde_json::json!({ "summary": counters }).to_string())
        } else {
            print_line(&summary_line(counters))
        }
    }
}

/// Prints and flushes one line. A reader that has gone is no reason to stop serving.
fn print_line(line: &str) -> anyhow::Result<()> {
    let mut stdout = anstream::stdout().lock();
    match writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        Err(fault) if fault.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => printed.context("print a line"),
    }
}

/// `#12  202  100 custom_event  order-1 … order-100  [delay=250ms]`
fn push_line(push: &PushSeen) -> String {
    let (style, status) = match push.status {
        Some(status @ 202) => (GOOD, status.to_string()),
        Some(status) => (BAD, status.to_string()),
        None => (ODD, "---".to_owned()),
    };
    let ids = match push.record_ids.as_slice() {
        [] => String::new(),
        [only] => format!("  {}", shown(only)),
        [first, .., last] => format!("  {} … {}", shown(first), shown(last)),
    };
    let record_type = match push.record_type.as_str() {
        "" => "records",
        record_type => record_type,
    };
    let refusal = match &push.refusal {
        Some(refusal) => format!("  {BAD}{}{BAD:#}", printable(refusal)),
        None => String::new(),
    };
    let fault = match &push.fault {
        Some(fault) => format!("  {ODD}[{}]{ODD:#}", printable(fault)),
        None => String::new(),
    };
    format!(
        "{DIM}#{:<4}{DIM:#} {style}{status}{style:#}  {:>3} {}{ids}{refusal}{fault}",
        push.number,
        push.records,
        shown(record_type),
    )
}

fn summary_line(counters: &Counters) -> String {
    format!(
        "{} pushes: {} accepted with {} records, {} refused, {} hit by a fault",
        counters.pushes,
        counters.pushes_accepted,
        counters.records_accepted,
        counters.pushes_refused,
        counters.pushes_faulted,
    )
}

/// A name from a push, short and harmless to a terminal.
fn shown(name: &str) -> String {
    let short: String = name.chars().take(ID_CHARS_MAX).collect();
    let ellipsis = if short.len() < name.len() { "…" } else { "" };
    format!("{}{ellipsis}", printable(&short))
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::clock::UnixMillis;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn push() -> PushSeen {
        PushSeen {
            number: 12,
            at: UnixMillis(0),
            status: Some(202),
            fault: None,
            refusal: None,
            record_type: "custom_event".to_owned(),
            record_ids: vec!["a".to_owned(), "b".to_owned(), "c".to_owned()],
            records: 3,
            accepted: 3,
            bytes: 300,
        }
    }

    fn plain(push: &PushSeen) -> String {
        anstream::adapter::strip_str(&push_line(push)).to_string()
    }

    #[test]
    fn a_push_is_one_line_whatever_it_holds() {
        assert_eq!(plain(&push()), "#12   202    3 custom_event  a … c");
        let hanging = PushSeen {
            status: None,
            fault: Some("hang,count=1".to_owned()),
            record_ids: vec!["x".repeat(50)],
            records: 1,
            ..push()
        };
        let id = "x".repeat(40);
        assert_eq!(plain(&hanging), format!("#12   ---    1 custom_event  {id}…  [hang,count=1]"));
        let refused = PushSeen {
            status: Some(400),
            refusal: Some("Payload invalid: not\nJSON".to_owned()),
            record_type: String::new(),
            record_ids: vec!["\u{1b}[2J".to_owned()],
            records: 0,
            ..push()
        };
        let line = "#12   400    0 records  \u{fffd}[2J  Payload invalid: not\u{fffd}JSON";
        assert_eq!(plain(&refused), line);
    }

    #[test]
    fn the_summary_names_every_total() {
        let counters = Counters {
            pushes: 12,
            pushes_accepted: 9,
            pushes_refused: 1,
            pushes_faulted: 3,
            records_accepted: 850,
            ..Counters::default()
        };
        let line = "12 pushes: 9 accepted with 850 records, 1 refused, 3 hit by a fault";
        assert_eq!(summary_line(&counters), line);
    }

    #[test]
    fn arguments_are_read_and_wrong_faults_explained() {
        let read = |arguments: &[&str]| {
            Command::try_parse_from([&["simulate"], arguments].concat()).map(|command| command.args)
        };
        let args =
            read(&["--fault", "status=503,count=3", "--fault", "hang", "--key", "k"]).unwrap();
        assert_eq!(args.listen, LISTEN_DEFAULT);
        assert_eq!(args.faults.len(), 2);
        assert!(!format!("{args:?}").contains("\"k\""));
        let wrong = read(&["--fault", "stauts=503"]).unwrap_err().to_string();
        assert!(wrong.contains("did you mean `status`?") && wrong.contains("queue-remaining"));
        assert!(read(&["--key", ""]).is_err());
        assert!(read(&["--key", "k", "--key-file", "f"]).is_err());
    }

    #[test]
    fn a_key_file_is_trimmed_and_must_not_be_empty() {
        use secrecy::ExposeSecret;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, "secret\n").unwrap();
        assert_eq!(read_key(&path).unwrap().expose_secret(), "secret");
        std::fs::write(&path, "\n").unwrap();
        assert!(read_key(&path).unwrap_err().to_string().ends_with("is empty"));
        assert!(read_key(&folder.path().join("none")).is_err());
    }
}
