//! What is wrong with a configuration: all of it at once, each with its place.
//!
//! Nothing here quotes a line of the file: a line may hold the API key (Promise 8).

use std::fmt;
use std::path::{Path, PathBuf};

/// Where a value stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A byte of the file.
    Byte(usize),
    /// A `--set`, by its key; empty when the key is not to be shown.
    Set(String),
    /// An environment variable, by its name.
    Environment(String),
    /// Nowhere in particular.
    File,
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// `file:line:column`, `--set key` or a variable's name.
    pub place: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

/// All faults of a configuration; never empty when returned as an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl std::error::Error for Faults {}

impl fmt::Display for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            let line = if index == 0 { "" } else { "\n" };
            write!(formatter, "{line}{}: {}", fault.place, fault.message)?;
        }
        Ok(())
    }
}

/// Gathers faults while a configuration is read.
pub(super) struct Collector<'a> {
    file: PathBuf,
    text: &'a str,
    faults: Vec<(Place, String)>,
}

impl<'a> Collector<'a> {
    /// For `file`, whose content is `text`.
    #[must_use]
    pub(super) fn new(file: &Path, text: &'a str) -> Collector<'a> {
        Collector { file: file.to_owned(), text, faults: Vec::new() }
    }

    /// Takes a fault.
    pub(super) fn add(&mut self, place: &Place, message: impl Into<String>) {
        self.faults.push((place.clone(), message.into()));
    }

    /// The line of the file that `place` is on, from 1; 0 when it is not in the file.
    #[must_use]
    pub(super) fn line(&self, place: &Place) -> usize {
        let Place::Byte(byte) = place else { return 0 };
        self.text.bytes().take(*byte).filter(|byte| *byte == b'\n').count() + 1
    }

    /// How many faults there are: a rule between two keys is tested only where neither is at fault itself.
    #[must_use]
    pub(super) fn count(&self) -> usize {
        self.faults.len()
    }

    /// The faults, when there are any: in the order of the file, then those of the overrides.
    ///
    /// # Errors
    /// The faults.
    pub(super) fn finish(self) -> Result<(), Faults> {
        if self.faults.is_empty() { Ok(()) } else { Err(self.into_faults()) }
    }

    /// The faults, in the order of [`Collector::finish`].
    #[must_use]
    pub(super) fn into_faults(self) -> Faults {
        let (file, text) = (self.file.clone(), self.text);
        let told = |(place, message)| Fault { place: shown(&place, &file, text), message };
        Faults(self.into_places().into_iter().map(told).collect())
    }

    /// The same, with their places as they are.
    #[must_use]
    pub(super) fn into_places(self) -> Vec<(Place, String)> {
        let mut faults = self.faults;
        faults.sort_by_key(|(place, _)| match place {
            Place::File => (0, 0),
            Place::Byte(byte) => (1, *byte),
            Place::Environment(_) => (2, 0),
            Place::Set(_) => (3, 0),
        });
        faults
    }
}

/// A place as it is printed: lines and columns from 1, columns in characters.
pub(super) fn shown(place: &Place, file: &Path, text: &str) -> String {
    let file = file.display();
    match place {
        Place::Byte(byte) => {
            // Inside a character, that character is meant.
            let before = (0..=*byte).rev().find_map(|end| text.get(..end)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            format!("{file}:{line}:{column}")
        }
        Place::Set(key) if key.is_empty() => "--set".to_owned(),
        Place::Set(key) => format!("--set {key}"),
        Place::Environment(name) => format!("environment {name}"),
        Place::File => file.to_string(),
    }
}
