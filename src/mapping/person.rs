//! Who a record is about: all records of a person go to one lane, so that their order is kept however many lanes there are,
//! and all need that person's consent.

/// Lanes that the people of one integration may be spread over.
pub const LANES_MAX: u32 = 64;

/// What a record knows of its person.
#[derive(Clone, Copy, Debug, Default)]
pub struct Person<'a> {
    /// The e-mail address that the record got.
    pub email: Option<&'a str>,
    /// The event's `userId`.
    pub user: Option<&'a str>,
    /// Its `anonymousId`.
    pub anonymous: Option<&'a str>,
}

/// Which of `lanes` lanes a record about `person` goes to, from 0.
///
/// A person is known by the address, without regard to case; else by the `userId`, else by the `anonymousId`. What is about nobody goes to the first lane. The choice depends on nothing else: it is the same after a
/// restart and in every version.
#[must_use]
pub fn lane(person: Person<'_>, lanes: usize) -> usize {
    if lanes <= 1 {
        return 0;
    }
    let user = || person.user.map(|id| digest(b'u', id));
    let anonymous = || person.anonymous.map(|id| digest(b'a', id));
    let email = person.email.map(|email| digest(b'e', &email.to_lowercase()));
    let digest = email.or_else(user).or_else(anonymous);
    digest.map_or(0, |digest| digest as usize % lanes)
}

/// The digests under which `person` says yes or no to a category of consent: of all ids, so that it counts for what the
/// person did before logging in as well.
pub fn says(person: Person<'_>) -> impl Iterator<Item = u64> {
    known(person).chain(person.anonymous.map(|id| digest_64(b'a', id)))
}

/// The digests under which a record about `person` must not be denied: those of the person, or else of the device. A
/// device alone may be shared: what another customer says on it is not said for this one.
pub fn needs(person: Person<'_>) -> impl Iterator<Item = u64> {
    let nobody_else = person.email.is_none() && person.user.is_none();
    let device = person.anonymous.filter(|_| nobody_else);
    known(person).chain(device.map(|id| digest_64(b'a', id)))
}

/// The digest under which a record is found that was handed over ready to be sent, whatever anybody says about consent.
#[must_use]
pub fn ready(email: &str) -> u64 {
    digest_64(b'r', &email.trim().to_lowercase())
}

fn known(person: Person<'_>) -> impl Iterator<Item = u64> {
    let email = person.email.map(|email| digest_64(b'e', &email.to_lowercase()));
    email.into_iter().chain(person.user.map(|id| digest_64(b'u', id)))
}

/// The XXH3 of the id, which is stored with records: the same for ever.
fn digest_64(kind: u8, id: &str) -> u64 {
    with_kind(kind, id, xxhash_rust::xxh3::xxh3_64)
}

/// The CRC-32 of the id; a kind of its own keeps a user from sharing the lane of an address that looks the same.
fn digest(kind: u8, id: &str) -> u32 {
    with_kind(kind, id, crc32fast::hash)
}

/// What `hash` gives for `kind:id`; nearly every id is short enough to need no allocation.
fn with_kind<H>(kind: u8, id: &str, hash: impl FnOnce(&[u8]) -> H) -> H {
    let mut text = [0; 64];
    let Some(text) = text.get_mut(..id.len() + 2) else {
        return hash(&[&[kind, b':'], id.as_bytes()].concat());
    };
    let (head, rest) = text.split_at_mut(2);
    head.copy_from_slice(&[kind, b':']);
    rest.copy_from_slice(id.as_bytes());
    hash(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_keeps_to_one_lane() {
        let nobody = Person::default();
        let jane = |email| Person { email: Some(email), user: Some("u2"), ..nobody };
        let u1 = |anonymous| Person { user: Some("u1"), anonymous: Some(anonymous), ..nobody };
        let a1 = Person { anonymous: Some("a1"), ..nobody };
        assert_eq!(lane(u1("a1"), 16), lane(u1("a2"), 16));
        assert_eq!(lane(jane("Jane@Example.com"), 16), lane(jane("jane@example.com"), 16));
        // These are fixed for ever: an upgrade that moved people between lanes would break their order.
        let found = [u1("a1"), jane("jane@example.com"), a1, nobody].map(|person| lane(person, 16));
        assert_eq!(found, [13, 5, 0, 0]);
        assert_eq!(lane(u1("a1"), 1), 0);
    }

    #[test]
    fn a_person_speaks_under_every_id_and_a_device_for_those_who_are_nobody_else() {
        let [email, user, anonymous] = [Some("Jane@x"), Some("u1"), Some("kiosk")];
        let [jane, device] =
            [Person { email, user, anonymous }, Person { anonymous, ..Person::default() }];
        let (e, u, a) =
            (digest_64(b'e', "jane@x"), digest_64(b'u', "u1"), digest_64(b'a', "kiosk"));
        assert_eq!(says(jane).collect::<Vec<_>>(), [e, u, a]);
        assert_eq!(needs(jane).collect::<Vec<_>>(), [e, u]);
        assert_eq!(says(device).chain(needs(device)).collect::<Vec<_>>(), [a, a]);
        assert_eq!(needs(Person::default()).count(), 0);
        // Fixed for ever: what is on disk would not be found again.
        assert_eq!(u, 7_984_949_632_014_793_882);
        for long in ["u".repeat(62), "u".repeat(63), "u".repeat(600)] {
            let whole = format!("u:{long}");
            assert_eq!(digest_64(b'u', &long), xxhash_rust::xxh3::xxh3_64(whole.as_bytes()));
        }
    }

    #[test]
    fn people_spread_evenly() {
        let mut counts = [0_u32; 8];
        for n in 0..8000 {
            let user = format!("user-{n}");
            counts[lane(Person { user: Some(&user), ..Person::default() }, 8)] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}
