//! Makes a root tree around busybox ([`make`]), and checks a root tree that was given ([`check_mount_points`]).

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use super::Error;
use crate::files::{create_private_directory, write_private};

/// The mount points that the guest needs inside the root.
const MOUNT_POINTS: [&str; 4] = ["dev", "proc", "sys", "tmp"];

/// The names under which busybox is installed. A build of busybox without one of these applets reports an error when
/// the applet is called.
const APPLETS: &str = "\
    [ arch awk base64 basename cat chgrp chmod chown cksum clear cmp comm cp cut date dd df diff dirname du echo \
    egrep env expand expr factor false fgrep find fold free getopt grep groups gunzip gzip head hexdump hostname id \
    install kill less link ln ls md5sum mkdir mkfifo mktemp more mv nice nohup nproc od paste patch pgrep pidof \
    printenv printf ps pwd readlink realpath renice rev rm rmdir sed seq setsid sh sha1sum sha256sum sha512sum shuf \
    sleep sort split stat strings stty sync tac tail tar tee test timeout touch tr true truncate tsort tty uname \
    unexpand uniq unlink uptime usleep vi watch wc which who whoami xargs xxd yes zcat";

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\ntool:x:1000:1000:tool:/tmp:/bin/sh\n";
const GROUP: &str = "root:x:0:\ntool:x:1000:\n";

/// Makes a tree around `busybox` in `dir`: its names in `/bin`, the users `root` and `tool` (1000), the mount points.
pub(super) fn make(dir: &Path, busybox: &[u8]) -> Result<(), Error> {
    for (name, mode) in [
        ("", 0o755),
        ("bin", 0o755),
        ("dev", 0o755),
        ("etc", 0o755),
        ("proc", 0o755),
        ("root", 0o700),
        ("run", 0o755),
        ("sys", 0o755),
        ("tmp", 0o1777),
    ] {
        directory(&dir.join(name), mode)?;
    }
    file(&dir.join("bin/busybox"), busybox, 0o755)?;
    for applet in APPLETS.split_whitespace() {
        let link = dir.join("bin").join(applet);
        symlink("busybox", &link).map_err(Error::io("create", link))?;
    }
    file(&dir.join("etc/group"), GROUP.as_bytes(), 0o644)?;
    file(&dir.join("etc/passwd"), PASSWD.as_bytes(), 0o644)
}

/// Makes the tree of an empty overlay disk: the upper directory, which receives the guest's writes, and the work
/// directory of overlayfs.
pub(super) fn make_overlay(dir: &Path) -> Result<(), Error> {
    // The upper directory's mode becomes that of the guest's `/`.
    ["", "upper", "work"]
        .iter()
        .try_for_each(|name| directory(&dir.join(name), 0o755))
}

/// Checks that a given tree has the directories on which the guest mounts.
pub(super) fn check_mount_points(dir: &Path) -> Result<(), Error> {
    let is_directory = |name: &str| fs::symlink_metadata(dir.join(name)).is_ok_and(|m| m.is_dir());
    let missing: Vec<_> = MOUNT_POINTS
        .into_iter()
        .filter(|name| !is_directory(name))
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Error::TreeLacks {
            path: dir.into(),
            missing,
        })
    }
}

fn directory(path: &Path, mode: u32) -> Result<(), Error> {
    create_private_directory(path).map_err(Error::io("create", path))?;
    set_mode(path, mode)
}

fn file(path: &Path, data: &[u8], mode: u32) -> Result<(), Error> {
    write_private(path, data).map_err(Error::io("write", path))?;
    set_mode(path, mode)
}

/// Sets the mode that the guest will see, independent of the umask.
fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(Error::io("set the mode of", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::image::{stop::Stop, survey::survey};

    #[test]
    fn busybox_goes_by_many_names() {
        let dir = tempfile::tempdir().expect("a directory");
        let root = dir.path().join("root");
        make(&root, b"program").expect("made");
        check_mount_points(&root).expect("complete");
        for name in ["sh", "echo", "cat", "ls", "whoami", "uname", "env", "sleep"] {
            assert_eq!(
                fs::read(root.join("bin").join(name)).expect(name),
                b"program"
            );
        }
        let mode = |name: &str| fs::metadata(root.join(name)).expect(name).mode() & 0o7777;
        assert_eq!(
            (mode("tmp"), mode("root"), mode("bin/busybox")),
            (0o1777, 0o700, 0o755)
        );
        let inodes = 9 + 3 + APPLETS.split_whitespace().count() as u64;
        assert_eq!(survey(&root, Stop::never()).expect("fit").inodes, inodes);
    }

    #[test]
    fn mount_points_must_be_directories() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("dev")).expect("made");
        symlink("dev", dir.path().join("proc")).expect("linked");
        let error = check_mount_points(dir.path()).expect_err("must fail");
        assert!(
            matches!(&error, Error::TreeLacks { missing, .. } if missing == &["proc", "sys", "tmp"]),
            "{error}"
        );
    }
}
