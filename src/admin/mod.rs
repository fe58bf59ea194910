//! The operators' socket: what the daemon knows, and what an operator may do. HTTP/1.1 and JSON over a Unix socket of
//! mode 0600; the commands use nothing else.
//!
//! | route | does |
//! |---|---|
//! | `GET /v1/status` | [`protocol::Status`] |
//! | `GET /v1/quarantine?from=ID&limit=N[&bodies]` | entries from `ID` on, oldest first: a list of [`protocol::QuarantineEntry`] |
//! | `POST /v1/quarantine/retry` | [`protocol::Selection`] → [`protocol::Released`]: to the end of their lanes, with their old ids |
//! | `POST /v1/quarantine/drop` | [`protocol::Selection`] → [`protocol::Released`]: removed for good |

pub mod protocol;
mod service;
mod socket;

pub use self::service::{Delivered, Service};
pub use self::socket::serve;
