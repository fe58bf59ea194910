//! One body: events → records → one append; then the append → the answer.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, PoisonError, RwLock};

use super::answer::{Refusal, Taken};
use super::draft::{Draft, Identities};
use super::drafted::{Drafted, Planned, Told};
use super::push;
use super::tally::{Ending, Tallied, Tallies, Tally};
use crate::clock::UnixMillis;
use crate::event::{self, BatchItem, BodyError, DEPTH_MAX, Kind, repair};
use crate::mapping::person::{self, Person};
use crate::mapping::{self, Rules};
use crate::spool::{
    Append, AppendError, Content, Item, LaneId, PersonKey, PersonKeys, QuarantineId,
    RECORD_BYTES_MAX, Spool,
};

/// Events in one request: what a batch is read into takes memory beside its text.
const BATCH_EVENTS_MAX: usize = 5000;
/// What the events of one request that are set aside may take beyond the request's own bytes: each has the batch's context.
const ASIDE_BYTES_MAX: usize = 16 << 20;

// What the mapping lets through, the spool takes: neither knows the other.
const _: () = assert!(mapping::RECORD_BYTES_MAX <= RECORD_BYTES_MAX);

/// An integration as the intake sees it.
#[derive(Clone, Debug)]
pub struct Integration {
    /// Its name.
    pub name: String,
    /// Where its records go, by their person; at least one.
    pub lanes: Vec<LaneId>,
    /// The scope of its dedupe window; never changes.
    pub scope: u32,
    /// What its events become.
    pub rules: Rules,
}

impl Integration {
    /// The lane of a record about the person of `event`.
    pub(super) fn lane(&self, person: Person<'_>) -> LaneId {
        let index = person::lane(person, self.lanes.len());
        *self.lanes.get(index).expect("an integration has a lane")
    }
}

/// An integration with the counts of what it is fed.
#[derive(Debug)]
pub(super) struct Fed {
    integration: Integration,
    pub(super) tally: Arc<Tally>,
}

impl Deref for Fed {
    type Target = Integration;

    fn deref(&self) -> &Integration {
        &self.integration
    }
}

/// Turns bodies into appends.
#[derive(Debug)]
pub struct Intake {
    spool: Spool,
    integrations: RwLock<Arc<[Fed]>>,
    tallies: Tallies,
}

/// Why an event of the quarantine was not taken in again. It stays where it was.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// It is still not valid, or its integration is gone.
    #[error("{0}")]
    Invalid(String),
    /// The spool refused.
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl Intake {
    /// An intake for `integrations`.
    #[must_use]
    pub fn new(spool: Spool, integrations: Vec<Integration>) -> Intake {
        let nobody = RwLock::new(Vec::new().into());
        let intake = Intake { spool, integrations: nobody, tallies: Tallies::default() };
        intake.feed(integrations);
        intake
    }

    /// Feeds other integrations from now on; requests under way end with those they began with.
    pub fn feed(&self, integrations: Vec<Integration>) {
        let fed = integrations.into_iter().map(|integration| {
            let tally = self.tallies.of(&integration.name);
            Fed { integration, tally }
        });
        let fed = fed.collect();
        *self.integrations.write().unwrap_or_else(PoisonError::into_inner) = fed;
    }

    /// What became of events, by integration. What an operator takes in again from the quarantine is not counted twice.
    #[must_use]
    pub fn tallied(&self) -> BTreeMap<String, Tallied> {
        self.tallies.read()
    }

    fn integrations(&self) -> Arc<[Fed]> {
        self.integrations.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Those that are fed: at least one. Without any, each event would end nowhere (Promise 6).
    fn fed(&self) -> Result<Arc<[Fed]>, Refusal> {
        let integrations = self.integrations();
        if integrations.is_empty() {
            let message = "no integration is configured: `pillarbox integration add` makes one";
            return Err(Refusal::new("no_integration", message));
        }
        Ok(integrations)
    }

    /// The lane of an integration's records about the person with this address; `None` when it is not configured.
    #[must_use]
    pub fn lane(&self, integration: &str, email: Option<&str>) -> Option<LaneId> {
        let integrations = self.integrations();
        let known = integrations.iter().find(|known| known.name == integration);
        known.map(|known| known.lane(Person { email, ..Person::default() }))
    }

    /// Whether a request would be refused now.
    ///
    /// # Errors
    /// With the reason.
    pub fn accepting(&self) -> Result<(), Refusal> {
        self.spool.accepting()?;
        self.fed().map(drop)
    }

    /// Reads a body that is one event of `kind`.
    ///
    /// # Errors
    /// A refusal: nothing of it may be stored.
    pub async fn single(
        &self,
        kind: Kind,
        body: &[u8],
        received: UnixMillis,
    ) -> Result<Drafted, Refusal> {
        let body = repair(body, DEPTH_MAX)?;
        let event = event::single(&body, kind, received)?;
        let integrations = self.fed()?;
        let size = (1, body.len());
        let mut draft = self.draft(&integrations, Identities::of([&event]), received, size).await?;
        if let Some((reason, detail)) = draft.add(&event, &|| Cow::Borrowed(&*body)) {
            return Err(Refusal::new(
                if reason == "too_large" { "too_large" } else { "invalid_event" },
                detail,
            ));
        }
        Ok(draft.finish())
    }

    /// Reads a body of many events. Each invalid one goes to the quarantine and costs the others nothing.
    ///
    /// # Errors
    /// A refusal: nothing of it may be stored.
    pub async fn batch(&self, body: &[u8], received: UnixMillis) -> Result<Drafted, Refusal> {
        let body = repair(body, DEPTH_MAX)?;
        let mut batch = event::batch(&body, received)?;
        if batch.len() > BATCH_EVENTS_MAX {
            let message = format!(
                "a batch of {} events: send at most {BATCH_EVENTS_MAX} at once",
                batch.len()
            );
            return Err(Refusal::new("too_large", message));
        }
        let items: Vec<BatchItem<'_>> = batch.take();
        let valid = items.iter().filter_map(|item| item.event.as_ref().ok());
        let integrations = self.fed()?;
        let people = Identities::of(valid);
        let size = (items.len(), body.len());
        let mut draft = self.draft(&integrations, people, received, size).await?;
        let aside_max = ASIDE_BYTES_MAX + body.len().saturating_mul(integrations.len());
        for item in &items {
            draft.add_item(item);
            if draft.aside_bytes > aside_max {
                let message = format!(
                    "events that cannot be delivered are kept with the batch's context, which here would take over {aside_max} bytes: send fewer at once, or mend them"
                );
                return Err(Refusal::new("too_large", message));
            }
        }
        Ok(draft.finish())
    }

    /// Reads records that are ready to be delivered, for one integration or for all. No repeat is looked for: an order is sent
    /// again under its id whenever it changes, and upstream merges what comes twice.
    ///
    /// # Errors
    /// A refusal: nothing of it may be stored.
    pub fn push(&self, body: &[u8], integration: Option<&str>) -> Result<Drafted, Refusal> {
        let push = push::read(body)?;
        let integrations = self.fed()?;
        let asked = |known: &&Fed| integration.is_none_or(|name| known.name == name);
        let asked: Vec<&Fed> = integrations.iter().filter(asked).collect();
        if asked.is_empty() {
            let name = integration.unwrap_or_default();
            let message = format!(
                "no integration {name:?} is configured: name one that is, or none to reach all"
            );
            return Err(Refusal::new("not_found", message));
        }
        let record_type: Arc<str> = push.record_type.into();
        let mut append = Append::default();
        let mut events = Vec::with_capacity(push.records.len());
        for record in &push.records {
            let (first, count) = (append.items.len(), asked.len());
            events.push(Planned::Items { first, count, quarantined: None });
            append.items.extend(asked.iter().map(|integration| {
                let email = record.email.as_deref();
                let lane = integration.lane(Person { email, ..Person::default() });
                let (record_type, record) = (record_type.clone(), record.bytes.clone());
                // Who pushes records has asked for consent where it is needed; a contact may be the very news of its end.
                // The person can be erased all the same.
                let person = PersonKeys::new(email.map(person::ready).map(PersonKey));
                Item {
                    once: None,
                    content: Content::Record {
                        lane,
                        record_type,
                        record,
                        person,
                        first_seen: None,
                        event: None,
                    },
                }
            }));
        }
        let ending = |place: usize| (place..append.items.len()).step_by(asked.len());
        let endings = asked.iter().enumerate().map(|(place, integration)| {
            (integration.tally.clone(), ending(place).map(Ending::Item).collect())
        });
        let told = Told { events, endings: endings.collect(), truncated: Vec::new() };
        Ok(Drafted { append, told })
    }

    /// Stores what was drafted, and says what became of each event. All of it is durable when this returns (Promise 1).
    ///
    /// # Errors
    /// A refusal: nothing was stored.
    pub fn commit(&self, drafted: Drafted) -> impl Future<Output = Result<Taken, Refusal>> + Send {
        let Drafted { append, told } = drafted;
        let nothing =
            append.items.is_empty() && append.identities.is_empty() && append.consents.is_empty();
        let appended = (!nothing).then(|| self.spool.append(append));
        async move {
            let duplicates = match appended {
                Some(appended) => appended.await?.duplicates,
                None => Vec::new(),
            };
            Ok(told.taken(&duplicates))
        }
    }

    /// Takes an event of the quarantine, where it is since `received`, in again, for one integration or for all, and removes
    /// it from there.
    ///
    /// # Errors
    /// [`ReplayError`]: the event stays in the quarantine.
    pub async fn replay(
        &self,
        body: &[u8],
        integration: Option<&str>,
        received: UnixMillis,
        release: QuarantineId,
    ) -> Result<(), ReplayError> {
        let invalid = |message: String| ReplayError::Invalid(message);
        let text = std::str::from_utf8(body).map_err(|error| invalid(error.to_string()))?;
        let batch = format!("[{text}]");
        let batch = event::batch(&batch, received);
        let mut batch = batch.map_err(|error| invalid(error.to_string()))?;
        let items = batch.take();
        let [item] = &items[..] else {
            return Err(invalid("it is not one event".to_owned()));
        };
        let event = item.event.as_ref().map_err(|error| invalid(error.to_string()))?;
        let all = self.integrations();
        let asked = match integration {
            None => Some(&*all),
            Some(name) => {
                let found = all.iter().position(|known| known.name == name);
                found.and_then(|index| all.get(index..=index))
            }
        };
        let Some(integrations) = asked else {
            let name = integration.unwrap_or_default();
            return Err(invalid(format!("integration {name:?} is not configured")));
        };
        let size = (1, body.len());
        let drafted = self.draft(integrations, Identities::of([event]), received, size).await;
        let mut draft = drafted.map_err(|refusal| invalid(refusal.message))?;
        if let Some((_, detail)) = draft.add(event, &|| item.body()) {
            return Err(invalid(detail));
        }
        let Drafted { mut append, told } = draft.finish();
        if let Some(Planned::Dropped(reason)) = told.events.first() {
            return Err(invalid(format!(
                "it would be dropped ({reason}): drop it, or change the mapping"
            )));
        }
        for item in &mut append.items {
            item.once = None; // asked for by an operator
            if let Content::Record { first_seen, .. } = &mut item.content {
                *first_seen = Some(received);
            }
        }
        // It came before everything that was said since.
        append.consents.retain(|said| !said.granted);
        append.releases.push(release);
        self.spool.append(append).await?;
        Ok(())
    }

    /// An empty draft of about so many events and bytes, for which what is stored of `people` is looked up.
    async fn draft<'a>(
        &self,
        integrations: &'a [Fed],
        people: Identities<'a>,
        received: UnixMillis,
        size: (usize, usize),
    ) -> Result<Draft<'a>, Refusal> {
        let keys = people.stored_keys();
        let traits = if keys.is_empty() { Vec::new() } else { self.spool.identities(keys).await? };
        let draft = Draft::new(integrations, people.with(traits), received, size);
        Ok(if self.spool.keeps_events() { draft.keeping_events(size.1) } else { draft })
    }
}

impl From<BodyError> for Refusal {
    fn from(error: BodyError) -> Refusal {
        Refusal::new(error.code(), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::mapping::Preset;
    use crate::spool::{Drive, Options, SyncMode};

    async fn intake(directory: &Path) -> (Spool, LaneId, Intake) {
        let options = Options {
            directory: directory.join("spool"),
            sync: SyncMode::Always,
            cache_bytes: 8 << 20,
            records_max: 100,
            bytes_max: 1 << 20,
            free_disk_min_bytes: 0,
            keep_delivered: 0,
            keep_events: false,
            dedupe_window: 10,
            identities_max: 1_000_000,
        };
        let spool = Spool::open(options, Drive::Thread).unwrap();
        let lane = spool.lane("uk", 0).await.unwrap();
        let rules = Rules::new(Preset::Retail, Vec::new());
        let (name, lanes, scope) = ("uk".to_owned(), vec![lane], lane.0);
        let integration = Integration { name, lanes, scope, rules };
        let intake = Intake::new(spool.clone(), vec![integration]);
        (spool, lane, intake)
    }

    /// Promise 7: a small request with a large context does not become a large append.
    #[tokio::test]
    async fn a_context_is_not_set_aside_over_and_over() {
        let directory = tempfile::tempdir().unwrap();
        let (spool, _, intake) = &intake(directory.path()).await;
        let batch = |invalid: usize| {
            let pad = "x".repeat(100_000);
            let events = vec![r#"{"type":"x"}"#; invalid].join(",");
            format!(r#"{{"context":{{"pad":"{pad}"}},"batch":[{events},{{"type":"y"}}]}}"#)
        };
        let drafted =
            |invalid| async move { intake.batch(batch(invalid).as_bytes(), UnixMillis(0)).await };
        let refused = drafted(400).await.unwrap_err();
        assert_eq!((refused.code, spool.quarantine_count()), ("too_large", 0));
        // The same event again is a repeat.
        let taken = intake.commit(drafted(100).await.unwrap()).await.unwrap();
        assert_eq!((taken.quarantined, taken.duplicate, spool.quarantine_count()), (2, 99, 2));
        spool.close().await;
    }

    /// Promise 6: what is pushed counts once for each integration that it goes to, and is told once.
    #[tokio::test]
    async fn a_push_counts_for_those_that_it_is_for() {
        let directory = tempfile::tempdir().unwrap();
        let (spool, uk, intake) = intake(directory.path()).await;
        let de = spool.lane("de", 0).await.unwrap();
        let fed = [("uk", uk), ("de", de)].map(|(name, lane)| Integration {
            name: name.to_owned(),
            lanes: vec![lane],
            scope: lane.0,
            rules: Rules::new(Preset::Retail, Vec::new()),
        });
        intake.feed(fed.into());
        let body = br#"[{"@type":"order","id":"1"},{"@type":"order","id":"2"}]"#;
        for (asked, counts) in [(None, (2, 2)), (Some("de"), (2, 4))] {
            let taken = intake.commit(intake.push(body, asked).unwrap()).await.unwrap();
            assert_eq!((taken.accepted, taken.items.len()), (2, 0));
            let tallied = intake.tallied();
            assert_eq!((tallied["uk"].accepted, tallied["de"].accepted), counts);
            assert_eq!((*spool.newest(uk).borrow(), *spool.newest(de).borrow()), counts);
        }
        spool.close().await;
    }

    /// Promise 6: an operator's retry never ends an event in silence.
    #[tokio::test]
    async fn a_retry_that_would_drop_the_event_keeps_it() {
        let directory = tempfile::tempdir().unwrap();
        let (spool, lane, intake) = intake(directory.path()).await;
        let (now, id) = (UnixMillis(0), QuarantineId(1));
        let drafted = intake.batch(br#"[{"type":"track"}]"#, now).await.unwrap();
        let taken = intake.commit(drafted).await.unwrap();
        assert_eq!((taken.quarantined, spool.quarantine_count()), (1, 1));
        for (body, why) in [
            (&br#"{"type":"track"}"#[..], "event is missing"),
            (br#"{"type":"track","event":"Nap Taken"}"#, "it would be dropped (no_mapping)"),
        ] {
            let error = intake.replay(body, None, now, id).await.unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert_eq!(spool.quarantine_count(), 1);
        }
        intake.replay(br#"{"type":"page"}"#, None, now, id).await.unwrap();
        assert_eq!((spool.quarantine_count(), *spool.newest(lane).borrow()), (0, 1));
        spool.close().await;
    }
}
