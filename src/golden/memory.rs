//! A golden snapshot's memory: how it gets into guests, and when its bytes count as proved.
//!
//! # What has to be proved
//!
//! The VMM checks nothing of a snapshot: a changed page of `memory-ranges` restores without an error, and the guest that
//! comes up answers every question honestly. A digest of the file alone proves nothing either: it says what the file
//! was, not what the VMM read later. So the bytes that a VMM gets must not be able to change after they were digested.
//!
//! # How
//!
//! Opening a golden snapshot for use ([`Golden::load`](super::Golden::load)) gives one descriptor of its memory:
//! `memory-ranges` itself where fs-verity protects it with the manifest's digest, else a copy in memory, sealed and then
//! digested ([`Immutable`](crate::overlay::Immutable)). Every VMM inherits that descriptor. The two small files are kept
//! as the bytes that were compared with the manifest. After that, nothing that happens to the files matters.
//!
//! | memory | a restore | proof |
//! |---|---|---|
//! | [`Mapped`](MemoryMode::Mapped), the default | reads nothing: the VMM maps the file privately, copy on write | seals or fs-verity, and the mappings of the VMM's process |
//! | [`Copied`](MemoryMode::Copied) | the VMM reads all of it | seals or fs-verity; or, where memory is short, a read lease that stood from the digest to the answer |
//! | by a path, on a VMM that another program runs | that VMM reads all of it | none: the check is not applicable |
//!
//! `Copied` serves where it is asked for and in three more cases, which the report names ([`CopyReason`]).
//!
//! # Who is trusted
//!
//! | who | trusted | why |
//! |---|---|---|
//! | the kernel, and processes that may load code into it | yes | seals, leases, fs-verity and `/proc` are its word |
//! | root | no, for memory that is mapped or copied from an immutable file; yes for a leased one | a seal can't be taken off; root can write to a block device |
//! | this process, and processes that may trace it | yes | it holds the digests |
//! | the manifest | with a signature or a pinned digest | without either, a process that may write to the folder may write a manifest that fits |
//! | other processes, of this user too | no | they can't change what is sealed |
//! | the guest, and a VMM that has served it | no | a VMM has the file for reading only, and writes to its own private pages |
//!
//! The list of mappings says what a VMM has mapped, not what it shows to its guest. A new VMM, or a spare, has run no
//! untrusted code when it is looked at. One that is reset in place has: a VMM that its guest has taken over can map the
//! file and show the guest other pages. In place, a reset proves that nothing of the guest is left in an honest VMM.

use serde::{Deserialize, Serialize};

use super::Shortage;
use crate::overlay::Protection;

/// How guests get a golden snapshot's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryMode {
    /// The VMM maps it privately. A restore costs the same whatever the size, and a guest owns only the pages that it has
    /// written. Each first write to a page costs a fault and a copy of 4 KiB.
    #[default]
    Mapped,
    /// The VMM copies all of it at each restore, into huge pages where it can: for tools that touch most of the memory.
    Copied,
}

/// Why a VMM copies the memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyReason {
    /// The configuration asks for it.
    Configured,
    /// This machine has no memory for a sealed copy.
    ShortOfMemory(Shortage),
    /// Another program runs the VMM, so it can inherit nothing.
    AttachedVmm,
    /// A restore with mapped memory was not tried on this release.
    Release(String),
}

/// What the memory of a loaded golden snapshot rests on, for reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LoadedMemory {
    /// How guests get it.
    pub mode: MemoryMode,
    /// Why it is copied; `None` where it is mapped.
    pub copied_because: Option<CopyReason>,
    /// What keeps its bytes from changing.
    pub basis: MemoryBasis,
    /// Its size in bytes: the guest's whole memory.
    pub bytes: u64,
    /// How many bytes of it were hashed when it was loaded: all but the holes, or none under fs-verity.
    pub hashed: u64,
    /// How long loading the whole golden snapshot took, in microseconds.
    pub micros: u64,
}

/// What keeps the bytes of a golden snapshot's memory from changing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryBasis {
    /// fs-verity on `memory-ranges`, with the manifest's digest.
    FsVerity,
    /// The seals on a copy in memory.
    Sealed,
    /// A read lease on `memory-ranges`.
    Leased,
    /// Nothing: another program's VMM reads it by a path.
    Unproved,
}

impl From<Protection> for MemoryBasis {
    fn from(protection: Protection) -> Self {
        match protection {
            Protection::FsVerity => MemoryBasis::FsVerity,
            Protection::Sealed => MemoryBasis::Sealed,
        }
    }
}
