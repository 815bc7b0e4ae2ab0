//! [`requested`]: the caller's signal to a measurement or an attack that it must stop.

use tokio::sync::watch;

/// Waits until the caller's signal is true. If the caller dropped its sender, waits forever, so that the work runs to
/// its end.
pub(crate) async fn requested(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether [`requested`] is done at once.
    async fn is_requested(stop: &mut watch::Receiver<bool>) -> bool {
        tokio::select! {
            biased;
            () = requested(stop) => true,
            () = std::future::ready(()) => false,
        }
    }

    #[tokio::test]
    async fn only_the_signal_ends_the_wait_and_a_dropped_sender_does_not() {
        let (sender, mut stop) = watch::channel(false);
        assert!(!is_requested(&mut stop).await);
        sender.send(true).unwrap();
        assert!(is_requested(&mut stop).await);
        sender.send(false).unwrap();
        drop(sender);
        assert!(!is_requested(&mut stop).await);
    }
}
