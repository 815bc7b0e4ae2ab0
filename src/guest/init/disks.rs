//! Mounts the VM's disks as the tools' root, the directory that tools see as `/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::MountFlags;

use super::InitError;
use super::mounts::{create_directory, mount};

const ROOT_DISK: &str = "/dev/vda";
const OVERLAY_DISK: &str = "/dev/vdb";
/// Where the tools' root is mounted.
const TOOLS_ROOT: &str = "/tools";
/// How long `init` waits for the root disk. A driver finds its disks while it is loaded, so the disk is there at once
/// or not at all, unless the driver was built to probe in the background.
const DISK_LIMIT: Duration = Duration::from_secs(5);
const DISK_INTERVAL: Duration = Duration::from_millis(5);

/// Mounts the disks and returns the tools' root. `None` if the VM has no disk: then the initramfs is the tools' root.
///
/// - Two disks: an overlay file system, the second disk's over the first's. Tools write to the second disk.
/// - One writable disk: that disk's file system.
/// - One read-only disk: that disk's file system, read-only. Tools can't write anything.
pub(super) fn tools_root() -> Result<Option<PathBuf>, InitError> {
    if !appears(Path::new(ROOT_DISK)) {
        tracing::warn!("there is no disk {ROOT_DISK}: the initramfs is the tools' root");
        return Ok(None);
    }
    let root = PathBuf::from(TOOLS_ROOT);
    create_directory(&root)?;
    if Path::new(OVERLAY_DISK).exists() {
        mount_overlay(&root)?;
    } else if is_read_only(ROOT_DISK) {
        tracing::warn!(
            "{ROOT_DISK} is read-only and there is no {OVERLAY_DISK}: tools can't write"
        );
        mount(ROOT_DISK, &root, c"ext4", MountFlags::RDONLY, c"")?;
    } else {
        mount(ROOT_DISK, &root, c"ext4", MountFlags::NOATIME, c"")?;
    }
    Ok(Some(root))
}

fn mount_overlay(root: &Path) -> Result<(), InitError> {
    for directory in ["/lower", "/upper"] {
        create_directory(Path::new(directory))?;
    }
    let lower = Path::new("/lower");
    mount(ROOT_DISK, lower, c"ext4", MountFlags::RDONLY, c"")?;
    let upper = Path::new("/upper");
    mount(OVERLAY_DISK, upper, c"ext4", MountFlags::NOATIME, c"")?;
    for directory in ["/upper/upper", "/upper/work"] {
        create_directory(Path::new(directory))?;
    }
    let layers = c"lowerdir=/lower,upperdir=/upper/upper,workdir=/upper/work";
    mount("overlay", root, c"overlay", MountFlags::NOATIME, layers)
}

fn appears(device: &Path) -> bool {
    let end = Instant::now() + DISK_LIMIT;
    while !device.exists() {
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(DISK_INTERVAL);
    }
    true
}

/// Whether the block device itself can't be written, as the kernel says in `/sys/block/<name>/ro`.
fn is_read_only(device: &str) -> bool {
    let name = device.trim_start_matches("/dev/");
    fs::read_to_string(format!("/sys/block/{name}/ro")).is_ok_and(|ro| ro.trim() == "1")
}
