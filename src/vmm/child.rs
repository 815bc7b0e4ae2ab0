//! [`Child`]: a VMM that is a child of this process and that the spawner thread reaps.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::sync::watch;

use super::output::{Log, pump};
use super::process_tree::ProcessTree;
use super::vmm_count::VmmCount;
use super::{Ended, Exit, Process};

/// A child that is not reaped yet. Only [`reap`](Child::reap) reaps it.
pub(super) struct Child {
    pub(super) process_tree: ProcessTree,
    pub(super) log: Arc<Log>,
    pub(super) ended: watch::Sender<Option<Ended>>,
    pub(super) living: VmmCount,
}

impl Child {
    /// Reaps a child that has ended, kills the forks that it left, and publishes its end once its log is read to the
    /// end.
    pub(super) fn reap(self) {
        let Child {
            process_tree,
            log,
            ended,
            living,
        } = self;
        let process = &process_tree.process;
        let pid = process.pid();
        // The id of the process group can't be given to another group until its leader is reaped.
        if let Some(group) = Pid::from_raw(pid as i32) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let exit = status(process);
        process_tree.kill_left();
        tracing::debug!(pid, %exit, "a VMM has ended");
        pump::finish(pid, move || {
            ended.send_replace(Some(Ended {
                pid,
                exit,
                log_tail: log.tail(),
            }));
            drop(living);
        });
    }
}

fn status(process: &Process) -> Exit {
    loop {
        match waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                let code = status.exit_status().map(Exit::Code);
                let signal = status.terminating_signal().map(Exit::Signal);
                return code.or(signal).unwrap_or(Exit::Unknown);
            }
            Err(rustix::io::Errno::INTR) => {}
            // Other code in this process waits for any child, or SIGCHLD is ignored.
            Ok(None) | Err(_) => return Exit::Unknown,
        }
    }
}
