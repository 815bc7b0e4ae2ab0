//! One connection: reads frames, answers them.

use std::io::{self, BufReader, Read, Write};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;

use super::evidence::Evidence;
use super::{MAX_IN_FLIGHT, ServeError, Shared, lock};
use crate::causes::Causes;
use crate::guest::frame::{FrameError, LengthError, body_length, encode_into, read_frame};
use crate::guest::protocol::{
    DecodeError, ErrorEvent, Extension, Frame, GuestQuery, GuestResponse, Hello, Imprint,
    Imprinted, OpenFdCount, ProcessList, QueryKind, QueryResult, Renew, Renewed, ToolDispatch,
    ToolOutcomeKind,
};

/// Most bytes of a command's id or of a nonce: both are kept.
const MAX_ID: usize = 256;

/// How many bytes of requests are read at once: several that were sent together come together.
const REQUESTS: usize = 8 * 1024;

/// How many bytes of answers are kept back, at most, while further requests are there already.
const ANSWERS: usize = 64 * 1024;

/// The stack of a thread that runs one tool.
const TOOL_STACK: usize = 512 * 1024;

const MALFORMED: &str = "SANDBOX_FRAME_MALFORMED";
const TOO_LARGE: &str = "SANDBOX_VSOCK_FRAME_TOO_LARGE";
const PROTOCOL_ERROR: &str = "SANDBOX_VSOCK_PROTOCOL_ERROR";
const DUPLICATE_REQUEST: &str = "SANDBOX_VSOCK_DUPLICATE_REQUEST";
const QUERY_FAILED: &str = "GUEST_QUERY_FAILED";

pub(super) struct Session<W> {
    shared: Arc<Shared>,
    writer: Arc<Writer<W>>,
    /// What is to be sent before the next wait. Requests that came together are answered together: each packet that
    /// leaves a guest interrupts it.
    answers: Vec<u8>,
    /// Whether the host's hello lists [`Extension::Result`].
    detailed: bool,
}

impl<W: Write + Send + 'static> Session<W> {
    pub(super) fn new(shared: Arc<Shared>, writer: W) -> Session<W> {
        Session {
            shared,
            writer: Arc::new(Writer(Mutex::new(Some(writer)))),
            answers: Vec::new(),
            detailed: false,
        }
    }

    pub(super) fn serve(mut self, reader: impl Read) -> Result<(), ServeError> {
        let served = self.answer_all(&mut BufReader::with_capacity(REQUESTS, reader));
        let sent = self.flush();
        served.and(sent.map_err(Into::into))
    }

    fn answer_all(&mut self, reader: &mut BufReader<impl Read>) -> Result<(), ServeError> {
        loop {
            if self.answers.len() > ANSWERS || !holds_a_frame(reader.buffer()) {
                self.flush()?;
            }
            let error = match read_frame(reader) {
                Ok(None) => return Ok(()),
                Ok(Some(frame)) => {
                    self.answer(frame)?;
                    continue;
                }
                Err(error) => error,
            };
            let code = match &error {
                // A newer host asks what an older guest doesn't know: it is told so, and goes on without.
                FrameError::Decode(unknown @ DecodeError::UnknownType { .. }) => {
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

    fn answer(&mut self, frame: Frame) -> Result<(), ServeError> {
        match frame {
            Frame::ToolDispatch(dispatch) => self.dispatch(dispatch)?,
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
            other => {
                let error = ServeError::Unexpected { name: other.name() };
                self.error(PROTOCOL_ERROR, error.to_string())?;
                return Err(error);
            }
        }
        Ok(())
    }

    fn dispatch(&mut self, dispatch: ToolDispatch) -> Result<(), FrameError> {
        let id = dispatch.command_id.clone();
        if id.len() > MAX_ID {
            let message = format!("a command_id has at most {MAX_ID} bytes, not {}", id.len());
            return self.error(PROTOCOL_ERROR, message);
        }
        // A tool's frames must not overtake the answers to earlier requests: the host has to know the hello first.
        self.flush()?;
        let shared = Arc::clone(&self.shared);
        {
            let mut in_flight = lock(&shared.in_flight);
            if in_flight.contains(&id) {
                let message = format!("the command {id:?} is in flight");
                return self.error(DUPLICATE_REQUEST, message);
            }
            if in_flight.len() == MAX_IN_FLIGHT {
                let reason = format!("{MAX_IN_FLIGHT} tools are running already");
                return self.refuse(&id, ToolOutcomeKind::Refused, reason);
            }
            in_flight.insert(id.clone());
        }
        let writer = Arc::clone(&self.writer);
        let detailed = self.detailed;
        let spawned = thread::Builder::new()
            .name("tool".to_owned())
            .stack_size(TOOL_STACK)
            .spawn(move || {
                // Where this fails, sending the result fails too, which is logged.
                let frames = shared.run(&dispatch, detailed, |chunks| drop(writer.write(chunks)));
                lock(&shared.in_flight).remove(&dispatch.command_id);
                let sent = frames
                    .map_err(FrameError::from)
                    .and_then(|frames| Ok(writer.write(&frames)?));
                if let Err(error) = sent {
                    tracing::warn!(error = %Causes(&error), "a tool's result could not be sent");
                }
            });
        if let Err(error) = spawned {
            lock(&self.shared.in_flight).remove(&id);
            let reason = format!("no thread could be started for the tool: {error}");
            self.refuse(&id, ToolOutcomeKind::GuestFailed, reason)?;
        }
        Ok(())
    }

    /// Answers a command that can't be run now.
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

    /// What is imprinted here is about to go into a snapshot. What is still to be written goes to the disk before that:
    /// each guest that is restored would write it then, and change a disk that nobody has used.
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

    /// Sends a frame before the next wait.
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

/// Whether the next frame can be read without waiting. A length that is out of bounds is refused at once.
fn holds_a_frame(buffered: &[u8]) -> bool {
    match buffered.split_first_chunk() {
        Some((header, rest)) => body_length(*header).map_or(true, |length| length <= rest.len()),
        None => false,
    }
}

/// Whether something worked; the host is told only that, the console why not.
fn succeeded(failure: &str, result: io::Result<()>) -> bool {
    result
        .inspect_err(|error| tracing::warn!(error = %Causes(error), "{failure}"))
        .is_ok()
}

/// Milliseconds since 1970, up to some 292 million years.
fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// The connection's writing side, one frame at a time. Empty once a frame could not be written in full: what
/// follows a torn frame would be read as its rest.
struct Writer<W>(Mutex<Option<W>>);

impl<W: Write> Writer<W> {
    /// Writes whole frames in one piece.
    fn write(&self, frames: &[u8]) -> io::Result<()> {
        let mut guard = lock(&self.0);
        let writer = guard
            .as_mut()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
        let written = writer.write_all(frames).and_then(|()| writer.flush());
        if written.is_err() {
            *guard = None;
        }
        written
    }
}
