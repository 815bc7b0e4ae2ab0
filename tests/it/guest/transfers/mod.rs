//! Transfers of files, from the host's end of a dispatcher that runs in this process.

mod guest;

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use chv_sandbox::archive::{Account, TransferLimits, pack};
use chv_sandbox::digest::Digest;
use chv_sandbox::guest::frame::{read_frame, write_frame};
use chv_sandbox::guest::protocol::{Frame, OpenPull};
use chv_sandbox::guest::record::{MAX_RECORD, RecordKind};
use tempfile::TempDir;
use uuid::Uuid;

use guest::{Guest, Transfer};

fn tree() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    fs::create_dir_all(root.join("a\nb")).unwrap();
    fs::write(root.join("a\nb/c"), vec![7; 3 * MAX_RECORD]).unwrap();
    fs::write(root.join("empty"), "").unwrap();
    symlink("a\nb/c", root.join("link")).unwrap();
    (folder, root)
}

fn packed(path: &Path) -> Vec<u8> {
    let mut stream = Vec::new();
    let root = File::open(path).unwrap().into();
    pack(root, &mut stream, &mut Account::default()).unwrap();
    stream
}

#[test]
fn a_tree_goes_in_and_comes_out_as_the_same_stream() {
    let guest = Guest::new();
    let (_folder, root) = tree();
    let stream = packed(&root);
    let pushed = guest.push(guest.files().join("in").to_str().unwrap());
    pushed.all(&stream);
    let end = pushed.succeeds();
    let expected = (5, 3 * MAX_RECORD as u64, Digest::of(&stream));
    assert_eq!((end.entries, end.bytes, end.sha256), expected);
    assert_eq!(guest.names(), ["in"]);
    assert!(packed(&guest.files().join("in")) == stream);

    let pulled = guest.pull("in");
    let mut came = Vec::new();
    let digest = loop {
        match pulled.receive() {
            (RecordKind::Data, body) => came.extend(body),
            (RecordKind::EndOfData, body) => break body,
            (kind, _) => panic!("a {kind:?} record"),
        }
    };
    assert!(came == stream);
    assert_eq!(digest, Digest::of(&stream).as_bytes());
    let end = pulled.succeeds();
    assert_eq!((end.entries, end.bytes, end.sha256), expected);
}

#[test]
fn one_file_goes_in_and_out() {
    let guest = Guest::new();
    let (_folder, root) = tree();
    let stream = packed(&root.join("a\nb/c"));
    let pushed = guest.push("./c");
    pushed.all(&stream);
    assert_eq!(pushed.succeeds().entries, 1);
    assert!(fs::read(guest.files().join("c")).unwrap() == vec![7; 3 * MAX_RECORD]);
}

#[test]
fn an_empty_directory_for_files_can_be_the_target() {
    let guest = Guest::new();
    let (_folder, root) = tree();
    let stream = packed(&root);
    let pushed = guest.push(".");
    pushed.all(&stream);
    pushed.succeeds();
    assert_eq!(guest.names(), ["a\nb", "empty", "link"]);
    let again = |transfer: &Transfer| transfer.all(&stream);
    guest.refuses_push(".", again, "SANDBOX_FILE_NAME", "is there already");
}

#[test]
fn paths_that_are_refused() {
    let guest = Guest::new();
    let outside = guest.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    symlink(&outside, guest.files().join("link")).unwrap();
    symlink(outside.join("secret"), guest.files().join("file")).unwrap();
    fs::write(guest.files().join("plain"), "").unwrap();
    let work = guest.files();
    let sibling = format!("{}er/a", work.display());
    let above = format!("{}/../outside/a", work.display());
    let (_folder, root) = tree();
    let stream = packed(&root);
    let long = "n".repeat(256);
    for (path, why) in [
        ("", "directory for files"),
        ("/", "directory for files"),
        ("/etc/a", "directory for files"),
        ("../outside/a", "directory for files"),
        (above.as_str(), "directory for files"),
        (sibling.as_str(), "directory for files"),
        ("link/a", "symbolic link"),
        ("link", "is there already"),
        ("plain", "is there already"),
        ("plain/a", "no directory"),
        ("missing/a", "is not there"),
        ("a\0b", "NUL"),
        (long.as_str(), "255"),
    ] {
        let send = |transfer: &Transfer| transfer.all(&stream);
        guest.refuses_push(path, send, "SANDBOX_FILE_NAME", why);
    }
    for (path, why) in [
        ("link", "symbolic link"),
        ("file", "symbolic link"),
        ("link/secret", "symbolic link"),
        ("../outside/secret", "directory for files"),
        ("missing", "is not there"),
        ("plain/a", "no directory"),
    ] {
        guest.pull(path).fails("SANDBOX_FILE_NAME", why);
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn a_push_is_there_only_once_all_of_it_has_come() {
    let guest = Guest::new();
    let (_folder, root) = tree();
    let stream = packed(&root);
    let other = Digest::of(b"other");
    let refuses = |send: &dyn Fn(&Transfer), code, why| guest.refuses_push("in", send, code, why);
    refuses(
        &|transfer| {
            transfer.data(&stream);
            transfer.send(RecordKind::EndOfData, other.as_bytes());
        },
        "SANDBOX_FILE_DIGEST",
        "as its sender says",
    );
    refuses(
        &|transfer| transfer.all(&stream[..stream.len() - 512]),
        "SANDBOX_FILE_TRUNCATED",
        "broke off",
    );
    refuses(
        &|transfer| transfer.all(&[]),
        "SANDBOX_FILE_TRUNCATED",
        "broke off",
    );
    refuses(
        &|transfer| transfer.all(&[&stream[..], b"x"].concat()),
        "SANDBOX_FILE_DIGEST",
        "follows",
    );
    refuses(
        &|transfer| {
            transfer.data(&stream);
            transfer.stream.shutdown(Shutdown::Write).unwrap();
        },
        "SANDBOX_FILE_TRUNCATED",
        "broke off",
    );
    refuses(
        &|transfer| {
            transfer.data(&stream[..1000]);
            transfer.stream.shutdown(Shutdown::Write).unwrap();
        },
        "SANDBOX_FILE_TRUNCATED",
        "broke off",
    );
}

#[test]
fn records_that_cannot_come_end_a_push() {
    let guest = Guest::new();
    let (_folder, root) = tree();
    let stream = packed(&root);
    let bytes = |bytes: &'static [u8]| {
        let stream = stream.clone();
        move |transfer: &Transfer| {
            transfer.data(&stream[..2000]);
            (&transfer.stream).write_all(bytes).unwrap();
            // As many bytes as fit between the two ends.
            transfer.stream.shutdown(Shutdown::Write).unwrap();
        }
    };
    let refuses = |send: &dyn Fn(&Transfer), why| {
        guest.refuses_push("in", send, "SANDBOX_VSOCK_PROTOCOL_ERROR", why);
    };
    refuses(&bytes(&[1, 0, 0, 0, 1, 0]), "a Stdin record");
    refuses(&bytes(&[6, 0, 0, 0, 2, b'{', b'}']), "a End record");
    refuses(&bytes(&[7, 0xff, 0xff, 0xff, 0xff]), "4294967295 bytes");
    refuses(&bytes(&[7, 0, 0, 0, 0]), "0 bytes");
    refuses(&bytes(&[8, 0, 0, 0, 31]), "31 bytes");
    refuses(&bytes(&[99, 0, 0, 0, 1, 0]), "kind 99");
}

#[test]
fn a_host_that_still_sends_gets_the_reason() {
    let guest = Guest::new();
    let (_folder, root) = tree();
    let stream = packed(&root);
    let limits = TransferLimits {
        entries: 2,
        bytes: 1 << 30,
    };
    let transfer = guest.push_within("in", limits);
    // Many more bytes than fit between the two ends.
    transfer.data(&vec![0; 16 * MAX_RECORD]);
    transfer.fails("SANDBOX_FILE_DIGEST", "empty");
    let transfer = guest.push_within("in", limits);
    transfer.data(&stream);
    transfer.data(&vec![0; 16 * MAX_RECORD]);
    transfer.fails("SANDBOX_FILE_LIMIT", "2 entries");
    assert!(guest.names().is_empty());
}

#[test]
fn a_host_that_goes_away_ends_a_transfer() {
    let guest = Guest::new();
    let (_folder, root) = tree();
    let stream = packed(&root);
    let Transfer {
        stream: host,
        served,
    } = {
        let transfer = guest.push("in");
        transfer.data(&stream[..stream.len() / 2]);
        transfer
    };
    drop(host);
    assert!(served.join().unwrap().is_err());
    assert!(guest.names().is_empty());

    fs::write(guest.files().join("large"), vec![7; 64 * MAX_RECORD]).unwrap();
    let Transfer {
        stream: host,
        served,
    } = guest.pull("large");
    drop(host);
    assert!(served.join().unwrap().is_err());
}

#[test]
fn a_pull_that_fails_has_no_end_of_data() {
    let guest = Guest::new();
    let fifo = guest.files().join("d/fifo");
    fs::create_dir(guest.files().join("d")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    guest.pull("d").fails("SANDBOX_FILE_KIND", "a fifo");
    guest.pull("d/fifo").fails("SANDBOX_FILE_KIND", "a fifo");
    fs::remove_file(&fifo).unwrap();

    let sparse = File::create(guest.files().join("d/sparse")).unwrap();
    sparse.set_len(1 << 40).unwrap();
    guest
        .pull("d")
        .fails("SANDBOX_FILE_LIMIT", "bytes of files");
    let limits = TransferLimits {
        entries: 1,
        bytes: 1 << 41,
    };
    guest
        .pull_within("d", limits)
        .fails("SANDBOX_FILE_LIMIT", "1 entries");
    fs::remove_file(guest.files().join("d/sparse")).unwrap();
    symlink("/etc/passwd", guest.files().join("d/link")).unwrap();
    guest
        .pull("d")
        .fails("SANDBOX_FILE_NAME", "absolute target");
}

#[test]
fn eight_transfers_at_once_and_no_more() {
    let guest = Guest::new();
    let open: Vec<_> = (0..8).map(|n| guest.push(&n.to_string())).collect();
    let (stream, ninth) = UnixStream::pair().unwrap();
    write_frame(
        &mut &stream,
        &Frame::OpenPull(OpenPull {
            transfer_id: Uuid::new_v4(),
            path: "a".to_owned(),
            limits: TransferLimits::default(),
        }),
    )
    .unwrap();
    guest.dispatcher.serve(ninth).unwrap();
    let refused = read_frame(&mut &stream).unwrap();
    let Some(Frame::ErrorEvent(refused)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(refused.code, "SANDBOX_TOO_MANY_STREAMS");
    for transfer in open {
        let _: io::Result<()> = transfer.stream.shutdown(Shutdown::Write);
        transfer.fails("SANDBOX_FILE_TRUNCATED", "broke off");
    }
    guest.pull("a").fails("SANDBOX_FILE_NAME", "is not there");
}
