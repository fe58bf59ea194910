//! A test delivery: one real push of one record, through the client of the forwarders and never through the spool.
//!
//! - Its record has a fresh id, `test_` and a UUID: it is merged with nothing that was or will be delivered.
//! - One at a time, each bounded by the integration's `timeout`; never tried again.

use std::collections::BTreeMap;

use bytes::Bytes;
use uuid::Uuid;

use super::advice::{judged, not_sent};
use super::protocol::{TestAsked, TestOutcome, Tested};
use super::{Candidate, IntegrationError, Purpose};
use crate::admin::service::Service;
use crate::clock;
use crate::event::{BatchItem, DEPTH_MAX, Timestamp, batch, repair};
use crate::forward::verdict::Attempt;
use crate::forward::{HttpUpstream, Upstream as _};
use crate::mapping::told::Told;

impl Service {
    /// Sends one record to where the draft or the integration leads, and tells what came of it.
    ///
    /// # Errors
    /// [`IntegrationError`]: the draft has faults, what was asked makes no sense, or another test is under way. What the push ran
    /// into is no error.
    /// # Cancel safety
    /// The record may have arrived.
    pub async fn test_delivery(&self, asked: TestAsked) -> Result<Tested, IntegrationError> {
        let _alone = self.testing.try_lock().map_err(|_| IntegrationError::Busy)?;
        let TestAsked { draft, integration, event } = asked;
        let candidate = self.candidate(draft, integration, Purpose::Push).await?;
        let endpoint = candidate.settings.endpoint.to_string();
        let record_id = format!("test_{}", Uuid::now_v7().simple());
        let event = event.map_or_else(|| example(&candidate), |event| event.get().to_owned());
        let mapped = self.mapped(&candidate, &event, &record_id).await?;
        let unsent = Tested {
            outcome: TestOutcome::NotSent,
            message: String::new(),
            advice: Vec::new(),
            mapped,
            endpoint,
            record_id: None,
            status: None,
            request_id: None,
            answer: String::new(),
            milliseconds: 0,
        };
        let Some(record) = &unsent.mapped.record else {
            return Ok(Tested { message: not_sent(&unsent.mapped), ..unsent });
        };
        let upstream = HttpUpstream::new(&candidate.settings, None)
            .map_err(|error| IntegrationError::Invalid(format!("{error:#}")))?;
        let body = Bytes::from(format!("[{}]", record.get()));
        let (sent_at, bytes) = (clock::now(), body.len());
        let outcome = upstream.push(body).await;
        let answered_at = clock::now();
        let attempt = Attempt {
            number: 1,
            records: 1,
            apart: Vec::new(),
            bytes,
            sent_at,
            answered_at,
            outcome,
        };
        let judged = judged(&attempt, &unsent.mapped);
        let milliseconds = u64::try_from(sent_at.age(answered_at).as_millis()).unwrap_or(u64::MAX);
        let (name, status) = (&candidate.name, attempt.status());
        tracing::info!(integration = name, status, outcome = ?judged.outcome, "an operator has made a test delivery");
        Ok(Tested {
            outcome: judged.outcome,
            message: judged.message,
            advice: judged.advice,
            record_id: Some(record_id),
            status,
            request_id: judged.request_id,
            answer: attempt.text(),
            milliseconds,
            ..unsent
        })
    }

    /// What the one event becomes, as a record of the id `record_id`.
    async fn mapped(
        &self,
        candidate: &Candidate,
        event: &str,
        record_id: &str,
    ) -> Result<Told, IntegrationError> {
        let now = clock::now();
        let text = match repair(event.as_bytes(), DEPTH_MAX) {
            Ok(text) => format!("[{}]", text.trim()),
            Err(error) => return Ok(Told::invalid(error.to_string())),
        };
        let mut items = match batch(&text, now) {
            Ok(items) => items,
            Err(error) => return Ok(Told::invalid(error.to_string())),
        };
        let mut items: Vec<BatchItem<'_>> = items.take();
        let trial = self.known_to(&items).await?;
        let [item] = items.as_mut_slice() else {
            return Err(IntegrationError::Invalid("a test delivery takes one event".to_owned()));
        };
        let event = match &mut item.event {
            Ok(event) => event,
            Err(error) => return Ok(Told::invalid(error.to_string())),
        };
        event.message_id = None;
        let Candidate { name, rules, .. } = candidate;
        let now = Timestamp::from_clock(now);
        Ok(trial.tell(event, name, rules, now, || record_id.to_owned()))
    }
}

/// A track that every preset sends, about nobody: with the consent that the integration asks for.
fn example(candidate: &Candidate) -> String {
    let consent = candidate.rules.consent.iter().map(|category| (category.as_str(), true));
    let consent: BTreeMap<&str, bool> = consent.collect();
    let consent = serde_json::to_string(&consent).expect("texts always encode");
    format!(
        r#"{{"type":"track","event":"Product Viewed","properties":{{"product_id":"PILLARBOX-TEST","name":"Test delivery of Pillarbox","price":1.00,"currency":"GBP"}},"context":{{"consent":{consent}}}}}"#
    )
}
