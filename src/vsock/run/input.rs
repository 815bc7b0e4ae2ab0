//! [`RunWriter`]: sends standard input, its end, and signals to a run.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker, ready};

use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::sent::SentChain;
use crate::guest::protocol::{JsonRecord, RunChain, RunSignal, StdinMode};
use crate::guest::record::{MAX_RECORD, RecordHeader, RecordKind};
use crate::mutex::lock;
use crate::vsock::stream::{RecordWriter, StreamCloser};
use crate::vsock::{EvidenceError, Origin};

/// The sending side of a run: standard input and signals. Clones are handles of the same run.
///
/// A record is written at once as far as the socket takes it. The rest, of at most one record, is kept here, and
/// [`flush`](Self::flush) sends it; the owner of the run must have a task that runs `flush`. So a caller that stops
/// waiting never leaves half a record behind. A signal waits only for the end of the record that is being sent.
#[derive(Clone)]
pub struct RunWriter {
    shared: Arc<Shared>,
}

struct Shared {
    stream: Arc<UnixStream>,
    closer: StreamCloser,
    state: Mutex<State>,
    /// Notified when there is something to flush.
    filled: Notify,
}

struct State {
    records: RecordWriter,
    sent: SentChain,
    stdin: Stdin,
    /// The signal that wasn't sent yet. `Kill` replaces `Terminate`.
    signal: Option<RunSignal>,
    /// The task that waits until the present record is sent.
    blocked: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stdin {
    Open,
    /// The end of standard input will be sent after the present record.
    Ending,
    /// The end of standard input was sent, or the run has no standard input.
    Ended,
}

impl RunWriter {
    pub(super) fn new(
        records: RecordWriter,
        closer: StreamCloser,
        sent: RunChain,
        stdin: StdinMode,
    ) -> RunWriter {
        let state = State {
            sent: SentChain::new(sent),
            stdin: match stdin {
                StdinMode::Piped => Stdin::Open,
                StdinMode::None => Stdin::Ended,
            },
            signal: None,
            blocked: None,
            records,
        };
        RunWriter {
            shared: Arc::new(Shared {
                stream: closer.stream(),
                closer,
                state: Mutex::new(state),
                filled: Notify::new(),
            }),
        }
    }

    /// Sends the beginning of `bytes` to the tool's standard input, as one record of at most 256 KiB, and returns the
    /// number of bytes. Waits while an earlier record is being sent; of several waiting tasks only the last one is
    /// woken.
    ///
    /// # Errors
    ///
    /// `BrokenPipe` if standard input has ended or the run has none; otherwise the socket's error.
    pub fn poll_stdin(&self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.lock();
        if state.stdin != Stdin::Open {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let bytes = &bytes[..bytes.len().min(MAX_RECORD)];
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.poll_idle(&mut state, context))?;
        ready!(self.shared.stream.poll_write_ready(context))?;
        state.send(RecordKind::Stdin, bytes)?;
        self.go_on(&mut state);
        Poll::Ready(Ok(bytes.len()))
    }

    /// Waits until the socket has taken everything that was to be sent.
    ///
    /// # Errors
    ///
    /// The socket's error.
    pub(crate) fn poll_sent(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_idle(&mut self.lock(), context)
    }

    fn poll_idle(&self, state: &mut State, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if state.go_on()? {
            return Poll::Ready(Ok(()));
        }
        state.blocked = Some(context.waker().clone());
        self.shared.filled.notify_one();
        Poll::Pending
    }

    /// Ends the tool's standard input after the bytes that were sent to it. A second call does nothing.
    pub fn end_stdin(&self) {
        let mut state = self.lock();
        if state.stdin == Stdin::Open {
            state.stdin = Stdin::Ending;
            self.go_on(&mut state);
        }
    }

    /// Sends a signal to the tool and every process that it started. If an earlier signal wasn't sent yet, only the
    /// stronger one of the two is sent. Does nothing if the run has ended.
    pub fn signal(&self, signal: RunSignal) {
        let mut state = self.lock();
        state.signal = match (state.signal, signal) {
            (Some(RunSignal::Kill), _) | (_, RunSignal::Kill) => Some(RunSignal::Kill),
            _ => Some(RunSignal::Terminate),
        };
        self.go_on(&mut state);
    }

    /// Sends the bytes that the socket didn't take at once, for as long as the connection is open. A task must run this
    /// while the run is in use.
    pub async fn flush(&self) {
        loop {
            self.shared.filled.notified().await;
            loop {
                if self.shared.stream.writable().await.is_err() {
                    return;
                }
                match self.lock().go_on() {
                    Ok(true) => break,
                    Ok(false) => {}
                    // The run's reader gets the error, too, and reports it.
                    Err(_) => return,
                }
            }
        }
    }

    /// Closes the connection, upon which the guest kills the tool. Records that the guest had sent can still be read.
    pub fn close(&self) {
        self.shared.closer.close();
        let blocked = {
            let mut state = self.lock();
            state.stdin = Stdin::Ended;
            state.blocked.take()
        };
        if let Some(blocked) = blocked {
            blocked.wake();
        }
    }

    /// Identifies the run's connection.
    pub(crate) fn origin(&self) -> Origin {
        self.lock().records.origin().clone()
    }

    /// The link of the chain to the guest after this many records.
    pub(super) fn link_after(&self, records: u64) -> Result<[u8; 32], EvidenceError> {
        self.lock().sent.after(records)
    }

    /// Sends as much as the socket takes now, and leaves the rest to [`flush`](Self::flush).
    fn go_on(&self, state: &mut State) {
        // If this fails, the run's reader gets the error, too, and reports it.
        if !state.go_on().unwrap_or(true) {
            self.shared.filled.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock, and the state is consistent after every statement.
        lock(&self.shared.state)
    }
}

impl State {
    /// Sends as much as the socket takes of the rest of a record, a signal, and the end of standard input. Returns
    /// whether everything was sent.
    fn go_on(&mut self) -> io::Result<bool> {
        loop {
            if !self.records.advance()? {
                return Ok(false);
            }
            if let Some(signal) = self.signal.take() {
                self.send(RecordKind::Signal, &signal.encode())?;
            } else if self.stdin == Stdin::Ending {
                self.stdin = Stdin::Ended;
                self.send(RecordKind::EndOfStdin, &[])?;
            } else {
                if let Some(blocked) = self.blocked.take() {
                    blocked.wake();
                }
                return Ok(true);
            }
        }
    }

    /// Begins to send a record. The record before must have been sent in full.
    fn send(&mut self, kind: RecordKind, body: &[u8]) -> io::Result<()> {
        let header = RecordHeader::of(kind, body).map_err(io::Error::other)?;
        self.sent.append(kind, body);
        self.records.start(header, body)
    }
}

impl fmt::Debug for RunWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunWriter").finish_non_exhaustive()
    }
}
