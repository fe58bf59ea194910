//! Pillarbox: a durable store-and-forward daemon for edge hosts.
//!
//! Applications on the host hand it events over a Unix socket; it answers only once the event is on
//! stable storage; it delivers the events, in order, to Ometria's Data API, for as long as that takes.
//!
//! ```text
//!  producer ──HTTP over Unix socket──▶ ingest ──event──▶ mapping ──records──▶ Spool::append ──┐
//!    ▲                                                                                       │ commit: chunks in,
//!    └────────── 200 only after the commit ◀─────────────────────────────────────────────────┤ one flush that is
//!                                                                                            ▼ a true fdatasync
//!  Ometria ◀──POST /v2/push, ≤ 100── forward ◀── Spool::peek(lane) ─────────────────────── spool
//!     └── answer ──▶ verdict ──▶ settle │ split │ quarantine │ wait and retry
//! ```
//!
//! # Promises
//!
//! Code that upholds one and tests that prove one cite it by number (`// Promise 2`).
//!
//! 1. **A 2xx means durable**, through `kill -9` and through a power cut.
//! 2. **A non-2xx means that nothing of the request was stored.** Never half a request.
//! 3. **In order.** Within a lane records are delivered in the order in which they were committed.
//! 4. **At least once on the wire, once in effect.** A record keeps one id for ever.
//! 5. **Only 202 acknowledges.**
//! 6. **Nothing is dropped silently.** Each accepted event has an end, each end a counter, the sums agree.
//! 7. **Bounded.** Memory, connections, body sizes, disk use and queue length have limits.
//! 8. **Private.** The API key never reaches a log, an error or a URL; TLS is always verified.
//!
//! # The modules, in the order data meets them
//!
//! | module | kind | owns |
//! |---|---|---|
//! | [`ingest`] | shell | the producers' socket: bounded requests in, answers out |
//! | [`socket`] | shell | Unix sockets: binding, connections and their limits, draining |
//! | `write_limit` | shell | a stream whose peer must go on reading |
//! | [`event`] | pure | what an event is: bytes → events, one result per event |
//! | [`mapping`] | pure | what an event becomes: event + identity + rules → record bytes |
//! | [`draft`] | pure | an integration as somebody writes it: settings in order, not checked |
//! | [`spool`] | shell | everything on disk; names sled nowhere outside itself |
//! | [`forward`] | shell around pure parts | spool → Ometria: batch, push, verdict, retry, isolation |
//! | [`admin`] | shell | what an operator asks for, over a socket of mode 0600 and in the web console |
//! | [`advice`] | pure | what an operator is told to do |
//! | [`config`] | | file + environment + overrides → one checked [`config::Config`] |
//! | [`daemon`] | | the wiring: start-up, signals, shutdown order, what systemd is told |
//! | [`cli`] | | the commands |
//! | [`histogram`] | | how long things take, counted as plain atomics |
//! | `readable` | pure | numbers, ages and JSON as people read them |
//! | [`simulator`] | | the stand-in for Ometria |
//! | `fresh_id` | | the ids that Pillarbox makes |
//! | `file` | shell | small files that are replaced whole |
//! | `kill_point`, `fuzzing` | | test instruments: empty in release builds, absent from them |

pub mod admin;
pub mod advice;
pub mod cli;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod draft;
pub mod event;
mod file;
pub mod forward;
mod fresh_id;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod histogram;
pub mod ingest;
mod kill_point;
pub mod mapping;
mod readable;
pub mod simulator;
pub mod socket;
pub mod spool;
mod write_limit;

/// Buffers of many sizes come and go with every request; this allocator keeps their pages at hand.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
