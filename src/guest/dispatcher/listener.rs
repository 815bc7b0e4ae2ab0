//! Serving over vsock: a listener, and threads that wait for its connections.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, sockopt};
use uuid::Uuid;

use super::{Dispatcher, ServeError, lock};
use crate::causes::Causes;
use crate::guest::frame::{FrameError, encode};
use crate::guest::protocol::{Frame, GuestQuery, Hello, QueryKind};

/// Most connections at the same time, each with a thread of its own; one more is closed at once.
const MAX_CONNECTIONS: usize = 8;

/// How long a host may leave the dispatcher waiting that has something to send.
const SEND_LIMIT: Duration = Duration::from_secs(30);

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
        for _ in 0..MAX_CONNECTIONS {
            let (dispatcher, accepted) = (dispatcher.clone(), Arc::clone(&accepted));
            let worker = thread::Builder::new().name("connection".to_owned());
            worker.spawn(move || work(&dispatcher, &accepted))?;
        }
        loop {
            match rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC) {
                Ok(connection) => {
                    let place = Place::take(&busy);
                    if place.number >= MAX_CONNECTIONS {
                        tracing::warn!(
                            "a connection was closed: there are {MAX_CONNECTIONS} already"
                        );
                        continue;
                    }
                    accepted.put(File::from(connection), place);
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
        let served = panic::catch_unwind(AssertUnwindSafe(|| serve(dispatcher, &connection)));
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
        // It is gone already when the host has closed it.
        let _ = rustix::net::shutdown(&connection, Shutdown::Both);
    }
}

/// Answers what a host asks first, to nobody.
fn rehearse(dispatcher: &Dispatcher) {
    let count = GuestQuery {
        query_id: Uuid::new_v4(),
        query_kind: QueryKind::OpenFdCount,
        ts: Timestamp::now(),
    };
    let mut requests = Vec::new();
    for request in [
        Frame::Hello(Hello::of_this_build()),
        Frame::GuestQuery(count),
    ] {
        match encode(&request) {
            Ok(request) => requests.extend(request),
            Err(error) => tracing::warn!(error = %Causes(&error), "a rehearsal was left out"),
        }
    }
    if let Err(error) = dispatcher.serve(requests.as_slice(), io::sink()) {
        tracing::warn!(error = %Causes(&error), "the rehearsal failed");
    }
}

fn serve(dispatcher: &Dispatcher, connection: &File) -> Result<(), ServeError> {
    let prepared =
        sockopt::set_socket_timeout(connection, sockopt::Timeout::Send, Some(SEND_LIMIT))
            .map_err(io::Error::from)
            .and_then(|()| connection.try_clone());
    let writer = prepared.map_err(FrameError::Io)?;
    dispatcher.serve(connection, writer)
}

/// The connections that no thread serves yet.
#[derive(Default)]
struct Accepted {
    waiting: Mutex<VecDeque<(File, Place)>>,
    arrived: Condvar,
}

impl Accepted {
    fn put(&self, connection: File, place: Place) {
        lock(&self.waiting).push_back((connection, place));
        self.arrived.notify_one();
    }

    fn take(&self) -> (File, Place) {
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

/// One of the connections that are counted, until it is dropped.
struct Place {
    connections: Arc<AtomicUsize>,
    /// How many there were before it.
    number: usize,
}

impl Place {
    fn take(connections: &Arc<AtomicUsize>) -> Place {
        Place {
            number: connections.fetch_add(1, Ordering::Relaxed),
            connections: Arc::clone(connections),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
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

    #[test]
    fn a_place_is_free_again_when_it_is_dropped() {
        let connections = Arc::new(AtomicUsize::new(0));
        let first = Place::take(&connections);
        let second = Place::take(&connections);
        assert_eq!((first.number, second.number), (0, 1));
        drop(first);
        assert_eq!(Place::take(&connections).number, 1);
    }
}
