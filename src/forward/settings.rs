//! How one integration is delivered.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::{RetryPolicy, SharedPace, Way};

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
    /// The pace that all lanes of the integration keep together.
    pub pace: SharedPace,
    /// How the endpoint is reached and trusted.
    pub way: Way,
    /// Categories of consent: a record whose person denies one of them by now is withheld.
    pub consent: Vec<String>,
    /// How often the ledger of what was rejected after its 202 is read; zero: never.
    pub poll_errors: Duration,
}

/// Whether a running forwarder need not change. Compares the keys, and shows neither.
impl PartialEq for Settings {
    fn eq(&self, other: &Settings) -> bool {
        // Without `..`: a new field must be thought of here.
        let Settings {
            integration,
            endpoint,
            api_key,
            batch_records_max,
            linger,
            timeout,
            retry,
            storm_limit,
            pace,
            way,
            consent,
            poll_errors,
        } = self;
        *integration == other.integration
            && *endpoint == other.endpoint
            && api_key.expose_secret() == other.api_key.expose_secret()
            && *batch_records_max == other.batch_records_max
            && *linger == other.linger
            && *timeout == other.timeout
            && *retry == other.retry
            && *storm_limit == other.storm_limit
            && *way == other.way
            && *consent == other.consent
            && *poll_errors == other.poll_errors
            && pace.pushes_per_second_max().total_cmp(&other.pace.pushes_per_second_max()).is_eq()
    }
}
