//! Proves that the process which answers on an api-socket is the VMM that was started ([`Identity`]).
//!
//! A client connects to a VMM by the descriptor of a socket that was bound for this VMM and whose path was removed, so
//! another socket can't have taken its place. Three facts together prove that the spawned process listens on this
//! socket. Each is read from the kernel, not asked of the process:
//!
//! 1. the process is running and has the same start time as at its start, so the id is not another process's;
//! 2. the process runs the same executable as when it became ready, so it has not executed another program;
//! 3. the process has the listener open that was bound for it.
//!
//! This does not prove that no other process has that listener too. A fork of the VMM could have it. If the confinement
//! ends forks with the VMM, such a fork is subject to the same confinement.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Error, Process, procfs};
use crate::sanitize;

/// The length of the longest path of the kernel, in bytes.
const LONGEST_PATH: usize = 4096;

/// The proved identity of a spawned VMM's process, from [`Vmm::prove_identity`](super::Vmm::prove_identity).
///
/// It proves that the process is the one that was spawned, that it still runs the executable that it ran when it became
/// ready, and that it has the api-socket's listener open. It does not prove that no fork of the process has the
/// listener too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Identity {
    /// The process id.
    pub pid: u32,
    /// The time at which the process started, in clock ticks since the host's boot.
    pub start_time: u64,
    /// The inode of the api-socket's listener, as `/proc/<pid>/fd` shows it.
    pub listener_inode: u64,
    /// The executable that the process runs.
    pub executable: Executable,
}

/// The executable that a process runs. Device and inode identify it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Executable {
    /// The device of the file (`st_dev`).
    pub device: u64,
    /// The file's inode (`st_ino`).
    pub inode: u64,
    /// The file's path as the kernel shows it, for messages only. It ends in ` (deleted)` if the file was removed or
    /// replaced.
    pub path: PathBuf,
}

impl Executable {
    fn is_same_file(&self, other: &Executable) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// Why the process that answers on an api-socket isn't proved to be the VMM that was started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The process id belongs to another process.
    #[error("the process {pid} started at tick {found}, the VMM at tick {expected}")]
    AnotherProcess {
        /// The process id.
        pid: u32,
        /// The time at which the VMM started, in clock ticks since the host's boot.
        expected: u64,
        /// The time at which the present process of that id started.
        found: u64,
    },
    /// The executable couldn't be read when the VMM became ready, so there is nothing to compare the present one with.
    /// The log of the VMM's start has the reason.
    #[error("the executable of the VMM (pid {pid}) could not be read when it became ready")]
    NotSeenWhenReady {
        /// The process id.
        pid: u32,
    },
    /// The process has executed another program since it became ready.
    // A process can choose the name of the program that it executes, so the name is sanitized.
    #[error(
        "the VMM (pid {pid}) runs {} now, and ran {} when it became ready",
        sanitize::line(&found.to_string_lossy(), LONGEST_PATH), expected.display()
    )]
    AnotherExecutable {
        /// The process id.
        pid: u32,
        /// The executable that it ran when it became ready.
        expected: PathBuf,
        /// The executable that it runs now.
        found: PathBuf,
    },
    /// The process has closed its listener, so another process answers.
    #[error("the VMM (pid {pid}) doesn't have the listener of its api-socket (inode {inode})")]
    ListenerClosed {
        /// The process id.
        pid: u32,
        /// The listener's inode.
        inode: u64,
    },
    /// The process has ended or can't be examined.
    #[error("the process that answers on the api-socket could not be examined")]
    Unknown(#[source] Error),
}

/// Returns the executable that `process` runs.
pub(super) fn executable(process: &Process) -> Result<Executable, Error> {
    let link = procfs::directory(process.pid()).join("exe");
    process.inspect("exe", || {
        // The link in `/proc` leads to the file itself, even if another file is at its path now.
        let file = fs::metadata(&link)?;
        Ok(Executable {
            device: file.dev(),
            inode: file.ino(),
            path: fs::read_link(&link)?,
        })
    })
}

/// Proves the three facts that the [module](self) lists, in that order.
pub(super) fn prove(process: &Process, ready_as: &Executable) -> Result<Identity, IdentityError> {
    let pid = process.pid();
    let expected = process.start_time();
    let stamp = process.inspect("stat", || procfs::stamp(pid));
    let found = stamp.map_err(IdentityError::Unknown)?.start_time;
    if found != expected {
        return Err(IdentityError::AnotherProcess {
            pid,
            expected,
            found,
        });
    }
    let executable = executable(process).map_err(IdentityError::Unknown)?;
    if !executable.is_same_file(ready_as) {
        return Err(IdentityError::AnotherExecutable {
            pid,
            expected: ready_as.path.clone(),
            found: executable.path,
        });
    }
    let inode = process.listener_inode;
    match process.holds_listener().map_err(IdentityError::Unknown)? {
        true => Ok(Identity {
            pid,
            start_time: expected,
            listener_inode: inode,
            executable,
        }),
        false => Err(IdentityError::ListenerClosed { pid, inode }),
    }
}
