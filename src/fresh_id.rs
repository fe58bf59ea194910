//! The ids that Pillarbox makes.

use uuid::{NoContext, Timestamp, Uuid};

use crate::clock::UnixMillis;

/// An id for what came at `at` and brings none: `evt_` and a UUID of version 7, which begins with the time (RFC 9562).
pub(crate) fn fresh_id(at: UnixMillis) -> String {
    let mut text = *b"evt_00000000000000000000000000000000";
    let (_, digits) = text.split_at_mut(4);
    let nanos = u32::try_from(at.0 % 1000).unwrap_or_default() * 1_000_000;
    let uuid = Uuid::new_v7(Timestamp::from_unix(NoContext, at.0 / 1000, nanos));
    uuid.simple().encode_lower(digits);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_tell_their_time_and_differ() {
        let at = UnixMillis(1_780_759_972_417);
        let ids: Vec<String> = (0..1000).map(|_| fresh_id(at)).collect();
        for id in &ids {
            let uuid = Uuid::parse_str(id.strip_prefix("evt_").unwrap()).unwrap();
            let (seconds, nanos) = uuid.get_timestamp().unwrap().to_unix();
            assert_eq!((uuid.get_version_num(), seconds, nanos), (7, 1_780_759_972, 417_000_000));
        }
        let distinct: std::collections::HashSet<&String> = ids.iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }
}
