//! PURE. What a producer is told: the bodies of DESIGN.md section 4.

use std::time::Duration;

use hyper::StatusCode;
use serde::Serialize;

use crate::spool::{AppendError, ReadError};

/// How an event of a request ended at ingest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// On stable storage (or applied to its identity).
    Accepted,
    /// Valid, and sent on by no mapping.
    Dropped,
    /// Its message id was seen within the dedupe window.
    Duplicate,
    /// Set aside with its reason.
    Quarantined,
}

/// An event that was not accepted, as `items` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Its place in the request, from 0.
    pub index: usize,
    /// How it ended.
    pub outcome: Fate,
    /// A short code.
    pub reason: String,
    /// What is wrong with it, for an event in the quarantine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The body of a 200.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Taken {
    success: bool,
    /// Events accepted.
    pub accepted: u64,
    /// Events dropped.
    pub dropped: u64,
    /// Events seen before.
    pub duplicate: u64,
    /// Events set aside.
    pub quarantined: u64,
    /// Those that were not accepted.
    pub items: Vec<Outcome>,
    /// For each record whose `event_type` Ometria cuts, its integration: counted, and no matter of the producer's.
    #[serde(skip)]
    pub truncated: Vec<String>,
}

impl Taken {
    /// The answer to a request without events.
    #[must_use]
    pub fn new() -> Taken {
        Taken { success: true, ..Taken::default() }
    }

    /// Counts an accepted event.
    pub fn accept(&mut self) {
        self.accepted += 1;
    }

    /// Counts and lists an event that was not accepted.
    pub fn add(&mut self, outcome: Outcome) {
        *match outcome.outcome {
            Fate::Accepted => &mut self.accepted,
            Fate::Dropped => &mut self.dropped,
            Fate::Duplicate => &mut self.duplicate,
            Fate::Quarantined => &mut self.quarantined,
        } += 1;
        self.items.push(outcome);
    }
}

/// Why nothing of a request was stored (Promise 2).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// One of the codes of the contract.
    pub code: &'static str,
    /// What is wrong and where.
    pub message: String,
}

#[derive(Serialize)]
struct RefusalBody<'a> {
    code: &'a str,
    message: &'a str,
}

impl Refusal {
    /// A refusal.
    pub fn new(code: &'static str, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into() }
    }

    /// The status that goes with the code.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self.code {
            "unauthorized" => StatusCode::UNAUTHORIZED,
            "cross_origin" | "forbidden" => StatusCode::FORBIDDEN,
            "not_found" => StatusCode::NOT_FOUND,
            "method_not_allowed" => StatusCode::METHOD_NOT_ALLOWED,
            "timeout" => StatusCode::REQUEST_TIMEOUT,
            "too_large" => StatusCode::PAYLOAD_TOO_LARGE,
            "unsupported_encoding" => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "spool_full" | "disk_low" | "no_integration" | "storage_failed" | "shutting_down" => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// After what time a producer may try again: for every 503.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self.code {
            "spool_full" | "disk_low" | "no_integration" => Some(Duration::from_secs(30)),
            "storage_failed" | "shutting_down" => Some(Duration::from_secs(5)),
            _ => None,
        }
    }

    /// Whether the connection must be closed: what is left of the request cannot be told from the next, or whoever asks has
    /// no business here and is not to hold a place.
    #[must_use]
    pub fn closes(&self) -> bool {
        matches!(
            self.code,
            "too_large"
                | "timeout"
                | "unauthorized"
                | "cross_origin"
                | "forbidden"
                | "shutting_down"
                | "storage_failed"
        )
    }

    /// The JSON body.
    #[must_use]
    pub(super) fn body(&self) -> Vec<u8> {
        let body = RefusalBody { code: self.code, message: &self.message };
        serde_json::to_vec(&body).expect("text always encodes")
    }
}

impl From<AppendError> for Refusal {
    fn from(error: AppendError) -> Refusal {
        let code = match &error {
            AppendError::Full { .. } => "spool_full",
            AppendError::DiskLow { .. } | AppendError::DiskFull(_) => "disk_low",
            AppendError::Failed(_) | AppendError::Gone(_) => "storage_failed",
            AppendError::Closed => "shutting_down",
        };
        Refusal::new(code, error.to_string())
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Refusal {
        Refusal::new("storage_failed", error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_status_and_every_503_a_time() {
        for (code, status) in [
            ("invalid_json", 400),
            ("invalid_event", 400),
            ("too_large", 413),
            ("unsupported_encoding", 415),
            ("not_found", 404),
            ("method_not_allowed", 405),
            ("timeout", 408),
            ("unauthorized", 401),
            ("cross_origin", 403),
            ("forbidden", 403),
            ("spool_full", 503),
            ("disk_low", 503),
            ("storage_failed", 503),
            ("shutting_down", 503),
        ] {
            let refusal = Refusal::new(code, "why");
            assert_eq!(refusal.status().as_u16(), status, "{code}");
            assert_eq!(refusal.retry_after().is_some(), status == 503, "{code}");
        }
    }

    #[test]
    fn the_bodies_are_those_of_the_contract() {
        let mut taken = Taken::new();
        taken.accept();
        taken.add(Outcome {
            index: 3,
            outcome: Fate::Dropped,
            reason: "no_mapping".into(),
            message: None,
        });
        assert_eq!(
            serde_json::to_string(&taken).unwrap(),
            r#"{"success":true,"accepted":1,"dropped":1,"duplicate":0,"quarantined":0,"items":[{"index":3,"outcome":"dropped","reason":"no_mapping"}]}"#
        );
        let refusal = Refusal::new("invalid_json", "expected value at line 1 column 17");
        assert_eq!(
            refusal.body(),
            br#"{"code":"invalid_json","message":"expected value at line 1 column 17"}"#
        );
    }
}
