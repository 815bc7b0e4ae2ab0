//! A VMM that is this process's child, as the spawner thread looks after it.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::sync::watch;

use super::family::Family;
use super::living::Living;
use super::output::{Log, pump};
use super::{Ended, Exit, Process};

/// A child that isn't reaped yet. Only [`reap`](Child::reap) does that.
pub(super) struct Child {
    pub(super) family: Family,
    pub(super) log: Arc<Log>,
    pub(super) ended: watch::Sender<Option<Ended>>,
    pub(super) living: Living,
}

impl Child {
    /// Takes the status of a child that has ended, and lets its end be known once its last words are read.
    pub(super) fn reap(self) {
        let Child {
            family,
            log,
            ended,
            living,
        } = self;
        let process = &family.process;
        let pid = process.pid();
        // While its leader isn't reaped, the group's id can't become another one's.
        if let Some(group) = Pid::from_raw(pid as i32) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let exit = status(process);
        family.kill_left();
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
            // Something else in this process waits for any child, or SIGCHLD is ignored.
            Ok(None) | Err(_) => return Exit::Unknown,
        }
    }
}
