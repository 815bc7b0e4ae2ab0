//! No file of a machine may serve two disks, unless nobody writes to either.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::disk::WorkingDisk;
use super::readings::blocking;
use super::{DiskRole, Error, Machine};
use crate::overlay::FileIdentity;

/// A file that a disk of a machine needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFile {
    /// Which disk.
    pub role: DiskRole,
    /// What for.
    pub purpose: FilePurpose,
    /// Where it lies.
    pub path: PathBuf,
}

/// What a file is to a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FilePurpose {
    /// A read-only disk's image, which the VMM opens as it is.
    Image,
    /// A backing file of a qcow2 image, which the VMM opens as it is.
    Backing,
    /// What a writable disk is put back from: an image, or the copy that a golden snapshot keeps.
    Origin,
    /// The file that the guest writes to.
    WorkingCopy,
}

impl FilePurpose {
    /// Whether the file serves as it is. Two disks may read one file; to be put back from a file that is somebody's
    /// disk, or to be that file, is a mistake.
    fn is_shareable(self) -> bool {
        matches!(self, FilePurpose::Image | FilePurpose::Backing)
    }
}

impl fmt::Display for DiskFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let purpose = match self.purpose {
            FilePurpose::Image => "image",
            FilePurpose::Backing => "backing file",
            FilePurpose::Origin => "origin",
            FilePurpose::WorkingCopy => "working copy",
        };
        write!(f, "the {} disk's {purpose} {:?}", self.role, self.path)
    }
}

impl Machine {
    /// Checks that no two disks need the same file, by whatever names, and that the chains of qcow2 images are what
    /// they were when the machine was made. Only looks; legal in every state. Every revert begins with it, while the
    /// VM that there was is still untouched.
    ///
    /// # Errors
    ///
    /// [`Error::SameFile`] with both; [`Error::Disk`] for a chain that can't be used or has changed; [`Error::File`]
    /// for a file that can't be looked at.
    pub async fn check_disks(&self) -> Result<(), Error> {
        let disks: Vec<_> = self.disks.iter().map(WorkingDisk::files).collect();
        blocking(move || {
            let mut known = Vec::new();
            for files in disks {
                known.extend(files()?);
            }
            check(known)
        })
        .await
    }
}

fn check(files: Vec<DiskFile>) -> Result<(), Error> {
    let mut seen: Vec<(FileIdentity, DiskFile)> = Vec::with_capacity(files.len());
    for file in files {
        let Some(identity) = identity(&file.path)? else {
            continue;
        };
        let clash = seen.iter().find(|(other, first)| {
            *other == identity && !(first.purpose.is_shareable() && file.purpose.is_shareable())
        });
        if let Some((_, first)) = clash {
            return Err(Error::SameFile {
                first: Box::new(first.clone()),
                second: Box::new(file),
            });
        }
        seen.push((identity, file));
    }
    Ok(())
}

/// Which file `path` leads to. None, if there is none: a working copy comes into being later, and what else is
/// missing will be missed where it is opened.
fn identity(path: &Path) -> Result<Option<FileIdentity>, Error> {
    match path.metadata() {
        Ok(metadata) => Ok(Some(FileIdentity::from(&metadata))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read the attributes of", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_serves_two_disks_only_if_neither_writes() {
        use DiskRole::{Overlay, Root};
        use FilePurpose::{Backing, Image, Origin, WorkingCopy};
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("disk"), "bytes").unwrap();
        fs::write(path("other"), "bytes").unwrap();
        fs::hard_link(path("disk"), path("hard")).unwrap();
        symlink(path("disk"), path("soft")).unwrap();

        let check = |first: (FilePurpose, &str), second: (FilePurpose, &str), alike: bool| {
            let file = |role, (purpose, name): (FilePurpose, &str)| DiskFile {
                role,
                purpose,
                path: path(name),
            };
            let (first, second) = (file(Root, first), file(Overlay, second));
            match check(vec![first.clone(), second.clone()]) {
                Ok(()) => assert!(!alike, "{first}, {second}"),
                Err(Error::SameFile {
                    first: one,
                    second: two,
                }) => {
                    assert_eq!((*one, *two), (first, second));
                    assert!(alike);
                }
                Err(error) => panic!("{error}"),
            }
        };
        for name in ["disk", "hard", "soft"] {
            check((Image, "disk"), (Origin, name), true);
            check((Image, "disk"), (WorkingCopy, name), true);
            check((Origin, "disk"), (Origin, name), true);
            check((Origin, "disk"), (WorkingCopy, name), true);
            check((Backing, "disk"), (Origin, name), true);
            check((Image, "disk"), (Backing, name), false);
            check((Image, "disk"), (Image, name), false);
        }
        for name in ["other", "missing"] {
            check((Origin, "disk"), (WorkingCopy, name), false);
            check((Image, "disk"), (Origin, name), false);
        }
        check((WorkingCopy, "missing"), (WorkingCopy, "missing"), false);
    }
}
