//! [`Watcher`]: a thread that checks the held files, and gives up the lease on a file that a process waits to write to.

use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use super::files::HeldFiles;
use crate::causes::Causes;

/// How often the files are checked, and so how long a process that opens a leased file for writing has to wait at most.
/// If the lease were not given up, the kernel would make that process wait for 45 s (`/proc/sys/fs/lease-break-time`).
const INTERVAL: Duration = Duration::from_millis(100);

/// Checks the files until it is dropped.
#[derive(Debug)]
pub(super) struct Watcher {
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts the thread. If no thread can be started, a hold that no longer stands is given up by the next reset.
    pub(super) fn start(files: &Arc<HeldFiles>) -> Watcher {
        let files = Arc::downgrade(files);
        let started = thread::Builder::new()
            .name("golden-watcher".to_owned())
            .spawn(move || watch(&files));
        let thread = started.inspect_err(|error| {
            tracing::warn!(error = %Causes(error), "the golden snapshot is not watched: no thread could be started");
        });
        Watcher {
            thread: thread.ok(),
        }
    }
}

fn watch(files: &Weak<HeldFiles>) {
    // When the owner is dropped, it wakes this thread, which then finds the files gone.
    while let Some(files) = files.upgrade() {
        files.give_way();
        drop(files);
        thread::park_timeout(INTERVAL);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.thread
            .as_ref()
            .map(JoinHandle::thread)
            .map(Thread::unpark);
    }
}
