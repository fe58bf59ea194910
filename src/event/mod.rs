//! PURE. What an event is: request bytes → events, one result per event.

pub mod object;
pub mod parse;
pub mod time;
