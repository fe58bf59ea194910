//! One entry, mended in an editor and retried.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, anyhow};
use serde_json::value::RawValue;
use tempfile::TempPath;

use super::super::Failure;
use super::super::client::Client;
use super::super::show::{self, pretty};
use crate::admin::protocol::{EditedBody, QuarantineEntry, Released};

pub(super) async fn run(client: &mut Client, id: u64, body: Option<&Path>) -> Result<(), Failure> {
    let Some(file) = body else { return in_editor(client, id).await };
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).context("read standard input")?;
    } else {
        text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    }
    retry(client, id, &text).await
}

async fn in_editor(client: &mut Client, id: u64) -> Result<(), Failure> {
    let entry: QuarantineEntry = client.get(&format!("/v1/quarantine/{id}")).await?;
    let body = entry.body.context("the daemon has shown no body")?;
    // What was no JSON is edited as it came.
    let before = serde_json::from_str::<String>(body.get()).unwrap_or_else(|_| pretty(body.get()));
    let file = private(id, &before)?;
    let after = match edit(&file).await {
        Ok(after) if after.trim() == before.trim() => {
            return Err(anyhow!(
                "nothing was changed: `pillarbox quarantine retry {id}` retries it as it is"
            )
            .into());
        }
        Ok(after) => after,
        Err(error) => return Err(error.into()),
    };
    let retried = retry(client, id, &after).await;
    if retried.is_err() {
        // Work must not be lost with a refusal.
        let kept = file.keep().context("keep the edited body")?;
        let kept = kept.display();
        show::note(&format!(
            "the edited body is kept: mend {kept}, then `pillarbox quarantine edit {id} --body {kept}`, and remove it"
        ));
    }
    retried
}

/// A file with `text` that nobody else may read.
fn private(id: u64, text: &str) -> anyhow::Result<TempPath> {
    let named = format!("pillarbox-{id}-");
    let file = tempfile::Builder::new().prefix(&named).suffix(".json").tempfile();
    let mut file = file.context("make a file to edit")?;
    writeln!(file, "{text}").context("write the file to edit")?;
    Ok(file.into_temp_path())
}

/// Has the operator edit `file`; its text afterwards.
async fn edit(file: &Path) -> anyhow::Result<String> {
    let set = |name: &str| std::env::var(name).ok().filter(|editor| !editor.trim().is_empty());
    let editor = set("VISUAL").or_else(|| set("EDITOR")).unwrap_or_else(|| "vi".to_owned());
    // An editor is often given with arguments.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec $0 \"$1\"", &editor]).arg(file);
    let status = tokio::task::spawn_blocking(move || command.status()).await?;
    let status = status.with_context(|| format!("run the editor {editor:?}"))?;
    anyhow::ensure!(
        status.success(),
        "the editor {editor:?} ended with {status}: nothing was retried; set EDITOR, or give the body with --body FILE"
    );
    std::fs::read_to_string(file).context("read what was edited")
}

async fn retry(client: &mut Client, id: u64, text: &str) -> Result<(), Failure> {
    let body: Box<RawValue> = serde_json::from_str(text)
        .map_err(|error| anyhow!("entry {id} stays: the new body is no JSON: {error}"))?;
    let path = format!("/v1/quarantine/{id}/retry");
    let released: Released =
        client.post(&path, &EditedBody { body }).await.map_err(|failure| match failure {
            Failure::Failed(error) => Failure::Failed(error.context(format!("entry {id} stays"))),
            failure => failure,
        })?;
    super::said(&released, "queued again")
}
