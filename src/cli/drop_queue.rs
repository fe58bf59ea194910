//! `pillarbox drop-queue`: what is queued for an integration that is no longer configured is removed for good.

use anyhow::anyhow;
use clap::Args;

use super::show::{self, number, printable};
use super::{Admin, Failure};
use crate::admin::protocol::{Dropped, Status};

#[derive(Debug, Args)]
pub(super) struct DropQueue {
    #[command(flatten)]
    admin: Admin,
    /// The integration, which the configuration no longer has
    name: String,
    /// Really remove it: the records are gone for good
    #[arg(long)]
    yes: bool,
}

pub(super) async fn run(drop_queue: &DropQueue) -> Result<(), Failure> {
    let name = &drop_queue.name;
    let mut client = drop_queue.admin.connect().await?;
    let status: Status = client.get("/v1/status").await?;
    let Some(known) = status.integrations.iter().find(|known| known.name == *name) else {
        let known: Vec<&str> =
            status.integrations.iter().map(|known| known.name.as_str()).collect();
        let known = printable(&known.join(", "));
        return Err(anyhow!("no integration {name:?} has a queue; known are {known}").into());
    };
    if !drop_queue.yes {
        let (records, size) =
            (number(known.lane.queued_records), show::bytes(known.lane.queued_bytes));
        let name = printable(name);
        return Err(anyhow!(
            "{records} records ({size}) of {name} would be gone for good: add --yes to remove them"
        )
        .into());
    }
    let dropped: Dropped =
        client.post(&format!("/v1/integrations/{}/drop-queue", known.name), &()).await?;
    let (records, size) = (number(dropped.records), show::bytes(dropped.bytes));
    show::line(&format!("{records} records ({size}) removed, counted as erased"));
    Ok(())
}
