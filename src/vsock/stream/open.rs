//! Opens the connection of a run or transfer: [`Channel::open_run`], [`Channel::open_push`] and [`Channel::open_pull`].

use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout_at};

use super::RecordStream;
use crate::guest::protocol::{Extension, Frame, FrameType, OpenPull, OpenPush, OpenRun};
use crate::guest::record::RecordKind;
use crate::sanitize;
use crate::vsock::codec::FrameReader;
use crate::vsock::connection::Connection;
use crate::vsock::run::{RUN_TO_HOST, RunStream};
use crate::vsock::{Channel, CloseCause, Error, Origin, Violation, handshake};

/// The code with which a guest refuses a run or transfer because it serves too many already.
const TOO_MANY: &str = "SANDBOX_TOO_MANY_STREAMS";

/// The most characters that are kept of the code and the message of a refusal.
const MAX_CODE: usize = 256;
const MAX_MESSAGE: usize = 4096;

impl Channel {
    /// Runs a tool with streams, on a connection of its own. If the guest doesn't have the tool or refuses it, this
    /// succeeds, and the run ends at once with the reason. If the returned future is dropped, the guest kills the tool.
    ///
    /// # Errors
    ///
    /// With these errors the guest has got no request:
    ///
    /// - [`Error::NotAnnounced`] if the guest hasn't listed [`Extension::Run`] on this channel
    /// - [`Error::RequestTooLarge`] if the request doesn't fit a frame
    /// - [`Error::DuplicateRequest`] if a command or run with this id is in flight or timed out
    /// - [`Error::Handshake`] if no connection could be made
    /// - the reason why the channel is closed
    ///
    /// With these errors the guest has refused and runs nothing:
    ///
    /// - [`Error::TooManyStreams`] if the guest serves too many runs and transfers already
    /// - [`Error::Refused`] for any other reason
    ///
    /// With any other error, such as [`Error::NoAnswer`], [`Error::Closed`] or [`Error::Protocol`], the guest may have
    /// started the tool. It kills the tool, since the connection is closed.
    pub async fn open_run(&self, open: OpenRun) -> Result<RunStream, Error> {
        let name = self.connection().name_run(&open.command_id)?;
        let piped = open.stdin;
        let (stream, frame) = self
            .open_stream(Extension::Run, &Frame::OpenRun(open), &RUN_TO_HOST)
            .await?;
        Ok(RunStream::new(stream, piped, &frame, name))
    }

    /// Opens a connection that transfers files into the guest.
    ///
    /// # Errors
    ///
    /// As [`open_run`](Self::open_run), but with [`Extension::Files`] and without [`Error::DuplicateRequest`].
    pub async fn open_push(&self, open: OpenPush) -> Result<RecordStream, Error> {
        let admitted = &[RecordKind::End];
        let frame = Frame::OpenPush(open);
        let opened = self.open_stream(Extension::Files, &frame, admitted).await?;
        Ok(opened.0)
    }

    /// Opens a connection that transfers files out of the guest.
    ///
    /// # Errors
    ///
    /// As [`open_run`](Self::open_run), but with [`Extension::Files`] and without [`Error::DuplicateRequest`].
    pub async fn open_pull(&self, open: OpenPull) -> Result<RecordStream, Error> {
        let admitted = &[RecordKind::Data, RecordKind::EndOfData, RecordKind::End];
        let frame = Frame::OpenPull(open);
        let opened = self.open_stream(Extension::Files, &frame, admitted).await?;
        Ok(opened.0)
    }

    /// Connects, sends the first frame, and waits for its answer. Returns the connection, and the encoded frame.
    async fn open_stream(
        &self,
        extension: Extension,
        frame: &Frame,
        admitted: &'static [RecordKind],
    ) -> Result<(RecordStream, Vec<u8>), Error> {
        let connection = self.connection();
        if let Some(reason) = connection.closed() {
            return Err(reason);
        }
        if !connection.announces(extension) {
            return Err(Error::NotAnnounced {
                origin: connection.origin().clone(),
                extension: extension.name(),
            });
        }
        let bytes = connection.encoded(frame)?;
        let limit = connection.route().limits.handshake;
        let began = Instant::now();
        let stream = handshake::connect_once(connection.route(), limit).await?;
        let origin = connection.origin().of_another();
        let opened = timeout_at(began + limit, open(connection, &origin, stream, &bytes));
        match opened.await {
            Ok(opened) => {
                let (stream, come) = opened?;
                let stream = RecordStream::on(stream, origin, admitted, &come);
                Ok((stream, bytes))
            }
            Err(_) => Err(Error::NoAnswer {
                origin,
                request: frame.name(),
                waited: limit,
            }),
        }
    }
}

/// Sends the first frame and reads its answer. Returns the stream, and the bytes that were read after the answer.
async fn open(
    connection: &Connection,
    origin: &Origin,
    mut stream: UnixStream,
    frame: &[u8],
) -> Result<(UnixStream, Vec<u8>), Error> {
    let closed = |source| Error::Closed {
        origin: origin.clone(),
        source,
    };
    let written = stream.write_all(frame).await;
    written.map_err(|error| closed(CloseCause::Io(Arc::new(error))))?;
    let limits = &connection.route().limits;
    let mut reader = FrameReader::new(stream, limits.frame_idle, limits.frame_total);
    let answer = reader.next(&|frame_type, _| match frame_type {
        FrameType::Opened | FrameType::ErrorEvent => Ok(frame_type.limit_at_host().unwrap_or(0)),
        other => Err(Violation::NotOpened {
            frame: other.name(),
        }),
    });
    let answer = answer
        .await
        .map_err(|error| Error::reading(origin, error))?;
    match answer {
        Some(Frame::Opened(_)) => Ok(reader.into_parts()),
        Some(Frame::ErrorEvent(event)) if event.code == TOO_MANY => Err(Error::TooManyStreams {
            origin: origin.clone(),
        }),
        Some(Frame::ErrorEvent(event)) => Err(Error::Refused {
            origin: origin.clone(),
            code: sanitize::line(&event.code, MAX_CODE),
            message: sanitize::line(&event.message, MAX_MESSAGE),
        }),
        Some(other) => Err(Error::Protocol {
            origin: origin.clone(),
            source: Violation::NotOpened {
                frame: other.name(),
            },
        }),
        None => Err(closed(CloseCause::Peer)),
    }
}
