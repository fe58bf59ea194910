//! `pillarbox map`: what events become and by which rule, without sending them.

use std::collections::{BTreeMap, HashMap};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use uuid::Uuid;

use super::explain::{Place, Told};
use super::show::{self, BOLD, WARN};
use super::{Configured, Failure};
use crate::clock::{self, UnixMillis};
use crate::config;
use crate::event::object::merge;
use crate::event::{DEPTH_MAX, Event, Kind, Timestamp, batch, repair};
use crate::mapping::explain::Note;
use crate::mapping::{Identity, IdentityKey, Preset, Rules, identity_change, identity_keys, map};

#[derive(Debug, Args)]
pub(super) struct Map {
    #[command(flatten)]
    configured: Configured,
    /// Map by this preset, without a configuration
    #[arg(long)]
    preset: Option<PresetName>,
    /// For machines: an object a line, for each event and integration
    #[arg(long)]
    json: bool,
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
    json: bool,
    now: UnixMillis,
    events: u64,
    /// By outcome and reason.
    counts: BTreeMap<(&'static str, Option<&'static str>), u64>,
    notes: BTreeMap<Note, u64>,
    faults: u64,
}

pub(super) fn run(args: &Map) -> Result<(), Failure> {
    let integrations = match args.preset {
        Some(PresetName::Retail) => vec![(String::new(), Rules::new(Preset::Retail, Vec::new()))],
        Some(PresetName::Default) => vec![(String::new(), Rules::new(Preset::Default, Vec::new()))],
        None => {
            let config = config::load(&args.configured.source()).map_err(|mut faults| {
                if let Some(last) = faults.0.last_mut() {
                    last.message.push_str(" (`map --preset retail` needs no configuration)");
                }
                faults
            })?;
            config.integrations.iter().map(|known| (known.name.clone(), known.rules())).collect()
        }
    };
    let input = read(&args.file)?;
    let mut mapper = Mapper {
        integrations,
        identities: HashMap::new(),
        json: args.json,
        now: clock::now(),
        events: 0,
        counts: BTreeMap::new(),
        notes: BTreeMap::new(),
        faults: 0,
    };
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
    if !args.json {
        show::line(&mapper.summary());
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
        let invalid = |error: &dyn std::fmt::Display| {
            vec![Told::invalid(Place { line, item: None }, error.to_string())]
        };
        let text = match repair(body, DEPTH_MAX) {
            Ok(text) => text.trim().to_owned(),
            Err(error) => return self.tell(invalid(&error)),
        };
        let enveloped = text.starts_with('[') || is_batch(&text);
        let text = if enveloped { text } else { format!("[{text}]") };
        match batch(&text, self.now) {
            Ok(mut events) => {
                for (number, item) in (1..).zip(events.take()) {
                    let place = Place { line, item: enveloped.then_some(number) };
                    let told = match &item.event {
                        Ok(event) => self.event(place, event),
                        Err(error) => vec![Told::invalid(place, error.to_string())],
                    };
                    self.tell(told);
                }
            }
            Err(error) => self.tell(invalid(&error)),
        }
    }

    /// What becomes of one event in each integration; once for all when it is an identify.
    fn event(&mut self, place: Place, event: &Event<'_>) -> Vec<Told> {
        let (user, anonymous) = identity_keys(event);
        let stored =
            |key: Option<IdentityKey<'_>>| self.identities.get(&key?.stored()).map(Vec::as_slice);
        let identity = Identity { user: stored(user), anonymous: stored(anonymous) };
        let now = Timestamp::from_clock(self.now);
        let mut told = Vec::new();
        for (name, rules) in &self.integrations {
            let fresh_id = || format!("evt_{}", Uuid::now_v7().simple());
            let outcome = map(event, &identity, rules, fresh_id);
            told.push(Told::mapped(place, event, name, rules, outcome, now));
        }
        if event.kind == Kind::Identify {
            told.truncate(1);
        }
        for (key, traits) in identity_change(event) {
            let key = key.stored();
            let merged = merge(self.identities.get(&key).map(Vec::as_slice), &traits);
            self.identities.insert(key, merged);
        }
        told
    }

    /// Shows what became of one event.
    fn tell(&mut self, told: Vec<Told>) {
        self.events += 1;
        if let Some(first) = told.first().filter(|_| !self.json) {
            show::line(&first.heading());
        }
        for told in told {
            *self.counts.entry((told.outcome, told.reason)).or_default() += 1;
            for note in &told.notes {
                *self.notes.entry(*note).or_default() += 1;
            }
            self.faults += u64::from(told.is_fault());
            if self.json {
                show::line(&serde_json::to_string(&told).unwrap_or_default());
            } else {
                show::line(&told.text());
            }
        }
        if !self.json {
            show::line("");
        }
    }

    /// All of it in numbers, and the cures of what was noted.
    fn summary(&self) -> String {
        let count = |(outcome, reason): &(&str, Option<&str>), count: u64| {
            let outcome = match *outcome {
                "record" if count == 1 => "record",
                "record" => "records",
                "identity" if count != 1 => "identities",
                outcome => outcome,
            };
            let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
            format!("{} {outcome}{reason}", show::number(count))
        };
        let counts: Vec<String> =
            self.counts.iter().map(|(key, number)| count(key, *number)).collect();
        let events = if self.events == 1 { "event" } else { "events" };
        let mut lines = vec![format!(
            "{BOLD}{} {events}{BOLD:#}: {}",
            show::number(self.events),
            counts.join(", ")
        )];
        lines.extend(self.notes.iter().map(|(note, count)| {
            let (title, cure, count) = (note.title(), note.cure(), show::number(*count));
            format!("{WARN}{title}{WARN:#} ({count}): {cure}")
        }));
        lines.join("\n")
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
