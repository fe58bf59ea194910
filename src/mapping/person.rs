//! Who a record is about, as far as its lane is concerned: all records of a person go to one lane, so that their order is
//! kept however many lanes there are.

use crate::event::Event;

/// Lanes that the people of one integration may be spread over.
pub const LANES_MAX: u32 = 64;

/// Which of `lanes` lanes a record about the person of `event` goes to, from 0.
///
/// A person is known by the e-mail address that the record got, without regard to case; else by the `userId`, else by the
/// `anonymousId`. What is about nobody goes to the first lane. The choice depends on nothing else: it is the same after a
/// restart and in every version.
#[must_use]
pub fn lane(email: Option<&str>, event: &Event<'_>, lanes: usize) -> usize {
    if lanes <= 1 {
        return 0;
    }
    let user = || event.user_id.as_deref().map(|id| digest('u', id));
    let anonymous = || event.anonymous_id.as_deref().map(|id| digest('a', id));
    let email = email.map(|email| digest('e', &email.to_lowercase()));
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
    use crate::clock::UnixMillis;
    use crate::event::{Kind, single};

    fn of(email: Option<&str>, event: &str, lanes: usize) -> usize {
        lane(email, &single(event, Kind::Track, UnixMillis(0)).unwrap(), lanes)
    }

    #[test]
    fn a_person_keeps_to_one_lane() {
        let event = r#"{"event":"e","userId":"u1","anonymousId":"a1"}"#;
        let (user, email) = (of(None, event, 16), of(Some("Jane@Example.com"), event, 16));
        assert_eq!(user, of(None, r#"{"event":"x","userId":"u1","anonymousId":"a2"}"#, 16));
        assert_eq!(email, of(Some("jane@example.com"), r#"{"event":"e","userId":"u2"}"#, 16));
        // These are fixed for ever: an upgrade that moved people between lanes would break their order.
        assert_eq!((user, email), (13, 5));
        assert_eq!(of(None, r#"{"event":"e","anonymousId":"a1"}"#, 16), 0);
        assert_eq!(of(None, r#"{"event":"e","anonymousId":"a1"}"#, 1), 0);
    }

    #[test]
    fn people_spread_evenly() {
        let mut counts = [0_u32; 8];
        for n in 0..8000 {
            let event = format!(r#"{{"event":"e","userId":"user-{n}"}}"#);
            counts[of(None, &event, 8)] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
    }
}
