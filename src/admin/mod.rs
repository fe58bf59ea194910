//! What an operator may know and do: over the operators' socket, HTTP/1.1 and JSON over a Unix socket of mode 0600 (the
//! commands use nothing else), and in the web [`console`].
//!
//! | route | does |
//! |---|---|
//! | `GET /v1/status` | [`protocol::Status`] |
//! | `GET /v1/quarantine?from=ID&limit=N[&bodies]` | entries from `ID` on, oldest first: a list of [`protocol::QuarantineEntry`]; a page may be shorter than asked for, and is empty only at the end |
//! | `GET /v1/quarantine/ID` | one entry with its body, or 404 |
//! | `GET /v1/quarantine/export?from=ID&limit=N` | such a page with bodies, an entry a line (NDJSON); who wants all goes on after the last line's `id` until a page is empty |
//! | `POST /v1/quarantine/list`, `/v1/quarantine/export` | [`protocol::QuarantineQuery`]: the same, for entries that a filter takes |
//! | `POST /v1/quarantine/import` | lines of an export (NDJSON, at most 72 MiB) → [`protocol::Imported`]: entries with new ids |
//! | `POST /v1/quarantine/ID/retry` | [`protocol::EditedBody`] → [`protocol::Released`]: that entry, with another body under the same id |
//! | `POST /v1/quarantine/retry` | [`protocol::Selection`] → [`protocol::Released`]: to the end of their lanes, with their old ids |
//! | `POST /v1/quarantine/drop` | [`protocol::Selection`] → [`protocol::Released`]: removed for good |
//! | `POST /v1/pause`, `/v1/resume`, `/v1/retry-now` | `{}`, or `{"integration":NAME}` → the names of those that it is asked of; a pause outlasts a restart |
//! | `POST /v1/reload` | reads the configuration again → [`protocol::Reloaded`], or 409 with what is wrong |
//! | `POST /v1/events` | [`protocol::EventQuery`] → [`protocol::EventsFound`]: the event debugger |
//! | `GET /v1/metrics` | the figures for a monitoring system, as OpenMetrics text; as the older Prometheus text where `Accept` asks for that |
//! | `GET /v1/console` | [`protocol::ConsoleFound`]: how the web console is entered, or 404 |
//! | `POST /v1/erase` | [`protocol::Who`], as `{"email":…}` or `{"user":…}` → [`protocol::Erased`]: the person is removed from identities, queue and quarantine |
//! | `GET /v1/integrations`, `/v1/integrations/NAME` | [`integration::protocol::Integrations`], or one of them: where each stands and every setting but its key |
//! | `PUT /v1/integrations/NAME` | its settings as JSON, named as in the configuration file, `api_key` write-only → [`integration::protocol::Saved`]: stored in `state_dir/integrations`, durable, and delivered. 400 `invalid_integration` with all `faults`; 409 `in_the_file` where the configuration file has one of this name. With `If-Match: "VERSION"` (its `version`) or `If-None-Match: *` (it is new) 409 `changed_meanwhile` where that is not what is stored; with neither the last writer wins |
//! | `DELETE /v1/integrations/NAME` | removes a stored integration, not its queue → [`protocol::Reloaded`] |
//! | `POST /v1/preview` | [`integration::protocol::PreviewAsked`] → [`integration::protocol::Previewed`]: what events become, by a draft (without a key) or an integration; nothing is stored |
//! | `POST /v1/test-delivery` | [`integration::protocol::TestAsked`] → [`integration::protocol::Tested`]: one real push of one record with an id of its own, past the spool, and what its answer means; one at a time, within the integration's `timeout` |
//! | `POST /v1/integrations/NAME/drop-queue` | removes what is queued for an integration that is no longer configured → [`protocol::Dropped`] |
//!
//! Bounded (Promise 7): connections, bodies, the time in which a request must arrive, and the bytes of a page.

#[cfg(test)]
mod tests;

pub mod console;
mod control;
mod edited;
mod erase;
mod events;
mod filter;
mod import;
pub mod integration;
pub mod metrics;
pub mod protocol;
mod release;
mod service;
mod socket;

pub use self::control::{ControlError, paused};
pub use self::integration::{Ask, Candidate, Drafts, Expected, IntegrationError, Purpose};
pub use self::release::EntryError;
pub use self::service::{Delivered, DropError, Lane, Service};
pub use self::socket::serve;
