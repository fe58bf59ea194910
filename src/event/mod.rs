//! PURE. What an event is: request bytes → events, one result per event.
//!
//! ```text
//! bytes ─▶ repair (UTF-8, depth, what real clients send wrong) ─▶ parse ─▶ Event, borrowing the body
//! ```
//! Values are never interpreted further than the mapping needs: an [`object::Object`] holds their bytes.

pub mod object;
pub mod parse;
pub mod repair;
pub mod time;

use serde::{Deserialize, Serialize};

/// The six calls of the Segment specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Someone did something.
    Track,
    /// Someone saw a page.
    Page,
    /// Who someone is.
    Identify,
    /// What someone belongs to.
    Group,
    /// Two ids are one person.
    Alias,
    /// Someone saw a screen of an app.
    Screen,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 6] =
        [Kind::Track, Kind::Page, Kind::Identify, Kind::Group, Kind::Alias, Kind::Screen];

    /// As `type` says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::Track => "track",
            Kind::Page => "page",
            Kind::Identify => "identify",
            Kind::Group => "group",
            Kind::Alias => "alias",
            Kind::Screen => "screen",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}
