//! [`Shared`]: the state of a run that its handles and its background task share: the connection, and how the run
//! ended.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::sleep;

use super::super::Error;
use super::{OutputChunk, RunReport};
use crate::mutex::lock;
use crate::vsock::{self, RunReader, RunRecord, RunWriter};

/// The most output, in bytes, that is read from the socket of a run when its time is over.
const MAX_LATE: usize = 1 << 20;

/// Concludes a run for the sandbox that it belongs to: takes how the run ended, changes the sandbox's state, and
/// returns the result for the run's caller.
pub(in crate::sandbox) type OnEnd =
    Box<dyn FnOnce(Result<RunReport, Error>) -> Result<RunReport, Error> + Send>;

/// The command id and the time limits of a run.
#[derive(Clone, Debug)]
pub(in crate::sandbox) struct RunLimits {
    pub(in crate::sandbox) command_id: String,
    /// How long the run may take: its deadline and the grace.
    pub(in crate::sandbox) limit: Duration,
    /// How long the guest's answer to a cancellation may take.
    pub(in crate::sandbox) grace: Duration,
}

/// The state of a run.
pub(super) struct RunState {
    pub(super) input: RunWriter,
    output: Mutex<Output>,
    ending: Mutex<Ending>,
    began: Instant,
    /// Notified when the caller asks for a cancellation.
    pub(super) cancelled: Notify,
}

struct Output {
    reader: RunReader,
    /// Output that had come by the time the run was over, and was not read yet.
    late: VecDeque<OutputChunk>,
    /// The task that waits for output.
    waiting: Option<Waker>,
}

enum Ending {
    /// The run goes on.
    Open(Option<OnEnd>),
    /// The run has ended, and was concluded with this result.
    Ended(Result<RunReport, Error>),
    /// The caller has dropped the run before its end.
    Abandoned,
}

impl RunState {
    pub(super) fn new(output: RunReader, input: RunWriter, conclude: Option<OnEnd>) -> RunState {
        RunState {
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

    /// The next output. `None` once the run has ended; [`ended`](Self::ended) then says how.
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

    /// How the run ended. `None` while it goes on, and after it was abandoned.
    pub(super) fn ended(&self) -> Option<Result<RunReport, Error>> {
        match &*lock(&self.ending) {
            Ending::Ended(ended) => Some(ended.clone()),
            Ending::Open(_) | Ending::Abandoned => None,
        }
    }

    /// Ends the run with this result, unless it has ended already. Closes its connection.
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

    /// Ends the run with `error`, and wakes the task that waits for output.
    pub(super) fn fail(&self, error: Error) {
        self.end(Err(error));
        self.wake();
    }

    /// Abandons the run because its caller is gone. Closes the connection, which makes the guest end the tool.
    pub(super) fn abandon(&self) {
        let mut ending = lock(&self.ending);
        if let Ending::Open(_) = &*ending {
            *ending = Ending::Abandoned;
        }
        drop(ending);
        self.input.close();
    }

    /// Ends the run because its time is over. If the guest's End record has come and was not read yet, the run ends
    /// with that report, otherwise with `error`. Output that has come can still be read.
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
                // The connection was closed without an End record.
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

    /// The background task of the run. Sends what the socket did not take at once, and ends the run when its time is
    /// over, when a cancellation isn't answered, or with the error of `interrupted`. All this happens whether or not
    /// the caller polls.
    pub(super) async fn keep(
        self: Arc<Self>,
        terms: RunLimits,
        interrupted: impl Future<Output = Error>,
    ) {
        let over = sleep(terms.limit);
        let unanswered = async {
            self.cancelled.notified().await;
            sleep(terms.grace).await;
        };
        let flushed = async {
            self.input.flush().await;
            // `flush` returns only if the socket has failed. The reader then finds out why.
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
