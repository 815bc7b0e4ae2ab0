//! Tests of staged trees: where they are before they are published, and when they get their name.

use std::os::unix::fs::symlink;

use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::*;
use crate::archive::staged::Staged;
use crate::causes::Causes;

fn stream() -> Vec<u8> {
    let place = Place::new();
    fs::create_dir(place.path("in")).unwrap();
    fs::write(place.path("in/a"), "a").unwrap();
    packed(&place.path("in"), &mut Account::default())
        .unwrap()
        .0
}

fn file_stream() -> Vec<u8> {
    let place = Place::new();
    fs::write(place.path("in"), "a").unwrap();
    packed(&place.path("in"), &mut Account::default())
        .unwrap()
        .0
}

fn stage(place: &Place, stream: &[u8]) -> Result<Staged, ArchiveError> {
    let account = &mut Account::default();
    extract(stream, place.target("out"), None, account).map(|(staged, _)| staged)
}

#[test]
fn a_staged_tree_is_private_and_removed_when_it_is_dropped() {
    for stream in [stream(), file_stream()] {
        let place = Place::new();
        let staged = stage(&place, &stream).unwrap();
        let [name] = &place.names()[..] else {
            panic!("{:?}", place.names());
        };
        assert!(name.starts_with(b".chv-"), "{name:?}");
        let mode = fs::metadata(place.0.path().join(os(name))).unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
        drop(staged);
        assert!(place.names().is_empty());
    }
}

#[test]
fn a_cancelled_transfer_gets_no_name() {
    let place = Place::new();
    let staged = stage(&place, &stream()).unwrap();
    let cancel = Cancel::default();
    cancel.clone().cancel();
    let error = staged.publish(&cancel).unwrap_err();
    assert!(matches!(error, ArchiveError::Cancelled), "{error}");
    assert!(place.names().is_empty());
}

/// Checks a file that `make` puts at the target, before the transfer and after extraction.
#[track_caller]
fn over(stream: &[u8], make: impl Fn(&Path), is_replaced: bool) {
    let (early, late) = (Place::new(), Place::new());
    make(&early.path("out"));
    let before = tree(&early.path("out"));
    let staged = stage(&late, stream).unwrap();
    make(&late.path("out"));
    let results = [
        stage(&early, stream).and_then(|staged| staged.publish(&Cancel::default())),
        staged.publish(&Cancel::default()),
    ];
    for (place, result) in [early, late].iter().zip(results) {
        match result {
            Ok(()) => assert!(is_replaced && tree(&place.path("out")).len() < 3),
            Err(error) => {
                assert!(!is_replaced, "{error}");
                assert_eq!(error.code().text(), "SANDBOX_FILE_NAME", "{error}");
                assert!(error.to_string().contains("is there already"), "{error}");
                let kinds = |tree: &Tree| tree.keys().cloned().collect::<Vec<_>>();
                assert_eq!(kinds(&tree(&place.path("out"))), kinds(&before));
            }
        }
        assert_eq!(place.names(), [b"out"]);
    }
}

#[test]
fn only_an_empty_directory_is_replaced_and_only_by_a_directory() {
    let (directory, file) = (stream(), file_stream());
    let empty = |path: &Path| fs::create_dir(path).unwrap();
    let full = |path: &Path| {
        fs::create_dir(path).unwrap();
        fs::write(path.join("b"), "b").unwrap();
    };
    over(&directory, empty, true);
    over(&directory, full, false);
    over(&file, empty, false);
    for stream in [&directory, &file] {
        over(stream, |path| fs::write(path, "old").unwrap(), false);
        over(stream, |path| symlink("nowhere", path).unwrap(), false);
        over(stream, |path| symlink("/tmp", path).unwrap(), false);
    }
}

#[test]
fn a_staged_tree_that_was_replaced_is_not_published() {
    for stream in [stream(), file_stream()] {
        let place = Place::new();
        let staged = stage(&place, &stream).unwrap();
        let name = place.names().remove(0);
        fs::rename(place.0.path().join(os(&name)), place.path("away")).unwrap();
        match tree(&place.path("away")).len() {
            1 => fs::write(place.0.path().join(os(&name)), "other").unwrap(),
            _ => fs::create_dir(place.0.path().join(os(&name))).unwrap(),
        }
        let error = staged.publish(&Cancel::default()).unwrap_err();
        assert!(
            error.to_string().contains("another file took its place"),
            "{error}"
        );
        assert!(!place.path("out").exists());
    }
}

#[test]
fn a_target_needs_a_plain_name() {
    let place = Place::new();
    for name in ["", ".", "..", "a/b", "/", "a\0b", &"x".repeat(256)] {
        let error = Target::new(open(place.0.path()), name).unwrap_err();
        assert_eq!(error.code().text(), "SANDBOX_FILE_NAME", "{error}");
    }
}

#[test]
fn a_full_disk_keeps_no_file_of_a_transfer() {
    let place = Place::new();
    fs::create_dir(place.path("in")).unwrap();
    for name in ["a", "b", "c"] {
        fs::write(place.path("in").join(name), vec![7; 64 << 10]).unwrap();
    }
    let (stream, _) = packed(&place.path("in"), &mut Account::default()).unwrap();
    fs::remove_dir_all(place.path("in")).unwrap();
    let full = std::thread::spawn(move || {
        // Only this thread sees the mount, which ends with the thread.
        // SAFETY: no other code of this thread depends on the mounts that it has shared so far.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private)?;
        mount(
            "none",
            place.0.path(),
            "tmpfs",
            MountFlags::empty(),
            c"size=128k",
        )?;
        let error = stage(&place, &stream).unwrap_err();
        Ok::<_, Errno>((error, place.names()))
    });
    let (error, names) = match full.join().unwrap() {
        Ok(found) => found,
        // Without the right to mount, the test can't make a small file system, and ends here.
        Err(Errno::PERM | Errno::ACCESS) => return,
        Err(errno) => panic!("no small file system: {errno}"),
    };
    assert_eq!(error.code().text(), "SANDBOX_FILE_IO", "{error}");
    let shown = Causes(&error).to_string();
    assert!(shown.contains("No space left"), "{shown}");
    assert!(names.is_empty(), "{names:?}");
}
