//! The error of a call ([`Error`]), whose kind says what the caller can do next.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::transport::{Answer, Failure};
use super::{Release, classify, messages};
use crate::api::{Method, Operation};
use crate::socket::SocketAddress;

/// A call failed. Its [`kind`](Error::kind) says what the caller can do next. The operation, the socket, the status,
/// the server's messages and the source are the evidence.
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

/// The kind of a failed call, by what the caller can do next.
///
/// An error has the same kind on every supported release, although their statuses differ.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// There is no VM. `vm.create` or `vm.restore` comes first.
    ///
    /// The VMM also answers so to `vm.reboot` of a VM that is created and not booted.
    #[error("no VM is created")]
    NotCreated,
    /// There is a VM already. `vm.delete` comes first.
    #[error("a VM is created already")]
    AlreadyCreated,
    /// The VM's state doesn't allow this; `vm.info` tells the state. The calls that need a running VM, such as
    /// `vm.pause` and `vm.counters`, are answered so where there is no VM at all.
    #[error("the VM's state does not allow it")]
    WrongState,
    /// The VMM can't take this now: an earlier resize is not done, the VM is migrating, or too many connections
    /// are open. Nothing was changed; try again later.
    #[error("the VMM is busy; try again later")]
    Busy,
    /// Another process holds the lock of a disk image. Often it is an earlier VMM that has not ended.
    #[error("a disk image is locked by another process")]
    LockConflict,
    /// The VMM refused the request or failed to do it; the [messages](Error::messages) say why. After a failed
    /// `vm.boot`, delete the VM and create it again: the device that failed is gone from the stored configuration.
    #[error("the VMM refused it")]
    Rejected,
    /// The VMM can't do this at all, or would ignore it without a word.
    ///
    /// `/memory_restore_mode in vm.restore` names the field at that JSON pointer of the request's body.
    /// [`Request::unchecked`](crate::api::Request::unchecked) makes a request that is sent all the same.
    #[error("{what} is not supported{}", Versions { since: *.since, until: *.until, server: *.server })]
    NotSupported {
        /// The operation, the fields or the values that the VMM lacks; at most eight by name.
        what: String,
        /// The first supported release that has all of that. None if the oldest has it, or no release does.
        since: Option<Release>,
        /// The last supported release that has all of that. None if the newest has it, or no release does.
        until: Option<Release>,
        /// The release of the VMM, where the client asked for it.
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
    /// No process listens on the socket: it doesn't exist, or it refuses connections. The VMM is not up yet, has ended,
    /// or listens elsewhere. Nothing was sent. [`Client::wait_until_ready`](super::Client::wait_until_ready) waits for
    /// a VMM.
    #[error("no VMM listens there; check the path, and try again if the VMM is still starting")]
    NoListener,
    /// The connection ended before a whole answer, or the VMM said that its own threads are gone. The VMM may still
    /// have done the call: after `vmm.shutdown` it often exits before its answer is out.
    #[error("the VMM is gone or ended the connection")]
    VmmGone,
    /// The client couldn't connect for a reason on its own side, such as a missing permission or too many open files.
    /// Nothing was sent.
    #[error("the api-socket can't be connected to")]
    Connect,
    /// The call's [deadline](super::Deadlines) passed. The connection was dropped.
    #[error("the deadline passed; {outcome}")]
    Deadline {
        /// Whether the request was sent.
        outcome: DeadlineOutcome,
    },
    /// An answer came that can't be read, or that is larger than an answer to this operation can be. If its status is
    /// 200 or 204, the VMM did what the call asked.
    #[error("the answer can't be read")]
    Decode,
}

/// Whether a request whose deadline passed was sent, and whether it may have been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadlineOutcome {
    /// Nothing of the request was sent. It can be sent again.
    NotSent,
    /// The request was sent, and only reads. It can be sent again.
    ReadOnly,
    /// The request was sent and changes something. The VMM may or may not have done it: read `vm.info` before anything
    /// else.
    Unknown,
}

impl DeadlineOutcome {
    pub(super) fn of(operation: Operation, sent: bool) -> DeadlineOutcome {
        match (sent, operation.method()) {
            (false, _) => DeadlineOutcome::NotSent,
            (true, Method::Get) => DeadlineOutcome::ReadOnly,
            (true, Method::Put) => DeadlineOutcome::Unknown,
        }
    }
}

impl fmt::Display for DeadlineOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeadlineOutcome::NotSent => "nothing was sent",
            DeadlineOutcome::ReadOnly => "nothing was changed",
            DeadlineOutcome::Unknown => "whether it was done is unknown",
        })
    }
}

impl Error {
    /// The kind of the error.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// The operation that failed. It is `vmm.ping` if the client asked for the release first and that failed.
    pub fn operation(&self) -> Operation {
        self.0.operation
    }

    /// The path of the api-socket.
    pub fn socket(&self) -> &Path {
        &self.0.socket
    }

    /// The HTTP status, where an answer came. Releases answer the same error with different statuses: decide by
    /// [`kind`](Error::kind).
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// The server's own messages, outermost cause first. Empty where the answer has none, or no answer came. At most
    /// 32, each a [line](crate::sanitize::line) of at most 4,096 characters.
    pub fn messages(&self) -> &[String] {
        &self.0.messages
    }

    /// Whether the same request may be sent again: it changed nothing, and it may succeed later although the caller
    /// changes nothing.
    ///
    /// True for [`Busy`](ErrorKind::Busy), for [`NoListener`](ErrorKind::NoListener), for a
    /// [`Deadline`](ErrorKind::Deadline) whose outcome is not [`Unknown`](DeadlineOutcome::Unknown), and for a
    /// [`Connect`](ErrorKind::Connect) that failed for want of descriptors or memory, which other work may free.
    pub fn is_retryable(&self) -> bool {
        match self.0.kind {
            ErrorKind::Busy | ErrorKind::NoListener => true,
            ErrorKind::Deadline { outcome } => outcome != DeadlineOutcome::Unknown,
            ErrorKind::Connect => self.lacks_resources(),
            _ => false,
        }
    }

    /// The kernel's error of the attempt to connect. None if the call failed in another way.
    pub(super) fn connect_failure(&self) -> Option<io::ErrorKind> {
        self.io_error().map(io::Error::kind)
    }

    fn io_error(&self) -> Option<&io::Error> {
        self.0.source.as_deref()?.downcast_ref()
    }

    /// Whether this process or host had no descriptor or no memory left at that moment.
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

/// A path is too long for the address of a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the socket's path {} has {} bytes, and a Unix socket's must have fewer than 108; use a shorter directory",
    socket.display(), socket.as_os_str().len()
)]
pub struct SocketPathTooLong {
    /// The path.
    pub socket: PathBuf,
}

/// The facts that every error of one call carries.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) operation: Operation,
    pub(super) socket: &'a SocketAddress,
    pub(super) limit: Duration,
}

impl Context<'_> {
    /// The client refuses the request before it sends anything.
    pub(super) fn refuse(&self, kind: ErrorKind) -> Error {
        self.error(kind, None, Vec::new(), None)
    }

    /// No connection could be made.
    pub(super) fn connect(&self, error: io::Error) -> Error {
        let kind = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ErrorKind::NoListener,
            // The listener was closed while the connection waited in its queue.
            io::ErrorKind::ConnectionReset => ErrorKind::NoListener,
            // The listener's queue is full.
            io::ErrorKind::WouldBlock => ErrorKind::Busy,
            _ => ErrorKind::Connect,
        };
        self.error(kind, None, Vec::new(), Some(error.into()))
    }

    /// The deadline passed.
    pub(super) fn deadline(&self, outcome: DeadlineOutcome) -> Error {
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
    fn the_failure_of_a_connection_has_its_kind() {
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
