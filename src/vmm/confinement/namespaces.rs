//! The namespaces of a VMM.

use rustix::process::{getegid, geteuid};

/// A namespace of each kind that a VMM doesn't share with its agent. The mount namespace is shared: Landlock decides
/// which files it reaches.
pub(in crate::vmm) const FLAGS: u64 =
    (libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC) as u64;

/// What a process writes to the files of `/proc/self` that say who it is in its new user namespace: the user and the
/// group that it was, and no other. It does so itself, for which it needs no privilege.
#[derive(Debug)]
pub(in crate::vmm) struct IdMaps {
    pub(in crate::vmm) user: String,
    pub(in crate::vmm) group: String,
}

impl IdMaps {
    /// Those of this process's effective user and group.
    pub(in crate::vmm) fn of_this_process() -> Self {
        let same = |id: u32| format!("{id} {id} 1");
        IdMaps {
            user: same(geteuid().as_raw()),
            group: same(getegid().as_raw()),
        }
    }
}
