//! Checks the names of entries.

use super::ArchiveError;

/// The longest name of an entry, in bytes: that of a path for the kernel (`PATH_MAX` without the NUL byte).
pub(super) const MAX_PATH: usize = 4095;

/// The longest part of a name between two slashes, in bytes.
const MAX_PART: usize = 255;

/// Checks an entry's name and returns it in its shortest spelling: `./a`, `a/` and `a` become `a`, and the root becomes
/// empty.
pub(super) fn normalized(name: &[u8]) -> Result<&[u8], ArchiveError> {
    if name.is_empty() {
        return Err(ArchiveError::name(name, "is no name: it is empty"));
    }
    if name.starts_with(b"/") {
        return Err(ArchiveError::name(name, "is absolute"));
    }
    if name == b"." {
        return Ok(b"");
    }
    let path = name.strip_prefix(b"./").unwrap_or(name);
    let path = path.strip_suffix(b"/").unwrap_or(path);
    if !path.is_empty() {
        check(path, name)?;
    }
    Ok(path)
}

fn check(path: &[u8], name: &[u8]) -> Result<(), ArchiveError> {
    let fault = if path.len() > MAX_PATH {
        "is longer than 4095 bytes"
    } else if path.contains(&0) {
        "contains a NUL byte"
    } else {
        match path.split(|&byte| byte == b'/').find_map(part_fault) {
            None => return Ok(()),
            Some(fault) => fault,
        }
    };
    Err(ArchiveError::name(name, fault))
}

fn part_fault(part: &[u8]) -> Option<&'static str> {
    match part {
        b"" => Some("has an empty part"),
        b"." => Some("has a part that is \".\""),
        b".." => Some("has a part that is \"..\""),
        _ if part.len() > MAX_PART => Some("has a part of more than 255 bytes"),
        _ => None,
    }
}

/// Checks that a file in a directory can have this name.
pub(super) fn check_file_name(name: &[u8]) -> Result<(), ArchiveError> {
    match part_fault(name) {
        None if name.contains(&b'/') => Err(ArchiveError::name(name, "contains a slash")),
        None => check(name, name),
        Some(fault) => Err(ArchiveError::name(name, fault)),
    }
}

/// Splits an entry's path into its directory and its name there.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_of_a_name_become_one() {
        let long = [&[b'x'; 255][..], b"/", &[b'y'; 255]].concat();
        for (name, expected) in [
            (&b"."[..], &b""[..]),
            (b"./", b""),
            (b"a", b"a"),
            (b"./a", b"a"),
            (b"a/", b"a"),
            (b"./a/b/", b"a/b"),
            (b"-rf", b"-rf"),
            (b" a\nb ", b" a\nb "),
            (b"...", b"..."),
            (b"\xff\xfe", b"\xff\xfe"),
            (&long, &long),
        ] {
            assert_eq!(normalized(name).unwrap(), expected);
        }
    }

    #[test]
    fn other_names_are_refused() {
        let deep = b"a/".repeat(2048);
        for name in [
            &b""[..],
            b"/",
            b"/a",
            b"//a",
            b"..",
            b"../a",
            b"a/..",
            b"a/../b",
            b"./..",
            b"././a",
            b"a/./b",
            b"a//b",
            b"a//",
            b".//a",
            b"a\0b",
            &[b'x'; 256],
            &[&[b'x'; 256][..], b"/a"].concat(),
            &[&deep[..], b"a"].concat(),
        ] {
            let error = normalized(name).unwrap_err();
            assert_eq!(error.code().text(), "SANDBOX_FILE_NAME", "{error}");
        }
        assert!(normalized(&deep[..4095]).is_ok());
    }
}
