//! Sends open files with a request, by `SCM_RIGHTS`.
//!
//! The server takes the files with any byte of a request. The client sends them with the first byte. hyper writes head
//! and body in one piece, so the whole request is one `sendmsg`.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Deserialize;
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::{ErrorKind, Release};
use crate::api::Operation;
use crate::api::support::Support;

/// The kernel's limit for one message, and the server's.
pub(crate) const MOST_DESCRIPTORS: usize = 253;

/// The releases in which `operation` takes descriptors: those that know the field in which the server shows them.
///
/// # Errors
///
/// [`ErrorKind::NotSupported`] when it takes none in any release, or not `count` of them.
pub(super) fn taken(operation: Operation, count: usize) -> Result<Support, ErrorKind> {
    if count > MOST_DESCRIPTORS {
        return Err(never(format!(
            "{operation} with more than {MOST_DESCRIPTORS} descriptors"
        )));
    }
    let field = match operation {
        Operation::VmAddNet => "fds",
        Operation::VmAddDevice => "fd",
        Operation::VmRestore => "net_fds",
        _ => return Err(never(format!("{operation} with descriptors"))),
    };
    let field = operation.body().and_then(|body| body.field(field));
    match field {
        Some(field) => Ok(field.support),
        None => Err(never(format!("{operation} with descriptors"))),
    }
}

/// Refuses descriptors that this release doesn't take.
pub(super) fn check(
    operation: Operation,
    taken: Support,
    server: Release,
) -> Result<(), ErrorKind> {
    match taken.includes(server) {
        true => Ok(()),
        false => Err(ErrorKind::NotSupported {
            what: format!("{operation} with a descriptor"),
            since: taken.since,
            until: taken.until,
            server: Some(server),
        }),
    }
}

/// Refuses a `vm.create` whose network devices name descriptors: the server answers 204 and drops them. `vm.add-net`
/// adds such devices afterwards.
pub(super) fn refuse_in_body(operation: Operation, body: Option<&Bytes>) -> Result<(), ErrorKind> {
    #[derive(Deserialize)]
    struct VmConfig {
        #[serde(default)]
        net: Option<Vec<NetConfig>>,
    }
    #[derive(Deserialize)]
    struct NetConfig {
        #[serde(default)]
        fds: Option<Vec<serde::de::IgnoredAny>>,
    }

    let (Operation::VmCreate, Some(body)) = (operation, body) else {
        return Ok(());
    };
    // The server refuses a body of another shape.
    let Ok(config) = serde_json::from_slice::<VmConfig>(body) else {
        return Ok(());
    };
    let nets = config.net.unwrap_or_default();
    match nets
        .iter()
        .any(|net| net.fds.as_ref().is_some_and(|f| !f.is_empty()))
    {
        true => Err(never(format!("{operation} with net[].fds"))),
        false => Ok(()),
    }
}

/// The error for something that no release supports.
fn never(what: String) -> ErrorKind {
    ErrorKind::NotSupported {
        what,
        since: None,
        until: None,
        server: None,
    }
}

/// A Unix stream whose first write carries descriptors.
pub(super) struct DescriptorStream {
    stream: TokioIo<UnixStream>,
    /// Closed as soon as they are sent: the receiver has duplicates.
    unsent: Vec<OwnedFd>,
}

impl DescriptorStream {
    /// `fds` go out with the first byte that is written.
    pub(super) fn new(stream: UnixStream, fds: Vec<OwnedFd>) -> DescriptorStream {
        DescriptorStream {
            stream: TokioIo::new(stream),
            unsent: fds,
        }
    }
}

impl Write for DescriptorStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.unsent.is_empty() {
            return Pin::new(&mut self.stream).poll_write(cx, buffer);
        }
        let stream = self.stream.inner();
        loop {
            ready!(stream.poll_write_ready(cx))?;
            match stream.try_io(Interest::WRITABLE, || {
                send_with_descriptors(stream.as_fd(), buffer, &self.unsent)
            }) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(count) => {
                    self.unsent.clear();
                    return Poll::Ready(Ok(count));
                }
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Read for DescriptorStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

/// Sends bytes and `fds` in one message, and returns how many bytes the kernel took. The kernel takes the descriptors
/// with the first byte.
pub(crate) fn send_with_descriptors(
    socket: BorrowedFd<'_>,
    buffer: &[u8],
    fds: &[OwnedFd],
) -> io::Result<usize> {
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    let rights = SendAncillaryMessage::ScmRights(&fds);
    let mut space = vec![MaybeUninit::uninit(); rights.size()];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(rights) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let count = sendmsg(
        socket,
        &[IoSlice::new(buffer)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_three_operations_take_descriptors() {
        let taking: Vec<_> = Operation::ALL
            .iter()
            .filter_map(|&operation| Some((operation.name(), taken(operation, 1).ok()?.since)))
            .collect();
        assert_eq!(
            taking,
            [
                ("vm.add-device", Some(Release::new(53, 0))),
                ("vm.add-net", None),
                ("vm.restore", None),
            ]
        );
        assert!(taken(Operation::VmAddNet, MOST_DESCRIPTORS).is_ok());
        assert!(taken(Operation::VmAddNet, MOST_DESCRIPTORS + 1).is_err());
    }

    #[test]
    fn a_created_vm_takes_no_descriptors() {
        let check = |operation: Operation, body: &'static str, refused: bool| {
            let body = Bytes::from_static(body.as_bytes());
            assert_eq!(
                refuse_in_body(operation, Some(&body)).is_err(),
                refused,
                "{operation} {body:?}"
            );
        };
        check(
            Operation::VmCreate,
            r#"{"net":[{"mac":"x"},{"fds":[3]}]}"#,
            true,
        );
        check(Operation::VmCreate, r#"{"net":[{"fds":[]}]}"#, false);
        check(Operation::VmCreate, r#"{"net":[{"fds":null}]}"#, false);
        check(Operation::VmCreate, r#"{"net":null}"#, false);
        check(Operation::VmCreate, r#"{}"#, false);
        check(Operation::VmCreate, r#"{"net":"#, false);
        check(Operation::VmAddNet, r#"{"net":[{"fds":[3]}]}"#, false);
    }
}
