//! Why a body, or one event of it, was not read.

/// Why a whole body is refused: nothing of it is stored (Promise 2).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Not UTF-8, not JSON, or nested too deeply. Says where, as "… at line 1 column 17".
    #[error("{0}")]
    InvalidJson(String),
    /// JSON, but no event.
    #[error(transparent)]
    InvalidEvent(#[from] EventError),
}

impl BodyError {
    /// The `code` of the answer.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            BodyError::InvalidJson(_) => "invalid_json",
            BodyError::InvalidEvent(_) => EventError::CODE,
        }
    }
}

/// Why valid JSON is no event, or no batch of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// A batch without its array.
    #[error("a batch must be an array of events, or an object whose batch is one")]
    NotABatch,
    /// An event that is a number, a string, an array …
    #[error("an event must be a JSON object")]
    NotAnObject,
    /// A batch item that does not say what it is.
    #[error("type is missing: it must be track, page, identify, group, alias or screen")]
    TypeMissing,
    /// A batch item of another type.
    #[error("type must be track, page, identify, group, alias or screen, in lower case")]
    TypeUnknown,
    /// A field that holds something else than it must.
    #[error("{field} must be {wanted}")]
    WrongType {
        /// The field, as it is written in an event.
        field: &'static str,
        /// What it may hold, with its article.
        wanted: &'static str,
    },
    /// A track that does not say what happened.
    #[error("event is missing: a track must name its event")]
    EventNameMissing,
    /// An id longer than it may be.
    #[error("{field} must have at most {limit} bytes")]
    IdTooLong {
        /// The field.
        field: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A timestamp that cannot be read.
    #[error("{field} is not a time: it must be RFC 3339 text, as 2026-06-06T15:32:52Z")]
    NotATime {
        /// The field.
        field: &'static str,
    },
    /// An identify that names nobody.
    #[error("identify needs a userId or an anonymousId")]
    NobodyIdentified,
}

impl EventError {
    /// The `code` of the answer, and the reason in the quarantine.
    pub const CODE: &'static str = "invalid_event";
}
