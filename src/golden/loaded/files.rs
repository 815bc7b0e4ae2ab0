//! The files of a golden snapshot that are held, and how often one was lost.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::golden::Error;
use crate::golden::files::{Expected, Part};
use crate::overlay::{Hold, HoldKind, Leased};

/// The files, and how often one that a VM goes on to read was lost.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) files: Vec<HeldFile>,
    /// The memory, where VMMs copy it from a file that is only leased.
    pub(super) leased: Option<Arc<Leased>>,
    pub(super) losses: watch::Sender<u64>,
}

impl Files {
    /// None is held yet.
    pub(super) fn new(files: impl Iterator<Item = Expected>, leased: Option<Arc<Leased>>) -> Files {
        Files {
            files: files.map(HeldFile::new).collect(),
            leased,
            losses: watch::Sender::default(),
        }
    }

    /// Whether each file that a VM goes on to read is held, as far as it could be when it was taken.
    pub(super) fn all_stand(&self) -> bool {
        let mut read = self.files.iter().filter(|file| file.expected.read_by_vm);
        read.all(|file| file.lock().as_ref().is_some_and(stands))
    }

    /// How many bytes were hashed to hold the files of this part.
    pub(super) fn hashed_of(&self, part: Part) -> u64 {
        let files = self.files.iter().filter(|file| file.is(part));
        files
            .map(|file| file.lock().as_ref().map_or(0, Hold::hashed))
            .sum()
    }

    /// Gives up every file that is no longer held: a process waits for it, or it is another one.
    pub(super) fn look(&self) {
        for file in &self.files {
            let mut hold = file.lock();
            if hold.as_ref().is_some_and(|hold| !stands(hold)) {
                tracing::warn!(path = %file.expected.path.display(), "a file of the golden snapshot is no longer held");
                *hold = None;
                file.count_loss(&self.losses);
            }
        }
        if let Some(memory) = &self.leased {
            memory.give_way();
        }
    }
}

/// A file, and the hold on it.
#[derive(Debug)]
pub(super) struct HeldFile {
    pub(super) expected: Expected,
    hold: Mutex<Option<Hold>>,
}

impl HeldFile {
    fn new(expected: Expected) -> Self {
        HeldFile {
            expected,
            hold: Mutex::default(),
        }
    }

    pub(super) fn is(&self, part: Part) -> bool {
        self.expected.part == part
    }

    /// Takes a hold and compares it with the manifest.
    pub(super) fn verify(&self) -> Result<Hold, Error> {
        let expected = &self.expected;
        expected.check_length_on_disk()?;
        let hold = Hold::take(&expected.path, &expected.fsverity).map_err(Error::Digest)?;
        expected.check("length", &expected.length, &hold.length())?;
        expected.check("fsverity", &expected.fsverity, &hold.digest())?;
        Ok(hold)
    }

    /// Leaves a hold that is proved to stand. For one that isn't, digests the file and holds it from now on; threads that
    /// look at the earlier hold are not blocked meanwhile.
    pub(super) fn ensure_held(&self, losses: &watch::Sender<u64>) -> Result<(), Error> {
        if self.lock().as_ref().is_some_and(Hold::is_held) {
            return Ok(());
        }
        let new = self.verify();
        let mut hold = self.lock();
        // If the earlier one stood until now, nothing was lost.
        if !hold.as_ref().is_some_and(stands) {
            self.count_loss(losses);
        }
        *hold = None;
        *hold = Some(new?);
        Ok(())
    }

    /// A VM's writable disk is put back from a file that doesn't count: the digest of the disk itself is compared.
    fn count_loss(&self, losses: &watch::Sender<u64>) {
        if self.expected.read_by_vm {
            losses.send_modify(|losses| *losses += 1);
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Hold>> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a hold is as good as it was when it was taken.
fn stands(hold: &Hold) -> bool {
    match hold.kind() {
        HoldKind::Unleased => hold.is_unchanged(),
        HoldKind::Leased | HoldKind::KernelVerity => hold.is_held(),
    }
}
