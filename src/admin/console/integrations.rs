//! Integrations: those that there are, and one of them as a form with a preview and a test delivery.

use std::sync::Arc;

use askama::Template;
use serde_json::value::RawValue;

use super::Console;
use super::answer::{self, Answer};
use super::examples::EXAMPLES;
use super::fields::{EventFields, FINE, Fields, Plain, PropertyFields, ValueFields};
use super::form::{Form, encoded};
use super::notices::Notice;
use super::server::{self, Asked, Refused, back};
use super::shell::Shell;
use super::tried::{self, Tried};
use super::words::{self, Tone};
use crate::admin::integration::protocol::{
    Configured, DraftFault, KeyState, Origin, PreviewAsked, Standing, TestAsked,
};
use crate::admin::protocol::Status;
use crate::admin::{Expected, IntegrationError};
use crate::draft::Draft;
use crate::mapping::preset::RETAIL_EVENTS;
use crate::readable::number;

#[derive(Template)]
#[template(path = "integrations.html", config = "src/admin/console/askama.toml")]
struct List {
    shell: Shell,
    rows: Vec<Row>,
}

/// One integration of the list.
struct Row {
    name: String,
    link: String,
    state: &'static str,
    tone: Tone,
    queued: String,
    preset: String,
    consent: String,
    mapped: usize,
    origin: &'static str,
    trouble: String,
    has_key: bool,
}

impl Row {
    fn new(known: &Configured, status: &Status) -> Row {
        let of_status = status.integrations.iter().find(|it| it.name == known.name);
        let (state, tone) = match known.standing {
            Standing::Broken => ("broken", Tone::Bad),
            Standing::Overruled => ("overruled", Tone::Warn),
            Standing::InForce => of_status.map_or(("starting", Tone::Calm), words::state),
        };
        let Fields { preset, consent, events, .. } = Fields::of_draft(&known.name, &known.settings);
        Row {
            name: known.name.clone(),
            link: link(known),
            state,
            tone,
            queued: of_status.map_or_else(String::new, |it| number(it.lane.queued_records)),
            preset,
            consent,
            mapped: events.len(),
            origin: if known.origin.is_stored() { "made here" } else { "configuration file" },
            trouble: known.trouble().unwrap_or_default(),
            has_key: known.key == KeyState::Set,
        }
    }
}

/// The page of an integration: one of the file and one that it overrules have the same name.
fn link(known: &Configured) -> String {
    let kind = if known.origin.is_stored() { "stored" } else { "file" };
    format!("/integrations/{kind}/{}", encoded(&known.name))
}

/// The form of an integration.
#[derive(Template)]
#[template(path = "integration.html", config = "src/admin/console/askama.toml")]
struct Page {
    shell: Shell,
    fields: Fields,
    /// Its name, when it is there already.
    known: String,
    /// The file that it stands in, when only an editor changes it.
    file: String,
    has_key: bool,
    /// Which content of its stored file the form was filled from.
    version: String,
    trouble: String,
    faults: Vec<DraftFault>,
    sample: String,
    tried: Option<Tried>,
    fine: [Plain; 11],
    examples: [(&'static str, &'static str); 5],
    retail: [(&'static str, &'static str); 7],
}

#[derive(Template)]
#[template(path = "remove.html", config = "src/admin/console/askama.toml")]
struct Remove {
    shell: Shell,
    name: String,
    queued: String,
}

impl Page {
    /// The plain settings with their values.
    fn fine(&self) -> impl Iterator<Item = (&Plain, &String)> {
        self.fine.iter().zip(&self.fields.fine)
    }

    /// What is wrong with the setting `name`.
    fn faults_of(&self, name: &str) -> Vec<&str> {
        let of = self.faults.iter().filter(|fault| fault.path == name);
        of.map(|fault| fault.message.as_str()).collect()
    }

    /// Whether one of the settings that few need is not as it would be anyway.
    fn is_fine(&self) -> bool {
        self.fields.fine.iter().any(|value| !value.is_empty())
    }

    /// A mapping, a property and a value that nobody has filled in: what the script adds copies of.
    fn blank_event() -> EventFields {
        EventFields::default()
    }

    fn blank_property() -> PropertyFields {
        PropertyFields::default()
    }

    fn blank_value() -> ValueFields {
        ValueFields::default()
    }
}

/// The pages below `/integrations`.
pub(super) async fn answer(console: &Arc<Console>, asked: &Asked) -> Result<Answer, Refused> {
    let (path, changes) = asked.wanted();
    match (path.as_slice(), changes) {
        (["integrations"], false) => list(console, asked).await,
        (["integrations", "new"], false) => form(console, asked, None).await,
        (["integrations", kind @ ("stored" | "file"), name], false) => {
            let known = known(console, kind, name)
                .ok_or(Refused::NotFound("There is no such integration."))?;
            form(console, asked, Some(known)).await
        }
        (["integrations", "reload"], true) => Ok(reload(console).await),
        (["integrations", "draft"], true) => draft(console, asked).await,
        (["integrations", "save"], true) => save(console, asked).await,
        (["integrations", "remove"], true) => remove(console, asked).await,
        _ => Err(Refused::NotFound("There is no such page.")),
    }
}

fn known(console: &Console, kind: &str, name: &str) -> Option<Configured> {
    let wanted = encoded(name);
    let stored = kind == "stored";
    let configured = console.service.configured();
    let mut all = configured.integrations.iter();
    // A path comes as it was linked.
    all.find(|it| it.origin.is_stored() == stored && (it.name == name || it.name == wanted))
        .cloned()
}

async fn list(console: &Console, asked: &Asked) -> Result<Answer, Refused> {
    let status = console.service.status().await?;
    let configured = console.service.configured();
    let rows = configured.integrations.iter().map(|known| Row::new(known, &status)).collect();
    let shell = server::shell(console, "Integrations", "integrations", &status, asked);
    Ok(answer::page(&List { shell, rows }))
}

/// The form of what there is, or of something new.
async fn form(
    console: &Console,
    asked: &Asked,
    known: Option<Configured>,
) -> Result<Answer, Refused> {
    let status = console.service.status().await?;
    let page = match &known {
        None => {
            let shell =
                server::shell(console, "Add an integration", "integrations", &status, asked);
            Page::new(shell, Fields::fresh())
        }
        Some(known) => {
            let shell = server::shell(console, &known.name, "integrations", &status, asked);
            let settings = known.given.as_ref().unwrap_or(&known.settings);
            let fields = Fields::of_draft(&known.name, settings);
            Page::new(shell, fields).of(known)
        }
    };
    // What the example becomes stands there from the beginning.
    let tried = tried::previewed(console, page.asked(&Draft::default())).await;
    Ok(answer::page(&Page { tried: Some(tried), ..page }))
}

impl Page {
    fn new(shell: Shell, fields: Fields) -> Page {
        Page {
            shell,
            fields,
            known: String::new(),
            file: String::new(),
            has_key: false,
            version: String::new(),
            trouble: String::new(),
            faults: Vec::new(),
            sample: EXAMPLES.first().map_or("", |(_, text)| text).to_owned(),
            tried: None,
            fine: FINE,
            examples: EXAMPLES,
            retail: RETAIL_EVENTS,
        }
    }

    /// Of an integration that there is.
    fn of(mut self, known: &Configured) -> Page {
        self.known.clone_from(&known.name);
        if let Origin::File { path } = &known.origin {
            self.file.clone_from(path);
        }
        self.has_key = known.key == KeyState::Set;
        self.version.clone_from(&known.version);
        self.trouble = known.trouble().unwrap_or_default();
        self
    }

    /// What a preview is asked for: by its name when it stands in the file, else as a draft over `given`.
    fn asked(&self, given: &Draft) -> Result<PreviewAsked, String> {
        let events = sample(&self.sample)?;
        let (draft, integration) = if self.file.is_empty() {
            (Some(self.fields.draft(given, None)), None)
        } else {
            (None, Some(self.known.clone()))
        };
        Ok(PreviewAsked { draft, integration, events })
    }
}

fn sample(text: &str) -> Result<Box<RawValue>, String> {
    RawValue::from_string(text.trim().to_owned())
        .map_err(|error| format!("The example event is no JSON yet: {error}."))
}

/// What was filled in, and what is known of the integration that it is of.
struct Filled {
    fields: Fields,
    known: Option<Configured>,
    given: Draft,
    draft: Draft,
}

/// What was filled in.
///
/// # Errors
/// As [`Fields::of_form`]: the form is not shown again then, for a part of it would be saved as the whole.
fn filled(console: &Console, form: &Form) -> Result<Filled, String> {
    let mut fields = Fields::of_form(form)?;
    let kind = if form.text("of_file").is_some() { "file" } else { "stored" };
    let known = form.text("known").and_then(|name| known(console, kind, name));
    // One that is gone by now keeps its name.
    if let Some(name) = form.text("known") {
        name.clone_into(&mut fields.name);
    }
    let given = known.as_ref().and_then(|known| known.given.clone()).unwrap_or_default();
    let mut draft = fields.draft(&given, form.text("api_key"));
    if !fields.name.is_empty() {
        draft.set_first("name", fields.name.as_str().into());
    }
    Ok(Filled { fields, known, given, draft })
}

fn version(form: &Form) -> &str {
    form.text("version").unwrap_or_default()
}

/// What a form takes the place of.
fn expected(form: &Form) -> Expected {
    match (version(form), form.text("known")) {
        ("", None) => Expected::Nothing,
        // Its file could not be read.
        ("", Some(_)) => Expected::Anything,
        (version, _) => Expected::Version(version.to_owned()),
    }
}

impl Filled {
    fn page(self, console: &Console, status: &Status, asked: &Asked) -> Page {
        let title = self.known.as_ref().map_or("Add an integration", |known| known.name.as_str());
        let shell = server::shell(console, title, "integrations", status, asked);
        let sample = asked.form.raw("sample").unwrap_or_default().to_owned();
        let page = Page { sample, ..Page::new(shell, self.fields) };
        match &self.known {
            // What was read then, whatever there is by now.
            Some(known) => Page { version: version(&asked.form).to_owned(), ..page.of(known) },
            None => page,
        }
    }
}

/// A preview or a test delivery of what is filled in, or one more row to fill in. As a part of the page where the script asks.
async fn draft(console: &Console, asked: &Asked) -> Result<Answer, Refused> {
    let form = &asked.form;
    let mut filled = match filled(console, form) {
        Err(fault) if form.text("part").is_some() => {
            return Ok(answer::page(&tried::previewed(console, Err(fault)).await));
        }
        filled => filled.map_err(not_saved)?,
    };
    let tried = if form.text("do") == Some("test") {
        let event = sample(form.raw("sample").unwrap_or_default());
        let in_file = filled.known.as_ref().filter(|known| !known.origin.is_stored());
        let (draft, integration) = match in_file {
            Some(known) => (None, Some(known.name.clone())),
            None => (Some(filled.draft.clone()), None),
        };
        tried::tested(
            console,
            event.map(|event| TestAsked { draft, integration, event: Some(event) }),
        )
        .await
    } else {
        let status = console.service.status().await?;
        let given = filled.given.clone();
        let again = self::filled(console, form).map_err(not_saved)?;
        tried::previewed(console, again.page(console, &status, asked).asked(&given)).await
    };
    if form.text("part").is_some() {
        return Ok(answer::page(&tried));
    }
    add_row(&mut filled.fields, form.text("add").unwrap_or_default());
    let status = console.service.status().await?;
    let page = filled.page(console, &status, asked);
    Ok(answer::page(&Page { tried: Some(tried), ..page }))
}

fn not_saved(mut fault: String) -> Refused {
    fault.insert_str(0, "Nothing was saved: ");
    fault.push('.');
    Refused::Bad(fault)
}

/// Adds what a button asked for: `event`, `property-N` or `value-N` of the event N.
fn add_row(fields: &mut Fields, what: &str) {
    let Some((row, number)) = what.split_once('-') else {
        if what == "event" {
            fields.events.push(EventFields::default());
        }
        return;
    };
    let event = number.parse::<usize>().ok().and_then(|number| fields.events.get_mut(number));
    match (row, event) {
        ("property", Some(event)) => event.properties.push(PropertyFields::default()),
        ("value", Some(event)) => event.values.push(ValueFields::default()),
        _ => {}
    }
}

async fn save(console: &Console, asked: &Asked) -> Result<Answer, Refused> {
    let filled = filled(console, &asked.form).map_err(not_saved)?;
    let name = filled.fields.name.clone();
    let is_taken = asked.form.text("known").is_none()
        && console.service.configured().integrations.iter().any(|known| known.name == name);
    let saved = if is_taken {
        let message = format!("there is an integration {name:?} already: choose another name");
        Err(IntegrationError::Faulty(vec![DraftFault { path: "name".to_owned(), message }]))
    } else {
        console.service.save(&name, filled.draft.clone(), expected(&asked.form)).await
    };
    match saved {
        Ok(saved) => {
            let text = if saved.created {
                format!("{name} is saved, and delivered from now on.")
            } else {
                format!("{name} is saved, and in force.")
            };
            Ok(back(console, "/integrations", Notice::good(text)))
        }
        Err(error) => {
            let status = console.service.status().await?;
            let faults = match error {
                IntegrationError::Faulty(faults) => faults,
                other => vec![DraftFault { path: String::new(), message: other.to_string() }],
            };
            let page = filled.page(console, &status, asked);
            Ok(answer::html(hyper::StatusCode::UNPROCESSABLE_ENTITY, &Page { faults, ..page }))
        }
    }
}

/// Removes an integration that was made here, once that is confirmed.
async fn remove(console: &Console, asked: &Asked) -> Result<Answer, Refused> {
    let name = asked.form.text("known").unwrap_or_default().to_owned();
    if asked.form.text("confirmed") != Some("true") {
        let status = console.service.status().await?;
        let of = status.integrations.iter().find(|known| known.name == name);
        let queued = number(of.map_or(0, |known| known.lane.queued_records));
        let shell = server::shell(console, "Remove it?", "integrations", &status, asked);
        return Ok(answer::page(&Remove { shell, name, queued }));
    }
    let notice = match console.service.remove(&name).await {
        Ok(_) => Notice::good(format!(
            "{name} is removed. What is queued for it stays until it is dropped."
        )),
        Err(error) => Notice::bad(format!("{name} was not removed: {error}.")),
    };
    Ok(back(console, "/integrations", notice))
}

async fn reload(console: &Console) -> Answer {
    let notice = match console.service.reload().await {
        Ok(done) => {
            let mut notice = Notice::good("The configuration was read again.");
            for (names, what) in [
                (&done.added, "delivered from now on"),
                (&done.changed, "changed"),
                (&done.removed, "no longer configured: its queue stays"),
                (&done.needs_restart, "takes effect at the next start"),
            ] {
                notice.lines.extend(names.iter().map(|name| format!("{name}: {what}")));
            }
            notice.lines.extend(done.set_aside.iter().cloned());
            if notice.lines.is_empty() {
                notice.lines.push("Nothing has changed.".to_owned());
            }
            notice
        }
        Err(reason) => {
            let mut notice =
                Notice::bad("Nothing was changed: the old configuration stays in force.");
            notice.lines.extend(reason.lines().map(str::to_owned));
            notice
        }
    };
    back(console, "/integrations", notice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_added_where_they_were_asked_for() {
        let mut fields = Fields::fresh();
        for what in ["", "property-0", "event", "event", "property-1", "value-1", "value-9", "x-0"]
        {
            add_row(&mut fields, what);
        }
        let counts = fields.events.iter().map(|event| (event.properties.len(), event.values.len()));
        assert_eq!(counts.collect::<Vec<_>>(), [(0, 0), (1, 1)]);
    }

    #[test]
    fn every_example_is_one_event() {
        for (name, text) in EXAMPLES {
            let value: serde_json::Value = serde_json::from_str(text).expect(name);
            assert!(value["type"].is_string(), "{name}");
        }
        assert!(sample("{").unwrap_err().contains("no JSON yet"));
    }
}
