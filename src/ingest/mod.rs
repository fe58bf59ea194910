//! The producers' socket.

use std::time::Duration;

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
