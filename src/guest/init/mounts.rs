//! Mounts the file systems that aren't on disks: `/proc`, `/sys`, `/dev` and cgroup v2, for the guest's own processes
//! and inside the tools' root.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::io::Errno;
use rustix::mount::MountFlags;

use super::InitError;
use crate::causes::Causes;
use crate::guest::dispatcher::CGROUP_ROOT;

/// The character devices that tools get: name, major and minor number.
const DEVICES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// The symbolic links that programs expect in `/dev`.
const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Mounts `/proc`, `/sys` and `/dev` for the guest's own processes.
pub(super) fn kernel_file_systems() -> Result<(), InitError> {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    for (at, kind) in [
        ("/proc", c"proc"),
        ("/sys", c"sysfs"),
        ("/dev", c"devtmpfs"),
    ] {
        let at = Path::new(at);
        create_directory(at)?;
        match mount("none", at, kind, flags, c"") {
            // The kernel has mounted it already.
            Err(InitError::Mount {
                source: Errno::BUSY,
                ..
            }) => {}
            mounted => mounted?,
        }
    }
    Ok(())
}

/// Mounts the cgroup v2 file system for the dispatcher, if the kernel has it. Tools don't see it.
pub(super) fn control_groups() {
    let at = Path::new(CGROUP_ROOT);
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    // Without `favordynmods` (from Linux 6.0 on) moving a process into a group waits for an RCU grace period.
    let mounted = mount("none", at, c"cgroup2", flags, c"favordynmods")
        .or_else(|_| mount("none", at, c"cgroup2", flags, c""));
    if let Err(error) = mounted {
        tracing::warn!(error = %Causes(&error), "cgroup v2 could not be mounted: setrlimit enforces the limits of tools");
    }
}

/// Prepares `/proc`, `/sys`, `/dev` and `/tmp` inside the tools' root.
///
/// Tools see only their own user's processes and a few harmless devices. `/tmp` is a directory of the root, so that
/// files in it are on the disk that the host hashes. If the root is read-only and lacks one of these directories, this
/// logs a warning and goes on without it.
pub(super) fn inside_tools_root(root: &Path) -> Result<(), InitError> {
    let harmless = MountFlags::NOSUID | MountFlags::NOEXEC;
    let plain = harmless | MountFlags::NODEV;
    if let Some(at) = mount_point(root, "proc")? {
        mount("none", &at, c"proc", plain, c"hidepid=2")?;
    }
    if let Some(at) = mount_point(root, "sys")? {
        mount("none", &at, c"sysfs", plain | MountFlags::RDONLY, c"")?;
    }
    if let Some(at) = mount_point(root, "dev")? {
        mount("none", &at, c"tmpfs", harmless, c"size=64k,mode=755")?;
        fill_dev(&at)?;
    }
    if let Some(at) = mount_point(root, "tmp")? {
        set_mode(&at, 0o1777)?;
    }
    Ok(())
}

fn fill_dev(dev: &Path) -> Result<(), InitError> {
    let created = |path: &Path, result: io::Result<()>| {
        result.map_err(|source| InitError::File {
            what: "created",
            path: path.to_owned(),
            source,
        })
    };
    for (name, major, minor) in DEVICES {
        let path = dev.join(name);
        let mode = Mode::from_raw_mode(0o666);
        let device = makedev(major, minor);
        let made = mknodat(CWD, &path, FileType::CharacterDevice, mode, device);
        created(&path, made.map_err(io::Error::from))?;
        // The first process may have a umask.
        set_mode(&path, 0o666)?;
    }
    for (name, target) in LINKS {
        let path = dev.join(name);
        created(&path, std::os::unix::fs::symlink(target, &path))?;
    }
    Ok(())
}

/// The directory `name` of the tools' root, which is created if it is missing. `None` if it is missing and the root is
/// read-only.
fn mount_point(root: &Path, name: &str) -> Result<Option<PathBuf>, InitError> {
    let path = root.join(name);
    match create_directory(&path) {
        Ok(()) => Ok(Some(path)),
        Err(InitError::File { source, .. })
            if source.kind() == io::ErrorKind::ReadOnlyFilesystem =>
        {
            tracing::warn!("the root is read-only and has no /{name}: tools have no /{name}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Sets a file's mode unless the file has it already. On a read-only root the mode stays as it is.
fn set_mode(path: &Path, mode: u32) -> Result<(), InitError> {
    let set = || {
        let mut permissions = fs::metadata(path)?.permissions();
        if permissions.mode() & 0o7777 == mode {
            return Ok(());
        }
        permissions.set_mode(mode);
        match fs::set_permissions(path, permissions) {
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => Ok(()),
            set => set,
        }
    };
    set().map_err(|source| InitError::File {
        what: "given its mode",
        path: path.to_owned(),
        source,
    })
}

/// Creates a directory unless it is there.
pub(super) fn create_directory(path: &Path) -> Result<(), InitError> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        created => created.map_err(|source| InitError::File {
            what: "created",
            path: path.to_owned(),
            source,
        }),
    }
}

/// Mounts a file system of `kind` from `device`.
pub(super) fn mount(
    device: &str,
    at: &Path,
    kind: &'static CStr,
    flags: MountFlags,
    options: &CStr,
) -> Result<(), InitError> {
    rustix::mount::mount(device, at, kind, flags, options).map_err(|source| InitError::Mount {
        kind: kind.to_str().unwrap_or("a file system"),
        at: at.to_owned(),
        source,
    })
}
