//! The figures of a daemon for a monitoring system, by Prometheus's conventions: names begin with `pillarbox_`, units are
//! seconds and bytes, counters end in `_total`.
//!
//! | file | owns |
//! |---|---|
//! | `families` (PURE) | every metric: its name, its help, where its numbers stand in a [`Snapshot`] |
//! | `writer` (PURE) | families as OpenMetrics text |
//! | `format` (PURE) | the two formats that scrapers read, and who gets which |
//!
//! - The parts of the daemon count in plain atomics; this folder alone knows a metrics library.
//! - What happened to records is read from the spool's tallies, which a restart does not reset; everything else counts since the
//!   daemon started. The help of each counter says which.
//! - Conservation (Promise 6) can be read from a scrape, for each integration: `records_accepted_total` = `records_delivered_total` +
//!   `records_quarantined_total` + `records_withheld_total` + `records_erased_total` + `queue_records`.
//! - A scrape is cheap: memory, one chunk of each lane's oldest records for their age, and the free space of the disk.
//! - Labels are bounded: integrations as configured, and codes of the program.

#[cfg(test)]
mod tests;

mod families;
mod format;
mod writer;

use std::time::Duration;

pub use self::format::{Format, plain};

use super::protocol::{IntegrationStatus, Status};
use super::service::Service;
use crate::forward::Pushes;
use crate::ingest::{Refusal, Tallied};
use crate::spool::{Figures, ReadError};

/// What a scrape is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposition {
    /// As the answer's `Content-Type` names it.
    pub content_type: &'static str,
    /// The text.
    pub body: String,
}

/// What the metrics show, gathered from the parts of a daemon.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// What an operator is told as well; its integrations are in the field of that name.
    pub status: Status,
    /// The code with which producers are refused, if they are.
    pub refusing: Option<&'static str>,
    /// Producers' connections that are open.
    pub connections: u64,
    /// Of the spool as a whole.
    pub spool: Figures,
    /// Every integration that has a lane.
    pub integrations: Vec<Integration>,
}

/// One integration.
#[derive(Clone, Debug)]
pub struct Integration {
    /// What an operator is told as well.
    pub status: IntegrationStatus,
    /// What became of events; `None` when it was not configured since the start.
    pub tallied: Option<Tallied>,
    /// What became of its pushes; `None` when it is not delivered.
    pub pushes: Option<Pushes>,
    /// The least time between two pushes; `None` when it is not delivered.
    pub push_interval: Option<Duration>,
}

impl Service {
    /// The daemon's metrics, as its own socket and the console show them.
    ///
    /// # Errors
    /// As [`Service::status`].
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn metrics(&self, format: Format) -> Result<Exposition, ReadError> {
        Ok(render(self.snapshot().await?, format))
    }

    async fn snapshot(&self) -> Result<Snapshot, ReadError> {
        let mut status = self.status().await?;
        let (delivered, mut tallied) = (self.integrations(), self.intake().tallied());
        let integrations = std::mem::take(&mut status.integrations).into_iter().map(|status| {
            let known = delivered.iter().find(|known| known.name == status.name);
            Integration {
                tallied: tallied.remove(&status.name),
                pushes: known.map(|known| known.meter.read()),
                push_interval: known.map(|known| known.pace.interval()),
                status,
            }
        });
        Ok(Snapshot {
            integrations: integrations.collect(),
            status,
            refusing: self.intake().accepting().err().map(|Refusal { code, .. }| code),
            connections: self.counters().connections(),
            spool: self.spool().figures(),
        })
    }
}

/// Writes a snapshot.
///
/// # Panics
/// Never: text can always be written into memory.
#[must_use]
pub fn render(snapshot: Snapshot, format: Format) -> Exposition {
    let text = writer::text(snapshot);
    let body = match format {
        Format::OpenMetrics => text,
        Format::Plain => plain(&text),
    };
    Exposition { content_type: format.content_type(), body }
}

/// What stands in for a scrape of a daemon that cannot be reached, in the format of [`Format::Plain`]: who reads a file would
/// take yesterday's figures for today's.
pub const ABSENT: &str =
    "# HELP pillarbox_up Whether the daemon answers.\n# TYPE pillarbox_up gauge\npillarbox_up 0\n";
