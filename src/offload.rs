//! Runs blocking work away from the threads that drive the runtime: [`blocking`] and [`spawn_blocking`].
//!
//! tokio's `spawn_blocking` panics when the system refuses a further thread, for instance at a limit of processes. An
//! agent has to survive that. So [`blocking`] then does the work on the caller's thread, and [`spawn_blocking`] returns
//! an error.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::mutex::lock;

/// Runs `work` on a thread for blocking work, or on the present thread if the system refuses a further one.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let work = Arc::new(Mutex::new(Some(work)));
    let queued = Arc::clone(&work);
    let (sender, done) = oneshot::channel();
    let spawned = spawn_blocking(move || {
        if let Some(work) = take(&queued) {
            // The send fails if the caller's future was dropped.
            let _ = sender.send(work());
        }
    });
    if spawned.is_err()
        && let Some(work) = take(&work)
    {
        return work();
    }
    if let Ok(done) = done.await {
        return done;
    }
    match spawned {
        Ok(task) => match task.await {
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // The runtime is shutting down, and drops this future too.
            _ => std::future::pending().await,
        },
        Err(_) => std::future::pending().await,
    }
}

fn take<T>(work: &Mutex<Option<T>>) -> Option<T> {
    lock(work).take()
}

/// Like tokio's function of that name, but returns an error where tokio's panics.
///
/// # Errors
///
/// The system refuses to start a further thread.
pub(crate) fn spawn_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let spawned = catch_unwind(AssertUnwindSafe(|| tokio::task::spawn_blocking(work)));
    spawned.map_err(|_| io::Error::other("the system refuses to start a further thread"))
}
