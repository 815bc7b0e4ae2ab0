//! What the handles of a run share with its keeper: the connection, and how the run ended.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::sleep;

use super::super::Error;
use super::{OutputChunk, RunReport};
use crate::vsock::{self, RunReader, RunRecord, RunWriter};

/// The most output that is kept of a run that was given up: what its socket held then.
const MAX_LATE: usize = 1 << 20;

/// What a run's end means for the sandbox that it belongs to: takes how it ended, and gives back what its caller gets.
pub(in crate::sandbox) type Conclude =
    Box<dyn FnOnce(Result<RunReport, Error>) -> Result<RunReport, Error> + Send>;

/// How long a run may take.
#[derive(Clone, Debug)]
pub(in crate::sandbox) struct Terms {
    pub(in crate::sandbox) command_id: String,
    /// Its deadline and the grace.
    pub(in crate::sandbox) limit: Duration,
    /// How long the answer to a cancellation may take.
    pub(in crate::sandbox) grace: Duration,
}

pub(super) struct Shared {
    pub(super) input: RunWriter,
    output: Mutex<Output>,
    ending: Mutex<Ending>,
    began: Instant,
    /// A cancellation was asked for.
    pub(super) cancelled: Notify,
}

struct Output {
    reader: RunReader,
    /// What had come when the run was given up.
    late: VecDeque<OutputChunk>,
    /// The task that waits for output.
    waiting: Option<Waker>,
}

enum Ending {
    /// It goes on.
    Open(Option<Conclude>),
    Ended(Result<RunReport, Error>),
    /// Its caller has gone.
    Abandoned,
}

impl Shared {
    pub(super) fn new(output: RunReader, input: RunWriter, conclude: Option<Conclude>) -> Shared {
        Shared {
            input,
            output: Mutex::new(Output {
                reader: output,
                late: VecDeque::new(),
                waiting: None,
            }),
            ending: Mutex::new(Ending::Open(conclude)),
            began: Instant::now(),
            cancelled: Notify::new(),
        }
    }

    /// The next output; `None` once the run has ended, and [`ended`](Self::ended) says how.
    pub(super) fn poll_output(&self, context: &mut Context<'_>) -> Poll<Option<OutputChunk>> {
        let mut output = lock(&self.output);
        if let Some(chunk) = output.late.pop_front() {
            return Poll::Ready(Some(chunk));
        }
        if self.ended().is_some() {
            return Poll::Ready(None);
        }
        let ended = match output.reader.poll_next(context) {
            Poll::Pending => {
                output.waiting = Some(context.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(Ok(RunRecord::Output { stream, bytes })) => {
                return Poll::Ready(Some(OutputChunk { stream, bytes }));
            }
            Poll::Ready(Ok(RunRecord::End(end))) => Ok(RunReport::of(end, self.began.elapsed())),
            Poll::Ready(Err(error)) => Err(Error::Channel(error)),
        };
        self.end(ended);
        Poll::Ready(None)
    }

    /// How the run ended, if it has.
    pub(super) fn ended(&self) -> Option<Result<RunReport, Error>> {
        match &*lock(&self.ending) {
            Ending::Ended(ended) => Some(ended.clone()),
            Ending::Open(_) | Ending::Abandoned => None,
        }
    }

    /// The run has ended, unless it had before. Its connection is closed.
    fn end(&self, ended: Result<RunReport, Error>) {
        let mut ending = lock(&self.ending);
        if let Ending::Open(conclude) = &mut *ending {
            let ended = match conclude.take() {
                Some(conclude) => conclude(ended),
                None => ended,
            };
            *ending = Ending::Ended(ended);
        }
        drop(ending);
        self.input.close();
    }

    /// Ends the run with `error`, and wakes whatever task waits for output.
    pub(super) fn fail(&self, error: Error) {
        self.end(Err(error));
        self.wake();
    }

    /// The run's caller has gone: the guest ends the tool, since the connection closes.
    pub(super) fn abandon(&self) {
        let mut ending = lock(&self.ending);
        if let Ending::Open(_) = &*ending {
            *ending = Ending::Abandoned;
        }
        drop(ending);
        self.input.close();
    }

    /// The run's time is over. If its end is among what had come by now and was not read yet, it counts; otherwise the run
    /// ends with `error`. Whatever had come can still be read.
    fn give_up(&self, error: vsock::Error) {
        // The guest can't add anything from now on.
        self.input.close();
        let mut output = lock(&self.output);
        let mut kept = 0;
        let ended = loop {
            match output.reader.next_now() {
                Ok(Some(RunRecord::Output { stream, bytes })) if kept < MAX_LATE => {
                    kept += bytes.len();
                    output.late.push_back(OutputChunk { stream, bytes });
                }
                Ok(Some(RunRecord::End(end))) => {
                    break Ok(RunReport::of(end, self.began.elapsed()));
                }
                Ok(_) => break Err(Error::Channel(error)),
                Err(broken @ (vsock::Error::Protocol { .. } | vsock::Error::Evidence { .. })) => {
                    break Err(Error::Channel(broken));
                }
                // It ended without a word.
                Err(_) => break Err(Error::Channel(error)),
            }
        };
        drop(output);
        self.end(ended);
        self.wake();
    }

    fn wake(&self) {
        let waiting = lock(&self.output).waiting.take();
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }

    /// Sends what the socket did not take at once, and ends the run when its time is over or `interrupted` says why it can't
    /// go on, whether or not its caller polls.
    pub(super) async fn keep(
        self: Arc<Self>,
        terms: Terms,
        interrupted: impl Future<Output = Error>,
    ) {
        let over = sleep(terms.limit);
        let unanswered = async {
            self.cancelled.notified().await;
            sleep(terms.grace).await;
        };
        let flushed = async {
            self.input.flush().await;
            // The socket has failed, and the reader finds out why.
            std::future::pending().await
        };
        let origin = self.input.origin();
        let given_up = tokio::select! {
            error = interrupted => return self.fail(error),
            () = over => vsock::Error::ToolTimeout {
                origin,
                command_id: terms.command_id,
                waited: terms.limit,
            },
            () = unanswered => vsock::Error::NoAnswer {
                origin,
                request: "Signal",
                waited: terms.grace,
            },
            () = flushed => return,
        };
        self.give_up(given_up);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whatever panics while it holds the lock, what is inside is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
