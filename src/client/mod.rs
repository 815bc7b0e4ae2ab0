//! The client of the VMM's REST API: sends a [`Request`] over the api-socket and says what came of it.
//!
//! - [`Client`] keeps one connection to one VMM, because the server serves at most ten and answers on one
//!   thread. Calls queue behind each other; a connection found closed before anything was sent is opened anew.
//! - Every call has a deadline by its class ([`Deadlines`]). After it the connection is dropped, so that a late
//!   answer can't be taken for the next one's.
//! - [`Error`] says by its [`ErrorKind`] what to do next, and keeps the server's own words as evidence.
//! - [`Release`] is the VMM's version, learnt from `vmm.ping`.
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

mod classify;
mod deadline;
mod descriptors;
mod error;
mod messages;

mod transport;

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout_at};

use crate::api::{self, Request};

pub use crate::api::{ParseReleaseError, Release};
pub use deadline::Deadlines;
pub use error::{Error, ErrorKind, Outcome, SocketPathTooLong};

use error::Context;
use transport::{Answer, Connection};

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
    socket: PathBuf,
    /// The kept connection; none before the first call and after one that left it in an unknown state.
    kept: Mutex<Option<Kept>>,
}

/// A connection between calls, with what was learnt of the VMM at its other end.
struct Kept {
    connection: Connection,
    release: Option<Release>,
}

impl Client {
    /// A client of the VMM that listens on `socket`. Nothing is opened before the first call.
    ///
    /// # Errors
    ///
    /// [`SocketPathTooLong`] when the path can't be a Unix socket's address: 108 bytes or more.
    pub fn new(socket: impl Into<PathBuf>) -> Result<Client, SocketPathTooLong> {
        let socket = socket.into();
        if socket.as_os_str().as_bytes().len() >= SOCKET_PATH_LIMIT {
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

    /// The path of the api-socket.
    pub fn socket(&self) -> &Path {
        &self.shared.socket
    }

    /// Sends `request` and waits for its answer, at most as long as the deadline of its class.
    ///
    /// A request is sent again on a new connection only when nothing of it had been sent on the kept one.
    ///
    /// # Errors
    ///
    /// Any [`ErrorKind`]; see there for what to do next.
    pub async fn send<T>(&self, request: Request<T>) -> Result<T, Error> {
        let call = self.call(&request);
        descriptors::refuse_in_body(request.operation(), request.body())
            .map_err(|kind| call.context.refuse(kind))?;
        let mut turn = call.turn(&self.shared).await?;
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
        let since = descriptors::taken_since(request.operation(), fds.len())
            .map_err(|kind| call.context.refuse(kind))?;
        if let Some(since) = since {
            let server = self.release().await?;
            if server < since {
                return Err(call.context.refuse(ErrorKind::NotSupported {
                    what: format!("{} with a descriptor", request.operation()),
                    since: Some(since),
                    server: Some(server),
                }));
            }
        }
        let fds = fds
            .iter()
            .map(|fd| fd.try_clone_to_owned())
            .collect::<Result<Vec<OwnedFd>, _>>()
            .map_err(|error| call.context.connect(error))?;
        // Calls stay in order although this one has a connection of its own.
        let _turn = call.turn(&self.shared).await?;
        let mut connection = call.open(fds).await?;
        let answer = call.exchange(&mut connection).await?;
        call.finish(&request, &answer)
    }

    /// The VMM's release, from `vmm.ping`; asked once per connection.
    ///
    /// # Errors
    ///
    /// As [`Client::send`]; [`ErrorKind::Decode`] when the version isn't one.
    pub async fn release(&self) -> Result<Release, Error> {
        let ping = api::vmm_ping();
        let call = self.call(&ping);
        let mut turn = call.turn(&self.shared).await?;
        if let Some(kept) = turn.as_mut()
            && let Some(release) = kept.release
            && kept.connection.is_open()
        {
            return Ok(release);
        }
        let answer = call.on_kept(&mut turn).await?;
        let release: Release = call
            .finish(&ping, &answer)?
            .version
            .parse()
            .map_err(|error: ParseReleaseError| call.context.decode(answer.status, error))?;
        if let Some(kept) = turn.as_mut() {
            kept.release = Some(release);
        }
        Ok(release)
    }

    fn call<T>(&self, request: &Request<T>) -> Call<'_> {
        let limit = self.deadlines.of(request.operation());
        Call {
            context: Context {
                operation: request.operation(),
                socket: self.socket(),
                limit,
            },
            body: request.body().cloned().unwrap_or_default(),
            deadline: Instant::now() + limit,
        }
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

/// One call: what is asked, of whom, until when.
struct Call<'a> {
    context: Context<'a>,
    body: Bytes,
    deadline: Instant,
}

impl Call<'_> {
    /// Waits until the calls before this one have ended. A body that is too large is refused here.
    async fn turn<'s>(&self, shared: &'s Shared) -> Result<MutexGuard<'s, Option<Kept>>, Error> {
        if self.body.len() > BODY_LIMIT {
            return Err(self.context.refuse(ErrorKind::BodyTooLarge {
                length: self.body.len(),
                limit: BODY_LIMIT,
            }));
        }
        timeout_at(self.deadline, shared.kept.lock())
            .await
            .map_err(|_| self.context.deadline(Outcome::NotSent))
    }

    /// Exchanges on the kept connection, or on a new one if there is none or it was closed meanwhile.
    async fn on_kept(&self, turn: &mut Option<Kept>) -> Result<Answer, Error> {
        // Taken out for as long as the answer is owed: a call dropped half-way drops its connection too.
        if let Some(mut kept) = turn.take() {
            match self.exchange(&mut kept.connection).await {
                Ok(answer) => {
                    *turn = answer.keeps_connection().then_some(kept);
                    return Ok(answer);
                }
                Err(error)
                    if !kept.connection.has_sent()
                        && !matches!(error.kind(), ErrorKind::Deadline { .. }) =>
                {
                    tracing::debug!(socket = %self.context.socket.display(), "the kept connection was closed");
                }
                Err(error) => return Err(error),
            }
        }
        let mut connection = self.open(Vec::new()).await?;
        let answer = self.exchange(&mut connection).await?;
        *turn = answer.keeps_connection().then_some(Kept {
            connection,
            release: None,
        });
        Ok(answer)
    }

    async fn open(&self, fds: Vec<OwnedFd>) -> Result<Connection, Error> {
        timeout_at(self.deadline, Connection::open(self.context.socket, fds))
            .await
            .map_err(|_| self.context.deadline(Outcome::NotSent))?
            .map_err(|error| self.context.connect(error))
    }

    async fn exchange(&self, connection: &mut Connection) -> Result<Answer, Error> {
        let exchange = connection.exchange(self.context.operation, self.body.clone());
        match timeout_at(self.deadline, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(failure)) => Err(self.context.broken(failure)),
            Err(_) => Err(self
                .context
                .deadline(Outcome::of(self.context.operation, connection.has_sent()))),
        }
    }

    /// What the answer says, as a value or as an error.
    fn finish<T>(&self, request: &Request<T>, answer: &Answer) -> Result<T, Error> {
        if !answer.is_success() {
            return Err(self.context.refused(answer));
        }
        request
            .decode(&answer.body)
            .map_err(|error| self.context.decode(answer.status, error))
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
