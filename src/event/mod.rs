//! PURE. What an event is: request bytes → events, one result per event.
//!
//! ```text
//!  body bytes ──repair──▶ text ──single / batch──▶ Event, or EventError, one for each event
//! ```
//!
//! An [`Event`] borrows from the text it was read from. What it carries (properties, traits, context) stays
//! raw JSON in [`object::Object`]s, so that a value leaves byte for byte as it came.
//!
//! - Nothing in a body can panic, and the work is linear in its size (n log n where an object is very wide).
//! - `null` reads as absent wherever something is looked up, and passes through as a property's value.
//! - No error quotes what a body holds: it names fields and places only (Promise 8).

pub mod batch;
pub mod context;
pub mod error;
pub mod object;
pub mod parse;
mod part;
pub mod repair;
pub mod time;
pub mod value;

#[cfg(test)]
pub(crate) mod testing;

pub use batch::{Batch, BatchItem, batch};
pub use context::Context;
pub use error::{BodyError, EventError};
pub use object::Object;
pub use parse::{Event, Kind, single};
pub use repair::{DEPTH_MAX, repair};
pub use time::Timestamp;
