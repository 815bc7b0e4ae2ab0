//! Open files that are passed along with a request.

use std::fs::File;
use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;

use bytes::Bytes;
use chv_sandbox::api::{Operation, Request};
use chv_sandbox::client::{Client, ErrorKind, Release};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use super::server::{NO_CONTENT, Server, accept, answer, expect_no_connection, ping, wait_for_end};

/// The bytes and the files of one `recvmsg`.
pub(crate) fn receive(stream: &UnixStream) -> (Vec<u8>, Vec<File>) {
    let mut space = [MaybeUninit::uninit(); 4096];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; 100_000];
    let received = recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )
    .unwrap();
    bytes.truncate(received.bytes);
    let files = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .map(|fd: OwnedFd| File::from(fd))
        .collect();
    (bytes, files)
}

#[tokio::test]
async fn files_go_with_the_whole_request_in_one_message() {
    // The kernel would split a larger message.
    const LENGTH: usize = 20_000;
    let body = Bytes::from(vec![b' '; LENGTH]);
    let files = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
    let inodes: Vec<u64> = files.iter().map(|f| f.metadata().unwrap().ino()).collect();
    let server = Server::run(move |listener| {
        let mut kept = accept(listener);
        answer(&mut kept, NO_CONTENT);
        let mut own = accept(listener);
        let (request, received) = receive(&own);
        let head = format!(
            "PUT /api/v1/vm.add-net HTTP/1.1\r\nhost: localhost\r\ncontent-length: {LENGTH}\r\n\r\n"
        );
        assert!(request.starts_with(head.as_bytes()));
        assert_eq!(request.len(), head.len() + LENGTH);
        let received: Vec<u64> = received
            .iter()
            .map(|f| f.metadata().unwrap().ino())
            .collect();
        assert_eq!(received, inodes);
        own.write_all(NO_CONTENT.as_bytes()).unwrap();
        wait_for_end(&mut own);
        answer(&mut kept, NO_CONTENT);
    });
    let client = Client::new(server.socket()).unwrap();
    let pause = || Request::raw(Operation::VmPause, None);
    client.send(pause()).await.unwrap();
    let add = Request::raw(Operation::VmAddNet, Some(body));
    let fds = [files[0].as_fd(), files[1].as_fd()];
    client.send_with_fds(add, &fds).await.unwrap();
    client.send(pause()).await.unwrap();
    server.finish();
}

#[tokio::test]
async fn descriptors_that_the_server_would_drop_are_not_sent() {
    let (done, is_done) = std::sync::mpsc::channel();
    let server = Server::run(move |listener| {
        is_done.recv().unwrap();
        expect_no_connection(listener);
    });
    let client = Client::new(server.socket()).unwrap();
    let file = tempfile::tempfile().unwrap();
    for operation in [Operation::VmCreate, Operation::VmBoot, Operation::VmmPing] {
        let request = Request::raw(operation, None);
        let error = client
            .send_with_fds(request, &[file.as_fd()])
            .await
            .unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::NotSupported { .. }),
            "{error}"
        );
    }
    let body = Bytes::from_static(br#"{"net":[{"fds":[5]}]}"#);
    let create = Request::raw(Operation::VmCreate, Some(body));
    let error = client.send(create).await.unwrap_err();
    assert!(
        error
            .to_string()
            .ends_with("vm.create with net[].fds is not supported"),
        "{error}"
    );
    done.send(()).unwrap();
    server.finish();
}

#[tokio::test]
async fn a_device_by_descriptor_came_with_v53() {
    let server = Server::run(|listener| {
        let mut kept = accept(listener);
        answer(&mut kept, &ping("52.0.0"));
        drop(kept);
        answer(&mut accept(listener), &ping("53.0.0"));
        let mut own = accept(listener);
        let (_, received) = receive(&own);
        assert_eq!(received.len(), 1);
        own.write_all(NO_CONTENT.as_bytes()).unwrap();
    });
    let client = Client::new(server.socket()).unwrap();
    let file = tempfile::tempfile().unwrap();
    let add = || Request::raw(Operation::VmAddDevice, Some(Bytes::from_static(b"{}")));
    let error = client
        .send_with_fds(add(), &[file.as_fd()])
        .await
        .unwrap_err();
    assert_eq!(
        *error.kind(),
        ErrorKind::NotSupported {
            what: "vm.add-device with a descriptor".to_owned(),
            since: Some(Release::new(53, 0)),
            until: None,
            server: Some(Release::new(52, 0)),
        }
    );
    // Once the client has noticed the closed connection, it asks the newer server for its release.
    let newer = Client::new(server.socket()).unwrap();
    newer.send_with_fds(add(), &[file.as_fd()]).await.unwrap();
    server.finish();
}
