//! Waits for a VMM's first answer ([`wait`]).

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::spawned::SpawnedVmm;
use super::{Error, KVM_DEVICE, exit, open_kvm, procfs};
use crate::api::types::VmmPingResponse;
use crate::causes::Causes;
use crate::client::{self, Client, ErrorKind};

/// The pause after an attempt that failed at once. The socket accepts connections from the start, so such a failure
/// nearly always means that the process has ended, and the end of the process ends the wait.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks the VMM for an answer to `vmm.ping`.
pub(super) async fn ping(client: &Client) -> Result<(), client::Error> {
    client.ping().await.map(drop)
}

/// Waits for the answer to `vmm.ping`, until the process has ended or the limit is over. Then checks that the process
/// that answered is the one that was started. A fork of that process is accepted, with a warning, only if the kernel
/// ends forks with the VMM.
pub(super) async fn wait(
    client: &Client,
    running: &SpawnedVmm,
    limit: Duration,
) -> Result<(), Error> {
    let ping = first_answer(client, running, limit).await?;
    let process = running.process();
    let pid = process.pid();
    let inner = process.inspect("status", || procfs::inner_pid(pid))?;
    let answered = ping.pid;
    if answered == i64::from(inner) {
        return Ok(());
    }
    if !running.family.is_caught {
        return Err(Error::Forked {
            binary: running.binary.clone(),
            pid: inner,
            answered,
        });
    }
    tracing::warn!(
        binary = %running.binary.display(), inner, answered,
        "the executable has forked the VMM instead of executing it: the VMM's files and memory can't be proved"
    );
    Ok(())
}

async fn first_answer(
    client: &Client,
    running: &SpawnedVmm,
    limit: Duration,
) -> Result<VmmPingResponse, Error> {
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
            pid: running.process().pid(),
            socket: client.socket().to_owned(),
            limit,
            log_tail: running.log.tail(),
            source: last_error.map(Box::new),
        }),
    }
}

/// Sends `vmm.ping` until it is answered. Fails only with an error that does not go away by waiting.
async fn answered(
    client: &Client,
    last_error: &mut Option<client::Error>,
) -> Result<VmmPingResponse, Error> {
    loop {
        let error = match client.ping().await {
            Ok(ping) => return Ok(ping),
            Err(error) => error,
        };
        match error.kind() {
            ErrorKind::NoListener
            | ErrorKind::VmmGone
            | ErrorKind::Deadline { .. }
            | ErrorKind::Busy => {
                tracing::debug!(error = %Causes(&error), "the VMM has not answered yet");
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
}
