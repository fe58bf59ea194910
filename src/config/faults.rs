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
    /// A `--set`, by its key.
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
#[derive(Debug)]
pub struct Collector<'a> {
    file: PathBuf,
    text: &'a str,
    faults: Vec<Fault>,
}

impl<'a> Collector<'a> {
    /// For `file`, whose content is `text`.
    #[must_use]
    pub fn new(file: &Path, text: &'a str) -> Collector<'a> {
        Collector { file: file.to_owned(), text, faults: Vec::new() }
    }

    /// Takes a fault.
    pub fn add(&mut self, place: &Place, message: impl Into<String>) {
        let file = self.file.display();
        let place = match place {
            Place::Byte(byte) => {
                let before = self.text.get(..*byte).unwrap_or(self.text);
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
                format!("{file}:{line}:{column}")
            }
            Place::Set(key) => format!("--set {key}"),
            Place::Environment(name) => format!("environment {name}"),
            Place::File => file.to_string(),
        };
        self.faults.push(Fault { place, message: message.into() });
    }

    /// The faults, when there are any.
    ///
    /// # Errors
    /// The faults.
    pub fn finish(self) -> Result<(), Faults> {
        if self.faults.is_empty() { Ok(()) } else { Err(Faults(self.faults)) }
    }
}
