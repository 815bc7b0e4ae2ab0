//! Open files that are sent with a request (`SCM_RIGHTS`): [`ClientStream`] receives them, [`send`] passes them on.
//!
//! A VMM accepts descriptors with any byte of a request, and gives them to the first request that is complete
//! afterwards (`micro_http`, `connection.rs`). [`ClientStream`] does the same: it keeps the descriptors while bytes are
//! read, until [`take_descriptors`](ClientStream::take_descriptors) takes them for a request.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, RecvMsg, ReturnFlags, recvmsg,
};
use tokio::io::{AsyncRead, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;

use crate::client::{MOST_DESCRIPTORS, send_with_descriptors};

/// The connection of a client. Reads its bytes and keeps the descriptors that come with them.
///
/// Dropping the connection closes the descriptors that were not taken.
#[derive(Debug)]
pub(super) struct ClientStream {
    stream: UnixStream,
    received: Vec<OwnedFd>,
}

/// Why the descriptors of a request can't be passed on. All of them are closed, and nothing more is read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct DescriptorsLost(&'static str);

impl DescriptorsLost {
    const TOO_MANY: DescriptorsLost = DescriptorsLost("more than 253 descriptors came beside it");
    const TRUNCATED: DescriptorsLost = DescriptorsLost(
        "descriptors beside it were lost (MSG_CTRUNC); this process may have too many open files: see `ulimit -n`",
    );

    /// Returns the loss of descriptors that caused `error`, if that is its cause.
    pub(super) fn of(error: &io::Error) -> Option<&DescriptorsLost> {
        error.get_ref()?.downcast_ref()
    }

    pub(super) fn reason(&self) -> &'static str {
        self.0
    }
}

impl ClientStream {
    pub(super) fn new(stream: UnixStream) -> ClientStream {
        ClientStream {
            stream,
            received: Vec::new(),
        }
    }

    /// Returns the stream, for writing.
    pub(super) fn stream(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    /// Takes the descriptors that have come since the last call, in their order.
    pub(super) fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.received)
    }
}

impl AsyncRead for ClientStream {
    /// Fails with [`DescriptorsLost`] if the kernel dropped descriptors, or if more than 253 are waiting to be taken.
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let ClientStream { stream, received } = self.get_mut();
        loop {
            ready!(stream.poll_read_ready(cx))?;
            let space = buffer.initialize_unfilled();
            let read = stream.try_io(Interest::READABLE, || {
                let mut control = [MaybeUninit::uninit(); CONTROL];
                receive(stream.as_fd(), space, &mut control)
            });
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok((count, descriptors)) => {
                    received.extend(descriptors);
                    if received.len() > MOST_DESCRIPTORS {
                        received.clear();
                        return Poll::Ready(Err(lost(DescriptorsLost::TOO_MANY)));
                    }
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

/// The size of a buffer for as many descriptors as one message can carry.
const CONTROL: usize = rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS));

/// Reads bytes, and the descriptors that come with them. The descriptors are close-on-exec.
fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    control: &mut [MaybeUninit<u8>],
) -> io::Result<(usize, Vec<OwnedFd>)> {
    // Dropping the buffer closes the descriptors that are still in it.
    let mut ancillary = RecvAncillaryBuffer::new(control);
    let RecvMsg { bytes, flags, .. } = recvmsg(
        socket,
        &mut [IoSliceMut::new(buffer)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if flags.contains(ReturnFlags::CTRUNC) {
        return Err(lost(DescriptorsLost::TRUNCATED));
    }
    let descriptors = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect();
    Ok((bytes, descriptors))
}

fn lost(lost: DescriptorsLost) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, lost)
}

/// Writes `bytes`, and sends `descriptors` with the first byte. The descriptors are closed afterwards: the receiver has
/// duplicates.
///
/// # Errors
///
/// The error of the kernel, or `InvalidInput` if there are descriptors but no bytes.
pub(super) async fn send(
    stream: &mut OwnedWriteHalf,
    bytes: &[u8],
    descriptors: Vec<OwnedFd>,
) -> io::Result<()> {
    let mut sent = 0;
    if !descriptors.is_empty() {
        if bytes.is_empty() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let stream: &UnixStream = stream.as_ref();
        sent = stream
            .async_io(Interest::WRITABLE, || {
                send_with_descriptors(stream.as_fd(), bytes, &descriptors)
            })
            .await?;
        drop(descriptors);
    }
    stream.write_all(&bytes[sent..]).await
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use tokio::io::AsyncReadExt;

    use super::*;

    /// Returns descriptors that are duplicates of one another, and the reading end of a pipe, which ends once all of
    /// them are closed.
    fn descriptors(count: usize) -> (Vec<OwnedFd>, io::PipeReader) {
        let (end, write) = io::pipe().unwrap();
        let duplicates = (0..count).map(|_| write.try_clone().unwrap().into());
        (duplicates.collect(), end)
    }

    /// Waits for the end of the pipe. Blocks for ever if a descriptor is still open.
    fn assert_closed(mut end: io::PipeReader) {
        assert_eq!(end.read(&mut [0]).unwrap(), 0);
    }

    #[tokio::test]
    async fn descriptors_of_several_messages_are_kept_in_order_until_they_are_taken() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (_read, mut write) = theirs.into_split();
        let mut client = ClientStream::new(ours);
        let files: Vec<_> = (0..3).map(|_| tempfile::tempfile().unwrap()).collect();
        let inode = |file: BorrowedFd<'_>| rustix::fs::fstat(file).unwrap().st_ino;
        let sent: Vec<_> = files.iter().map(|file| inode(file.as_fd())).collect();
        let mut files = files.into_iter().map(OwnedFd::from);
        let first = files.by_ref().take(2).collect();
        send(&mut write, b"ab", first).await.unwrap();
        send(&mut write, b"cd", Vec::new()).await.unwrap();
        send(&mut write, b"ef", files.collect()).await.unwrap();

        let mut bytes = [0; 6];
        client.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"abcdef");
        let received = client.take_descriptors();
        let got: Vec<_> = received.iter().map(|fd| inode(fd.as_fd())).collect();
        assert_eq!(got, sent);
        for descriptor in &received {
            let flags = rustix::io::fcntl_getfd(descriptor).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
        assert!(client.take_descriptors().is_empty());
    }

    #[tokio::test]
    async fn too_many_descriptors_are_refused_and_closed() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (_read, mut write) = theirs.into_split();
        let mut client = ClientStream::new(ours);
        let (mut sent, end) = descriptors(MOST_DESCRIPTORS + 1);
        let more = sent.split_off(MOST_DESCRIPTORS);
        send(&mut write, b"a", sent).await.unwrap();
        client.read_u8().await.unwrap();
        send(&mut write, b"b", more).await.unwrap();
        let error = client.read_u8().await.unwrap_err();
        assert!(DescriptorsLost::of(&error).is_some(), "{error:?}");
        assert_closed(end);
    }

    #[tokio::test]
    async fn a_truncated_message_is_refused_and_its_descriptors_are_closed() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (_read, mut write) = theirs.into_split();
        // The buffer has room for some of the descriptors.
        let (sent, end) = descriptors(20);
        send(&mut write, b"a", sent).await.unwrap();
        let mut control = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        ours.readable().await.unwrap();
        let error = receive(ours.as_fd(), &mut [0; 8], &mut control).unwrap_err();
        assert!(DescriptorsLost::of(&error).is_some(), "{error:?}");
        assert_closed(end);
    }

    #[tokio::test]
    async fn descriptors_that_are_not_taken_are_closed_with_the_connection() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (_read, mut write) = theirs.into_split();
        let mut client = ClientStream::new(ours);
        let (sent, end) = descriptors(3);
        send(&mut write, b"a", sent).await.unwrap();
        client.read_u8().await.unwrap();
        drop(client);
        assert_closed(end);
    }
}
