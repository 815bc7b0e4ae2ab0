//! [`LoadedGolden`]: a golden snapshot that is ready to be restored. Its files were verified, its memory can't change,
//! and its disks are held under leases.

mod files;
mod watcher;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::executable;
use super::files::{ExpectedFile, Part};
use super::manifest::read_bounded;
use super::memory::{CopyReason, LoadedMemory, MemoryBasis, MemoryMode};
use super::memory_availability::MemoryAvailability;
use super::{Error, Golden, Shortage};
use crate::causes::Causes;
use crate::duration::micros;
use crate::machine::{
    CopySource, DiskRole, GuestMemory, MAX_CONFIG_BYTES, MAX_STATE_BYTES, SNAPSHOT_FILES, Snapshot,
    SnapshotBytes, maps_memory,
};
use crate::offload::blocking;
use crate::overlay::{
    Digest, Digests, FileIdentity, FileProof, ImmutableFile, LeasedFile, VerityDigest,
};
use crate::vmm::Process;
use files::{GoldenFile, HeldFiles, Holding};
use watcher::Watcher;

/// How many times [`LoadedGolden::ensure_disks`] tries to hold all disks while another process writes to them.
const ATTEMPTS: u32 = 3;

/// The options of [`Golden::load`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadOptions {
    /// How guests get the golden snapshot's memory.
    pub memory: MemoryMode,
    /// The most memory that a sealed copy may take, in bytes. Whether set or not, the copy is also limited to the
    /// memory that the host and this process's control groups leave.
    pub memory_limit: Option<u64>,
    /// Whether another program runs the VMM, so that the VMM can't inherit descriptors from this process.
    pub attached_vmm: bool,
}

/// A golden snapshot whose files had the digests of the manifest when it was loaded with [`Golden::load`].
///
/// Its memory can't change any more, and the contents of `config.json` and `state.json` are kept in this process. The
/// manifest and the disks are held under read leases until this is dropped. Any number of sandboxes may share one
/// (`Arc`), so that a process seals and digests only once. All public methods except [`lost`](Self::lost) block.
#[derive(Debug)]
pub struct LoadedGolden {
    golden: Golden,
    snapshot: Arc<Snapshot>,
    memory: LoadedMemory,
    files: Arc<HeldFiles>,
    _watcher: Watcher,
}

/// A moment at which all disks that a VM reads while it runs were held. Returned by [`LoadedGolden::ensure_disks`], for
/// [`LoadedGolden::lost`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldDisks {
    losses: u64,
}

impl Golden {
    /// Compares every file of the golden snapshot with the manifest, makes its memory immutable and holds its disks.
    ///
    /// Blocks while it reads the files, so for longer the more data they have.
    ///
    /// # Errors
    ///
    /// - [`Error::Missing`]: a file doesn't exist.
    /// - [`Error::Mismatch`]: a file differs from the manifest, with the first field that differs, such as
    ///   `snapshot.memory_ranges.fsverity`. [`Error::ManifestChanged`] if that file is the manifest itself.
    /// - [`Error::Snapshot`]: `config.json` or `state.json` has something that no mint writes, with its place.
    /// - [`Error::Memory`]: the memory can't be sealed or, if there is too little memory for a sealed copy, can't be
    ///   held under a lease.
    /// - [`Error::Digest`]: a file can't be read, or changes while it is read.
    /// - [`Error::Refused`]: two of the files are the same file.
    pub fn load(&self, options: &LoadOptions) -> Result<LoadedGolden, Error> {
        let started = Instant::now();
        let [config, state, memory] = self.snapshot_files();
        let bytes = SnapshotBytes {
            config: read_verified(&config, MAX_CONFIG_BYTES)?,
            state: read_verified(&state, MAX_STATE_BYTES)?,
        };
        let (guest_memory, loaded) = self.load_memory(&memory, options)?;
        // A VMM that opens the memory file by its path reads the file that is there at that time, so the file is held
        // like a disk.
        let read_by_path = matches!(guest_memory, GuestMemory::ByPath).then_some(memory);
        let held = [self.manifest_file()].into_iter().chain(read_by_path);
        let leased = match &guest_memory {
            GuestMemory::Copied(CopySource::Leased(file)) => Some(Arc::clone(file)),
            _ => None,
        };
        let files = Arc::new(HeldFiles::new(held.chain(self.disk_files()), leased));
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
                micros: micros(started.elapsed()),
                ..loaded
            },
            files,
            _watcher: watcher,
        })
    }

    /// Compares every file with the manifest and holds those on which leases are granted. Two paths that lead to the
    /// same file are refused. Returns how many bytes of the VMM's own files were hashed.
    fn hold_all(&self, files: &HeldFiles) -> Result<u64, Error> {
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

    /// The identities of the VMM's own files, so that a disk that is the same file can be refused.
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
        file: &ExpectedFile,
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
                let leased = LeasedFile::take(&file.path).map_err(Error::Memory)?;
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

    /// Returns the memory as a file that can't change, or the shortage if there is too little memory for a sealed copy.
    fn immutable_memory(
        &self,
        file: &ExpectedFile,
        limit: Option<u64>,
    ) -> Result<Result<ImmutableFile, Shortage>, Error> {
        let protected = ImmutableFile::by_fs_verity(&file.path, &file.fsverity);
        if let Some(protected) = protected.map_err(Error::Memory)? {
            return Ok(Ok(protected));
        }
        match MemoryAvailability::default().check(file.length, limit) {
            Ok(()) => ImmutableFile::seal(&file.path)
                .map(Ok)
                .map_err(Error::Memory),
            Err(shortage) => Ok(Err(shortage)),
        }
    }
}

/// Reads a small file whole and compares the bytes that it returns with the manifest.
fn read_verified(file: &ExpectedFile, limit: u64) -> Result<Vec<u8>, Error> {
    file.check_length_on_disk()?;
    let bytes = read_bounded(&file.path, limit)?;
    file.check("fsverity", &file.fsverity, &VerityDigest::of(&bytes))?;
    Ok(bytes)
}

impl LoadedGolden {
    /// The golden snapshot that was loaded.
    pub fn golden(&self) -> &Golden {
        &self.golden
    }

    /// The verified snapshot that machines are reverted to.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// How guests get the memory, and what keeps the memory's bytes from changing.
    pub fn memory(&self) -> &LoadedMemory {
        &self.memory
    }

    /// Ensures, before a restore, that the manifest and every disk still have the recorded digests: a hold that was
    /// lost is taken again, with a new digest. Call it before the present VM is touched, so that a refusal leaves that
    /// VM as it is.
    ///
    /// A file on which no lease is granted is digested at each call. A disk without a lease is an exception: it is not
    /// digested here, [`held_disk`](Self::held_disk) has no proof for it, and the reset itself has to digest it.
    ///
    /// # Errors
    ///
    /// Those of [`Golden::load`], and [`Error::HoldLost`] if another process keeps writing to a file.
    pub fn ensure_disks(&self) -> Result<HeldDisks, Error> {
        for _ in 0..ATTEMPTS {
            for file in &self.files.files {
                file.ensure(&self.files.losses)?;
            }
            // The count is read first. A hold that is lost after that is noticed by `all_stand`, or later by `lost`.
            let losses = *self.files.losses.borrow();
            if self.files.all_stand() {
                return Ok(HeldDisks { losses });
            }
        }
        Err(Error::HoldLost {
            directory: self.golden.directory().to_owned(),
        })
    }

    /// Waits until the hold on a file that a VM reads while it runs is lost: a read-only disk, or a backing file of a
    /// disk. The watcher thread notices a loss within 100 ms. A file on which no lease was granted is not watched.
    pub async fn lost(&self, held: &HeldDisks) {
        let mut losses = self.files.losses.subscribe();
        // This fails only when the sender is dropped, and `self` owns the sender.
        let _ = losses.wait_for(|losses| *losses != held.losses).await;
    }

    /// Returns the proof of the disk's digests if a lease or fs-verity guarantees at this moment that they are the
    /// manifest's. Then the disk needn't be read. The backing files of a qcow2 image are not part of this proof:
    /// [`ensure_disks`](Self::ensure_disks) holds or compares them.
    pub fn held_disk(&self, role: DiskRole) -> Option<FileProof<Digests>> {
        let disk = |file: &&GoldenFile| file.is(Part::Disk(role));
        let file = self.files.files.iter().find(disk)?;
        let recorded = file.expected.recorded()?;
        match &*file.lock() {
            Holding::Held(hold) => Some(hold.proof()?.with_digest(Digests::from(&recorded))),
            Holding::Lost | Holding::Unleased => None,
        }
    }

    /// Returns the SHA-256 of the executable that `process` runs. This is the file that was started, even if its path
    /// leads to another file by now. The digest is computed if this file was not the last one asked for, and if another
    /// process may have written to it since.
    ///
    /// # Errors
    ///
    /// Those of [`ExecutableFacts::of_process`](crate::golden::ExecutableFacts::of_process).
    pub(crate) async fn vmm_executable(&self, process: &Process) -> Result<Digest, Error> {
        let files = Arc::clone(&self.files);
        let exe = executable::path(process);
        let known = blocking(move || files.executable.digest(&exe)).await?;
        executable::check_alive(process)?;
        Ok(known)
    }
}
