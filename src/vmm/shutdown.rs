//! Stops a VMM by `vmm.shutdown`, then SIGTERM, then SIGKILL ([`ShutdownStep`]).

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::time::timeout;

use super::spawned::SpawnedVmm;
use super::{Ended, Exit, exit};
use crate::causes::Causes;
use crate::client::{Client, ErrorKind};
use crate::limits::TimeLimits;
use crate::socket::SocketAddress;

/// The result of stopping a VMM.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// The step that stopped the VMM.
    pub step: ShutdownStep,
    /// How the process ended; `None` if its end isn't known, as for an attached VMM.
    pub exit: Option<Exit>,
    /// How long the shutdown took.
    pub elapsed: Duration,
    /// The last 16 KiB of the VMM's log; empty for an attached VMM.
    pub log_tail: String,
}

/// The steps of a shutdown, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ShutdownStep {
    /// No step was needed: the process had ended already.
    AlreadyEnded,
    /// The process ended after `vmm.shutdown`, or an attached VMM confirmed it.
    Api,
    /// The process ended after SIGTERM.
    Terminate,
    /// The process ended after SIGKILL.
    Kill,
    /// The process has not ended within the limit after SIGKILL, or an attached VMM did not confirm `vmm.shutdown`.
    NotConfirmed,
}

/// Takes the steps in order until the process has ended, then removes the run directory.
pub(super) async fn run(
    api_socket: &SocketAddress,
    running: Option<&SpawnedVmm>,
    limits: &TimeLimits,
) -> ShutdownReport {
    let start = Instant::now();
    let (step, ended) = match running {
        Some(running) => stop(api_socket, running, limits).await,
        None => (ask_attached(api_socket, limits).await, None),
    };
    if let (Some(running), Some(_)) = (running, &ended) {
        running.run_dir.remove();
    }
    let report = ShutdownReport {
        step,
        exit: ended.as_ref().map(|ended| ended.exit),
        elapsed: start.elapsed(),
        log_tail: ended.map_or_else(
            || {
                running
                    .map(|running| running.log.tail())
                    .unwrap_or_default()
            },
            |ended| ended.log_tail,
        ),
    };
    tracing::info!(step = ?report.step, exit = ?report.exit, elapsed = ?report.elapsed, "the VMM was stopped");
    report
}

async fn stop(
    api_socket: &SocketAddress,
    running: &SpawnedVmm,
    limits: &TimeLimits,
) -> (ShutdownStep, Option<Ended>) {
    let ended = || exit::wait(running.ended.clone());
    if let Some(ended) = running.ended.borrow().clone() {
        return (ShutdownStep::AlreadyEnded, Some(ended));
    }
    let by_api = async {
        match ask(api_socket).await {
            Asked::Confirmed | Asked::Unanswered => Some(ended().await),
            Asked::Refused => None,
        }
    };
    if !limits.vmm_shutdown.is_zero()
        && let Ok(Some(ended)) = timeout(limits.vmm_shutdown, by_api).await
    {
        return (ShutdownStep::Api, Some(ended));
    }
    for (step, signal, limit) in [
        (ShutdownStep::Terminate, Signal::TERM, limits.vmm_terminate),
        (ShutdownStep::Kill, Signal::KILL, limits.vmm_kill),
    ] {
        let signalled = match signal {
            Signal::KILL => running.process_tree.kill(),
            signal => running.process().signal(signal),
        };
        if let Err(error) = signalled {
            tracing::error!(
                pid = running.process().pid(), ?signal, error = %Causes(&error),
                "cannot send a signal to the VMM"
            );
        }
        if let Ok(ended) = timeout(limit, ended()).await {
            return (step, Some(ended));
        }
        tracing::warn!(
            pid = running.process().pid(),
            ?signal,
            ?limit,
            "the VMM has not ended within the limit after a signal"
        );
    }
    (ShutdownStep::NotConfirmed, None)
}

async fn ask_attached(api_socket: &SocketAddress, limits: &TimeLimits) -> ShutdownStep {
    match timeout(limits.vmm_shutdown, ask(api_socket)).await {
        Ok(Asked::Confirmed) => ShutdownStep::Api,
        Ok(Asked::Unanswered | Asked::Refused) | Err(_) => ShutdownStep::NotConfirmed,
    }
}

/// The result of `vmm.shutdown`.
enum Asked {
    /// The VMM confirmed that it shuts down.
    Confirmed,
    /// The VMM gave no answer. It may have exited before it sent one, so this may be a success.
    Unanswered,
    /// The VMM refused the call, or it couldn't be sent.
    Refused,
}

/// Sends `vmm.shutdown` on a separate connection, since another call may be waiting on the usual one.
async fn ask(api_socket: &SocketAddress) -> Asked {
    let Ok(client) = Client::new(api_socket.clone()) else {
        return Asked::Refused;
    };
    match client.vmm_shutdown().await {
        Ok(()) => Asked::Confirmed,
        Err(error) => {
            tracing::debug!(error = %Causes(&error), "vmm.shutdown was not confirmed");
            match error.kind() {
                ErrorKind::NoListener | ErrorKind::VmmGone | ErrorKind::Deadline { .. } => {
                    Asked::Unanswered
                }
                _ => Asked::Refused,
            }
        }
    }
}
