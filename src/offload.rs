//! Work that blocks, off the threads that drive the runtime.
//!
//! tokio's `spawn_blocking` panics where the system starts no further thread, at a limit of processes for instance. An agent
//! has to outlive that, so here the work is done where the caller is, or an error says so.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Runs what blocks on a thread for that; on this one, where there can be no other.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let work = Arc::new(Mutex::new(Some(work)));
    let queued = Arc::clone(&work);
    let (sender, done) = oneshot::channel();
    let spawned = spawn_blocking(move || {
        if let Some(work) = take(&queued) {
            // The caller may be gone.
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
            // The runtime is going away, and this task with it.
            _ => std::future::pending().await,
        },
        Err(_) => std::future::pending().await,
    }
}

fn take<T>(work: &Mutex<Option<T>>) -> Option<T> {
    work.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// As tokio's function of that name, for work that goes on beside its caller.
///
/// # Errors
///
/// The system starts no thread for it.
pub(crate) fn spawn_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let spawned = catch_unwind(AssertUnwindSafe(|| tokio::task::spawn_blocking(work)));
    spawned.map_err(|_| io::Error::other("the system starts no further thread"))
}
