//! The proof that the process which answers on an api-socket is the VMM that was started.
//!
//! A client reaches a VMM by the descriptor of a socket that was bound for it and has lost its name, so that no other
//! socket can have taken its place. Three facts together say that this socket's listener is the process that was spawned,
//! each read from the kernel and not from what answers:
//!
//! 1. the process lives, and has the start time that it had: no other process got its id;
//! 2. it runs the executable that it ran when it became ready: it hasn't become another program;
//! 3. it has the listener open that was bound for it.
//!
//! What this doesn't prove: that no other process has that listener too. A fork of the VMM could; where forks are caught
//! they are in the same boundary.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Error, Process, procfs};
use crate::sanitize;

/// The kernel has no longer ones, in bytes.
const LONGEST_PATH: usize = 4096;

/// The process that answers on the api-socket of a VMM that was spawned, as [`Vmm::prove_identity`](super::Vmm::prove_identity)
/// found it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The process id.
    pub pid: u32,
    /// When the process started, in clock ticks since the boot of the machine.
    pub start_time: u64,
    /// The inode of the api-socket's listener, as `/proc/<pid>/fd` shows it.
    pub listener_inode: u64,
    /// The program that the process runs.
    pub executable: Executable,
}

/// The program that a process runs, by its file and not by its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executable {
    /// The device of the file (`st_dev`).
    pub device: u64,
    /// The file's inode (`st_ino`).
    pub inode: u64,
    /// Its path as the kernel knows it now, for people; it ends in ` (deleted)` once another file has its name.
    pub path: PathBuf,
}

impl Executable {
    fn is_same_file(&self, other: &Executable) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// The process that answers on an api-socket isn't the VMM that was started, or can't be shown to be it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The process id belongs to another process.
    #[error("the process {pid} started at tick {found}, the VMM at tick {expected}")]
    AnotherProcess {
        /// The process id.
        pid: u32,
        /// When the VMM started, in clock ticks since the boot of the machine.
        expected: u64,
        /// When this process did.
        found: u64,
    },
    /// There is nothing to compare the process's program with; the log of its start says why.
    #[error("what the VMM (pid {pid}) ran when it became ready could not be looked at")]
    NotSeenWhenReady {
        /// The process id.
        pid: u32,
    },
    /// The process has become another program since it was ready.
    // A process chooses the name of what it becomes.
    #[error(
        "the VMM (pid {pid}) runs {} now, and ran {} when it became ready",
        sanitize::line(&found.to_string_lossy(), LONGEST_PATH), expected.display()
    )]
    AnotherExecutable {
        /// The process id.
        pid: u32,
        /// What it ran when it became ready.
        expected: PathBuf,
        /// What it runs now.
        found: PathBuf,
    },
    /// The process has closed its listener: another one answers.
    #[error("the VMM (pid {pid}) doesn't have the listener of its api-socket (inode {inode})")]
    ListenerClosed {
        /// The process id.
        pid: u32,
        /// The listener's inode.
        inode: u64,
    },
    /// The process couldn't be looked at, or has ended.
    #[error("who answers on the api-socket could not be looked at")]
    Unknown(#[source] Error),
}

/// The program that `process` runs.
pub(super) fn executable(process: &Process) -> Result<Executable, Error> {
    let link = procfs::directory(process.pid()).join("exe");
    process.inspect("exe", || {
        // Through the link of `/proc` this is the file itself, whatever has its name now.
        let file = fs::metadata(&link)?;
        Ok(Executable {
            device: file.dev(),
            inode: file.ino(),
            path: fs::read_link(&link)?,
        })
    })
}

/// Proves the three facts of the [module](self), in their order.
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
