//! PURE. What an event becomes: event + identity + rules → record bytes.

/// Which events become which records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Preset {
    /// The eight events of a shop's journey; everything else is dropped.
    #[default]
    Retail,
    /// Every `track` and `page`.
    Default,
}
