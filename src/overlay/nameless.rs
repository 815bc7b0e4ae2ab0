//! [`NamelessFile`]: a file without a name, which serves as the writable disk of a VMM that inherits its descriptor.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, SealFlags, fcntl_add_seals};

use super::copy::{Copied, fill};
use super::memory_file::memory_file;
use super::{Error, filesystem};
use crate::causes::Causes;
use crate::files::TemporarySibling;

/// A private, empty file of mode 0600 that has no name in any directory: for a writable disk that a VMM inherits.
///
/// It can't be given a name later, and disappears once every process has closed it. Only processes that inherit its
/// descriptor can open it, and processes that may read the `/proc` entries of those.
#[derive(Debug)]
pub struct NamelessFile {
    file: File,
    /// The directory in which it was created, for errors.
    directory: PathBuf,
    in_memory: bool,
}

impl NamelessFile {
    /// Creates a file in the first of `directories` that allows it.
    ///
    /// A directory where creation fails is skipped, for example because it isn't writable or because its filesystem
    /// lacks `O_TMPFILE`. In the last directory a missing `O_TMPFILE` is not an error: if the directory is on tmpfs or
    /// ramfs, a memory file is created, otherwise a named file whose name is removed at once.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] for the last directory, or if `directories` is empty.
    pub fn create(directories: &[&Path]) -> Result<NamelessFile, Error> {
        let Some((last, preferred)) = directories.split_last() else {
            let none = io::Error::new(io::ErrorKind::InvalidInput, "no directory was given");
            return Err(Error::io("create a file without a name in", Path::new(""))(
                none,
            ));
        };
        for directory in preferred {
            match open_nameless(directory) {
                Ok(file) => return Ok(NamelessFile::new(file, directory)),
                Err(error) => {
                    tracing::debug!(directory = %directory.display(), error = %Causes(&error), "could not create a file without a name here");
                }
            }
        }
        let file = match open_nameless(last) {
            Err(error) if has_no_tmpfile(&error) => without_tmpfile(last)?,
            opened => opened.map_err(Error::io("create a file without a name in", last))?,
        };
        Ok(NamelessFile::new(file, last))
    }

    fn new(file: File, directory: &Path) -> NamelessFile {
        NamelessFile {
            in_memory: filesystem::is_memory(&file),
            file,
            directory: directory.to_owned(),
        }
    }

    /// Empties the file and fills it with the bytes of `origin`, which is open for reading: by sharing blocks where the
    /// filesystem supports it (FICLONE), otherwise by copying all but the holes. May be called any number of times.
    /// Blocks.
    ///
    /// `name` is the name of `origin` in errors.
    ///
    /// # Errors
    ///
    /// [`Error::NotRegular`] for `origin`; [`Error::Changed`] if its length changed while it was read;
    /// [`Error::NoSpace`]; [`Error::Io`] otherwise. After an error the file is empty.
    pub fn fill(&self, origin: &File, name: &Path) -> Result<Copied, Error> {
        self.clear()?;
        let filled = fill(&self.file, &self.directory, origin, name);
        if filled.is_err() {
            self.clear()?;
        }
        filled
    }

    fn clear(&self) -> Result<(), Error> {
        let cleared = self.file.set_len(0);
        cleared.map_err(Error::io("empty a file in", &self.directory))
    }

    /// The file, open for reading and writing.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether its bytes are kept in memory: it lies on tmpfs or ramfs, or is a memory file.
    pub(crate) fn in_memory(&self) -> bool {
        self.in_memory
    }
}

impl AsFd for NamelessFile {
    /// Open for reading and writing.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Opens a file without a name. With `O_EXCL`, `linkat(2)` can't give it a name later.
fn open_nameless(directory: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags((OFlags::TMPFILE | OFlags::EXCL).bits().cast_signed())
        .open(directory)
}

/// Whether the error means that `O_TMPFILE` is missing: the filesystem doesn't support it, or the kernel doesn't know
/// it and tries to open the directory itself.
fn has_no_tmpfile(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(
        errno,
        Some(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR)
    )
}

/// Creates a file without a name where there is no `O_TMPFILE`.
fn without_tmpfile(directory: &Path) -> Result<File, Error> {
    let opened = File::open(directory).map_err(Error::io("open", directory))?;
    match filesystem::is_memory(&opened) {
        true => in_memory().map_err(Error::io(
            "create a memory file instead of a file in",
            directory,
        )),
        false => Ok(TemporarySibling::create(directory)?.into_nameless()?),
    }
}

/// A memory file of mode 0600 to which no seal can be added: a VMM that inherited it could otherwise seal its size, and
/// it could not be filled again.
fn in_memory() -> io::Result<File> {
    let file = memory_file(c"overlay")?;
    fcntl_add_seals(&file, SealFlags::SEAL)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileExt, MetadataExt};

    use rustix::fs::{AtFlags, CWD, linkat};
    use tempfile::TempDir;

    use super::*;
    use crate::overlay::file::{FileStatus, own_path, reopen};
    use crate::overlay::filesystem::known_directory;
    use crate::overlay::read::test_events;
    use crate::overlay::{Change, CopyMethod};

    #[track_caller]
    fn assert_private(file: &File, directory: &Path) {
        let metadata = file.metadata().unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.nlink()), (0o600, 0));
        assert_eq!((metadata.len(), metadata.is_file()), (0, true));
        assert_eq!(fs::read_dir(directory).unwrap().count(), 0);
        file.write_all_at(b"bytes", 3).unwrap();
        let mut bytes = [0; 5];
        file.read_exact_at(&mut bytes, 3).unwrap();
        assert_eq!(&bytes, b"bytes");
        // A VMM opens the file again, for writing.
        let mut options = OpenOptions::new();
        let again = options.read(true).write(true).open(own_path(file));
        again.unwrap().set_len(1).unwrap();
        let linked = linkat(
            CWD,
            own_path(file),
            CWD,
            directory.join("name"),
            AtFlags::SYMLINK_FOLLOW,
        );
        linked.unwrap_err();
    }

    #[test]
    fn it_has_no_name_and_gets_none() {
        let here = tempfile::tempdir().unwrap();
        let file = NamelessFile::create(&[here.path()]).unwrap();
        assert_private(file.file(), here.path());
        let fallback = without_tmpfile(here.path()).unwrap();
        let metadata = fallback.metadata().unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.nlink()), (0o600, 0));
        assert_eq!(fs::read_dir(here.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_on_tmpfs_and_a_memory_file_are_memory() {
        let Ok(shm) = tempfile::tempdir_in("/dev/shm") else {
            return;
        };
        let file = NamelessFile::create(&[shm.path()]).unwrap();
        assert_private(file.file(), shm.path());
        assert!(file.in_memory());
        let memory = without_tmpfile(shm.path()).unwrap();
        assert_private(&memory, shm.path());
        let memory = NamelessFile::new(memory, shm.path());
        assert!(memory.in_memory());
        // A process that inherits the file can't seal its size.
        fcntl_add_seals(memory.file(), SealFlags::SHRINK).unwrap_err();
    }

    #[test]
    fn a_directory_without_support_is_skipped() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let missing = first.path().join("missing");
        let none = [&missing, Path::new("/proc"), Path::new("/proc/version")];
        for refused in none {
            let file = NamelessFile::create(&[refused, second.path()]).unwrap();
            assert_eq!(file.directory, second.path());
            NamelessFile::create(&[second.path(), refused]).unwrap();
            let error = NamelessFile::create(&[refused]).unwrap_err();
            assert!(matches!(error, Error::Io { .. }), "{error}");
        }
        let error = NamelessFile::create(&[]).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error}");
    }

    /// An origin with these bytes, open for reading.
    fn origin(directory: &TempDir, bytes: &[u8]) -> (File, PathBuf) {
        let path = directory.path().join("origin");
        fs::write(&path, bytes).unwrap();
        (File::open(&path).unwrap(), path)
    }

    #[test]
    fn it_is_filled_again_and_again() {
        let here = tempfile::tempdir().unwrap();
        let mut files = vec![NamelessFile::create(&[here.path()]).unwrap()];
        if let Ok(shm) = tempfile::tempdir_in("/dev/shm") {
            files.push(NamelessFile::create(&[shm.path()]).unwrap());
            files.push(NamelessFile::new(in_memory().unwrap(), shm.path()));
        }
        for file in files {
            let identity = FileStatus::of(file.file(), here.path()).unwrap().identity;
            for length in [600_000, 4097, 4096, 4095, 1, 0, 600_000] {
                let bytes: Vec<u8> = (0..length).map(|i| (i / 7) as u8 | 1).collect();
                let (from, name) = origin(&here, &bytes);
                // A VMM has written to the file, and beyond its end.
                file.file().write_all_at(b"written", 700_000).unwrap();
                let copied = file.fill(&from, &name).unwrap();
                assert_eq!((copied.length, copied.identity), (length, identity));
                assert!(
                    fs::read(own_path(file.file())).unwrap() == bytes,
                    "{length}"
                );
            }
        }
    }

    #[test]
    fn holes_stay_holes() {
        let Some(here) = known_directory() else {
            return;
        };
        let (from, name) = origin(&here, b"");
        let writer = OpenOptions::new().write(true).open(&name).unwrap();
        writer.set_len(64 << 20).unwrap();
        writer.write_all_at(b"data", 40 << 20).unwrap();
        let file = NamelessFile::create(&[here.path()]).unwrap();
        for _ in 0..2 {
            let copied = file.fill(&from, &name).unwrap();
            assert_eq!(copied.length, 64 << 20);
            assert!(copied.method == CopyMethod::Reflink || copied.bytes_copied <= 256 << 10);
            let blocks = file.file().metadata().unwrap().blocks() * 512;
            assert!(blocks <= 512 << 10, "{blocks}");
        }
        let mut bytes = [0; 4];
        file.file().read_exact_at(&mut bytes, 40 << 20).unwrap();
        assert_eq!(&bytes, b"data");
    }

    #[test]
    fn an_origin_that_changes_its_length_is_an_error_and_nothing_is_left() {
        // On tmpfs, because a reflink copies the file atomically.
        let Ok(shm) = tempfile::tempdir_in("/dev/shm") else {
            return;
        };
        let file = NamelessFile::create(&[shm.path()]).unwrap();
        for found in [0, 299_999, 300_001, 1 << 40] {
            let (from, name) = origin(&shm, &[1; 300_000]);
            let writer = OpenOptions::new().write(true).open(&name).unwrap();
            test_events::schedule(1, move || writer.set_len(found).unwrap());
            let error = file.fill(&from, &name).unwrap_err();
            test_events::assert_happened();
            let before = 300_000;
            let expected = Change::Length { before, found };
            assert!(
                matches!(error, Error::Changed { change, .. } if change == expected),
                "{error}"
            );
            assert_eq!(file.file().metadata().unwrap().len(), 0);
        }
        let directory = File::open(shm.path()).unwrap();
        let error = file.fill(&directory, shm.path()).unwrap_err();
        assert!(matches!(error, Error::NotRegular { .. }), "{error}");
    }

    #[test]
    fn its_bytes_can_be_kept_under_a_name() {
        let here = tempfile::tempdir().unwrap();
        let file = NamelessFile::create(&[here.path()]).unwrap();
        file.file().write_all_at(b"evidence", 4096).unwrap();
        let kept = here.path().join("kept");
        crate::overlay::copy_private_of(file.file(), Path::new("overlay"), &kept).unwrap();
        let expected = fs::read(own_path(&reopen(file.file()).unwrap())).unwrap();
        assert!(fs::read(&kept).unwrap() == expected);
        assert_eq!(expected.len(), 4104);
    }
}
