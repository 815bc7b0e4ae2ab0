//! One connection: reads frames, answers them.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;

use super::run::{self, Outcome};
use super::toolbox::Refused;
use super::{
    EXIT_DEADLINE, EXIT_GUEST_ERROR, EXIT_UNKNOWN_TOOL, MAX_DEADLINE_MS, MAX_IN_FLIGHT, ServeError,
    Shared, lock,
};
use crate::guest::frame::{FrameError, LengthError, read_frame, write_frame};
use crate::guest::protocol::{
    DecodeError, ErrorEvent, Frame, GuestQuery, GuestResponse, Hello, Imprint, Imprinted,
    OpenFdCount, ProcessList, QueryKind, QueryResult, Renew, Renewed, ToolDispatch, ToolResult,
};

/// Most bytes of a command's id or of a nonce: both are kept.
const MAX_ID: usize = 256;

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
}

impl<W: Write + Send + 'static> Session<W> {
    pub(super) fn new(shared: Arc<Shared>, writer: W) -> Session<W> {
        Session {
            shared,
            writer: Arc::new(Writer(Mutex::new(Some(writer)))),
        }
    }

    pub(super) fn serve(&self, reader: &mut impl Read) -> Result<(), ServeError> {
        loop {
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
                    self.writer.error(PROTOCOL_ERROR, unknown.to_string())?;
                    continue;
                }
                FrameError::Io(_) => return Err(error.into()),
                FrameError::Length(LengthError::TooLarge { .. }) => TOO_LARGE,
                FrameError::Length(LengthError::Empty) | FrameError::Decode(_) => MALFORMED,
            };
            self.writer.error(code, error.to_string())?;
            return Err(error.into());
        }
    }

    fn answer(&self, frame: Frame) -> Result<(), ServeError> {
        match frame {
            Frame::ToolDispatch(dispatch) => self.dispatch(dispatch)?,
            Frame::GuestQuery(query) => self.query(&query)?,
            Frame::Hello(_) => {
                let nonce = lock(&self.shared.nonce).clone();
                let hello = Hello {
                    nonce,
                    ..Hello::of_this_build()
                };
                self.writer.send(&Frame::Hello(hello))?;
            }
            Frame::Imprint(imprint) => self.imprint(imprint)?,
            Frame::Renew(renew) => self.renew(&renew)?,
            other => {
                let error = ServeError::Unexpected { name: other.name() };
                self.writer.error(PROTOCOL_ERROR, error.to_string())?;
                return Err(error);
            }
        }
        Ok(())
    }

    fn dispatch(&self, dispatch: ToolDispatch) -> Result<(), FrameError> {
        let id = dispatch.command_id.clone();
        if id.len() > MAX_ID {
            let message = format!("a command_id has at most {MAX_ID} bytes, not {}", id.len());
            return self.writer.error(PROTOCOL_ERROR, message);
        }
        {
            let mut in_flight = lock(&self.shared.in_flight);
            if in_flight.contains(&id) {
                let message = format!("the command {id:?} is in flight");
                return self.writer.error(DUPLICATE_REQUEST, message);
            }
            if in_flight.len() == MAX_IN_FLIGHT {
                let reason = format!("{MAX_IN_FLIGHT} tools are running already");
                return self.writer.send(&refusal(id, EXIT_GUEST_ERROR, reason));
            }
            in_flight.insert(id.clone());
        }
        let shared = Arc::clone(&self.shared);
        let writer = Arc::clone(&self.writer);
        let spawned = thread::Builder::new()
            .name("tool".to_owned())
            .stack_size(TOOL_STACK)
            .spawn(move || {
                let result = shared.run(&dispatch);
                lock(&shared.in_flight).remove(&dispatch.command_id);
                if let Err(error) = writer.send(&result) {
                    tracing::warn!(%error, "a tool's result could not be sent");
                }
            });
        if let Err(error) = spawned {
            lock(&self.shared.in_flight).remove(&id);
            let reason = format!("no thread could be started for the tool: {error}");
            self.writer.send(&refusal(id, EXIT_GUEST_ERROR, reason))?;
        }
        Ok(())
    }

    fn query(&self, query: &GuestQuery) -> Result<(), FrameError> {
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
            Ok(result) => self.writer.send(&Frame::GuestResponse(GuestResponse {
                query_id: query.query_id,
                result,
                ts: Timestamp::now(),
            })),
            Err(error) => {
                let message = format!("{:?} could not be read: {error}", query.query_kind);
                self.writer.error(QUERY_FAILED, message)
            }
        }
    }

    fn imprint(&self, imprint: Imprint) -> Result<(), FrameError> {
        if imprint.nonce.len() > MAX_ID {
            let length = imprint.nonce.len();
            let message = format!("a nonce has at most {MAX_ID} bytes, not {length}");
            return self.writer.error(PROTOCOL_ERROR, message);
        }
        *lock(&self.shared.nonce) = Some(imprint.nonce);
        let request_id = imprint.request_id;
        self.writer
            .send(&Frame::Imprinted(Imprinted { request_id }))
    }

    fn renew(&self, renew: &Renew) -> Result<(), FrameError> {
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
        self.writer.send(&Frame::Renewed(Renewed {
            request_id: renew.request_id,
            nonce,
            reseeded,
            clock_set,
            clock_offset_ms: offset,
            unix_nanos,
        }))
    }
}

/// Whether something worked; the host is told only that, the console why not.
fn succeeded(failure: &str, result: io::Result<()>) -> bool {
    result
        .inspect_err(|error| tracing::warn!(%error, "{failure}"))
        .is_ok()
}

/// Milliseconds since 1970, up to some 292 million years.
fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

impl Shared {
    /// Runs a tool to its end and makes the frame that says so.
    fn run(&self, dispatch: &ToolDispatch) -> Frame {
        let id = dispatch.command_id.clone();
        let line = match self
            .toolbox
            .command_line(dispatch.tool.as_str(), &dispatch.params)
        {
            Ok(line) => line,
            Err(Refused::UnknownTool) => {
                let reason = format!("the tool {:?} is not known", dispatch.tool.as_str());
                return refusal(id, EXIT_UNKNOWN_TOOL, reason);
            }
            Err(Refused::Params(reason)) => return refusal(id, EXIT_GUEST_ERROR, reason),
        };
        if dispatch.deadline_ms > MAX_DEADLINE_MS {
            let reason = format!("the deadline is above {MAX_DEADLINE_MS} ms");
            return refusal(id, EXIT_GUEST_ERROR, reason);
        }
        let deadline = Duration::from_millis(dispatch.deadline_ms);
        let ran = run::run(&line, deadline, &self.confinement);
        self.sync();
        let (exit_code, output) = match ran {
            Ok((Outcome::Ended(exit_code), output)) => (exit_code, output),
            Ok((Outcome::DeadlineExceeded, mut output)) => {
                output.stderr = b"deadline_exceeded".to_vec();
                (EXIT_DEADLINE, output)
            }
            Err(error) => {
                let reason = format!("{} could not be run: {error}", line.program);
                return refusal(id, EXIT_GUEST_ERROR, reason);
            }
        };
        Frame::ToolResult(ToolResult {
            command_id: id,
            exit_code,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            evidence_hash: None,
        })
    }

    /// Brings what the tool wrote to the disk, where the host's digest finds it, before the host knows that the
    /// tool has ended.
    fn sync(&self) {
        let Some(root) = &self.synced else { return };
        let synced = std::fs::File::open(root).and_then(|root| Ok(rustix::fs::syncfs(&root)?));
        succeeded("the tools' file system could not be synced", synced);
    }
}

fn refusal(command_id: String, exit_code: i32, reason: String) -> Frame {
    Frame::ToolResult(ToolResult {
        command_id,
        exit_code,
        stdout: String::new(),
        stderr: reason,
        evidence_hash: None,
    })
}

/// The connection's writing side, one frame at a time. Empty once a frame could not be written in full: what
/// follows a torn frame would be read as its rest.
struct Writer<W>(Mutex<Option<W>>);

impl<W: Write> Writer<W> {
    fn send(&self, frame: &Frame) -> Result<(), FrameError> {
        let mut guard = lock(&self.0);
        let writer = guard
            .as_mut()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
        let written = write_frame(writer, frame);
        if let Err(FrameError::Io(_)) = written {
            *guard = None;
        }
        written
    }

    fn error(&self, code: &str, message: String) -> Result<(), FrameError> {
        self.send(&Frame::ErrorEvent(ErrorEvent {
            code: code.to_owned(),
            message,
        }))
    }
}
