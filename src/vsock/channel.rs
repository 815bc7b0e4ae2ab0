//! [`Channel`]: sends requests to a guest, many in flight at a time, and matches each with its answer by id.

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
    LAYER_REMOVAL, MemUsage, QueryKind, QueryResult, Renew, Renewed, Seed, ToolDispatch,
    ToolResult,
};
use crate::limits::TimeLimits;
use crate::socket::SocketAddress;

/// A guest's answer to [`Channel::hello`]: its protocol version, build, extensions and nonce.
pub type GuestHello = Hello;

/// The result of a dispatched tool, whose evidence was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ToolAnswer {
    /// The result as the guest sent it.
    pub result: ToolResult,
    /// The bytes of the tool's two streams, which the result has as text. `None` if the result has no
    /// [details](ToolResult::details), since the host then doesn't know where standard output ends.
    pub output: Option<OutputBytes>,
}

/// How to reach a guest, and how long the steps of a channel may take.
#[derive(Clone, Debug)]
pub struct ChannelConfig {
    /// The VM's hybrid-vsock socket; a path has at most 107 bytes.
    pub socket: SocketAddress,
    /// The port that the guest listens on.
    pub port: u32,
    /// Limits: `boot` for all attempts at the handshake together, `handshake` for one attempt, `frame_idle` for the
    /// next byte inside a frame, and `frame_total` for one whole frame. The other limits aren't used here.
    pub limits: TimeLimits,
}

impl ChannelConfig {
    /// The protocol's defaults (port 1024) for the VM whose hybrid-vsock socket is `socket`.
    pub fn new(socket: impl Into<SocketAddress>) -> ChannelConfig {
        ChannelConfig {
            socket: socket.into(),
            port: DEFAULT_PORT,
            limits: TimeLimits::default(),
        }
    }
}

/// An open channel to a guest. Clones are handles of the same channel, which is closed when the last one is dropped.
///
/// The future of every request may be dropped. The guest may still do what the request asks for; its answer then
/// becomes a [late arrival](super::ChannelEventKind::LateArrival). Once the channel is closed, all requests fail with
/// the reason.
#[derive(Clone, Debug)]
pub struct Channel {
    closer: Arc<Closer>,
}

impl Channel {
    /// Connects to the guest. While the guest boots, failed attempts are repeated. Must be called inside a tokio
    /// runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Handshake`] if no attempt succeeds within the limit `boot`, or if an attempt fails in a way that
    /// another attempt can't mend: [`PathTooLong`](super::HandshakeError::PathTooLong),
    /// [`BadReply`](super::HandshakeError::BadReply), or a socket that this process may not use.
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

    /// Exchanges hellos with the guest: sends that of this build and returns the guest's. `None` for a guest from
    /// before the hello, which has no extensions. The hello must be sent before any other request.
    ///
    /// # Errors
    ///
    /// - [`Error::NoAnswer`] after `limit`
    /// - [`Error::DuplicateHello`] if a hello was sent before and has no answer
    /// - the reason why the channel is closed
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

    /// Runs a tool and waits for its result. Any exit code of the tool is a result, not an error.
    ///
    /// The wait is the dispatch's deadline plus `grace`. Within `grace` the guest's result of a tool that it killed at
    /// the deadline can still arrive.
    ///
    /// # Errors
    ///
    /// - [`Error::ToolTimeout`] if no result came in time; whether the tool still runs isn't known
    /// - [`Error::DuplicateRequest`] if a command with this id is in flight or timed out
    /// - [`Error::RequestTooLarge`] if the request doesn't fit a frame
    /// - [`Error::Evidence`] if the command's chunks aren't complete or don't agree with the result
    /// - the reason why the channel is closed
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

    /// As [`dispatch`](Self::dispatch), but before the guest sends the result, it discards everything that the tool
    /// wrote and kills every process that the tool left. The guest may take [`LAYER_REMOVAL`] for this, by which the
    /// wait is longer.
    ///
    /// # Errors
    ///
    /// Those of `dispatch`, and [`Error::NotAnnounced`] if the guest hasn't listed [`Extension::Warm`] on this channel.
    /// Nothing is sent then.
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

    /// The number of open descriptors in the guest that aren't sockets.
    ///
    /// # Errors
    ///
    /// [`Error::NoAnswer`] after `limit`, or the reason why the channel is closed.
    pub async fn open_fd_count(&self, limit: Duration) -> Result<u64, Error> {
        let read = |frame| match reading(frame)? {
            QueryResult::OpenFdCount(count) => Some(count.open_fd_count),
            _ => None,
        };
        self.query(QueryKind::OpenFdCount, limit, read).await
    }

    /// The memory in use in the guest, in bytes.
    ///
    /// # Errors
    ///
    /// [`Error::NoAnswer`] after `limit`, or the reason why the channel is closed.
    pub async fn mem_usage(&self, limit: Duration) -> Result<MemUsage, Error> {
        let read = |frame| match reading(frame)? {
            QueryResult::MemUsage(usage) => Some(usage),
            _ => None,
        };
        self.query(QueryKind::MemUsage, limit, read).await
    }

    /// The running processes of the guest, at most 100. `chv-guest` leaves out kernel threads, and if there are more
    /// than 100 processes, those with the highest ids.
    ///
    /// # Errors
    ///
    /// [`Error::NoAnswer`] after `limit`, or the reason why the channel is closed.
    pub async fn process_list(&self, limit: Duration) -> Result<Vec<GuestProcess>, Error> {
        let read = |frame| match reading(frame)? {
            QueryResult::ProcessList(list) => Some(list.processes),
            _ => None,
        };
        self.query(QueryKind::ProcessList, limit, read).await
    }

    /// Sends a query whose id the caller has chosen.
    ///
    /// # Errors
    ///
    /// - [`Error::DuplicateQuery`] if a query with this id is in flight or timed out
    /// - [`Error::NoAnswer`] after `limit`
    /// - the reason why the channel is closed
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

    /// Gives the guest a nonce to keep in memory, and makes it write its pending data to the disk. For a guest whose
    /// hello lists [`Extension::Nonce`].
    ///
    /// # Errors
    ///
    /// [`Error::NoAnswer`] after `limit`, also from a guest without the extension, or the reason why the channel is
    /// closed.
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

    /// Makes a restored guest reseed its random pool with `seed` and set its clock to `now`. For a guest whose hello
    /// lists [`Extension::Reseed`] or [`Extension::Clock`]. The answer tells which of the two succeeded.
    ///
    /// # Errors
    ///
    /// [`Error::NoAnswer`] after `limit`, also from a guest without the extensions, or the reason why the channel is
    /// closed.
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

    /// Whether the guest has sent a hello on this channel that lists the extension.
    pub fn announces(&self, extension: Extension) -> bool {
        self.connection().announces(extension)
    }

    /// Identifies this channel among the channels of this process, for events and errors.
    pub fn origin(&self) -> &Origin {
        self.connection().origin()
    }

    /// Subscribes to the events of this channel from now on. The first receiver also gets the events since the channel
    /// was opened, unless a tool was dispatched before this call.
    ///
    /// A receiver that is more than 128 events or 8 MiB of frames behind loses the oldest events, and is told how many
    /// ([`RecvError::Lagged`](broadcast::RecvError::Lagged)). The newest event is always kept, even if it is larger.
    pub fn events(&self) -> broadcast::Receiver<ChannelEvent> {
        self.connection().subscribe()
    }

    /// The reason why the channel is closed; `None` while it is open.
    pub fn closed(&self) -> Option<Error> {
        self.connection().closed()
    }

    /// Whether the channel is closed, because the guest broke the protocol or for another reason.
    /// [`closed`](Channel::closed) returns the reason.
    pub fn is_poisoned(&self) -> bool {
        self.closed().is_some()
    }

    /// Closes the channel for all clones. Requests in flight fail. A second call does nothing.
    pub fn close(&self) {
        self.connection().close_by_us();
    }

    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.closer.0
    }

    /// Sends a query with a new random id.
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

    /// Sends a request that doesn't run a tool.
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

/// Nanoseconds since 1970, up to the year 2554. A time before 1970 counts as 1970: such a clock is wrong by decades
/// anyway.
pub(super) fn unix_nanos(time: SystemTime) -> u64 {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since_epoch.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

/// The reading in the answer to a query; `None` for another frame.
pub(super) fn reading(frame: Frame) -> Option<QueryResult> {
    match frame {
        Frame::GuestResponse(GuestResponse { result, .. }) => Some(result),
        _ => None,
    }
}
