//! Guests that lie about files, or send files that the host refuses.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use chv_sandbox::digest::Digest;
use chv_sandbox::guest::frame::encode;
use chv_sandbox::guest::protocol::{Frame, JsonRecord, Opened, TransferEnd};
use chv_sandbox::guest::record::{RecordHeader, RecordKind};
use chv_sandbox::guest::stand_in::{Behaviour, Intercept};
use chv_sandbox::sandbox::{ChvSandbox, Sandbox};

use super::super::hanging::until;
use super::super::{Scene, assert_echoed, echo};
use super::{assert_files, left, packed, tree, usual};

fn record(kind: RecordKind, body: &[u8]) -> Vec<u8> {
    let header = RecordHeader::of(kind, body).unwrap().encode();
    [&header, body].concat()
}

fn data(stream: &[u8]) -> Vec<u8> {
    stream
        .chunks(100_000)
        .flat_map(|piece| record(RecordKind::Data, piece))
        .collect()
}

fn end_of(digest: Digest) -> Vec<u8> {
    record(RecordKind::EndOfData, digest.as_bytes())
}

fn end(entries: u64, bytes: u64, sha256: Digest) -> TransferEnd {
    TransferEnd {
        code: None,
        message: None,
        entries,
        bytes,
        sha256,
    }
}

fn ended(end: &TransferEnd) -> Vec<u8> {
    record(RecordKind::End, &end.encode())
}

/// A sandbox whose guest answers a frame that opens a transfer with these bytes, and then sends nothing more.
async fn hostile(answer: Vec<u8>) -> (Scene, ChvSandbox) {
    let mut scene = Scene::minted().await;
    fs::create_dir(scene.path("out")).unwrap();
    scene.limits = scene.limits.frame_idle(Duration::from_millis(200));
    scene.limits = scene.limits.frame_total(Duration::from_millis(200));
    let intercept: Intercept = Arc::new(move |frame| match frame {
        Frame::OpenPush(_) | Frame::OpenPull(_) => {
            Some([encode(&Frame::Opened(Opened {})).unwrap(), answer.clone()].concat())
        }
        _ => None,
    });
    scene.guest.behave(Behaviour::Intercepted(intercept));
    let sandbox = scene.sandbox();
    sandbox.boot().await.unwrap();
    (scene, sandbox)
}

/// Checks that a pull from a guest with this answer fails with this code and reason, leaves nothing, and harms nothing
/// else.
async fn pull_fails(answer: &[&[u8]], code: &str, why: &str) {
    let (scene, sandbox) = hostile(answer.concat()).await;
    let error = sandbox
        .pull("in", &scene.path("out/got"), &usual())
        .await
        .unwrap_err();
    assert_files(&error, code, why);
    // The staged files are removed as soon as the extracting thread notices.
    until(|| left(&scene).is_empty()).await;
    assert_echoed(echo(&sandbox, "goes on").await, "goes on");
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_guest_that_lies_about_what_it_gives() {
    let scene = Scene::new();
    let root = tree(&scene);
    let stream = packed(&root);
    let digest = Digest::of(&stream);
    let (all, other) = (data(&stream), Digest::of(b"other"));
    let honest = end(5, (1 << 20) + 5, digest);
    let sent: &[u8] = &[&all[..], &end_of(digest)].concat();
    let digest_code = "SANDBOX_FILE_DIGEST";
    let protocol = "SANDBOX_VSOCK_PROTOCOL_ERROR";

    pull_fails(
        &[&all, &end_of(other), &ended(&honest)],
        digest_code,
        "as its sender says",
    )
    .await;
    for lie in [
        TransferEnd {
            entries: 4,
            ..honest.clone()
        },
        TransferEnd {
            bytes: 0,
            ..honest.clone()
        },
        TransferEnd {
            sha256: other,
            ..honest.clone()
        },
    ] {
        pull_fails(&[sent, &ended(&lie)], digest_code, "the guest says").await;
    }
    // An end that reports success, before any data.
    pull_fails(&[&ended(&honest)], protocol, "End").await;
    pull_fails(&[&all, &ended(&honest)], protocol, "End").await;
    pull_fails(
        &[&all[..all.len() / 2], b""],
        "SANDBOX_VSOCK_PARTIAL_FRAME_TIMEOUT",
        "stalled",
    )
    .await;
    pull_fails(&[], "SANDBOX_VSOCK_PARTIAL_FRAME_TIMEOUT", "stalled").await;
    pull_fails(&[sent], "SANDBOX_VSOCK_PARTIAL_FRAME_TIMEOUT", "stalled").await;
    // Records out of order.
    pull_fails(&[sent, &all], protocol, "Data").await;
    pull_fails(&[sent, &end_of(digest)], protocol, "EndOfData").await;
    pull_fails(&[sent, &ended(&honest), &ended(&honest)], protocol, "").await;
    // A record of the wrong direction, of an unknown kind, and one that is too large.
    pull_fails(&[&record(RecordKind::Stdin, b"x")], protocol, "Stdin").await;
    pull_fails(&[&record(RecordKind::Stdout, b"x")], protocol, "Stdout").await;
    pull_fails(&[&[99, 0, 0, 0, 1, 0]], "SANDBOX_FRAME_MALFORMED", "").await;
    pull_fails(
        &[&[7, 0xff, 0xff, 0xff, 0xff]],
        "SANDBOX_VSOCK_FRAME_TOO_LARGE",
        "4294967295",
    )
    .await;
    let no_json = record(RecordKind::End, b"{}");
    pull_fails(&[sent, &no_json], "SANDBOX_FRAME_MALFORMED", "").await;
}

#[tokio::test]
async fn a_guest_that_sends_files_that_are_refused() {
    let scene = Scene::new();
    let root = tree(&scene);
    let stream = packed(&root);
    let pull = async |stream: &[u8], code: &str, why: &str| {
        let digest = Digest::of(stream);
        let end = ended(&end(5, (1 << 20) + 5, digest));
        pull_fails(&[&data(stream), &end_of(digest), &end], code, why).await;
    };
    pull(
        &stream[..stream.len() - 700],
        "SANDBOX_FILE_TRUNCATED",
        "broke off",
    )
    .await;
    pull(
        &[&stream[..], b"more"].concat(),
        "SANDBOX_FILE_DIGEST",
        "follows",
    )
    .await;
    let mut damaged = stream.clone();
    damaged[600] ^= 1;
    pull(&damaged, "SANDBOX_FILE_DIGEST", "checksum").await;
    let mut absolute = tar::Header::new_ustar();
    absolute.set_entry_type(tar::EntryType::Directory);
    absolute.as_old_mut().name[..2].copy_from_slice(b"/a");
    absolute.set_size(0);
    absolute.set_mode(0o700);
    absolute.set_mtime(0);
    absolute.set_cksum();
    let stream = [absolute.as_bytes(), &[0; 1024][..]].concat();
    pull(&stream, "SANDBOX_FILE_NAME", "is absolute").await;
    // Many more bytes follow the refused entry than the host ever reads.
    let endless = [&stream[..], &vec![0; 8 << 20]].concat();
    pull(&endless, "SANDBOX_FILE_NAME", "is absolute").await;
}

#[tokio::test]
async fn the_words_of_a_guest_that_fails() {
    let failed = |code: &str| TransferEnd {
        code: Some(code.to_owned()),
        message: Some("\x1b[31mno room".to_owned()),
        ..end(0, 0, Digest::OF_NOTHING)
    };
    let known = ended(&failed("SANDBOX_FILE_LIMIT"));
    pull_fails(
        &[&known],
        "SANDBOX_FILE_LIMIT",
        "no room (SANDBOX_FILE_LIMIT)",
    )
    .await;
    let unknown = ended(&failed("SANDBOX_MOON"));
    pull_fails(&[&unknown], "SANDBOX_FILE_IO", "no room (SANDBOX_MOON)").await;
}

/// Checks that a push to a guest with this answer fails with this code and reason.
async fn push_fails(answer: &[&[u8]], code: &str, why: &str) {
    let (scene, sandbox) = hostile(answer.concat()).await;
    let root = tree(&scene);
    let error = sandbox.push(&root, "in", &usual()).await.unwrap_err();
    assert_files(&error, code, why);
    assert_echoed(echo(&sandbox, "goes on").await, "goes on");
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_guest_that_lies_about_what_it_took() {
    let scene = Scene::new();
    let digest = Digest::of(&packed(&tree(&scene)));
    let honest = ended(&end(5, (1 << 20) + 5, digest));
    let protocol = "SANDBOX_VSOCK_PROTOCOL_ERROR";
    // The guest can't know the digest before it has received everything.
    push_fails(&[&honest], protocol, "End").await;
    push_fails(&[&record(RecordKind::Data, b"x")], protocol, "Data").await;
    push_fails(&[&end_of(digest)], protocol, "EndOfData").await;
    push_fails(&[&[0, 0, 0, 0, 0]], "SANDBOX_FRAME_MALFORMED", "").await;
    push_fails(&[], "SANDBOX_VSOCK_PARTIAL_FRAME_TIMEOUT", "stalled").await;
    let failed = ended(&TransferEnd {
        code: Some("SANDBOX_FILE_IO".to_owned()),
        message: Some("the disk is full".to_owned()),
        ..end(1, 0, Digest::OF_NOTHING)
    });
    push_fails(&[&failed], "SANDBOX_FILE_IO", "the disk is full").await;
}
