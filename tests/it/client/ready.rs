//! Waiting until a VMM answers.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use chv_sandbox::client::{Client, Deadlines, ErrorKind, LastSeen, NotReady};

use super::server::{
    NO_CONTENT, Server, accept, answer, ping, read_request, wait_for_end, with_body,
};
use super::{SOON, hasty};

const GENEROUS: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_vmm_that_comes_up_late_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("api.sock");
    let client = Client::new(&*socket).unwrap().with_deadlines(hasty());
    let vmm = thread::spawn(move || {
        // No socket, one that refuses, a VMM that is silent, one that hangs up, and one that answers.
        thread::sleep(SOON);
        drop(UnixListener::bind(&socket).unwrap());
        thread::sleep(SOON);
        fs::remove_file(&socket).unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        let mut silent = accept(&listener);
        read_request(&mut silent);
        wait_for_end(&mut silent);
        drop(accept(&listener));
        let mut stream = accept(&listener);
        answer(&mut stream, &ping("53.0.0"));
        // The connection is kept, and the release known.
        let boot = answer(&mut stream, NO_CONTENT);
        assert!(boot.starts_with("PUT /api/v1/vm.resize-disk "), "{boot}");
    });
    let ping = client.wait_until_ready(GENEROUS).await.unwrap();
    assert_eq!(ping.version, "53.0.0");
    let disk = chv_sandbox::api::types::VmResizeDisk::new(1, "disk");
    client.vm_resize_disk(&disk).await.unwrap();
    vmm.join().unwrap();
}

/// Waits for a VMM that never comes up.
async fn gives_up(socket: &Path) -> NotReady {
    let client = Client::new(socket).unwrap();
    let began = Instant::now();
    let error = client.wait_until_ready(SOON).await.unwrap_err();
    assert!(began.elapsed() >= SOON, "{:?}", began.elapsed());
    error
}

#[tokio::test]
async fn the_error_says_what_was_last_seen() {
    #[track_caller]
    fn check(error: NotReady, expected: LastSeen, words: &str) {
        let NotReady::TimedOut { limit, seen, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!((*limit, *seen), (SOON, expected));
        assert_eq!(error.last_seen(), Some(expected));
        assert!(error.to_string().ends_with(words), "{error}");
        assert!(std::error::Error::source(&error).is_some());
    }
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    check(
        gives_up(&missing).await,
        LastSeen::NoSocket,
        "missing did not answer vmm.ping within 200ms: the socket doesn't exist",
    );
    let stale = folder.path().join("stale");
    drop(UnixListener::bind(&stale).unwrap());
    check(
        gives_up(&stale).await,
        LastSeen::Refused,
        "the socket exists and no process listens on it",
    );
    // The kernel takes connections for it, and no server answers.
    let silent = folder.path().join("silent");
    let _listener = UnixListener::bind(&silent).unwrap();
    check(
        gives_up(&silent).await,
        LastSeen::Silent,
        "a process listens on the socket and doesn't answer",
    );
}

#[tokio::test]
async fn attempts_that_fail_at_once_are_few() {
    let server = Server::run(|listener| {
        let mut count = 0;
        let began = Instant::now();
        while began.elapsed() < 5 * SOON {
            drop(accept(listener));
            count += 1;
        }
        // 5, 10, 20, 40, 80, and then 100 ms between two.
        assert!((5..=20).contains(&count), "{count} attempts");
    });
    let client = Client::new(server.socket()).unwrap();
    let error = client.wait_until_ready(7 * SOON).await.unwrap_err();
    let seen = error.last_seen();
    // The server is gone in the end.
    assert!(
        matches!(seen, Some(LastSeen::Closed | LastSeen::Refused)),
        "{seen:?}"
    );
    server.finish();
}

#[tokio::test]
async fn what_waiting_does_not_mend_ends_it() {
    let server = Server::run(|listener| {
        answer(&mut accept(listener), &with_body(200, "[]"));
    });
    let client = Client::new(server.socket()).unwrap();
    let error = client.wait_until_ready(GENEROUS).await.unwrap_err();
    let NotReady::Failed { source, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*source.kind(), ErrorKind::Decode);
    assert_eq!(error.last_seen(), None);
    server.finish();
}

#[tokio::test]
async fn any_limit_will_do() {
    let server = Server::run(|listener| {
        let mut stream = accept(listener);
        answer(&mut stream, &ping("53.0.0"));
    });
    let client = Client::new(server.socket()).unwrap();
    let client = client.with_deadlines(Deadlines {
        probe: Duration::MAX,
        ..Deadlines::default()
    });
    client.wait_until_ready(Duration::MAX).await.unwrap();
    server.finish();
    let folder = tempfile::tempdir().unwrap();
    let nowhere = Client::new(folder.path().join("missing")).unwrap();
    let error = nowhere.wait_until_ready(Duration::ZERO).await.unwrap_err();
    assert_eq!(error.last_seen(), Some(LastSeen::NoSocket));
}
