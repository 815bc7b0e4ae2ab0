//! The namespaces of a VMM: which ones are new ([`FLAGS`]), and its ids in the new user namespace ([`IdMaps`]).

use rustix::process::{getegid, geteuid};

/// The kinds of namespaces that are made for a VMM. The mount namespace is shared with this process, since Landlock
/// limits the files that the VMM can open.
pub(in crate::vmm) const FLAGS: i32 =
    libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC;

/// The contents of `uid_map` and `gid_map` in `/proc/self` that a process writes after it has entered its new user
/// namespace. They map its own user and group to the same ids, and no others. A process needs no privilege to write
/// such maps for itself.
#[derive(Debug)]
pub(in crate::vmm) struct IdMaps {
    pub(in crate::vmm) user: String,
    pub(in crate::vmm) group: String,
}

impl IdMaps {
    /// Makes the maps for this process's effective user and group.
    pub(in crate::vmm) fn of_this_process() -> Self {
        let same = |id: u32| format!("{id} {id} 1");
        IdMaps {
            user: same(geteuid().as_raw()),
            group: same(getegid().as_raw()),
        }
    }
}
