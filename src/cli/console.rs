//! `pillarbox console`: how the web console is entered.

use clap::Args;

use super::show::{self, printable};
use super::{Admin, Failure};
use crate::admin::protocol::ConsoleFound;

#[derive(Debug, Args)]
pub(super) struct Console {
    #[command(flatten)]
    admin: Admin,
}

/// Prints its address on stdout, alone, and on stderr what to know of it.
pub(super) async fn run(console: &Console) -> Result<(), Failure> {
    let mut client = console.admin.connect().await?;
    let found: ConsoleFound = client.get("/v1/console").await?;
    show::line(&printable(&found.url));
    show::note("open this in a browser on this host; it holds the token, so show it to nobody");
    Ok(())
}
