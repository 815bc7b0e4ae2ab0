//! [`Mount`]: the filesystem that a path lies on.

use std::fs;
use std::path::{Path, PathBuf};

use super::Host;

/// A line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// The type of the filesystem, such as `ext4`.
    pub(super) kind: String,
    /// The mounted device, such as `/dev/sda1`.
    pub(super) device: String,
}

impl Mount {
    /// The mount of the directory `path`; `None` if `/proc` doesn't list it.
    pub(super) fn of(host: &Host, path: &Path) -> Option<Mount> {
        let path = fs::canonicalize(path).ok()?;
        let text = fs::read(host.proc.join("self/mountinfo")).ok()?;
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().filter_map(parse);
        let above = lines.filter(|(point, _)| path.starts_with(point));
        // If two mounts have the same mount point, the later one hides the earlier one.
        let nearest = above.max_by_key(|(point, _)| point.as_os_str().len());
        nearest.map(|(_, mount)| mount)
    }
}

/// `path` with the type of its filesystem, for a sentence.
pub(super) fn name(host: &Host, path: &Path) -> String {
    match Mount::of(host, path) {
        Some(mount) => format!("{} ({})", path.display(), mount.kind),
        None => path.display().to_string(),
    }
}

/// `36 35 98:0 / /mnt rw,noexec - ext4 /dev/sda1 rw`, with any number of fields before the dash.
fn parse(line: &str) -> Option<(PathBuf, Mount)> {
    let (before, after) = line.split_once(" - ")?;
    let point = before.split(' ').nth(4)?;
    let mut after = after.split(' ');
    let mount = Mount {
        kind: after.next()?.to_owned(),
        device: after.next()?.to_owned(),
    };
    Some((unescape(point).into(), mount))
}

/// Decodes the kernel's octal escapes, such as `\040` for a space.
fn unescape(text: &str) -> String {
    let codes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n")];
    let text = codes.iter().fold(text.to_owned(), |text, (code, char)| {
        text.replace(code, char)
    });
    text.replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read() {
        let line =
            "36 35 98:0 / /mnt/a\\040b rw,nosuid,noexec shared:1 master:2 - xfs /dev/sda1 rw";
        let (point, mount) = parse(line).unwrap();
        assert_eq!(point, Path::new("/mnt/a b"));
        assert_eq!((&*mount.kind, &*mount.device), ("xfs", "/dev/sda1"));
        for line in ["", "1 2 3", "36 35 98:0 / /mnt - ext4", " - ext4 d"] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
