//! The client with servers that answer exactly what each test gives them.

mod answers;
mod config_drift;
pub(crate) mod descriptors;
mod events;
mod fields;
pub(crate) mod methods;
mod ready;
mod releases;
pub(crate) mod server;

use std::ffi::OsStr;
use std::future::Future;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use chv_sandbox::api::{self, Operation, Request};
use chv_sandbox::client::{BODY_LIMIT, Client, DeadlineOutcome, Deadlines, ErrorKind, Release};

use server::{
    NO_CONTENT, Server, accept, answer, expect_no_connection, ping, read_request, wait_for_end,
    with_body,
};

/// Longer than any exchange here takes, and short enough for a test to wait for it.
const SOON: Duration = Duration::from_millis(200);

fn hasty() -> Deadlines {
    Deadlines {
        probe: SOON,
        lifecycle: SOON,
        transfer: SOON,
    }
}

#[tokio::test]
async fn requests_are_as_the_server_wants_them() {
    let check = |request: Request<Option<serde_json::Value>>, expected: &'static str| async move {
        let server = Server::run(move |listener| {
            let request = answer(&mut accept(listener), NO_CONTENT);
            assert_eq!(request, expected);
        });
        let client = Client::new(server.socket()).unwrap();
        assert_eq!(client.send(request).await.unwrap(), None);
        server.finish();
    };
    check(
        Request::raw(Operation::VmInfo, None),
        "GET /api/v1/vm.info HTTP/1.1\r\nhost: localhost\r\n\r\n",
    )
    .await;
    check(
        Request::raw(Operation::VmPause, None),
        "PUT /api/v1/vm.pause HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    check(
        Request::raw(Operation::VmCreate, Some(Bytes::from_static(b"{}"))),
        "PUT /api/v1/vm.create HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n{}",
    )
    .await;
}

#[tokio::test]
async fn one_connection_serves_every_call() {
    let server = Server::run(|listener| {
        let mut stream = accept(listener);
        answer(&mut stream, NO_CONTENT);
        answer(&mut stream, &with_body(500, r#"["VM is not running"]"#));
        answer(&mut stream, "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n");
        wait_for_end(&mut stream);
        expect_no_connection(listener);
    });
    let client = Client::new(server.socket()).unwrap();
    client.send(api::vm_boot()).await.unwrap();
    let error = client.clone().send(api::vm_pause()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::WrongState);
    client.send(api::vmm_shutdown()).await.unwrap();
    drop(client);
    server.finish();
}

#[tokio::test]
async fn a_connection_closed_between_calls_is_opened_anew() {
    let (closed, is_closed) = mpsc::channel();
    let server = Server::run(move |listener| {
        answer(&mut accept(listener), NO_CONTENT);
        closed.send(()).unwrap();
        answer(&mut accept(listener), NO_CONTENT);
    });
    let client = Client::new(server.socket()).unwrap();
    client.send(api::vm_boot()).await.unwrap();
    is_closed.recv().unwrap();
    client.send(api::vm_pause()).await.unwrap();
    server.finish();
}

#[tokio::test]
async fn a_request_that_may_have_been_received_is_not_sent_again() {
    let server = Server::run(|listener| {
        let mut stream = accept(listener);
        answer(&mut stream, NO_CONTENT);
        read_request(&mut stream);
        drop(stream);
        answer(&mut accept(listener), NO_CONTENT);
    });
    let client = Client::new(server.socket()).unwrap();
    client.send(api::vm_boot()).await.unwrap();
    let error = client.send(api::vm_pause()).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::VmmGone);
    assert!(!error.is_retryable());
    client.send(api::vm_resume()).await.unwrap();
    server.finish();
}

#[tokio::test]
async fn a_deadline_says_whether_the_request_was_sent() {
    let server = Server::run(|listener| {
        for _ in 0..2 {
            let mut stream = accept(listener);
            read_request(&mut stream);
            wait_for_end(&mut stream);
        }
    });
    let client = Client::new(server.socket()).unwrap();
    let client = client.with_deadlines(hasty());
    let error = client.send(api::vm_boot()).await.unwrap_err();
    let outcome = DeadlineOutcome::Unknown;
    assert_eq!(*error.kind(), ErrorKind::Deadline { outcome });
    assert!(!error.is_retryable());
    let error = client.send(api::vm_info()).await.unwrap_err();
    let outcome = DeadlineOutcome::ReadOnly;
    assert_eq!(*error.kind(), ErrorKind::Deadline { outcome });
    assert!(error.is_retryable());
    server.finish();
}

#[tokio::test]
async fn a_call_that_never_left_the_queue_was_not_sent() {
    let (release, released) = mpsc::channel::<()>();
    let server = Server::run(move |listener| {
        let mut stream = accept(listener);
        read_request(&mut stream);
        released.recv().unwrap();
        std::io::Write::write_all(&mut stream, NO_CONTENT.as_bytes()).unwrap();
        wait_for_end(&mut stream);
    });
    let client = Client::new(server.socket()).unwrap();
    let waiting = client.clone().with_deadlines(hasty());
    let slow = async { client.send(api::vm_boot()).await };
    let queued = async {
        let error = waiting.send(api::vm_pause()).await.unwrap_err();
        release.send(()).unwrap();
        error
    };
    let (slow, error) = tokio::join!(biased; slow, queued);
    slow.unwrap();
    let outcome = DeadlineOutcome::NotSent;
    assert_eq!(*error.kind(), ErrorKind::Deadline { outcome });
    drop((client, waiting));
    server.finish();
}

/// The next call never reads the answer to a call that was dropped.
#[tokio::test]
async fn a_dropped_call_takes_its_connection_with_it() {
    let (got, has_got) = tokio::sync::oneshot::channel();
    let server = Server::run(|listener| {
        let mut stream = accept(listener);
        read_request(&mut stream);
        got.send(()).unwrap();
        wait_for_end(&mut stream);
        answer(&mut accept(listener), &ping("53.0.0"));
    });
    let client = Client::new(server.socket()).unwrap();
    tokio::select! {
        answer = client.send(api::vm_boot()) => panic!("{answer:?} without an answer"),
        got = has_got => got.unwrap(),
    }
    assert_eq!(
        client.send(api::vmm_ping()).await.unwrap().version,
        "53.0.0"
    );
    server.finish();
}

#[tokio::test]
async fn the_release_is_learnt_once_a_connection() {
    let server = Server::run(|listener| {
        let mut stream = accept(listener);
        answer(&mut stream, &ping("52.0.0"));
        answer(&mut stream, NO_CONTENT);
        drop(stream);
        let mut stream = accept(listener);
        answer(&mut stream, NO_CONTENT);
        answer(&mut stream, &ping("53.0.0"));
        wait_for_end(&mut stream);
    });
    let client = Client::new(server.socket()).unwrap();
    assert_eq!(client.release().await.unwrap(), Release::new(52, 0));
    client.send(api::vm_boot()).await.unwrap();
    client.send(api::vm_pause()).await.unwrap();
    assert_eq!(client.release().await.unwrap(), Release::new(53, 0));
    assert_eq!(client.release().await.unwrap(), Release::new(53, 0));
    drop(client);
    server.finish();
}

#[tokio::test]
async fn a_body_that_the_server_would_not_read_is_not_sent() {
    let (done, is_done) = mpsc::channel();
    let server = Server::run(move |listener| {
        let request = answer(&mut accept(listener), NO_CONTENT);
        assert!(request.contains("content-length: 51200\r\n"));
        is_done.recv().unwrap();
        expect_no_connection(listener);
    });
    let client = Client::new(server.socket()).unwrap();
    let body = |length| Some(Bytes::from(vec![b' '; length]));
    let fits = Request::raw(Operation::VmCreate, body(BODY_LIMIT));
    client.send(fits).await.unwrap();
    let large = Request::raw(Operation::VmCreate, body(BODY_LIMIT + 1));
    let error = client.send(large).await.unwrap_err();
    assert_eq!(
        *error.kind(),
        ErrorKind::BodyTooLarge {
            length: 51_201,
            limit: 51_200
        }
    );
    done.send(()).unwrap();
    server.finish();
}

#[tokio::test]
async fn a_socket_without_a_listener() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    let stale = directory.path().join("stale");
    drop(UnixListener::bind(&stale).unwrap());
    for socket in [missing, stale] {
        let client = Client::new(&socket).unwrap();
        let error = client.send(api::vmm_ping()).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::NoListener, "{error}");
        assert!(error.is_retryable());
        assert_eq!(error.socket(), socket);
        assert!(std::error::Error::source(&error).is_some());
    }
}

#[tokio::test]
async fn a_path_need_not_be_utf8() {
    let name = Path::new(OsStr::from_bytes(b"api-\xff.sock"));
    let server = Server::run_at(name, |listener| {
        answer(&mut accept(listener), NO_CONTENT);
    });
    let client = Client::new(server.socket()).unwrap();
    client.send(api::vm_boot()).await.unwrap();
    server.finish();
}

/// The future of a call is `Send`, so that callers can spawn it.
#[test]
fn calls_can_be_spawned() {
    fn spawnable(_: impl Future + Send) {}
    let client = Client::new("/nowhere").unwrap();
    spawnable(client.send(api::vm_info()));
    spawnable(client.send_with_fds(api::vm_info(), &[]));
    spawnable(client.release());
}
