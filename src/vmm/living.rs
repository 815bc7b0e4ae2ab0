//! How many VMMs of this process live.

use std::sync::LazyLock;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// How many processes are about to be started here, or were and aren't reaped yet.
static LIVING: LazyLock<watch::Sender<usize>> = LazyLock::new(|| watch::Sender::new(0));

/// A process, from before its run directory is made until it is reaped.
pub(super) struct Living(());

impl Living {
    pub(super) fn begin() -> Living {
        LIVING.send_modify(|living| *living += 1);
        Living(())
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        LIVING.send_modify(|living| *living -= 1);
    }
}

/// Waits until every VMM that this process started, or is about to start, has ended and was reaped, with whatever it had
/// started itself; `false` if that took longer than `limit`.
///
/// For a program that is about to end after it dropped a [`Vmm`](super::Vmm): one that was told to die dies anyway, and
/// what it had started is cleared away by this process.
pub async fn all_ended(limit: Duration) -> bool {
    let mut living = LIVING.subscribe();
    timeout(limit, living.wait_for(|living| *living == 0))
        .await
        .is_ok()
}
