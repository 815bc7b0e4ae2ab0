//! A Landlock domain for each run of a tool, which protects runs from each other.
//!
//! All tools run as one user, so that each can use the files that the others made. For processes of one user the kernel
//! allows tracing, and reading of memory, environment and descriptors in `/proc`. A process in a Landlock domain may do
//! this only to processes of the same domain and, from Linux 6.12 on, may signal only these.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope,
};

/// The rules of every domain, or `None` if the kernel has no Landlock or only its first version.
///
/// The kernel makes no domain without a rule on files. These rules restrict nothing that tools may do with files: they
/// handle only moving and linking between directories, and allow it everywhere below `root`.
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
    // SAFETY: the call takes a descriptor, which is open, and flags, which are 0.
    let entered = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0) };
    match entered {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
