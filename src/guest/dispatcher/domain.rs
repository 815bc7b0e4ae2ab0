//! A Landlock domain for each run of a tool.
//!
//! Tools have one user, for the files that they make are each other's. The kernel would let them trace each other then, and
//! read each other's memory, environment and descriptors in `/proc`. A process in a domain may do that only to processes of the
//! same domain, and from Linux 6.12 on signal only them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope,
};

/// The rules of every domain, or `None` where the kernel has no Landlock, or only its first version.
///
/// There is no domain without a restriction. This one lets tools do all with files that they may do without it: what it handles
/// is moving and linking from one directory to another, which it allows everywhere below `root`.
pub(super) fn rules(root: &Path) -> io::Result<Option<OwnedFd>> {
    let root = PathFd::new(root).map_err(io::Error::other)?;
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::Refer)
        .and_then(|rules| rules.scope(Scope::from_all(ABI::V6)))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.add_rule(PathBeneath::new(root, AccessFs::Refer)))
        .map_err(io::Error::other)?;
    Ok(rules.into())
}

/// Puts the calling thread into a new domain. Makes one system call and nothing else.
pub(super) fn enter(rules: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the call takes a descriptor, which is open, and flags.
    let entered = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) };
    match entered {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
