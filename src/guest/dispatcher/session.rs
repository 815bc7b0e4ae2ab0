//! One connection of the host: a [`Session`] reads frames and answers them, until the connection ends or a frame turns
//! it into a [stream connection](super::stream_connection).

use std::io::{self, BufReader, Write};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;

use super::command::WriteTarget;
use super::connection::Connection;
use super::evidence::Evidence;
use super::in_flight::{Busy, InFlight};
use super::stream_connection::{Opening, Request, StreamConnection};
use super::{Intercept, ServeError, Shared};
use crate::causes::Causes;
use crate::guest::frame::{FrameError, LengthError, body_length, encode_into, read_body};
use crate::guest::protocol::{
    DecodeError, ErrorEvent, Extension, Frame, GuestQuery, GuestResponse, Hello, Imprint,
    Imprinted, OpenFdCount, ProcessList, QueryKind, QueryResult, Renew, Renewed, ToolDispatch,
    ToolOutcomeKind,
};
use crate::mutex::lock;

/// The most bytes of a command's id or of a nonce, both of which the dispatcher keeps.
pub(super) const MAX_ID: usize = 256;

/// The size of the read buffer, in bytes. Requests that the host sent together are read together.
const REQUESTS: usize = 8 * 1024;

/// The most bytes of answers that are kept back while the read buffer holds further requests.
const ANSWERS: usize = 64 * 1024;

/// The stack of a thread that runs one tool.
const TOOL_STACK: usize = 512 * 1024;

const MALFORMED: &str = "SANDBOX_FRAME_MALFORMED";
const TOO_LARGE: &str = "SANDBOX_VSOCK_FRAME_TOO_LARGE";
pub(super) const PROTOCOL_ERROR: &str = "SANDBOX_VSOCK_PROTOCOL_ERROR";
pub(super) const DUPLICATE_REQUEST: &str = "SANDBOX_VSOCK_DUPLICATE_REQUEST";
const QUERY_FAILED: &str = "GUEST_QUERY_FAILED";

/// The state of one connection while it carries frames.
pub(super) struct Session<'a> {
    shared: &'a Arc<Shared>,
    connection: &'a Arc<Connection>,
    writer: Arc<Writer>,
    intercept: Option<&'a Intercept>,
    /// Answers that are sent before the next wait for a request. Requests that came together are answered together,
    /// since each packet that leaves a guest costs an exit to the VMM.
    answers: Vec<u8>,
    /// Whether the host's hello lists [`Extension::Result`].
    detailed: bool,
    /// Whether the host has sent any frame but a `Hello`.
    used: bool,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        shared: &'a Arc<Shared>,
        connection: &'a Arc<Connection>,
        intercept: Option<&'a Intercept>,
    ) -> Session<'a> {
        Session {
            shared,
            writer: Arc::new(Writer {
                connection: Arc::clone(connection),
                is_torn: Mutex::new(false),
            }),
            connection,
            intercept,
            answers: Vec::new(),
            detailed: false,
            used: false,
        }
    }

    pub(super) fn serve(mut self) -> Result<(), ServeError> {
        let mut reader = BufReader::with_capacity(REQUESTS, &**self.connection);
        let served = self.answer_all(&mut reader);
        let sent = self.flush();
        match served? {
            Some(opening) => {
                sent?;
                let received = reader.buffer().to_vec();
                let stream = StreamConnection::new(Arc::clone(self.connection), received);
                self.shared.serve_stream(stream, opening)
            }
            None => Ok(sent?),
        }
    }

    /// Answers frames until the connection ends, or until a frame opens a run with streams or a transfer of files,
    /// which is returned.
    fn answer_all(
        &mut self,
        reader: &mut BufReader<&Connection>,
    ) -> Result<Option<Opening>, ServeError> {
        loop {
            if self.answers.len() > ANSWERS || !holds_a_frame(reader.buffer()) {
                self.flush()?;
            }
            let read = read_body(reader).and_then(|body| match body {
                Some(body) => Ok(Some((Frame::decode(&body)?, body))),
                None => Ok(None),
            });
            let error = match read {
                Ok(None) => return Ok(None),
                Ok(Some((frame, body))) => match self.take(frame, reader)? {
                    Some(request) => return Ok(Some(Opening { request, body })),
                    None => continue,
                },
                Err(error) => error,
            };
            let code = match &error {
                // A newer host may send a frame that this build doesn't know. It gets an error, and the session goes
                // on.
                FrameError::Decode(unknown @ DecodeError::UnknownType { .. }) => {
                    self.used = true;
                    self.error(PROTOCOL_ERROR, unknown.to_string())?;
                    continue;
                }
                FrameError::Io(_) => return Err(error.into()),
                FrameError::Length(LengthError::TooLarge { .. }) => TOO_LARGE,
                FrameError::Length(LengthError::Empty) | FrameError::Decode(_) => MALFORMED,
            };
            self.error(code, error.to_string())?;
            return Err(error.into());
        }
    }

    /// Answers a frame, or returns the run or transfer that it opens.
    fn take(
        &mut self,
        frame: Frame,
        reader: &mut BufReader<&Connection>,
    ) -> Result<Option<Request>, ServeError> {
        let intercepted = self.intercept.and_then(|intercept| intercept(&frame));
        let request = match frame {
            Frame::OpenRun(open) => Request::Run(open),
            Frame::OpenPush(open) => Request::Push(open),
            Frame::OpenPull(open) => Request::Pull(open),
            frame => {
                match intercepted {
                    Some(answer) => self.answers.extend(answer),
                    None => self.answer(frame)?,
                }
                return Ok(None);
            }
        };
        if let Some(answer) = intercepted {
            self.answers.extend(answer);
            self.flush()?;
            // Records follow, which are dropped.
            io::copy(reader, &mut io::sink()).map_err(FrameError::Io)?;
            return Ok(None);
        }
        match self.used {
            true => Err(self.unexpected(request.name())?),
            false => Ok(Some(request)),
        }
    }

    fn answer(&mut self, frame: Frame) -> Result<(), ServeError> {
        self.used |= !matches!(frame, Frame::Hello(_));
        match frame {
            Frame::ToolDispatch(dispatch) => self.dispatch(dispatch, WriteTarget::Disk)?,
            Frame::WarmDispatch(dispatch) => self.dispatch(dispatch, WriteTarget::Throwaway)?,
            Frame::GuestQuery(query) => self.query(&query)?,
            Frame::Hello(host) => {
                self.detailed = host.supports(Extension::Result);
                let nonce = lock(&self.shared.nonce).clone();
                let hello = Hello {
                    nonce,
                    ..Hello::of_this_build()
                };
                self.send(&Frame::Hello(hello))?;
            }
            Frame::Imprint(imprint) => self.imprint(imprint)?,
            Frame::Renew(renew) => self.renew(&renew)?,
            other => return Err(self.unexpected(other.name())?),
        }
        Ok(())
    }

    /// Tells the host that a frame of this type isn't allowed here.
    fn unexpected(&mut self, name: &'static str) -> Result<ServeError, FrameError> {
        let error = ServeError::Unexpected { name };
        self.error(PROTOCOL_ERROR, error.to_string())?;
        Ok(error)
    }

    fn dispatch(&mut self, dispatch: ToolDispatch, target: WriteTarget) -> Result<(), FrameError> {
        let id = dispatch.command_id.clone();
        if id.len() > MAX_ID {
            let message = format!("a command_id has at most {MAX_ID} bytes, not {}", id.len());
            return self.error(PROTOCOL_ERROR, message);
        }
        // A tool's frames must not overtake the answers to earlier requests: the host has to get the hello first.
        self.flush()?;
        let in_flight = match InFlight::enter(self.shared, &id) {
            Ok(in_flight) => in_flight,
            Err(Busy::Duplicate) => {
                return self.error(DUPLICATE_REQUEST, Busy::Duplicate.reason(&id));
            }
            Err(Busy::Full) => {
                return self.refuse(&id, ToolOutcomeKind::Refused, Busy::Full.reason(&id));
            }
        };
        let shared = Arc::clone(self.shared);
        let writer = Arc::clone(&self.writer);
        let detailed = self.detailed;
        let spawned = thread::Builder::new()
            .name("tool".to_owned())
            .stack_size(TOOL_STACK)
            .spawn(move || {
                // If this write fails, sending the result fails, too, and that error is logged.
                let frames = shared.run(&dispatch, target, detailed, |chunks| {
                    drop(writer.write(chunks))
                });
                // Once the host has the result, it may use the id again. So the id has to be free before.
                drop(in_flight);
                let sent = frames
                    .map_err(FrameError::from)
                    .and_then(|frames| Ok(writer.write(&frames)?));
                if let Err(error) = sent {
                    tracing::warn!(error = %Causes(&error), "a tool's result could not be sent");
                }
            });
        if let Err(error) = spawned {
            let reason = format!("no thread could be started for the tool: {error}");
            self.refuse(&id, ToolOutcomeKind::GuestFailed, reason)?;
        }
        Ok(())
    }

    /// Answers a command that can't be run now with a result.
    fn refuse(
        &mut self,
        id: &str,
        outcome: ToolOutcomeKind,
        reason: String,
    ) -> Result<(), FrameError> {
        let frames = Evidence::new(id, self.detailed).refuse(outcome, reason)?;
        self.answers.extend(frames);
        Ok(())
    }

    fn query(&mut self, query: &GuestQuery) -> Result<(), FrameError> {
        let system = &self.shared.system;
        let result = match query.query_kind {
            QueryKind::OpenFdCount => system
                .open_fd_count()
                .map(|open_fd_count| QueryResult::OpenFdCount(OpenFdCount { open_fd_count })),
            QueryKind::MemUsage => system.mem_usage().map(QueryResult::MemUsage),
            QueryKind::ProcessList => system
                .process_list()
                .map(|processes| QueryResult::ProcessList(ProcessList { processes })),
        };
        match result {
            Ok(result) => self.send(&Frame::GuestResponse(GuestResponse {
                query_id: query.query_id,
                result,
                ts: Timestamp::now(),
            })),
            Err(error) => {
                let message = format!("{:?} could not be read: {error}", query.query_kind);
                self.error(QUERY_FAILED, message)
            }
        }
    }

    /// Keeps the nonce and syncs the tools' file system. The host takes a snapshot next. Data that isn't on the disk by
    /// then would be written by every restored guest, which would change a disk that no tool has used.
    fn imprint(&mut self, imprint: Imprint) -> Result<(), FrameError> {
        if imprint.nonce.len() > MAX_ID {
            let length = imprint.nonce.len();
            let message = format!("a nonce has at most {MAX_ID} bytes, not {length}");
            return self.error(PROTOCOL_ERROR, message);
        }
        *lock(&self.shared.nonce) = Some(imprint.nonce);
        self.shared.sync();
        let request_id = imprint.request_id;
        self.send(&Frame::Imprinted(Imprinted { request_id }))
    }

    fn renew(&mut self, renew: &Renew) -> Result<(), FrameError> {
        let system = &self.shared.system;
        let now = Duration::from_nanos(renew.unix_nanos);
        let offset = milliseconds(now) - milliseconds(system.clock());
        let clock_set = succeeded("the clock could not be set", system.set_clock(now));
        let reseeded = succeeded(
            "the random pool could not be reseeded",
            system.reseed(&renew.seed.0),
        );
        let nonce = lock(&self.shared.nonce).clone();
        let unix_nanos = u64::try_from(system.clock().as_nanos()).ok();
        self.send(&Frame::Renewed(Renewed {
            request_id: renew.request_id,
            nonce,
            reseeded,
            clock_set,
            clock_offset_ms: offset,
            unix_nanos,
        }))
    }

    fn error(&mut self, code: &str, message: String) -> Result<(), FrameError> {
        self.send(&Frame::ErrorEvent(ErrorEvent {
            code: code.to_owned(),
            message,
        }))
    }

    /// Queues a frame, which is sent before the next wait for a request.
    fn send(&mut self, frame: &Frame) -> Result<(), FrameError> {
        Ok(encode_into(&mut self.answers, frame)?)
    }

    fn flush(&mut self) -> Result<(), FrameError> {
        if !self.answers.is_empty() {
            self.writer.write(&self.answers)?;
            self.answers.clear();
        }
        Ok(())
    }
}

/// Whether the next frame can be read without waiting. This is also true if its length is out of bounds, since reading
/// it then fails at once.
fn holds_a_frame(buffered: &[u8]) -> bool {
    match buffered.split_first_chunk() {
        Some((header, rest)) => body_length(*header).map_or(true, |length| length <= rest.len()),
        None => false,
    }
}

/// Whether `result` is a success. An error is logged to the console; the host gets the `bool` only.
fn succeeded(failure: &str, result: io::Result<()>) -> bool {
    result
        .inspect_err(|error| tracing::warn!(error = %Causes(error), "{failure}"))
        .is_ok()
}

/// Milliseconds since 1970, up to some 292 million years.
fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// The connection's sending side, which the session and the threads of its tools share.
struct Writer {
    connection: Arc<Connection>,
    /// Whether a frame could not be written in full. Nothing is written afterwards, since the host would read it as the
    /// rest of that frame.
    is_torn: Mutex<bool>,
}

impl Writer {
    /// Writes whole frames. No other thread's frames come between them.
    fn write(&self, frames: &[u8]) -> io::Result<()> {
        let mut is_torn = lock(&self.is_torn);
        if *is_torn {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let written = (&*self.connection).write_all(frames);
        *is_torn = written.is_err();
        written
    }
}
