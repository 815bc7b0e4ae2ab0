//! The last handle, or the runtime, is dropped while a call hangs: the VMMs are killed, and their files are removed.

use std::fs;

use chv_sandbox::sandbox::{Error, Sandbox, WireState};
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::{Call, Case, Hanging, cases, runtimes, until, works_again};
use crate::sandbox::stage::Stage;
use crate::sandbox::{PATIENCE, Scene};

const CALLS: [Call; 5] = [
    Call::Boot,
    Call::Reset,
    Call::ResetBehindRefill,
    Call::Tool,
    Call::ToolBesideRefill,
];

/// Whether nothing of a process is left. In the VMM of another program the VM stays, without its files.
fn is_gone(scene: &Scene, stage: Option<&Stage>) -> bool {
    match stage {
        Some(stage) => stage.running().is_empty() && stage.is_empty(),
        None => fs::read_dir(scene.path("machine"))
            .unwrap()
            .next()
            .is_none(),
    }
}

/// The cases. Every other one runs on a runtime with one thread.
fn cases_by_runtime() -> impl Iterator<Item = (Case, Runtime)> {
    let runtimes = std::iter::repeat_with(runtimes).flatten();
    cases(&CALLS).into_iter().zip(runtimes)
}

#[test]
fn the_last_handle_takes_everything_along() {
    for (case, runtime) in cases_by_runtime() {
        runtime.block_on(async {
            let Hanging {
                scene,
                stage,
                sandbox,
                held,
            } = case.hold().await;
            drop((held, sandbox));
            until(|| is_gone(&scene, stage.as_ref())).await;
        });
    }
}

#[test]
fn a_runtime_takes_everything_along_and_the_sandbox_boots_on_another() {
    for (case, dropped) in cases_by_runtime() {
        let hanging = dropped.block_on(case.hold());
        drop(dropped);
        let [_, other] = runtimes();
        other.block_on(check(case, hanging));
    }
}

async fn check(case: Case, hanging: Hanging) {
    let Hanging {
        scene,
        stage,
        sandbox,
        held,
    } = hanging;
    assert_eq!(sandbox.state().wire(), WireState::NotBooted, "{case:?}");
    until(|| is_gone(&scene, stage.as_ref())).await;
    let held = timeout(PATIENCE, held).await;
    let error = held.expect("it has ended").unwrap_err();
    if let Call::Boot | Call::Reset | Call::ResetBehindRefill = case.call {
        assert!(matches!(error, Error::ShutDown), "{case:?}: {error}");
    }
    works_again(&scene, stage.as_ref(), &sandbox).await;
}
