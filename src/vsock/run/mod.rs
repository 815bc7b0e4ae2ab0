//! A run with streams, on its connection: output in order, standard input, signals, and both evidence chains.
//!
//! The host computes both chains itself, of what it sent and of what came, and the record that ends the run has to agree with
//! them and with the lengths of the streams. That proves that both ends saw the same records. How the tool ended, and what it
//! wrote, is the word of the guest's kernel.

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

/// What the guest sends of a run.
pub(super) const RUN_TO_HOST: [RecordKind; 3] =
    [RecordKind::Stdout, RecordKind::Stderr, RecordKind::End];

/// What the host sends to one.
const RUN_TO_GUEST: [RecordKind; 3] = [
    RecordKind::Stdin,
    RecordKind::EndOfStdin,
    RecordKind::Signal,
];

/// A run that was opened.
#[derive(Debug)]
#[non_exhaustive]
pub struct RunStream {
    /// What comes of it.
    pub output: RunReader,
    /// What goes to it.
    pub input: RunWriter,
    /// Keeps its name taken; `None` of a run without a channel.
    pub name: Option<RunName>,
}

impl RunStream {
    /// `frame` is the frame that opened it.
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

    /// Both ends of a run that no guest runs, on a pair of sockets.
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

    /// A run without a channel, whose frame had this body.
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

/// Where a tool writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutputStream {
    /// Its standard output.
    Stdout,
    /// Its standard error.
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

/// What comes of a run.
#[derive(Clone, PartialEq, Eq)]
pub enum RunRecord {
    /// The tool wrote something.
    Output {
        /// Where to.
        stream: OutputStream,
        /// What it wrote.
        bytes: Bytes,
    },
    /// The run has ended, and nothing follows. Its links and totals are those of what was sent and received.
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

/// What comes of a run: its output in the order in which the guest read it, and how it ended.
#[derive(Debug)]
pub struct RunReader {
    records: RecordReader,
    input: RunWriter,
    chain: RunChain,
    stdout: u64,
    stderr: u64,
    /// The run's name, cut to 64 characters.
    command_id: String,
}

/// The guest's end of a run that no guest runs, with the chains as they begin.
pub(crate) struct RunGuest {
    pub(crate) stream: RecordStream,
    pub(crate) to_guest: RunChain,
    pub(crate) to_host: RunChain,
}

impl RunReader {
    /// The next piece of output, or the end. Nothing is lost if the returned future is dropped. There is no limit of time: the
    /// deadline is the caller's to keep.
    ///
    /// # Errors
    ///
    /// Those of [`RecordReader::next`], and [`Error::Evidence`] when the end doesn't agree with what crossed the connection. The
    /// connection is of no use after any of them, nor after the end.
    pub async fn next(&mut self) -> Result<RunRecord, Error> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// As [`next`](Self::next), for a future that is written by hand.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<RunRecord, Error>> {
        let record = ready!(self.records.poll_next(context))?;
        Poll::Ready(self.take(record.kind, record.body))
    }

    /// The next piece, if it has come.
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
            // The only other kind that the connection admits.
            _ => return self.end(&body).map(RunRecord::End),
        };
        *total += body.len() as u64;
        self.chain.append(kind, &body);
        Ok(RunRecord::Output {
            stream,
            bytes: body,
        })
    }

    /// Holds the end against what crossed the connection.
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

    /// The totals are what came, or more where output was cut.
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
