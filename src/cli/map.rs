//! `pillarbox map`: the records that events become, without sending them.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use uuid::Uuid;

use super::show::{self, DIM, WARN, printable};
use super::{Configured, Failure};
use crate::clock;
use crate::config;
use crate::event::object::merge;
use crate::event::{BatchItem, DEPTH_MAX, Event, batch, repair};
use crate::mapping::{Identity, Outcome, Preset, Rules, identity_change, identity_keys, map};

#[derive(Debug, Args)]
pub(super) struct Map {
    #[command(flatten)]
    configured: Configured,
    /// Map by this preset, without a configuration
    #[arg(long)]
    preset: Option<PresetName>,
    /// NDJSON events, one event, an array or a batch; `-` reads standard input
    file: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum PresetName {
    /// The eight events of a shop's journey
    Retail,
    /// Every track and page
    Default,
}

/// The mapping of each integration, and the identities that the input has brought so far.
struct Mapper {
    integrations: Vec<(String, Rules)>,
    identities: HashMap<String, Vec<u8>>,
    faults: u64,
}

pub(super) fn run(args: &Map) -> Result<(), Failure> {
    let integrations = match args.preset {
        Some(PresetName::Retail) => {
            vec![("retail".to_owned(), Rules::new(Preset::Retail, Vec::new()))]
        }
        Some(PresetName::Default) => {
            vec![("default".to_owned(), Rules::new(Preset::Default, Vec::new()))]
        }
        None => {
            let config = config::load(&args.configured.source()).map_err(|mut faults| {
                if let Some(last) = faults.0.last_mut() {
                    last.message.push_str(" (`map --preset retail` needs no configuration)");
                }
                faults
            })?;
            config
                .integrations
                .into_iter()
                .map(|known| (known.name, Rules::new(known.preset, known.consent)))
                .collect()
        }
    };
    let input = read(&args.file)?;
    let mut mapper = Mapper { integrations, identities: HashMap::new(), faults: 0 };
    // A whole document is tried first, then a document a line.
    if serde_json::from_slice::<serde::de::IgnoredAny>(&input).is_ok() {
        mapper.body(1, &input);
    } else {
        for (line, text) in (1..).zip(input.split(|byte| *byte == b'\n')) {
            if !text.trim_ascii().is_empty() {
                mapper.body(line, text);
            }
        }
    }
    if mapper.faults == 0 { Ok(()) } else { Err(Failure::Said) }
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut input = Vec::new();
        std::io::stdin().read_to_end(&mut input).context("read standard input")?;
        return Ok(input);
    }
    std::fs::read(file).with_context(|| format!("read {}", file.display()))
}

impl Mapper {
    /// One document: an event, an array of events, or a batch.
    fn body(&mut self, line: usize, body: &[u8]) {
        let text = match repair(body, DEPTH_MAX) {
            Ok(text) => text.trim().to_owned(),
            Err(error) => return self.fault(&format!("line {line}: {error}")),
        };
        let enveloped = text.starts_with('[') || is_batch(&text);
        let text = if enveloped { text } else { format!("[{text}]") };
        match batch(&text, clock::now()) {
            Ok(events) => {
                for (number, item) in (1..).zip(events.iter()) {
                    let event = if enveloped { format!(", event {number}") } else { String::new() };
                    self.item(&format!("line {line}{event}"), &item);
                }
            }
            Err(error) => self.fault(&format!("line {line}: {error}")),
        }
    }

    fn item(&mut self, place: &str, item: &BatchItem<'_>) {
        match &item.event {
            Ok(event) => self.event(place, event),
            Err(error) => self.fault(&format!("{place}: invalid: {error}")),
        }
    }

    fn event(&mut self, place: &str, event: &Event<'_>) {
        let (user, anonymous) = identity_keys(event);
        let stored = |key: Option<String>| self.identities.get(&key?).map(Vec::as_slice);
        let identity = Identity { user: stored(user), anonymous: stored(anonymous) };
        let mut said = Vec::new();
        for (name, rules) in &self.integrations {
            let prefix =
                if self.integrations.len() > 1 { format!("{name}: ") } else { String::new() };
            match map(event, &identity, rules, || format!("evt_{}", Uuid::now_v7().simple())) {
                Outcome::Record(record) => show::line(&format!(
                    "{DIM}{prefix}{DIM:#}{}",
                    String::from_utf8_lossy(&record.bytes)
                )),
                Outcome::Identity => {
                    said.push((false, "identity: its traits are kept for later events".to_owned()));
                }
                Outcome::Dropped(reason) => {
                    let why = match reason.code() {
                        "consent" => {
                            "a category of consent that the integration asks for is not granted"
                        }
                        _ => "no mapping sends it on",
                    };
                    said.push((false, format!("{prefix}dropped ({}): {why}", reason.code())));
                }
                Outcome::Refused { reason, detail } => {
                    said.push((true, format!("{prefix}refused ({reason}): {detail}")));
                }
            }
        }
        for (key, traits) in identity_change(event) {
            let merged = merge(self.identities.get(&key).map(Vec::as_slice), &traits);
            self.identities.insert(key, merged);
        }
        said.dedup();
        for (fault, text) in said {
            if fault {
                self.fault(&format!("{place}: {text}"));
            } else {
                show::note(&format!("{WARN}{place}{WARN:#}: {text}"));
            }
        }
    }

    fn fault(&mut self, text: &str) {
        self.faults += 1;
        show::problem(&printable(text));
    }
}

fn is_batch(text: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Envelope {
        #[serde(rename = "batch")]
        _batch: serde::de::IgnoredAny,
    }
    serde_json::from_str::<Envelope>(text).is_ok()
}
