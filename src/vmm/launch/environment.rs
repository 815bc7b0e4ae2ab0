//! Builds the environment of a VMM ([`environment`]).

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use crate::vmm::procfs::MARK;

/// The variables of this process that a VMM gets: the search path for programs, in case the VMM is started by a script,
/// and the language and time zone.
const PASSED_ON: [&str; 4] = ["PATH", "LANG", "LC_ALL", "TZ"];

/// Releases built against glibc have a seccomp filter that kills the VMM, or makes it hang for ever, when a thread's
/// own malloc arena is trimmed. With a single arena that can't happen.
const ONE_ARENA: (&str, &str) = ("MALLOC_ARENA_MAX", "1");

/// Builds the environment of the VMM of the run directory `name`. Variables in `configured` replace others. With `all`,
/// the VMM gets all variables of this process.
pub(super) fn environment(
    name: &OsStr,
    configured: &[(OsString, OsString)],
    all: bool,
) -> io::Result<Vec<CString>> {
    let passed_on = |variable: &(OsString, OsString)| {
        all || PASSED_ON.iter().any(|passed| variable.0 == *passed)
    };
    let mut variables: Vec<(OsString, OsString)> = std::env::vars_os().filter(passed_on).collect();
    let mut set = |name: &OsStr, value: &OsStr| {
        variables.retain(|(known, _)| known != name);
        variables.push((name.to_owned(), value.to_owned()));
    };
    set(ONE_ARENA.0.as_ref(), ONE_ARENA.1.as_ref());
    for (name, value) in configured {
        set(name, value);
    }
    set(MARK.as_ref(), name);
    variables.into_iter().map(entry).collect()
}

/// Returns the libraries and folders of libraries that `LD_PRELOAD` and `LD_LIBRARY_PATH` in `configured` name.
pub(super) fn libraries(configured: &[(OsString, OsString)]) -> Vec<PathBuf> {
    let of_linker = configured.iter().filter_map(|(name, value)| {
        let separators: &[u8] = match name.as_bytes() {
            b"LD_PRELOAD" => b": ",
            b"LD_LIBRARY_PATH" => b":;",
            _ => return None,
        };
        Some(value.as_bytes().split(|byte| separators.contains(byte)))
    });
    let paths = of_linker
        .flatten()
        .map(OsStr::from_bytes)
        .map(PathBuf::from);
    // The dynamic linker itself reports a library that does not exist.
    paths
        .filter(|path| path.is_absolute() && path.exists())
        .collect()
}

fn entry((name, value): (OsString, OsString)) -> io::Result<CString> {
    if name.is_empty() || name.as_bytes().contains(&b'=') {
        let reason = format!("{name:?} can't be the name of a variable");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    }
    let mut entry = name.clone().into_vec();
    entry.push(b'=');
    entry.extend_from_slice(value.as_bytes());
    CString::new(entry).map_err(|_| {
        let reason = format!("the variable {name:?} has a zero byte");
        io::Error::new(io::ErrorKind::InvalidInput, reason)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(configured: &[(&str, &str)], all: bool) -> Vec<String> {
        let configured: Vec<_> = configured
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let entries = environment("vmm-1".as_ref(), &configured, all).unwrap();
        let entries = entries
            .into_iter()
            .map(|entry| entry.into_string().unwrap());
        entries.collect()
    }

    #[test]
    fn only_the_listed_variables_are_passed_on() {
        // Cargo sets such variables for every test.
        let stays = |entries: &[String]| !entries.iter().any(|entry| entry.starts_with("CARGO"));
        assert!(stays(&of(&[], false)));
        assert!(!stays(&of(&[], true)));
    }

    #[test]
    fn a_configured_variable_replaces_any_but_the_mark() {
        let entries = of(
            &[
                ("PATH", "/opt/bin"),
                ("MALLOC_ARENA_MAX", "2"),
                ("CHV_SANDBOX_RUN_DIR", "another"),
                ("TOKEN", "a=b"),
            ],
            false,
        );
        for expected in [
            "PATH=/opt/bin",
            "MALLOC_ARENA_MAX=2",
            "CHV_SANDBOX_RUN_DIR=vmm-1",
            "TOKEN=a=b",
        ] {
            let name = expected.split('=').next().unwrap();
            let of_that_name: Vec<_> = entries
                .iter()
                .filter(|entry| entry.split('=').next() == Some(name))
                .collect();
            assert_eq!(of_that_name, [expected]);
        }
    }

    #[test]
    fn the_linkers_variables_name_libraries() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        let configured = [
            ("LD_PRELOAD", format!("{path}:relative.so /nonexistent")),
            ("LD_LIBRARY_PATH", format!(";{path}/;")),
            ("OTHER", path.to_string()),
        ]
        .map(|(name, value)| (name.into(), value.into()));
        let expected = [format!("{path}"), format!("{path}/")].map(PathBuf::from);
        assert_eq!(libraries(&configured), expected);
    }

    #[test]
    fn an_impossible_variable_is_refused() {
        for (name, value) in [("", "x"), ("A=B", "x"), ("A", "x\0y"), ("A\0", "x")] {
            let configured = [(name.into(), value.into())];
            environment("vmm-1".as_ref(), &configured, false).unwrap_err();
        }
    }
}
