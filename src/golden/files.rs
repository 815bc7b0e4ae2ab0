//! The files of a golden snapshot, each with the length and digests that the manifest has for it ([`ExpectedFile`]).

use std::fmt::Display;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use super::{Error, FileFacts, Golden, manifest};
use crate::machine::DiskRole;
use crate::overlay::{self, Digest, RecordedBytes, VerityDigest};

/// The part of a golden snapshot that a file or a [mismatch](Error::Mismatch) belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// The manifest itself.
    Manifest,
    /// This host or its VMM, which must be like those that made the golden snapshot.
    Host,
    /// One of the three files that the VMM wrote: `config.json`, `state.json` or `memory-ranges`.
    Snapshot,
    /// A read-only disk, or the kept copy that a writable disk is restored from.
    Disk(DiskRole),
    /// A backing file of a disk.
    Backing,
    /// The kernel or the initramfs that the VM was booted from.
    Payload,
}

/// A file with the length and digests that the manifest has for it.
#[derive(Clone, Debug)]
pub(super) struct ExpectedFile {
    pub(super) part: Part,
    /// The file's place in the manifest, such as `disks[1]`.
    pub(super) field: String,
    pub(super) path: PathBuf,
    pub(super) length: u64,
    pub(super) fsverity: VerityDigest,
    /// `None` for the VMM's own files and the manifest, for which no SHA-256 is recorded.
    pub(super) sha256: Option<Digest>,
    /// Whether the VM reads the file for as long as it runs.
    pub(super) read_by_vm: bool,
}

impl Golden {
    /// Every file that a restore needs: the VMM's own files, the disks and their backing files.
    pub(super) fn files(&self) -> Vec<ExpectedFile> {
        let snapshot = self.snapshot_files();
        snapshot.into_iter().chain(self.disk_files()).collect()
    }

    /// The VMM's own files: `config.json`, `state.json`, `memory-ranges`.
    pub(super) fn snapshot_files(&self) -> [ExpectedFile; 3] {
        let folder = self.snapshot();
        let files = self.manifest().snapshot.files();
        files.map(|(name, field, facts)| ExpectedFile {
            part: Part::Snapshot,
            field: format!("snapshot.{field}"),
            path: folder.join(name),
            length: facts.length,
            fsverity: facts.fsverity,
            sha256: None,
            read_by_vm: false,
        })
    }

    /// The read-only disks, the kept copies of the writable disks, and the backing files.
    pub(super) fn disk_files(&self) -> Vec<ExpectedFile> {
        let manifest = self.manifest();
        let mut files = Vec::new();
        for (at, disk) in manifest.disks.iter().enumerate() {
            files.push(ExpectedFile {
                part: Part::Disk(disk.role),
                field: format!("disks[{at}]"),
                path: self.directory().join(&disk.path),
                length: disk.length,
                fsverity: disk.fsverity,
                sha256: Some(disk.sha256),
                read_by_vm: disk.readonly,
            });
            for (index, facts) in disk.backing.iter().enumerate() {
                let field = format!("disks[{at}].backing[{index}]");
                files.push(ExpectedFile {
                    read_by_vm: true,
                    ..ExpectedFile::new(Part::Backing, field, facts)
                });
            }
        }
        files
    }

    /// The manifest, with the length and digest that it had when it was opened.
    pub(super) fn manifest_file(&self) -> ExpectedFile {
        ExpectedFile {
            part: Part::Manifest,
            field: manifest::FILE.to_owned(),
            path: self.directory().join(manifest::FILE),
            length: self.manifest_length,
            fsverity: self.manifest_digest,
            sha256: None,
            read_by_vm: false,
        }
    }

    /// The kernel and the initramfs that the VM was booted from. A restore does not need them.
    pub(super) fn payload(&self) -> Vec<ExpectedFile> {
        let payload = &self.manifest().payload;
        let kernel = ExpectedFile::new(Part::Payload, "payload.kernel".to_owned(), &payload.kernel);
        let initramfs = payload
            .initramfs
            .as_ref()
            .map(|facts| ExpectedFile::new(Part::Payload, "payload.initramfs".to_owned(), facts));
        [kernel].into_iter().chain(initramfs).collect()
    }
}

impl ExpectedFile {
    fn new(part: Part, field: String, facts: &FileFacts) -> ExpectedFile {
        ExpectedFile {
            part,
            field,
            path: facts.path.clone(),
            length: facts.length,
            fsverity: facts.fsverity,
            sha256: Some(facts.sha256),
            read_by_vm: false,
        }
    }

    /// The length and both digests, or `None` for a file without a recorded SHA-256.
    pub(super) fn recorded(&self) -> Option<RecordedBytes> {
        Some(RecordedBytes {
            sha256: self.sha256?,
            fsverity: self.fsverity,
            length: self.length,
        })
    }

    /// Compares the file's present length with the manifest's, which is cheaper than a digest and tells most
    /// differences.
    pub(super) fn check_length_on_disk(&self) -> Result<(), Error> {
        let metadata = fs::metadata(&self.path).map_err(|source| Error::Missing {
            path: self.path.clone(),
            source,
        })?;
        self.check("length", &self.length, &metadata.len())
    }

    /// Compares one of the file's facts with the manifest's.
    pub(super) fn check<T: PartialEq + Display>(
        &self,
        what: &str,
        expected: &T,
        found: &T,
    ) -> Result<(), Error> {
        match expected == found {
            true => Ok(()),
            false => Err(self.differs(what, expected, found)),
        }
    }

    /// Makes the error for a fact that differs from the manifest's.
    pub(super) fn differs(
        &self,
        what: &str,
        expected: &impl Display,
        found: &impl Display,
    ) -> Error {
        let field = format!("{}.{what}", self.field);
        match self.part {
            Part::Manifest => Error::ManifestChanged {
                path: self.path.clone(),
            },
            part => Error::mismatch(part, field, expected, found),
        }
    }

    /// Makes the error for a file that can't be digested: [`Error::Missing`] if it doesn't exist, else
    /// [`Error::Digest`].
    pub(super) fn unreadable(&self, error: overlay::Error) -> Error {
        match error {
            overlay::Error::Io { path, source, .. } if source.kind() == ErrorKind::NotFound => {
                Error::Missing { path, source }
            }
            error => Error::Digest(error),
        }
    }
}
