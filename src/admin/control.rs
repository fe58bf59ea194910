//! Pause, resume, retry at once: what an operator asks of forwarders.

use std::collections::BTreeSet;

use super::service::Service;
use crate::forward::Control;
use crate::spool::{Append, AppendError, ReadError, Spool};

/// The spool's note of who is paused.
const PAUSED: &str = "paused";

/// The integrations that an operator has paused.
///
/// # Errors
/// See [`ReadError`].
pub async fn paused(spool: &Spool) -> Result<BTreeSet<String>, ReadError> {
    let note = spool.note(PAUSED).await?;
    Ok(note.and_then(|note| serde_json::from_slice(&note).ok()).unwrap_or_default())
}

/// Why nothing was paused, resumed or retried.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Not configured.
    #[error("no integration {0:?} is configured: `pillarbox status` lists those that are")]
    Unknown(String),
    /// The spool could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The spool takes nothing.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl Service {
    /// Pauses or resumes integrations, or all with `None`; durable. Returns the names of those that it is asked of.
    ///
    /// # Errors
    /// [`ControlError`]: nothing has changed.
    /// # Panics
    /// Never: names can be written.
    pub async fn pause(
        &self,
        name: Option<&str>,
        paused: bool,
    ) -> Result<Vec<String>, ControlError> {
        let _alone = self.settlers().await;
        let asked = self.asked(name)?;
        let mut names = self::paused(self.spool()).await?;
        for known in &asked {
            if paused {
                names.insert(known.clone());
            } else {
                names.remove(known);
            }
        }
        let note = serde_json::to_vec(&names).expect("names are written into memory");
        let notes = vec![(PAUSED, note.into())];
        self.spool().append(Append { notes, ..Append::default() }).await?;
        self.control(&asked, |control| control.paused = paused);
        tracing::info!(integrations = ?asked, paused, "an operator has changed who is paused");
        Ok(asked)
    }

    /// Has integrations, or all with `None`, try again at once instead of waiting on. Returns their names.
    ///
    /// # Errors
    /// [`ControlError::Unknown`].
    pub fn retry_now(&self, name: Option<&str>) -> Result<Vec<String>, ControlError> {
        let asked = self.asked(name)?;
        self.control(&asked, |control| control.retries += 1);
        Ok(asked)
    }

    fn asked(&self, name: Option<&str>) -> Result<Vec<String>, ControlError> {
        let known = self.integrations();
        let names = known.iter().map(|known| known.name.clone());
        let asked: Vec<String> =
            names.filter(|known| name.is_none_or(|name| known == name)).collect();
        match name {
            Some(name) if asked.is_empty() => Err(ControlError::Unknown(name.to_owned())),
            _ => Ok(asked),
        }
    }

    fn control(&self, names: &[String], change: impl Fn(&mut Control)) {
        let known = self.integrations();
        for known in known.iter().filter(|known| names.contains(&known.name)) {
            known.lanes.iter().for_each(|lane| lane.control.send_modify(&change));
        }
    }
}
