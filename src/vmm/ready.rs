//! Waiting for a VMM's first answer.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::spawner::Running;
use super::{Error, KVM_DEVICE, exit, open_kvm};
use crate::client::{self, Client, ErrorKind};

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
    let answered_or_dead = async {
        tokio::select! {
            biased;
            ended = exit::wait(running.ended.clone()) => Err(Error::DiedAtStart {
                binary: running.binary.clone(),
                ended: Box::new(ended),
                source: open_kvm(KVM_DEVICE.as_ref()).err(),
            }),
            answer = answered(client, &mut last_error) => answer,
        }
    };
    match timeout(limit, answered_or_dead).await {
        Ok(result) => result,
        Err(_elapsed) => Err(Error::NotReady {
            pid: running.process.pid(),
            socket: client.socket().to_owned(),
            limit,
            log_tail: running.log.tail(),
            source: last_error.map(Box::new),
        }),
    }
}

/// Asks until there is an answer. Fails only on one that waiting doesn't mend.
async fn answered(client: &Client, last_error: &mut Option<client::Error>) -> Result<(), Error> {
    while let Err(error) = ping(client).await {
        match error.kind() {
            ErrorKind::NoListener
            | ErrorKind::VmmGone
            | ErrorKind::Deadline { .. }
            | ErrorKind::Busy => {
                tracing::debug!(%error, "the VMM didn't answer yet");
                *last_error = Some(error);
                sleep(PAUSE).await;
            }
            _ => {
                return Err(Error::Client {
                    socket: client.socket().to_owned(),
                    source: Box::new(error),
                });
            }
        }
    }
    Ok(())
}
