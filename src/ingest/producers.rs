//! PURE. Who may hand over events over the Unix socket, beside what its permission bits say: users and groups, as the kernel
//! tells them of who connected (`SO_PEERCRED`, unix(7)).

use std::collections::BTreeSet;

/// The users and groups that are admitted; all of them when none is named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Producers {
    /// User ids: those that are named, and the members of the groups that are.
    pub users: BTreeSet<u32>,
    /// Group ids.
    pub groups: BTreeSet<u32>,
    /// Whether only these are admitted.
    pub restricted: bool,
}

impl Producers {
    /// Whether a process of user `uid` is admitted, whose group was `gid` when it connected.
    #[must_use]
    pub fn admit(&self, uid: u32, gid: u32) -> bool {
        !self.restricted || self.users.contains(&uid) || self.groups.contains(&gid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_groups_or_everybody() {
        assert!(Producers::default().admit(1, 1));
        let some = Producers { users: [7].into(), groups: [70].into(), restricted: true };
        for (uid, gid, admitted) in [(7, 1, true), (1, 70, true), (70, 7, false), (0, 0, false)] {
            assert_eq!(some.admit(uid, gid), admitted, "{uid} {gid}");
        }
        // A group without members, alone in the list, admits nobody.
        assert!(!Producers { restricted: true, ..Producers::default() }.admit(0, 0));
    }
}
