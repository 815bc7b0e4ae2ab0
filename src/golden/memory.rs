//! How a golden snapshot's memory gets into guests ([`MemoryMode`]), and what proves its bytes ([`MemoryBasis`]).
//!
//! # What has to be proved
//!
//! The VMM makes no integrity check on a snapshot: if a page of `memory-ranges` was changed, the restore succeeds, and
//! the guest may still answer every query correctly. A digest of the file proves the bytes that the file had when it
//! was hashed, but not the bytes that a VMM reads later. So the bytes must be unable to change after they were
//! digested.
//!
//! # How it is proved
//!
//! Loading a golden snapshot ([`Golden::load`](super::Golden::load)) opens one descriptor of its memory. It is a
//! descriptor of `memory-ranges` itself if fs-verity protects that file with the manifest's digest. Otherwise it is one
//! of a copy in memory that is first sealed and then digested ([`Immutable`](crate::overlay::ImmutableFile)). Every VMM
//! inherits that descriptor. The contents of `config.json` and `state.json` are kept as the bytes that were compared
//! with the manifest. After that, a change of the three files has no effect.
//!
//! - [`Mapped`](MemoryMode::Mapped), the default: at a restore the VMM reads nothing. It maps the file privately, copy
//!   on write. The proof is the seals or fs-verity, together with the list of mappings of the VMM's process.
//! - [`Copied`](MemoryMode::Copied): at a restore the VMM reads all of the memory. The proof is the seals or fs-verity.
//!   If there is too little memory for a sealed copy, the proof is a read lease that stood from the digest until the
//!   VMM's answer.
//! - By path, on a VMM that another program runs: that VMM reads all of the memory. There is no proof, and the check is
//!   reported as not applicable.
//!
//! `Copied` is used if the configuration asks for it, and in three more cases, which the report names ([`CopyReason`]).
//!
//! # What is trusted
//!
//! - The kernel, and processes that may load code into it, are trusted: seals, leases, fs-verity and `/proc` are the
//!   kernel's.
//! - Root is not trusted for memory that is mapped or copied from an immutable file, since root can't remove a seal.
//!   Root is trusted for a leased file, since root can write to the block device below it.
//! - This process, and processes that may trace it, are trusted: this process holds the digests.
//! - The manifest is trusted only with a signature or a pinned digest. Without either, a process that may write to the
//!   folder can also write a matching manifest.
//! - Other processes, those of this user included, are not trusted: they can't change what is sealed.
//! - The guest, and a VMM that has served it, are not trusted: a VMM has the file open for reading only, and writes to
//!   its own private pages.
//!
//! The list of mappings tells what a VMM has mapped, but not which pages it shows to its guest. A new VMM or a spare
//! has run no untrusted code when its mappings are read. A VMM that is reset in place has: if its guest has taken it
//! over, it can map the file and still show the guest other pages. So a reset in place proves only that an honest VMM
//! holds no residue of the guest.

use serde::{Deserialize, Serialize};

use super::Shortage;
use crate::overlay::Protection;

/// How guests get a golden snapshot's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryMode {
    /// The VMM maps the memory privately. The cost of a restore does not depend on the memory's size, and a guest owns
    /// only the pages that it has written. Each first write to a page costs a fault and a copy of 4 KiB.
    #[default]
    Mapped,
    /// The VMM copies all of the memory at each restore, into huge pages where it can. This suits tools that touch most
    /// of the memory.
    Copied,
}

/// Why a VMM copies the memory instead of mapping it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CopyReason {
    /// The configuration asks for it.
    Configured,
    /// This host has too little memory for a sealed copy.
    ShortOfMemory(Shortage),
    /// Another program runs the VMM, so the VMM can't inherit a descriptor from this process.
    AttachedVmm,
    /// A restore with mapped memory was not tested on this release of the VMM.
    Release(String),
}

/// The memory of a loaded golden snapshot, as reports show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LoadedMemory {
    /// How guests get the memory.
    pub mode: MemoryMode,
    /// Why the memory is copied; `None` if it is mapped.
    pub copied_because: Option<CopyReason>,
    /// What keeps the memory's bytes from changing.
    pub basis: MemoryBasis,
    /// The size of the guest's whole memory, in bytes.
    pub bytes: u64,
    /// How many bytes of the memory were hashed while the golden snapshot was loaded. Holes are not hashed. If
    /// fs-verity protects the file, this is 0.
    pub hashed: u64,
    /// How long loading the whole golden snapshot took, in microseconds.
    pub micros: u64,
}

/// What keeps the bytes of a golden snapshot's memory from changing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MemoryBasis {
    /// fs-verity on `memory-ranges`, with the manifest's digest.
    FsVerity,
    /// The seals on a copy in memory.
    Sealed,
    /// A read lease on `memory-ranges`.
    Leased,
    /// Nothing: a VMM that another program runs reads the memory by a path.
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
