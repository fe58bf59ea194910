//! PURE. What an event becomes: event + identity + rules → record bytes.
//!
//! [`map`] runs once for each event and integration. It knows nothing of where identities are kept or
//! records go; ids that it must make come in as an argument.
//!
//! - A property's value leaves byte for byte as it came, in the order it came.
//! - No data vanishes silently: every event ends in exactly one [`Outcome`], and a property that cannot be
//!   renamed keeps its old name.
//! - One event, one identity and one set of rules always make the same bytes (Promise 4).

pub mod consent;
pub mod explain;
pub mod identity;
pub mod person;
pub mod preset;
pub mod record;
pub mod rules;
pub mod source;
pub mod table;

pub use identity::{
    Identity, IdentityKey, email, identity_change, identity_keys, too_large as traits_too_large,
};
pub use record::Record;
pub use rules::{RECORD_BYTES_MAX, Rule, Rules};
pub use table::Table;

use crate::event::{Event, Kind};

/// Which events become which records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preset {
    /// The eight events of a shop's journey; everything else is dropped.
    #[default]
    Retail,
    /// Every `track` and `page`.
    Default,
}

impl Preset {
    /// Its name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Preset::Retail => "retail",
            Preset::Default => "default",
        }
    }
}

/// What one event comes to in one integration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is sent on.
    Record(Record),
    /// It was an identify: accepted, and all of it is in [`identity_change`].
    Identity,
    /// It is valid, and by configuration not sent on.
    Dropped(DropReason),
    /// It is valid, and upstream would not take it: for the quarantine.
    Refused {
        /// A stable code: `too_large`.
        reason: &'static str,
        /// What an operator is told; holds no data of the event.
        detail: String,
    },
}

/// Why a valid event is not sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The rules send no such event.
    NoMapping,
    /// The event's table switches it off.
    Disabled,
    /// A category of consent that the integration asks for is not granted.
    Consent,
}

impl DropReason {
    /// The stable code in answers and counters.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            DropReason::NoMapping => "no_mapping",
            DropReason::Disabled => "disabled",
            DropReason::Consent => "consent",
        }
    }
}

/// Makes of `event` what `rules` say. `identity` is what is stored for the ids of the event, with all that
/// came before it merged; `fresh_id` gives the record's id when the event has none.
pub fn map(
    event: &Event<'_>,
    identity: &Identity<'_>,
    rules: &Rules,
    fresh_id: impl FnOnce() -> String,
) -> Outcome {
    if event.kind == Kind::Identify {
        return match identity::too_large(event) {
            Some(detail) => Outcome::Refused { reason: TOO_LARGE, detail },
            None => Outcome::Identity,
        };
    }
    let shape = match rules.shape(event) {
        Ok(shape) => shape,
        Err(reason) => return Outcome::Dropped(reason),
    };
    if !consent::granted(&event.context, &rules.consent) {
        return Outcome::Dropped(DropReason::Consent);
    }
    let record = record::write(event, &shape, identity, identity::email(event, identity), fresh_id);
    let (bytes, limit) = (record.bytes.len(), rules.record_bytes_max);
    if bytes > limit {
        let detail = format!("the record has {bytes} bytes, the limit is {limit}");
        return Outcome::Refused { reason: TOO_LARGE, detail };
    }
    Outcome::Record(record)
}

const TOO_LARGE: &str = "too_large";

#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod tests;
