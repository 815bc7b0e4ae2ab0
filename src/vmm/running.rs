//! A VMM that was started, as its [`Vmm`](super::Vmm) holds it.

use std::path::PathBuf;
use std::sync::Arc;

use super::confinement::{Held, LayerReport};
use super::family::Family;
use super::output::Log;
use super::run_dir::RemovedOnDrop;
use super::{EndedReceiver, Process};
use crate::broadcast;
use crate::causes::Causes;
use crate::client::MonitorEvent;
use crate::socket::SocketAddress;

/// A VMM that was started. Dropping it kills the process with its forks and removes the run directory.
#[derive(Debug)]
pub(super) struct Running {
    /// The executable.
    pub(super) binary: PathBuf,
    pub(super) family: Family,
    pub(super) log: Arc<Log>,
    pub(super) console: Console,
    /// Never read: others subscribe through it.
    pub(super) events: broadcast::Receiver<MonitorEvent>,
    pub(super) ended: EndedReceiver,
    pub(super) api_socket: SocketAddress,
    /// What became of each layer of its boundary.
    pub(super) layers: Vec<LayerReport>,
    pub(super) _held: Held,
    pub(super) run_dir: RemovedOnDrop,
}

/// The console of a VM that the VMM may make.
#[derive(Debug)]
pub(super) struct Console {
    /// Under this name the VMM opens the pipe that it has inherited, as often as it makes a VM.
    pub(super) path: PathBuf,
    pub(super) log: Arc<Log>,
}

impl Running {
    pub(super) fn process(&self) -> &Process {
        &self.family.process
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Err(error) = self.family.kill() {
            tracing::error!(pid = self.process().pid(), error = %Causes(&error), "a VMM couldn't be killed");
        }
    }
}
