//! The draft that `pillarbox integration add` hands over: a file, what was stored before, and the options over both.

use std::io::{IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;

use super::Failure;
use crate::admin::integration::protocol::{Configured, Integrations};
use crate::config::stored;
use crate::draft::{Draft, Setting};

/// The largest input that can be a key.
const KEY_BYTES_MAX: u64 = 4096;

#[derive(Debug, Args)]
pub(super) struct Add {
    /// What it is called: lower-case letters, digits, `-` and `_`
    pub(super) name: String,
    /// File that holds the API key; `-` reads standard input. Without it: that of --from, or the one stored before, or
    /// standard input
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Which events become which records: retail or default
    #[arg(long)]
    preset: Option<String>,
    /// Categories that must all be granted, by commas; an empty text for none
    #[arg(long, value_name = "CATEGORIES")]
    consent: Option<String>,
    /// Where pushes go
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Any other setting, named as in the configuration file, such as linger=1s or retry.max=1min
    #[arg(long, value_name = "NAME=VALUE", value_parser = super::super::key_and_value)]
    setting: Vec<String>,
    /// Take all settings from a TOML file that holds an integration as the configuration file does, mappings included
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
}

/// What is handed over.
pub(super) fn make(add: &Add, known: &Integrations) -> Result<Draft, Failure> {
    let stored =
        known.integrations.iter().find(|one| one.name == add.name && one.origin.is_stored());
    let mut draft = match &add.from {
        Some(file) => from(file, &add.name)?,
        None => stored.and_then(|stored| stored.given.clone()).unwrap_or_default(),
    };
    // It is named once, by the command.
    draft.remove("name");
    if let Some(file) = draft.remove("api_key_file")
        && !draft.has("api_key")
        && let Setting::Text(file) = file
    {
        draft.set("api_key", Setting::Text(key(Path::new(&file))?));
    }
    refuse_secrets(&add.setting)?;
    options(add, &mut draft);
    if let Some(file) = &add.key_file {
        draft.set("api_key", Setting::Text(key(file)?));
    } else if !draft.has("api_key") && !stored.is_some_and(has_key) {
        if std::io::stdin().is_terminal() {
            let cure = "name its file with --key-file, or pipe it in (Ometria, Settings > API keys: a Data API key with push access)";
            return Err(anyhow!("the API key must be given: {cure}").into());
        }
        draft.set("api_key", Setting::Text(key(Path::new("-"))?));
    }
    Ok(draft)
}

/// Whether a stored one has a key that can be kept.
fn has_key(stored: &Configured) -> bool {
    stored.given.is_some()
}

/// Secrets would be seen in the list of processes and the history of the shell.
fn refuse_secrets(settings: &[String]) -> anyhow::Result<()> {
    for setting in settings {
        let Some((name, value)) = setting.split_once('=') else { continue };
        let name = name.trim();
        anyhow::ensure!(
            name != "api_key",
            "the API key is not given on the command line, where others see it: name its file with --key-file, or pipe it in with --key-file -"
        );
        // One whose user and password read `***` keeps those that are stored.
        let hides = |(before, _): (&str, &str)| before == "***" || before.ends_with("://***");
        anyhow::ensure!(
            name != "proxy" || value.trim().trim_matches('"').rsplit_once('@').is_none_or(hides),
            "a proxy's user and password are not given on the command line, where others see them: write `proxy` in a file of settings for --from; the API key comes with --key-file"
        );
    }
    Ok(())
}

fn options(add: &Add, draft: &mut Draft) {
    if let Some(preset) = &add.preset {
        draft.set("preset", Setting::Text(preset.clone()));
    }
    if let Some(endpoint) = &add.endpoint {
        draft.set("endpoint", Setting::Text(endpoint.clone()));
    }
    if let Some(consent) = &add.consent {
        let categories = consent.split(',').map(str::trim).filter(|category| !category.is_empty());
        let categories = categories.map(Setting::from).collect();
        draft.set("consent", Setting::List(categories));
    }
    for setting in &add.setting {
        let Some((name, value)) = setting.split_once('=') else { continue };
        set(draft, name.trim(), setting_of(value.trim()));
    }
}

/// Sets `retry.max` in the table `retry`, and what has no dot as it is.
fn set(draft: &mut Draft, name: &str, value: Setting) {
    let Some((table, member)) = name.split_once('.') else {
        draft.set(name, value);
        return;
    };
    let mut members: Draft = match draft.get(table) {
        Some(Setting::Table(members)) => members.iter().cloned().collect(),
        _ => Draft::default(),
    };
    set(&mut members, member, value);
    let members = members.iter().map(|(name, setting)| (name.to_owned(), setting.clone()));
    draft.set(table, Setting::Table(members.collect()));
}

/// A number, a boolean, or what begins as a list or a text of JSON; else a text.
fn setting_of(value: &str) -> Setting {
    let json = format!("{{\"value\":{value}}}");
    let read =
        serde_json::from_str::<Draft>(&json).ok().and_then(|mut draft| draft.remove("value"));
    read.unwrap_or_else(|| value.into())
}

fn from(file: &Path, name: &str) -> Result<Draft, Failure> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    Ok(stored::draft_of(file, &text, name)?)
}

/// The key in a file; `-` is standard input. No message shows anything of it.
fn key(file: &Path) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    let shown = if file == Path::new("-") {
        std::io::stdin()
            .take(KEY_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .context("read standard input")?;
        "standard input".to_owned()
    } else {
        let shown = format!("the key file {}", file.display());
        let opened = std::fs::File::open(file).with_context(|| format!("read {shown}"))?;
        opened
            .take(KEY_BYTES_MAX + 1)
            .read_to_end(&mut bytes)
            .with_context(|| format!("read {shown}"))?;
        shown
    };
    anyhow::ensure!(bytes.len() as u64 <= KEY_BYTES_MAX, "{shown} is too large to be a key");
    let text =
        String::from_utf8(bytes).map_err(|_| anyhow!("{shown} holds no key: it is no text"))?;
    let key = text.trim_end_matches(['\n', '\r']);
    anyhow::ensure!(!key.is_empty(), "{shown} holds no API key");
    Ok(key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(options: &[&str]) -> Add {
        #[derive(Debug, clap::Parser)]
        struct Only {
            #[command(flatten)]
            add: Add,
        }
        let arguments = ["x", "uk"].into_iter().chain(options.iter().copied());
        <Only as clap::Parser>::try_parse_from(arguments).unwrap().add
    }

    #[test]
    fn options_go_over_what_is_there() {
        let mut draft: Draft =
            serde_json::from_str(r#"{"preset":"retail","retry":{"initial":"1s"}}"#).unwrap();
        let options_given = [
            "--preset=default",
            "--consent=a, b",
            "--endpoint=https://x/",
            "--setting=linger=1s",
            "--setting=batch=7",
            "--setting=retry.max=1min",
            "--setting=events.page.enabled=false",
            "--setting=proxy=http://h:1",
        ];
        options(&add(&options_given), &mut draft);
        assert_eq!(
            serde_json::to_string(&draft).unwrap(),
            r#"{"preset":"default","retry":{"initial":"1s","max":"1min"},"endpoint":"https://x/","consent":["a","b"],"linger":"1s","batch":7,"events":{"page":{"enabled":false}},"proxy":"http://h:1"}"#
        );
        options(&add(&["--consent="]), &mut draft);
        assert!(matches!(draft.get("consent"), Some(Setting::List(items)) if items.is_empty()));
    }

    #[test]
    fn a_secret_is_no_setting_of_the_command_line() {
        let canary = "canary-key-0123456789";
        for (setting, points_to) in [
            (format!("api_key={canary}"), Some("--key-file")),
            (format!(" api_key = \"{canary}\""), Some("--key-file")),
            (format!("proxy=http://u:{canary}@h:1"), Some("--from")),
            (format!("proxy=\"u:{canary}@h:1\""), Some("--from")),
            ("proxy=http://***@h:1".to_owned(), None),
            ("proxy=http://h:1".to_owned(), None),
            ("proxy=direct".to_owned(), None),
            ("linger=1s".to_owned(), None),
        ] {
            let told = refuse_secrets(&[setting]).map_err(|error| error.to_string());
            match points_to {
                None => assert_eq!(told, Ok(())),
                Some(cure) => {
                    let told = told.unwrap_err();
                    assert!(told.contains(cure) && !told.contains(canary), "{told}");
                }
            }
        }
        let given = add(&[&format!("--setting=api_key={canary}")]);
        assert!(make(&given, &Integrations::default()).is_err());
    }

    #[test]
    fn a_key_comes_from_a_file_of_its_own_or_of_the_draft() {
        let folder = tempfile::tempdir().unwrap();
        let (key_file, from) = (folder.path().join("k"), folder.path().join("de.toml"));
        std::fs::write(&key_file, "secret\r\n").unwrap();
        let toml =
            format!("[[integration]]\nname = \"de\"\napi_key_file = {key_file:?}\nbatch = 7\n");
        std::fs::write(&from, toml).unwrap();
        let from = format!("--from={}", from.display());
        let known = Integrations::default();
        let draft = make(&add(&[&from]), &known).unwrap();
        assert_eq!(serde_json::to_string(&draft).unwrap(), r#"{"batch":7,"api_key":"secret"}"#);
        let file = format!("--key-file={}", key_file.display());
        let draft = make(&add(&[&file, "--preset=retail"]), &known).unwrap();
        assert_eq!(draft.text("api_key"), Some("secret"));
        std::fs::write(&key_file, "\n").unwrap();
        assert!(make(&add(&[&file]), &known).is_err(), "an empty key");
    }
}
