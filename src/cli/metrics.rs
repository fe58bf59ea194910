//! `pillarbox metrics`: the figures for a monitoring system, for tools that cannot ask a Unix socket.

use std::fs::Permissions;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use clap::{Args, ValueEnum};
use tempfile::NamedTempFile;

use super::{Admin, Failure};
use crate::admin::metrics;

#[derive(Debug, Args)]
pub(super) struct Metrics {
    #[command(flatten)]
    admin: Admin,
    /// Write to this file instead, at once and readable by all: *.prom for the node exporter's textfile collector
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What the figures are written in
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Prometheus text, which the node exporter and most tools read
    Text,
    /// OpenMetrics text, as the daemon writes it
    Openmetrics,
}

pub(super) async fn run(metrics: &Metrics) -> Result<(), Failure> {
    let Some(output) = &metrics.output else {
        // A reader that has gone away ends nothing.
        drop(io::stdout().write_all(read(metrics).await?.as_bytes()));
        return Ok(());
    };
    let failed = || format!("write {}", output.display());
    match read(metrics).await {
        Ok(text) => Ok(write(output, &text).with_context(failed)?),
        Err(Failure::Unreachable(why)) => {
            // Who reads the file would take the figures in it for today's.
            write(output, &absent(metrics.format)).with_context(failed)?;
            Err(Failure::Unreachable(why))
        }
        Err(failure) => Err(failure),
    }
}

async fn read(metrics: &Metrics) -> Result<String, Failure> {
    let read: Bytes = metrics.admin.connect().await?.get_raw("/v1/metrics").await?;
    let text = String::from_utf8(read.to_vec()).context("read the daemon's answer")?;
    Ok(match metrics.format {
        Format::Text => metrics::plain(&text),
        Format::Openmetrics => text,
    })
}

fn absent(format: Format) -> String {
    let end = if format == Format::Openmetrics { "# EOF\n" } else { "" };
    format!("{}{end}", metrics::ABSENT)
}

/// Replaces `path` whole or not at all. What is written until then has no name that ends as `path` does: nobody reads half.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut file = NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    file.write_all(text.as_bytes())?;
    // Figures hold no secret, and who reads them is another user.
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}
