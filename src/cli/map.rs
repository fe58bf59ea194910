//! `pillarbox map`: what events become and by which rule, without sending them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, ValueEnum};

use super::explain::{self, Place, Placed};
use super::show::{self, BOLD, WARN};
use super::{Configured, Failure};
use crate::clock::{self, UnixMillis};
use crate::config::{self, SetAside, Why};
use crate::event::{DEPTH_MAX, Event, Kind, Timestamp, batch, repair};
use crate::fresh_id::fresh_id;
use crate::mapping::explain::Note;
use crate::mapping::told::{Fate, Told};
use crate::mapping::trial::{Trial, enveloped};
use crate::mapping::{Preset, Rules};

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

/// Outcome and reason.
type Ending = (Fate, Option<Cow<'static, str>>);

/// The mapping of each integration, and the identities that the input has brought so far.
struct Mapper {
    integrations: Vec<(String, Rules)>,
    trial: Trial,
    json: bool,
    now: UnixMillis,
    events: u64,
    /// By outcome and reason.
    counts: BTreeMap<Ending, u64>,
    notes: BTreeMap<Note, u64>,
    faults: u64,
}

pub(super) fn run(args: &Map) -> Result<(), Failure> {
    let integrations = match args.preset {
        Some(PresetName::Retail) => vec![(String::new(), Rules::new(Preset::Retail, Vec::new()))],
        Some(PresetName::Default) => vec![(String::new(), Rules::new(Preset::Default, Vec::new()))],
        None => {
            let config = config::load(&args.configured.source(), None).map_err(|mut faults| {
                if let Some(last) = faults.0.last_mut() {
                    last.message.push_str(" (`map --preset retail` needs no configuration)");
                }
                faults
            })?;
            for SetAside { name, why, .. } in &config.set_aside {
                if let Why::Broken(faults) = why {
                    show::problem(&format!(
                        "the stored integration {name:?} has faults, and is left out:\n{faults}"
                    ));
                }
            }
            if config.integrations.is_empty() {
                let note = "no integration is configured; `map --preset retail` needs none";
                return Err(anyhow::anyhow!(note).into());
            }
            config.integrations.iter().map(|known| (known.name.clone(), known.rules())).collect()
        }
    };
    let input = read(&args.file)?;
    let mut mapper = Mapper {
        integrations,
        trial: Trial::default(),
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
        let whole = Place { line, item: None };
        let invalid = |error: &dyn std::fmt::Display| vec![Told::invalid(error.to_string())];
        let text = match repair(body, DEPTH_MAX) {
            Ok(text) => text,
            Err(error) => return self.tell(whole, invalid(&error)),
        };
        let (text, enveloped) = enveloped(&text);
        match batch(&text, self.now) {
            Ok(mut events) => {
                for (number, item) in (1..).zip(events.take()) {
                    let place = Place { line, item: enveloped.then_some(number) };
                    let told = match &item.event {
                        Ok(event) => self.event(event),
                        Err(error) => invalid(error),
                    };
                    self.tell(place, told);
                }
            }
            Err(error) => self.tell(whole, invalid(&error)),
        }
    }

    /// What becomes of one event in each integration; once for all when it is an identify.
    fn event(&mut self, event: &Event<'_>) -> Vec<Told> {
        let now = Timestamp::from_clock(self.now);
        let fresh_id = || fresh_id(self.now);
        let told = self.integrations.iter();
        let told = told.map(|(name, rules)| self.trial.tell(event, name, rules, now, fresh_id));
        let mut told: Vec<Told> = told.collect();
        if event.kind == Kind::Identify {
            told.truncate(1);
        }
        self.trial.learn(event);
        told
    }

    /// Shows what became of one event.
    fn tell(&mut self, place: Place, told: Vec<Told>) {
        self.events += 1;
        if let Some(first) = told.first().filter(|_| !self.json) {
            show::line(&place.heading(first));
        }
        for told in told {
            *self.counts.entry((told.outcome, told.reason.clone())).or_default() += 1;
            for note in &told.notes {
                *self.notes.entry(*note).or_default() += 1;
            }
            self.faults += u64::from(told.is_fault());
            if self.json {
                let placed = Placed { place, told: &told };
                show::line(&serde_json::to_string(&placed).unwrap_or_default());
            } else {
                show::line(&explain::text(&told));
            }
        }
        if !self.json {
            show::line("");
        }
    }

    /// All of it in numbers, and the cures of what was noted.
    fn summary(&self) -> String {
        let count = |(outcome, reason): &Ending, count: u64| {
            let outcome = match outcome {
                Fate::Record if count != 1 => "records",
                Fate::Identity if count != 1 => "identities",
                outcome => outcome.as_str(),
            };
            let reason = reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
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
            let known = match note {
                Note::NoIdentityEmail => " (whom the daemon knows already, this command does not)",
                Note::EventTypeTruncated | Note::Old => "",
            };
            format!("{WARN}{title}{WARN:#} ({count}): {cure}{known}")
        }));
        lines.join("\n")
    }
}
