//! The stand-in for a guest: what is left when it stops.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Instant;

use chv_sandbox::guest::stand_in::StandIn;
use tempfile::tempdir;

use super::host::LIMIT;

/// Whether a process has a socket that was bound to this path, also if the file is gone.
fn is_bound(path: &str) -> bool {
    let sockets = fs::read_to_string("/proc/net/unix").unwrap();
    sockets.lines().any(|line| line.ends_with(path))
}

/// A VMM's run directory is removed when the VMM ends, and the socket's file with it.
#[test]
fn a_stop_closes_the_listener_and_connections_of_a_socket_whose_file_is_gone() {
    let folder = tempdir().unwrap();
    let socket = folder.path().join("vsock.sock");
    let guest = StandIn::new(&socket).unwrap();
    guest.start().unwrap();
    let mut connection = UnixStream::connect(&socket).unwrap();
    connection.set_read_timeout(Some(LIMIT)).unwrap();
    connection.write_all(b"CONNECT 1024\n").unwrap();
    let mut answer = [0; 14];
    connection.read_exact(&mut answer).unwrap();
    let path = socket.to_str().unwrap();
    assert!(is_bound(path));
    fs::remove_file(&socket).unwrap();
    guest.stop();
    assert_eq!(connection.read(&mut answer).unwrap(), 0);
    let deadline = Instant::now() + LIMIT;
    while is_bound(path) {
        assert!(Instant::now() < deadline, "the listener is left");
        thread::yield_now();
    }
}
