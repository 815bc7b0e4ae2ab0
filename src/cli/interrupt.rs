//! [`Interrupt`]: the handling of SIGINT (Ctrl-C) and SIGTERM in commands that take long.
//!
//! ```text
//!   catch ──▶ running ──first signal──▶ stopping: the work is dropped, its VMMs end ──▶ exit 130 or 143
//!                                          │
//!                                          └─second signal──▶ exit at once, nothing is removed
//! ```
//!
//! A command calls [`Interrupt::catch`] and does its work in [`race`](Interrupt::race). A signal drops the work, whose
//! values clean up when they are dropped. Work on a blocking thread can't be dropped: work that writes checks the
//! [`flag`](Interrupt::flag), and work that only reads ends with the process. A command that does not call `catch` is
//! ended by the signal itself, and a shell shows the same statuses for that.

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

/// How long a killed VMM may take to end.
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
    /// The exit status of the command.
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

/// Catches both signals for the rest of the process.
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
            // The order matters: the first signal must find the flag unset, and set it afterwards.
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
            // The sender stays until all receivers are gone, so that a later `received` still sees the signal.
            caught.closed().await;
        });
        tracing::debug!("SIGINT and SIGTERM are caught");
        Ok(Interrupt { flag: stop, first })
    }

    /// A flag that the first signal sets, for work on a blocking thread.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.flag)
    }

    /// Waits for the first signal. Returns at once if it has arrived already.
    pub(crate) async fn received(&self) -> Signalled {
        let mut first = self.first.clone();
        match first.wait_for(Option::is_some).await.map(|first| *first) {
            Ok(Some(signalled)) => signalled,
            // The task that waits for signals ends only with the runtime.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// Runs `work` to its end. If a signal arrives, drops `work` and waits until the VMMs that it started have ended.
    pub(crate) async fn race<T>(&self, work: impl Future<Output = T>) -> Result<T, Signalled> {
        let signalled = tokio::select! {
            biased;
            done = work => return Ok(done),
            signalled = self.received() => signalled,
        };
        wait_for_vmms().await;
        Err(signalled)
    }

    /// Runs `work` to its end. If a signal arrives, the receiver that `work` was given becomes true, and `work` is
    /// expected to end early with the results so far. Waits until the VMMs that it started have ended.
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

/// The result of the work, and the signal that stopped it, if one did.
pub(crate) type Stopped<T> = (T, Option<Signalled>);

/// Waits until every VMM that was dropped has ended. A killed VMM would end without this, but the processes that it
/// started end only when it is reaped.
pub(crate) async fn wait_for_vmms() {
    if !vmm::all_ended(DYING).await {
        eprintln!("warning: a VMM process that this command started has not ended");
    }
}
