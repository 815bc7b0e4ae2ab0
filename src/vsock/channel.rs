//! The channel: requests to a guest, many in flight, each matched with its answer by id.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use uuid::Uuid;

use super::codec::FrameReader;
use super::connection::{Closer, Connection};
use super::evidence::OutputBytes;
use super::pending::{Answer, Key};
use super::{ChannelEvent, Error, Origin, handshake};
use crate::broadcast;
use crate::guest::protocol::{
    DEFAULT_PORT, Extension, Frame, GuestProcess, GuestQuery, GuestResponse, Hello, Imprint,
    LAYER_REMOVAL, MemUsage, QueryKind, QueryResult, Renew, Renewed, ResetAck, ResetSignal, Seed,
    ToolDispatch, ToolResult,
};
use crate::limits::TimeLimits;
use crate::socket::SocketAddress;

/// What a guest says of itself.
pub type GuestHello = Hello;

/// What came of a dispatched tool.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ToolAnswer {
    /// The result as the guest sent it.
    pub result: ToolResult,
    /// The bytes of the tool's streams, of which the result tells the text. `None` where the result has no
    /// [details](ToolResult::details): the guest doesn't say then where one stream ends and the other begins.
    pub output: Option<OutputBytes>,
}

/// How to open a channel, and how long its steps may take.
#[derive(Clone, Debug)]
pub struct ChannelConfig {
    /// The VM's hybrid-vsock socket; a path has at most 107 bytes.
    pub socket: SocketAddress,
    /// The port that the guest listens on.
    pub port: u32,
    /// How long its steps may take: `boot` for all attempts at the handshake, `handshake` for one of them, `frame_idle` and
    /// `frame_total`.
    pub limits: TimeLimits,
}

impl ChannelConfig {
    /// The protocol's defaults for the VM whose hybrid-vsock socket is `socket`.
    pub fn new(socket: impl Into<SocketAddress>) -> ChannelConfig {
        ChannelConfig {
            socket: socket.into(),
            port: DEFAULT_PORT,
            limits: TimeLimits::default(),
        }
    }
}

/// An open channel to a guest. Cheap to clone; closed when the last clone is dropped.
///
/// Every request can be dropped while it waits: the guest may still do what it was asked, and its answer is then a late
/// arrival. All requests fail with the reason once the channel is closed.
#[derive(Clone, Debug)]
pub struct Channel {
    closer: Arc<Closer>,
}

impl Channel {
    /// Connects to the guest, trying again while it comes up. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Handshake`] when `boot` of the limits has passed, or when trying again can't help.
    pub async fn open(config: &ChannelConfig) -> Result<Channel, Error> {
        let limits = config.limits.capped();
        let stream = handshake::connect(config).await?;
        let origin = Origin::next(config.socket.name().into(), config.port);
        let (read, write) = stream.into_split();
        let reader = FrameReader::new(read, limits.frame_idle, limits.frame_total);
        let route = ChannelConfig {
            limits,
            ..config.clone()
        };
        let connection = Arc::new(Connection::new(origin, route, write));
        tokio::spawn(
            connection
                .clone()
                .serve(reader, limits.frame_idle, limits.frame_total),
        );
        Ok(Channel {
            closer: Arc::new(Closer(connection)),
        })
    }

    /// Tells the guest what this build can do, and returns what the guest can. `None` for a guest that is older than the
    /// hello: it has none of the extensions. To be sent first, before any other request.
    ///
    /// # Errors
    ///
    /// [`Error::NoAnswer`], [`Error::DuplicateHello`], or why the channel is closed.
    pub async fn hello(&self, limit: Duration) -> Result<Option<GuestHello>, Error> {
        let read = |frame| match frame {
            Frame::Hello(hello) => Some(Some(hello)),
            Frame::ErrorEvent(_) => Some(None),
            _ => None,
        };
        self.ask(
            Key::Hello,
            Frame::Hello(Hello::of_this_build()),
            limit,
            read,
        )
        .await
    }

    /// Runs a tool and waits for its result, for the dispatch's deadline and `grace`: within it the guest's own answer
    /// for a tool that it killed may still come. A tool's exit code, whatever it is, is a result.
    ///
    /// # Errors
    ///
    /// [`Error::ToolTimeout`], [`Error::DuplicateRequest`] for an id that is in flight or timed out,
    /// [`Error::RequestTooLarge`], or why the channel is closed.
    pub async fn dispatch(
        &self,
        dispatch: ToolDispatch,
        grace: Duration,
    ) -> Result<ToolAnswer, Error> {
        let command_id = dispatch.command_id.clone();
        let waited = Duration::from_millis(dispatch.deadline_ms).saturating_add(grace);
        let frame = Frame::ToolDispatch(dispatch);
        self.run_tool(command_id, &frame, waited).await
    }

    /// As [`dispatch`](Self::dispatch), with a tool whose writes the guest throws away, and all that it left running with them,
    /// before it sends the result. That may take [`LAYER_REMOVAL`], which is waited for as well.
    ///
    /// # Errors
    ///
    /// [`Error::NotAnnounced`] for a guest that is older than [`Warm`](Extension::Warm), which is sent nothing, besides those
    /// of `dispatch`.
    pub async fn warm(&self, dispatch: ToolDispatch, grace: Duration) -> Result<ToolAnswer, Error> {
        if !self.announces(Extension::Warm) {
            return Err(Error::NotAnnounced {
                origin: self.origin().clone(),
                extension: Extension::Warm.name(),
            });
        }
        let command_id = dispatch.command_id.clone();
        let waited = Duration::from_millis(dispatch.deadline_ms)
            .saturating_add(grace)
            .saturating_add(LAYER_REMOVAL);
        let frame = Frame::WarmDispatch(dispatch);
        self.run_tool(command_id, &frame, waited).await
    }

    async fn run_tool(
        &self,
        command_id: String,
        frame: &Frame,
        waited: Duration,
    ) -> Result<ToolAnswer, Error> {
        let connection = self.connection();
        connection.forget_early();
        let key = Key::Command(command_id.clone());
        let read = |Answer { frame, output }| match frame {
            Frame::ToolResult(result) => Some(ToolAnswer { result, output }),
            _ => None,
        };
        connection
            .request(key, frame, waited, read)
            .await?
            .ok_or_else(|| Error::ToolTimeout {
                origin: connection.origin().clone(),
                command_id,
                waited,
            })
    }

    /// The guest's count of open descriptors that aren't sockets.
    ///
    /// # Errors
    ///
    /// [`Error::NoAnswer`], or why the channel is closed.
    pub async fn open_fd_count(&self, limit: Duration) -> Result<u64, Error> {
        let read = |frame| match reading(frame)? {
            QueryResult::OpenFdCount(count) => Some(count.open_fd_count),
            _ => None,
        };
        self.query(QueryKind::OpenFdCount, limit, read).await
    }

    /// The guest's use of its memory.
    ///
    /// # Errors
    ///
    /// [`Error::NoAnswer`], or why the channel is closed.
    pub async fn mem_usage(&self, limit: Duration) -> Result<MemUsage, Error> {
        let read = |frame| match reading(frame)? {
            QueryResult::MemUsage(usage) => Some(usage),
            _ => None,
        };
        self.query(QueryKind::MemUsage, limit, read).await
    }

    /// The guest's processes, at most 100.
    ///
    /// # Errors
    ///
    /// [`Error::NoAnswer`], or why the channel is closed.
    pub async fn process_list(&self, limit: Duration) -> Result<Vec<GuestProcess>, Error> {
        let read = |frame| match reading(frame)? {
            QueryResult::ProcessList(list) => Some(list.processes),
            _ => None,
        };
        self.query(QueryKind::ProcessList, limit, read).await
    }

    /// Sends a query that has an id of the caller's own.
    ///
    /// # Errors
    ///
    /// [`Error::DuplicateQuery`] for an id that is in flight or timed out, [`Error::NoAnswer`], or why the channel is
    /// closed.
    pub async fn send_query(
        &self,
        query: GuestQuery,
        limit: Duration,
    ) -> Result<QueryResult, Error> {
        let kind = query.query_kind;
        let read = move |frame| reading(frame).filter(|result| result.kind() == kind);
        self.ask(
            Key::Query(query.query_id),
            Frame::GuestQuery(query),
            limit,
            read,
        )
        .await
    }

    /// Gives the guest a nonce to keep in memory. For a guest whose hello lists
    /// [`Nonce`](crate::guest::protocol::Extension::Nonce).
    ///
    /// # Errors
    ///
    /// [`Error::NoAnswer`], which is also what an older guest gives, or why the channel is closed.
    pub async fn imprint(&self, nonce: &str, limit: Duration) -> Result<(), Error> {
        let request_id = Uuid::new_v4();
        let imprint = Imprint {
            request_id,
            nonce: nonce.to_owned(),
        };
        let read = |frame| matches!(frame, Frame::Imprinted(_)).then_some(());
        self.ask(
            Key::Request(request_id),
            Frame::Imprint(imprint),
            limit,
            read,
        )
        .await
    }

    /// Gives a restored guest fresh randomness and the time. For a guest whose hello lists
    /// [`Reseed`](crate::guest::protocol::Extension::Reseed) or [`Clock`](crate::guest::protocol::Extension::Clock);
    /// what it did stands in its answer.
    ///
    /// # Errors
    ///
    /// [`Error::NoAnswer`], which is also what an older guest gives, or why the channel is closed.
    pub async fn renew(
        &self,
        seed: &[u8; 32],
        now: SystemTime,
        limit: Duration,
    ) -> Result<Renewed, Error> {
        let request_id = Uuid::new_v4();
        let renew = Renew {
            request_id,
            seed: Seed(*seed),
            unix_nanos: unix_nanos(now),
        };
        let read = |frame| match frame {
            Frame::Renewed(renewed) => Some(renewed),
            _ => None,
        };
        self.ask(Key::Request(request_id), Frame::Renew(renew), limit, read)
            .await
    }

    /// Tells the guest of a reset and returns what it says of it, which proves nothing: a host verifies by itself. A guest
    /// of this project doesn't answer.
    ///
    /// # Errors
    ///
    /// [`Error::NoAnswer`], [`Error::DuplicateReset`] for an id that is in flight or timed out, or why the channel is
    /// closed.
    pub async fn signal_reset(
        &self,
        signal: ResetSignal,
        limit: Duration,
    ) -> Result<ResetAck, Error> {
        let read = |frame| match frame {
            Frame::ResetAck(ack) => Some(ack),
            _ => None,
        };
        let key = Key::Reset(signal.reset_id.clone());
        self.ask(key, Frame::ResetSignal(signal), limit, read).await
    }

    /// Whether the guest has answered a greeting on this channel with a hello that lists the extension.
    pub fn announces(&self, extension: Extension) -> bool {
        self.connection().announces(extension)
    }

    /// Which channel this is.
    pub fn origin(&self) -> &Origin {
        self.connection().origin()
    }

    /// What happens from now on; for the first receiver, if no tool was dispatched before, also what has happened since
    /// the channel was opened. A receiver that falls behind by more than 128 events, or by 8 MiB of frames, loses the
    /// oldest, and is told how many ([`RecvError::Lagged`](broadcast::RecvError::Lagged)). The newest is kept, however
    /// large it is.
    pub fn events(&self) -> broadcast::Receiver<ChannelEvent> {
        self.connection().subscribe()
    }

    /// Why the channel is closed, if it is.
    pub fn closed(&self) -> Option<Error> {
        self.connection().closed()
    }

    /// Whether the channel can carry nothing more: the guest broke the protocol, or it is closed for another reason.
    /// [`closed`](Channel::closed) says which.
    pub fn is_poisoned(&self) -> bool {
        self.closed().is_some()
    }

    /// Closes the channel for all its clones. Requests in flight fail; a second call does nothing.
    pub fn close(&self) {
        self.connection().close_by_us();
    }

    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.closer.0
    }

    /// Sends a query with an id of its own.
    async fn query<T: Send + 'static>(
        &self,
        query_kind: QueryKind,
        limit: Duration,
        read: impl Fn(Frame) -> Option<T> + Send + 'static,
    ) -> Result<T, Error> {
        let query = GuestQuery {
            query_id: Uuid::new_v4(),
            query_kind,
            ts: Timestamp::now(),
        };
        self.ask(
            Key::Query(query.query_id),
            Frame::GuestQuery(query),
            limit,
            read,
        )
        .await
    }

    /// Sends a request that isn't a tool.
    async fn ask<T: Send + 'static>(
        &self,
        key: Key,
        frame: Frame,
        limit: Duration,
        read: impl Fn(Frame) -> Option<T> + Send + 'static,
    ) -> Result<T, Error> {
        let connection = self.connection();
        connection
            .request(key, &frame, limit, move |answer| read(answer.frame))
            .await?
            .ok_or_else(|| Error::NoAnswer {
                origin: connection.origin().clone(),
                request: match &frame {
                    Frame::GuestQuery(query) => query.query_kind.name(),
                    frame => frame.name(),
                },
                waited: limit,
            })
    }
}

/// Nanoseconds since 1970, up to the year 2554. A clock before 1970 counts as 1970: it is wrong by decades either way.
pub(super) fn unix_nanos(time: SystemTime) -> u64 {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since_epoch.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

/// The reading in an answer to a query.
pub(super) fn reading(frame: Frame) -> Option<QueryResult> {
    match frame {
        Frame::GuestResponse(GuestResponse { result, .. }) => Some(result),
        _ => None,
    }
}
