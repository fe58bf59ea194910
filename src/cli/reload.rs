//! `pillarbox reload`: the running daemon reads its configuration again.

use clap::Args;

use super::show::{self, BAD, GOOD, WARN, printable};
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
    ] {
        lines.extend(names.iter().map(|name| format!("{}: {what}", printable(name))));
    }
    lines.extend(done.removed.iter().map(|name| gone(name)));
    if lines.is_empty() {
        lines.push("no integration has changed".to_owned());
    }
    lines.insert(0, format!("{GOOD}reloaded{GOOD:#}"));
    for trouble in &done.set_aside {
        lines.push(format!("{BAD}set aside{BAD:#}: {}", printable(trouble)));
    }
    for section in &done.needs_restart {
        lines.push(format!(
            "{WARN}restart needed{WARN:#}: what has changed in {section} is read only at the start"
        ));
    }
    lines.join("\n")
}

/// What has become of an integration that is no longer configured.
pub(super) fn gone(name: &str) -> String {
    let name = printable(name);
    format!(
        "{name}: removed: what is queued stays, and nobody delivers it; `pillarbox drop-queue {name}` removes it for good"
    )
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
            set_aside: vec!["es: its stored file has faults".into()],
        };
        let shown = plain(&done);
        for line in [
            "de: added",
            "uk: changed",
            "fr: removed",
            "set aside: es: its stored file has faults",
            "restart needed: what has changed in [spool]",
        ] {
            assert!(shown.lines().any(|shown| shown.starts_with(line)), "{shown}");
        }
    }
}
