//! What the events of one request come to: records, quarantine entries, changes of identities and consent.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::intake::Fed;
use super::tally::{Ending, Tally};
use crate::clock::UnixMillis;
use crate::event::object::merge;
use crate::event::{BatchItem, Event, Kind};
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
/// Bytes of the events of one request that are kept: each has the batch's context in it, and may be far larger than what the
/// request holds of it.
pub(super) const KEPT_BYTES_MAX: usize = 8 << 20;

/// What the events of a request come to, while they are gone through in order.
pub(super) struct Draft<'a> {
    pub(super) append: Append,
    /// For each event: its items in the append, or how it ended without any.
    pub(super) events: Vec<Planned>,
    /// What is stored of those whom the events are about, and what they have changed so far.
    pub(super) identities: HashMap<IdentityKey<'a>, Option<Bytes>>,
    pub(super) integrations: &'a [Fed],
    /// The categories of consent that some integration asks for.
    pub(super) asked: BTreeSet<&'a str>,
    /// The one `@type` of all records that are made here.
    pub(super) record_type: Arc<str>,
    /// How each event ended for each integration that it was mapped for.
    pub(super) endings: Vec<(&'a Tally, Ending)>,
    pub(super) received: UnixMillis,
    /// Items whose `event_type` Ometria cuts, each with the name of its integration.
    pub(super) truncated: Vec<(usize, String)>,
    /// Bytes of events that may still be kept beside their records; 0 where none are.
    pub(super) kept_bytes_left: usize,
}

pub(super) enum Planned {
    /// The range of its items in the append, and whether they are quarantine entries.
    Items { first: usize, count: usize, quarantined: Option<(String, String)> },
    /// Accepted without a record: an identify.
    Applied,
    /// Dropped with this reason.
    Dropped(&'static str),
}

impl<'a> Draft<'a> {
    /// An empty draft of about `events` events, whose people are known by `identities`.
    pub(super) fn new(
        integrations: &'a [Fed],
        identities: HashMap<IdentityKey<'a>, Option<Bytes>>,
        received: UnixMillis,
        events: usize,
    ) -> Draft<'a> {
        let asked = integrations.iter().flat_map(|integration| &integration.rules.consent);
        let items = Vec::with_capacity(events);
        Draft {
            append: Append { items, ..Append::default() },
            events: Vec::with_capacity(events),
            identities,
            integrations,
            endings: Vec::new(),
            asked: asked.map(String::as_str).collect(),
            record_type: Arc::from(CUSTOM_EVENT),
            received,
            truncated: Vec::new(),
            kept_bytes_left: 0,
        }
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
        let entry = self.quarantine(once, kind, None, &reason, &detail, &item.body());
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

    /// What is stored for the user and for the device of an event.
    fn stored(&self, event: &Event<'_>) -> (Option<Bytes>, Option<Bytes>) {
        let (user, anonymous) = mapping::identity_keys(event);
        let stored = |key: Option<IdentityKey<'_>>| self.identities.get(&key?)?.clone();
        (stored(user), stored(anonymous))
    }

    /// Maps one event for each integration.
    fn map(
        &mut self,
        event: &Event<'_>,
        body: &dyn Fn() -> Cow<'a, str>,
    ) -> Option<(String, String)> {
        let (user, anonymous) = self.stored(event);
        let identity = Identity { user: user.as_deref(), anonymous: anonymous.as_deref() };
        let first = self.append.items.len();
        let (mut dropped, mut refused) = ("no_mapping", Vec::new());
        let (fresh, mut kept) = (OnceCell::new(), None);
        for integration in self.integrations {
            let fresh_id = || fresh.get_or_init(fresh_id).clone();
            match mapping::map(event, &identity, &integration.rules, fresh_id) {
                mapping::Outcome::Record(record) => {
                    self.endings.push((&integration.tally, Ending::Item(self.append.items.len())));
                    if record.event_type_truncated {
                        self.truncated.push((self.append.items.len(), integration.name.clone()));
                    }
                    let once =
                        event.message_id.as_deref().map(|id| Once::new(integration.scope, id));
                    let person = person_of(event, record.identity_email.as_deref());
                    let event = kept.get_or_insert_with(|| self.kept(body)).clone();
                    self.append.items.push(Item {
                        once,
                        content: Content::Record {
                            lane: integration.lane(person),
                            record_type: self.record_type.clone(),
                            record: Bytes::from(record.bytes),
                            person: PersonKeys::new(person::needs(person).map(PersonKey)),
                            first_seen: None,
                            event,
                        },
                    });
                }
                mapping::Outcome::Dropped(reason) => {
                    self.endings.push((&integration.tally, Ending::Dropped(reason)));
                    dropped = reason.code();
                }
                mapping::Outcome::Refused { reason, detail } => {
                    refused.push((integration, reason, detail));
                }
                mapping::Outcome::Identity => {}
            }
        }
        let records = self.append.items.len() - first;
        if records == 0 {
            // In a batch the event itself becomes the next item, for the quarantine.
            let set_aside = Ending::Quarantined(self.append.items.len());
            self.endings.extend(refused.iter().map(|(fed, ..)| (&*fed.tally, set_aside)));
            if let Some((_, reason, detail)) = refused.into_iter().next() {
                return Some((reason.to_owned(), detail));
            }
            self.events.push(Planned::Dropped(dropped));
            return None;
        }
        for (integration, reason, detail) in refused {
            let once = event.message_id.as_deref().map(|id| Once::new(integration.scope, id));
            let kind = event.kind.as_str().to_owned();
            let set_aside = Ending::Quarantined(self.append.items.len());
            self.endings.push((&integration.tally, set_aside));
            let name = Some(integration.name.clone());
            let item = self.quarantine(once, kind, name, reason, &detail, &body());
            self.append.items.push(item);
        }
        let count = self.append.items.len() - first;
        self.events.push(Planned::Items { first, count, quarantined: None });
        None
    }

    /// The text of an event, to be kept beside each of its records.
    fn kept(&mut self, body: &dyn Fn() -> Cow<'a, str>) -> Option<Bytes> {
        if self.kept_bytes_left == 0 {
            return None;
        }
        let text = body();
        let left = self.kept_bytes_left.checked_sub(text.len())?;
        (text.len() <= EVENT_BYTES_MAX).then(|| {
            self.kept_bytes_left = left;
            Bytes::from(text.into_owned())
        })
    }

    /// Merges the traits of an identify, for the later events of this request and for good.
    fn identify(&mut self, event: &'a Event<'_>) -> Option<(String, String)> {
        if let Some(detail) = mapping::traits_too_large(event) {
            return Some(("too_large".to_owned(), detail));
        }
        let changes = mapping::identity_change(event);
        let mut merged = Vec::with_capacity(changes.len());
        for (key, traits) in &changes {
            let old = self.identities.get(key).cloned().flatten();
            let new = merge(old.as_deref(), traits);
            if new.len() > RECORD_BYTES_MAX {
                let detail =
                    format!("the traits of this person would take over {RECORD_BYTES_MAX} bytes");
                return Some(("too_large".to_owned(), detail));
            }
            merged.push((*key, Some(Bytes::from(new))));
        }
        self.identities.extend(merged);
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
        let (user, anonymous) = self.stored(event);
        let identity = Identity { user: user.as_deref(), anonymous: anonymous.as_deref() };
        let email = mapping::email(event, &identity);
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

    fn quarantine(
        &self,
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
            at: self.received,
            body: raw.as_bytes().to_vec(),
            first_at: self.received,
        };
        Item { once, content: Content::Quarantine(Box::new(entry)) }
    }
}

/// The id of a record whose event brings none.
fn fresh_id() -> String {
    let mut text = *b"evt_00000000000000000000000000000000";
    let (_, digits) = text.split_at_mut(4);
    Uuid::now_v7().simple().encode_lower(digits);
    String::from_utf8_lossy(&text).into_owned()
}

fn person_of<'p>(event: &'p Event<'_>, email: Option<&'p str>) -> Person<'p> {
    Person { email, user: event.user_id.as_deref(), anonymous: event.anonymous_id.as_deref() }
}

/// All identities that `events` ask for.
pub(super) fn identity_keys<'e, 'a: 'e>(
    events: impl IntoIterator<Item = &'e Event<'a>>,
) -> HashSet<IdentityKey<'e>> {
    let mut keys = HashSet::new();
    for event in events {
        let (user, anonymous) = mapping::identity_keys(event);
        keys.extend(user.into_iter().chain(anonymous));
    }
    keys
}
