//! [`VmmConnection`]: a connection to a VMM, for one request and its answer.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::pin;

use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::descriptors::{self, ClientStream};
use super::wire::{RawResponse, Reader, RequestHead};

/// A connection to a VMM, for one request and its answer.
///
/// Interim responses (1xx) that come before the answer are passed on to the client at once, byte for byte.
pub(super) struct VmmConnection {
    reader: Reader<OwnedReadHalf>,
    // Kept open until the answer has come: a VMM drops the response if the client shuts its writing half down.
    writer: OwnedWriteHalf,
}

/// The answer to a request. `None` if the VMM closed the connection before it sent a whole answer.
///
/// The error is `InvalidData` if the VMM sent something that is not HTTP/1.1 with a length, or is too large. Any other
/// error means that the request couldn't be sent.
pub(super) type Reply = io::Result<Option<RawResponse>>;

/// The first event after the head of a request was sent.
pub(super) enum First {
    /// The client sent the whole body.
    Body,
    /// The VMM sent its answer.
    Answer(Reply),
}

/// Sends a request on a connection of its own and reads the answer. Interim responses are skipped.
///
/// # Errors
///
/// The error of connecting to the socket, or an error of [`Reply`].
#[cfg(feature = "compat")]
pub(crate) async fn exchange(socket: &Path, request: &[u8]) -> Reply {
    let mut upstream = VmmConnection::connect(socket).await?;
    upstream
        .ask(request, Vec::new(), &mut tokio::io::sink())
        .await
}

impl VmmConnection {
    pub(super) async fn connect(socket: &Path) -> io::Result<VmmConnection> {
        let (read, writer) = UnixStream::connect(socket).await?.into_split();
        Ok(VmmConnection {
            reader: Reader::new(read),
            writer,
        })
    }

    /// Sends the last bytes of a request, with `descriptors` at the first byte, and waits for the answer.
    ///
    /// It reads while it writes: a VMM answers a body that is too large without reading all of it, and may then close
    /// the connection. The answer can still be read.
    pub(super) async fn ask(
        &mut self,
        bytes: &[u8],
        descriptors: Vec<OwnedFd>,
        client: &mut (impl AsyncWrite + Unpin),
    ) -> Reply {
        let mut sending = pin!(async {
            match send(&mut self.writer, bytes, descriptors).await {
                Ok(()) => std::future::pending().await,
                Err(error) => error,
            }
        });
        loop {
            let response = tokio::select! {
                response = self.reader.response() => response,
                error = &mut sending => return Err(error),
            };
            match response {
                Ok(Some(interim)) if interim.is_interim() => pass_on(&interim, client).await,
                response => return reply(response),
            }
        }
    }

    /// Sends the head of a request, and waits for the first of two events: the client has sent the body, or the VMM has
    /// answered without it. The client may wait for an interim response before it sends the body.
    ///
    /// # Errors
    ///
    /// As [`Reader::request_head`], if the client fails.
    pub(super) async fn ask_for_body(
        &mut self,
        client: &mut Reader<ClientStream>,
        head: &RequestHead,
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<First> {
        let bytes = client.bytes_of(head).to_vec();
        if let Err(error) = send(&mut self.writer, &bytes, descriptors).await {
            return Ok(First::Answer(Err(error)));
        }
        loop {
            let response = tokio::select! {
                body = client.await_body(head) => {
                    body?;
                    return Ok(First::Body);
                }
                response = self.reader.response() => response,
            };
            match response {
                Ok(Some(interim)) if interim.is_interim() => {
                    pass_on(&interim, client.get_mut().stream()).await;
                }
                response => return Ok(First::Answer(reply(response))),
            }
        }
    }
}

/// Sends the bytes. A connection that the VMM closed is no error here: an answer that it sent before can still be read.
async fn send(
    writer: &mut OwnedWriteHalf,
    bytes: &[u8],
    descriptors: Vec<OwnedFd>,
) -> io::Result<()> {
    match descriptors::send(writer, bytes, descriptors).await {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
            ) =>
        {
            Ok(())
        }
        sent => sent,
    }
}

async fn pass_on(interim: &RawResponse, client: &mut (impl AsyncWrite + Unpin)) {
    // The client may have closed its connection. The request is recorded all the same.
    let _ = client.write_all(&interim.bytes).await;
}

/// Returns `None` if the VMM ended the connection. That is not an error: it is recorded as the answer.
fn reply(response: Reply) -> Reply {
    match response {
        Err(error) if error.kind() != io::ErrorKind::InvalidData => Ok(None),
        response => response,
    }
}
