//! Users and groups by name, as the host's account database knows them when the configuration is read.

use std::collections::BTreeSet;

use nix::unistd::{Group, User};

use super::faults::Collector;
use super::section::Section;
use crate::ingest::Producers;

/// Who `allow_users` and `allow_groups` of `[ingest]` admit: those, and beside them root and the daemon's own user, who reach
/// everything anyway.
///
/// The kernel tells one group of who connects, the process's own: who belongs to a named group otherwise is admitted as a
/// user.
pub(super) fn producers(
    allow_users: &[String],
    allow_groups: &[String],
    section: &Section,
    faults: &mut Collector<'_>,
) -> Producers {
    let mut users = BTreeSet::from([0, nix::unistd::geteuid().as_raw()]);
    let mut groups = BTreeSet::new();
    for name in allow_users {
        match user(name) {
            Ok(user) => drop(users.insert(user)),
            Err(message) => faults.add(&section.place_of("allow_users"), message),
        }
    }
    for name in allow_groups {
        match group(name) {
            Ok((group, members)) => {
                groups.insert(group);
                users.extend(members);
            }
            Err(message) => faults.add(&section.place_of("allow_groups"), message),
        }
    }
    let restricted = !(allow_users.is_empty() && allow_groups.is_empty());
    Producers { users, groups, restricted }
}

/// The id of a user; a number need not be known to the host.
fn user(name: &str) -> Result<u32, String> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err("`allow_users` names a user that this host does not know: `getent passwd` lists those that it knows".to_owned()),
        Err(error) => Err(format!("`allow_users`: the host's users cannot be read: {error}")),
    }
}

/// The id of a group, and those of the users who are listed as its members.
fn group(name: &str) -> Result<(u32, Vec<u32>), String> {
    let number = name.parse::<u32>();
    let found = match number {
        Ok(number) => Group::from_gid(number.into()),
        Err(_) => Group::from_name(name),
    };
    match (found, number) {
        (Ok(Some(group)), _) => {
            // A member that is no user any more cannot connect.
            let members = group.mem.iter().filter_map(|member| user(member).ok());
            Ok((group.gid.as_raw(), members.collect()))
        }
        (Ok(None), Ok(number)) => Ok((number, Vec::new())),
        (Ok(None), Err(_)) => Err("`allow_groups` names a group that this host does not know: `getent group` lists those that it knows".to_owned()),
        (Err(error), _) => Err(format!("`allow_groups`: the host's groups cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_accounts() {
        assert_eq!(user("root"), Ok(0));
        assert_eq!(user("4000000000"), Ok(4_000_000_000));
        assert_eq!(group("root").map(|(id, _)| id), Ok(0));
        assert_eq!(group("4000000000"), Ok((4_000_000_000, vec![])));
        for error in [user("no such user").unwrap_err(), group("no such group").unwrap_err()] {
            assert!(error.contains("getent") && !error.contains("no such"), "{error}");
        }
    }
}
