//! Opens a Unix stream and exchanges one request and its answer on it, through hyper's HTTP/1 connection.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::{Either, Fuse, FutureExt, select};
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_LENGTH, HOST, HeaderValue};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::Service;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use hyperlocal::UnixConnector;
use tokio::net::UnixStream;

use super::bounds::{self, TooManyValues};
use super::descriptors::DescriptorStream;
use super::messages;
use crate::api::{Method, Operation};

/// In bytes. Limits the head of an answer. A request with the largest body fits too, so hyper writes it in one piece.
const BUFFER_LIMIT: usize = 64 << 10;

/// One connection to the VMM. Dropping it closes it, also while an answer is awaited.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// Whether the kernel took anything of the current request.
    sent: Arc<AtomicBool>,
    /// Whether an exchange on it succeeded.
    proven: bool,
    /// hyper's part of the connection, which owns the stream. The calls poll it, and no task does, so that dropping the
    /// connection closes it at once.
    driver: Fuse<Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>>,
}

/// An answer of the VMM.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The server closed a new connection before it took anything, because it has too many. (Most often the client
    /// reads the server's 503 as an answer. It doesn't when the 503 arrives before the request is sent.)
    #[error("the server turned the connection away")]
    TurnedAway(#[source] hyper::Error),
    /// The other end closed or reset the connection.
    #[error("the connection ended without a whole answer")]
    Ended(#[source] hyper::Error),
    /// The bytes that came aren't HTTP.
    #[error("the answer is not HTTP")]
    Malformed(#[source] hyper::Error),
    /// The body is larger than any answer to this operation.
    #[error("the answer's body is larger than {limit} bytes")]
    TooLarge {
        /// In bytes.
        limit: usize,
    },
    /// The body has too many values.
    #[error(transparent)]
    TooManyValues(#[from] TooManyValues),
}

impl Connection {
    /// Connects to `socket`. `fds` go with the first request.
    pub(super) async fn open(socket: &Path, fds: Vec<OwnedFd>) -> io::Result<Connection> {
        match socket.to_str() {
            // hyperlocal's stream doesn't lend its descriptor.
            _ if !fds.is_empty() => {
                let stream = UnixStream::connect(socket).await?;
                Connection::on(DescriptorStream::new(stream, fds)).await
            }
            Some(path) => {
                let uri = hyperlocal::Uri::new(path, "/").into();
                let stream = TowerToHyperService::new(UnixConnector).call(uri).await?;
                Connection::on(stream).await
            }
            // hyperlocal's connector would replace the bytes that aren't UTF-8.
            None => {
                let stream = UnixStream::connect(socket).await?;
                Connection::on(TokioIo::new(stream)).await
            }
        }
    }

    /// A connection on a stream that is open.
    pub(super) async fn on<S>(stream: S) -> io::Result<Connection>
    where
        S: Read + Write + Unpin + Send + 'static,
    {
        let sent = Arc::new(AtomicBool::new(false));
        let stream = Observed {
            stream,
            sent: Arc::clone(&sent),
        };
        let (sender, driver) = http1::Builder::new()
            .writev(false)
            .max_buf_size(BUFFER_LIMIT)
            .handshake(stream)
            .await
            .map_err(io::Error::other)?;
        Ok(Connection {
            sender,
            sent,
            proven: false,
            driver: (Box::pin(driver) as Pin<Box<dyn Future<Output = _> + Send>>).fuse(),
        })
    }

    /// Sends a request and reads its whole answer. The caller sets a time limit and decides on a second attempt.
    pub(super) async fn exchange(
        &mut self,
        operation: Operation,
        body: Bytes,
    ) -> Result<Answer, Failure> {
        self.sent.store(false, Ordering::Relaxed);
        let limit = bounds::answer_limit(operation);
        match self.answer_to(request(operation, body), limit).await {
            Ok(answer) => {
                self.proven = true;
                Ok(answer)
            }
            Err(Failure::Ended(error) | Failure::Malformed(error))
                if !self.proven && !self.has_sent() =>
            {
                Err(Failure::TurnedAway(error))
            }
            Err(failure) => Err(failure),
        }
    }

    async fn answer_to(
        &mut self,
        request: Request<Full<Bytes>>,
        limit: usize,
    ) -> Result<Answer, Failure> {
        let answer = pin!(answer_to(&mut self.sender, request, limit));
        match select(answer, &mut self.driver).await {
            Either::Left((answer, _)) => answer,
            // `answer` has the reason for which the connection ended.
            Either::Right((_, answer)) => answer.await,
        }
    }

    /// Whether the kernel took anything of the last request. If not, the VMM never saw the request.
    pub(super) fn has_sent(&self) -> bool {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether the connection is still open, as far as the kernel has told.
    pub(super) fn is_open(&mut self) -> bool {
        // Handles bytes and an end that have come since the last call.
        let _ended = (&mut self.driver).now_or_never();
        !self.sender.is_closed()
    }
}

async fn answer_to(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
    limit: usize,
) -> Result<Answer, Failure> {
    sender.ready().await.map_err(Failure::of)?;
    let response = sender.send_request(request).await.map_err(Failure::of)?;
    let status = response.status().as_u16();
    let mut body = response.into_body();
    // The error comes at once, and not when the limit is reached, which may take for ever.
    if body.size_hint().lower() > limit as u64 {
        return Err(Failure::TooLarge { limit });
    }
    // Copied piece by piece: a body of chunks of one byte each would cost a buffer for each of them.
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(Failure::of)?;
        let piece = frame.data_ref().map_or(&[][..], |data| data);
        if piece.len() > limit - bytes.len() {
            return Err(Failure::TooLarge { limit });
        }
        bytes.extend_from_slice(piece);
    }
    bounds::check_values(&bytes)?;
    Ok(Answer {
        status,
        body: bytes.into(),
    })
}

/// The request as the server's HTTP parser needs it: `Host: localhost`, a `Content-Length` for every `PUT`, also for an
/// empty body, never chunked, no `Expect`.
fn request(operation: Operation, body: Bytes) -> Request<Full<Bytes>> {
    let length = body.len();
    let mut request = Request::new(Full::new(body));
    *request.uri_mut() = Uri::from_static(operation.path());
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_static("localhost"));
    if operation.method() == Method::Put {
        headers.insert(CONTENT_LENGTH, length.into());
        *request.method_mut() = hyper::Method::PUT;
    }
    request
}

impl Answer {
    /// Whether the VMM did what was asked.
    pub(super) fn is_success(&self) -> bool {
        matches!(self.status, 200..=299)
    }

    /// Whether the connection can serve another request after this answer.
    ///
    /// A server that has too many connections answers 503 and closes this one.
    pub(super) fn keeps_connection(&self) -> bool {
        self.is_success() || (self.status != 503 && !messages::is_of_http_layer(&self.body))
    }
}

impl Failure {
    fn of(error: hyper::Error) -> Failure {
        match error.is_parse() {
            true => Failure::Malformed(error),
            false => Failure::Ended(error),
        }
    }
}

/// A stream that notes when the kernel has taken something to send.
struct Observed<S> {
    stream: S,
    sent: Arc<AtomicBool>,
}

impl<S: Read + Unpin> Read for Observed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: Write + Unpin> Write for Observed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buffer);
        if matches!(written, Poll::Ready(Ok(count)) if count > 0) {
            self.sent.store(true, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
