//! PURE. What an event becomes: event + identity + rules → record bytes.
