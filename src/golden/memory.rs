//! The threat model of memory: when the bytes that a guest is restored from count as proved.
//!
//! # What has to be proved
//!
//! The VMM checks nothing of a snapshot: a changed page of `memory-ranges` restores without a word, and the guest that
//! comes up has an honest answer to everything that it is asked. So the files of a golden snapshot are compared with
//! the fs-verity digests in its manifest *before* the VM that runs is touched, and a digest alone isn't enough: it says
//! what a file was, not what the VMM read later. Memory counts as proved only if the file could not change from its
//! digest until it was read in full.
//!
//! # Who is trusted
//!
//! | who | trusted | why |
//! |---|---|---|
//! | the kernel, and whoever may load code into it | yes | leases, fs-verity and `/proc` are its word |
//! | root, and whoever may write to the block device | yes | nothing in a file stands against them |
//! | this process, and whoever may trace it | yes | it holds the digests |
//! | the manifest | with a signature | without one, whoever may write to the folder may write a manifest that fits |
//! | the folders above the golden snapshot | yes | whoever may rename them decides what a path leads to |
//! | other processes, of this user too | no | a writer of a held file is seen before it can write |
//! | the guest, and a VMM that has served it | no | a VMM never opens these files for writing; if it does, it is seen |
//!
//! # What each policy proves
//!
//! | policy | `Copy` | `OnDemand` | cost of a reset |
//! |---|---|---|---|
//! | [`Held`](MemoryPolicy::Held), lease or fs-verity | every byte that was read | every byte, while [`HeldGolden::stands`](super::HeldGolden::stands) | some system calls for each file |
//! | [`Held`](MemoryPolicy::Held), no lease to be had | as far as timestamps go | until the digest only | a digest of each file |
//! | [`Digest`](MemoryPolicy::Digest) | every byte that was read | every byte, while it stands | a digest of each file |
//! | [`Trust`](MemoryPolicy::Trust) | nothing since the boot | nothing since the boot | none |
//!
//! With `Copy` the VMM has read all of the memory when `vm.restore` answers: [`HeldGolden::confirm`](super::HeldGolden::confirm)
//! then says whether the hold stood throughout. With `OnDemand` pages are read for as long as the VM lives, and a disk
//! that the guest can't write is read for as long in any case: a hold that is lost meanwhile
//! ([`HeldGolden::lost`](super::HeldGolden::lost)) takes the proof away. The sandbox tells it and takes no tool until it is
//! reset, which digests the file anew.
//!
//! A lease is the kernel's word that nobody has the file open for writing. Whoever opens it all the same is made to
//! wait; a watcher looks for that ten times a second, gives the lease up so that nobody waits for long, and the hold
//! counts as lost. A file under fs-verity can't be written to at all, and the kernel checks each page that is read:
//! where its digest is the manifest's, no lease is needed and nothing is read to know it.
//!
//! `config.json` is read once, verified in memory, and handed on as those bytes
//! ([`HeldGolden::config`](super::HeldGolden::config)): what is rewritten for a clone is what was verified, whatever
//! has become of the file.

use serde::{Deserialize, Serialize};

/// How much a reset does to prove that the memory it restores is the manifest's. See the [module](self).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryPolicy {
    /// Digested once, and held: a reset only looks whether the hold still stands, and digests anew what was lost.
    #[default]
    Held,
    /// Digested anew at each reset, and held across the restore.
    Digest,
    /// Digested at the boot, and believed from then on.
    Trust,
}

/// What the proof of a restore's memory rests on, from the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Nobody has looked since the boot.
    Trusted,
    /// It was digested just now, and only size, identity and timestamps say that it hasn't changed since.
    Unleased,
    /// It was digested just now, under a lease that is held.
    Digested,
    /// It was digested earlier, under a lease that has stood ever since.
    Lease,
    /// The kernel protects it, with the manifest's digest.
    KernelVerity,
}

/// What a restore's memory rests on, for the report. It is of the VMM's three files together: the weakest counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryProof {
    /// The policy that was asked for.
    pub policy: MemoryPolicy,
    /// What it rests on.
    pub basis: Basis,
    /// Whether the hold is known to have stood until the VMM had read everything. False until it was confirmed, and
    /// for ever under [`MemoryPolicy::Trust`].
    pub confirmed: bool,
    /// How many bytes were hashed for it.
    pub hashed: u64,
    /// How many bytes were not, because their digest is known still to stand or is trusted.
    pub skipped: u64,
    /// How long it took, in microseconds.
    pub micros: u64,
    /// What had been lost when this was made.
    #[serde(skip)]
    pub(super) losses: Losses,
}

/// How often a hold was lost, by what reads the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Losses {
    /// Of one of the VMM's own files, which are read by a restore.
    pub(super) snapshot: u64,
    /// Of a file that the VM reads for as long as it lives: a disk that the guest can't write, or what lies beneath one.
    pub(super) disks: u64,
}
