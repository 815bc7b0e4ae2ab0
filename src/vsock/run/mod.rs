//! [`RunStream`]: the host's side of a run with streams. It carries the tool's output in order, standard input and
//! signals, and checks both hash chains.
//!
//! The host computes both chains itself, over the records that it sent and over those that came. The record that ends
//! the run must agree with both chains and with the lengths of the streams. This proves that both ends saw the same
//! records. It doesn't prove how the tool ended and what it wrote: for that the host relies on the guest's kernel.

mod input;
mod sent;

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::net::UnixStream;

use super::stream::{RecordReader, RecordStream};
use super::{Error, EvidenceError, Origin, Violation};
use crate::guest::frame::{HEADER, encode};
use crate::guest::protocol::{Direction, Frame, JsonRecord, OpenRun, RunChain, RunEnd, StdinMode};
use crate::guest::record::RecordKind;
use crate::sanitize;

pub use super::connection::RunName;
pub use input::RunWriter;

/// The kinds of records that a guest sends in a run.
pub(super) const RUN_TO_HOST: [RecordKind; 3] =
    [RecordKind::Stdout, RecordKind::Stderr, RecordKind::End];

/// The kinds of records that a host sends in a run.
const RUN_TO_GUEST: [RecordKind; 3] = [
    RecordKind::Stdin,
    RecordKind::EndOfStdin,
    RecordKind::Signal,
];

/// A run with streams that was opened, by [`Channel::open_run`](super::Channel::open_run).
#[derive(Debug)]
#[non_exhaustive]
pub struct RunStream {
    /// Receives the tool's output and the run's end.
    pub output: RunReader,
    /// Sends standard input and signals.
    pub input: RunWriter,
    /// Keeps the run's id reserved on its channel until it is dropped; `None` for a run without a channel.
    pub name: Option<RunName>,
}

impl RunStream {
    /// A run on `stream`, which `frame`, an encoded `OpenRun`, has opened.
    pub(super) fn new(
        stream: RecordStream,
        stdin: StdinMode,
        frame: &[u8],
        name: RunName,
    ) -> RunStream {
        let command_id = name.shortened();
        RunStream {
            name: Some(name),
            ..RunStream::nameless(stream, stdin, &frame[HEADER..], command_id)
        }
    }

    /// Both ends of a run without a guest, on a pair of sockets in this process.
    pub(crate) fn in_process(open: &OpenRun) -> io::Result<(RunStream, RunGuest)> {
        let frame = encode(&Frame::OpenRun(open.clone())).map_err(io::Error::other)?;
        let body = &frame[HEADER..];
        let (host, guest) = UnixStream::pair()?;
        let origin = Origin::next(Path::new("in this process").into(), 0);
        let host = RecordStream::on(host, origin.clone(), &RUN_TO_HOST, &[]);
        let command_id = sanitize::line(&open.command_id, 64);
        let guest = RunGuest {
            stream: RecordStream::on(guest, origin, &RUN_TO_GUEST, &[]),
            to_guest: RunChain::new(Direction::ToGuest, body),
            to_host: RunChain::new(Direction::ToHost, body),
        };
        let host = RunStream::nameless(host, open.stdin, body, command_id);
        Ok((host, guest))
    }

    /// A run without a channel. `body` is that of its `OpenRun` frame.
    pub(super) fn nameless(
        stream: RecordStream,
        stdin: StdinMode,
        body: &[u8],
        command_id: String,
    ) -> RunStream {
        let closer = stream.closer();
        let sent = RunChain::new(Direction::ToGuest, body);
        let input = RunWriter::new(stream.writer, closer, sent, stdin);
        RunStream {
            output: RunReader {
                records: stream.reader,
                input: input.clone(),
                chain: RunChain::new(Direction::ToHost, body),
                stdout: 0,
                stderr: 0,
                command_id,
            },
            input,
            name: None,
        }
    }
}

/// One of the two output streams of a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl fmt::Display for OutputStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OutputStream::Stdout => "stdout",
            OutputStream::Stderr => "stderr",
        })
    }
}

/// A piece of a run's output, or its end. `Debug` doesn't show the output's bytes.
#[derive(Clone, PartialEq, Eq)]
pub enum RunRecord {
    /// A piece of the tool's output.
    Output {
        /// The stream to which the tool wrote.
        stream: OutputStream,
        /// The bytes that the tool wrote, at most 256 KiB.
        bytes: Bytes,
    },
    /// The run has ended, and nothing follows. Its links and totals agree with the records that were sent and received.
    End(RunEnd),
}

impl fmt::Debug for RunRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunRecord::Output { stream, bytes } => write!(f, "{stream}({} bytes)", bytes.len()),
            RunRecord::End(end) => f.debug_tuple("End").field(end).finish(),
        }
    }
}

/// The receiving side of a run: the output of both streams in the order in which the guest read it, and then the run's
/// end.
#[derive(Debug)]
pub struct RunReader {
    records: RecordReader,
    input: RunWriter,
    chain: RunChain,
    stdout: u64,
    stderr: u64,
    /// The run's id, as a line of at most 64 characters.
    command_id: String,
}

/// The guest's end of a run without a guest, with both chains before their first record.
pub(crate) struct RunGuest {
    pub(crate) stream: RecordStream,
    pub(crate) to_guest: RunChain,
    pub(crate) to_host: RunChain,
}

impl RunReader {
    /// Waits for the next piece of output or the end. No output is lost if the returned future is dropped. There is no
    /// time limit; the caller enforces the run's deadline.
    ///
    /// # Errors
    ///
    /// - Those of [`RecordReader::next`]
    /// - [`Error::Protocol`] with [`Violation::Total`] or [`Violation::NothingCut`] if the end's totals contradict the
    ///   output
    /// - [`Error::Evidence`] if the end's links aren't those of the records that were sent and received
    ///
    /// The connection is unusable after an error and after the end.
    pub async fn next(&mut self) -> Result<RunRecord, Error> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// As [`next`](Self::next), for use inside another `poll` function.
    ///
    /// # Errors
    ///
    /// Those of [`next`](Self::next).
    pub(crate) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<RunRecord, Error>> {
        let record = ready!(self.records.poll_next(context))?;
        Poll::Ready(self.take(record.kind, record.body))
    }

    /// The next piece of output or the end, if it has arrived. Doesn't wait.
    ///
    /// # Errors
    ///
    /// Those of [`next`](Self::next).
    pub(crate) fn next_now(&mut self) -> Result<Option<RunRecord>, Error> {
        let record = self.records.next_now()?;
        record
            .map(|record| self.take(record.kind, record.body))
            .transpose()
    }

    fn take(&mut self, kind: RecordKind, body: Bytes) -> Result<RunRecord, Error> {
        let (stream, total) = match kind {
            RecordKind::Stdout => (OutputStream::Stdout, &mut self.stdout),
            RecordKind::Stderr => (OutputStream::Stderr, &mut self.stderr),
            // The only other kind that the connection allows is `End`.
            _ => return self.end(&body).map(RunRecord::End),
        };
        *total += body.len() as u64;
        self.chain.append(kind, &body);
        Ok(RunRecord::Output {
            stream,
            bytes: body,
        })
    }

    /// Checks the run's end against the records that were sent and received.
    fn end(&mut self, body: &[u8]) -> Result<RunEnd, Error> {
        let origin = self.records.origin();
        let end = RunEnd::decode(body).map_err(|source| Error::FrameMalformed {
            origin: origin.clone(),
            source: Some(source),
        })?;
        self.records.expect_nothing_more()?;
        self.check_totals(&end)
            .map_err(|source| self.records.broken(source))?;
        self.check_links(&end).map_err(|source| Error::Evidence {
            origin: self.records.origin().clone(),
            command_id: self.command_id.clone(),
            source,
        })?;
        Ok(end)
    }

    /// Checks that the totals are the lengths of the streams or, if output was cut, that none is smaller and at least
    /// one is larger.
    fn check_totals(&self, end: &RunEnd) -> Result<(), Violation> {
        let streams = [
            (OutputStream::Stdout, end.stdout_total, self.stdout),
            (OutputStream::Stderr, end.stderr_total, self.stderr),
        ];
        for (stream, said, came) in streams {
            let is_wrong = match end.cut {
                true => said < came,
                false => said != came,
            };
            if is_wrong {
                return Err(Violation::Total { stream, said, came });
            }
        }
        let came = (self.stdout, self.stderr);
        match end.cut && (end.stdout_total, end.stderr_total) == came {
            true => Err(Violation::NothingCut),
            false => Ok(()),
        }
    }

    fn check_links(&self, end: &RunEnd) -> Result<(), EvidenceError> {
        let computed = RunChain::text(&self.input.link_after(end.records_taken)?);
        if computed != end.to_guest_hash {
            return Err(EvidenceError::WrongInputLink {
                claimed: end.to_guest_hash.clone(),
                taken: end.records_taken,
            });
        }
        let computed = RunChain::text(&self.chain.link());
        if computed != end.to_host_hash {
            let claimed = Some(end.to_host_hash.clone());
            return Err(EvidenceError::WrongLink { claimed, computed });
        }
        Ok(())
    }
}
