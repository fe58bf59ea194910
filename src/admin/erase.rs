//! A person is erased: from the identities, the quarantine and the queue.
//!
//! A person is known by e-mail address, user ids and devices; who asks names one of them, and the stored identities tell the
//! others. What is queued is not rewritten: it is left out when its turn comes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::filter::{QuarantineFilter, address, emails};
use super::protocol::{Erased, Selection, Who};
use super::service::{PAGE_ENTRIES, Service};
use crate::forward::verdict::record_id;
use crate::mapping::IdentityKey;
use crate::mapping::person::{self, Person};
use crate::spool::{
    Append, AppendError, Origin, PersonKey, QuarantineId, Quarantined, ReadError, Seq,
};

/// Identities and records that are read at once.
const READ_MAX: usize = 1000;
const READ_BYTES_MAX: usize = 4 << 20;

/// Why a person was not erased, or not everywhere.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    /// Nobody is named.
    #[error("name an e-mail address or a user id")]
    Nobody,
    /// The spool could not be read: what was not reached may still be there.
    #[error("{0}: ask for it again once that is mended")]
    Read(#[from] ReadError),
    /// The spool takes nothing.
    #[error("{0}: ask for it again once that is mended")]
    Append(#[from] AppendError),
    /// The same, while entries of the quarantine were removed.
    #[error(
        "{0}: not all of the quarantine was gone through; ask for it again once that is mended"
    )]
    Stopped(String),
}

/// All that is known to be one person.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ids {
    /// Trimmed, in lower case.
    emails: BTreeSet<String>,
    users: BTreeSet<String>,
    devices: BTreeSet<String>,
    /// The keys of their identities.
    identities: Vec<String>,
}

/// Erases `who`, and says what that came to. Asking twice does no harm.
///
/// # Errors
/// See [`EraseError`].
pub(super) async fn run(service: &Service, who: Who) -> Result<Erased, EraseError> {
    let ids = find(service, who).await?;
    let spool = service.spool();
    let people: Vec<PersonKey> = ids.people().map(PersonKey).collect();
    let forgets = ids.identities.clone();
    spool.append(Append { forgets, erases: people, ..Append::default() }).await?;
    let mut erased = Erased { identities: ids.identities.len() as u64, ..Erased::default() };
    let mut from = QuarantineId(0);
    loop {
        let page = service.page(from, PAGE_ENTRIES, &QuarantineFilter::default()).await?;
        let Some((last, _)) = page.last() else { break };
        from = QuarantineId(last.0 + 1);
        let found = page.iter().filter(|(_, entry)| ids.are_in(entry)).map(|(id, _)| *id);
        let dropped = service.drop_entries(Selection::Ids(found.collect())).await?;
        erased.quarantined += dropped.released;
        if let Some(reason) = dropped.stopped {
            return Err(EraseError::Stopped(reason));
        }
    }
    for (lane, ..) in spool.lanes() {
        let (mut next, newest) = (spool.cursor(lane), *spool.newest(lane).borrow());
        while next.0 <= newest {
            let entries = spool.peek_kept(lane, next, READ_MAX, READ_BYTES_MAX).await?;
            let Some(last) = entries.last() else { break };
            next = Seq(last.seq.0 + 1);
            erased.queued += spool.erased(lane, &entries).await?.len() as u64;
        }
    }
    Ok(erased)
}

/// All that the identities know of `who`.
async fn find(service: &Service, who: Who) -> Result<Ids, EraseError> {
    let mut ids = Ids::default();
    let mut user = None;
    match who {
        Who::Email(email) => ids.emails.extend(address(&email)),
        Who::User(id) => {
            let key = IdentityKey::User(&id).stored();
            let stored = service.spool().identities(vec![key.clone()]).await?;
            let traits = stored.into_iter().flatten().next();
            ids.emails.extend(traits.and_then(|traits| email_of(&traits)));
            ids.users.insert(id);
            user = Some(key);
        }
    }
    if ids.emails.is_empty() && ids.users.iter().all(String::is_empty) {
        return Err(EraseError::Nobody);
    }
    let mut after = String::new();
    loop {
        let some = service.spool().all_identities(&after, READ_MAX).await?;
        let Some(last) = some.last().map(|(key, _)| key) else { return Ok(ids) };
        after.clone_from(last);
        for (key, traits) in some {
            let is_theirs = email_of(&traits).is_some_and(|email| ids.emails.contains(&email));
            if is_theirs || user.as_ref() == Some(&key) {
                ids.add(key);
            }
        }
    }
}

impl Ids {
    fn add(&mut self, key: String) {
        // A long id is stored under its digest: it cannot be told from it.
        if let Some(user) = key.strip_prefix("u:") {
            self.users.insert(user.to_owned());
        } else if let Some(device) = key.strip_prefix("a:") {
            self.devices.insert(device.to_owned());
        }
        self.identities.push(key);
    }

    /// The digests under which their records are found.
    fn people(&self) -> impl Iterator<Item = u64> + '_ {
        let nobody = Person::default();
        let emails = self.emails.iter().map(move |id| Person { email: Some(id), ..nobody });
        let users = self.users.iter().map(move |id| Person { user: Some(id), ..nobody });
        let devices = self.devices.iter().map(move |id| Person { anonymous: Some(id), ..nobody });
        let ready = self.emails.iter().map(|email| person::ready(email));
        emails.chain(users).chain(devices).flat_map(person::says).chain(ready)
    }

    /// Whether an entry of the quarantine is about them.
    fn are_in(&self, entry: &Quarantined) -> bool {
        if let Origin::Record { person, .. } = &entry.origin
            && person.iter().any(|key| self.people().any(|known| known == key.0))
        {
            return true;
        }
        let Ok(body) = serde_json::from_slice::<Value>(&entry.body) else { return false };
        let text = |path: &str| record_id(body.pointer(path)?);
        emails(&body).any(|email| self.emails.contains(&email))
            || text("/userId").is_some_and(|user| self.users.contains(&user))
            || text("/anonymousId").is_some_and(|device| self.devices.contains(&device))
    }
}

fn email_of(traits: &[u8]) -> Option<String> {
    let traits: Value = serde_json::from_slice(traits).ok()?;
    address(traits.get("email")?.as_str()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMillis;
    use crate::spool::{LaneId, PersonKeys};

    fn ids() -> Ids {
        let mut ids = Ids { emails: ["jane@x".to_owned()].into(), ..Ids::default() };
        for key in ["u:jane", "a:web", "u#0123"] {
            ids.add(key.to_owned());
        }
        ids
    }

    #[test]
    fn a_person_is_found_under_every_id() {
        let ids = ids();
        assert_eq!(ids.identities, ["u:jane", "a:web", "u#0123"]);
        let record = |person: Person<'_>, body: &str| Quarantined {
            origin: Origin::Record {
                lane: LaneId(1),
                integration: "uk".into(),
                seq: Seq(1),
                record_type: "order".into(),
                person: PersonKeys::new(person::needs(person).map(PersonKey)),
            },
            reason: String::new(),
            detail: String::new(),
            status: None,
            at: UnixMillis(0),
            body: body.into(),
            first_at: UnixMillis(0),
        };
        let event = |body: &str| {
            let origin = Origin::Event { kind: String::new(), integration: None };
            Quarantined { origin, ..record(Person::default(), body) }
        };
        let nobody = Person::default();
        for (entry, found) in [
            (record(Person { email: Some("JANE@x"), ..nobody }, "{}"), true),
            (record(Person { user: Some("jane"), ..nobody }, "no JSON"), true),
            (record(Person { anonymous: Some("web"), ..nobody }, "{}"), true),
            (record(nobody, r#"{"@type":"order","email":" Jane@X"}"#), true),
            (record(nobody, r#"{"identity_email":"jane@x"}"#), true),
            (record(Person { user: Some("bob"), ..nobody }, r#"{"email":"bob@x"}"#), false),
            (event(r#"{"userId":"jane"}"#), true),
            (event(r#"{"userId":7,"anonymousId":"web"}"#), true),
            (event(r#"{"context":{"traits":{"email":"jane@x"}}}"#), true),
            (event(r#"{"properties":{"email":"jane@x"}}"#), true),
            (event(r#"{"userId":"web","anonymousId":"jane","email":7}"#), false),
            (event("[1"), false),
        ] {
            assert_eq!(ids.are_in(&entry), found, "{entry:?}");
        }
    }
}
