//! [`VsockListener`] accepts vsock connections, which a fixed number of threads serve.

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

use super::stream_connection::StreamSlot;
use super::{Dispatcher, MAX_STREAMS, ServeError, lock};
use crate::causes::Causes;
use crate::guest::frame::{FrameError, write_frame};
use crate::guest::protocol::{Frame, GuestQuery, Hello, QueryKind};

/// The number of threads that serve connections: one for each run with streams and each transfer, one for the channel,
/// one for the channel that replaces it, and two for connections that are refused or that the host hasn't closed yet.
const WORKERS: usize = MAX_STREAMS + 4;

/// The stack of such a thread, which serves a run with streams or a transfer to its end.
const WORKER_STACK: usize = 512 * 1024;

/// The most connections at the same time, including those that wait for a thread. One more is closed at once.
const MAX_CONNECTIONS: usize = 4 * WORKERS;

/// The pause after a failed `accept`, so that a lasting failure doesn't cause a busy loop.
const PAUSE: Duration = Duration::from_millis(100);

/// A listener on a vsock port, for connections to any CID of this guest. After a snapshot and a restore the listener
/// still works; the connections are gone.
#[derive(Debug)]
pub struct VsockListener {
    socket: OwnedFd,
}

impl VsockListener {
    /// Listens on `port`.
    ///
    /// # Errors
    ///
    /// The kernel's error, for example if it has no vsock (a module or the device is missing) or if the port is in use.
    pub fn bind(port: u32) -> io::Result<VsockListener> {
        let flags = SocketFlags::CLOEXEC;
        let socket =
            rustix::net::socket_with(AddressFamily::VSOCK, SocketType::STREAM, flags, None)?;
        rustix::net::bind(&socket, &VsockAddress { port })?;
        rustix::net::listen(&socket, MAX_CONNECTIONS as i32)?;
        Ok(VsockListener { socket })
    }

    /// Serves every connection with `dispatcher`. It returns only an error.
    ///
    /// # Errors
    ///
    /// If a thread that serves connections can't be started. A failed `accept` is logged and tried again.
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
                    let Some(place) = StreamSlot::take(&busy, MAX_CONNECTIONS) else {
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
/// All threads are started before the first connection, and each [prewarms](prewarm) itself. So a guest that was just
/// restored starts no thread before it answers, and uses only memory that was used before the snapshot.
fn work(dispatcher: &Dispatcher, accepted: &Accepted) -> ! {
    prewarm(dispatcher);
    loop {
        let (connection, _place) = accepted.take();
        let served = panic::catch_unwind(AssertUnwindSafe(|| dispatcher.serve(connection)));
        match served {
            Ok(Ok(())) => {}
            // After a restore every connection of the snapshot ends like this, while the host waits for an answer. Such
            // errors aren't written to the console, which is slow.
            Ok(Err(ServeError::Frame(FrameError::Io(error)))) => {
                tracing::debug!(error = %Causes(&error), "a connection failed");
            }
            Ok(Err(error)) => tracing::info!(error = %Causes(&error), "a connection ended"),
            Err(_) => tracing::error!("a connection ended: its thread panicked"),
        }
    }
}

/// Answers the first requests of a host once, over a socket pair whose answers are dropped. This touches the memory
/// that the answers need.
fn prewarm(dispatcher: &Dispatcher) {
    let count = GuestQuery {
        query_id: Uuid::new_v4(),
        query_kind: QueryKind::OpenFdCount,
        ts: Timestamp::now(),
    };
    let answer = || {
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
    if let Err(error) = answer() {
        tracing::warn!(error = %Causes(&error), "a thread could not be prewarmed: its first answer may be slow");
    }
}

/// The queue of accepted connections that no thread serves yet.
#[derive(Default)]
struct Accepted {
    waiting: Mutex<VecDeque<(OwnedFd, StreamSlot)>>,
    arrived: Condvar,
}

impl Accepted {
    fn put(&self, connection: OwnedFd, place: StreamSlot) {
        lock(&self.waiting).push_back((connection, place));
        self.arrived.notify_one();
    }

    fn take(&self) -> (OwnedFd, StreamSlot) {
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

/// The address of a port at any CID of this guest.
struct VsockAddress {
    port: u32,
}

// SAFETY: the pointer is to a whole `sockaddr_vm`, which lives during the call, and the length is its size.
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
