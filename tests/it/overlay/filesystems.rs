//! Behaviour that needs a special filesystem: shared blocks, and a full disk.

#![expect(
    clippy::print_stdout,
    reason = "these tests say that they were skipped"
)]

use std::env;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use chv_sandbox::overlay::{CopyMethod, Error, NamelessFile, copy_private, put_back};

use super::{Disks, TAMPERED, identity_of, noise};

/// Names a directory on a filesystem whose files can share blocks, such as btrfs or xfs, if the temporary directory
/// isn't on one.
const REFLINK_DIR: &str = "CHV_SANDBOX_REFLINK_DIR";

#[test]
fn a_reflink_shares_blocks_and_not_what_is_written_later() {
    let directory = env::var_os(REFLINK_DIR).map_or_else(env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(directory).unwrap();
    let path = |name: &str| directory.path().join(name);
    let (golden, overlay) = (path("golden.img"), path("overlay.img"));
    // The file is sparse, and its length is no multiple of a block.
    let file = File::create(&golden).unwrap();
    file.write_all_at(&noise(1 << 20), 4 << 20).unwrap();
    file.set_len((9 << 20) + 1).unwrap();
    drop(file);
    let bytes = fs::read(&golden).unwrap();
    if let Err(error) = reflink(&golden, &path("probe")) {
        let directory = directory.path().display();
        println!("skipped: no reflinks in {directory}: {error} ({REFLINK_DIR} names another)");
        return;
    }

    fs::write(&overlay, TAMPERED).unwrap();
    let before = identity_of(&overlay);
    let copied = put_back(&golden, &overlay).unwrap();
    assert_eq!(copied.method, CopyMethod::Reflink);
    assert_eq!(
        (copied.length, copied.bytes_copied),
        (bytes.len() as u64, 0)
    );
    assert_eq!(copied.identity, identity_of(&overlay));
    assert!(![before, identity_of(&golden)].contains(&copied.identity));
    assert!(fs::read(&overlay).unwrap() == bytes);
    let copied = copy_private(&golden, &path("kept.img")).unwrap();
    assert_eq!(copied.method, CopyMethod::Reflink);

    let written = File::options().write(true).open(&overlay).unwrap();
    written.write_all_at(TAMPERED, 5 << 20).unwrap();
    assert!(fs::read(&overlay).unwrap() != bytes);
    for untouched in [&golden, &path("kept.img")] {
        assert!(fs::read(untouched).unwrap() == bytes);
    }
    put_back(&golden, &overlay).unwrap();
    assert!(fs::read(&overlay).unwrap() == bytes);

    let nameless = NamelessFile::create(&[directory.path()]).unwrap();
    let origin = File::open(&golden).unwrap();
    for _ in 0..2 {
        let copied = nameless.fill(&origin, &golden).unwrap();
        assert_eq!(copied.method, CopyMethod::Reflink);
        let mut found = vec![0; bytes.len() + 1];
        assert_eq!(nameless.file().read_at(&mut found, 0).unwrap(), bytes.len());
        assert!(found[..bytes.len()] == bytes);
        nameless.file().write_all_at(TAMPERED, 5 << 20).unwrap();
        nameless.file().set_len(20 << 20).unwrap();
    }
    assert!(fs::read(&golden).unwrap() == bytes);
}

fn reflink(from: &Path, to: &Path) -> io::Result<()> {
    Ok(rustix::fs::ioctl_ficlone(
        File::create(to)?,
        File::open(from)?,
    )?)
}

/// Set for the child process, which has namespaces of its own.
const ALONE: &str = "CHV_SANDBOX_SPACE_ALONE";

#[test]
fn no_space_leaves_the_overlay_alone() {
    let Err(error) = run_out_of_space() else {
        return;
    };
    if env::var_os(ALONE).is_some() {
        panic!("no small filesystem could be mounted in namespaces of its own: {error}");
    }
    // A user who may not mount may do so in a user namespace. A process with several threads can't enter one.
    let enter = ["--user", "--map-root-user", "--mount"];
    let entered = Command::new("unshare").args(enter).arg("true").output();
    if !entered.is_ok_and(|output| output.status.success()) {
        println!("skipped: mounting a small filesystem: {error}, and no user namespace either");
        return;
    }
    let status = Command::new("unshare")
        .args(enter)
        .arg(env::current_exe().unwrap())
        .args([
            "--exact",
            "overlay::filesystems::no_space_leaves_the_overlay_alone",
        ])
        .env(ALONE, "1")
        .status();
    assert!(status.unwrap().success());
}

/// Runs out of space on a small filesystem. Returns an error if it can't mount one.
fn run_out_of_space() -> rustix::io::Result<()> {
    let disks = Disks::new();
    let small = disks.directory.path().join("small");
    fs::create_dir(&small).unwrap();
    let overlay = small.join("overlay.img");
    // A thread of its own: no other thread sees its mounts, and they end with it.
    std::thread::scope(|scope| {
        let run_out = || {
            mount_half_a_mebibyte(&small)?;
            fs::write(&overlay, TAMPERED).unwrap();
            let before = identity_of(&overlay);
            assert_no_space(put_back(&disks.golden, &overlay).unwrap_err(), &small);
            assert_eq!(identity_of(&overlay), before);
            assert_eq!(fs::read(&overlay).unwrap(), TAMPERED);
            let kept = small.join("kept.img");
            assert_no_space(copy_private(&disks.golden, &kept).unwrap_err(), &small);
            assert_eq!(fs::read_dir(&small).unwrap().count(), 1, "only the overlay");
            let nameless = NamelessFile::create(&[&small]).unwrap();
            let golden = File::open(&disks.golden).unwrap();
            assert_no_space(nameless.fill(&golden, &disks.golden).unwrap_err(), &small);
            assert_eq!(nameless.file().metadata().unwrap().len(), 0);
            let little = File::open(&overlay).unwrap();
            nameless.fill(&little, &overlay).unwrap();
            Ok(())
        };
        scope.spawn(run_out).join().unwrap()
    })
}

#[track_caller]
fn assert_no_space(error: Error, expected: &Path) {
    match error {
        Error::NoSpace {
            directory, length, ..
        } => assert_eq!((directory.as_path(), length), (expected, 1 << 20)),
        other => panic!("{other:?}"),
    }
}

fn mount_half_a_mebibyte(at: &Path) -> rustix::io::Result<()> {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    // SAFETY: this unshares mounts and the working directory. Unsharing descriptors would be unsafe; this does not.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    mount("tmpfs", at, "tmpfs", MountFlags::empty(), c"size=512k")
}
