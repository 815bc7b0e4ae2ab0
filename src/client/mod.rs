//! The client of the VMM's REST API: sends a [`Request`] over the api-socket and says what came of it.
//!
//! - [`Client`] keeps one connection to one VMM, because the server serves at most ten and answers on one
//!   thread. Calls queue behind each other; a connection found closed before anything was sent is opened anew.
//! - Every call has a deadline by its class ([`Deadlines`]). After it the connection is dropped, so that a late
//!   answer can't be taken for the next one's.
//! - [`Error`] says by its [`ErrorKind`] what to do next, and keeps the server's own words as evidence.
//! - [`Release`] is the VMM's version, learnt from `vmm.ping` once a connection, when a request uses something that not
//!   every supported release knows. What the VMM would ignore is refused before it is sent
//!   ([`ErrorKind::NotSupported`]). A VMM newer than every supported release counts as the newest of them, an older one
//!   as the oldest, with a warning through `tracing`.
//! - [`Client::create_checked`] creates a VM and says what the VMM made of its configuration.
//!
//! # What a VMM can make a client hold
//!
//! An answer has at most 1 MiB, one to `vm.info` 4 MiB, and is made of at most 131,072 values, of which at most 16,384 are
//! objects and lists. A larger one is an [`ErrorKind::Decode`]. Fields that a type doesn't have stay text
//! ([`UnknownFields`](crate::api::UnknownFields)). So a call takes 64 MiB at most, whatever the VMM answers, and an error
//! keeps no more than 32 messages of at most 4,096 characters, each [safe to show](crate::sanitize::line).
//!
//! ```no_run
//! use chv_sandbox::api;
//! use chv_sandbox::client::{Client, ErrorKind};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new("/run/vmm/api.sock")?;
//! match client.send(api::vm_info()).await {
//!     Ok(info) => println!("{:?}", info.state),
//!     Err(error) if *error.kind() == ErrorKind::NotCreated => println!("no VM yet"),
//!     Err(error) => return Err(error.into()),
//! }
//! # Ok(())
//! # }
//! ```

mod bounds;
mod call;
mod classify;
mod config_drift;
mod deadline;
mod descriptors;
mod error;
mod event_monitor;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[rustfmt::skip]
mod generated;
mod messages;
mod ready;
mod refusal;
mod transport;

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::api::types::{VmConfig, VmmPingResponse};
use crate::api::{self, Operation, Request};
use crate::socket::SocketAddress;

pub use crate::api::{ParseReleaseError, Release};
pub use config_drift::{ConfigDrift, Difference};
pub use deadline::Deadlines;
#[cfg(feature = "replay")]
pub(crate) use descriptors::{MOST_DESCRIPTORS, send_with_descriptors};
pub use error::{Error, ErrorKind, Outcome, SocketPathTooLong};
pub(crate) use event_monitor::Decoder;
pub use event_monitor::{EventMonitor, EventMonitorError, MonitorEvent};
#[cfg(feature = "compat")]
pub(crate) use messages::is_of_http_layer;
pub use ready::{LastSeen, NotReady};

use call::{Call, Kept};

/// The largest request body that the server of v53.0 and earlier reads, in bytes.
///
/// It refuses a larger one with status 400 and then parses the body's remainder as requests, so the client
/// never sends one (`micro_http`, seen on v51.2, v52.0 and v53.0). Later releases allow 4 MiB.
pub const BODY_LIMIT: usize = 51_200;

/// The length of a Unix socket's address, its final zero included (`sun_path` in `unix(7)`).
const SOCKET_PATH_LIMIT: usize = 108;

/// A client of one VMM's API. Clones share the connection.
///
/// A call that is dropped before it ends takes its connection with it: the next call opens a new one and never
/// reads the answer of the dropped one.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    deadlines: Deadlines,
}

struct Shared {
    socket: SocketAddress,
    /// The kept connection; none before the first call and after one that left it in an unknown state.
    kept: Mutex<Option<Kept>>,
}

/// What an answer that isn't a success means.
#[cfg(feature = "compat")]
pub(crate) fn kind_of(operation: Operation, status: u16, body: &[u8]) -> ErrorKind {
    classify::classify(operation, status, &messages_in(body))
}

/// The server's words in the body of an error, outermost cause first.
#[cfg(feature = "compat")]
pub(crate) fn messages_in(body: &[u8]) -> Vec<String> {
    messages::parse(&bytes::Bytes::copy_from_slice(body))
}

impl Client {
    /// A client of the VMM that listens on `socket`. Nothing is opened before the first call.
    ///
    /// # Errors
    ///
    /// [`SocketPathTooLong`] when the path can't be a Unix socket's address: 108 bytes or more.
    pub fn new(socket: impl Into<SocketAddress>) -> Result<Client, SocketPathTooLong> {
        let socket = socket.into();
        if socket.path().as_os_str().as_bytes().len() >= SOCKET_PATH_LIMIT {
            let socket = socket.path().to_owned();
            return Err(SocketPathTooLong { socket });
        }
        Ok(Client {
            shared: Arc::new(Shared {
                socket,
                kept: Mutex::new(None),
            }),
            deadlines: Deadlines::default(),
        })
    }

    /// The same client, on the same connection, with other deadlines.
    #[must_use]
    pub fn with_deadlines(self, deadlines: Deadlines) -> Client {
        Client { deadlines, ..self }
    }

    /// The name that the api-socket has, or had: that of a VMM which this process started has none any more.
    pub fn socket(&self) -> &Path {
        self.shared.socket.name()
    }

    /// What to connect to, for another client of the same VMM.
    pub fn address(&self) -> &SocketAddress {
        &self.shared.socket
    }

    /// Sends `request` and waits for its answer, at most as long as the deadline of its class.
    ///
    /// If it uses what not every supported release knows, and the VMM's release isn't known yet on this connection, that
    /// is asked first, within the same deadline; such an error is one of `vmm.ping`. A request is sent again on a new
    /// connection only when nothing of it had been sent on the kept one.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotSupported`], before anything of it is sent, when the VMM would ignore a part of it; any other
    /// [`ErrorKind`], see there for what to do next.
    pub async fn send<T>(&self, request: Request<T>) -> Result<T, Error> {
        let call = self.call(&request);
        call.refuse(&request)?;
        let mut turn = call.turn(&self.shared.kept).await?;
        let answer = call.on_kept(&mut turn).await?;
        call.finish(&request, &answer)
    }

    /// Sends `request` with open files, on a connection of its own that is closed afterwards.
    ///
    /// Only `vm.add-net`, `vm.restore` and, from v53.0, `vm.add-device` take files: the VMM gets duplicates,
    /// in the order given. Values of `fds` in the body are ignored by the server.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotSupported`], before anything is sent, for an operation that takes no files (`vm.create`
    /// discards them without a word) and for more than 253 of them; else as [`Client::send`].
    pub async fn send_with_fds<T>(
        &self,
        request: Request<T>,
        fds: &[BorrowedFd<'_>],
    ) -> Result<T, Error> {
        let call = self.call(&request);
        let taken = descriptors::taken(request.operation(), fds.len())
            .map_err(|kind| call.context.refuse(kind))?;
        let fds = fds
            .iter()
            .map(|fd| fd.try_clone_to_owned())
            .collect::<Result<Vec<OwnedFd>, _>>()
            .map_err(|error| call.context.connect(error))?;
        // Calls stay in order although this one has a connection of its own.
        let mut turn = call.turn(&self.shared.kept).await?;
        if !call.requirements.is_empty() || !taken.is_universal() {
            let release = call.learn(&mut turn).await?;
            call.check(release)?;
            descriptors::check(request.operation(), taken, release)
                .map_err(|kind| call.context.refuse(kind))?;
        }
        let mut connection = call.open(fds).await?;
        let answer = call.exchange(&mut connection).await?;
        call.finish(&request, &answer)
    }

    /// Creates a VM, reads back what the VMM stored, and says where that isn't what was sent. Legal without a VM;
    /// leaves it `Created`. No other call of this client and its clones gets in between.
    ///
    /// What the VMM added of its own (defaults, identifiers) is no difference. A difference is no error: the VM exists,
    /// and what to do about it is the caller's choice.
    ///
    /// # Errors
    ///
    /// As [`Client::send`]. An error whose [operation](Error::operation) is `vm.info` comes after the VM was created.
    pub async fn create_checked(&self, config: &VmConfig) -> Result<ConfigDrift, Error> {
        let create = api::vm_create(config);
        let call = self.call(&create);
        call.refuse(&create)?;
        let mut turn = call.turn(&self.shared.kept).await?;
        let answer = call.on_kept(&mut turn).await?;
        call.finish(&create, &answer)?;
        let info = Request::raw(Operation::VmInfo, None);
        let reading = self.call(&info);
        let answer = reading.on_kept(&mut turn).await?;
        let stored = reading.finish(&info, &answer)?;
        ConfigDrift::compare(&call.body, stored.as_ref())
            .map_err(|error| reading.context.decode(answer.status, error))
    }

    /// The VMM's release, from `vmm.ping`; asked once per connection.
    ///
    /// # Errors
    ///
    /// As [`Client::send`]; [`ErrorKind::Decode`] when the version isn't one.
    pub async fn release(&self) -> Result<Release, Error> {
        let call = self.call(&api::vmm_ping());
        let mut turn = call.turn(&self.shared.kept).await?;
        call.learn(&mut turn).await
    }

    /// `vmm.ping`, whose answer also tells the release to the calls that follow on this connection.
    pub(crate) async fn ping(&self) -> Result<VmmPingResponse, Error> {
        let call = self.call(&api::vmm_ping());
        let mut turn = call.turn(&self.shared.kept).await?;
        call.greet(&mut turn).await.map(|(_, answer)| answer)
    }

    fn call<T>(&self, request: &Request<T>) -> Call<'_> {
        Call::new(request, self.address(), &self.deadlines)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("socket", &self.shared.socket)
            .field("deadlines", &self.deadlines)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_path_must_fit_the_address() {
        let check = |length: usize, fits: bool| {
            let path = format!("/{}", "a".repeat(length - 1));
            assert_eq!(Client::new(path).is_ok(), fits, "{length} bytes");
        };
        check(1, true);
        check(107, true);
        check(108, false);
        check(4096, false);
    }
}
