//! The thread that lets writers through: it looks at the held files, and gives up those that a process waits for.

use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use super::files::Files;
use crate::causes::Causes;

/// How long a process that wants to write to a held file waits at most. The kernel would make it wait for 45 s.
const INTERVAL: Duration = Duration::from_millis(100);

/// Looks at the files until it is dropped.
#[derive(Debug)]
pub(super) struct Watcher {
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts watching. If no thread can be started, holds are given up by the next reset that looks at them.
    pub(super) fn start(files: &Arc<Files>) -> Watcher {
        let files = Arc::downgrade(files);
        let started = thread::Builder::new()
            .name("golden-watcher".to_owned())
            .spawn(move || watch(&files));
        let thread = started.inspect_err(|error| {
            tracing::warn!(error = %Causes(error), "the golden snapshot is not watched");
        });
        Watcher {
            thread: thread.ok(),
        }
    }
}

fn watch(files: &Weak<Files>) {
    // The files are gone once their owner is, which wakes this thread.
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
