//! The tool's side of a run that another implementation of a sandbox makes.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;

use super::super::{Error, ToolOutcome};
use super::shared::Shared;
use crate::guest::protocol::{JsonRecord, RunChain, RunEnd, RunSignal};
use crate::guest::record::{MAX_RECORD, RecordKind};
use crate::limits::TimeLimits;
use crate::vsock::{OutputStream, RecordReader, RecordWriter, RunGuest};

/// Plays the tool of a [`RunningTool`](super::RunningTool) that was made
/// [with it](super::RunningTool::with_controller). Its halves may go different ways.
///
/// It speaks the guest's side of the protocol, so the run's evidence is that of a guest's. Dropping the output before its
/// [`end`](RunOutputs::end) breaks the run off.
#[derive(Debug)]
#[non_exhaustive]
pub struct RunController {
    /// What the run's caller sends.
    pub input: RunInputs,
    /// What its caller gets.
    pub output: RunOutputs,
}

/// What the caller of a run sends.
#[derive(Clone, PartialEq, Eq)]
pub enum RunInput {
    /// Bytes for the tool's standard input.
    Stdin(Bytes),
    /// The tool's standard input ends.
    EndOfStdin,
    /// A signal for the tool.
    Signal(RunSignal),
}

/// The half of a [`RunController`] that takes what the run's caller sends.
pub struct RunInputs {
    records: RecordReader,
    taken: Arc<Mutex<Taken>>,
}

/// The half of a [`RunController`] that gives the run's caller what the tool writes.
pub struct RunOutputs {
    records: RecordWriter,
    chain: RunChain,
    totals: [u64; 2],
    taken: Arc<Mutex<Taken>>,
    run: Weak<Shared>,
}

/// The records that were taken.
struct Taken {
    chain: RunChain,
    count: u64,
}

impl RunController {
    pub(super) fn new(guest: RunGuest, run: &Arc<Shared>) -> RunController {
        let taken = Arc::new(Mutex::new(Taken {
            chain: guest.to_guest,
            count: 0,
        }));
        RunController {
            input: RunInputs {
                records: guest.stream.reader,
                taken: Arc::clone(&taken),
            },
            output: RunOutputs {
                records: guest.stream.writer,
                chain: guest.to_host,
                totals: [0; 2],
                taken,
                run: Arc::downgrade(run),
            },
        }
    }
}

impl RunInputs {
    /// The next thing that the run's caller sends; `None` once it has gone. Nothing is lost if the returned future is dropped.
    /// What isn't taken holds the caller up, a signal behind it too.
    pub async fn next(&mut self) -> Option<RunInput> {
        let record = self.records.next().await.ok()?;
        let input = match record.kind {
            RecordKind::Stdin => RunInput::Stdin(record.body.clone()),
            RecordKind::EndOfStdin => RunInput::EndOfStdin,
            _ => RunInput::Signal(RunSignal::decode(&record.body).ok()?),
        };
        let mut taken = lock(&self.taken);
        taken.chain.append(record.kind, &record.body);
        taken.count += 1;
        Some(input)
    }
}

impl RunOutputs {
    /// Gives the run's caller what the tool wrote, and waits while the caller doesn't read.
    ///
    /// # Errors
    ///
    /// The caller has gone, or the run was ended.
    pub async fn write(&mut self, stream: OutputStream, bytes: &[u8]) -> io::Result<()> {
        let (kind, total) = match stream {
            OutputStream::Stdout => (RecordKind::Stdout, &mut self.totals[0]),
            OutputStream::Stderr => (RecordKind::Stderr, &mut self.totals[1]),
        };
        for piece in bytes.chunks(MAX_RECORD) {
            self.chain.append(kind, piece);
            *total += piece.len() as u64;
            let sent = self.records.send(kind, piece, TimeLimits::LONGEST);
            sent.await.map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// The tool has ended like this. An outcome that no guest says of a run, such as an exit code above 255, is told as a
    /// failure of the guest.
    ///
    /// # Errors
    ///
    /// Those of [`write`](Self::write).
    pub async fn end(mut self, outcome: ToolOutcome) -> io::Result<()> {
        let [stdout_total, stderr_total] = self.totals;
        let end = {
            let taken = lock(&self.taken);
            RunEnd {
                outcome: outcome.of_run(),
                stdout_total,
                stderr_total,
                cut: false,
                to_guest_hash: RunChain::text(&taken.chain.link()),
                to_host_hash: RunChain::text(&self.chain.link()),
                records_taken: taken.count,
            }
        };
        let body = end.encode();
        let sent = self
            .records
            .send(RecordKind::End, &body, TimeLimits::LONGEST);
        sent.await.map_err(io::Error::other)
    }

    /// Ends the run with an error.
    pub fn fail(self, error: Error) {
        if let Some(run) = self.run.upgrade() {
            run.fail(error);
        }
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    // Nothing panics while it holds the lock.
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for RunInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunInput::Stdin(bytes) => write!(f, "Stdin({} bytes)", bytes.len()),
            RunInput::EndOfStdin => f.write_str("EndOfStdin"),
            RunInput::Signal(signal) => f.debug_tuple("Signal").field(signal).finish(),
        }
    }
}

impl fmt::Debug for RunInputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunInputs")
    }
}

impl fmt::Debug for RunOutputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunOutputs")
            .field("totals", &self.totals)
            .finish_non_exhaustive()
    }
}
