//! A golden snapshot whose files were verified, and are held on to.

mod files;
mod watcher;

use std::sync::Arc;
use std::time::Instant;

use super::files::Part;
use super::manifest::read_bounded;
use super::memory::{Basis, Losses, MemoryPolicy, MemoryProof};
use super::{Error, Golden};
use crate::machine::DiskRole;
use crate::overlay::{Digest, FileIdentity, Hold, HoldKind, VerityDigest};
use files::{Files, HeldFile};
use watcher::Watcher;

/// A description of a VM has a few KiB.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// How often files are digested that somebody writes to meanwhile.
const ATTEMPTS: u32 = 3;

/// A golden snapshot all of whose files were equal to the manifest when this was made, and are held as its
/// [`MemoryPolicy`] says. Dropping it lets go of them.
///
/// Everything here but [`lost`](HeldGolden::lost) blocks, for as long as the files are large where they have to be
/// digested. All of it may be called from several threads: the spares of a sandbox share one.
#[derive(Debug)]
pub struct HeldGolden {
    golden: Golden,
    policy: MemoryPolicy,
    config: Arc<[u8]>,
    files: Arc<Files>,
    _watcher: Option<Watcher>,
}

/// A disk that was verified, and is held still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldDisk {
    /// Its SHA-256, from the manifest.
    pub sha256: Digest,
    /// Its fs-verity digest, which was verified.
    pub fsverity: VerityDigest,
    /// Its length in bytes.
    pub length: u64,
    /// Which file it is. A VMM that serves it has the same one open.
    pub identity: FileIdentity,
    /// What vouches for it: a lease or the kernel.
    pub kind: HoldKind,
}

impl Golden {
    /// Compares every file of the golden snapshot with the manifest, and holds on to it as `policy` says.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`] with the first field that differs, as `snapshot.memory_ranges.fsverity`;
    /// [`Error::Digest`] for a file that can't be read or changes meanwhile; [`Error::Refused`] when two of the files
    /// are one.
    pub fn hold(&self, policy: MemoryPolicy) -> Result<HeldGolden, Error> {
        let files = [self.manifest_file()].into_iter().chain(self.files());
        let files = Arc::new(Files::new(files));
        let mut holds = Vec::with_capacity(files.files.len());
        for file in &files.files {
            holds.push(file.verify()?);
        }
        self.refuse_same_files(&holds)?;
        let config = self.read_config()?;
        if policy != MemoryPolicy::Trust {
            for (file, hold) in files.files.iter().zip(holds) {
                *file.lock() = Some(hold);
            }
        }
        let watcher = match policy {
            MemoryPolicy::Trust => None,
            _ => Some(Watcher::start(&files)),
        };
        Ok(HeldGolden {
            golden: self.clone(),
            policy,
            config,
            files,
            _watcher: watcher,
        })
    }

    /// Reads `config.json`: the very bytes that are returned are those that were compared with the manifest.
    fn read_config(&self) -> Result<Arc<[u8]>, Error> {
        let [(name, field, file), ..] = self.manifest().snapshot.files();
        let bytes = read_bounded(&self.snapshot().join(name), MAX_CONFIG_BYTES)?;
        let found = VerityDigest::of(&bytes);
        match found == file.fsverity {
            true => Ok(bytes.into()),
            false => Err(Error::mismatch(
                Part::Snapshot,
                format!("snapshot.{field}.fsverity"),
                file.fsverity,
                found,
            )),
        }
    }

    /// Two names for one file: a disk that is its own golden copy could never be found changed.
    fn refuse_same_files(&self, holds: &[Hold]) -> Result<(), Error> {
        for (at, hold) in holds.iter().enumerate() {
            let same = |other: &&Hold| other.identity() == hold.identity();
            if let Some(other) = holds[..at].iter().find(same) {
                return Err(self.same_file(hold.path(), other.path()));
            }
        }
        Ok(())
    }
}

impl HeldGolden {
    /// The golden snapshot.
    pub fn golden(&self) -> &Golden {
        &self.golden
    }

    /// How it is held.
    pub fn policy(&self) -> MemoryPolicy {
        self.policy
    }

    /// The bytes of `config.json` that were verified. What is fitted to a clone is fitted from these.
    pub fn config(&self) -> &Arc<[u8]> {
        &self.config
    }

    /// Makes sure, as the policy says, that every file is what the manifest says, before a restore: a hold that was
    /// lost is taken again, with a new digest. Call it before the VM that runs is touched.
    ///
    /// # Errors
    ///
    /// Those of [`Golden::hold`].
    pub fn recheck(&self) -> Result<MemoryProof, Error> {
        let started = Instant::now();
        for _ in 0..ATTEMPTS {
            let mut proof = self.look_at_each()?;
            // In this order: what is lost after it was counted is seen, here or by whoever confirms.
            proof.losses = *self.files.losses.borrow();
            if self.policy == MemoryPolicy::Trust || self.files.all_stand() {
                proof.micros = started.elapsed().as_micros() as u64;
                return Ok(proof);
            }
        }
        Err(self.hold_lost())
    }

    fn look_at_each(&self) -> Result<MemoryProof, Error> {
        let mut proof = MemoryProof {
            policy: self.policy,
            basis: Basis::KernelVerity,
            confirmed: false,
            hashed: 0,
            skipped: 0,
            micros: 0,
            losses: Losses::default(),
        };
        for file in &self.files.files {
            let (basis, hashed) = match self.policy {
                MemoryPolicy::Trust => (Basis::Trusted, 0),
                MemoryPolicy::Held => file.ensure_held(&self.files.losses)?,
                MemoryPolicy::Digest => file.digest_anew(&self.files.losses)?,
            };
            if file.is(Part::Snapshot) {
                proof.basis = proof.basis.min(basis);
                proof.hashed += hashed;
                proof.skipped += file.expected.length - hashed;
            }
        }
        Ok(proof)
    }

    fn hold_lost(&self) -> Error {
        Error::HoldLost {
            directory: self.golden.directory().to_owned(),
        }
    }

    /// Whether all that `proof` rests on has stood until now. Under [`MemoryPolicy::Trust`] nobody knows, and it says
    /// no.
    pub fn stands(&self, proof: &MemoryProof) -> bool {
        if self.policy == MemoryPolicy::Trust {
            return false;
        }
        self.files.look();
        self.files.losses.borrow().snapshot == proof.losses.snapshot
    }

    /// Makes sure again, after any time, of what a VM that was restored on `proof` has yet to read.
    ///
    /// # Errors
    ///
    /// Those of [`Golden::hold`].
    pub fn renew(&self, proof: MemoryProof) -> Result<MemoryProof, Error> {
        self.files.look();
        if self.policy != MemoryPolicy::Trust && !is_lost(&self.files.losses.borrow(), &proof) {
            return Ok(proof);
        }
        let again = self.recheck()?;
        Ok(match proof.confirmed {
            // What was read stays as proved as it was.
            true => MemoryProof {
                losses: again.losses,
                ..proof
            },
            false => again,
        })
    }

    /// Says after a restore with `Copy` whether the VMM has read what was proved before it.
    ///
    /// # Errors
    ///
    /// [`Error::HoldLost`] when a file was opened for writing, replaced or changed meanwhile.
    pub fn confirm(&self, proof: MemoryProof) -> Result<MemoryProof, Error> {
        if self.policy == MemoryPolicy::Trust {
            return Ok(proof);
        }
        match self.stands(&proof) {
            true => Ok(MemoryProof {
                confirmed: true,
                ..proof
            }),
            false => Err(self.hold_lost()),
        }
    }

    /// Waits until a file that a VM restored on `proof` has yet to read is no longer held as it was, which the watcher
    /// notices within a tenth of a second: a disk that the guest can't write, what lies beneath a disk, and the memory
    /// unless the VMM has read all of it (`proof.confirmed`). Never ends under [`MemoryPolicy::Trust`].
    pub async fn lost(&self, proof: &MemoryProof) {
        let mut losses = self.files.losses.subscribe();
        // The sender lives as long as this does.
        let _ = losses.wait_for(|losses| is_lost(losses, proof)).await;
    }

    /// The disk, if it is held by a lease or by the kernel at this moment: then its digest is the manifest's, and it
    /// needn't be hashed. For a qcow2 image the files beneath it are held too, or `recheck` has failed.
    pub fn held_disk(&self, role: DiskRole) -> Option<HeldDisk> {
        let disk = |file: &&HeldFile| file.is(Part::Disk(role));
        let file = self.files.files.iter().find(disk)?;
        let sha256 = file.expected.sha256?;
        let hold = file.lock();
        let hold = hold.as_ref().filter(|hold| hold.is_held())?;
        Some(HeldDisk {
            sha256,
            fsverity: hold.digest(),
            length: hold.length(),
            identity: hold.identity(),
            kind: hold.kind(),
        })
    }
}

/// Whether something that a VM restored on `proof` has yet to read was lost since.
fn is_lost(losses: &Losses, proof: &MemoryProof) -> bool {
    let memory = losses.snapshot != proof.losses.snapshot && !proof.confirmed;
    memory || losses.disks != proof.losses.disks
}
