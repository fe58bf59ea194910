//! PURE. What surrounds every page: the name, the way to the other pages, what has just been done.

use super::notices::Notice;
use crate::admin::protocol::Status;
use crate::readable::number;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Shell {
    pub(super) title: String,
    /// The page in the navigation.
    pub(super) here: &'static str,
    pub(super) quarantined: u64,
    pub(super) version: String,
    pub(super) notice: Option<Notice>,
}

impl Shell {
    pub(super) fn new(
        title: &str,
        here: &'static str,
        status: &Status,
        notice: Option<Notice>,
    ) -> Shell {
        Shell {
            title: title.to_owned(),
            here,
            quarantined: status.quarantined,
            version: status.version.clone(),
            notice,
        }
    }

    /// The quarantine's count as people read it.
    pub(super) fn quarantined_text(&self) -> String {
        number(self.quarantined)
    }

    /// What marks a link of the navigation as the page that is shown.
    pub(super) fn current(&self, page: &str) -> &'static str {
        if self.here == page { "page" } else { "false" }
    }
}
