//! Serving over vsock: a listener, and one thread per connection.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, sockopt};

use super::Dispatcher;

/// Most connections at the same time; one more is closed at once.
const MAX_CONNECTIONS: usize = 16;

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
    pub fn serve(&self, dispatcher: &Dispatcher) -> ! {
        let connections = Arc::new(AtomicUsize::new(0));
        loop {
            match rustix::net::accept_with(&self.socket, SocketFlags::CLOEXEC) {
                Ok(connection) => start(dispatcher, connection.into(), &connections),
                Err(error) => {
                    tracing::warn!(%error, "no connection could be accepted");
                    thread::sleep(PAUSE);
                }
            }
        }
    }
}

fn start(dispatcher: &Dispatcher, connection: File, connections: &Arc<AtomicUsize>) {
    let place = Place::take(connections);
    if place.number >= MAX_CONNECTIONS {
        tracing::warn!("a connection was closed: there are {MAX_CONNECTIONS} already");
        return;
    }
    let dispatcher = dispatcher.clone();
    let started = thread::Builder::new()
        .name("connection".to_owned())
        .spawn(move || {
            let _place = place;
            if let Err(error) = serve(&dispatcher, &connection) {
                tracing::info!("a connection ended: {}", chain(error.as_ref()));
            }
            // It is gone already when the host has closed it.
            let _ = rustix::net::shutdown(&connection, Shutdown::Both);
        });
    if let Err(error) = started {
        tracing::warn!(%error, "no thread could be started for a connection");
    }
}

fn serve(
    dispatcher: &Dispatcher,
    connection: &File,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    sockopt::set_socket_timeout(connection, sockopt::Timeout::Send, Some(SEND_LIMIT))?;
    Ok(dispatcher.serve(connection, connection.try_clone()?)?)
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
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
