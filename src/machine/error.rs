//! What can go wrong with a machine.

use std::io;
use std::path::PathBuf;

use crate::api::types::VmState;
use crate::client::ErrorKind;
use crate::sanitize::{self, Quoted};
use crate::{client, overlay, vmm, vsock};

/// A machine couldn't do what was asked of it. The causes chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The VMM couldn't be started or reached.
    #[error("the VMM cannot be used")]
    Vmm(#[source] vmm::Error),
    /// The VMM didn't do what the API was asked for.
    #[error("the VMM did not {action}")]
    Api {
        /// What was asked, as a verb: `boot the VM`.
        action: &'static str,
        /// The answer.
        source: client::Error,
    },
    /// The VMM created the VM, but not as it was told to: it dropped or changed some of the configuration.
    #[error("the VMM did not take all of the VM's configuration: {0}")]
    NotAsSent(client::ConfigDrift),
    /// The VMM's process ended instead of doing it.
    #[error("the VMM died when it was to {action}: {ended}")]
    VmmDied {
        /// What was asked, as a verb.
        action: &'static str,
        /// How it ended, with the end of its log.
        ended: Box<vmm::Ended>,
        /// What the client saw, if it was in a call.
        source: Option<client::Error>,
    },
    /// The guest didn't speak, or not as it should.
    #[error("the guest cannot be spoken to")]
    Channel(#[source] vsock::Error),
    /// Something was to be asked of the guest while no channel to it is open.
    #[error("no channel to the guest is open")]
    NoChannel,
    /// The VM started, but its guest never opened the channel.
    #[error(
        "the VM runs, but its guest never answered; its console ended with:{}",
        ending(console)
    )]
    GuestSilent {
        /// The last part of the console, at most 16 KiB; the message has its end.
        console: String,
        /// How the last attempt failed.
        source: Box<vsock::Error>,
    },
    /// A disk couldn't be hashed or put back.
    #[error("the {role} disk cannot be used")]
    Disk {
        /// Which disk.
        role: super::DiskRole,
        /// Why, with its path.
        source: overlay::Error,
    },
    /// Another machine, of this process or another, works in the directory that was given. Give each its own.
    #[error("the directory {directory:?} is in use by another machine")]
    DirectoryInUse {
        /// The directory.
        directory: PathBuf,
    },
    /// Something lies in the directory that was given which isn't a machine's, and which the machine would replace or
    /// remove. Give an empty one.
    #[error("the directory {directory:?} cannot be a machine's: {file:?} is there already")]
    DirectoryTaken {
        /// The directory.
        directory: PathBuf,
        /// What would be replaced.
        file: PathBuf,
    },
    /// A file of the machine couldn't be used.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried, as a verb: `read`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A path that has to stand in a JSON body isn't UTF-8, so the VMM can't be told of it.
    #[error("the path of the {what} is not UTF-8, which the VMM's API needs: {}", path.display())]
    NotUtf8 {
        /// What the path is of.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// The description of the VM in a snapshot doesn't fit the machine.
    #[error("the snapshot in {} does not fit: {reason}", path.display())]
    Snapshot {
        /// The snapshot's folder or file.
        path: PathBuf,
        /// What doesn't fit.
        reason: String,
    },
    /// A snapshot's `config.json` says something that no mint leaves there. The VMM would do as it says, such as open a file
    /// of its choice. Mint the golden snapshot again.
    #[error(
        "{} {} at {pointer}, where a golden snapshot has {}: mint it again",
        path.display(),
        has(found.as_deref()),
        expected.as_deref().unwrap_or("nothing")
    )]
    SnapshotConfig {
        /// The `config.json`.
        path: PathBuf,
        /// The place, as a JSON pointer.
        pointer: String,
        /// What belongs there, shortened; `None`: nothing.
        expected: Option<String>,
        /// What is there, shortened; `None`: nothing.
        found: Option<String>,
    },
    /// The memory file that is copied at each restore can't be relied on.
    #[error("the golden snapshot's memory cannot be copied")]
    Memory(#[source] overlay::Error),
    /// A process opened the memory file for writing while a VM was restored from it, so its bytes aren't known.
    #[error("the golden snapshot's memory was not left alone while a VM was restored from it")]
    MemoryNotHeld,
    /// The VMM has no descriptor of the memory file: it was started for another snapshot.
    #[error("the VMM was not started with this snapshot's memory")]
    NotInherited,
    /// The process that answers on the api-socket of a staged VM isn't the VMM that was started for it.
    #[error("the VMM of the staged VM cannot be believed")]
    NotOurs(#[source] vmm::IdentityError),
    /// A staged VM isn't paused any more.
    #[error("the staged VM is {state}, not paused")]
    NotPaused {
        /// Its state.
        state: VmState,
    },
    /// Something happened to a staged VM that none of the machine's calls explains, by the VMM's own event.
    #[error("the staged VM was touched: its VMM tells {event}")]
    Touched {
        /// The first such event.
        event: String,
    },
    /// The guest wrote to a disk as soon as it ran, before anybody used it.
    #[error("the guest writes to its {role} disk of its own accord")]
    GuestWrites {
        /// Which disk.
        role: super::DiskRole,
    },
    /// The VMM's open files couldn't be read.
    #[error("the open files of the VMM cannot be read")]
    OpenFiles(#[source] vmm::Error),
}

impl Error {
    /// Whether the VMM gave no answer in time. What came of the call isn't known, and neither is whether it will ever
    /// answer another one.
    pub fn is_silence_of_vmm(&self) -> bool {
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

/// The end of a console as it goes into a message after a colon: at most 2,048 characters, each line behind a margin.
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
