//! Machines that nobody needs any more, on their way out.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::task::JoinSet;

use crate::causes::Causes;
use crate::machine::Machine;

/// Shuts machines down in the background. Dropped, it kills what is still there.
#[derive(Default)]
pub(super) struct Retired(Mutex<JoinSet<()>>);

impl Retired {
    /// Takes `machine` and begins to shut it down.
    pub(super) fn add(&self, machine: Machine) {
        let mut leaving = self.lock();
        while leaving.try_join_next().is_some() {}
        leaving.spawn(async move {
            let report = machine.shutdown().await;
            tracing::debug!(?report, "a retired VMM has ended");
        });
    }

    /// Waits until all of them are gone.
    pub(super) async fn gone(&self) {
        let mut leaving = mem::take(&mut *self.lock());
        while let Some(left) = leaving.join_next().await {
            if let Err(error) = left {
                tracing::error!(error = %Causes(&error), "the shutdown of a retired VMM did not come to its end");
            }
        }
    }

    /// Nothing that holds this lock can leave it half-changed.
    fn lock(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
