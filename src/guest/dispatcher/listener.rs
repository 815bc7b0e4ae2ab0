//! Serving over vsock: a listener, and threads that wait for its connections.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use uuid::Uuid;

use super::stream::Place;
use super::{Dispatcher, MAX_STREAMS, ServeError, lock};
use crate::causes::Causes;
use crate::guest::frame::{FrameError, write_frame};
use crate::guest::protocol::{Frame, GuestQuery, Hello, QueryKind};

/// Threads that serve connections: one for each connection of its own, one for the channel, one for the channel that
/// replaces it, and two for connections that are refused, or whose host hasn't closed them yet.
const WORKERS: usize = MAX_STREAMS + 4;

/// The stack of such a thread; a connection of its own is served on it to its end.
const WORKER_STACK: usize = 512 * 1024;

/// Most connections at the same time, those included that wait for a thread; one more is closed at once.
const MAX_CONNECTIONS: usize = 4 * WORKERS;

/// How long nothing is accepted after accepting has failed, so that a lasting failure doesn't spin.
const PAUSE: Duration = Duration::from_millis(100);

/// A listener on a vsock port, for connections to whatever CID this guest has. It lives on through a
/// snapshot and a restore; the connections don't.
#[derive(Debug)]
pub struct VsockListener {
    socket: OwnedFd,
}

impl VsockListener {
    /// Listens on `port`.
    ///
    /// # Errors
    ///
    /// When the kernel has no vsock (a missing module, no vsock device), or the port is taken.
    pub fn bind(port: u32) -> io::Result<VsockListener> {
        let flags = SocketFlags::CLOEXEC;
        let socket =
            rustix::net::socket_with(AddressFamily::VSOCK, SocketType::STREAM, flags, None)?;
        rustix::net::bind(&socket, &VsockAddress { port })?;
        rustix::net::listen(&socket, MAX_CONNECTIONS as i32)?;
        Ok(VsockListener { socket })
    }

    /// Serves every connection with `dispatcher`, for ever.
    ///
    /// # Errors
    ///
    /// When a thread that serves connections can't be started.
    pub fn serve(&self, dispatcher: &Dispatcher) -> io::Result<Infallible> {
        let accepted = Arc::new(Accepted::default());
        let busy = Arc::new(AtomicUsize::new(0));
        for _ in 0..WORKERS {
            let (dispatcher, accepted) = (dispatcher.clone(), Arc::clone(&accepted));
            let worker = thread::Builder::new()
                .name("connection".to_owned())
                .stack_size(WORKER_STACK);
            worker.spawn(move || work(&dispatcher, &accepted))?;
        }
        loop {
            match rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC) {
                Ok(connection) => {
                    let Some(place) = Place::take(&busy, MAX_CONNECTIONS) else {
                        tracing::warn!(
                            "a connection was closed: there are {MAX_CONNECTIONS} already"
                        );
                        continue;
                    };
                    accepted.put(connection, place);
                }
                Err(error) => {
                    tracing::warn!(error = %Causes(&error), "no connection could be accepted");
                    thread::sleep(PAUSE);
                }
            }
        }
    }
}

/// Serves one connection after the other.
///
/// The threads are there from the start, and each has answered once, so that a guest that was restored just now starts
/// none, and touches nothing for the first time, before it answers.
fn work(dispatcher: &Dispatcher, accepted: &Accepted) -> ! {
    rehearse(dispatcher);
    loop {
        let (connection, _place) = accepted.take();
        let served = panic::catch_unwind(AssertUnwindSafe(|| dispatcher.serve(connection)));
        match served {
            Ok(Ok(())) => {}
            // Each connection that a snapshot holds ends like this after the restore, while the host waits for an
            // answer: that is nothing to write to a slow console.
            Ok(Err(ServeError::Frame(FrameError::Io(error)))) => {
                tracing::debug!(error = %Causes(&error), "a connection failed");
            }
            Ok(Err(error)) => tracing::info!(error = %Causes(&error), "a connection ended"),
            Err(_) => tracing::error!("a connection ended: its thread panicked"),
        }
    }
}

/// Answers what a host asks first, to nobody.
fn rehearse(dispatcher: &Dispatcher) {
    let count = GuestQuery {
        query_id: Uuid::new_v4(),
        query_kind: QueryKind::OpenFdCount,
        ts: Timestamp::now(),
    };
    let rehearsed = || {
        let (host, guest) = UnixStream::pair().map_err(FrameError::Io)?;
        for request in [
            Frame::Hello(Hello::of_this_build()),
            Frame::GuestQuery(count),
        ] {
            write_frame(&mut &host, &request)?;
        }
        host.shutdown(Shutdown::Write).map_err(FrameError::Io)?;
        dispatcher.serve(guest)
    };
    if let Err(error) = rehearsed() {
        tracing::warn!(error = %Causes(&error), "the rehearsal failed");
    }
}

/// The connections that no thread serves yet.
#[derive(Default)]
struct Accepted {
    waiting: Mutex<VecDeque<(OwnedFd, Place)>>,
    arrived: Condvar,
}

impl Accepted {
    fn put(&self, connection: OwnedFd, place: Place) {
        lock(&self.waiting).push_back((connection, place));
        self.arrived.notify_one();
    }

    fn take(&self) -> (OwnedFd, Place) {
        let mut waiting = lock(&self.waiting);
        loop {
            if let Some(next) = waiting.pop_front() {
                return next;
            }
            let woken = self.arrived.wait(waiting);
            waiting = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A port of any CID.
struct VsockAddress {
    port: u32,
}

// SAFETY: the pointer is to a whole `sockaddr_vm`, which is what the length says, and which lives during the call.
unsafe impl SocketAddrArg for VsockAddress {
    unsafe fn with_sockaddr<R>(
        &self,
        call: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        let address = libc::sockaddr_vm {
            svm_family: libc::AF_VSOCK as libc::sa_family_t,
            svm_reserved1: 0,
            svm_port: self.port,
            svm_cid: libc::VMADDR_CID_ANY,
            svm_zero: [0; 4],
        };
        let length = size_of_val(&address) as SocketAddrLen;
        call((&raw const address).cast(), length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_taken_once_where_there_is_vsock() {
        // Not every machine that runs tests has vsock; one that has must accept the address.
        let port = 0x00c0_ffee;
        match VsockListener::bind(port) {
            Ok(_listener) => {
                let again = VsockListener::bind(port).unwrap_err();
                assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
            }
            Err(error) => assert!(
                matches!(
                    error.raw_os_error(),
                    Some(libc::EAFNOSUPPORT | libc::EPERM | libc::EACCES)
                ),
                "{error}"
            ),
        }
    }
}
