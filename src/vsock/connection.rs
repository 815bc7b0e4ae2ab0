//! [`Connection`]: the state that the handles of a channel share with the one task that reads and writes its stream.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::codec::FrameReader;
use super::outbox::Outbox;
use super::pending::{Answer, Answered, Key, Pending, Refused};
use super::{
    ChannelConfig, ChannelEvent, ChannelEventKind, CloseCause, Error, EvidenceError, Origin,
    Violation,
};
use crate::broadcast::{self, Capacity};
use crate::causes::Causes;
use crate::guest::frame::encode;
use crate::guest::protocol::{ErrorEvent, Extension, Frame, FrameType};
use crate::mutex::lock;
use crate::sanitize;

/// How many events are kept for a slow receiver.
const EVENTS: Capacity = Capacity {
    count: 128,
    bytes: 8 << 20,
};

/// The largest body of a frame that answers no request in flight, in bytes. Such a frame closes the channel. It is
/// decoded nevertheless, since the error names its id.
const UNASKED: usize = 64 << 10;

/// The most characters that are kept of the code of an error event.
const ERROR_CODE: usize = 256;

/// The most characters that are kept of the message of an error event.
const ERROR_MESSAGE: usize = 4096;

/// One connection to a guest.
pub(super) struct Connection {
    origin: Origin,
    /// How connections for runs and transfers are opened to the same guest.
    route: ChannelConfig,
    pending: Mutex<Pending>,
    outbox: Outbox,
    events: broadcast::Sender<ChannelEvent>,
    /// The events since the channel was opened, for its first subscriber. Dropped when a tool is dispatched.
    early: Mutex<Option<broadcast::Receiver<ChannelEvent>>>,
    closing: Notify,
}

/// Closes its connection when it is dropped.
#[derive(Debug)]
pub(super) struct Closer(pub(super) Arc<Connection>);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.close_by_us();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("origin", &self.origin)
            .field("closed", &self.closed())
            .finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) fn new(origin: Origin, route: ChannelConfig, write: OwnedWriteHalf) -> Connection {
        let (events, early) = broadcast::channel(EVENTS);
        Connection {
            origin,
            route,
            pending: Mutex::default(),
            outbox: Outbox::new(write),
            events,
            early: Mutex::new(Some(early)),
            closing: Notify::new(),
        }
    }

    pub(super) fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(super) fn route(&self) -> &ChannelConfig {
        &self.route
    }

    /// Whether the guest's hello lists the extension.
    pub(super) fn announces(&self, extension: Extension) -> bool {
        self.pending().announces(extension)
    }

    /// Reserves the id of a run, which shares the ids of the channel's commands.
    pub(super) fn name_run(self: &Arc<Self>, command_id: &str) -> Result<RunName, Error> {
        let key = Key::Command(command_id.to_owned());
        match self.pending().name_run(&key) {
            Ok(()) => Ok(RunName {
                connection: Arc::clone(self),
                key,
            }),
            Err(Refused::Taken) => Err(self.taken(&key)),
            Err(Refused::Closed(reason)) => Err(reason),
        }
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<ChannelEvent> {
        self.take_early().unwrap_or_else(|| self.events.subscribe())
    }

    /// Drops the backlog that is kept for a first subscriber.
    pub(super) fn forget_early(&self) {
        drop(self.take_early());
    }

    fn take_early(&self) -> Option<broadcast::Receiver<ChannelEvent>> {
        lock(&self.early).take()
    }

    pub(super) fn closed(&self) -> Option<Error> {
        self.pending().closed().cloned()
    }

    /// Reads and writes until the connection is closed, and holds the reading half of the stream until then.
    pub(super) async fn serve(
        self: Arc<Self>,
        reader: FrameReader<OwnedReadHalf>,
        idle: Duration,
        total: Duration,
    ) {
        // If the runtime drops this task, the closer makes the waiting requests fail.
        let closer = Closer(self);
        let connection = &closer.0;
        let reason = tokio::select! {
            reason = connection.receive(reader) => reason,
            failure = connection.outbox.flush(idle, total) => Error::writing(&connection.origin, failure),
            () = connection.closing.notified() => return,
        };
        connection.close(&reason);
    }

    /// Sends a frame and returns the value that `read` makes of its answer; `None` after `limit`.
    pub(super) async fn request<T: Send + 'static>(
        &self,
        key: Key,
        frame: &Frame,
        limit: Duration,
        read: impl Fn(Answer) -> Option<T> + Send + 'static,
    ) -> Result<Option<T>, Error> {
        let bytes = self.encoded(frame)?;
        let expected = self.expect_answer(key, read)?;
        let exchange = async {
            self.send(bytes).await;
            expected.answer().await
        };
        timeout(limit, exchange).await.ok().transpose()
    }

    /// Encodes a frame.
    pub(super) fn encoded(&self, frame: &Frame) -> Result<Vec<u8>, Error> {
        encode(frame).map_err(|source| Error::RequestTooLarge {
            origin: self.origin.clone(),
            source,
        })
    }

    /// Registers a request whose answer is one frame. This must be done before the request is sent.
    pub(super) fn expect<T: Send + 'static>(
        &self,
        key: Key,
        read: impl Fn(Frame) -> Option<T> + Send + 'static,
    ) -> Result<Expected<'_, T>, Error> {
        self.expect_answer(key, move |answer| read(answer.frame))
    }

    fn expect_answer<T: Send + 'static>(
        &self,
        key: Key,
        read: impl Fn(Answer) -> Option<T> + Send + 'static,
    ) -> Result<Expected<'_, T>, Error> {
        let registered = self.pending().register(key.clone(), read);
        let receiver = registered.map_err(|refused| match refused {
            Refused::Taken => self.taken(&key),
            Refused::Closed(reason) => reason,
        })?;
        Ok(Expected {
            connection: self,
            key,
            receiver,
        })
    }

    /// Sends one or several whole frames with one write.
    pub(super) async fn send(&self, frames: Vec<u8>) {
        self.outbox.send(frames).await;
    }

    pub(super) fn close_by_us(&self) {
        self.close(&self.closed_by(CloseCause::Us));
    }

    /// Closes the connection, unless it is closed already.
    fn close(&self, reason: &Error) {
        if !self.pending().close(reason) {
            return;
        }
        tracing::debug!(origin = %self.origin, error = %Causes(reason), "channel closed");
        self.outbox.close();
        self.closing.notify_one();
        self.report(ChannelEventKind::Closed(reason.clone()));
    }

    /// Reads and processes frames until that is no longer possible. Returns the reason.
    async fn receive(&self, mut reader: FrameReader<OwnedReadHalf>) -> Error {
        loop {
            match reader.next(&|kind, length| self.admit(kind, length)).await {
                Ok(Some(frame)) => {
                    if let Err(source) = self.take_in(frame) {
                        return Error::Protocol {
                            origin: self.origin.clone(),
                            source,
                        };
                    }
                }
                Ok(None) => return self.closed_by(CloseCause::Peer),
                Err(failure) => return Error::reading(&self.origin, failure),
            }
        }
    }

    /// The largest body that a frame of this type may have now, or why none is allowed. If a frame of this `length`
    /// will displace events from the queue, drops them now, so that they take no memory while the frame is read.
    fn admit(&self, frame_type: FrameType, length: usize) -> Result<usize, Violation> {
        let frame = frame_type.name();
        let limit = frame_type
            .limit_at_host()
            .ok_or(Violation::WrongDirection { frame })?;
        let limit = match self.pending().expects(frame_type) {
            true => limit,
            false => limit.min(UNASKED),
        };
        if (EVENTS.bytes..=limit).contains(&length) {
            self.events.make_room(length);
        }
        Ok(limit)
    }

    /// Delivers one frame to its request, or reports it as an event.
    fn take_in(&self, frame: Frame) -> Result<(), Violation> {
        let name = frame.name();
        let key = match &frame {
            Frame::ToolResult(result) => {
                let key = Key::Command(result.command_id.clone());
                if result.details.is_some() && !self.pending().takes_details(&key) {
                    return Err(Violation::NotAnnounced {
                        frame: name,
                        id: key.shortened(),
                        extension: Extension::Result.name(),
                    });
                }
                key
            }
            Frame::GuestResponse(response) => Key::Query(response.query_id),
            Frame::Imprinted(imprinted) => Key::Request(imprinted.request_id),
            Frame::Renewed(renewed) => Key::Request(renewed.request_id),
            Frame::Hello(_) => Key::Hello,
            Frame::EvidenceChunk(chunk) => {
                let key = Key::Command(chunk.command_id.clone());
                return self.take_in_chunk(&key, frame);
            }
            Frame::ErrorEvent(event) => {
                self.take_in_error(event);
                return Ok(());
            }
            // The host sends no reset signal.
            Frame::ResetAck(ack) => {
                let id = sanitize::line(&ack.reset_id, 64);
                return Err(Violation::NeverAsked { frame: name, id });
            }
            Frame::ToolDispatch(_)
            | Frame::GuestQuery(_)
            | Frame::ResetSignal(_)
            | Frame::Imprint(_)
            | Frame::Renew(_)
            | Frame::OpenRun(_)
            | Frame::OpenPush(_)
            | Frame::OpenPull(_)
            | Frame::WarmDispatch(_) => return Err(Violation::WrongDirection { frame: name }),
            Frame::Opened(_) => return Err(Violation::OutOfPlace { frame: name }),
        };
        // A copy, for subscribers only. Reported first, so that a caller who gets the answer finds the event queued.
        if self.events.receiver_count() > 0 && self.pending().is_waiting(&key) {
            self.report(ChannelEventKind::Frame(Arc::new(frame.clone())));
        }
        let answered = self.pending().answer(&key, frame);
        let id = || key.shortened();
        match answered {
            Answered::Delivered => Ok(()),
            Answered::Late(frame) => {
                tracing::warn!(origin = %self.origin, frame = name, id = id(), "an answer came after its request had given up");
                self.report(ChannelEventKind::LateArrival(Arc::new(frame)));
                Ok(())
            }
            Answered::WrongKind => Err(Violation::WrongAnswer {
                frame: name,
                id: id(),
            }),
            Answered::NeverAsked => Err(Violation::NeverAsked {
                frame: name,
                id: id(),
            }),
        }
    }

    /// Processes a chunk of a command's output. It belongs to a command, but doesn't answer it.
    fn take_in_chunk(&self, key: &Key, frame: Frame) -> Result<(), Violation> {
        let frame = Arc::new(frame);
        let Frame::EvidenceChunk(chunk) = &*frame else {
            return Ok(());
        };
        let (waiting, given_up) = {
            let pending = self.pending();
            (pending.is_waiting(key), pending.has_given_up(key))
        };
        let id = || key.shortened();
        if !waiting && !given_up {
            return Err(Violation::NeverAsked {
                frame: "EvidenceChunk",
                id: id(),
            });
        }
        let (said, found) = (chunk.chunk_size, chunk.chunk_data.len());
        if said as usize != found {
            return Err(Violation::ChunkSize {
                id: id(),
                said,
                found,
            });
        }
        match waiting {
            true => self.report(ChannelEventKind::Frame(Arc::clone(&frame))),
            false => self.report(ChannelEventKind::LateArrival(Arc::clone(&frame))),
        }
        self.pending().take_chunk(key, chunk);
        Ok(())
    }

    /// Processes an error event, which is also the answer of a guest from before the hello to a hello.
    fn take_in_error(&self, event: &ErrorEvent) {
        let event = ErrorEvent {
            code: sanitize::line(&event.code, ERROR_CODE),
            message: sanitize::line(&event.message, ERROR_MESSAGE),
        };
        self.report(ChannelEventKind::GuestError(event.clone()));
        let mut pending = self.pending();
        if pending.is_waiting(&Key::Hello) {
            pending.answer(&Key::Hello, Frame::ErrorEvent(event));
        }
    }

    fn report(&self, kind: ChannelEventKind) {
        self.events.send(ChannelEvent {
            origin: self.origin.clone(),
            kind,
        });
    }

    fn closed_by(&self, source: CloseCause) -> Error {
        Error::Closed {
            origin: self.origin.clone(),
            source,
        }
    }

    fn taken(&self, key: &Key) -> Error {
        let origin = self.origin.clone();
        match key {
            Key::Command(command_id) => Error::DuplicateRequest {
                origin,
                command_id: command_id.clone(),
            },
            Key::Query(query_id) | Key::Request(query_id) => Error::DuplicateQuery {
                origin,
                query_id: *query_id,
            },
            Key::Hello => Error::DuplicateHello { origin },
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        // No code panics while it holds the lock, and the tables are consistent after every statement.
        lock(&self.pending)
    }
}

/// Reserves the id of a run until it is dropped. Meanwhile no command on the same channel can have this id.
#[derive(Debug)]
pub struct RunName {
    connection: Arc<Connection>,
    key: Key,
}

impl RunName {
    pub(super) fn shortened(&self) -> String {
        self.key.shortened()
    }
}

impl Drop for RunName {
    fn drop(&mut self) {
        self.connection.pending().run_ended(&self.key);
    }
}

/// A registered request. If this is dropped before the answer comes, the request has given up.
pub(super) struct Expected<'a, T> {
    connection: &'a Connection,
    key: Key,
    receiver: oneshot::Receiver<Result<T, EvidenceError>>,
}

impl<T> Expected<'_, T> {
    /// Waits for the answer. Fails with the reason if the channel is closed.
    pub(super) async fn answer(mut self) -> Result<T, Error> {
        match (&mut self.receiver).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => Err(Error::Evidence {
                origin: self.connection.origin.clone(),
                command_id: self.key.shortened(),
                source,
            }),
            Err(_) => {
                let closed = self.connection.closed();
                Err(closed.unwrap_or_else(|| self.connection.closed_by(CloseCause::Us)))
            }
        }
    }
}

impl<T> Drop for Expected<'_, T> {
    fn drop(&mut self) {
        self.connection.pending().give_up(&self.key);
    }
}
