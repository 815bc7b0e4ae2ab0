//! [`Error`]: why an operation of a machine failed.

use std::io;
use std::path::PathBuf;

use crate::api::types::VmState;
use crate::client::ErrorKind;
use crate::sanitize::{self, Quoted};
use crate::{client, overlay, vmm, vsock};

/// Why an operation of a machine failed. The cause is in the [source](std::error::Error::source).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The VMM couldn't be started or reached.
    #[error("the VMM cannot be used")]
    Vmm(#[source] vmm::Error),
    /// A call of the VMM's API failed, timed out, or was refused before it was sent.
    #[error("the VMM did not {action}")]
    Api {
        /// The action that the VMM was asked for, as a verb: `boot the VM`.
        action: &'static str,
        /// Why the call failed.
        source: client::Error,
    },
    /// The VMM created the VM, but dropped or changed a part of the configuration.
    #[error("the VMM did not take all of the VM's configuration: {0}")]
    NotAsSent(client::ConfigDrift),
    /// The VMM's process ended before or during a call.
    #[error("the VMM died when it was asked to {action}: {ended}")]
    VmmDied {
        /// The action that the VMM was asked for, as a verb.
        action: &'static str,
        /// How the process ended, with the end of its log.
        ended: Box<vmm::Ended>,
        /// The error of the API call, if the process ended during one.
        source: Option<client::Error>,
    },
    /// The channel to the guest can't be opened, the guest gave no answer in time, or it broke the protocol.
    #[error("the channel to the guest failed")]
    Channel(#[source] vsock::Error),
    /// A request to the guest needs an open channel, and there is none.
    #[error("no channel to the guest is open")]
    NoChannel,
    /// The VM runs, but the guest never opened the channel.
    #[error(
        "the VM runs, but its guest never answered; its console ended with:{}",
        ending(console)
    )]
    GuestSilent {
        /// The last part of the console's output, at most 16 KiB. The error's text has at most its last 2,048
        /// characters.
        console: String,
        /// Why the last attempt to open the channel failed.
        source: Box<vsock::Error>,
    },
    /// A disk couldn't be opened, hashed or copied.
    #[error("the {role} disk cannot be used")]
    Disk {
        /// The role of the disk.
        role: super::DiskRole,
        /// Why it can't be used, with its path.
        source: overlay::Error,
    },
    /// Another machine, of this process or of another one, uses the given directory. Give each machine its own.
    #[error("the directory {directory:?} is in use by another machine")]
    DirectoryInUse {
        /// The directory.
        directory: PathBuf,
    },
    /// The given directory contains a file that no machine has left there, and which the machine would replace or
    /// remove. Give an empty directory.
    #[error(
        "the directory {directory:?} cannot be used: a machine would replace {file:?}, so give it an empty directory"
    )]
    DirectoryTaken {
        /// The directory.
        directory: PathBuf,
        /// The file that would be replaced or removed.
        file: PathBuf,
    },
    /// A file of the machine couldn't be used.
    #[error("cannot {action} {}", path.display())]
    File {
        /// The action that failed, as a verb: `read`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why the action failed.
        source: io::Error,
    },
    /// A path that must be sent to the VMM as JSON isn't UTF-8.
    #[error("the path of the {what} is not UTF-8, which the VMM's API needs: {}", path.display())]
    NotUtf8 {
        /// The purpose of the path, such as `kernel`.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// A file of a snapshot can't be read, or its content doesn't fit the machine.
    #[error("the snapshot in {} cannot be used: {reason}", path.display())]
    Snapshot {
        /// The snapshot's folder or file.
        path: PathBuf,
        /// Why it can't be used.
        reason: String,
    },
    /// A snapshot's `config.json` has something that no mint writes. The VMM would obey it, and for instance open any
    /// file that is named there. Mint the golden snapshot again.
    #[error(
        "{} {} at {pointer}, where a golden snapshot has {}: mint it again",
        path.display(),
        has(found.as_deref()),
        expected.as_deref().unwrap_or("nothing")
    )]
    SnapshotConfig {
        /// The path of the `config.json`.
        path: PathBuf,
        /// The place in the file, as a JSON pointer.
        pointer: String,
        /// The value that a mint writes there, shortened; `None` if a mint writes nothing there.
        expected: Option<String>,
        /// The value that was found there, shortened; `None` if there is nothing.
        found: Option<String>,
    },
    /// The memory file that the VMM copies at each restore can't be leased, or does not have the expected bytes.
    #[error("the golden snapshot's memory cannot be copied")]
    Memory(#[source] overlay::Error),
    /// A process opened the memory file for writing while a VM was restored from it, so the VM's memory is not proved.
    #[error(
        "the golden snapshot's memory file was opened for writing while a VM was restored from it"
    )]
    MemoryNotHeld,
    /// The VMM has no descriptor of the snapshot's memory file, because it was started for another snapshot.
    #[error("the VMM was started without this snapshot's memory file")]
    NotInherited,
    /// The process that answers on the api-socket of a staged VM isn't proved to be the VMM that was started for it.
    #[error("the process of the staged VM is not proved to be the VMM that was started")]
    NotOurs(#[source] vmm::IdentityError),
    /// A staged VM is no longer paused.
    #[error("the staged VM is {state}, not paused")]
    NotPaused {
        /// The VM's state.
        state: VmState,
    },
    /// The VMM of a staged VM reports an event that none of this machine's calls explains, so another process may have
    /// changed the VM.
    #[error(
        "the VMM of the staged VM reports an event that no call of this machine explains: {event}"
    )]
    Touched {
        /// The first such event.
        event: String,
    },
    /// The guest wrote to a disk as soon as it ran, before it was given any work.
    #[error("the guest wrote to its {role} disk before it was given any work")]
    GuestWrites {
        /// The role of the disk.
        role: super::DiskRole,
    },
    /// The list of the VMM's open files couldn't be read.
    #[error("the open files of the VMM cannot be read")]
    OpenFiles(#[source] vmm::Error),
}

impl Error {
    /// Whether the VMM gave no answer in time. Then it isn't known whether the call took effect, nor whether the VMM
    /// will answer another call.
    pub(crate) fn is_silence_of_vmm(&self) -> bool {
        match self {
            Error::Api { source, .. } => matches!(source.kind(), ErrorKind::Deadline { .. }),
            _ => false,
        }
    }

    pub(super) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::File {
            action,
            path,
            source,
        }
    }
}

fn has(found: Option<&str>) -> String {
    found.map_or_else(|| "has nothing".to_owned(), |found| format!("has {found}"))
}

/// The end of a console's output for an error text, after a colon: at most 2,048 characters, each line with a margin.
fn ending(console: &str) -> String {
    const LONGEST: usize = 2048;
    let console = sanitize::lines(console);
    let console = console.trim();
    if console.is_empty() {
        return " (nothing)".to_owned();
    }
    let skipped = console.chars().count().saturating_sub(LONGEST);
    let start = console.char_indices().nth(skipped).map_or(0, |(at, _)| at);
    format!("\n{}", Quoted(&console[start..]))
}

#[cfg(test)]
mod tests {
    use super::ending;

    #[test]
    fn a_console_in_a_message_is_short_and_harmless() {
        assert_eq!(ending(" \n"), " (nothing)");
        assert_eq!(
            ending("\nKernel panic\r\n\tat once\r\n"),
            "\n  | Kernel panic\n  | \tat once"
        );
        assert_eq!(ending("\u{1b}[2Jgone"), "\n  | \\u{1b}[2Jgone");
        let long = ending(&format!("first{}last", "ä".repeat(4000)));
        assert!(!long.contains("first") && long.ends_with("last"));
        assert_eq!(long.chars().count(), "\n  | ".len() + 2048);
    }
}
