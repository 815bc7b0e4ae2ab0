//! Digests of disks, and putting disks back, through the public interface.

mod filesystems;
mod properties;
pub(crate) mod qcow2;
mod verity;

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use chv_sandbox::overlay::{
    AccessPolicy, Change, Copied, CopyMethod, Digest, Error, FileIdentity, copy_private, put_back,
    sha256,
};
use proptest::prelude::*;
use tempfile::TempDir;

/// Pseudo-random bytes, the same at each call.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(length)
    .collect()
}

fn identity_of(path: &Path) -> FileIdentity {
    FileIdentity::from(&path.metadata().unwrap())
}

/// The digest that `sha256sum` prints, if that program is installed.
fn sha256sum(path: &Path) -> Option<String> {
    let output = Command::new("sha256sum").arg(path).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(format!("sha256:{}", text.split_whitespace().next()?))
}

#[test]
fn a_digest_is_that_of_all_bytes_however_they_are_reached() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk");
    let check = |expected: Digest, length: u64| {
        for policy in [AccessPolicy::PreferMapped, AccessPolicy::ReadOnly] {
            let hashed = sha256(&path, policy).unwrap();
            assert_eq!(hashed.digest, expected, "{length} bytes, {policy:?}");
            assert_eq!(hashed.length, length);
            assert_eq!(hashed.identity, identity_of(&path));
        }
        if let Some(theirs) = sha256sum(&path) {
            assert_eq!(theirs, expected.to_string());
        }
    };
    // Lengths around those of a page, a block of the reader and a chunk of the mapping.
    let around = |size: usize| [size - 1, size, size + 1];
    let sizes = [vec![0, 1, 63, 64, 65], around(4096).into()];
    let large = [around(256 << 10), around(2 << 20), around(5 << 20)];
    for size in sizes.concat().into_iter().chain(large.concat()) {
        let bytes = noise(size);
        fs::write(&path, &bytes).unwrap();
        check(Digest::of(&bytes), size as u64);
    }

    let sparse = File::create(&path).unwrap();
    sparse.set_len(7 << 20).unwrap();
    sparse.write_all_at(b"alone", 3 << 20).unwrap();
    drop(sparse);
    check(Digest::of(&fs::read(&path).unwrap()), 7 << 20);
}

#[test]
fn an_empty_file_has_the_digest_of_nothing() {
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    let hashed = sha256(&path, AccessPolicy::PreferMapped).unwrap();
    assert_eq!(hashed.digest, Digest::OF_NOTHING);
}

#[test]
fn a_link_is_followed_to_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let (disk, link) = (directory.path().join("disk"), directory.path().join("link"));
    fs::write(&disk, "bytes").unwrap();
    symlink(&disk, &link).unwrap();
    let hashed = sha256(&link, AccessPolicy::PreferMapped).unwrap();
    assert_eq!(hashed.identity, identity_of(&disk));
}

#[test]
fn things_that_are_no_disk_have_no_digest() {
    let directory = tempfile::tempdir().unwrap();
    let refusal = |path: &Path| sha256(path, AccessPolicy::PreferMapped).unwrap_err();

    let missing = refusal(&directory.path().join("missing"));
    assert!(matches!(&missing, Error::Io { source, .. } if source.kind() == ErrorKind::NotFound));

    let pipe = directory.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
    for path in [directory.path(), &pipe, Path::new("/dev/null")] {
        let error = refusal(path);
        assert!(matches!(error, Error::NotRegular { .. }), "{error}");
    }

    // The kernel reports a length of 0 for this file, and it has content.
    let error = refusal(Path::new("/proc/version"));
    let change = Change::Length {
        before: 0,
        found: 1,
    };
    assert!(matches!(error, Error::Changed { change: c, .. } if c == change));
}

/// A golden copy, and an overlay that differs from it.
struct Disks {
    directory: TempDir,
    golden: PathBuf,
    overlay: PathBuf,
}

const TAMPERED: &[u8] = b"what the guest has written";

impl Disks {
    fn new() -> Disks {
        let directory = tempfile::tempdir().unwrap();
        let golden = directory.path().join("golden.img");
        let overlay = directory.path().join("overlay.img");
        fs::write(&golden, noise(1 << 20)).unwrap();
        fs::write(&overlay, TAMPERED).unwrap();
        Disks {
            directory,
            golden,
            overlay,
        }
    }

    fn put_back(&self) -> Result<Copied, Error> {
        put_back(&self.golden, &self.overlay)
    }

    /// The error of putting back. The overlay must be unchanged, and nothing else may be left.
    fn refusal(&self) -> Error {
        let before = identity_of(&self.overlay);
        let entries = || fs::read_dir(self.directory.path()).unwrap().count();
        let entries_before = entries();
        let error = self.put_back().unwrap_err();
        assert_eq!(identity_of(&self.overlay), before);
        assert_eq!(entries(), entries_before, "something is left of it");
        error
    }
}

#[test]
fn putting_back_makes_a_new_file_with_the_golden_bytes() {
    let disks = Disks::new();
    let old = File::open(&disks.overlay).unwrap();
    let copied = disks.put_back().unwrap();
    assert_eq!(fs::read(&disks.overlay).unwrap(), noise(1 << 20));
    assert_eq!(copied.length, 1 << 20);
    assert_eq!(copied.identity, identity_of(&disks.overlay));
    assert_ne!(copied.identity, identity_of(&disks.golden));
    assert_ne!(
        copied.identity,
        FileIdentity::from(&old.metadata().unwrap())
    );
    let mode = disks.overlay.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    // A process that has the old file open keeps the old bytes.
    let mut kept = [0; TAMPERED.len()];
    old.read_exact_at(&mut kept, 0).unwrap();
    assert_eq!(kept, TAMPERED);
    assert_eq!(fs::read_dir(disks.directory.path()).unwrap().count(), 2);
}

#[test]
fn a_missing_overlay_is_made() {
    let disks = Disks::new();
    fs::remove_file(&disks.overlay).unwrap();
    disks.put_back().unwrap();
    assert_eq!(fs::read(&disks.overlay).unwrap(), noise(1 << 20));
}

#[test]
fn a_link_to_the_overlay_stays_one() {
    let mut disks = Disks::new();
    let link = disks.directory.path().join("link");
    symlink("overlay.img", &link).unwrap();
    let file = std::mem::replace(&mut disks.overlay, link.clone());
    disks.put_back().unwrap();
    assert!(link.is_symlink());
    assert_eq!(fs::read(&file).unwrap(), noise(1 << 20));

    fs::remove_file(&file).unwrap();
    let error = disks.put_back().unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    assert!(link.is_symlink() && !file.exists());
}

#[test]
fn one_file_by_two_names_is_refused() {
    let mut disks = Disks::new();
    let real = disks.golden.clone();
    let hard = disks.directory.path().join("hard");
    let soft = disks.directory.path().join("soft");
    fs::hard_link(&real, &hard).unwrap();
    symlink(&real, &soft).unwrap();
    for (golden, overlay) in [
        (&real, &real),
        (&real, &hard),
        (&real, &soft),
        (&soft, &hard),
    ] {
        (disks.golden, disks.overlay) = (golden.clone(), overlay.clone());
        let error = disks.refusal();
        assert!(matches!(error, Error::SameFile { .. }), "{error}");
    }
    assert_eq!(fs::read(&real).unwrap(), noise(1 << 20));
}

#[test]
fn a_golden_copy_that_will_not_do_leaves_the_overlay_alone() {
    let mut disks = Disks::new();
    fs::remove_file(&disks.golden).unwrap();
    let error = disks.refusal();
    assert!(
        matches!(&error, Error::Io { path, .. } if *path == disks.golden),
        "{error}"
    );

    disks.golden = disks.directory.path().to_owned();
    let error = disks.refusal();
    assert!(matches!(error, Error::NotRegular { .. }), "{error}");

    // This file fails only after the copy has begun.
    disks.golden = "/proc/version".into();
    let error = disks.refusal();
    assert!(matches!(error, Error::Changed { .. }), "{error}");
}

#[test]
fn an_overlay_that_is_no_file_is_refused() {
    let mut disks = Disks::new();
    disks.overlay = disks.directory.path().join("directory");
    fs::create_dir(&disks.overlay).unwrap();
    let error = disks.refusal();
    assert!(matches!(error, Error::NotRegular { .. }), "{error}");
}

#[test]
#[expect(clippy::print_stdout, reason = "it says that it was skipped")]
fn a_directory_that_takes_no_file_leaves_the_overlay_alone() {
    let disks = Disks::new();
    let set_mode = |mode| {
        fs::set_permissions(disks.directory.path(), fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(0o500);
    if File::create(disks.directory.path().join("probe")).is_ok() {
        println!("skipped: this user may write anywhere");
        return;
    }
    let error = disks.refusal();
    assert!(
        matches!(
            error,
            Error::Io {
                operation: "create",
                ..
            }
        ),
        "{error}"
    );
    set_mode(0o700);
}

#[test]
fn a_private_copy_replaces_nothing() {
    let disks = Disks::new();
    let copy = disks.directory.path().join("copy");
    let copied = copy_private(&disks.golden, &copy).unwrap();
    assert_eq!(fs::read(&copy).unwrap(), noise(1 << 20));
    assert_eq!(copied.identity, identity_of(&copy));
    let metadata = copy.metadata().unwrap();
    assert_eq!(metadata.mode() & 0o7777, 0o600);
    assert_eq!(metadata.nlink(), 1);

    let dangling = disks.directory.path().join("dangling");
    symlink("nowhere", &dangling).unwrap();
    for taken in [&copy, &dangling, &disks.golden, &disks.overlay] {
        let error = copy_private(&disks.golden, taken).unwrap_err();
        assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
    }
    assert_eq!(fs::read(&disks.overlay).unwrap(), TAMPERED);
    assert_eq!(fs::read_dir(disks.directory.path()).unwrap().count(), 4);
}

#[test]
fn holes_stay_holes() {
    let disks = Disks::new();
    let golden = File::create(&disks.golden).unwrap();
    golden.set_len(256 << 20).unwrap();
    golden.write_all_at(&noise(70_000), 100 << 20).unwrap();
    // Zeros that were written need no room in the copy.
    golden.write_all_at(&vec![0; 8 << 20], 150 << 20).unwrap();
    let copied = disks.put_back().unwrap();
    let expected = sha256(&disks.golden, AccessPolicy::ReadOnly).unwrap();
    let found = sha256(&disks.overlay, AccessPolicy::ReadOnly).unwrap();
    assert_eq!(found.digest, expected.digest);
    assert_eq!(copied.length, 256 << 20);
    assert!(copied.bytes_copied < 1 << 20, "{copied:?}");
    let blocks = |path: &Path| path.metadata().unwrap().blocks();
    assert!(blocks(&disks.overlay) <= blocks(&disks.golden));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_layout_comes_back(
        length in 0_u64..3 << 20,
        extents in prop::collection::vec((0_u64..3 << 20, 1_usize..200_000, any::<bool>()), 0..8),
    ) {
        let disks = Disks::new();
        let golden = File::create(&disks.golden).unwrap();
        for (offset, size, zeros) in extents {
            let bytes = if zeros { vec![0; size] } else { noise(size) };
            golden.write_all_at(&bytes, offset).unwrap();
        }
        golden.set_len(length).unwrap();
        let copied = disks.put_back().unwrap();
        prop_assert!(copied.elapsed < Duration::from_secs(60));
        prop_assert!(copied.method == CopyMethod::Reflink || copied.bytes_copied <= length);
        // Holes stay holes. The counts of blocks may differ by a filesystem's own tables for the file.
        let blocks = |path: &Path| path.metadata().unwrap().blocks() * 512;
        prop_assert!(blocks(&disks.overlay) <= blocks(&disks.golden) + (64 << 10));
        prop_assert!(fs::read(&disks.overlay).unwrap() == fs::read(&disks.golden).unwrap());
    }
}
