//! The client of a VMM: its REST API over the api-socket, and its event monitor.
//!
//! [`Client`] has one async method for each operation of the API, and a VMM may have been started by any program:
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use chv_sandbox::api::types::{CpusConfig, DiskConfig, MemoryConfig, PayloadConfig, VmConfig};
//! use chv_sandbox::client::Client;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new("/run/vmm/api.sock")?;
//! client.wait_until_ready(Duration::from_secs(10)).await?;
//! let config = VmConfig::default()
//!     .with_cpus(CpusConfig::new(2, 2))
//!     .with_memory(MemoryConfig::new(512 << 20))
//!     .with_payload(PayloadConfig::default().with_kernel("/boot/vmlinux"))
//!     .with_disks([DiskConfig::default().with_path("/vm/root.img")]);
//! client.vm_create(&config).await?;
//! client.vm_boot().await?;
//! println!("{}", client.vm_info().await?.state);
//! # Ok(())
//! # }
//! ```
//!
//! `examples/client.rs` is a whole program.
//!
//! - A client keeps one connection, because the server serves at most ten and answers on one thread. The calls of a
//!   client and its clones wait for each other. A connection that turns out to be closed before anything was sent is
//!   opened anew.
//! - Every call has a deadline by its class ([`Deadlines`]). When it passes, the connection is dropped, so that no
//!   later call reads the late answer.
//! - [`Error`] says by its [`ErrorKind`] what the caller can do next, and keeps the server's own messages.
//! - A VMM ignores a field that its release doesn't have. The client refuses to send such a request
//!   ([`ErrorKind::NotSupported`]). It learns the [`Release`] from `vmm.ping`, once a connection, when a request uses
//!   something that not every supported release has. A VMM that is newer than every supported release counts as the
//!   newest of them, an older one as the oldest, with a warning through `tracing`.
//! - [`Client::wait_until_ready`] waits for a VMM that is starting.
//! - [`Client::create_checked`] creates a VM and compares what the VMM stored with what was sent ([`ConfigDrift`]).
//! - [`Client::send`] sends a [`Request`] of [`api`]; [`Client::send_with_fds`] sends open files with it.
//! - [`EventMonitor`] is a stream of the VMM's events.
//!
//! # For users of bollard and kube
//!
//! The same task, creating a thing from a typed configuration and handling the one error that is expected, with three
//! clients:
//!
//! ```no_run
//! use chv_sandbox::api::types::{MemoryConfig, VmConfig};
//! use chv_sandbox::client::{Client, ErrorKind};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new("/run/vmm/api.sock")?;
//! let config = VmConfig::default().with_memory(MemoryConfig::new(512 << 20));
//! match client.vm_create(&config).await {
//!     Ok(()) => client.vm_boot().await?,
//!     Err(error) if *error.kind() == ErrorKind::AlreadyCreated => client.vm_resume().await?,
//!     Err(error) => return Err(error.into()),
//! }
//! let info = client.vm_info().await?;
//! println!("{}", info.state);
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//! // bollard: a container
//! let docker = Docker::connect_with_local_defaults()?;
//! let config = ContainerCreateBody { image: Some("alpine".into()), ..Default::default() };
//! let options = CreateContainerOptionsBuilder::new().name("one").build();
//! match docker.create_container(Some(options), config).await {
//!     Ok(_) => docker.start_container("one", None::<StartContainerOptions>).await?,
//!     Err(Error::DockerResponseServerError { status_code: 409, .. }) => docker.unpause_container("one").await?,
//!     Err(error) => return Err(error.into()),
//! }
//! let info = docker.inspect_container("one", None::<InspectContainerOptions>).await?;
//! println!("{:?}", info.state);
//! ```
//!
//! ```text
//! // kube: a pod
//! let pods: Api<Pod> = Api::default_namespaced(kube::Client::try_default().await?);
//! let pod: Pod = serde_json::from_value(json!({
//!     "metadata": { "name": "one" }, "spec": { "containers": [{ "name": "one", "image": "alpine" }] },
//! }))?;
//! match pods.create(&PostParams::default(), &pod).await {
//!     Ok(_) => {}
//!     Err(kube::Error::Api(status)) if status.code == 409 => {}
//!     Err(error) => return Err(error.into()),
//! }
//! println!("{:?}", pods.get("one").await?.status);
//! ```
//!
//! There are three differences. A VMM has one VM, so no method takes a name. The kind of an error is typed, because the
//! same error has other statuses on other releases. Events are read from the event monitor and not from the API:
//!
//! ```no_run
//! # use chv_sandbox::client::EventMonitor;
//! # use futures_util::StreamExt;
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut events = EventMonitor::open("/run/vmm/events")?;
//! while let Some(event) = events.next().await {
//!     println!("{:?}", event?);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! ```text
//! let mut events = docker.events(None::<EventsOptions>); // bollard
//! while let Some(event) = events.next().await {
//!     println!("{:?}", event?);
//! }
//! let mut events = watcher(pods, watcher::Config::default()).boxed(); // kube
//! while let Some(event) = events.try_next().await? {
//!     println!("{event:?}");
//! }
//! ```
//!
//! # What a VMM can make a client hold
//!
//! An answer has at most 1 MiB, one to `vm.info` 4 MiB, and at most 131,072 values, of which at most 16,384 are objects
//! and lists. A larger one is an [`ErrorKind::Decode`]. Fields that a type doesn't have stay text
//! ([`UnknownFields`](crate::api::UnknownFields)). So a call takes 64 MiB at most, whatever the VMM answers. An error
//! keeps at most 32 messages of at most 4,096 characters, each [safe to show](crate::sanitize::line).

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
pub use config_drift::{ConfigDifference, ConfigDrift};
pub use deadline::Deadlines;
#[cfg(feature = "replay")]
pub(crate) use descriptors::{MOST_DESCRIPTORS, send_with_descriptors};
pub use error::{DeadlineOutcome, Error, ErrorKind, SocketPathTooLong};
pub(crate) use event_monitor::Decoder;
pub use event_monitor::{EventMonitor, EventMonitorError, MonitorEvent};
#[cfg(feature = "compat")]
pub(crate) use messages::is_of_http_layer;
pub use ready::{LastSeen, NotReady};

use call::{Call, Kept};

/// The largest request body that the server of v53.0 and earlier reads, in bytes.
///
/// The server refuses a larger one with status 400 and then parses the rest of the body as requests, so the client
/// never sends one (`micro_http`, seen on v51.2, v52.0 and v53.0). Later releases allow 4 MiB.
pub const BODY_LIMIT: usize = 51_200;

/// The length of a Unix socket's address, its final zero included (`sun_path` in `unix(7)`).
const SOCKET_PATH_LIMIT: usize = 108;

/// A client of one VMM's API. Clones share the connection.
///
/// There is one method for each operation of the API, named as the operation is: [`vm_info`](Client::vm_info) sends
/// `vm.info`.
///
/// Dropping a call before it has ended drops its connection too: the next call opens a new one, and never reads the
/// answer to the dropped call. The VMM may still do what the dropped call asked.
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

/// The kind of an error, from the status and the body of the answer.
#[cfg(feature = "compat")]
pub(crate) fn kind_of(operation: Operation, status: u16, body: &[u8]) -> ErrorKind {
    classify::classify(operation, status, &messages_in(body))
}

/// The messages in the body of an error, outermost cause first.
#[cfg(feature = "compat")]
pub(crate) fn messages_in(body: &[u8]) -> Vec<String> {
    messages::parse(&bytes::Bytes::copy_from_slice(body))
}

impl Client {
    /// A client of the VMM that listens on `socket`. The first call connects; the socket doesn't have to exist before
    /// it.
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

    /// The path of the api-socket, for people. The VMM of a [`Vmm`](crate::vmm::Vmm) has lost that path: connect to
    /// [`address`](Client::address).
    pub fn socket(&self) -> &Path {
        self.shared.socket.name()
    }

    /// The address to connect to, for another client of the same VMM.
    pub fn address(&self) -> &SocketAddress {
        &self.shared.socket
    }

    /// Sends `request` and waits for its answer, at most as long as the deadline of its class. The methods that are
    /// named after operations call this.
    ///
    /// If the request uses something that not every supported release has, and the VMM's release isn't known yet on
    /// this connection, the client sends `vmm.ping` first, within the same deadline. If that fails, the error's
    /// [operation](Error::operation) is `vmm.ping`. A request is sent a second time, on a new connection, only when the
    /// kept connection took nothing of it.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::NotSupported`]: the VMM would ignore a part of the request. Nothing of it was sent.
    /// - [`ErrorKind::BodyTooLarge`]: the body is larger than [`BODY_LIMIT`]. Nothing was sent.
    /// - [`ErrorKind::NoListener`], [`ErrorKind::Connect`]: there is no connection. Nothing was sent.
    /// - [`ErrorKind::Deadline`], [`ErrorKind::VmmGone`], [`ErrorKind::Decode`]: no answer came, or none that can be
    ///   read.
    /// - [`ErrorKind::Busy`] and the other kinds: the VMM answered with an error.
    pub async fn send<T>(&self, request: Request<T>) -> Result<T, Error> {
        let call = self.call(&request);
        call.refuse(&request)?;
        let mut turn = call.turn(&self.shared.kept).await?;
        let answer = call.on_kept(&mut turn).await?;
        call.finish(&request, &answer)
    }

    /// Sends `request` with open files, on a connection of its own that is closed afterwards.
    ///
    /// Only `vm.add-net`, `vm.restore` and, from v53.0 on, `vm.add-device` take files. The VMM gets duplicates, in the
    /// order given. It ignores the numbers that the body has for them.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::NotSupported`]: the operation takes no files (`vm.create` would discard them), or there are more
    ///   than 253. Nothing was sent.
    /// - Those of [`Client::send`].
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
            let release = call.release(&mut turn).await?;
            call.check(release)?;
            descriptors::check(request.operation(), taken, release)
                .map_err(|kind| call.context.refuse(kind))?;
        }
        let mut connection = call.open(fds).await?;
        let answer = call.exchange(&mut connection).await?;
        call.finish(&request, &answer)
    }

    /// Creates a VM, reads back what the VMM stored, and returns where that differs from what was sent.
    ///
    /// Legal without a VM; leaves it `Created`. No other call of this client and its clones comes between the two.
    ///
    /// A field that the VMM adds (a default, an identifier) is no difference. A difference is no error: the VM exists,
    /// and the caller decides whether to boot it.
    ///
    /// # Errors
    ///
    /// Those of [`Client::vm_create`]. If the error's [operation](Error::operation) is `vm.info`, the VM was created
    /// and couldn't be read back.
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

    /// The VMM's release, from `vmm.ping`. Legal at any time. The client asks once a connection, and keeps the answer.
    ///
    /// # Errors
    ///
    /// - [`ErrorKind::Decode`]: the version that the VMM tells isn't a release's.
    /// - Those of [`Client::send`].
    pub async fn release(&self) -> Result<Release, Error> {
        let call = self.call(&api::vmm_ping());
        let mut turn = call.turn(&self.shared.kept).await?;
        call.release(&mut turn).await
    }

    /// Sends `vmm.ping`, and keeps the release for the calls that follow on this connection.
    pub(crate) async fn ping(&self) -> Result<VmmPingResponse, Error> {
        let call = self.call(&api::vmm_ping());
        let mut turn = call.turn(&self.shared.kept).await?;
        call.ask_release(&mut turn).await.map(|(_, answer)| answer)
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
