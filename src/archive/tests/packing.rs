//! Tests of packing: trees that are refused, and trees that change while they are packed.

use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use rustix::fs::{CWD, FileType, mknodat};

use super::*;

#[track_caller]
fn refused(root: &Path, account: &mut Account, code: &str, why: &str) {
    let error = packed(root, account).unwrap_err();
    assert_eq!(error.code().text(), code, "{error}");
    let text = error.to_string();
    assert!(text.contains(why), "{text}");
}

fn full() -> (Place, PathBuf) {
    let place = Place::new();
    let root = place.path("in");
    fs::create_dir_all(root.join("d")).unwrap();
    fs::write(root.join("d/a"), "12345").unwrap();
    fs::write(root.join("d/b"), "67890").unwrap();
    (place, root)
}

#[test]
fn limits_are_checked_before_a_file_is_read() {
    let (_place, root) = full();
    packed(&root, &mut limits(4, 10)).unwrap();
    refused(
        &root,
        &mut limits(4, 9),
        "SANDBOX_FILE_LIMIT",
        "9 bytes of files",
    );
    refused(&root, &mut limits(3, 10), "SANDBOX_FILE_LIMIT", "3 entries");
    refused(&root, &mut limits(0, 10), "SANDBOX_FILE_LIMIT", "0 entries");
    for number in 0..200 {
        fs::write(root.join(format!("d/{number}")), "").unwrap();
    }
    refused(
        &root,
        &mut limits(150, 10),
        "SANDBOX_FILE_LIMIT",
        "150 entries",
    );
}

#[test]
fn a_sparse_file_counts_with_its_holes() {
    let (_place, root) = full();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    let error = "1073741824 bytes of files: the first too many is \"sparse\"";
    refused(&root, &mut Account::default(), "SANDBOX_FILE_LIMIT", error);
    sparse.set_len(1 << 20).unwrap();
    let (stream, totals) = packed(&root, &mut Account::default()).unwrap();
    assert_eq!(totals.bytes, (1 << 20) + 10);
    assert!(stream.len() > 1 << 20);
}

#[test]
fn a_file_of_more_than_eight_gib_has_its_size_in_a_pax_record() {
    let place = Place::new();
    let sparse = File::create(place.path("in")).unwrap();
    sparse.set_len((1 << 33) + 1).unwrap();
    /// A writer that records the first bytes, which are the headers, and fails.
    struct Headers(Vec<u8>);
    impl Write for Headers {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.extend(bytes);
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut headers = Headers(Vec::new());
    let mut account = limits(1, u64::MAX);
    let error = pack(open(&place.path("in")), &mut headers, &mut account).unwrap_err();
    assert_eq!(error.code().text(), "SANDBOX_FILE_TRUNCATED", "{error}");
    let records = b"19 size=8589934593\n";
    assert_eq!(&headers.0[512..512 + records.len()], records);
    let target = place.target("out");
    let error = extract(&headers.0[..], target, None, &mut Account::default()).unwrap_err();
    assert_eq!(error.code().text(), "SANDBOX_FILE_LIMIT", "{error}");
    assert_eq!(place.names(), [b"in"]);
}

#[test]
fn other_kinds_are_refused() {
    let (_place, root) = full();
    let check = |why| refused(&root, &mut Account::default(), "SANDBOX_FILE_KIND", why);
    mknodat(CWD, root.join("d/fifo"), FileType::Fifo, 0o600.into(), 0).unwrap();
    check("\"d/fifo\" is a fifo");
    fs::remove_file(root.join("d/fifo")).unwrap();
    let _socket = UnixListener::bind(root.join("s")).unwrap();
    check("\"s\" is a socket");
    let null = Path::new("/dev/null");
    refused(
        null,
        &mut Account::default(),
        "SANDBOX_FILE_KIND",
        "\".\" is a character device",
    );
}

#[test]
fn links_that_lead_out_are_refused() {
    for target in ["/etc/passwd", "../../x", "d/../..", ".."] {
        let (_place, root) = full();
        symlink(target, root.join("link")).unwrap();
        let account = &mut Account::default();
        refused(
            &root,
            account,
            "SANDBOX_FILE_NAME",
            "\"link\" is a symbolic link",
        );
    }
}

#[test]
fn a_tree_that_is_too_deep_is_refused() {
    let place = Place::new();
    let mut here = open(place.0.path());
    for _ in 0..10_000 {
        rustix::fs::mkdirat(&here, "d", 0o755.into()).unwrap();
        here = rustix::fs::openat(&here, "d", rustix::fs::OFlags::DIRECTORY, 0.into()).unwrap();
    }
    let root = place.path("d");
    std::thread::Builder::new()
        .stack_size(128 << 10)
        .spawn(move || {
            let account = &mut Account::default();
            refused(
                &root,
                account,
                "SANDBOX_FILE_NAME",
                "longer than 4095 bytes",
            );
            // The standard library can't remove such a deep tree.
            remove::content(&open(place.0.path())).unwrap();
            assert!(place.names().is_empty());
        })
        .unwrap()
        .join()
        .unwrap();
}

/// Changes a tree once the first bytes of it have been written.
struct Meanwhile<F>(Option<F>);

impl<F: FnOnce()> Write for Meanwhile<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(change) = self.0.take() {
            change();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Packs a tree of the file `a`, which takes more than one write, and the files that `prepare` makes. `change` changes
/// the tree after the first write.
#[track_caller]
fn changed(prepare: impl FnOnce(&Path), change: impl FnOnce(&Path), why: &str) {
    let place = Place::new();
    let root = place.path("in");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a"), vec![7; 2 * CHUNK]).unwrap();
    prepare(&root);
    let opened = open(&root);
    let meanwhile = Meanwhile(Some(|| change(&root)));
    let error = pack(opened, meanwhile, &mut Account::default()).unwrap_err();
    assert_eq!(error.code().text(), "SANDBOX_FILE_IO", "{error}");
    let text = error.to_string();
    assert!(text.contains(why), "{text}");
}

#[test]
fn a_tree_that_changes_is_not_packed() {
    let b = |root: &Path| fs::write(root.join("b"), "b").unwrap();
    let a_becomes = |length| {
        move |root: &Path| {
            let a = File::options().write(true).open(root.join("a")).unwrap();
            a.set_len(length).unwrap();
        }
    };
    changed(
        |_| (),
        a_becomes(2 * CHUNK as u64 + 1),
        "\"a\" changed while it was read: it grew",
    );
    changed(
        |_| (),
        a_becomes(2 * CHUNK as u64 - 1),
        "\"a\" changed while it was read: it shrank",
    );
    changed(
        b,
        |root| fs::remove_file(root.join("b")).unwrap(),
        "\"b\" changed while it was read: it is gone",
    );
    changed(
        b,
        |root| {
            fs::remove_file(root.join("b")).unwrap();
            symlink("/etc/passwd", root.join("b")).unwrap();
        },
        "\"b\" changed while it was read: another file took its place",
    );
    changed(
        b,
        |root| {
            fs::remove_file(root.join("b")).unwrap();
            mknodat(CWD, root.join("b"), FileType::Fifo, 0o600.into(), 0).unwrap();
        },
        "\"b\" changed while it was read: another file took its place",
    );
    changed(
        b,
        |root| {
            fs::remove_file(root.join("b")).unwrap();
            fs::create_dir(root.join("b")).unwrap();
        },
        "\"b\" changed while it was read: another file took its place",
    );
    changed(
        |root| fs::create_dir(root.join("b")).unwrap(),
        |root| {
            fs::remove_dir(root.join("b")).unwrap();
            symlink("/", root.join("b")).unwrap();
        },
        "\"b\" changed while it was read: another file took its place",
    );
    changed(
        |root| symlink("x", root.join("b")).unwrap(),
        |root| {
            fs::remove_file(root.join("b")).unwrap();
            fs::write(root.join("b"), "b").unwrap();
        },
        "\"b\" changed while it was read: another file took its place",
    );
}

#[test]
fn a_directory_that_is_moved_while_it_is_packed_is_an_error() {
    let place = Place::new();
    let root = place.path("in");
    fs::create_dir_all(root.join("d")).unwrap();
    fs::create_dir_all(place.path("secret")).unwrap();
    fs::write(root.join("d/a"), vec![7; 2 * CHUNK]).unwrap();
    let (from, to) = (root.join("d"), place.path("secret/d"));
    let meanwhile = Meanwhile(Some(|| fs::rename(&from, &to).unwrap()));
    let error = pack(open(&root), meanwhile, &mut Account::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "\"d\" changed while it was read: it was moved"
    );
}

#[test]
fn progress_is_shown_and_starts_at_zero_for_each_transfer() {
    let (_place, root) = full();
    let progress = TransferProgress::default();
    for _ in 0..2 {
        let mut account = limits(4, 10).shown_by(progress.clone());
        packed(&root, &mut account).unwrap();
        assert_eq!((progress.entries(), progress.bytes()), (4, 10));
    }
}
