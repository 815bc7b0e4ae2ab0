//! Open files that are passed along with a request, through a recorder and to a player.

use std::fs::File;
use std::io::{IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use bytes::Bytes;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::net::unix::pipe;

use super::*;
use crate::client::descriptors::receive;
use crate::client::server::{NO_CONTENT, accept, read_request, wait_for_end};

const HEAD: &str =
    "PUT /api/v1/vm.add-net HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";

/// Files with their inodes, which tell them apart.
fn files(count: usize) -> (Vec<File>, Vec<u64>) {
    let files: Vec<_> = (0..count).map(|_| tempfile::tempfile().unwrap()).collect();
    let inodes = files.iter().map(inode).collect();
    (files, inodes)
}

fn inode(file: &File) -> u64 {
    file.metadata().unwrap().ino()
}

/// Sends bytes with descriptors in one message.
async fn send(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    stream.writable().await.unwrap();
    let rights = SendAncillaryMessage::ScmRights(fds);
    let mut space = vec![MaybeUninit::uninit(); rights.size()];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(ancillary.push(rights));
    let bytes = [IoSlice::new(bytes)];
    sendmsg(stream, &bytes, &mut ancillary, SendFlags::NOSIGNAL).unwrap();
}

/// A pipe. Its reading end reports the end of file once every duplicate of the writing end is closed.
fn pipe() -> (pipe::Receiver, OwnedFd) {
    let (end, write) = std::io::pipe().unwrap();
    let end = pipe::Receiver::from_owned_fd(end.into()).unwrap();
    (end, write.into())
}

async fn assert_closed(mut end: pipe::Receiver) {
    let read = timeout(LIMIT, end.read(&mut [0])).await;
    assert_eq!(read.expect("a descriptor is still open").unwrap(), 0);
}

fn add_net(body: &'static [u8]) -> Request<Option<serde_json::Value>> {
    Request::raw(Operation::VmAddNet, Some(Bytes::from_static(body)))
}

/// The exchange that is recorded for `vm.add-net` with this number of descriptors and this answer.
fn added(descriptors: usize, answer: &str) -> String {
    let count = format!(r#""descriptors":{descriptors}"#);
    format!(
        r#"{{"request":{{"method":"PUT","path":"/api/v1/vm.add-net","body":{{}},{count}}},{answer}}}"#
    )
}

#[tokio::test]
async fn descriptors_reach_the_vmm_with_their_request() {
    let (files, inodes) = files(3);
    let scene = Scene::with(move |listener| {
        let mut stream = accept(listener);
        let (request, received) = receive(&stream);
        assert!(request.starts_with(b"PUT /api/v1/vm.add-net HTTP/1.1\r\n"));
        assert!(request.ends_with(b"\r\n\r\n{}"));
        assert_eq!(received.iter().map(inode).collect::<Vec<_>>(), inodes);
        stream.write_all(NO_CONTENT.as_bytes()).unwrap();
        // The next request carries no descriptors.
        let mut stream = accept(listener);
        let (request, received) = receive(&stream);
        assert!(request.starts_with(b"PUT /api/v1/vm.boot "));
        assert!(received.is_empty());
        stream.write_all(NO_CONTENT.as_bytes()).unwrap();
    })
    .await;
    let client = Client::new(scene.recorder.socket()).unwrap();
    let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    client.send_with_fds(add_net(b"{}"), &fds).await.unwrap();
    let boot = Request::<Option<serde_json::Value>>::raw(Operation::VmBoot, None);
    client.send(boot).await.unwrap();
    let expected = r#"
        {"request":{"method":"PUT","path":"/api/v1/vm.add-net","body":{},"descriptors":3},
         "response":{"status":204}},
        {"request":{"method":"PUT","path":"/api/v1/vm.boot"},"response":{"status":204}}"#;
    scene.expect_recorded(expected).await;
}

/// A large body arrives in pieces, and the descriptors may come with any piece.
#[tokio::test]
async fn descriptors_may_come_with_any_byte_of_a_request() {
    const LENGTH: usize = 50_000;
    let (files, inodes) = files(3);
    let mut scene = Scene::with(move |listener| {
        let mut stream = accept(listener);
        let (mut bytes, received) = receive(&stream);
        while bytes.len() < LENGTH || !bytes.ends_with(b"  ") {
            let (more, none) = receive(&stream);
            assert!(!more.is_empty() && none.is_empty());
            bytes.extend(more);
        }
        assert_eq!(received.iter().map(inode).collect::<Vec<_>>(), inodes);
        stream.write_all(NO_CONTENT.as_bytes()).unwrap();
    })
    .await;
    let head = format!("PUT /api/v1/vm.add-net HTTP/1.1\r\ncontent-length: {LENGTH}\r\n\r\n");
    let (start, rest) = head.split_at(10);
    send(&scene.client, start.as_bytes(), &[files[0].as_fd()]).await;
    scene.write(rest).await;
    scene.write("{}").await;
    let last = [files[1].as_fd(), files[2].as_fd()];
    send(&scene.client, b"  ", &last).await;
    scene.write(&" ".repeat(LENGTH - 4)).await;
    scene.read(NO_CONTENT).await;
    let expected = added(3, r#""response":{"status":204}"#);
    scene.expect_recorded(&expected).await;
}

#[tokio::test]
async fn descriptors_go_with_a_head_that_goes_ahead() {
    let (files, inodes) = files(2);
    let mut scene = Scene::with(move |listener| {
        let mut stream = accept(listener);
        let (head, mut received) = receive(&stream);
        assert_eq!(head, HEAD.as_bytes());
        stream.write_all(b"HTTP/1.1 100 \r\n\r\n").unwrap();
        let (body, more) = receive(&stream);
        assert_eq!(body, b"{}");
        assert_eq!((received.len(), more.len()), (1, 1));
        received.extend(more);
        assert_eq!(received.iter().map(inode).collect::<Vec<_>>(), inodes);
        stream.write_all(NO_CONTENT.as_bytes()).unwrap();
    })
    .await;
    send(&scene.client, HEAD.as_bytes(), &[files[0].as_fd()]).await;
    scene.read("HTTP/1.1 100 \r\n\r\n").await;
    send(&scene.client, b"{}", &[files[1].as_fd()]).await;
    scene.read(NO_CONTENT).await;
    let expected = added(2, r#""response":{"status":204}"#);
    scene.expect_recorded(&expected).await;
}

#[tokio::test]
async fn descriptors_are_closed_whatever_becomes_of_their_request() {
    // The request is passed on, and the VMM closes the connection.
    let scene = Scene::with(|listener| {
        read_request(&mut accept(listener));
    })
    .await;
    let (end, write) = pipe();
    let request = b"PUT /api/v1/vm.add-net HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}";
    send(&scene.client, request, &[write.as_fd()]).await;
    drop(write);
    assert_closed(end).await;
    timeout(LIMIT, scene.recorder.ended()).await.unwrap();

    // The VMM is gone. The recorder may not have noticed yet, or may no longer listen.
    let (end, write) = pipe();
    if let Ok(client) = UnixStream::connect(scene.recorder.socket()).await {
        send(&client, request, &[write.as_fd()]).await;
    }
    drop(write);
    assert_closed(end).await;
    let expected = added(1, r#""closed":true"#);
    scene.expect_recorded(&expected).await;
}

#[tokio::test]
async fn descriptors_of_a_request_that_is_cut_or_is_none_are_closed() {
    let (scene, alive) = Scene::idle().await;
    for bytes in ["PUT /api/v1/vm.add-net HTTP/1.1\r\n", "\0\0\0\0"] {
        let client = UnixStream::connect(scene.recorder.socket()).await.unwrap();
        let (end, write) = pipe();
        send(&client, bytes.as_bytes(), &[write.as_fd()]).await;
        drop((client, write));
        assert_closed(end).await;
    }
    drop(alive);
    scene.expect_recorded("").await;

    // The head of the request has been passed on already.
    let mut scene = Scene::with(|listener| {
        let mut stream = accept(listener);
        assert_eq!(receive(&stream).0, HEAD.as_bytes());
        wait_for_end(&mut stream);
    })
    .await;
    let (end, write) = pipe();
    send(&scene.client, HEAD.as_bytes(), &[write.as_fd()]).await;
    send(&scene.client, b"{", &[write.as_fd()]).await;
    drop(write);
    scene.client.shutdown().await.unwrap();
    assert_closed(end).await;
    scene.expect_recorded("").await;
}

#[tokio::test]
async fn more_descriptors_than_can_be_passed_on_are_refused_with_words() {
    const REFUSAL: &str = "HTTP/1.1 500 \r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\n\
        Content-Type: application/json\r\nContent-Length: 88\r\n\r\n\
        [\"The recorder did not pass this request on\",\"more than 253 descriptors came beside it\"]";
    let (mut scene, alive) = Scene::idle().await;
    let (end, write) = pipe();
    let many = vec![write.as_fd(); 200];
    send(&scene.client, b"PUT /api/v1/vm.add-net HTTP/1.1\r\n", &many).await;
    send(&scene.client, b"content-length: 2\r\n\r\n{}", &many).await;
    drop(many);
    drop(write);
    scene.read(REFUSAL).await;
    scene.expect_end().await;
    assert_closed(end).await;
    drop(alive);
    let error = scene.finish().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "step 1 (a request with descriptors) can't be recorded: more than 253 descriptors came beside it"
    );
}

#[tokio::test]
async fn a_player_wants_as_many_descriptors_as_were_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let step = r#"{"request":{"method":"PUT","path":"/api/v1/vm.add-net","body":{},"descriptors":2},
        "response":{"status":204}}"#;
    let player = vmm(folder.path(), step).await;
    let client = Client::new(player.socket()).unwrap();
    let (end, write) = pipe();
    let error = client
        .send_with_fds(add_net(b"{}"), &[write.as_fd()])
        .await
        .unwrap_err();
    assert_eq!(
        error.messages()[1],
        "step 1 of 1: PUT /api/v1/vm.add-net differs: expected 2 descriptors, got 1"
    );
    let two = [write.as_fd(), write.as_fd()];
    client.send_with_fds(add_net(b"{}"), &two).await.unwrap();
    drop(write);
    assert_closed(end).await;
    assert!(matches!(player.finish().await, Err(Error::Mismatch { .. })));
}
