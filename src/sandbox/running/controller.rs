//! [`ToolSide`]: plays the tool of a run that has no guest, for other implementations of a sandbox and for tests.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;

use super::super::{Error, ToolOutcome};
use super::run_state::RunState;
use crate::guest::protocol::{JsonRecord, RunChain, RunEnd, RunSignal};
use crate::guest::record::{MAX_RECORD, RecordKind};
use crate::limits::TimeLimits;
use crate::vsock::{OutputStream, RecordReader, RecordWriter, RunGuest};

/// Plays the tool of a [`RunningTool`](super::RunningTool), together with which
/// [`RunningTool::with_controller`](super::RunningTool::with_controller) makes it. Its two halves may be used by
/// different tasks.
///
/// It speaks the guest's side of the protocol, so the run has evidence as one in a guest has. If the output is dropped
/// before its [`end`](ToolSideOutput::end), the run ends with an error.
#[derive(Debug)]
#[non_exhaustive]
pub struct ToolSide {
    /// Receives what the run's caller sends.
    pub input: ToolSideInput,
    /// Sends the tool's output and its end to the run's caller.
    pub output: ToolSideOutput,
}

/// One thing that the caller of a run sends.
#[derive(Clone, PartialEq, Eq)]
pub enum RunInput {
    /// Bytes for the tool's standard input.
    Stdin(Bytes),
    /// The tool's standard input ends.
    EndOfStdin,
    /// A signal for the tool.
    Signal(RunSignal),
}

/// The half of a [`ToolSide`] that receives what the run's caller sends.
pub struct ToolSideInput {
    records: RecordReader,
    taken: Arc<Mutex<Taken>>,
}

/// The half of a [`ToolSide`] that sends the tool's output and its end to the run's caller.
pub struct ToolSideOutput {
    records: RecordWriter,
    chain: RunChain,
    totals: [u64; 2],
    taken: Arc<Mutex<Taken>>,
    run: Weak<RunState>,
}

/// The records that were received so far.
struct Taken {
    chain: RunChain,
    count: u64,
}

impl ToolSide {
    pub(super) fn new(guest: RunGuest, run: &Arc<RunState>) -> ToolSide {
        let taken = Arc::new(Mutex::new(Taken {
            chain: guest.to_guest,
            count: 0,
        }));
        ToolSide {
            input: ToolSideInput {
                records: guest.stream.reader,
                taken: Arc::clone(&taken),
            },
            output: ToolSideOutput {
                records: guest.stream.writer,
                chain: guest.to_host,
                totals: [0; 2],
                taken,
                run: Arc::downgrade(run),
            },
        }
    }
}

impl ToolSideInput {
    /// Waits for the next thing that the run's caller sends. Returns `None` once the caller is gone. If the returned
    /// future is dropped, nothing is lost. A caller that writes more than is received here has to wait, and so does a
    /// signal that it sends afterwards.
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

impl ToolSideOutput {
    /// Sends output of the tool to the run's caller. Waits while the caller doesn't read.
    ///
    /// # Errors
    ///
    /// An error says that the caller is gone, or that the run has ended.
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

    /// Ends the run with this outcome. An outcome that a guest can't report for a run, such as an exit code above 255,
    /// becomes [`GuestFailed`](ToolOutcome::GuestFailed).
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

    /// Ends the run with an error, which the run's caller gets.
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

impl fmt::Debug for ToolSideInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RunInputs")
    }
}

impl fmt::Debug for ToolSideOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunOutputs")
            .field("totals", &self.totals)
            .finish_non_exhaustive()
    }
}
