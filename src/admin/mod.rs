//! The operators' socket: what the daemon knows, and what an operator may do. HTTP/1.1 and JSON over a Unix socket of
//! mode 0600; the commands use nothing else.
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
//! | `POST /v1/erase` | [`protocol::Who`], as `{"email":…}` or `{"user":…}` → [`protocol::Erased`]: the person is removed from identities, queue and quarantine |
//! | `POST /v1/integrations/NAME/drop-queue` | removes what is queued for an integration that is no longer configured → [`protocol::Dropped`] |
//!
//! Bounded (Promise 7): connections, bodies, the time in which a request must arrive, and the bytes of a page.

#[cfg(test)]
mod tests;

mod control;
mod edited;
mod erase;
mod events;
mod filter;
mod import;
pub mod protocol;
mod release;
mod service;
mod socket;

pub use self::control::{ControlError, paused};
pub use self::release::EditError;
pub use self::service::{Delivered, DropError, Lane, ReloadRequest, Service};
pub use self::socket::serve;
