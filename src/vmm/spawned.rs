//! [`SpawnedVmm`]: a spawned VMM, as its [`Vmm`](super::Vmm) owns it.

use std::path::PathBuf;
use std::sync::Arc;

use super::confinement::{Held, LayerReport};
use super::output::Log;
use super::process_tree::ProcessTree;
use super::run_dir::RemovedOnDrop;
use super::{EndedReceiver, Process};
use crate::broadcast;
use crate::causes::Causes;
use crate::client::MonitorEvent;
use crate::socket::SocketAddress;

/// A spawned VMM. Dropping it kills the process with its forks and removes the run directory.
#[derive(Debug)]
pub(super) struct SpawnedVmm {
    /// The executable.
    pub(super) binary: PathBuf,
    pub(super) process_tree: ProcessTree,
    pub(super) log: Arc<Log>,
    pub(super) console: Console,
    /// Only used to make further receivers.
    pub(super) events: broadcast::Receiver<MonitorEvent>,
    pub(super) ended: EndedReceiver,
    pub(super) api_socket: SocketAddress,
    /// The state of each layer of the VMM's confinement.
    pub(super) layers: Vec<LayerReport>,
    pub(super) _held: Held,
    pub(super) run_dir: RemovedOnDrop,
}

/// The console of the VMM's VMs.
#[derive(Debug)]
pub(super) struct Console {
    /// The path by which the VMM opens its inherited pipe, again for each VM that it makes.
    pub(super) path: PathBuf,
    pub(super) log: Arc<Log>,
}

impl SpawnedVmm {
    pub(super) fn process(&self) -> &Process {
        &self.process_tree.process
    }
}

impl Drop for SpawnedVmm {
    fn drop(&mut self) {
        if let Err(error) = self.process_tree.kill() {
            tracing::error!(pid = self.process().pid(), error = %Causes(&error), "cannot kill a VMM");
        }
    }
}
