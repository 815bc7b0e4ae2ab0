//! The files of a golden snapshot, each with the hold on it, and how often one was lost.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::golden::Error;
use crate::golden::files::{Expected, Part};
use crate::golden::memory::{Basis, Losses};
use crate::overlay::{Hold, HoldKind};

/// The files, and how often one that is read on the strength of a proof was lost.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) files: Vec<HeldFile>,
    pub(super) losses: watch::Sender<Losses>,
}

impl Files {
    /// None is held yet.
    pub(super) fn new(files: impl Iterator<Item = Expected>) -> Files {
        Files {
            files: files.map(HeldFile::new).collect(),
            losses: watch::Sender::default(),
        }
    }

    /// Whether each file whose losses count is held, as far as it could be when it was taken.
    pub(super) fn all_stand(&self) -> bool {
        let mut counted = self.files.iter().filter(|file| file.counts());
        counted.all(|file| file.lock().as_ref().is_some_and(stands))
    }

    /// Lets go of every file that is no longer held: somebody waits for it, or it is another one.
    pub(super) fn look(&self) {
        for file in &self.files {
            let mut hold = file.lock();
            if hold.as_ref().is_some_and(|hold| !stands(hold)) {
                tracing::warn!(path = %file.expected.path.display(), "a file of the golden snapshot is no longer held");
                *hold = None;
                file.count_loss(&self.losses);
            }
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

    /// Leaves a hold that is proved to stand, and takes another for one that isn't.
    pub(super) fn ensure_held(
        &self,
        losses: &watch::Sender<Losses>,
    ) -> Result<(Basis, u64), Error> {
        let held = self
            .lock()
            .as_ref()
            .filter(|hold| hold.is_held())
            .map(Hold::kind);
        match held {
            Some(HoldKind::KernelVerity) => Ok((Basis::KernelVerity, 0)),
            Some(_) => Ok((Basis::Lease, 0)),
            None => self.digest_anew(losses),
        }
    }

    /// Digests the file, which blocks nobody who looks at the hold there was, and holds it from now on.
    pub(super) fn digest_anew(
        &self,
        losses: &watch::Sender<Losses>,
    ) -> Result<(Basis, u64), Error> {
        let new = self.verify();
        let mut hold = self.lock();
        // The one before stood until the new one was taken, or a proof that rests on it has come to nothing.
        if !hold.as_ref().is_some_and(stands) {
            self.count_loss(losses);
        }
        *hold = None;
        let new = hold.insert(new?);
        let basis = match new.kind() {
            HoldKind::KernelVerity => Basis::KernelVerity,
            HoldKind::Leased => Basis::Digested,
            HoldKind::Unleased => Basis::Unleased,
        };
        Ok((basis, new.hashed()))
    }

    fn count_loss(&self, losses: &watch::Sender<Losses>) {
        if self.counts() {
            losses.send_modify(|losses| match self.expected.read_by_vm {
                true => losses.disks += 1,
                false => losses.snapshot += 1,
            });
        }
    }

    /// Whether a VM reads it on the strength of a proof, at its restore or later. What a writable disk is put back from
    /// is not: the digest of the disk itself is compared.
    fn counts(&self) -> bool {
        self.is(Part::Snapshot) || self.expected.read_by_vm
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
