//! Waiting until a VMM answers.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Client, Deadlines, Error, ErrorKind};
use crate::api::types::VmmPingResponse;
use crate::causes::Causes;
use crate::limits::TimeLimits;

/// The pause after the first attempt that failed at once. Each later pause is twice as long, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// A VMM that has just come up is noticed at most this late.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Why [`Client::wait_until_ready`] gave up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotReady {
    /// The limit passed.
    #[error("the VMM on {} did not answer vmm.ping within {limit:?}: {seen}", .socket.display())]
    TimedOut {
        /// The api-socket.
        socket: PathBuf,
        /// How long the client waited.
        limit: Duration,
        /// What the last attempt saw.
        seen: LastSeen,
        /// The error of the last attempt.
        source: Error,
    },
    /// Waiting doesn't mend this: the socket must not be connected to, or what answers on it is no VMM.
    #[error("the VMM on {} can't be waited for", .socket.display())]
    Failed {
        /// The api-socket.
        socket: PathBuf,
        /// The error of the attempt.
        source: Error,
    },
}

/// What the last attempt to reach a VMM saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LastSeen {
    /// The api-socket doesn't exist: the VMM isn't started, hasn't come that far, or has another path.
    NoSocket,
    /// The api-socket exists and no process listens on it: the VMM that made it has ended.
    Refused,
    /// A connection was made, or waited in the queue, and no answer came: the VMM is occupied or stopped.
    Silent,
    /// A connection was made and ended without an answer: the VMM has just ended, or has too many connections.
    Closed,
}

impl LastSeen {
    /// None for an error that waiting doesn't mend.
    fn of(error: &Error) -> Option<LastSeen> {
        match error.kind() {
            ErrorKind::NoListener => Some(match error.connect_failure() {
                Some(io::ErrorKind::NotFound) => LastSeen::NoSocket,
                _ => LastSeen::Refused,
            }),
            ErrorKind::Deadline { .. } => Some(LastSeen::Silent),
            ErrorKind::VmmGone | ErrorKind::Busy => Some(LastSeen::Closed),
            _ => None,
        }
    }
}

impl fmt::Display for LastSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LastSeen::NoSocket => "the socket doesn't exist",
            LastSeen::Refused => "the socket exists and no process listens on it",
            LastSeen::Silent => "a process listens on the socket and doesn't answer",
            LastSeen::Closed => "the connection ended without an answer",
        })
    }
}

impl NotReady {
    /// What the last attempt saw. None for an error that waiting doesn't mend.
    pub fn last_seen(&self) -> Option<LastSeen> {
        match self {
            NotReady::TimedOut { seen, .. } => Some(*seen),
            NotReady::Failed { .. } => None,
        }
    }
}

impl Client {
    /// Waits until the VMM answers `vmm.ping`, and returns its answer. Legal at any time, also before the VMM is
    /// started: the api-socket doesn't have to exist.
    ///
    /// An attempt that fails at once is repeated after a pause, which grows from 5 ms to 100 ms. An attempt that gets
    /// no answer is repeated when the [`probe`](Deadlines::probe) deadline has passed. There is one attempt at least,
    /// and `limit` counts as [`TimeLimits::LONGEST`] where it is longer. Dropping the future loses nothing but the
    /// attempt.
    ///
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// use chv_sandbox::client::{Client, LastSeen};
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let client = Client::new("/run/vmm/api.sock")?;
    /// match client.wait_until_ready(Duration::from_secs(10)).await {
    ///     Ok(ping) => println!("version {}", ping.version),
    ///     Err(error) if error.last_seen() == Some(LastSeen::NoSocket) => println!("never started"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`NotReady::TimedOut`]: no attempt within `limit` got an answer; [`LastSeen`] says what the last one saw.
    /// - [`NotReady::Failed`]: an attempt met an error that waiting doesn't mend, such as a missing permission
    ///   ([`ErrorKind::Connect`]) or an answer that isn't a VMM's ([`ErrorKind::Decode`]).
    pub async fn wait_until_ready(&self, limit: Duration) -> Result<VmmPingResponse, NotReady> {
        let until = Instant::now() + limit.min(TimeLimits::LONGEST);
        let left = || until.saturating_duration_since(Instant::now());
        let mut pause = FIRST_PAUSE;
        loop {
            let attempt = self.clone().with_deadlines(Deadlines {
                probe: self.deadlines.probe.min(left()),
                ..self.deadlines
            });
            let source = match attempt.ping().await {
                Ok(ping) => return Ok(ping),
                Err(error) => error,
            };
            let socket = self.socket().to_owned();
            let Some(seen) = LastSeen::of(&source) else {
                return Err(NotReady::Failed { socket, source });
            };
            tracing::debug!(error = %Causes(&source), "the VMM didn't answer yet");
            if left() <= pause {
                sleep(left()).await;
                return Err(NotReady::TimedOut {
                    socket,
                    limit,
                    seen,
                    source,
                });
            }
            sleep(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }
}
