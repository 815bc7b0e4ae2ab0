//! A connection to a VMM, for one request and its answer.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::pin;

use tokio::io::{AsyncWrite, AsyncWriteExt, sink};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::descriptors::{self, ClientStream};
use super::wire::{RawResponse, Reader, RequestHead};

/// A connection to a VMM, for one request and its answer.
///
/// Interim responses (1xx) that come before the answer are passed on to the client, byte for byte and at once.
pub(super) struct Upstream {
    reader: Reader<OwnedReadHalf>,
    // Lives as long as the connection: a VMM loses the response when the writing half is shut.
    writer: OwnedWriteHalf,
}

/// The answer to a request; `None` when the VMM closed without a whole one.
///
/// Its errors: `InvalidData` when what came is not HTTP/1.1 with a length, or is too large; any other when the request
/// couldn't be sent.
pub(super) type Reply = io::Result<Option<RawResponse>>;

/// What came first after a request's head.
pub(super) enum First {
    /// The whole of its body, from the client.
    Body,
    /// The answer, from the VMM.
    Answer(Reply),
}

/// Sends a request on a connection of its own and reads its answer; interim responses before it are skipped.
///
/// # Errors
///
/// Why the socket can't be connected to, and those of a [`Reply`].
pub(crate) async fn exchange(socket: &Path, request: &[u8]) -> Reply {
    let mut upstream = Upstream::connect(socket).await?;
    upstream.ask(request, Vec::new(), &mut sink()).await
}

impl Upstream {
    pub(super) async fn connect(socket: &Path) -> io::Result<Upstream> {
        let (read, writer) = UnixStream::connect(socket).await?.into_split();
        Ok(Upstream {
            reader: Reader::new(read),
            writer,
        })
    }

    /// Sends the last bytes of a request, `descriptors` with the first of them, and waits for the answer.
    ///
    /// Reads while it writes: a VMM answers a body that is too large without reading it to its end, and it may close
    /// before that; what it said is still there to be read.
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

    /// Sends a request's head, and waits until its body has come from the client, who may wait for an interim response
    /// before it sends one, or the VMM has answered without the body.
    ///
    /// # Errors
    ///
    /// As for [`Reader::request_head`], when the client fails.
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

/// Sends as much as the VMM takes: what it said before it closed is still there to be read.
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
    // The client may be gone. What the VMM does with its request is recorded all the same.
    let _ = client.write_all(&interim.bytes).await;
}

/// A connection that ended is no error here: it is one of the things that a VMM does.
fn reply(response: Reply) -> Reply {
    match response {
        Err(error) if error.kind() != io::ErrorKind::InvalidData => Ok(None),
        response => response,
    }
}
