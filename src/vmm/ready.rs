//! Waits for a VMM's first answer ([`wait`]).

use std::time::Duration;

use super::spawned::SpawnedVmm;
use super::{Error, KVM_DEVICE, exit, open_kvm, procfs};
use crate::api::types::VmmPingResponse;
use crate::client::{self, Client, NotReady};

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
    if !running.process_tree.is_caught {
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
    let answered = tokio::select! {
        biased;
        ended = exit::wait(running.ended.clone()) => return Err(Error::DiedAtStart {
            binary: running.binary.clone(),
            ended: Box::new(ended),
            source: open_kvm(KVM_DEVICE.as_ref()).err(),
        }),
        answered = client.wait_until_ready(limit) => answered,
    };
    answered.map_err(|error| match error {
        NotReady::TimedOut { socket, source, .. } => Error::NotReady {
            pid: running.process().pid(),
            socket,
            limit,
            log_tail: running.log.tail(),
            source: Some(Box::new(source)),
        },
        NotReady::Failed { socket, source } => Error::Client {
            socket,
            source: Box::new(source),
        },
    })
}
