//! A Unix socket server that does exactly what a test says, on a thread of its own.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;

/// Reached only when a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    _directory: TempDir,
    socket: PathBuf,
    thread: JoinHandle<()>,
}

impl Server {
    /// Runs `script` on a listening socket.
    pub(crate) fn run(script: impl FnOnce(&UnixListener) + Send + 'static) -> Server {
        Server::run_at("api.sock".as_ref(), script)
    }

    /// The same as [`run`](Server::run), with another file name for the socket.
    pub(crate) fn run_at(
        name: &Path,
        script: impl FnOnce(&UnixListener) + Send + 'static,
    ) -> Server {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join(name);
        let listener = UnixListener::bind(&socket).unwrap();
        Server {
            _directory: directory,
            socket,
            thread: std::thread::spawn(move || script(&listener)),
        }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Waits for the end of the script, and fails if the script failed.
    pub(crate) fn finish(self) {
        self.thread.join().expect("the server's script holds");
    }
}

/// The next connection.
pub(crate) fn accept(listener: &UnixListener) -> UnixStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Fails if a further connection was made.
pub(crate) fn expect_no_connection(listener: &UnixListener) {
    listener.set_nonblocking(true).unwrap();
    let error = listener.accept().expect_err("no further connection");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

/// Reads one whole request and returns it as it came.
pub(crate) fn read_request(stream: &mut UnixStream) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a request");
        request.push(byte[0]);
    }
    let head = String::from_utf8(request).unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    head + std::str::from_utf8(&body).unwrap()
}

/// Reads one request and answers with these bytes.
pub(crate) fn answer(stream: &mut UnixStream, answer: &str) -> String {
    let request = read_request(stream);
    stream.write_all(answer.as_bytes()).unwrap();
    request
}

/// Waits until the other end has closed the connection.
pub(crate) fn wait_for_end(stream: &mut UnixStream) {
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "end of file");
}

/// An answer as the VMM writes it.
pub(crate) fn with_body(status: u16, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} \r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub(crate) fn ping(version: &str) -> String {
    with_body(
        200,
        &format!(r#"{{"build_version":"v{version}","version":"{version}","pid":1,"features":[]}}"#),
    )
}

pub(crate) const NO_CONTENT: &str =
    "HTTP/1.1 204 \r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\n\r\n";
