//! What the events of one request come to: records, quarantine entries, changes of identities and consent.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;

use super::drafted::{Drafted, Planned, Told};
use super::intake::Fed;
use super::tally::Ending;
use crate::clock::UnixMillis;
use crate::event::object::merge;
use crate::event::{BatchItem, Event, Kind};
use crate::fresh_id::fresh_id;
use crate::mapping::person::{self, Person};
use crate::mapping::record::CUSTOM_EVENT;
use crate::mapping::{self, Identity, IdentityKey, consent};
use crate::spool::{
    Append, Consent, Content, EVENT_BYTES_MAX, Item, Once, Origin, PersonKey, PersonKeys,
    Quarantined, RECORD_BYTES_MAX,
};

/// The scope of events that no integration could read: their digest is that of their bytes.
const INVALID_SCOPE: u32 = 0;
/// The scope of events that say something about consent and become no record.
const CONSENT_SCOPE: u32 = u32::MAX;
/// Room that is made ahead for the records of one request.
const BUFFER_BYTES_MAX: usize = 1 << 20;
/// Bytes of the events of one request that are kept, over all integrations: each has the batch's context in it, and may be far
/// larger than what the request holds of it.
const KEPT_BYTES_MAX: usize = 8 << 20;
/// And so many times the request's own bytes: those are what waiting requests are counted by.
const KEPT_OF_BODY_MAX: usize = 4;

/// What the events of a request come to, while they are gone through in order.
pub(super) struct Draft<'a> {
    append: Append,
    /// The records of `append`, one after the other, and how long each is: one buffer for all, as who commits them is another
    /// thread, to which memory is costly to hand over.
    records: Vec<u8>,
    lengths: Vec<usize>,
    /// See [`Told`].
    events: Vec<Planned>,
    /// What is stored of those whom the events are about, and what they have changed so far.
    identities: Identities<'a>,
    integrations: &'a [Fed],
    /// The categories of consent that some integration asks for.
    asked: BTreeSet<&'a str>,
    /// The one `@type` of all records that are made here.
    record_type: Arc<str>,
    /// For each integration: how the events that were mapped for it ended.
    endings: Vec<Vec<Ending>>,
    received: UnixMillis,
    /// See [`Told`].
    truncated: Vec<(usize, String)>,
    /// Bytes of events that may still be kept beside their records; 0 where none are.
    kept_bytes_left: usize,
    /// Bytes of the events that are set aside.
    pub(super) aside_bytes: usize,
}

impl<'a> Draft<'a> {
    /// An empty draft of about `events` events in `bytes` bytes, whose people are known by `identities`.
    pub(super) fn new(
        integrations: &'a [Fed],
        identities: Identities<'a>,
        received: UnixMillis,
        (events, bytes): (usize, usize),
    ) -> Draft<'a> {
        let asked = integrations.iter().flat_map(|integration| &integration.rules.consent);
        let items = Vec::with_capacity(events);
        // A record is about as long as its event.
        let records =
            Vec::with_capacity(bytes.saturating_mul(integrations.len()).min(BUFFER_BYTES_MAX));
        Draft {
            append: Append { items, ..Append::default() },
            records,
            lengths: Vec::with_capacity(events),
            events: Vec::with_capacity(events),
            identities,
            integrations,
            endings: integrations.iter().map(|_| Vec::with_capacity(events)).collect(),
            asked: asked.map(String::as_str).collect(),
            record_type: Arc::from(CUSTOM_EVENT),
            received,
            truncated: Vec::new(),
            kept_bytes_left: 0,
            aside_bytes: 0,
        }
    }

    /// This draft, where each event is kept beside its records: as far as that does not take much more than the request.
    pub(super) fn keeping_events(self, bytes: usize) -> Draft<'a> {
        let each = KEPT_BYTES_MAX / self.integrations.len().max(1);
        Draft { kept_bytes_left: each.min(bytes.saturating_mul(KEPT_OF_BODY_MAX)), ..self }
    }

    pub(super) fn add_item(&mut self, item: &'a BatchItem<'_>) {
        let (reason, detail) = match &item.event {
            Ok(event) => match self.add(event, &|| item.body()) {
                Some(refused) => refused,
                None => return,
            },
            Err(error) => ("invalid_event".to_owned(), error.to_string()),
        };
        let kind = item.kind.map_or_else(String::new, |kind| kind.as_str().to_owned());
        let first = self.append.items.len();
        let once = Some(Once::new(INVALID_SCOPE, item.raw()));
        let body = item.body();
        self.aside_bytes += body.len();
        let entry = quarantine(self.received, once, kind, None, &reason, &detail, &body);
        self.append.items.push(entry);
        self.events.push(Planned::Items { first, count: 1, quarantined: Some((reason, detail)) });
    }

    /// Takes one event in, whose text `body` gives where it is asked for. Returns reason and detail, and adds nothing, when it
    /// is not valid or no integration can take it.
    pub(super) fn add(
        &mut self,
        event: &'a Event<'_>,
        body: &dyn Fn() -> Cow<'a, str>,
    ) -> Option<(String, String)> {
        let first = self.append.items.len();
        let refused =
            if event.kind == Kind::Identify { self.identify(event) } else { self.map(event, body) };
        if refused.is_none() {
            self.consent(event, first);
        }
        refused
    }

    /// Maps one event for each integration.
    fn map(
        &mut self,
        event: &Event<'_>,
        body: &dyn Fn() -> Cow<'a, str>,
    ) -> Option<(String, String)> {
        let identity = self.identities.about(event);
        let first = self.append.items.len();
        let (mut dropped, mut refused) = ("no_mapping", Vec::new());
        let (fresh, mut kept) = (OnceCell::new(), None);
        for (integration, endings) in self.integrations.iter().zip(&mut self.endings) {
            let fresh_id = || fresh.get_or_init(|| fresh_id(self.received)).clone();
            match mapping::map(event, &identity, &integration.rules, fresh_id) {
                mapping::Outcome::Record(record) => {
                    endings.push(Ending::Item(self.append.items.len()));
                    if record.event_type_truncated {
                        self.truncated.push((self.append.items.len(), integration.name.clone()));
                    }
                    let once =
                        event.message_id.as_deref().map(|id| Once::new(integration.scope, id));
                    let person = person_of(event, record.identity_email.as_deref());
                    self.records.extend_from_slice(&record.bytes);
                    self.lengths.push(record.bytes.len());
                    let left = &mut self.kept_bytes_left;
                    let event = kept.get_or_insert_with(|| keep(left, body)).clone();
                    self.append.items.push(Item {
                        once,
                        content: Content::Record {
                            lane: integration.lane(person),
                            record_type: self.record_type.clone(),
                            record: Bytes::new(), // see `finish`
                            person: PersonKeys::new(person::needs(person).map(PersonKey)),
                            first_seen: None,
                            event,
                        },
                    });
                }
                mapping::Outcome::Dropped(reason) => {
                    endings.push(Ending::Dropped(reason));
                    dropped = reason.code();
                }
                mapping::Outcome::Refused { reason, detail } => {
                    refused.push((integration, endings, reason, detail));
                }
                mapping::Outcome::Identity => {}
            }
        }
        let records = self.append.items.len() - first;
        if records == 0 {
            // In a batch the event itself becomes the next item, for the quarantine.
            let set_aside = Ending::Quarantined(self.append.items.len());
            for (_, endings, ..) in &mut refused {
                endings.push(set_aside);
            }
            if let Some((.., reason, detail)) = refused.into_iter().next() {
                return Some((reason.to_owned(), detail));
            }
            self.events.push(Planned::Dropped(dropped));
            return None;
        }
        for (integration, endings, reason, detail) in refused {
            let once = event.message_id.as_deref().map(|id| Once::new(integration.scope, id));
            let kind = event.kind.as_str().to_owned();
            endings.push(Ending::Quarantined(self.append.items.len()));
            let name = Some(integration.name.clone());
            let body = body();
            self.aside_bytes += body.len();
            let item = quarantine(self.received, once, kind, name, reason, &detail, &body);
            self.append.items.push(item);
        }
        let count = self.append.items.len() - first;
        self.events.push(Planned::Items { first, count, quarantined: None });
        None
    }

    /// Merges the traits of an identify, for the later events of this request and for good.
    fn identify(&mut self, event: &'a Event<'_>) -> Option<(String, String)> {
        if let Some(detail) = mapping::traits_too_large(event) {
            return Some(("too_large".to_owned(), detail));
        }
        let changes = mapping::identity_change(event);
        let mut merged = Vec::with_capacity(changes.len());
        for (key, traits) in &changes {
            let old = self.identities.get(*key).cloned();
            let new = merge(old.as_deref(), traits);
            if new.len() > RECORD_BYTES_MAX {
                let detail =
                    format!("the traits of this person would take over {RECORD_BYTES_MAX} bytes");
                return Some(("too_large".to_owned(), detail));
            }
            merged.push((*key, Bytes::from(new)));
        }
        for (key, traits) in merged {
            self.identities.set(key, traits);
        }
        self.append
            .identities
            .extend(changes.into_iter().map(|(key, traits)| (key.stored(), Bytes::from(traits))));
        self.events.push(Planned::Applied);
        None
    }

    /// Takes what the event says about the categories that an integration asks for. `first` is its first item, if it has any.
    fn consent(&mut self, event: &Event<'_>, first: usize) {
        let stated = consent::stated(&event.context, self.asked.iter().copied());
        if stated.is_empty() {
            return;
        }
        let email = mapping::email(event, &self.identities.about(event));
        let mut item = (first < self.append.items.len()).then_some(first);
        if item.is_none()
            && let Some(id) = event.message_id.as_deref()
        {
            item = Some(first);
            let once = Some(Once::new(CONSENT_SCOPE, id));
            self.append.items.push(Item { once, content: Content::Nothing });
        }
        for person in person::says(person_of(event, email.as_deref())).map(PersonKey) {
            self.append.consents.extend(stated.iter().map(|(category, granted)| Consent {
                person,
                category: (*category).to_owned(),
                granted: *granted,
                item,
            }));
        }
    }

    /// What it has come to.
    pub(super) fn finish(self) -> Drafted {
        let mut append = self.append;
        let mut records = Bytes::from(self.records);
        let drafted = append.items.iter_mut().filter_map(|item| match &mut item.content {
            Content::Record { record, .. } => Some(record),
            Content::Quarantine(_) | Content::Nothing => None,
        });
        for (record, length) in drafted.zip(self.lengths) {
            *record = records.split_to(length);
        }
        let tallies = self.integrations.iter().map(|integration| integration.tally.clone());
        let endings = tallies.zip(self.endings).collect();
        let told = Told { events: self.events, endings, truncated: self.truncated };
        Drafted { append, told }
    }
}

/// What is stored of those whom the events of a request are about, in the order of their keys.
pub(super) struct Identities<'a>(Vec<(IdentityKey<'a>, Option<Bytes>)>);

impl<'a> Identities<'a> {
    /// Those whom `events` are about, of whom nothing is known yet.
    pub(super) fn of<'e: 'a>(events: impl IntoIterator<Item = &'a Event<'e>>) -> Identities<'a> {
        let keys = events.into_iter().flat_map(|event| {
            let (user, anonymous) = mapping::identity_keys(event);
            user.into_iter().chain(anonymous)
        });
        let mut keys: Vec<_> = keys.map(|key| (key, None)).collect();
        keys.sort_unstable_by_key(|(key, _)| *key);
        keys.dedup_by_key(|(key, _)| *key);
        Identities(keys)
    }

    /// The keys that they are stored under.
    pub(super) fn stored_keys(&self) -> Vec<String> {
        self.0.iter().map(|(key, _)| key.stored()).collect()
    }

    /// The same, of whom all is known: `traits`, in the order of the keys.
    pub(super) fn with(mut self, traits: Vec<Option<Bytes>>) -> Identities<'a> {
        self.0.iter_mut().zip(traits).for_each(|((_, known), traits)| *known = traits);
        self
    }

    fn get(&self, key: IdentityKey<'_>) -> Option<&Bytes> {
        let at = self.0.binary_search_by(|(known, _)| known.cmp(&key)).ok()?;
        self.0.get(at)?.1.as_ref()
    }

    fn set(&mut self, key: IdentityKey<'_>, traits: Bytes) {
        let at = self.0.binary_search_by(|(known, _)| known.cmp(&key));
        let at = at.expect("the keys of all events are there");
        if let Some((_, known)) = self.0.get_mut(at) {
            *known = Some(traits);
        }
    }

    /// What is stored of those whom one event is about.
    fn about(&self, event: &Event<'_>) -> Identity<'_> {
        let (user, anonymous) = mapping::identity_keys(event);
        let traits = |key: Option<IdentityKey<'_>>| self.get(key?).map(|traits| &traits[..]);
        Identity { user: traits(user), anonymous: traits(anonymous) }
    }
}

/// The text of an event, to be kept beside each of its records, as long as there are bytes `left` for it.
fn keep<'a>(left: &mut usize, body: &dyn Fn() -> Cow<'a, str>) -> Option<Bytes> {
    if *left == 0 {
        return None;
    }
    let text = body();
    let fits = text.len() <= EVENT_BYTES_MAX.min(*left);
    // One that does not fit has cost its making.
    *left = left.saturating_sub(text.len());
    fits.then(|| Bytes::from(text.into_owned()))
}

/// An event for the quarantine.
fn quarantine(
    received: UnixMillis,
    once: Option<Once>,
    kind: String,
    integration: Option<String>,
    reason: &str,
    detail: &str,
    raw: &str,
) -> Item {
    let entry = Quarantined {
        origin: Origin::Event { kind, integration },
        reason: reason.to_owned(),
        detail: detail.to_owned(),
        status: None,
        at: received,
        body: raw.as_bytes().to_vec(),
        first_at: received,
    };
    Item { once, content: Content::Quarantine(Box::new(entry)) }
}

fn person_of<'p>(event: &'p Event<'_>, email: Option<&'p str>) -> Person<'p> {
    Person { email, user: event.user_id.as_deref(), anonymous: event.anonymous_id.as_deref() }
}
