//! The files that a golden snapshot is made of, each with what the manifest says of it.

use std::fmt::Display;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use super::{Error, FileFacts, Golden, manifest};
use crate::machine::DiskRole;
use crate::overlay::{self, Digest, RecordedBytes, VerityDigest};

/// What of a golden snapshot something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The manifest itself.
    Manifest,
    /// This host or its VMM, which have to be like those that made it.
    Host,
    /// One of the VMM's own three files.
    Snapshot,
    /// A disk, or what it is put back from.
    Disk(DiskRole),
    /// What lies beneath a disk.
    Backing,
    /// What the VM was booted from.
    Payload,
}

/// A file with what the manifest says of it.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) part: Part,
    /// The place in the manifest, as `disks[1]`.
    pub(super) field: String,
    pub(super) path: PathBuf,
    pub(super) length: u64,
    pub(super) fsverity: VerityDigest,
    /// The VMM's own files have no such digest.
    pub(super) sha256: Option<Digest>,
    /// Whether the VM reads it for as long as it lives.
    pub(super) read_by_vm: bool,
}

impl Golden {
    /// Every file that a restore needs: the VMM's own, the disks, and what lies beneath them.
    pub(super) fn files(&self) -> Vec<Expected> {
        let snapshot = self.snapshot_files();
        snapshot.into_iter().chain(self.disk_files()).collect()
    }

    /// The VMM's own files: `config.json`, `state.json`, `memory-ranges`.
    pub(super) fn snapshot_files(&self) -> [Expected; 3] {
        let folder = self.snapshot();
        let files = self.manifest().snapshot.files();
        files.map(|(name, field, facts)| Expected {
            part: Part::Snapshot,
            field: format!("snapshot.{field}"),
            path: folder.join(name),
            length: facts.length,
            fsverity: facts.fsverity,
            sha256: None,
            read_by_vm: false,
        })
    }

    /// The disks, or what they are put back from, and what lies beneath them.
    pub(super) fn disk_files(&self) -> Vec<Expected> {
        let manifest = self.manifest();
        let mut files = Vec::new();
        for (at, disk) in manifest.disks.iter().enumerate() {
            files.push(Expected {
                part: Part::Disk(disk.role),
                field: format!("disks[{at}]"),
                path: self.directory().join(&disk.path),
                length: disk.length,
                fsverity: disk.fsverity,
                sha256: Some(disk.sha256),
                read_by_vm: disk.readonly,
            });
            for (beneath, facts) in disk.backing.iter().enumerate() {
                let field = format!("disks[{at}].backing[{beneath}]");
                files.push(Expected {
                    read_by_vm: true,
                    ..Expected::new(Part::Backing, field, facts)
                });
            }
        }
        files
    }

    /// The manifest, which is to stay the one that was opened.
    pub(super) fn manifest_file(&self) -> Expected {
        Expected {
            part: Part::Manifest,
            field: manifest::FILE.to_owned(),
            path: self.directory().join(manifest::FILE),
            length: self.manifest_length,
            fsverity: self.manifest_digest,
            sha256: None,
            read_by_vm: false,
        }
    }

    /// What the VM was booted from, which a restore doesn't need.
    pub(super) fn payload(&self) -> Vec<Expected> {
        let payload = &self.manifest().payload;
        let kernel = Expected::new(Part::Payload, "payload.kernel".to_owned(), &payload.kernel);
        let initramfs = payload
            .initramfs
            .as_ref()
            .map(|facts| Expected::new(Part::Payload, "payload.initramfs".to_owned(), facts));
        [kernel].into_iter().chain(initramfs).collect()
    }
}

impl Expected {
    fn new(part: Part, field: String, facts: &FileFacts) -> Expected {
        Expected {
            part,
            field,
            path: facts.path.clone(),
            length: facts.length,
            fsverity: facts.fsverity,
            sha256: Some(facts.sha256),
            read_by_vm: false,
        }
    }

    /// What the manifest says of its bytes, for a file that has both digests there.
    pub(super) fn recorded(&self) -> Option<RecordedBytes> {
        Some(RecordedBytes {
            sha256: self.sha256?,
            fsverity: self.fsverity,
            length: self.length,
        })
    }

    /// A length that differs needs no digest to be told.
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

    /// The error for a fact that isn't the manifest's.
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

    /// The error for a file that can't be digested: one that isn't there is missing.
    pub(super) fn unreadable(&self, error: overlay::Error) -> Error {
        match error {
            overlay::Error::Io { path, source, .. } if source.kind() == ErrorKind::NotFound => {
                Error::Missing { path, source }
            }
            error => Error::Digest(error),
        }
    }
}
