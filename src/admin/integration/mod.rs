//! Integrations made at run time: listed, saved and removed; drafts of them tried out.
//!
//! ```text
//! save, remove ──▶ daemon (one at a time): checks as the configuration file is checked ─▶ stores ─▶ delivers ─▶ answers
//! preview      ──▶ draft checked ─▶ mapping                                            nothing is stored or sent
//! test         ──▶ draft checked ─▶ mapping ─▶ one push through the forwarders' client      nothing is stored
//! ```
//! | file | owns |
//! |---|---|
//! | `protocol` (PURE) | what is said |
//! | `preview` | what events become |
//! | `delivery` | a test delivery |
//! | `routes` | over HTTP |
//! | `advice` (PURE) | what the answer to one means, and what to do |
//!
//! No API key is ever told (Promise 8): what is listed says whether there is one. A key that is kept because a draft has none
//! goes nowhere else than before.

mod advice;
mod delivery;
mod preview;
pub mod protocol;
pub(super) mod routes;

use std::fmt;
use std::sync::{Arc, PoisonError};

use tokio::sync::oneshot;

use self::protocol::{Configured, DraftFault, Integrations, Saved};
use super::protocol::Reloaded;
use super::service::Service;
use crate::draft::Draft;
use crate::forward;
use crate::mapping::Rules;

/// Where the answer to an [`Ask`] goes.
pub type Reply<T, E> = oneshot::Sender<Result<T, E>>;

/// What an operator asks of the daemon, which does one after the other.
#[derive(Debug)]
pub enum Ask {
    /// Read the configuration again; the error is for the operator.
    Reload(Reply<Reloaded, String>),
    /// Store an integration and deliver it.
    Save {
        /// Its name.
        name: String,
        /// Its settings.
        draft: Draft,
        /// What they take the place of.
        expected: Expected,
        /// When it is delivered.
        reply: Reply<Saved, IntegrationError>,
    },
    /// Remove a stored integration. Its queue stays.
    Remove {
        /// Its name.
        name: String,
        /// When it is no longer delivered.
        reply: Reply<Reloaded, IntegrationError>,
    },
}

/// What a draft that is to be saved was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Not said: the last writer wins.
    Anything,
    /// Nothing: there must be none of its name.
    Nothing,
    /// The stored file of this version.
    Version(String),
}

impl Expected {
    /// Whether that is what is stored now. `version`: that of the stored file; `None`: there is none.
    #[must_use]
    pub fn is_met_by(&self, version: Option<&str>) -> bool {
        match self {
            Expected::Anything => true,
            Expected::Nothing => version.is_none(),
            Expected::Version(expected) => version == Some(expected),
        }
    }
}

/// A draft that has been checked.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Its name, or what stands for it.
    pub name: String,
    /// What becomes of its events.
    pub rules: Rules,
    /// How it would be delivered. Without a key of its own when it was checked for its mapping alone.
    pub settings: forward::Settings,
}

/// What a draft is checked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Its mapping: it needs no key.
    Mapping,
    /// A push.
    Push,
}

type Check = dyn Fn(Draft, Purpose) -> Result<Candidate, IntegrationError> + Send + Sync;

/// Checks drafts as the configuration file is checked; reads files, and waits for nobody else.
#[derive(Clone)]
pub struct Drafts(Arc<Check>);

impl Drafts {
    /// Checks by `check`.
    pub fn new(
        check: impl Fn(Draft, Purpose) -> Result<Candidate, IntegrationError> + Send + Sync + 'static,
    ) -> Drafts {
        Drafts(Arc::new(check))
    }

    async fn check(&self, draft: Draft, purpose: Purpose) -> Result<Candidate, IntegrationError> {
        let check = self.0.clone();
        let checked = tokio::task::spawn_blocking(move || check(draft, purpose)).await;
        checked.unwrap_or_else(|error| Err(IntegrationError::Storage(error.to_string())))
    }
}

impl fmt::Debug for Drafts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Drafts")
    }
}

/// Why an integration was not saved, removed or tried out. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum IntegrationError {
    /// The draft has faults: all of them.
    #[error("the integration has faults: {}", listed(.0))]
    Faulty(Vec<DraftFault>),
    /// What was asked makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The configuration file has an integration of this name.
    #[error(
        "the configuration file {path} has an integration {name:?}, and wins: change it there, then `pillarbox reload`"
    )]
    InFile {
        /// The name.
        name: String,
        /// The file.
        path: String,
    },
    /// What is stored is not what the draft was made from.
    #[error(
        "integration {0:?} was changed, added or removed meanwhile, and nothing was saved: look at it again, and repeat your change \
         (`pillarbox reload` first, if its file was edited)"
    )]
    ChangedMeanwhile(String),
    /// There is none of this name.
    #[error("no integration {0:?} is known: `pillarbox integration list` shows those that are")]
    Unknown(String),
    /// A test delivery is under way.
    #[error("another test delivery is under way: try again when it has ended")]
    Busy,
    /// It could not be stored.
    #[error("{0}")]
    Storage(String),
    /// The daemon cannot deliver it.
    #[error("it cannot be delivered, and was not stored: {0}")]
    NotApplied(String),
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
}

fn listed(faults: &[DraftFault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Service {
    /// Every integration, as it is configured.
    #[must_use]
    pub fn configured(&self) -> Arc<Integrations> {
        self.configured.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is stored and not in force, a sentence each.
    #[must_use]
    pub fn set_aside(&self) -> Vec<String> {
        let configured = self.configured();
        configured.integrations.iter().filter_map(Configured::trouble).collect()
    }

    /// Tells of other integrations from now on.
    pub fn tell_configured(&self, configured: Integrations) {
        *self.configured.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(configured);
    }

    /// Stores an integration, new or in place of the stored one of its name, and delivers it. Durable and in force when this
    /// returns. A draft without `api_key` keeps the stored one, as long as it leads to the same endpoint. What is stored must
    /// be what is `expected`.
    ///
    /// # Errors
    /// [`IntegrationError`]: nothing has changed.
    /// # Cancel safety
    /// It may be stored and delivered without an answer: what is listed tells.
    pub async fn save(
        &self,
        name: &str,
        draft: Draft,
        expected: Expected,
    ) -> Result<Saved, IntegrationError> {
        let name = name.to_owned();
        self.ask(|reply| Ask::Save { name, draft, expected, reply }).await
    }

    /// Removes a stored integration. What is queued for it stays, and nobody delivers it.
    ///
    /// # Errors
    /// [`IntegrationError`]: nothing has changed.
    /// # Cancel safety
    /// As [`Service::save`].
    pub async fn remove(&self, name: &str) -> Result<Reloaded, IntegrationError> {
        let name = name.to_owned();
        self.ask(|reply| Ask::Remove { name, reply }).await
    }

    async fn ask<T>(
        &self,
        ask: impl FnOnce(Reply<T, IntegrationError>) -> Ask,
    ) -> Result<T, IntegrationError> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(ask(reply)).await.map_err(|_| IntegrationError::Stopping)?;
        answer.await.unwrap_or(Err(IntegrationError::Stopping))
    }

    /// A draft, or an integration that is delivered: exactly one of them.
    async fn candidate(
        &self,
        draft: Option<Draft>,
        name: Option<String>,
        purpose: Purpose,
    ) -> Result<Candidate, IntegrationError> {
        match (draft, name) {
            (Some(draft), None) => self.drafts.check(draft, purpose).await,
            (None, Some(name)) => {
                let delivered = self.integrations();
                let known = delivered.iter().find(|known| known.name == name);
                let known = known.ok_or_else(|| IntegrationError::Unknown(name.clone()))?;
                let (rules, settings) = (known.rules.clone(), known.settings.clone());
                Ok(Candidate { name, rules, settings })
            }
            _ => {
                let message = "either `draft` or `integration` must be given, and not both";
                Err(IntegrationError::Invalid(message.to_owned()))
            }
        }
    }
}
