//! The files of a golden snapshot that are held, and how often one was lost.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::golden::Error;
use crate::golden::executable::KnownExecutable;
use crate::golden::files::{Expected, Part};
use crate::overlay::{FileIdentity, Hold, HoldAttempt, Leased, UnleasedFile};

/// The files, and how often one that a VM goes on to read was lost.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) files: Vec<HeldFile>,
    /// The memory, where VMMs copy it from a file that is only leased.
    pub(super) leased: Option<Arc<Leased>>,
    pub(super) executable: KnownExecutable,
    pub(super) losses: watch::Sender<u64>,
}

impl Files {
    /// None is held yet.
    pub(super) fn new(files: impl Iterator<Item = Expected>, leased: Option<Arc<Leased>>) -> Files {
        Files {
            files: files.map(HeldFile::new).collect(),
            leased,
            executable: KnownExecutable::default(),
            losses: watch::Sender::default(),
        }
    }

    /// Whether each file that a VM goes on to read is held, but for those on which no lease is to be had.
    pub(super) fn all_stand(&self) -> bool {
        let mut read = self.files.iter().filter(|file| file.expected.read_by_vm);
        read.all(|file| match &*file.lock() {
            Holding::Held(hold) => hold.is_held(),
            Holding::Unleased => true,
            Holding::Lost => false,
        })
    }

    /// Gives up every file that is no longer held: a process waits for it, or it is another one.
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

/// A file, and the hold on it.
#[derive(Debug)]
pub(super) struct HeldFile {
    pub(super) expected: Expected,
    holding: Mutex<Holding>,
}

/// Whether a file is held.
#[derive(Debug, Default)]
pub(super) enum Holding {
    /// It isn't yet, or no longer: it is to be compared with the manifest before the next restore.
    #[default]
    Lost,
    /// It had the manifest's bytes when the hold was taken.
    Held(Hold),
    /// No lease was to be had, so nothing vouches for it: it is to be compared at every restore.
    Unleased,
}

/// A file that was compared with the manifest when the golden snapshot was loaded.
pub(super) struct Compared {
    pub(super) holding: Holding,
    pub(super) identity: FileIdentity,
    /// How many bytes were hashed.
    pub(super) hashed: u64,
}

impl HeldFile {
    fn new(expected: Expected) -> Self {
        HeldFile {
            expected,
            holding: Mutex::default(),
        }
    }

    pub(super) fn is(&self, part: Part) -> bool {
        self.expected.part == part
    }

    /// Compares the file with the manifest, and holds it if a lease is to be had.
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

    /// Leaves a hold that is proved to stand. Otherwise compares the file with the manifest, and holds it from now on if a
    /// lease is to be had. A disk without one is left to the reset, which digests every disk that isn't held.
    pub(super) fn ensure(&self, losses: &watch::Sender<u64>) -> Result<(), Error> {
        // A process that waits for the earlier lease would keep this one from having another.
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
        // Another thread may have done the same meanwhile.
        if !matches!(*holding, Holding::Held(_)) {
            *holding = new;
        }
        Ok(())
    }

    /// Opens the file and compares its length, and its digest too if it can be held.
    fn take(&self) -> Result<Result<Hold, UnleasedFile>, Error> {
        let expected = &self.expected;
        let taken = Hold::take(&expected.path, expected.length, &expected.fsverity);
        match taken.map_err(|error| expected.unreadable(error))? {
            HoldAttempt::Held(hold) => {
                expected.check("fsverity", &expected.fsverity, &hold.taken().digest)?;
                Ok(Ok(hold))
            }
            HoldAttempt::Unleased(unleased) => Ok(Err(unleased)),
            HoldAttempt::OtherLength(found) => {
                Err(expected.differs("length", &expected.length, &found))
            }
        }
    }

    /// Returns how many bytes were hashed.
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
            // A VM's writable disk is put back from a file that doesn't count: the digest of the disk itself is compared.
            if self.expected.read_by_vm {
                losses.send_modify(|losses| *losses += 1);
            }
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Holding> {
        self.holding.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
