//! What went wrong with a call, by what the caller can do next.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::transport::{Answer, Failure};
use super::{Release, classify, messages};
use crate::api::{Method, Operation};
use crate::socket::SocketAddress;

/// A call that failed: its [`kind`](Error::kind) says what to do next, the rest is the evidence.
#[derive(Debug)]
pub struct Error(Box<Evidence>);

#[derive(Debug)]
struct Evidence {
    kind: ErrorKind,
    operation: Operation,
    socket: PathBuf,
    status: Option<u16>,
    messages: Vec<String>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What a failed call means for the caller.
///
/// The same on every supported release, although their statuses differ: see `classify.rs`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no VM. `vm.create` or `vm.restore` comes first.
    ///
    /// `vm.reboot` of a VM that is created but not booted is answered so too.
    #[error("no VM is created")]
    NotCreated,
    /// There is a VM already. `vm.delete` comes first.
    #[error("a VM is created already")]
    AlreadyCreated,
    /// The VM is not in a state that allows this; `vm.info` tells the state. Without any VM, the calls that need
    /// a running one (such as `vm.pause` and `vm.counters`) are answered so.
    #[error("the VM's state does not allow it")]
    WrongState,
    /// The VMM can't take this now: an earlier resize is not done, the VM is migrating, or too many connections
    /// are open. Nothing was changed; try again later.
    #[error("the VMM is busy; try again later")]
    Busy,
    /// Another process, often a VMM that was thought dead, holds the lock of a disk image.
    #[error("a disk image is locked by another process")]
    LockConflict,
    /// The VMM refused or failed the request for a reason of its own; the messages say which. After a failed
    /// `vm.boot`, delete the VM and create it again: the device that failed is gone from the stored configuration.
    #[error("the VMM refused it")]
    Rejected,
    /// The VMM can't do this at all, or would ignore it without a word.
    ///
    /// What was asked for is named with its place: `/memory_restore_mode in vm.restore` is the field at that JSON
    /// pointer of the request's body. [`Request::unchecked`](crate::api::Request::unchecked) sends it all the same.
    #[error("{what} is not supported{}", Versions { since: *.since, until: *.until, server: *.server })]
    NotSupported {
        /// What was asked for; of several things, all of the first few.
        what: String,
        /// The first supported release that has all of it. None if the oldest has it, or none does.
        since: Option<Release>,
        /// The last supported release that has all of it. None if the newest has it, or none does.
        until: Option<Release>,
        /// The release of the VMM that was asked, where it had to be known.
        server: Option<Release>,
    },
    /// The request's body is larger than what the server reads; it was not sent.
    #[error("the request's body has {length} bytes, and the server reads at most {limit}")]
    BodyTooLarge {
        /// In bytes.
        length: usize,
        /// In bytes: [`BODY_LIMIT`](super::BODY_LIMIT).
        limit: usize,
    },
    /// No process listens on the socket: it doesn't exist yet, or it refuses connections. The VMM is not up yet, has
    /// ended, or listens elsewhere. Nothing was sent.
    #[error("no VMM listens there; check the path, and try again if the VMM is still starting")]
    NoListener,
    /// The connection ended before a whole answer, or the VMM said that its own threads are gone. A call that
    /// changes something may still have been done; `vmm.shutdown` may well have.
    #[error("the VMM is gone or ended the connection")]
    VmmGone,
    /// The socket couldn't be connected to for a reason on this side, such as a missing permission or too
    /// many open files. Nothing was sent.
    #[error("the api-socket can't be connected to")]
    Connect,
    /// The call's time ran out. The connection was dropped.
    #[error("the deadline passed; {outcome}")]
    Deadline {
        /// What is known of the request.
        outcome: Outcome,
    },
    /// An answer came and can't be read, or is larger than an answer to this operation can be. Of a call that changes something, a status of 200 or 204 says that it
    /// was done.
    #[error("the answer can't be read")]
    Decode,
}

/// What is known of a request whose deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing of it was sent. It can be sent again.
    NotSent,
    /// It was sent, and only reads. It can be sent again.
    ReadOnly,
    /// It was sent, changes something, and may or may not have been done. Ask (`vm.info`) before anything else.
    Unknown,
}

impl Outcome {
    pub(super) fn of(operation: Operation, sent: bool) -> Outcome {
        match (sent, operation.method()) {
            (false, _) => Outcome::NotSent,
            (true, Method::Get) => Outcome::ReadOnly,
            (true, Method::Put) => Outcome::Unknown,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::NotSent => "nothing was sent",
            Outcome::ReadOnly => "nothing was changed",
            Outcome::Unknown => "whether it was done is unknown",
        })
    }
}

impl Error {
    /// What to do next.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// What was asked.
    pub fn operation(&self) -> Operation {
        self.0.operation
    }

    /// Of whom.
    pub fn socket(&self) -> &Path {
        &self.0.socket
    }

    /// The HTTP status, when an answer came. It differs among releases for the same error: decide by
    /// [`kind`](Error::kind).
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// The server's own words, outermost cause first; empty when it said nothing. At most 32, each a
    /// [line](crate::sanitize::line) of at most 4,096 characters.
    pub fn messages(&self) -> &[String] {
        &self.0.messages
    }

    /// Whether the same request may be sent again as it is: it changed nothing, and may succeed later without a
    /// change on the caller's side.
    ///
    /// True of [`Busy`](ErrorKind::Busy), of [`NoListener`](ErrorKind::NoListener), of a
    /// [`Deadline`](ErrorKind::Deadline) whose outcome is not [`Unknown`](Outcome::Unknown), and of a
    /// [`Connect`](ErrorKind::Connect) for want of descriptors or memory, which other work may free.
    pub fn is_retryable(&self) -> bool {
        match self.0.kind {
            ErrorKind::Busy | ErrorKind::NoListener => true,
            ErrorKind::Deadline { outcome } => outcome != Outcome::Unknown,
            ErrorKind::Connect => self.lacks_resources(),
            _ => false,
        }
    }

    /// What the kernel said to the attempt to connect, of a call that had no connection.
    pub(super) fn connect_failure(&self) -> Option<io::ErrorKind> {
        self.io_error().map(io::Error::kind)
    }

    fn io_error(&self) -> Option<&io::Error> {
        self.0.source.as_deref()?.downcast_ref()
    }

    /// Whether the cause is a resource of this process or host that was used up at that moment.
    fn lacks_resources(&self) -> bool {
        let number = self.io_error().and_then(io::Error::raw_os_error);
        number.is_some_and(|number| {
            [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS].contains(&number)
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Evidence {
            kind,
            operation,
            socket,
            ..
        } = &*self.0;
        write!(f, "{operation} on {}: {kind}", socket.display())?;
        if let Some(status) = self.0.status {
            write!(f, " (status {status}")?;
            for message in &self.0.messages {
                write!(f, ": {message}")?;
            }
            write!(f, ")")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let source = self.0.source.as_deref()?;
        Some(source)
    }
}

/// A path that can't be the address of a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the socket's path {} has {} bytes, and a Unix socket's must have fewer than 108; use a shorter directory",
    socket.display(), socket.as_os_str().len()
)]
pub struct SocketPathTooLong {
    /// The path.
    pub socket: PathBuf,
}

/// What every error of one call carries.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) operation: Operation,
    pub(super) socket: &'a SocketAddress,
    pub(super) limit: Duration,
}

impl Context<'_> {
    /// The request is refused here, before anything is sent.
    pub(super) fn refuse(&self, kind: ErrorKind) -> Error {
        self.error(kind, None, Vec::new(), None)
    }

    /// No connection could be made.
    pub(super) fn connect(&self, error: io::Error) -> Error {
        let kind = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ErrorKind::NoListener,
            // The connection waited in the queue of a listener that was closed before it took it.
            io::ErrorKind::ConnectionReset => ErrorKind::NoListener,
            // The listener's queue is full.
            io::ErrorKind::WouldBlock => ErrorKind::Busy,
            _ => ErrorKind::Connect,
        };
        self.error(kind, None, Vec::new(), Some(error.into()))
    }

    /// The deadline passed.
    pub(super) fn deadline(&self, outcome: Outcome) -> Error {
        let elapsed = Elapsed { limit: self.limit };
        let kind = ErrorKind::Deadline { outcome };
        self.error(kind, None, Vec::new(), Some(elapsed.into()))
    }

    /// No whole answer came.
    pub(super) fn broken(&self, failure: Failure) -> Error {
        let kind = match failure {
            Failure::TurnedAway(_) => ErrorKind::Busy,
            Failure::Ended(_) => ErrorKind::VmmGone,
            Failure::Malformed(_) | Failure::TooLarge { .. } | Failure::TooManyValues(_) => {
                ErrorKind::Decode
            }
        };
        self.error(kind, None, Vec::new(), Some(failure.into()))
    }

    /// The VMM answered with an error.
    pub(super) fn refused(&self, answer: &Answer) -> Error {
        let messages = messages::parse(&answer.body);
        let kind = classify::classify(self.operation, answer.status, &messages);
        self.error(kind, Some(answer.status), messages, None)
    }

    /// The VMM answered with a success that can't be read.
    pub(super) fn decode(
        &self,
        status: u16,
        error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        let kind = ErrorKind::Decode;
        self.error(kind, Some(status), Vec::new(), Some(error.into()))
    }

    fn error(
        &self,
        kind: ErrorKind,
        status: Option<u16>,
        messages: Vec<String>,
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error(Box::new(Evidence {
            kind,
            operation: self.operation,
            socket: self.socket.name().to_owned(),
            status,
            messages,
            source,
        }))
    }
}

/// The cause of [`ErrorKind::Deadline`].
#[derive(Debug, thiserror::Error)]
#[error("no answer within {limit:?}")]
struct Elapsed {
    limit: Duration,
}

/// The end of the sentence of [`ErrorKind::NotSupported`].
struct Versions {
    since: Option<Release>,
    until: Option<Release>,
    server: Option<Release>,
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(server) = self.server {
            write!(f, " by {server}")?;
        }
        match (self.since, self.until) {
            (None, None) => Ok(()),
            (Some(since), None) => write!(f, "; it came with {since}"),
            (None, Some(until)) => write!(f, "; {until} was the last to have it"),
            (Some(since), Some(until)) => write!(f, "; only {since} to {until} have it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_fails_tells_who_is_to_blame() {
        let context = Context {
            operation: Operation::VmmPing,
            socket: &"/run/vmm.sock".into(),
            limit: Duration::from_secs(1),
        };
        let check = |failure: io::ErrorKind, expected: ErrorKind| {
            assert_eq!(
                *context.connect(failure.into()).kind(),
                expected,
                "{failure}"
            );
        };
        check(io::ErrorKind::NotFound, ErrorKind::NoListener);
        check(io::ErrorKind::ConnectionRefused, ErrorKind::NoListener);
        check(io::ErrorKind::ConnectionReset, ErrorKind::NoListener);
        check(io::ErrorKind::WouldBlock, ErrorKind::Busy);
        check(io::ErrorKind::PermissionDenied, ErrorKind::Connect);
    }
}
