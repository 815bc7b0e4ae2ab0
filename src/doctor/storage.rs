//! Checks the filesystems of the run root and of a golden snapshot: reflinks, read leases and fs-verity.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::ioctl_ficlone;
use rustix::io::Errno;

use super::mount::{self, Mount};
use super::scratch::Scratch;
use super::{CheckId, Host, HostCheck, Remedy, nearest};
use crate::golden::Golden;
use crate::machine::SNAPSHOT_FILES;
use crate::overlay::{LeasedFile, enable_verity};

/// A check of a filesystem. Its arguments are the host, the run root, and the golden snapshot if one was named.
pub(super) type StorageCheck = fn(&Host, &Path, Option<&Golden>) -> HostCheck;

pub(super) const CHECKS: &[(CheckId, StorageCheck)] = &[
    (CheckId::Reflink, reflink),
    (CheckId::Leases, leases),
    (CheckId::FsVerity, fs_verity),
];

/// Clones a file of the golden snapshot into the run root, where each VM's disks are created. Without a golden
/// snapshot, clones a file within the run root.
fn reflink(host: &Host, run_root: &Path, golden: Option<&Golden>) -> HostCheck {
    let id = CheckId::Reflink;
    let place = nearest(run_root);
    let tried = || -> io::Result<(PathBuf, Result<(), Errno>)> {
        let scratch = Scratch::create(&place)?;
        let from = match golden {
            Some(golden) => kept_file(golden),
            None => scratch.file("from")?,
        };
        let (original, copy) = (File::open(&from)?, scratch.empty_file("to")?);
        Ok((from, ioctl_ficlone(&copy, &original)))
    };
    let (from, cloned) = match tried() {
        Ok(tried) => tried,
        Err(error) => return HostCheck::not_found_out(id, format!("{}: {error}", place.display())),
    };
    let to = mount::name(host, &place);
    let Err(error) = cloned else {
        return HostCheck::good(id, format!("copies of disks share blocks in {to}"));
    };
    let lost = "each reset copies the data of the writable disks";
    match golden.map(Golden::directory) {
        Some(directory) if error == Errno::XDEV || other_device(&from, &place) => {
            let found = format!("{} is on another filesystem than {to}", directory.display());
            let beside = directory.with_file_name("run");
            let command = format!(
                "chv-sandbox doctor --golden {} --run-root {}",
                directory.display(),
                beside.display()
            );
            HostCheck::lacking(id, found, lost, Some(Remedy::new(command)))
        }
        _ => {
            let found = format!("none in {to}{}", unless_unsupported(error));
            HostCheck::lacking(id, found, lost, Some(make_btrfs(host)))
        }
    }
}

/// The text of an error, or nothing if it only means that the filesystem doesn't support the operation.
fn unless_unsupported(error: Errno) -> String {
    match error {
        Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS | Errno::INVAL | Errno::XDEV => {
            String::new()
        }
        error => format!(": {}", io::Error::from(error)),
    }
}

fn other_device(one: &Path, other: &Path) -> bool {
    match (one.metadata(), other.metadata()) {
        (Ok(one), Ok(other)) => one.dev() != other.dev(),
        _ => false,
    }
}

/// A file of the golden snapshot that resets copy: a writable disk, or else its memory.
fn kept_file(golden: &Golden) -> PathBuf {
    let writable = golden.disks().into_iter().find(|disk| !disk.readonly);
    match writable {
        Some(disk) => disk.origin,
        None => memory_file(golden),
    }
}

fn memory_file(golden: &Golden) -> PathBuf {
    let [.., memory] = SNAPSHOT_FILES;
    golden.snapshot().join(memory)
}

/// Creates a btrfs in a file, because btrfs has reflinks.
fn make_btrfs(host: &Host) -> Remedy {
    let mount = host.caller.as_root("mount chv.btrfs /mnt");
    Remedy::new(format!(
        "truncate -s 20G chv.btrfs && mkfs.btrfs chv.btrfs && {mount}"
    ))
    .note("then put the golden snapshot and the run root on it")
}

/// Takes a lease on the golden snapshot's manifest. Without a golden snapshot, on a file in the run root.
fn leases(host: &Host, run_root: &Path, golden: Option<&Golden>) -> HostCheck {
    let id = CheckId::Leases;
    let place = match golden {
        Some(golden) => golden.directory().to_owned(),
        None => nearest(run_root),
    };
    let scratch = match golden {
        Some(_) => Ok(None),
        None => Scratch::create(&place).map(Some),
    };
    let file = scratch.and_then(|scratch| match scratch {
        Some(scratch) => scratch.file("leased").map(|file| (file, Some(scratch))),
        None => Ok((place.join("manifest.json"), None)),
    });
    let (file, _scratch) = match file {
        Ok(file) => file,
        Err(error) => return HostCheck::not_found_out(id, format!("{}: {error}", place.display())),
    };
    let shown = mount::name(host, &place);
    let Err(error) = LeasedFile::take(&file) else {
        return HostCheck::good(id, format!("writers to files in {shown} are noticed"));
    };
    let owner = file.metadata().map(|metadata| metadata.uid()).ok();
    let ours = owner == Some(rustix::process::geteuid().as_raw());
    let (found, remedy) = match ours {
        true => {
            let found = format!("none in {shown}: {error}");
            let note = "put the golden snapshot on ext4, xfs, btrfs or tmpfs";
            (found, Remedy::new("df -T .").note(note))
        }
        false => {
            let found = format!("{} belongs to another user", file.display());
            let command = format!("sudo chown -R $USER {}", place.display());
            (found, Remedy::new(command))
        }
    };
    let lost = "read-only disks are digested anew at each reset";
    HostCheck::lacking(id, found, lost, Some(remedy))
}

/// Checks whether fs-verity protects the golden snapshot's memory, or could protect it, which is tried on a file beside
/// it.
fn fs_verity(host: &Host, run_root: &Path, golden: Option<&Golden>) -> HostCheck {
    let id = CheckId::FsVerity;
    let need = golden.map(Golden::memory_need).transpose().ok().flatten();
    let lost = "each process copies a golden snapshot's memory into RAM once";
    let place = match golden {
        Some(golden) => golden.directory().to_owned(),
        None => nearest(run_root),
    };
    let shown = mount::name(host, &place);
    if need.is_some_and(|need| need.none_with_fs_verity) {
        return HostCheck::good(id, format!("protects the memory in {shown}"));
    }
    let tried = Scratch::create(&place).and_then(|scratch| {
        let file = File::open(scratch.file("protected")?)?;
        Ok(enable_verity(&file))
    });
    match (tried, golden) {
        (Err(error), _) => {
            let why = format!("{} accepts no file for the trial: {error}", place.display());
            HostCheck::not_found_out(id, why)
        }
        (Ok(Ok(())), None) => HostCheck::good(id, format!("can protect files in {shown}")),
        (Ok(Ok(())), Some(golden)) => {
            let found = format!("possible in {shown}, but not used for this golden snapshot");
            let command = format!("fsverity enable {}", memory_file(golden).display());
            HostCheck::lacking(id, found, lost, Some(Remedy::new(command)))
        }
        (Ok(Err(error)), _) => {
            let found = format!("none in {shown}{}", unless_unsupported(error));
            HostCheck::lacking(id, found, lost, feature(host, &place))
        }
    }
}

/// The command that gives a filesystem fs-verity.
fn feature(host: &Host, place: &Path) -> Option<Remedy> {
    let mount = Mount::of(host, place)?;
    if host.caller.container {
        return None;
    }
    match &*mount.kind {
        "ext4" => {
            let command = format!("tune2fs -O verity {}", mount.device);
            let note = "needs CONFIG_FS_VERITY";
            Some(Remedy::new(host.caller.as_root(&command)).note(note))
        }
        "btrfs" => None,
        _ => {
            let note = "and put the golden snapshot there";
            Some(Remedy::new("mkfs.ext4 -O verity DEVICE").note(note))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::CheckStatus;
    use super::super::tests::{Place, text};
    use super::*;

    /// Each trial gives a result on every filesystem that the tests run on, and leaves nothing behind.
    #[test]
    fn every_file_system_gives_an_answer_and_nothing_stays() {
        for directory in [std::env::temp_dir(), "/dev/shm".into()] {
            let Ok(place) = Place::in_directory(&directory) else {
                continue;
            };
            for (id, check) in CHECKS {
                let check = check(&place.host(), &place.path("run"), None);
                assert_eq!(check.id, *id);
                assert!(!check.found.starts_with("not known"), "{check:?}");
                let good = check.status == CheckStatus::Good;
                assert_eq!(check.lost.is_none(), good, "{check:?}");
            }
            assert!(place.names().is_empty());
        }
    }

    #[test]
    fn where_nothing_can_be_written_nothing_is_known() {
        let place = Place::new();
        for (_, check) in CHECKS {
            let check = check(&place.host(), Path::new("/proc/chv"), None);
            assert_eq!(check.status, CheckStatus::Warning);
            assert!(check.found.starts_with("not known: "), "{check:?}");
        }
    }

    #[test]
    fn the_file_system_decides_how_fs_verity_is_had() {
        let place = Place::new();
        let feature = |kind: &str, container: bool| {
            let line = format!("1 1 8:1 / / rw - {kind} /dev/sda1 rw\n");
            place.write("proc/self/mountinfo", &line);
            let mut host = place.host();
            host.caller.container = container;
            feature(&host, &place.path("")).map(|remedy| remedy.command)
        };
        let ext4 = Some("sudo tune2fs -O verity /dev/sda1".to_owned());
        assert_eq!(feature("ext4", false), ext4);
        assert_eq!(feature("ext4", true), None);
        assert_eq!(feature("btrfs", false), None);
        assert!(feature("tmpfs", false).unwrap().starts_with("mkfs.ext4"));
        let remedy = HostCheck::lacking(CheckId::Reflink, "", "", Some(make_btrfs(&place.host())));
        assert!(text(&remedy).contains("sudo mount"), "{remedy:?}");
    }
}
