//! `pillarbox integration`: those that are configured, and those made while the daemon runs.

mod draft;
mod trial;

use clap::{Args, Subcommand};
use comfy_table::{CellAlignment, Table};
use hyper::Method;
use hyper::header::{HeaderValue, IF_MATCH, IF_NONE_MATCH};

use self::draft::Add;
use self::trial::Test;
use super::client::Client;
use super::reload;
use super::show::{self, BAD, BOLD, DIM, WARN, number, printable};
use super::{Admin, Failure, status};
use crate::admin::integration::protocol::{Configured, Integrations, Saved, Standing};
use crate::admin::protocol::{IntegrationStatus, Reloaded, Status};
use crate::config::stored;
use crate::draft::Setting;

pub(super) const EXAMPLES: &str = "\
Examples:
  pillarbox integration list
  pillarbox integration add uk --key-file uk.key --consent marketing
  pillarbox integration add uk --setting linger=1s --setting retry.max=1min
  pillarbox integration add de --from de.toml --key-file - < de.key
  pillarbox integration test uk
  pillarbox integration remove de

The API key comes from a file or standard input, never from the command line, and is never shown.
Those in the configuration file are changed there.";

#[derive(Debug, Args)]
pub(super) struct Integration {
    #[command(flatten)]
    admin: Admin,
    /// For machines
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Every integration: where it stands, how it fares
    #[command(
        after_help = "Example:\n  pillarbox integration list --json | jq '.integrations[].name'"
    )]
    List,
    /// One integration with every setting in force
    #[command(after_help = "Example:\n  pillarbox integration show uk")]
    Show {
        /// The integration
        name: String,
    },
    /// Add an integration, or change the settings given of one that was added; delivered at once
    #[command(
        after_help = "Examples:\n  pillarbox integration add uk --key-file uk.key --consent marketing\n  pillarbox integration add uk --setting linger=1s\n  pillarbox integration add de --from de.toml"
    )]
    Add(Add),
    /// Remove one that was added; what is queued for it stays
    #[command(
        after_help = "Example:\n  pillarbox integration remove uk && pillarbox drop-queue uk --yes"
    )]
    Remove {
        /// The integration
        name: String,
    },
    /// Send one test event, at once and past the queue, and tell what Ometria answers
    #[command(
        after_help = "Examples:\n  pillarbox integration test uk\n  echo '{\"type\":\"page\"}' | pillarbox integration test uk --event -"
    )]
    Test(Test),
}

pub(super) async fn run(integration: &Integration) -> Result<(), Failure> {
    let mut client = integration.admin.connect().await?;
    let json = integration.json;
    match &integration.verb {
        Verb::List => list(&mut client, json).await,
        Verb::Show { name } => show_one(&mut client, name, json).await,
        Verb::Add(add) => {
            let known: Integrations = client.get(LIST).await?;
            let draft = draft::make(add, &known)?;
            // What somebody else has saved meanwhile is not undone.
            match known.integrations.iter().find(|it| it.name == add.name && it.origin.is_stored())
            {
                None => client.only(IF_NONE_MATCH, HeaderValue::from_static("*")),
                Some(stored) if stored.version.is_empty() => {}
                Some(stored) => {
                    let tag = HeaderValue::try_from(format!("\"{}\"", stored.version));
                    client.only(IF_MATCH, tag.map_err(anyhow::Error::from)?);
                }
            }
            let saved: Saved = client.send_json(Method::PUT, &path(&add.name)?, &draft).await?;
            tell(&saved, json, || added(&saved))
        }
        Verb::Remove { name } => {
            let done: Reloaded = client.send_json(Method::DELETE, &path(name)?, &()).await?;
            tell(&done, json, || removed(name, &done))
        }
        Verb::Test(test) => trial::run(&mut client, test, json).await,
    }
}

const LIST: &str = "/v1/integrations";

/// The route of one integration. What can be no name would be another route.
fn path(name: &str) -> Result<String, Failure> {
    let legal = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
    if name.is_empty() || !name.chars().all(legal) {
        let message = "an integration is called by lower-case letters, digits, `-` and `_`";
        return Err(anyhow::anyhow!("{name:?}: {message}").into());
    }
    Ok(format!("{LIST}/{name}"))
}

fn tell(
    told: &impl serde::Serialize,
    json: bool,
    text: impl FnOnce() -> String,
) -> Result<(), Failure> {
    let json = json.then(|| serde_json::to_string(told).map_err(anyhow::Error::from));
    show::line(&json.unwrap_or_else(|| Ok(text()))?);
    Ok(())
}

async fn list(client: &mut Client, json: bool) -> Result<(), Failure> {
    let known: Integrations = client.get(LIST).await?;
    let status: Status = client.get("/v1/status").await?;
    tell(&known, json, || listed(&known, &status))
}

async fn show_one(client: &mut Client, name: &str, json: bool) -> Result<(), Failure> {
    let known: Configured = client.get(&path(name)?).await?;
    let status: Status = client.get("/v1/status").await?;
    tell(&known, json, || shown(&known, &status))
}

fn fares<'s>(known: &Configured, status: &'s Status) -> Option<&'s IntegrationStatus> {
    let fares = status.integrations.iter().find(|fares| fares.name == known.name);
    fares.filter(|_| known.standing != Standing::Overruled)
}

/// Where one stands, in a word.
fn origin(known: &Configured) -> &'static str {
    match (known.standing, known.origin.is_stored()) {
        (Standing::Overruled, _) => "overruled",
        (Standing::Broken, _) => "broken",
        (Standing::InForce, true) => "stored",
        (Standing::InForce, false) => "file",
    }
}

fn listed(known: &Integrations, status: &Status) -> String {
    if known.integrations.is_empty() {
        return "no integration is configured: `pillarbox integration add NAME --key-file FILE` makes one".to_owned();
    }
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_header(["integration", "from", "state", "queued", "preset", "consent", "endpoint"]);
    for one in &known.integrations {
        let fares = fares(one, status);
        let text = |name| one.settings.text(name).map_or("-".to_owned(), printable);
        let consent = match one.settings.get("consent") {
            Some(Setting::List(items)) if !items.is_empty() => {
                let texts = items.iter().filter_map(|item| match item {
                    Setting::Text(text) => Some(printable(text)),
                    _ => None,
                });
                texts.collect::<Vec<_>>().join(", ")
            }
            _ => "-".to_owned(),
        };
        table.add_row([
            printable(&one.name),
            origin(one).to_owned(),
            fares.map_or("-", |fares| status::state(fares).0).to_owned(),
            fares.map_or("-".to_owned(), |fares| number(fares.lane.queued_records)),
            text("preset"),
            consent,
            text("endpoint"),
        ]);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if index == 3 {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let mut parts = vec![show::trimmed(&table.to_string())];
    let trouble = known.integrations.iter().filter_map(Configured::trouble);
    parts.extend(trouble.map(|trouble| format!("{BAD}set aside{BAD:#}  {}", printable(&trouble))));
    parts.join("\n\n")
}

fn shown(known: &Configured, status: &Status) -> String {
    let (name, path) = (printable(&known.name), printable(known.origin.path()));
    let place = if known.origin.is_stored() { "stored in" } else { "in the configuration file" };
    let mut lines = vec![format!("{BOLD}{name}{BOLD:#}  {place} {path}")];
    if let Some(fares) = fares(known, status) {
        let (word, style) = status::state(fares);
        let lane = &fares.lane;
        lines.push(format!(
            "{style}{word}{style:#}, {} queued, {} delivered",
            number(lane.queued_records),
            number(lane.delivered)
        ));
        if !fares.report.cause.is_empty() {
            lines.push(format!("{WARN}{}{WARN:#}", printable(&fares.report.cause)));
        }
    }
    if let Some(trouble) = known.trouble() {
        lines.push(format!("{BAD}{}{BAD:#}", printable(&trouble)));
    }
    if !known.settings.is_empty() {
        lines.push(format!("\n{DIM}# the API key is set, and never shown{DIM:#}"));
        let toml = stored::to_toml(&known.settings);
        lines.extend(toml.trim_end().lines().map(printable));
    }
    lines.join("\n")
}

fn added(saved: &Saved) -> String {
    let name = printable(&saved.integration);
    let Reloaded { added, changed, .. } = &saved.reloaded;
    let what = match (saved.created, added.is_empty() && changed.is_empty()) {
        (true, _) => "added: delivered from now on, also after a restart",
        (false, true) => "as it was: nothing has changed",
        (false, false) => "changed: the new settings are in force",
    };
    format!("{name}: {what}\n{DIM}`pillarbox integration test {name}` sends a test event{DIM:#}")
}

fn removed(name: &str, done: &Reloaded) -> String {
    if done.removed.is_empty() {
        // It was overruled or broken.
        return format!("{name}: its stored file is removed; nothing else has changed");
    }
    reload::gone(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::integration::protocol::{DraftFault, KeyState, Origin};

    fn known(name: &str, standing: Standing, stored: bool, settings: &str) -> Configured {
        let path = format!("/x/{name}.toml");
        let is_broken = standing == Standing::Broken;
        let fault = DraftFault { path: format!("{path}:1:2"), message: "not valid TOML".into() };
        Configured {
            name: name.into(),
            origin: if stored { Origin::Stored { path } } else { Origin::File { path } },
            standing,
            key: KeyState::Set,
            settings: serde_json::from_str(settings).unwrap(),
            given: None,
            version: String::new(),
            faults: is_broken.then_some(fault).into_iter().collect(),
        }
    }

    fn status() -> Status {
        let status = serde_json::json!({"version": "1", "pid": 1, "started_at": 0, "now": 0, "quarantined": 0,
            "ingest": crate::ingest::Counts::default(), "integrations": []});
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn a_list_tells_where_each_stands_and_what_is_wrong() {
        let settings = r#"{"preset":"retail","consent":["a","b"],"endpoint":"https://x/"}"#;
        let integrations = vec![
            known("uk", Standing::InForce, false, settings),
            known("de", Standing::InForce, true, r#"{"preset":"default","consent":[]}"#),
            known("fr", Standing::Broken, true, "{}"),
            known("uk", Standing::Overruled, true, "{}"),
        ];
        let text = listed(&Integrations { integrations }, &status());
        let text = anstream::adapter::strip_str(&text).to_string();
        let words: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[1], ["uk", "file", "-", "-", "retail", "a,", "b", "https://x/"], "{text}");
        assert_eq!(words[2], ["de", "stored", "-", "-", "default", "-", "-"], "{text}");
        assert!(text.contains(
            "set aside  fr: its stored file /x/fr.toml has faults, and it is not delivered"
        ));
        assert!(text.contains("/x/fr.toml:1:2: not valid TOML"), "{text}");
        assert!(text.contains("set aside  uk: the stored integration is overruled"), "{text}");
        let none = listed(&Integrations::default(), &status());
        assert!(none.contains("integration add NAME"), "{none}");
    }

    #[test]
    fn one_is_shown_as_the_toml_that_it_could_be_written_as() {
        let settings =
            r#"{"name":"de","consent":["a"],"events":{"Gift \"Card\"":{"properties":{"x":1.50}}}}"#;
        let text = shown(&known("de", Standing::InForce, true, settings), &status());
        let text = anstream::adapter::strip_str(&text).to_string();
        assert!(text.starts_with("de  stored in /x/de.toml\n"), "{text}");
        assert!(
            text.ends_with("consent = [\"a\"]\n\n[integration.events.\"Gift \\\"Card\\\"\"]\nproperties.x = 1.50"),
            "{text}"
        );
    }

    #[test]
    fn what_can_be_no_name_is_no_route() {
        assert!(matches!(path("uk-1_a").as_deref(), Ok("/v1/integrations/uk-1_a")));
        for name in ["", "a/b", "..", "a b", "é"] {
            assert!(path(name).is_err(), "{name}");
        }
    }
}
