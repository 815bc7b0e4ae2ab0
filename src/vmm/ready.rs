//! Waiting for a VMM's first answer.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::spawner::Running;
use super::{Error, exit};
use crate::client::{self, Client};

/// How long to wait after an attempt that failed at once. The socket takes connections from the start, so
/// that such a failure is nearly always the end of the process, which ends the wait.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks the VMM whether it is there.
pub(super) async fn ping(client: &Client) -> Result<(), client::Error> {
    client.release().await.map(drop)
}

/// Waits for the answer to `vmm.ping`, the end of the process or the end of the limit.
pub(super) async fn wait(client: &Client, running: &Running, limit: Duration) -> Result<(), Error> {
    let mut last_error = None;
    let answered = async {
        while let Err(error) = ping(client).await {
            tracing::debug!(%error, "the VMM didn't answer yet");
            last_error = Some(error);
            sleep(PAUSE).await;
        }
    };
    let answered_or_dead = async {
        tokio::select! {
            () = answered => None,
            ended = exit::wait(running.ended.clone()) => Some(ended),
        }
    };
    match timeout_at(Instant::now() + limit, answered_or_dead).await {
        Ok(None) => Ok(()),
        Ok(Some(ended)) => Err(Error::DiedAtStart {
            binary: running.binary.clone(),
            ended: Box::new(ended),
        }),
        Err(_elapsed) => Err(Error::NotReady {
            pid: running.process.pid(),
            socket: client.socket().to_owned(),
            limit,
            log_tail: running.log.tail(),
            source: last_error.map(Box::new),
        }),
    }
}
