//! A fault at every step. Whatever happens to a VMM, its guest or a file while a call is under way, the call ends in
//! time with a typed error or with its result; the sandbox is in a state that its documentation gives; and a shutdown
//! leaves nothing.
//!
//! [`api`] has the faults of a VMM and its api-socket, [`guest`] those of the channel, [`files`] those of files, and
//! [`system`] system calls that fail. By default each fault is tried with one kind of VMM in turn, and with
//! `CHV_SANDBOX_FAULTS=all` with each kind. The tables print how many cells they had.

mod api;
mod files;
mod guest;
mod system;

use std::env;
use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use chv_sandbox::sandbox::{ChvSandbox, Error, Reset, Sandbox, SandboxState};
use futures_util::{StreamExt, stream};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::hanging::Vmms;
use super::script::Act;
use super::stage::Stage;
use super::{PATIENCE, Scene, assert_echoed, echo};

/// A limit that only a fault reaches; the call then gives up.
const SHORT: Duration = Duration::from_millis(1500);

/// How many cells of a table run at once. Most of their time they wait.
const AT_ONCE: usize = 6;

/// The kinds of VMM that the sandboxes of a table have, in turn.
const VMMS: [Vmms; 3] = [Vmms::Fresh(1), Vmms::Fresh(0), Vmms::InPlace];

/// A sandbox to which a fault is about to happen.
struct Stand {
    scene: Scene,
    stage: Stage,
    sandbox: ChvSandbox,
}

impl Stand {
    /// A sandbox that has not booted. If `short` is set, the limits on its VMM and its guest are short.
    async fn new(vmms: Vmms, short: bool) -> Stand {
        let mut scene = Scene::minted().await;
        let limits = &mut scene.limits;
        limits.vmm_terminate = Duration::from_millis(100);
        limits.vmm_shutdown = Duration::from_millis(100);
        if short {
            (limits.vmm_lifecycle, limits.vmm_transfer) = (SHORT, SHORT);
            (limits.vmm_probe, limits.vmm_start) = (SHORT, SHORT);
            (limits.settle, limits.query, limits.boot) = (SHORT, SHORT, SHORT);
            (limits.frame_idle, limits.frame_total) = (SHORT, SHORT);
            limits.tool_grace = SHORT;
        }
        let stage = scene.stage();
        let sandbox = stage.sandbox(vmms.config(&scene));
        Stand {
            scene,
            stage,
            sandbox,
        }
    }

    async fn booted(vmms: Vmms, short: bool) -> Stand {
        let stand = Stand::new(vmms, short).await;
        boot_in_time(&stand.sandbox).await;
        stand
    }

    /// Checks that the state is one that the documentation gives for the result of the call, and then shuts the sandbox
    /// down.
    async fn stands<T>(self, cell: &impl Debug, said: Result<T, Error>) {
        let state = self.sandbox.state();
        if let Err(error) = &said {
            assert!(error.code().contains('_'), "{cell:?}: {error}");
            assert!(!error.to_string().is_empty(), "{cell:?}");
            match (error, &state) {
                (Error::ResetDivergence(_) | Error::ResetTimeout(_), state) => {
                    assert!(state.is_halted(), "{cell:?}: {state:?} after {error}");
                }
                (Error::BootFailed { .. } | Error::ResetFailed { .. }, state) => {
                    let failed = matches!(state, SandboxState::Failed { .. });
                    assert!(failed, "{cell:?}: {state:?} after {error}");
                }
                _ => {}
            }
            let at_rest = !matches!(state, SandboxState::Booting | SandboxState::Resetting);
            assert!(at_rest, "{cell:?}: {state:?}");
        }
        self.ends(cell).await;
    }

    /// Checks that a shutdown succeeds in any state and leaves nothing.
    async fn ends(self, cell: &impl Debug) {
        self.scene.vmm.script().forget_plans();
        let shutdown = timeout(PATIENCE, self.sandbox.shutdown()).await;
        assert!(shutdown.is_ok(), "{cell:?}: the shutdown hangs");
        let state = self.sandbox.state();
        let is_down = matches!(state, SandboxState::NotBooted);
        assert!(is_down, "{cell:?}: {state:?} after the shutdown");
        self.stage.assert_empty();
    }
}

/// Boots a sandbox with short limits. On a busy machine a boot may exceed them, so it is tried up to five times.
async fn boot_in_time(sandbox: &ChvSandbox) {
    for _ in 0..5 {
        match sandbox.boot().await {
            Ok(_) => return,
            Err(error) => tracing::debug!(%error, "it boots again"),
        }
    }
    panic!("it does not boot: {:?}", sandbox.state());
}

/// Checks that a call ends in time.
async fn in_time<T>(cell: &impl Debug, call: impl Future<Output = T>) -> T {
    let ended = timeout(2 * PATIENCE, call).await;
    ended.unwrap_or_else(|_| panic!("{cell:?}: the call hangs"))
}

/// Checks that a reset was verified or failed.
#[track_caller]
fn assert_no_soft_pass(cell: &impl Debug, reset: &Result<Reset, Error>) {
    let passed_softly = reset.as_ref().is_ok_and(|reset| !reset.is_verified());
    assert!(!passed_softly, "{cell:?}");
}

/// Runs each cell of a table, several at a time.
fn try_all<C, F>(cells: Vec<C>, run: impl Fn(C) -> F)
where
    F: Future<Output = ()>,
{
    let count = cells.len();
    assert!(count > 0, "the table is empty");
    let all = stream::iter(cells).map(run).buffer_unordered(AT_ONCE);
    Runtime::new().unwrap().block_on(all.collect::<()>());
    tracing::info!(count, "faults survived");
}

/// Pairs each fault with one kind of VMM in turn, or with each kind if the variable says so.
fn with_vmms<C: Clone>(cells: Vec<C>) -> Vec<(Vmms, C)> {
    let all = env::var_os("CHV_SANDBOX_FAULTS").is_some_and(|which| which == "all");
    let turns = VMMS.into_iter().cycle();
    match all {
        true => VMMS
            .into_iter()
            .flat_map(|vmms| cells.iter().map(move |cell| (vmms, cell.clone())))
            .collect(),
        false => turns.zip(cells).collect(),
    }
}
