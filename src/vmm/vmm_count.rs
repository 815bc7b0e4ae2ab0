//! Counts the running VMMs of this process, so that a program can wait for their end ([`all_ended`]).

use std::sync::LazyLock;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// The number of VMMs that this process is about to start, or has started and not reaped yet.
static LIVING: LazyLock<watch::Sender<usize>> = LazyLock::new(|| watch::Sender::new(0));

/// Counts one VMM, from before its run directory is made until its process is reaped.
pub(super) struct VmmCount(());

impl VmmCount {
    pub(super) fn begin() -> VmmCount {
        LIVING.send_modify(|living| *living += 1);
        VmmCount(())
    }
}

impl Drop for VmmCount {
    fn drop(&mut self) {
        LIVING.send_modify(|living| *living -= 1);
    }
}

/// Waits until every VMM that this process has started or is about to start has ended and was reaped, together with its
/// forks. Returns `false` if that takes longer than `limit`.
///
/// A program that is about to end should call it after it has dropped its [`Vmm`](super::Vmm)s. The killed VMMs would
/// end in any case, but this process has to kill the forks that they left.
pub async fn all_ended(limit: Duration) -> bool {
    let mut living = LIVING.subscribe();
    timeout(limit, living.wait_for(|living| *living == 0))
        .await
        .is_ok()
}
