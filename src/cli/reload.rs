//! `pillarbox reload`: the running daemon reads its configuration again.

use clap::Args;

use super::show::{self, GOOD, WARN, printable};
use super::{Admin, Failure};
use crate::admin::protocol::Reloaded;

#[derive(Debug, Args)]
pub(super) struct Reload {
    #[command(flatten)]
    admin: Admin,
    /// For machines
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(reload: &Reload) -> Result<(), Failure> {
    let mut client = reload.admin.connect().await?;
    let done: Reloaded = client.post("/v1/reload", &()).await?;
    if reload.json {
        show::line(&serde_json::to_string(&done).map_err(anyhow::Error::from)?);
    } else {
        show::line(&text(&done));
    }
    Ok(())
}

/// What happened, a line each.
fn text(done: &Reloaded) -> String {
    let mut lines = Vec::new();
    for (names, what) in [
        (&done.added, "added: delivered from now on"),
        (&done.changed, "changed: the new settings are in force"),
        (
            &done.removed,
            "removed: what is queued stays, and nobody delivers it; `pillarbox drop-queue NAME` removes it for good",
        ),
    ] {
        lines.extend(names.iter().map(|name| format!("{}: {what}", printable(name))));
    }
    if lines.is_empty() {
        lines.push("no integration has changed".to_owned());
    }
    lines.insert(0, format!("{GOOD}reloaded{GOOD:#}"));
    for section in &done.needs_restart {
        lines.push(format!(
            "{WARN}restart needed{WARN:#}: what has changed in {section} is read only at the start"
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_is_told() {
        let plain = |done: &Reloaded| anstream::adapter::strip_str(&text(done)).to_string();
        assert_eq!(plain(&Reloaded::default()), "reloaded\nno integration has changed");
        let done = Reloaded {
            added: vec!["de".into()],
            changed: vec!["uk".into()],
            removed: vec!["fr".into()],
            needs_restart: vec!["[spool]".into()],
        };
        let shown = plain(&done);
        for line in [
            "de: added",
            "uk: changed",
            "fr: removed",
            "restart needed: what has changed in [spool]",
        ] {
            assert!(shown.lines().any(|shown| shown.starts_with(line)), "{shown}");
        }
    }
}
