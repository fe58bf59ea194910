//! PURE. Which entries of the quarantine are meant: by integration, reason, type, person, time and answer.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::UnixMillis;
use crate::forward::verdict::record_id;
use crate::spool::{Origin, Quarantined};

/// Entries of the quarantine. What is not given does not matter; several things must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QuarantineFilter {
    /// Of this integration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub integration: Option<String>,
    /// With this reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// With this `event_type` or `@type`; of an event, with this name or type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    /// About this e-mail address, without regard to case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Set aside at this time or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<UnixMillis>,
    /// Set aside before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixMillis>,
    /// Refused with this status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

impl QuarantineFilter {
    /// Whether every entry is meant.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == QuarantineFilter::default()
    }

    /// Whether `entry` is meant.
    #[must_use]
    pub fn takes(&self, entry: &Quarantined) -> bool {
        let (integration, kind) = match &entry.origin {
            Origin::Record { integration, record_type, .. } => (Some(integration), record_type),
            Origin::Event { integration, kind } => (integration.as_ref(), kind),
        };
        let is = |wanted: &Option<String>, found: Option<&String>| {
            wanted.is_none() || wanted.as_ref() == found
        };
        let known = is(&self.integration, integration)
            && is(&self.reason, Some(&entry.reason))
            && self.since.is_none_or(|since| entry.at >= since)
            && self.until.is_none_or(|until| entry.at < until)
            && self.status.is_none_or(|status| entry.status == Some(status));
        // Only who asks for what is in the body has it read.
        known
            && (self.r#type.is_none() && self.email.is_none()
                || self.takes_body(kind, &serde_json::from_slice(&entry.body).unwrap_or_default()))
    }

    fn takes_body(&self, kind: &str, body: &Value) -> bool {
        let named = |path: &str| body.get(path).and_then(record_id);
        let is_type = self.r#type.as_ref().is_none_or(|wanted| {
            wanted == kind
                || ["event_type", "event", "name"]
                    .into_iter()
                    .any(|key| named(key).as_ref() == Some(wanted))
        });
        let wanted = self.email.as_deref().map(address);
        is_type && wanted.is_none_or(|wanted| emails(body).any(|email| Some(email) == wanted))
    }
}

/// The addresses that a record or an event names, as addresses are compared.
pub(super) fn emails(body: &Value) -> impl Iterator<Item = String> + '_ {
    let paths = [
        "/identity_email",
        "/email",
        "/context/traits/email",
        "/traits/email",
        "/properties/email",
    ];
    paths.into_iter().filter_map(|path| address(&record_id(body.pointer(path)?)?))
}

/// An e-mail address as addresses are compared; `None` when it is blank.
pub(super) fn address(email: &str) -> Option<String> {
    Some(email.trim().to_lowercase()).filter(|email| !email.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::{LaneId, PersonKeys, Seq};

    fn entry(origin: Origin, body: &str) -> Quarantined {
        Quarantined {
            origin,
            reason: "rejected".into(),
            detail: String::new(),
            status: Some(400),
            at: UnixMillis(100),
            body: body.into(),
            first_at: UnixMillis(7),
        }
    }

    #[test]
    fn everything_that_is_given_must_hold() {
        let record = entry(
            Origin::Record {
                lane: LaneId(1),
                integration: "uk".into(),
                seq: Seq(1),
                record_type: "custom_event".into(),
                person: PersonKeys::default(),
            },
            r#"{"event_type":"nap","identity_email":"Jane@x"}"#,
        );
        let event = entry(
            Origin::Event { kind: "track".into(), integration: None },
            r#"{"type":"track","event":"Nap Taken","traits":{"email":" jane@X "}}"#,
        );
        let broken = entry(Origin::Event { kind: String::new(), integration: None }, "{nap");
        let read = |text: &str| serde_json::from_str::<QuarantineFilter>(text).unwrap();
        for (filter, of_record, of_event, of_broken) in [
            ("{}", true, true, true),
            (r#"{"integration":"uk"}"#, true, false, false),
            (r#"{"integration":"fr"}"#, false, false, false),
            (r#"{"reason":"rejected","status":400}"#, true, true, true),
            (r#"{"reason":"too_large"}"#, false, false, false),
            (r#"{"status":413}"#, false, false, false),
            (r#"{"type":"nap"}"#, true, false, false),
            (r#"{"type":"custom_event"}"#, true, false, false),
            (r#"{"type":"Nap Taken"}"#, false, true, false),
            (r#"{"type":"track"}"#, false, true, false),
            (r#"{"email":"JANE@x"}"#, true, true, false),
            (r#"{"email":"jane@x","type":"nap"}"#, true, false, false),
            (r#"{"email":"bob@x"}"#, false, false, false),
            (r#"{"email":" "}"#, false, false, false),
            (r#"{"since":100}"#, true, true, true),
            (r#"{"since":101}"#, false, false, false),
            (r#"{"until":101}"#, true, true, true),
            (r#"{"until":100}"#, false, false, false),
        ] {
            let filter_read = read(filter);
            let taken = [&record, &event, &broken].map(|entry| filter_read.takes(entry));
            assert_eq!(taken, [of_record, of_event, of_broken], "{filter}");
            assert_eq!(filter_read.is_empty(), filter == "{}");
        }
    }
}
