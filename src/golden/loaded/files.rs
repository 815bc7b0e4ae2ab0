//! [`HeldFiles`]: the files of a loaded golden snapshot, each with the hold that keeps its bytes proved, and the number
//! of holds that were lost.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

use crate::golden::Error;
use crate::golden::executable::KnownExecutable;
use crate::golden::files::{ExpectedFile, Part};
use crate::mutex::lock;
use crate::overlay::{FileIdentity, HeldFile, HeldFileAttempt, LeasedFile, UnleasedFile};

/// The files of a loaded golden snapshot.
#[derive(Debug)]
pub(super) struct HeldFiles {
    pub(super) files: Vec<GoldenFile>,
    /// The memory file, if VMMs copy the memory from a leased file.
    pub(super) leased: Option<Arc<LeasedFile>>,
    pub(super) executable: KnownExecutable,
    /// How often the hold on a file that a VM reads while it runs was lost.
    pub(super) losses: watch::Sender<u64>,
}

impl HeldFiles {
    /// Makes the list of files. No file is held yet.
    pub(super) fn new(
        files: impl Iterator<Item = ExpectedFile>,
        leased: Option<Arc<LeasedFile>>,
    ) -> HeldFiles {
        HeldFiles {
            files: files.map(GoldenFile::new).collect(),
            leased,
            executable: KnownExecutable::default(),
            losses: watch::Sender::default(),
        }
    }

    /// Whether each file that a VM reads while it runs is held. A file on which no lease is granted counts as held.
    pub(super) fn all_stand(&self) -> bool {
        let mut read = self.files.iter().filter(|file| file.expected.read_by_vm);
        read.all(|file| match &*file.lock() {
            Holding::Held(hold) => hold.is_held(),
            Holding::Unleased => true,
            Holding::Lost => false,
        })
    }

    /// Gives up each hold that no longer stands, because a process waits to write to the file or the path leads to
    /// another file.
    pub(super) fn give_way(&self) {
        for file in &self.files {
            file.give_way(&self.losses);
        }
        if let Some(memory) = &self.leased {
            memory.give_way();
        }
        self.executable.give_way();
    }
}

/// A file with the hold on it.
#[derive(Debug)]
pub(super) struct GoldenFile {
    pub(super) expected: ExpectedFile,
    holding: Mutex<Holding>,
}

/// Whether a file is held.
#[derive(Debug, Default)]
pub(super) enum Holding {
    /// The file is not held yet, or the hold was lost. It must be compared with the manifest before the next restore.
    #[default]
    Lost,
    /// The file is held, and had the manifest's digest when the hold was taken.
    Held(HeldFile),
    /// No lease was granted, so the file may change unnoticed. It must be compared at every restore.
    Unleased,
}

/// A file that was compared with the manifest when the golden snapshot was loaded.
pub(super) struct Compared {
    pub(super) holding: Holding,
    pub(super) identity: FileIdentity,
    /// How many bytes of the file were hashed.
    pub(super) hashed: u64,
}

impl GoldenFile {
    fn new(expected: ExpectedFile) -> Self {
        GoldenFile {
            expected,
            holding: Mutex::default(),
        }
    }

    pub(super) fn is(&self, part: Part) -> bool {
        self.expected.part == part
    }

    /// Compares the file with the manifest, and holds it if a lease is granted.
    pub(super) fn compare(&self) -> Result<Compared, Error> {
        Ok(match self.take()? {
            Ok(hold) => Compared {
                identity: hold.taken().identity,
                hashed: hold.taken().work.hashed,
                holding: Holding::Held(hold),
            },
            Err(unleased) => Compared {
                identity: unleased.identity(),
                hashed: self.compare_unleased(&unleased)?,
                holding: Holding::Unleased,
            },
        })
    }

    /// Keeps a hold that still stands. Otherwise compares the file with the manifest, and holds it from now on if a
    /// lease is granted. A disk without a lease is not compared here, since the reset digests every disk that isn't
    /// held.
    pub(super) fn ensure(&self, losses: &watch::Sender<u64>) -> Result<(), Error> {
        // A process that waits for the earlier lease to end would keep this process from being granted another one.
        self.give_way(losses);
        if matches!(*self.lock(), Holding::Held(_)) {
            return Ok(());
        }
        let new = match self.take()? {
            Ok(hold) => Holding::Held(hold),
            Err(unleased) => {
                if !matches!(self.expected.part, Part::Disk(_)) {
                    self.compare_unleased(&unleased)?;
                }
                Holding::Unleased
            }
        };
        let mut holding = self.lock();
        // Another thread may have taken a hold in the meantime.
        if !matches!(*holding, Holding::Held(_)) {
            *holding = new;
        }
        Ok(())
    }

    /// Opens the file and compares its length with the manifest's, and its digest too if the file can be held.
    fn take(&self) -> Result<Result<HeldFile, UnleasedFile>, Error> {
        let expected = &self.expected;
        let taken = HeldFile::take(&expected.path, expected.length, &expected.fsverity);
        match taken.map_err(|error| expected.unreadable(error))? {
            HeldFileAttempt::Held(hold) => {
                expected.check("fsverity", &expected.fsverity, &hold.taken().digest)?;
                Ok(Ok(hold))
            }
            HeldFileAttempt::Unleased(unleased) => Ok(Err(unleased)),
            HeldFileAttempt::OtherLength(found) => {
                Err(expected.differs("length", &expected.length, &found))
            }
        }
    }

    /// Compares the digest of a file that can't be held, and returns how many bytes were hashed.
    fn compare_unleased(&self, file: &UnleasedFile) -> Result<u64, Error> {
        let proof = file.fsverity().map_err(Error::Digest)?;
        let expected = &self.expected;
        expected.check("fsverity", &expected.fsverity, &proof.digest)?;
        Ok(proof.work.hashed)
    }

    /// Gives up a hold that no longer stands.
    fn give_way(&self, losses: &watch::Sender<u64>) {
        let mut holding = self.lock();
        if let Holding::Held(hold) = &*holding
            && !hold.is_held()
        {
            tracing::warn!(path = %self.expected.path.display(), "a file of the golden snapshot is no longer held");
            *holding = Holding::Lost;
            // The kept copy of a writable disk does not count: a reset compares the digest of the disk that was made
            // from it.
            if self.expected.read_by_vm {
                losses.send_modify(|losses| *losses += 1);
            }
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Holding> {
        lock(&self.holding)
    }
}
