//! `pillarbox pause`, `resume` and `retry-now`.

use clap::Args;

use super::show::{self, printable};
use super::{Admin, Failure};

#[derive(Debug, Args)]
pub(super) struct Control {
    #[command(flatten)]
    admin: Admin,
    /// The integration [default: all]
    integration: Option<String>,
}

/// Asks the daemon to `verb`, and says that it has `done` so.
pub(super) async fn run(control: &Control, verb: &str, done: &str) -> Result<(), Failure> {
    let mut client = control.admin.connect().await?;
    let integration = &control.integration;
    let body = serde_json::json!({ "integration": integration });
    let names: Vec<String> = client.post(&format!("/v1/{verb}"), &body).await?;
    if names.is_empty() {
        show::line("no integration is configured");
    }
    for name in names {
        show::line(&format!("{}: {done}", printable(&name)));
    }
    Ok(())
}
