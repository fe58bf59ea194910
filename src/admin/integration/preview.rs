//! What events become, by a draft or by an integration that is delivered. Nothing is stored.

use std::collections::BTreeSet;

use super::protocol::{PreviewAsked, Previewed};
use super::{IntegrationError, Purpose};
use crate::admin::service::Service;
use crate::clock;
use crate::event::{BatchItem, DEPTH_MAX, Timestamp, batch, repair};
use crate::fresh_id::fresh_id;
use crate::mapping::told::Told;
use crate::mapping::trial::{Trial, enveloped};
use crate::mapping::{IdentityKey, identity_keys};

/// Events in one preview.
const EVENTS_MAX: usize = 100;

impl Service {
    /// What events become. Identities that the daemon knows count; what an `identify` among them brings counts for those after
    /// it.
    ///
    /// # Errors
    /// [`IntegrationError`]: the draft has faults, or what was asked makes no sense. What is wrong with an event is told of it.
    /// # Cancel safety
    /// Nothing is changed.
    pub async fn preview(&self, asked: PreviewAsked) -> Result<Previewed, IntegrationError> {
        let PreviewAsked { draft, integration, events } = asked;
        let is_draft = draft.is_some();
        let candidate = self.candidate(draft, integration, Purpose::Mapping).await?;
        let now = clock::now();
        let text = match repair(events.get().as_bytes(), DEPTH_MAX) {
            Ok(text) => enveloped(&text).0,
            Err(error) => return Ok(invalid(&error)),
        };
        let mut items = match batch(&text, now) {
            Ok(items) => items,
            Err(error) => return Ok(invalid(&error)),
        };
        if items.len() > EVENTS_MAX {
            let message = format!("a preview shows at most {EVENTS_MAX} events");
            return Err(IntegrationError::Invalid(message));
        }
        let items: Vec<BatchItem<'_>> = items.take();
        let mut trial = self.known_to(&items).await?;
        let mut told = Vec::new();
        for item in &items {
            let event = match &item.event {
                Ok(event) => event,
                Err(error) => {
                    told.push(Told::invalid(error.to_string()));
                    continue;
                }
            };
            let fresh_id = || fresh_id(now);
            let (name, rules) = (&candidate.name, &candidate.rules);
            let mut one = trial.tell(event, name, rules, Timestamp::from_clock(now), fresh_id);
            if is_draft {
                // It stands in no file yet.
                one.rule_line = None;
            }
            told.push(one);
            trial.learn(event);
        }
        Ok(Previewed { events: told })
    }

    /// A trial that knows what the daemon knows of the people in `items`.
    pub(super) async fn known_to(
        &self,
        items: &[BatchItem<'_>],
    ) -> Result<Trial, IntegrationError> {
        let events = items.iter().filter_map(|item| item.event.as_ref().ok());
        let keys: BTreeSet<IdentityKey<'_>> = events
            .flat_map(|event| {
                let (user, anonymous) = identity_keys(event);
                user.into_iter().chain(anonymous)
            })
            .collect();
        let keys: Vec<String> = keys.into_iter().map(IdentityKey::stored).collect();
        if keys.is_empty() {
            return Ok(Trial::default());
        }
        let stored = self.spool().identities(keys.clone()).await;
        let stored = stored.map_err(|error| IntegrationError::Storage(error.to_string()))?;
        let known = keys.into_iter().zip(stored);
        let identities = known.filter_map(|(key, traits)| Some((key, traits?.to_vec()))).collect();
        Ok(Trial { identities })
    }
}

fn invalid(error: &dyn std::fmt::Display) -> Previewed {
    Previewed { events: vec![Told::invalid(error.to_string())] }
}
