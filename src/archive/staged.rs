//! [`Target`], the name that a tree is extracted to, and [`Staged`], an extracted tree that hasn't got this name yet.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, fsync, linkat, mkdirat, openat, renameat,
    renameat_with, statat, syncfs, unlinkat,
};
use rustix::io::Errno;
use uuid::Uuid;

use super::extract::{Attributes, identity};
use super::listing::Listing;
use super::path::check_file_name;
use super::{ArchiveError, remove};
use crate::causes::Causes;

/// The name that an extracted tree gets, in an open directory.
///
/// No existing file is replaced. A file needs a free name. A directory needs a free name or replaces an empty
/// directory.
#[derive(Debug)]
pub(crate) struct Target {
    directory: OwnedFd,
    name: Vec<u8>,
}

/// Cancels a transfer whose blocking code can't be stopped otherwise. Clones share one state.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Makes every later `Staged::publish` with this value fail with [`ArchiveError::Cancelled`]. A `publish` that is
    /// past its check may still succeed.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Target {
    /// The target `name` in `directory`.
    ///
    /// # Errors
    ///
    /// [`ArchiveError::Name`] if no file can have this name: it is empty, `.` or `..`, contains a slash or a NUL byte,
    /// or has more than 255 bytes.
    pub(crate) fn new(
        directory: OwnedFd,
        name: impl Into<Vec<u8>>,
    ) -> Result<Target, ArchiveError> {
        let name = name.into();
        check_file_name(&name)?;
        Ok(Target { directory, name })
    }

    pub(super) fn stage_directory(self, attributes: Attributes) -> Result<Staged, ArchiveError> {
        self.check_free(FileType::Directory)?;
        let temporary = temporary_name();
        mkdirat(&self.directory, &temporary, Mode::RWXU)
            .map_err(ArchiveError::io("created", temporary.as_bytes()))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(&self.directory, &temporary, flags, Mode::empty());
        match opened {
            Ok(object) => Ok(self.staged(temporary, object, FileType::Directory, attributes)),
            Err(errno) => {
                // The error of opening is the one that is reported.
                let _ = unlinkat(&self.directory, &temporary, AtFlags::REMOVEDIR);
                Err(ArchiveError::io("opened", temporary.as_bytes())(errno))
            }
        }
    }

    pub(super) fn stage_file(self, attributes: Attributes) -> Result<Staged, ArchiveError> {
        self.check_free(FileType::RegularFile)?;
        let temporary = temporary_name();
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let object = openat(&self.directory, &temporary, flags, Mode::RUSR | Mode::WUSR)
            .map_err(ArchiveError::io("created", temporary.as_bytes()))?;
        Ok(self.staged(temporary, object, FileType::RegularFile, attributes))
    }

    fn staged(
        self,
        temporary: String,
        object: OwnedFd,
        kind: FileType,
        attributes: Attributes,
    ) -> Staged {
        Staged {
            target: self,
            temporary,
            object,
            kind,
            attributes,
            named: false,
        }
    }

    /// Checks before the transfer that the target's name can be taken. The kernel checks it again when the name is
    /// taken.
    fn check_free(&self, kind: FileType) -> Result<(), ArchiveError> {
        let stat = match statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(ArchiveError::io("examined", &self.name)(errno)),
        };
        let found = FileType::from_raw_mode(stat.st_mode);
        match (kind, found) {
            (FileType::Directory, FileType::Directory) => self.check_empty(),
            _ => Err(self.taken()),
        }
    }

    fn check_empty(&self) -> Result<(), ArchiveError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(&self.directory, &self.name, flags, Mode::empty())
            .map_err(ArchiveError::io("opened", &self.name))?;
        Listing::new().read(&directory, &self.name, |_| Err(self.taken()))
    }

    fn taken(&self) -> ArchiveError {
        ArchiveError::name(
            &self.name,
            "is there already: nothing is replaced but an empty directory by a directory",
        )
    }

    /// Renames `temporary` to the target's name.
    fn take(&self, temporary: &str, kind: FileType) -> Result<(), Errno> {
        let directory = &self.directory;
        if kind == FileType::Directory {
            // For a directory rename(2) replaces an empty directory and nothing else.
            return renameat(directory, temporary, directory, &self.name);
        }
        let flags = RenameFlags::NOREPLACE;
        match renameat_with(directory, temporary, directory, &self.name, flags) {
            // The file system doesn't support NOREPLACE.
            Err(Errno::INVAL) => {
                linkat(
                    directory,
                    temporary,
                    directory,
                    &self.name,
                    AtFlags::empty(),
                )?;
                unlinkat(directory, temporary, AtFlags::empty())
            }
            renamed => renamed,
        }
    }
}

/// An extracted tree beside its target, under a temporary name that begins with `.chv-`. It is removed on drop, unless
/// it was [published](Staged::publish).
#[derive(Debug)]
pub(crate) struct Staged {
    target: Target,
    temporary: String,
    object: OwnedFd,
    kind: FileType,
    /// The attributes of the root, which are set last. Until then only the user of this process can enter the tree.
    attributes: Attributes,
    /// Whether the tree has the target's name.
    named: bool,
}

impl Staged {
    pub(super) fn object(&self) -> &OwnedFd {
        &self.object
    }

    /// Syncs the tree to the disk, renames it to the target's name, and syncs the target's directory.
    ///
    /// # Errors
    ///
    /// The tree is removed on every error:
    ///
    /// - [`Name`](ArchiveError::Name) if the target exists by now
    /// - [`Cancelled`](ArchiveError::Cancelled) if `cancel` was cancelled before the rename
    /// - [`Changed`](ArchiveError::Changed) if another process has replaced the tree under its temporary name
    /// - [`Io`](ArchiveError::Io) if the system refused an operation
    pub(crate) fn publish(mut self, cancel: &Cancel) -> Result<(), ArchiveError> {
        let name = self.target.name.clone();
        self.attributes.apply(&self.object, &name)?;
        syncfs(&self.object).map_err(ArchiveError::io("brought to the disk", &name))?;
        if cancel.is_cancelled() {
            return Err(ArchiveError::Cancelled);
        }
        self.target
            .take(&self.temporary, self.kind)
            .map_err(|errno| match errno {
                Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR | Errno::ISDIR => {
                    self.target.taken()
                }
                _ => ArchiveError::io("renamed", &name)(errno),
            })?;
        self.named = true;
        let published = self.check_name().and_then(|()| {
            fsync(self.target.directory.as_fd())
                .map_err(ArchiveError::io("brought to the disk", &name))
        });
        if published.is_err() {
            self.remove();
        }
        published
    }

    /// Checks that the target's name is that of this tree. A process that may write to the directory could have
    /// replaced the tree under its temporary name.
    fn check_name(&self) -> Result<(), ArchiveError> {
        let name = &self.target.name;
        let stat = statat(&self.target.directory, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(ArchiveError::io("examined", name))?;
        let object = identity(&self.object).map_err(ArchiveError::io("examined", name))?;
        match (stat.st_dev, stat.st_ino) == object {
            true => Ok(()),
            false => Err(ArchiveError::changed(name, "another file took its place")),
        }
    }

    fn remove(&self) {
        let name = match self.named {
            true => &self.target.name,
            false => self.temporary.as_bytes(),
        };
        let removed = match self.kind {
            FileType::Directory => remove::content(&self.object)
                .and_then(|()| unlinkat(&self.target.directory, name, AtFlags::REMOVEDIR)),
            _ => unlinkat(&self.target.directory, name, AtFlags::empty()),
        };
        if let Err(errno) = removed {
            let name = String::from_utf8_lossy(name);
            tracing::warn!(?name, error = %Causes(&errno), "an unfinished transfer could not be removed");
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.named {
            self.remove();
        }
    }
}

fn temporary_name() -> String {
    format!(".chv-{}", Uuid::new_v4().simple())
}
