//! Creates files and directories that only this user can access: [`create_private`], [`write_private`] and
//! [`create_private_directory`].

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// Options that create a file with mode 0600, and fail with `AlreadyExists` if the path has a file or a symbolic link.
/// The caller adds the access.
pub(crate) fn new_private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create_new(true).mode(0o600);
    options
}

/// Creates a file with mode 0600, open for reading and writing. Fails with `AlreadyExists` if the path has a file or a
/// symbolic link.
pub(crate) fn create_private(path: &Path) -> io::Result<File> {
    new_private().read(true).write(true).open(path)
}

/// Creates a file as [`create_private`] does, and writes `bytes` to it. Nothing is synced; the caller may sync the file
/// that is returned. After a failed write the incomplete file stays.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut file = create_private(path)?;
    file.write_all(bytes)?;
    Ok(file)
}

/// Creates a directory with mode 0700. Fails with `AlreadyExists` if the path has a file or a symbolic link.
pub(crate) fn create_private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_new_file_is_private_and_has_its_bytes() {
        let directory = tempfile::tempdir().unwrap();
        let check = |name: &str, bytes: &[u8]| {
            let path = directory.path().join(name);
            write_private(&path, bytes).unwrap();
            assert_eq!(fs::read(&path).unwrap(), bytes, "{name}");
            let mode = path.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        };
        check("empty", b"");
        check("short", b"x");
        check("long", &[7; 100_000]);
    }

    #[test]
    fn an_occupied_path_is_refused_and_left_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let here = directory.path();
        fs::write(here.join("file"), "kept").unwrap();
        symlink("nowhere", here.join("dangling")).unwrap();
        symlink("file", here.join("link")).unwrap();
        fs::create_dir(here.join("directory")).unwrap();
        for name in ["file", "dangling", "link", "directory"] {
            let path = here.join(name);
            let file = write_private(&path, b"new").map(drop);
            for created in [file, create_private_directory(&path)] {
                let kind = created.unwrap_err().kind();
                assert_eq!(kind, io::ErrorKind::AlreadyExists, "{name}");
            }
        }
        assert_eq!(fs::read(here.join("file")).unwrap(), b"kept");
        assert!(!here.join("nowhere").exists());
    }

    #[test]
    fn a_new_directory_is_private_and_needs_its_parent() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new");
        create_private_directory(&path.join("inner")).unwrap_err();
        create_private_directory(&path).unwrap();
        let mode = path.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
