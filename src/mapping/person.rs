//! Who a record is about, as far as its lane is concerned: all records of a person go to one lane, so that their order is
//! kept however many lanes there are.

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
    let user = || person.user.map(|id| digest('u', id));
    let anonymous = || person.anonymous.map(|id| digest('a', id));
    let email = person.email.map(|email| digest('e', &email.to_lowercase()));
    let digest = email.or_else(user).or_else(anonymous);
    digest.map_or(0, |digest| digest as usize % lanes)
}

/// The CRC-32 of the id; a kind of its own keeps a user from sharing the lane of an address that looks the same.
fn digest(kind: char, id: &str) -> u32 {
    crc32fast::hash(format!("{kind}:{id}").as_bytes())
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
    fn people_spread_evenly() {
        let mut counts = [0_u32; 8];
        for n in 0..8000 {
            let user = format!("user-{n}");
            counts[lane(Person { user: Some(&user), ..Person::default() }, 8)] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}
