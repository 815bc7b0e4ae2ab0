//! The files that a golden snapshot is made of, each with what the manifest says of it.

use std::fs;
use std::path::PathBuf;

use super::{Error, FileFacts, Golden};
use crate::machine::DiskRole;
use crate::overlay::{Digest, VerityDigest};

/// What a file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
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
}

impl Golden {
    /// Every file that a restore reads: the VMM's own, the disks, and what lies beneath them.
    pub(super) fn files(&self) -> Vec<Expected> {
        let manifest = self.manifest();
        let snapshot = self.snapshot();
        let mut files: Vec<_> = manifest
            .snapshot
            .files()
            .into_iter()
            .map(|(name, field, facts)| Expected {
                part: Part::Snapshot,
                field: format!("snapshot.{field}"),
                path: snapshot.join(name),
                length: facts.length,
                fsverity: facts.fsverity,
                sha256: None,
            })
            .collect();
        for (at, disk) in manifest.disks.iter().enumerate() {
            files.push(Expected {
                part: Part::Disk(disk.role),
                field: format!("disks[{at}]"),
                path: self.directory().join(&disk.path),
                length: disk.length,
                fsverity: disk.fsverity,
                sha256: Some(disk.sha256),
            });
            for (beneath, facts) in disk.backing.iter().enumerate() {
                let field = format!("disks[{at}].backing[{beneath}]");
                files.push(Expected::new(Part::Backing, field, facts));
            }
        }
        files
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
        }
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
    pub(super) fn check<T: PartialEq + ToString>(
        &self,
        what: &str,
        expected: &T,
        found: &T,
    ) -> Result<(), Error> {
        match expected == found {
            true => Ok(()),
            false => {
                let field = format!("{}.{what}", self.field);
                let (expected, found) = (expected.to_string(), found.to_string());
                Err(Error::mismatch(field, expected, found))
            }
        }
    }
}
