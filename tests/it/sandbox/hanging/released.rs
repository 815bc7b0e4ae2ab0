//! A shutdown that comes while a call releases something: the shutdown takes over, and waits until everything is
//! released.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use chv_sandbox::sandbox::{ChvSandbox, Error, Sandbox, WireState};
use tokio::time::timeout;

use super::{Attached, EACH, Vmms, assert_nothing_is_left, poll_once, until, works_again};
use crate::sandbox::script::Act;
use crate::sandbox::spares::Cast;
use crate::sandbox::{PATIENCE, Scene};

/// Checks that a shutdown ends a boot that hangs, and leaves no VM.
async fn ends_a_boot_that_hangs(scene: &Scene, sandbox: &ChvSandbox) {
    let mut boot = Box::pin(sandbox.boot());
    tokio::select! {
        result = &mut boot => panic!("it doesn't hang: {result:?}"),
        () = scene.vmm.script().hangs(1) => {}
    }
    timeout(PATIENCE, sandbox.shutdown()).await.unwrap();
    assert_nothing_is_left(scene, None);
    let error = boot.await.unwrap_err();
    assert!(matches!(error, Error::ShutDown), "{error}");
    works_again(scene, None, sandbox).await;
}

/// A boot first releases what a failed reset has left: here the VM in a VMM of another program.
#[tokio::test]
async fn a_vm_that_a_boot_is_deleting_is_deleted() {
    let scene = Scene::minted().await;
    let sandbox = scene.sandbox_of(Attached.config(&scene));
    sandbox.boot().await.unwrap();
    scene.vmm.on("vm.info", 1, Act::Refuse);
    sandbox.reset().await.unwrap_err();
    assert_eq!(sandbox.state().wire(), WireState::Failed);
    scene.vmm.on("vm.delete", 1, Act::Hang);
    ends_a_boot_that_hangs(&scene, &sandbox).await;
}

/// A boot that fails releases what it has made, too.
#[tokio::test]
async fn a_vm_that_a_failed_boot_is_deleting_is_deleted() {
    let scene = Scene::minted().await;
    let sandbox = scene.sandbox_of(Attached.config(&scene));
    scene.vmm.on("vm.info", 1, Act::Refuse);
    // The first call makes room for the restore.
    scene.vmm.on("vm.delete", 2, Act::Hang);
    ends_a_boot_that_hangs(&scene, &sandbox).await;
}

/// A boot after a failure, and a divergence, end the spares. One of the spares hangs at its start.
#[tokio::test]
async fn spares_that_a_call_is_ending_are_ended() {
    for diverges in [false, true] {
        let scene = Scene::minted().await;
        // The first call is the boot's, and the second the first spare's.
        scene.vmm.on("vmm.ping", 3, Act::Hang);
        let mut cast = Cast::booted_in(scene, 1).await;
        cast.spare_is_ready().await;
        let mut held: super::Held<'_> = match diverges {
            true => {
                cast.scene.guest.set_open_files(13);
                Box::pin(async { cast.sandbox.reset().await.map(drop) })
            }
            false => {
                cast.stage.last().kill();
                cast.stage.serving().kill();
                until(|| cast.sandbox.state().wire() == WireState::Failed).await;
                Box::pin(async { cast.sandbox.boot().await })
            }
        };
        let reached = async {
            cast.scene.vmm.script().hangs(1).await;
            let expected = match diverges {
                true => WireState::Failed,
                false => WireState::Booting,
            };
            until(|| cast.sandbox.state().wire() == expected).await;
        };
        tokio::select! {
            result = &mut held => panic!("it doesn't hang: {result:?}"),
            () = reached => {}
        }
        timeout(PATIENCE, cast.sandbox.shutdown()).await.unwrap();
        cast.stage.assert_empty();
        let error = held.await.unwrap_err();
        assert!(matches!(error, Error::ShutDown), "{error}");
        cast.scene.guest.set_open_files(12);
        works_again(&cast.scene, Some(&cast.stage), &cast.sandbox).await;
    }
}

/// A process can't be stopped before it exists. A shutdown at any moment waits until it does.
#[tokio::test]
async fn a_process_that_is_being_started_is_waited_for() {
    let scene = Scene::minted().await;
    let stage = scene.stage();
    for vmms in [Vmms::InPlace, Vmms::Fresh(0), Vmms::Fresh(1)] {
        let sandbox = stage.sandbox(vmms.config(&scene));
        for moment in 0..80 {
            let mut boot = Box::pin(sandbox.boot());
            let began = Instant::now();
            while began.elapsed() < Duration::from_micros(500) * moment {
                if poll_once(&mut boot).await.is_some() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            timeout(PATIENCE, sandbox.shutdown()).await.unwrap();
            stage.assert_empty();
            let started = stage.count();
            drop(boot);
            assert_eq!(stage.count(), started, "{vmms:?} after {moment}");
        }
    }
}

/// The same for a VM that is booted cold.
#[tokio::test]
async fn a_process_that_is_being_started_in_scaffold_mode_is_waited_for() {
    let scene = Scene::new();
    let stage = scene.stage();
    let sandbox = stage.sandbox(scene.config_of(scene.scaffold()));
    for moment in 0..40 {
        let mut boot = Box::pin(sandbox.boot());
        let began = Instant::now();
        while began.elapsed() < Duration::from_micros(500) * moment {
            if poll_once(&mut boot).await.is_some() {
                break;
            }
            tokio::task::yield_now().await;
        }
        timeout(PATIENCE, sandbox.shutdown()).await.unwrap();
        stage.assert_empty();
    }
}

/// This includes the golden snapshot's files: its memory may be large, and its disks are held so that no process can
/// change them.
#[tokio::test]
async fn a_shutdown_closes_every_file() {
    for vmms in EACH {
        let scene = Scene::minted().await;
        let stage = (vmms != Attached).then(|| scene.stage());
        let config = vmms.config(&scene);
        let sandbox = match &stage {
            Some(stage) => stage.sandbox(config),
            None => scene.sandbox_of(config),
        };
        let is_open = || open_below(scene.directory.path()) > 0;
        sandbox.boot().await.unwrap();
        assert!(is_open(), "the read-only disk is held");
        timeout(PATIENCE, sandbox.shutdown()).await.unwrap();
        until(|| !is_open()).await;
        works_again(&scene, stage.as_ref(), &sandbox).await;
    }
}

/// How many files below `directory` this process has open.
fn open_below(directory: &Path) -> usize {
    let open = fs::read_dir("/proc/self/fd").unwrap();
    // Another test may close its descriptor meanwhile, so this link may lead nowhere.
    let open = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    open.filter(|path| path.starts_with(directory)).count()
}
