//! The socket of one connection to the host.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, sockopt};

use super::running::poll;

/// How long a send may wait for the host to take data.
pub(super) const SEND_LIMIT: Duration = Duration::from_secs(30);

/// The socket of one connection to the host, in blocking mode, with methods that don't block.
#[derive(Debug)]
pub(super) struct Connection(OwnedFd);

impl Connection {
    /// Takes over a connected stream socket in blocking mode. Writes to it fail after [`SEND_LIMIT`] without progress.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Connection> {
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(SEND_LIMIT))?;
        Ok(Connection(socket))
    }

    /// Reads the bytes that have arrived; `None` if none have. As with [`Read`], 0 means that the host has closed the
    /// connection.
    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        unless_it_blocks(
            rustix::net::recv(&self.0, buffer, RecvFlags::DONTWAIT).map(|(read, _)| read),
        )
    }

    /// Writes as many bytes as the socket takes now; `None` if it takes none.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        unless_it_blocks(rustix::net::send(&self.0, bytes, flags))
    }

    /// Shuts down the sending side, and waits until the host has closed the connection, but not beyond `until`. Bytes
    /// that the host still sends are dropped.
    ///
    /// This makes sure that the host gets everything that was sent, for two reasons. When a guest closes a connection,
    /// the VMM drops the data that the host doesn't take within two seconds (v53.0,
    /// `virtio-devices/src/vsock/csm/connection.rs`). And when a guest closes a connection with bytes unread, the host
    /// sees an error instead of the end of the connection.
    pub(super) fn linger(&self, until: Instant) {
        let mut dropped = [0; 4096];
        let mut read = rustix::net::shutdown(&self.0, Shutdown::Write)
            .map_err(io::Error::from)
            .map(|()| None);
        while matches!(read, Ok(None | Some(1..))) && Instant::now() < until {
            let polled = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], until);
            read = polled.and_then(|()| self.try_read(&mut dropped));
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Read for &Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (read, _) = rustix::net::recv(&self.0, buffer, RecvFlags::empty())?;
        Ok(read)
    }
}

impl Write for &Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(&self.0, bytes, SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Shuts a connection down when it is dropped. Dropping the socket isn't enough, since the thread of a tool that still
/// runs may keep the socket open.
#[derive(Debug)]
pub(super) struct ShutDown<'a>(pub(super) &'a Connection);

impl Drop for ShutDown<'_> {
    fn drop(&mut self) {
        // This fails if the host has closed the connection.
        let _ = rustix::net::shutdown(&self.0.0, Shutdown::Both);
    }
}

fn unless_it_blocks(result: rustix::io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(count) => Ok(Some(count)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
