//! Checks the targets of symbolic links: none may lead out of the tree.

use super::ArchiveError;
use super::path::MAX_PATH;

/// Checks that the symbolic link at `path` can't lead out of the tree, even through other links of the tree.
///
/// At the beginning of a target `..` is the parent of a real directory. After a name, which may be that of another
/// link, `..` could lead anywhere, so it is refused there.
pub(super) fn check_target(path: &[u8], target: &[u8]) -> Result<(), ArchiveError> {
    let fault = if target.is_empty() {
        "is a symbolic link to nothing"
    } else if target.len() > MAX_PATH {
        "is a symbolic link with a target of more than 4095 bytes"
    } else if target.contains(&0) {
        "is a symbolic link with a target that contains a NUL byte"
    } else if target.starts_with(b"/") {
        "is a symbolic link with an absolute target"
    } else if leads_out(path, target) {
        "is a symbolic link with a target that may lead out of the tree"
    } else {
        return Ok(());
    };
    Err(ArchiveError::name(path, fault))
}

fn leads_out(path: &[u8], target: &[u8]) -> bool {
    let mut above = path.iter().filter(|&&byte| byte == b'/').count();
    let mut named = false;
    for part in target.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if named || above == 0 => return true,
            b".." => above -= 1,
            _ => named = true,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_in_the_tree() {
        #[track_caller]
        fn check(path: &[u8], target: &[u8], stays: bool) {
            assert_eq!(check_target(path, target).is_ok(), stays);
        }
        check(b"a", b"b", true);
        check(b"a", b"./b/", true);
        check(b"a", b".", true);
        check(b"d/a", b"../b", true);
        check(b"d/a", b"..", true);
        check(b"d/e/a", b"../../b/c", true);
        check(b"a", b"..", false);
        check(b"a", b"../tree/b", false);
        check(b"d/a", b"../../b", false);
        check(b"a", b"/etc/passwd", false);
        check(b"a", b"", false);
        check(b"a", b"b\0c", false);
        check(b"a", &[b'x'; 4096], false);
        // If `d` is a link to `.`, `d/..` is outside of the tree.
        check(b"a", b"d/..", false);
        check(b"a", b"d/../b", false);
    }
}
