//! PURE. Events tried out, one after the other: what each becomes, with the identities that those before it have brought.

use std::collections::HashMap;

use serde::de::IgnoredAny;

use super::told::Told;
use super::{Identity, IdentityKey, Rules, identity_change, identity_keys, map};
use crate::event::object::merge;
use crate::event::{Event, Timestamp};

/// What is known while events are tried out.
#[derive(Debug, Default)]
pub struct Trial {
    /// Traits, by the key of the identity.
    pub identities: HashMap<String, Vec<u8>>,
}

impl Trial {
    /// What `event` becomes by the rules of the integration `name`.
    pub fn tell(
        &self,
        event: &Event<'_>,
        name: &str,
        rules: &Rules,
        now: Timestamp,
        fresh_id: impl FnOnce() -> String,
    ) -> Told {
        let (user, anonymous) = identity_keys(event);
        let stored =
            |key: Option<IdentityKey<'_>>| self.identities.get(&key?.stored()).map(Vec::as_slice);
        let identity = Identity { user: stored(user), anonymous: stored(anonymous) };
        let outcome = map(event, &identity, rules, fresh_id);
        Told::mapped(event, name, rules, outcome, now)
    }

    /// Keeps what `event` says of its person for those after it.
    pub fn learn(&mut self, event: &Event<'_>) {
        for (key, traits) in identity_change(event) {
            let key = key.stored();
            let merged = merge(self.identities.get(&key).map(Vec::as_slice), &traits);
            self.identities.insert(key, merged);
        }
    }
}

/// A document as a body of many events, and whether it was one: an array or a batch. One event becomes an array of it.
#[must_use]
pub fn enveloped(text: &str) -> (String, bool) {
    #[derive(serde::Deserialize)]
    struct Envelope {
        #[serde(rename = "batch")]
        _batch: IgnoredAny,
    }
    let text = text.trim();
    if text.starts_with('[') || serde_json::from_str::<Envelope>(text).is_ok() {
        return (text.to_owned(), true);
    }
    (format!("[{text}]"), false)
}
