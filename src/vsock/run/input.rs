//! What goes to a run: standard input, its end, and signals.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::sent::SentChain;
use crate::guest::protocol::{JsonRecord, RunChain, RunSignal, StdinMode};
use crate::guest::record::{MAX_RECORD, RecordHeader, RecordKind};
use crate::vsock::stream::{RecordWriter, StreamCloser};
use crate::vsock::{EvidenceError, Origin};

/// What goes to a run. A clone is another handle of the same.
///
/// A record is written at once where the socket takes it. What the socket doesn't take of it waits here, one record at most, and
/// [`flush`](Self::flush) sends it, which some task has to run: so a caller that goes away never leaves half a record behind.
/// A signal waits for the end of that record, and no longer.
#[derive(Clone)]
pub struct RunWriter {
    shared: Arc<Shared>,
}

struct Shared {
    stream: Arc<UnixStream>,
    closer: StreamCloser,
    state: Mutex<State>,
    /// There is something to flush.
    filled: Notify,
}

struct State {
    records: RecordWriter,
    sent: SentChain,
    stdin: Stdin,
    /// Not sent yet. Kill stands for both.
    signal: Option<RunSignal>,
    /// The task that waits for the record that is being sent.
    blocked: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stdin {
    Open,
    /// Its end is to be sent after the record that is being sent.
    Ending,
    /// Its end was sent, or there was none.
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

    /// Sends the beginning of `bytes` to the tool's standard input, as one record, and returns how many they were. Waits while
    /// an earlier record is being sent; only the last task that waits is woken.
    ///
    /// # Errors
    ///
    /// Kind `BrokenPipe` when standard input has ended or is none; what the socket failed with.
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

    /// Waits until nothing is being sent any more.
    ///
    /// # Errors
    ///
    /// What the socket failed with.
    pub fn poll_sent(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
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

    /// Ends the tool's standard input, after what was sent to it. Does nothing the second time.
    pub fn end_stdin(&self) {
        let mut state = self.lock();
        if state.stdin == Stdin::Open {
            state.stdin = Stdin::Ending;
            self.go_on(&mut state);
        }
    }

    /// Sends a signal to the tool and all that it started. A signal that has not gone out yet and a further one become one, the
    /// stronger of the two. Does nothing where the run has ended.
    pub fn signal(&self, signal: RunSignal) {
        let mut state = self.lock();
        state.signal = match (state.signal, signal) {
            (Some(RunSignal::Kill), _) | (_, RunSignal::Kill) => Some(RunSignal::Kill),
            _ => Some(RunSignal::Terminate),
        };
        self.go_on(&mut state);
    }

    /// Sends what the socket did not take at once, for as long as the connection lives. Some task has to run it.
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
                    // The reader finds out why.
                    Err(_) => return,
                }
            }
        }
    }

    /// Closes the connection, which makes the guest end the tool. What the guest had sent can still be read.
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

    /// Which connection this is.
    pub(crate) fn origin(&self) -> Origin {
        self.lock().records.origin().clone()
    }

    /// The link of the chain to the guest after this many records.
    pub(super) fn link_after(&self, records: u64) -> Result<[u8; 32], EvidenceError> {
        self.lock().sent.after(records)
    }

    /// Sends what may go now, and leaves the rest to [`flush`](Self::flush).
    fn go_on(&self, state: &mut State) {
        // The reader finds out why it fails.
        if !state.go_on().unwrap_or(true) {
            self.shared.filled.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and the state is whole between any two statements.
        let state = self.shared.state.lock();
        state.unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Sends what the socket takes: the rest of a record, a signal, the end of standard input. Whether nothing is left.
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

    /// Begins to send a record. Nothing is being sent.
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
