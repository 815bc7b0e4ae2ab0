//! What SIGINT (Ctrl-C) and SIGTERM do to a command that takes long.
//!
//! ```text
//!   catch ──▶ running ──first signal──▶ stopping: the work is dropped, its VMMs end ──▶ exit 130 or 143
//!                                          │
//!                                          └─second signal──▶ exit at once, nothing is removed
//! ```
//!
//! A command calls [`Interrupt::catch`] and does its work in [`race`](Interrupt::race). The work cleans up by what it
//! drops. Work on a blocking thread can't be dropped: work that writes looks at the [`flag`](Interrupt::flag), work that
//! only reads is left to the end of the process. A command that does not call `catch` is ended by the signal itself, which a
//! shell shows as the same statuses.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use chv_sandbox::vmm;
use signal_hook::flag;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::status::Status;

/// How long a killed VMM may take to die.
const DYING: Duration = Duration::from_secs(10);

/// The signal that ended a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Signalled {
    /// SIGINT.
    #[error("interrupted")]
    Interrupt,
    /// SIGTERM.
    #[error("terminated")]
    Terminate,
}

impl Signalled {
    /// What the command ends with.
    pub(crate) fn status(self) -> Status {
        match self {
            Signalled::Interrupt => Status::Interrupted,
            Signalled::Terminate => Status::Terminated,
        }
    }

    fn kind(self) -> SignalKind {
        match self {
            Signalled::Interrupt => SignalKind::interrupt(),
            Signalled::Terminate => SignalKind::terminate(),
        }
    }
}

/// The signals, caught for the rest of the process.
pub(crate) struct Interrupt {
    flag: Arc<AtomicBool>,
    first: watch::Receiver<Option<Signalled>>,
}

impl Interrupt {
    /// Catches both signals from here on. Must be called within the runtime.
    pub(crate) fn catch() -> io::Result<Interrupt> {
        let stop = Arc::new(AtomicBool::new(false));
        for signalled in [Signalled::Interrupt, Signalled::Terminate] {
            let number = signalled.kind().as_raw_value();
            let status = i32::from(signalled.status().code());
            // In this order: the signal that sets the flag does not find it set.
            flag::register_conditional_shutdown(number, status, Arc::clone(&stop))?;
            flag::register(number, Arc::clone(&stop))?;
        }
        let mut interrupt = signal(Signalled::Interrupt.kind())?;
        let mut terminate = signal(Signalled::Terminate.kind())?;
        let (caught, first) = watch::channel(None);
        tokio::spawn(async move {
            let signalled = tokio::select! {
                _ = interrupt.recv() => Signalled::Interrupt,
                _ = terminate.recv() => Signalled::Terminate,
            };
            caught.send_replace(Some(signalled));
            // A later `received` has to find it.
            caught.closed().await;
        });
        tracing::debug!("SIGINT and SIGTERM are caught");
        Ok(Interrupt { flag: stop, first })
    }

    /// Set by the first signal, for work on a blocking thread to look at.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flag)
    }

    /// Waits for the first signal; returns at once if it came already.
    pub(crate) async fn received(&self) -> Signalled {
        let mut first = self.first.clone();
        match first.wait_for(Option::is_some).await.map(|first| *first) {
            Ok(Some(signalled)) => signalled,
            // The task that waits for signals ends with the runtime only.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Does `work` to its end, or drops it when a signal comes; then waits until the VMMs that it started have ended.
    pub(crate) async fn race<T>(&self, work: impl Future<Output = T>) -> Result<T, Signalled> {
        let signalled = tokio::select! {
            biased;
            done = work => return Ok(done),
            signalled = self.received() => signalled,
        };
        wait_for_vmms().await;
        Err(signalled)
    }

    /// Does `work` to its end. A signal tells it to stop by the receiver, and it ends by itself then, with what there is. Returns
    /// when the VMMs that it started have ended.
    pub(crate) async fn stop<T, F: Future<Output = T>>(
        &self,
        work: impl FnOnce(watch::Receiver<bool>) -> F,
        drawing: impl Future<Output = Infallible>,
    ) -> Stopped<T> {
        let (stop, stopped) = watch::channel(false);
        let mut work = pin!(work(stopped));
        let done = tokio::select! {
            biased;
            done = &mut work => (done, None),
            signalled = self.received() => {
                stop.send_replace(true);
                (work.await, Some(signalled))
            }
            never = drawing => match never {},
        };
        wait_for_vmms().await;
        done
    }
}

/// What a work came to, and the signal that stopped it, if one did.
pub(crate) type Stopped<T> = (T, Option<Signalled>);

/// Waits until every VMM that was dropped has ended. One that was told to die dies anyway, but what it had started goes
/// when it is reaped.
pub(crate) async fn wait_for_vmms() {
    if !vmm::all_ended(DYING).await {
        eprintln!("warning: a process that was started has not ended");
    }
}
