//! Spool → upstream.

use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::clock::UnixMillis;

/// Exponential backoff with full jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Upper bound of the first delay; doubles with each failure.
    pub initial: Duration,
    /// The largest upper bound.
    pub max: Duration,
}

/// How one integration is delivered; every value is checked by the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The integration's name.
    pub integration: String,
    /// Where pushes go: https, or http to a loopback address.
    pub endpoint: hyper::Uri,
    /// Sent as `X-Ometria-Auth`.
    pub api_key: SecretString,
    /// Records in a push, 1 to 100.
    pub batch_records_max: usize,
    /// How long an incomplete batch waits for more.
    pub linger: Duration,
    /// For one attempt, from connecting to the end of the answer.
    pub timeout: Duration,
    /// After what may pass.
    pub retry: RetryPolicy,
    /// Records quarantined in a row, without a delivery, that hold the integration.
    pub storm_limit: u64,
    /// 0: no fixed limit.
    pub pushes_per_second_max: f64,
}

/// What a lane's forwarder is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nothing is queued.
    #[default]
    Idle,
    /// Records are on their way.
    Pushing,
    /// A rejected push is being split to find the records at fault.
    Isolating,
    /// Waiting for the next attempt.
    Retrying,
    /// Held: upstream refuses the key.
    Unauthorized,
    /// Held: the endpoint is wrong, the records are not.
    Held,
    /// Held by the storm guard.
    Storm,
    /// The lane cannot be read.
    Damaged,
}

/// What an operator is told of a lane's forwarder.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// See [`State`].
    pub state: State,
    /// Why it is in that state, in words that say what to do; empty when all is well.
    pub cause: String,
    /// Failed attempts since the last 202.
    pub failures: u32,
    /// When the next attempt is due.
    pub next_try_at: Option<UnixMillis>,
    /// The status of the last answer.
    pub last_status: Option<u16>,
    /// When the last 202 arrived.
    pub last_delivery_at: Option<UnixMillis>,
    /// Pushes sent since the daemon started.
    pub pushes: u64,
    /// Of these, answered 202.
    pub pushes_delivered: u64,
    /// Of these, to be tried again.
    pub pushes_retried: u64,
    /// Records that upstream's 202s named as rejected.
    pub records_rejected: u64,
}
