//! Opens files whose paths may lead to anything: [`open_for_reading`], [`open_regular`] and [`open_lock_file`].

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::ReadError;

/// Whether an open follows a symbolic link that has the last name of the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Symlinks {
    /// The file that the link leads to is opened.
    Follow,
    /// The open fails with `ELOOP`.
    Refuse,
}

/// Opens `path` for reading. If it is a FIFO, the open doesn't wait for a writer; if it is a terminal, it doesn't
/// become the controlling one.
///
/// A read from a pipe that was opened by this function doesn't wait either.
pub(crate) fn open_for_reading(path: &Path, symlinks: Symlinks) -> io::Result<File> {
    let mut flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    if symlinks == Symlinks::Refuse {
        flags |= OFlags::NOFOLLOW;
    }
    OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)
}

/// Opens a regular file for reading, and refuses every other kind of file.
///
/// # Errors
///
/// [`ReadError::Failed`] and [`ReadError::NotRegular`].
pub(crate) fn open_regular(path: &Path, symlinks: Symlinks) -> Result<(File, Metadata), ReadError> {
    let file = open_for_reading(path, symlinks).map_err(ReadError::failed("open"))?;
    let metadata = file.metadata().map_err(ReadError::failed("examine"))?;
    match metadata.is_file() {
        true => Ok((file, metadata)),
        false => Err(ReadError::NotRegular),
    }
}

/// Opens a file for an `flock`, for reading and writing. Creates it with mode 0600 if it is missing. Does not follow a
/// symbolic link.
pub(crate) fn open_lock_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(path)
}

/// Whether `path` itself, and not a symbolic link at it, still names the open `file`. Another process may have removed
/// or replaced the name since the file was opened.
pub(crate) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let (opened, named) = (file.metadata()?, path.symlink_metadata()?);
    Ok((opened.dev(), opened.ino()) == (named.dev(), named.ino()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn only_a_regular_file_is_opened_and_a_fifo_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        fs::write(here.join("file"), "seven b").unwrap();
        symlink("file", here.join("link")).unwrap();
        mknodat(CWD, here.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        symlink("fifo", here.join("link to fifo")).unwrap();
        let check = |path: &str, symlinks, expected: &str| {
            let opened = open_regular(&here.join(path), symlinks);
            let outcome = match &opened {
                Ok((_, metadata)) => metadata.len().to_string(),
                Err(ReadError::Failed { operation, .. }) => (*operation).to_owned(),
                Err(error) => error.to_string(),
            };
            assert_eq!(outcome, expected, "{path}, {symlinks:?}");
        };
        let refused = "it is not a regular file";
        for symlinks in [Symlinks::Follow, Symlinks::Refuse] {
            check("file", symlinks, "7");
            check("missing", symlinks, "open");
            check("fifo", symlinks, refused);
            check("", symlinks, refused);
            check("/dev/null", symlinks, refused);
        }
        check("link", Symlinks::Follow, "7");
        check("link", Symlinks::Refuse, "open");
        check("link to fifo", Symlinks::Follow, refused);
        check("link to fifo", Symlinks::Refuse, "open");
    }

    #[test]
    fn a_lock_file_is_created_private_and_opened_again_with_its_content() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        open_lock_file(&path).unwrap();
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(&path, "kept").unwrap();
        open_lock_file(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"kept");
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        open_lock_file(&link).unwrap_err();
    }

    #[test]
    fn a_file_is_at_its_own_name_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "").unwrap();
        let file = File::open(&path).unwrap();
        assert!(is_at(&file, &path).unwrap());
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(!is_at(&file, &link).unwrap());
        fs::remove_file(&path).unwrap();
        is_at(&file, &path).unwrap_err();
        fs::write(&path, "").unwrap();
        assert!(!is_at(&file, &path).unwrap());
    }
}
