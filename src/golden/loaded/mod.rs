//! A golden snapshot that is open for use: verified, its memory immutable, its disks held.

mod files;
mod watcher;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::executable;
use super::files::{Expected, Part};
use super::headroom::Headroom;
use super::manifest::read_bounded;
use super::memory::{CopyReason, LoadedMemory, MemoryBasis, MemoryMode};
use super::{Error, Golden, Shortage};
use crate::causes::Causes;
use crate::machine::{
    CopySource, DiskRole, GuestMemory, MAX_CONFIG_BYTES, MAX_STATE_BYTES, SNAPSHOT_FILES, Snapshot,
    SnapshotBytes, maps_memory,
};
use crate::offload::blocking;
use crate::overlay::{Digest, Digests, FileIdentity, FileProof, Immutable, Leased, VerityDigest};
use crate::vmm::Process;
use files::{Files, HeldFile, Holding};
use watcher::Watcher;

/// How often files are digested to which another process writes meanwhile.
const ATTEMPTS: u32 = 3;

/// How a golden snapshot is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// How guests get its memory.
    pub memory: MemoryMode,
    /// The most memory that a sealed copy may take, in bytes. Unless set, as much as the machine and its control groups
    /// leave.
    pub memory_limit: Option<u64>,
    /// Whether another program runs the VMM, so that it can inherit nothing.
    pub attached_vmm: bool,
}

/// A golden snapshot all of whose files were equal to the manifest when this was made.
///
/// Its memory can't change any more, and its two small files are kept as bytes. The manifest and the disks are held under
/// read leases until this is dropped. Any number of sandboxes may share one (`Arc`), so that a process seals and digests
/// once. Everything but [`lost`](Self::lost) blocks.
#[derive(Debug)]
pub struct LoadedGolden {
    golden: Golden,
    snapshot: Arc<Snapshot>,
    memory: LoadedMemory,
    files: Arc<Files>,
    _watcher: Watcher,
}

/// The disks that a VM reads while it lives, as they were held at one moment. See [`LoadedGolden::ensure_disks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldDisks {
    losses: u64,
}

impl Golden {
    /// Compares every file of the golden snapshot with the manifest, makes its memory immutable and holds its disks.
    ///
    /// Blocks for as long as the files have data.
    ///
    /// # Errors
    ///
    /// [`Error::Mismatch`] with the first field that differs, as `snapshot.memory_ranges.fsverity`;
    /// [`Error::Snapshot`] for a `config.json` or `state.json` that isn't one of a mint, with the place;
    /// [`Error::Memory`] when the memory can't be sealed, or where memory is short not be held under a lease;
    /// [`Error::Digest`] for a file that can't be read or changes meanwhile; [`Error::Refused`] when two of the files
    /// are one.
    pub fn load(&self, options: &LoadOptions) -> Result<LoadedGolden, Error> {
        let started = Instant::now();
        let [config, state, memory] = self.snapshot_files();
        let bytes = SnapshotBytes {
            config: read_verified(&config, MAX_CONFIG_BYTES)?,
            state: read_verified(&state, MAX_STATE_BYTES)?,
        };
        let (guest_memory, loaded) = self.load_memory(&memory, options)?;
        // A VMM that reads the memory by its path reads what is there then, so it is held like a disk.
        let read_by_path = matches!(guest_memory, GuestMemory::ByPath).then_some(memory);
        let held = [self.manifest_file()].into_iter().chain(read_by_path);
        let leased = match &guest_memory {
            GuestMemory::Copied(CopySource::Leased(file)) => Some(Arc::clone(file)),
            _ => None,
        };
        let files = Arc::new(Files::new(held.chain(self.disk_files()), leased));
        let watcher = Watcher::start(&files);
        let hashed = self.hold_all(&files)?;
        let snapshot = Snapshot::new(
            &self.snapshot(),
            bytes,
            self.manifest().vm_shape(),
            &self.disks(),
            guest_memory,
        );
        Ok(LoadedGolden {
            golden: self.clone(),
            snapshot: Arc::new(snapshot.map_err(Error::Snapshot)?),
            memory: LoadedMemory {
                hashed: loaded.hashed + hashed,
                micros: started.elapsed().as_micros() as u64,
                ..loaded
            },
            files,
            _watcher: watcher,
        })
    }

    /// Compares every file with the manifest and holds those on which leases are to be had. None may be another one by a
    /// second name. Returns how many bytes of the snapshot's own files were hashed.
    fn hold_all(&self, files: &Files) -> Result<u64, Error> {
        let mut seen = self.identities()?;
        let mut hashed = 0;
        for file in &files.files {
            let path = &file.expected.path;
            let compared = file.compare()?;
            let same = |(other, name): &&(FileIdentity, PathBuf)| {
                *other == compared.identity && path != name
            };
            if let Some((_, other)) = seen.iter().find(same) {
                return Err(self.same_file(path, other));
            }
            seen.push((compared.identity, path.clone()));
            if file.is(Part::Snapshot) {
                hashed += compared.hashed;
            }
            *file.lock() = compared.holding;
        }
        Ok(hashed)
    }

    /// The snapshot's own files: none of them may be a disk by another name.
    fn identities(&self) -> Result<Vec<(FileIdentity, PathBuf)>, Error> {
        let paths = SNAPSHOT_FILES.iter().map(|name| self.snapshot().join(name));
        let identity = |path: PathBuf| match fs::metadata(&path) {
            Ok(metadata) => Ok((FileIdentity::from(&metadata), path)),
            Err(source) => Err(Error::Missing { path, source }),
        };
        paths.map(identity).collect()
    }

    fn load_memory(
        &self,
        file: &Expected,
        options: &LoadOptions,
    ) -> Result<(GuestMemory, LoadedMemory), Error> {
        file.check_length_on_disk()?;
        let release = &self.manifest().release;
        let because = match options.memory {
            _ if options.attached_vmm => Some(CopyReason::AttachedVmm),
            MemoryMode::Copied => Some(CopyReason::Configured),
            MemoryMode::Mapped if !maps_memory(release) => {
                Some(CopyReason::Release(release.clone()))
            }
            MemoryMode::Mapped => None,
        };
        if options.attached_vmm {
            let loaded = LoadedMemory {
                mode: MemoryMode::Copied,
                copied_because: because,
                basis: MemoryBasis::Unproved,
                bytes: file.length,
                hashed: 0,
                micros: 0,
            };
            return Ok((GuestMemory::ByPath, loaded));
        }
        let (source, because) = match self.immutable_memory(file, options.memory_limit)? {
            Ok(immutable) => (CopySource::Immutable(Arc::new(immutable)), because),
            Err(shortage) => {
                tracing::warn!(shortage = %Causes(&shortage), "the golden snapshot's memory is copied at each restore");
                let leased = Leased::take(&file.path).map_err(Error::Memory)?;
                let because = because.unwrap_or(CopyReason::ShortOfMemory(shortage));
                (CopySource::Leased(Arc::new(leased)), Some(because))
            }
        };
        file.check("length", &file.length, &source.length())?;
        file.check("fsverity", &file.fsverity, &source.digest())?;
        let loaded = LoadedMemory {
            mode: match because {
                None => MemoryMode::Mapped,
                Some(_) => MemoryMode::Copied,
            },
            basis: match &source {
                CopySource::Immutable(file) => file.protection().into(),
                CopySource::Leased(_) => MemoryBasis::Leased,
            },
            bytes: source.length(),
            hashed: source.hashed(),
            copied_because: because,
            micros: 0,
        };
        let memory = match (source, &loaded.mode) {
            (CopySource::Immutable(file), MemoryMode::Mapped) => GuestMemory::Mapped(file),
            (source, _) => GuestMemory::Copied(source),
        };
        Ok((memory, loaded))
    }

    /// The memory as a file that can't change; a shortage where there is no memory for a copy.
    fn immutable_memory(
        &self,
        file: &Expected,
        limit: Option<u64>,
    ) -> Result<Result<Immutable, Shortage>, Error> {
        let protected = Immutable::by_fs_verity(&file.path, &file.fsverity);
        if let Some(protected) = protected.map_err(Error::Memory)? {
            return Ok(Ok(protected));
        }
        match Headroom::default().check(file.length, limit) {
            Ok(()) => Immutable::seal(&file.path).map(Ok).map_err(Error::Memory),
            Err(shortage) => Ok(Err(shortage)),
        }
    }
}

/// Reads a small file whole: the bytes that are returned are those that were compared with the manifest.
fn read_verified(file: &Expected, limit: u64) -> Result<Vec<u8>, Error> {
    file.check_length_on_disk()?;
    let bytes = read_bounded(&file.path, limit)?;
    file.check("fsverity", &file.fsverity, &VerityDigest::of(&bytes))?;
    Ok(bytes)
}

impl LoadedGolden {
    /// The golden snapshot.
    pub fn golden(&self) -> &Golden {
        &self.golden
    }

    /// What machines are reverted to.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// How guests get its memory, and what that rests on.
    pub fn memory(&self) -> &LoadedMemory {
        &self.memory
    }

    /// Makes sure that the manifest and every disk is what the manifest says, before a restore: a hold that was lost is
    /// taken again, with a new digest. Call it before the VM that runs is touched.
    ///
    /// Where no lease is to be had on a file, nothing vouches for it, and it is digested at each call; but a disk, for which
    /// [`held_disk`](Self::held_disk) then has no proof, has to be digested by the reset itself.
    ///
    /// # Errors
    ///
    /// Those of [`Golden::load`], and [`Error::HoldLost`] when another process goes on writing to a file.
    pub fn ensure_disks(&self) -> Result<HeldDisks, Error> {
        for _ in 0..ATTEMPTS {
            for file in &self.files.files {
                file.ensure(&self.files.losses)?;
            }
            // In this order: what is lost after it was counted is seen here, or by `lost`.
            let losses = *self.files.losses.borrow();
            if self.files.all_stand() {
                return Ok(HeldDisks { losses });
            }
        }
        Err(Error::HoldLost {
            directory: self.golden.directory().to_owned(),
        })
    }

    /// Waits until a file that a VM goes on to read is no longer held as it was, which the watcher notices within a tenth
    /// of a second: a disk that the guest can't write, or a file beneath a disk. A file on which no lease was to be had is
    /// not watched.
    pub async fn lost(&self, held: &HeldDisks) {
        let mut losses = self.files.losses.subscribe();
        // The sender lives as long as this does.
        let _ = losses.wait_for(|losses| *losses != held.losses).await;
    }

    /// The proof of the disk, if it is held by a lease or by the kernel at this moment: then its digests are the manifest's,
    /// and it needn't be read. For a qcow2 image the files beneath it were compared or are held too, or `ensure_disks` has
    /// failed.
    pub fn held_disk(&self, role: DiskRole) -> Option<FileProof<Digests>> {
        let disk = |file: &&HeldFile| file.is(Part::Disk(role));
        let file = self.files.files.iter().find(disk)?;
        let recorded = file.expected.recorded()?;
        match &*file.lock() {
            Holding::Held(hold) => Some(hold.proof()?.with_digest(Digests::from(&recorded))),
            Holding::Lost | Holding::Unleased => None,
        }
    }

    /// The SHA-256 of the executable that `process` runs: the file that was started, whatever has its name by now. It is
    /// computed anew for another file than the last one, and for one that another process may have written to since.
    ///
    /// # Errors
    ///
    /// Those of [`ExecutableFacts::of_process`](crate::golden::ExecutableFacts::of_process).
    pub async fn vmm_executable(&self, process: &Process) -> Result<Digest, Error> {
        let files = Arc::clone(&self.files);
        let exe = executable::path(process);
        let known = blocking(move || files.executable.digest(&exe)).await?;
        executable::check_alive(process)?;
        Ok(known)
    }
}
