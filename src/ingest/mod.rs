//! The producers' sockets: bounded requests in, answers out.
//!
//! ```text
//! socket ──connection──▶ service ──body──▶ intake ──▶ event::parse ─▶ mapping ─▶ Spool::append
//!                           ▲                                                       │
//!                           └──────── answer, only after the commit ◀───────────────┘
//! ```
//!
//! - Promise 1: a 200 is written only after what `Spool::append` returns has resolved, which means a flush.
//! - Promise 2: everything that can refuse a request does so before the append; the append is whole or nothing.
//! - A Unix socket admits whom its mode admits; TCP asks for a write key. No page that a browser shows may hand over events:
//!   what says that it comes from another origin is refused.
//! - Promise 7: connections, the bytes of a body, the bytes of all bodies together, and the time in which a header
//!   or a body must arrive have limits. At the connection limit further ones wait in the socket's backlog.

mod answer;
mod counters;
mod draft;
mod drafted;
mod encoding;
mod intake;
mod producers;
pub(crate) mod push;
mod routes;
mod service;
mod tally;
mod write_key;

use std::time::Duration;

pub use self::answer::{Fate, Outcome, Refusal, Taken};
pub use self::counters::{Counters, Counts};
pub use self::drafted::Drafted;
pub use self::intake::{Intake, Integration, ReplayError};
pub use self::producers::Producers;
pub(crate) use self::push::read as read_push;
pub use self::service::{Service, serve, serve_network};
pub use self::tally::Tallied;
pub use self::write_key::WriteKeys;

/// What one request and one connection may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A request's body, inflated.
    pub request_bytes_max: usize,
    /// Open connections.
    pub connections_max: usize,
    /// For a header or a body to arrive.
    pub read_timeout: Duration,
}
