//! Shutdowns while a call hangs: from the same task, twice at once, from another task, and from another thread.

use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use chv_sandbox::sandbox::{Error, Sandbox, WireState};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{
    Attached, Call, Case, EACH, Fresh, Hanging, InPlace, assert_nothing_is_left, cases, runtimes,
    scene, works_again,
};
use crate::sandbox::PATIENCE;
use crate::sandbox::script::Act;

/// Where the shutdown is called.
#[derive(Clone, Copy, Debug)]
enum From {
    Here,
    /// Twice at once.
    Twice,
    Task,
    /// On a runtime of its own.
    Thread,
}

const FROM: [From; 4] = [From::Here, From::Twice, From::Task, From::Thread];

impl Hanging {
    async fn shut_down(&self, from: From) {
        let sandbox = Arc::clone(&self.sandbox);
        match from {
            From::Here => sandbox.shutdown().await,
            From::Twice => drop(tokio::join!(sandbox.shutdown(), sandbox.shutdown())),
            From::Task => {
                let task = tokio::spawn(async move { sandbox.shutdown().await });
                task.await.unwrap();
            }
            From::Thread => {
                let (done, is_done) = oneshot::channel();
                let thread = thread::spawn(move || {
                    let runtime = Runtime::new().unwrap();
                    runtime.block_on(sandbox.shutdown());
                    done.send(()).unwrap();
                });
                is_done.await.unwrap();
                thread.join().unwrap();
            }
        }
    }
}

/// Checks that a shutdown from each place in turn, on each runtime, ends each of the cases.
fn check(of: &[Call]) {
    for (turn, runtime) in runtimes().into_iter().enumerate() {
        let from = FROM.into_iter().cycle().skip(turn);
        for (case, from) in cases(of).into_iter().zip(from) {
            runtime.block_on(async {
                let hanging = case.hold().await;
                let shutdown = timeout(PATIENCE, hanging.shut_down(from)).await;
                shutdown.unwrap_or_else(|_| panic!("{from:?} beside {case:?}"));
                hanging.ends(case).await;
            });
        }
    }
}

#[test]
fn it_ends_a_boot_that_is_not_polled() {
    check(&[Call::Boot]);
}

#[test]
fn it_ends_a_reset_that_is_not_polled() {
    check(&[Call::Reset]);
}

#[test]
fn it_ends_a_reset_that_waits_for_a_refill_and_is_not_polled() {
    check(&[Call::ResetBehindRefill]);
}

#[test]
fn it_ends_a_tool_that_is_not_polled() {
    check(&[Call::Tool]);
}

#[test]
fn it_ends_a_refill_beside_a_tool_that_is_not_polled() {
    check(&[Call::ToolBesideRefill]);
}

/// The work of an agent stays pinned beside the branch of a `select!` that was taken.
#[test]
fn it_ends_a_call_that_another_branch_of_a_select_has_begun() {
    for runtime in runtimes() {
        for vmms in EACH {
            for restores in [1, 2] {
                // The first call is the boot's.
                let (operation, nth) = match (restores, vmms) {
                    (2, Fresh(1..)) => ("vm.info", 2),
                    _ => ("vm.restore", restores),
                };
                runtime.block_on(async {
                    let (scene, _) = scene().await;
                    let script = Arc::clone(scene.vmm.script());
                    script.on(operation, nth, Act::Hang);
                    let stage = (vmms != Attached).then(|| scene.stage());
                    let config = vmms.config(&scene);
                    let sandbox = match &stage {
                        Some(stage) => stage.sandbox(config),
                        None => scene.sandbox_of(config),
                    };
                    let (terminate, terminated) = oneshot::channel();
                    tokio::spawn(async move {
                        script.hangs(1).await;
                        terminate.send(()).unwrap();
                    });
                    let work = async {
                        sandbox.boot().await?;
                        sandbox.reset().await
                    };
                    let mut work = pin!(work);
                    let shutdown = async {
                        tokio::select! {
                            result = &mut work => panic!("{vmms:?} {operation}: {result:?}"),
                            _ = terminated => sandbox.shutdown().await,
                        }
                    };
                    timeout(PATIENCE, shutdown).await.unwrap();
                    assert_eq!(sandbox.state().wire(), WireState::NotBooted);
                    assert_nothing_is_left(&scene, stage.as_ref());
                    let error = work.await.unwrap_err();
                    assert!(matches!(error, Error::ShutDown), "{vmms:?}: {error}");
                    works_again(&scene, stage.as_ref(), &sandbox).await;
                });
            }
        }
    }
}

/// The first call starts the driver on its runtime. If that runtime is gone, the next call starts it on another.
#[tokio::test]
async fn on_a_runtime_that_ends_before_the_boot_it_does_nothing() {
    let (scene, _) = scene().await;
    let sandbox = Arc::new(scene.sandbox_of(Attached.config(&scene)));
    let first = Arc::clone(&sandbox);
    let shutdown = move || Runtime::new().unwrap().block_on(first.shutdown());
    thread::spawn(shutdown).join().unwrap();
    works_again(&scene, None, &sandbox).await;
}

#[tokio::test]
async fn before_a_boot_it_does_nothing_and_a_boot_follows() {
    for vmms in EACH {
        let (scene, _) = scene().await;
        let stage = (vmms != Attached).then(|| scene.stage());
        let config = vmms.config(&scene);
        let sandbox = match &stage {
            Some(stage) => stage.sandbox(config),
            None => scene.sandbox_of(config),
        };
        timeout(PATIENCE, sandbox.shutdown()).await.unwrap();
        let (_, ()) = tokio::join!(sandbox.shutdown(), sandbox.shutdown());
        assert!(scene.vmm.take_asked().is_empty(), "{vmms:?}");
        // A boot that was asked for before a shutdown is ended; one that was asked for after it is not.
        let mut boot = Box::pin(sandbox.boot());
        assert!(super::poll_once(&mut boot).await.is_none());
        timeout(PATIENCE, sandbox.shutdown()).await.unwrap();
        let error = boot.await.unwrap_err();
        assert!(matches!(error, Error::ShutDown), "{vmms:?}: {error}");
        if let Some(stage) = &stage {
            assert_eq!(stage.count(), 0, "nothing was started");
        }
        works_again(&scene, stage.as_ref(), &sandbox).await;
    }
}

/// The shutdown itself has to send a call to the VMM of another program, which never answers.
#[tokio::test]
async fn it_waits_for_the_vmm_of_another_program_no_longer_than_for_any_call() {
    let mut scene = super::Scene::minted().await;
    scene.limits.vmm_lifecycle = Duration::from_millis(500);
    let sandbox = scene.sandbox();
    sandbox.boot().await.unwrap();
    scene.vmm.on("vm.delete", 1, Act::Hang);
    timeout(PATIENCE, sandbox.shutdown()).await.unwrap();
    assert_eq!(sandbox.state().wire(), WireState::NotBooted);
    works_again(&scene, None, &sandbox).await;
}

#[test]
fn every_call_hangs_on_every_kind_of_vmm() {
    let count = |call| cases(&[call]).len();
    let of = [Call::Boot, Call::Reset, Call::Tool].map(count);
    assert_eq!(of, [17, 15, 4]);
    let is_in_place = |case: &Case| case.vmms == InPlace;
    assert_eq!(
        cases(&[Call::ToolBesideRefill])
            .iter()
            .filter(|it| is_in_place(it))
            .count(),
        0
    );
}
