//! Prepares and checks the run root: the directory below which every VMM has its run directory.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Error, run_dir};
use crate::files::create_private_directory;

/// `$XDG_RUNTIME_DIR/chv-sandbox`, else `chv-sandbox-<uid>` in the directory for temporary files.
pub(super) fn default_path() -> PathBuf {
    match env::var_os("XDG_RUNTIME_DIR") {
        Some(directory) if Path::new(&directory).is_absolute() => {
            Path::new(&directory).join("chv-sandbox")
        }
        _ => env::temp_dir().join(format!(
            "chv-sandbox-{}",
            rustix::process::geteuid().as_raw()
        )),
    }
}

/// Ensures that `path` is a directory that only this user can change, and returns its absolute path. It is created if
/// its parent exists. The parent is not created: a start that goes on after its caller has given up must not make a
/// folder again that the caller has removed.
pub(super) fn prepare(path: &Path) -> Result<PathBuf, Error> {
    let refuse = |problem, source| Error::RunRoot {
        path: path.to_owned(),
        problem,
        source,
    };
    let absolute = std::path::absolute(path)
        .map_err(|source| refuse("it can't be made absolute", Some(source)))?;
    match create_private_directory(&absolute) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(refuse("it can't be created", Some(source))),
    }
    check(&absolute)?;
    Ok(absolute)
}

/// Checks a run root without changing anything, and returns its absolute path. Returns `None` if it doesn't exist and
/// would be created.
pub(crate) fn examine(path: &Path) -> Result<Option<PathBuf>, Error> {
    let absolute = std::path::absolute(path).map_err(|source| Error::RunRoot {
        path: path.to_owned(),
        problem: "it can't be made absolute",
        source: Some(source),
    })?;
    run_dir::check_root_length(&absolute)?;
    match fs::symlink_metadata(&absolute) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        _ => check(&absolute).map(|()| Some(absolute)),
    }
}

/// Refuses a run root that another user could change.
pub(super) fn check(path: &Path) -> Result<(), Error> {
    let refuse = |problem, source| {
        Err(Error::RunRoot {
            path: path.to_owned(),
            problem,
            source,
        })
    };
    match fs::symlink_metadata(path) {
        Err(source) => refuse("it can't be examined", Some(source)),
        Ok(metadata) if metadata.is_symlink() => refuse("it is a symbolic link", None),
        Ok(metadata) if !metadata.is_dir() => refuse("it isn't a directory", None),
        Ok(metadata) if metadata.uid() != rustix::process::geteuid().as_raw() => {
            refuse("it belongs to another user", None)
        }
        Ok(metadata) if metadata.mode() & 0o022 != 0 => refuse("other users can write to it", None),
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_missing_root_is_created_private_in_a_directory_that_exists() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("a");
        let below = root.join("b");
        let error = prepare(&below).unwrap_err();
        assert!(matches!(error, Error::RunRoot { .. }), "{error}");
        assert!(!root.exists());
        assert_eq!(prepare(&root).unwrap(), root);
        assert_eq!(fs::metadata(&root).unwrap().mode() & 0o777, 0o700);
        prepare(&root).unwrap();
    }

    #[test]
    fn examining_a_root_creates_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        assert_eq!(examine(&root).unwrap(), None);
        assert!(!root.exists());
        prepare(&root).unwrap();
        assert_eq!(examine(&root).unwrap(), Some(root.clone()));
        fs::set_permissions(&root, Permissions::from_mode(0o770)).unwrap();
        assert!(matches!(examine(&root), Err(Error::RunRoot { .. })));
        let long = dir.path().join("x".repeat(108));
        assert!(matches!(examine(&long), Err(Error::PathTooLong { .. })));
    }

    #[test]
    fn a_root_that_others_could_change_is_refused() {
        fn check(expected: &str, make: impl FnOnce(&Path)) {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("root");
            make(&root);
            let error = prepare(&root).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains(&*root.to_string_lossy()), "{error}");
        }

        check("other users can write to it", |root| {
            fs::create_dir(root).unwrap();
            fs::set_permissions(root, Permissions::from_mode(0o777)).unwrap();
        });
        check("a symbolic link", |root| {
            let elsewhere = root.with_file_name("elsewhere");
            fs::create_dir(&elsewhere).unwrap();
            symlink(elsewhere, root).unwrap();
        });
        check("it isn't a directory", |root| fs::write(root, "").unwrap());
    }
}
