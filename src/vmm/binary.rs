//! Finds the VMM's executable.

use std::env;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::Error;

/// Returns the absolute path of `binary`. A bare name is looked up in `PATH`.
pub(crate) fn find(binary: &Path) -> Result<PathBuf, Error> {
    if binary.as_os_str().as_bytes().contains(&b'/') {
        return check(binary).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::BinaryNotFound {
                binary: binary.to_owned(),
                searched_path: false,
            },
            _ => Error::NotExecutable {
                binary: binary.to_owned(),
                source,
            },
        });
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let mut refused = None;
    for directory in env::split_paths(&path) {
        let candidate = directory.join(binary);
        match check(&candidate) {
            Ok(found) => return Ok(found),
            Err(source) if source.kind() == io::ErrorKind::NotFound => {}
            Err(source) => refused = refused.or(Some((candidate, source))),
        }
    }
    // A file that exists but can't be executed explains the failure better than that no file was found.
    Err(match refused {
        Some((binary, source)) => Error::NotExecutable { binary, source },
        None => Error::BinaryNotFound {
            binary: binary.to_owned(),
            searched_path: true,
        },
    })
}

fn check(candidate: &Path) -> io::Result<PathBuf> {
    if !candidate.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    rustix::fs::access(candidate, Access::EXEC_OK)?;
    std::path::absolute(candidate)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{Error, find};

    #[test]
    fn a_bare_name_is_looked_up_in_path() {
        let found = find(Path::new("sh")).unwrap();
        assert!(found.is_absolute() && found.ends_with("sh"), "{found:?}");
    }

    #[test]
    fn an_error_names_the_file_that_cannot_be_executed() {
        let dir = tempfile::tempdir().unwrap();
        let plain_file = dir.path().join("not-executable");
        fs::write(&plain_file, "").unwrap();

        let error = find(Path::new("no-such-vmm-anywhere")).unwrap_err();
        assert!(matches!(
            &error,
            Error::BinaryNotFound {
                searched_path: true,
                ..
            }
        ));
        assert!(
            error.to_string().contains("no-such-vmm-anywhere in PATH"),
            "{error}"
        );

        let error = find(&dir.path().join("missing")).unwrap_err();
        assert!(matches!(
            &error,
            Error::BinaryNotFound {
                searched_path: false,
                ..
            }
        ));

        for refused in [&plain_file, dir.path()] {
            let error = find(refused).unwrap_err();
            assert!(matches!(&error, Error::NotExecutable { .. }), "{error:?}");
            assert!(
                error.to_string().contains(&*refused.to_string_lossy()),
                "{error}"
            );
        }
        let below_a_file = find(&plain_file.join("vmm")).unwrap_err();
        assert!(matches!(&below_a_file, Error::NotExecutable { .. }));
    }
}
