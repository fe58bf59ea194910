//! PURE. What is said about integrations: as they are configured, as drafts, tried out.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::admin::protocol::Reloaded;
use crate::draft::Draft;
use crate::mapping::told::Told;

/// Every integration that is known of, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Integrations {
    /// Those in force, then those that are set aside.
    pub integrations: Vec<Configured>,
}

/// One integration as it is configured. How it fares is told by the status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configured {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub origin: Origin,
    /// Whether it is delivered.
    pub standing: Standing,
    /// All that there is to say of its API key.
    pub key: KeyState,
    /// Every setting in force, defaults included, but the API key; a proxy without its user and password. Empty when it is
    /// broken.
    pub settings: Draft,
    /// Of a stored one, what its file says: what an editor begins with. Without the API key, which is kept when a draft has
    /// none; a proxy's user and password read `***`, and are kept when a draft has them so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<Draft>,
    /// Of a stored one, which content of its file this tells: a `PUT` with `If-Match` replaces no other.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// What is wrong with its file, when it is broken; why it is overruled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<DraftFault>,
}

impl Configured {
    /// Why it is not in force and what to do, in a sentence; `None` when it is.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let (name, path) = (&self.name, self.origin.path());
        match self.standing {
            Standing::InForce => None,
            Standing::Overruled => Some(format!(
                "{name}: the stored integration is overruled by that of the configuration file: remove one of them \
                 (`pillarbox integration remove {name}` removes the stored one)"
            )),
            Standing::Broken => {
                let faults: Vec<String> = self.faults.iter().map(ToString::to_string).collect();
                if name.is_empty() {
                    return Some(format!(
                        "the folder {path} cannot be read, and those that ran go on with what they ran with before: see to it and reload: {}",
                        faults.join("; ")
                    ));
                }
                let fate = if self.settings.is_empty() {
                    "it is not delivered"
                } else {
                    "it goes on with what it ran with before"
                };
                Some(format!(
                    "{name}: its stored file {path} has faults, and {fate}: mend the file and reload, or save it anew: {}",
                    faults.join("; ")
                ))
            }
        }
    }
}

/// Where an integration stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum Origin {
    /// In the configuration file, which only an editor changes.
    File {
        /// The file.
        path: String,
    },
    /// In `state_dir/integrations`: `PUT` and `DELETE` change it.
    Stored {
        /// The file.
        path: String,
    },
}

impl Origin {
    /// Its file.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Origin::File { path } | Origin::Stored { path } => path,
        }
    }

    /// Whether it can be changed and removed at run time.
    #[must_use]
    pub fn is_stored(&self) -> bool {
        matches!(self, Origin::Stored { .. })
    }
}

/// Whether an integration is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It is.
    InForce,
    /// Stored, but the configuration file has one of its name, which wins.
    Overruled,
    /// Stored, and its file is at fault: it is not delivered, or, where it ran before, as it was then.
    Broken,
}

/// All that is ever told of an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// There is one.
    Set,
    /// There is none.
    NotSet,
}

/// A fault of a draft, or of a stored file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DraftFault {
    /// The setting, such as `retry.initial` or `events."Product Viewed".properties.net_price`; empty when it is none in
    /// particular. Of a stored file: its path, line and column.
    pub path: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for DraftFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DraftFault { path, message } = self;
        // Most messages begin with the setting.
        if path.is_empty() || message.starts_with(&format!("`{path}`")) {
            return formatter.write_str(message);
        }
        write!(formatter, "{path}: {message}")
    }
}

/// What storing an integration came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Its name.
    pub integration: String,
    /// Whether none of this name was stored before.
    pub created: bool,
    /// What has changed in what is delivered.
    pub reloaded: Reloaded,
}

/// Asks what events become. Either a draft or the name of an integration, whose rules are used.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreviewAsked {
    /// A draft; it needs neither name nor key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft: Option<Draft>,
    /// An integration that is delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integration: Option<String>,
    /// One event, an array of events, or a batch.
    pub events: Box<RawValue>,
}

/// What events become, one for each, in order. Nothing is stored. Identities that the daemon knows are used, and what an
/// `identify` among the events brings counts for those after it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Previewed {
    /// Told as `pillarbox map --json` tells them.
    pub events: Vec<Told>,
}

/// Asks for a test delivery. Either a draft or the name of an integration.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestAsked {
    /// A draft. Without `api_key` that of the stored integration of its `name` is used, if the draft leads where that does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draft: Option<Draft>,
    /// An integration that is delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integration: Option<String>,
    /// One event; without one, an example that nobody's address stands in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Box<RawValue>>,
}

/// What a test delivery came to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tested {
    /// See [`TestOutcome`].
    pub outcome: TestOutcome,
    /// In one sentence, and what to do, after Ometria's own troubleshooting.
    pub message: String,
    /// More that is worth knowing or doing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advice: Vec<String>,
    /// What the event became.
    pub mapped: Told,
    /// Where the push went.
    pub endpoint: String,
    /// The record's id at Ometria: `test_` and a UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_id: Option<String>,
    /// The answer's status; `None` when nothing was sent, or no answer came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Ometria's id of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The answer's body, as far as it is kept.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub answer: String,
    /// How long the push took.
    #[serde(default)]
    pub milliseconds: u64,
}

/// What a test delivery came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestOutcome {
    /// 202, and nothing rejected: Ometria has the record.
    Delivered,
    /// 202, and the record rejected all the same.
    AcceptedAndRejected,
    /// The record is refused.
    Rejected,
    /// The key is refused.
    Unauthorized,
    /// The endpoint is wrong.
    WrongEndpoint,
    /// It may pass: no answer, or one that says later.
    Unreachable,
    /// The mapping makes no record of the event: nothing was sent.
    NotSent,
}
