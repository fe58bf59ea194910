//! Integrations that are made, changed and removed at run time: stored first, then delivered.
//!
//! - The daemon's own loop does it, one after the other: there is one writer.
//! - The configuration file is not read again: what somebody is writing there just now is no matter of the others.
//! - What cannot be delivered is not kept: what was stored before is put back.

use std::path::{Path, PathBuf};

use super::Daemon;
use crate::admin::integration::protocol::{
    Configured, DraftFault, Integrations, KeyState, Origin, Saved, Standing,
};
use crate::admin::protocol::Reloaded;
use crate::admin::{Candidate, Drafts, Expected, IntegrationError, Purpose};
use crate::config::stored::{self, For, Ready};
use crate::config::{self, Config, Faults, Integration, SetAside, Source, Why};
use crate::draft::Draft;

/// Checks drafts as the daemon of `source` would.
pub(super) fn drafts(source: Source, state_dir: PathBuf) -> Drafts {
    Drafts::new(move |draft, purpose| {
        let purpose = match purpose {
            Purpose::Mapping => For::Mapping,
            Purpose::Push => For::Push,
        };
        let checked = stored::check(&source, &state_dir, None, draft, purpose);
        let Ready { integration, .. } = checked.map_err(|faults| faulty(&faults))?;
        let rules = integration.rules();
        let Integration { name, forward: settings, .. } = integration;
        Ok(Candidate { name, rules, settings })
    })
}

fn faulty(faults: &Faults) -> IntegrationError {
    IntegrationError::Faulty(draft_faults(faults))
}

fn draft_faults(faults: &Faults) -> Vec<DraftFault> {
    let fault = |fault: &config::Fault| DraftFault {
        path: fault.place.clone(),
        message: fault.message.clone(),
    };
    faults.0.iter().map(fault).collect()
}

impl Daemon {
    /// Stores an integration and delivers it.
    ///
    /// # Errors
    /// Nothing has changed.
    pub(super) async fn save(
        &mut self,
        name: String,
        draft: Draft,
        expected: Expected,
    ) -> Result<Saved, IntegrationError> {
        if self.in_the_file(&name) {
            return Err(self.refused(name));
        }
        let (source, state_dir) = (self.source.clone(), self.config.state_dir.clone());
        let (stored, before) = blocking(move || {
            let path = stored::find(&state_dir, &name);
            let before = path.map_or(Ok(None), |path| stored::held(&path));
            let before = before.map_err(IntegrationError::Storage)?;
            if !expected.is_met_by(before.as_deref().map(stored::version).as_deref()) {
                return Err(IntegrationError::ChangedMeanwhile(name));
            }
            let checked = stored::check(&source, &state_dir, Some(&name), draft, For::Saving);
            let ready = checked.map_err(|faults| faulty(&faults))?;
            let replaced = stored::replace(&ready.path, ready.text.0.as_bytes());
            replaced.map_err(|error| as_it_was(&ready.path, before.as_deref(), error))?;
            Ok((ready, before))
        })
        .await?;
        let Ready { integration, path, .. } = stored;
        let name = integration.name.clone();
        let mut wanted = self.config.integrations.clone();
        match wanted.iter_mut().find(|known| known.name == name) {
            Some(known) => *known = integration,
            None => wanted.push(integration),
        }
        let created = before.is_none();
        match self.apply(wanted, self.without(&name)).await {
            Ok(reloaded) => {
                tracing::info!(
                    integration = name,
                    created,
                    "an operator has stored an integration"
                );
                Ok(Saved { integration: name, created, reloaded })
            }
            Err(reason) => {
                tracing::error!(integration = name, %reason, "a stored integration cannot be delivered: it is as it was");
                let put_back = move || {
                    stored::put_back(&path, before.as_deref()).map_err(IntegrationError::Storage)
                };
                blocking(put_back).await?;
                Err(IntegrationError::NotApplied(reason))
            }
        }
    }

    /// Removes a stored integration. Its queue stays. One that the configuration file overrules goes as well.
    ///
    /// # Errors
    /// Nothing has changed; what could be removed and not be taken out of service says so.
    pub(super) async fn remove(&mut self, name: String) -> Result<Reloaded, IntegrationError> {
        let Some(path) = stored::find(&self.config.state_dir, &name) else {
            let unknown = !self.in_the_file(&name);
            return Err(if unknown { IntegrationError::Unknown(name) } else { self.refused(name) });
        };
        blocking(move || {
            // What cannot be read can still be removed, but not be put back.
            let before = stored::held(&path);
            stored::remove(&path).map_err(|error| match before {
                Ok(before) => as_it_was(&path, before.as_deref(), error),
                Err(_) => IntegrationError::Storage(error),
            })
        })
        .await?;
        let is_it =
            |known: &Integration| known.name == name && known.origin != config::Origin::File;
        let wanted = self.config.integrations.iter().filter(|known| !is_it(known)).cloned();
        let applied = self.apply(wanted.collect(), self.without(&name)).await;
        let reloaded = applied.map_err(|reason| {
            IntegrationError::Storage(format!(
                "its file is removed, and it is delivered until the next reload: {reason}"
            ))
        })?;
        tracing::info!(integration = name, "an operator has removed a stored integration");
        Ok(reloaded)
    }

    /// What is set aside, but for `name`.
    fn without(&self, name: &str) -> Vec<SetAside> {
        let others = self.config.set_aside.iter().filter(|known| known.name != name);
        others.cloned().collect()
    }

    fn in_the_file(&self, name: &str) -> bool {
        let mut known = self.config.integrations.iter();
        known.any(|known| known.name == name && known.origin == config::Origin::File)
    }

    fn refused(&self, name: String) -> IntegrationError {
        IntegrationError::InFile { name, path: self.source.file().display().to_string() }
    }
}

/// Puts back what a file held before a change of it failed with `error`, and tells of both.
fn as_it_was(path: &Path, before: Option<&[u8]>, error: String) -> IntegrationError {
    IntegrationError::Storage(match stored::put_back(path, before) {
        Ok(()) => error,
        Err(other) => format!(
            "{error}; what was stored before could not be put back ({other}): the change takes effect at the next reload"
        ),
    })
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, IntegrationError> + Send + 'static,
) -> Result<T, IntegrationError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(IntegrationError::Storage(error.to_string())))
}

/// Those that run on though their files are broken by now, or cannot even be looked for: then all that `wanted` has none of
/// their name of.
pub(super) fn kept(running: &[Integration], wanted: &Config) -> Vec<Integration> {
    let is_unknown = wanted.set_aside.iter().any(SetAside::is_whole_folder);
    let goes_on = |known: &&Integration| {
        let broken =
            |aside: &SetAside| aside.name == known.name && matches!(aside.why, Why::Broken(_));
        let is_replaced = || wanted.integrations.iter().any(|other| other.name == known.name);
        known.origin != config::Origin::File
            && (wanted.set_aside.iter().any(broken) || (is_unknown && !is_replaced()))
    };
    running.iter().filter(goes_on).cloned().collect()
}

/// Checks that what is stored could be looked for.
///
/// # Errors
/// It could not: a start without any would take events for none of them.
pub(super) fn ensure_found(set_aside: &[SetAside]) -> anyhow::Result<()> {
    for SetAside { path, why, .. } in set_aside.iter().filter(|aside| aside.is_whole_folder()) {
        if let Why::Broken(faults) = why {
            anyhow::bail!(
                "look for stored integrations: {faults}: see to {}, then start it again; it does not start without those in it",
                path.display()
            );
        }
    }
    Ok(())
}

/// Tells the log what is stored and not in force.
pub(super) fn tell_set_aside(set_aside: &[SetAside]) {
    for SetAside { name, path, why, .. } in set_aside {
        let path = path.display();
        match why {
            Why::Overruled => {
                tracing::warn!(integration = name, %path, "a stored integration is overruled: the configuration file has one of its name");
            }
            Why::Broken(faults) if name.is_empty() => {
                tracing::error!(%path, %faults, "the folder of the stored integrations cannot be read: those that run go on as they are. See to it, then reload");
            }
            Why::Broken(faults) => {
                tracing::error!(integration = name, %path, %faults, "a stored integration has faults: its file is not read, and it is not delivered unless it ran before. Save it anew, or mend the file and reload");
            }
        }
    }
}

/// What operators are told of the integrations of `config`, which was read from `file`.
pub(super) fn configured(config: &Config, file: &Path) -> Integrations {
    let is_broken = |known: &&Integration| {
        config
            .set_aside
            .iter()
            .any(|aside| aside.name == known.name && matches!(aside.why, Why::Broken(_)))
    };
    let in_force = config.integrations.iter().filter(|known| !is_broken(known));
    let in_force = in_force.map(|known| shown(known, file));
    let set_aside = config.set_aside.iter().map(|SetAside { name, path, version, why }| {
        let running = config.integrations.iter().find(|known| known.name == *name);
        let running = running.filter(|known| known.origin != config::Origin::File);
        let origin = Origin::Stored { path: path.display().to_string() };
        let (standing, faults) = match why {
            Why::Overruled => (Standing::Overruled, Vec::new()),
            Why::Broken(faults) => (Standing::Broken, draft_faults(faults)),
        };
        let (settings, key) = match running {
            Some(running) => (running.settings(), KeyState::Set),
            None => (Draft::default(), KeyState::NotSet),
        };
        let (name, version) = (name.clone(), version.clone());
        Configured { name, origin, standing, key, settings, given: None, version, faults }
    });
    Integrations { integrations: in_force.chain(set_aside).collect() }
}

fn shown(integration: &Integration, file: &Path) -> Configured {
    let (origin, given, version) = match &integration.origin {
        config::Origin::File => {
            (Origin::File { path: file.display().to_string() }, None, String::new())
        }
        config::Origin::Stored { path, given, version } => {
            let origin = Origin::Stored { path: path.display().to_string() };
            (origin, Some(given.clone()), version.clone())
        }
    };
    Configured {
        name: integration.name.clone(),
        origin,
        standing: Standing::InForce,
        key: KeyState::Set,
        settings: integration.settings(),
        given,
        version,
        faults: Vec::new(),
    }
}
