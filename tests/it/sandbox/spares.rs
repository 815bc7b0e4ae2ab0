//! The spares of a sandbox: their number, and spares that can't be made, die or grow old.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use chv_sandbox::broadcast::Receiver;
use chv_sandbox::guest::stand_in::Behaviour;
use chv_sandbox::machine::VmmSource;
use chv_sandbox::sandbox::{ChvSandbox, Event, Sandbox, StrategyUsed, VmmUsed};
use chv_sandbox::vmm::{Exit, VmmConfig};
use tokio::time::timeout;

use super::script::Act;
use super::stage::{Spawned, Stage};
use super::{PATIENCE, Scene, assert_echoed, echo, flip_a_bit, no_spare, told};

/// A sandbox whose resets take spares.
pub(super) struct Cast {
    pub(super) sandbox: ChvSandbox,
    pub(super) events: Receiver<Event>,
    pub(super) stage: Stage,
    pub(super) scene: Scene,
}

impl Cast {
    /// A sandbox that has booted. Its spares may still be in the making.
    pub(super) async fn booted(spares: u32) -> Cast {
        let scene = Scene::minted().await;
        Cast::booted_in(scene, spares).await
    }

    pub(super) async fn booted_in(scene: Scene, spares: u32) -> Cast {
        let stage = scene.stage();
        Cast::booted_on(scene, stage, spares).await
    }

    async fn booted_on(scene: Scene, stage: Stage, spares: u32) -> Cast {
        let vmm = stage.config();
        Cast::booted_as(scene, stage, vmm, spares).await
    }

    /// A sandbox whose VMMs are started as `vmm` says.
    pub(super) async fn booted_as(scene: Scene, stage: Stage, vmm: VmmConfig, spares: u32) -> Cast {
        let config = scene.config_of(scene.golden().spares(spares));
        let sandbox = ChvSandbox::with_vmm(config, VmmSource::Spawn(vmm)).unwrap();
        let events = sandbox.subscribe();
        sandbox.boot().await.unwrap();
        Cast {
            sandbox,
            events,
            stage,
            scene,
        }
    }

    /// A sandbox whose next reset finds this number of spares.
    pub(super) async fn with_spares(spares: u32) -> Cast {
        let mut cast = Cast::booted(spares).await;
        for _ in 0..spares {
            cast.spare_is_ready().await;
        }
        cast
    }

    /// A sandbox with a waiting spare, which is returned too.
    pub(super) async fn waiting() -> (Cast, Arc<Spawned>) {
        let cast = Cast::with_spares(1).await;
        let spare = cast.stage.last();
        (cast, spare)
    }

    pub(super) async fn spare_is_ready(&mut self) {
        let ready = |event: &Event| matches!(event, Event::SpareReady).then_some(());
        told(&mut self.events, ready).await;
    }

    /// Checks that a reset is verified and used this kind of VMM, and that a tool runs after it.
    pub(super) async fn reset_by(&self, expected: VmmUsed) {
        let reset = self.sandbox.reset().await.unwrap();
        assert!(reset.is_verified());
        let report = &reset.outcome().report;
        assert_eq!(
            (report.strategy, report.vmm),
            (StrategyUsed::Fresh, Some(expected))
        );
        assert_echoed(echo(&self.sandbox, "again").await, "again");
    }

    /// Checks that a shutdown leaves nothing.
    pub(super) async fn leaves_nothing(self) {
        timeout(PATIENCE, self.sandbox.shutdown()).await.unwrap();
        self.stage.assert_empty();
    }
}

#[tokio::test]
async fn a_reset_takes_the_spare_and_another_is_made() {
    let (mut cast, spare) = Cast::waiting().await;
    cast.reset_by(VmmUsed::Spare).await;
    assert_eq!(spare.player.state(), Some("Running"));
    cast.spare_is_ready().await;
    assert_eq!(cast.stage.count(), 3);
    cast.reset_by(VmmUsed::Spare).await;
    cast.leaves_nothing().await;
}

#[tokio::test]
async fn a_spare_that_dies_while_it_waits_is_told_and_replaced() {
    let (mut cast, spare) = Cast::waiting().await;
    spare.kill();
    let ended = told(&mut cast.events, |event| match event {
        Event::SpareEnded(ended) => Some(ended.clone()),
        _ => None,
    });
    let ended = ended.await;
    assert_eq!((ended.pid, ended.exit), (spare.pid, Exit::Signal(9)));
    cast.spare_is_ready().await;
    assert_eq!(cast.stage.count(), 3);
    cast.reset_by(VmmUsed::Spare).await;
    cast.leaves_nothing().await;
}

#[tokio::test]
async fn there_are_as_many_spares_as_are_asked_for() {
    // With no spares an empty VMM is started ahead.
    let none = Cast::booted(0).await;
    for _ in 0..3 {
        none.reset_by(VmmUsed::New).await;
    }
    none.leaves_nothing().await;

    let mut three = Cast::booted(3).await;
    for _ in 0..3 {
        three.spare_is_ready().await;
    }
    assert_eq!(three.stage.count(), 4);
    for _ in 0..3 {
        three.reset_by(VmmUsed::Spare).await;
    }
    three.leaves_nothing().await;
}

#[tokio::test]
async fn the_vmm_that_served_has_ended_before_another_guest_runs() {
    for (spares, used) in [(0, VmmUsed::New), (1, VmmUsed::Spare)] {
        let mut cast = Cast::booted(spares).await;
        if spares > 0 {
            cast.spare_is_ready().await;
        }
        let served = cast.stage.serving();
        let ended = Arc::clone(&served);
        let (is_gone, was_gone) = mpsc::channel();
        let operation = if spares > 0 {
            "vm.resume"
        } else {
            "vm.restore"
        };
        cast.scene
            .vmm
            .before(operation, move || is_gone.send(!ended.runs()).unwrap());
        cast.reset_by(used).await;
        assert!(was_gone.recv().unwrap(), "{used}");
        cast.leaves_nothing().await;
    }
}

#[tokio::test]
async fn a_refill_that_fails_is_told_and_tried_again_and_resets_do_without() {
    for act in [Act::Refuse, Act::Close] {
        let scene = Scene::minted().await;
        // The first call belongs to the boot.
        scene.vmm.on("vm.restore", 2, act);
        let mut cast = Cast::booted_in(scene, 1).await;
        let failed = no_spare(&mut cast.events).await;
        assert!(failed.contains("vm.restore"), "{failed}");
        // The refill now rests for a second, so there is no spare.
        cast.reset_by(VmmUsed::New).await;
        cast.spare_is_ready().await;
        cast.reset_by(VmmUsed::Spare).await;
        cast.leaves_nothing().await;
    }
}

#[tokio::test]
async fn a_shutdown_while_a_spare_is_made_leaves_nothing() {
    // The second call of each operation belongs to the refill.
    for operation in ["vmm.ping", "vm.restore"] {
        let scene = Scene::minted().await;
        scene.vmm.take_asked();
        scene.vmm.on(operation, 2, Act::Hang);
        let cast = Cast::booted_in(scene, 1).await;
        let mut asked = Vec::new();
        let hangs = async {
            while asked.iter().filter(|it| *it == operation).count() < 2 {
                asked.extend(cast.scene.vmm.take_asked());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, hangs).await.expect(operation);
        let spare = cast.stage.last();
        assert!(spare.runs());
        cast.leaves_nothing().await;
    }
}

#[tokio::test]
async fn a_sandbox_that_is_dropped_takes_its_spares_along() {
    let (cast, spare) = Cast::waiting().await;
    let Cast { sandbox, stage, .. } = cast;
    drop(sandbox);
    let gone = async {
        while spare.runs() || !stage.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, gone).await.expect("nothing is left");
}

#[tokio::test]
async fn resets_at_once_follow_each_other() {
    let (mut cast, _) = Cast::waiting().await;
    let (first, second) = tokio::join!(cast.sandbox.reset(), cast.sandbox.reset());
    let used = [first, second].map(|reset| reset.unwrap().outcome().report.vmm);
    // No spare is made between two resets that follow each other at once.
    assert_eq!(used, [Some(VmmUsed::Spare), Some(VmmUsed::New)]);
    assert_echoed(echo(&cast.sandbox, "after both").await, "after both");
    cast.spare_is_ready().await;
    cast.leaves_nothing().await;
}

/// The number of times that a VM was paused since the last call of this function.
fn pauses(cast: &Cast) -> usize {
    let asked = cast.scene.vmm.take_asked();
    asked.iter().filter(|asked| *asked == "vm.pause").count()
}

#[tokio::test]
async fn the_guest_of_a_spare_has_answered_before_it_waits() {
    let (mut cast, spare) = Cast::waiting().await;
    assert_eq!(spare.player.state(), Some("Paused"));
    assert_eq!(pauses(&cast), 1);
    // No other process can give a waiting spare orders, because none of its sockets has a name.
    for name in ["api.sock", "rw/vsock.sock"] {
        assert!(!spare.run_dir.join(name).exists(), "{name}");
    }
    cast.reset_by(VmmUsed::Spare).await;
    cast.spare_is_ready().await;
    assert_eq!(pauses(&cast), 1);
    cast.leaves_nothing().await;
}

#[tokio::test]
async fn a_spare_whose_guest_writes_of_its_own_accord_waits_as_it_was_restored() {
    let scene = Scene::minted().await;
    let stage = scene.stage();
    let write = {
        let stage = stage.clone();
        move || flip_a_bit(&stage.staged().overlay().unwrap())
    };
    // The first call belongs to the boot.
    scene.vmm.on("vm.resume", 2, Act::First(Box::new(write)));
    let mut cast = Cast::booted_on(scene, stage, 1).await;
    cast.spare_is_ready().await;
    assert_eq!(pauses(&cast), 1, "it was tried");
    cast.reset_by(VmmUsed::Spare).await;
    cast.spare_is_ready().await;
    assert_eq!(pauses(&cast), 0, "and not again");
    cast.reset_by(VmmUsed::Spare).await;
    cast.leaves_nothing().await;
}

#[tokio::test]
async fn a_spare_whose_guest_does_not_answer_is_no_spare() {
    let mut scene = Scene::minted().await;
    scene.hurry();
    let stage = scene.stage();
    let silent = {
        let stage = stage.clone();
        move || stage.last().player.guest().behave(Behaviour::Silent)
    };
    // The first call belongs to the boot.
    scene.vmm.on("vm.restore", 2, Act::First(Box::new(silent)));
    let mut cast = Cast::booted_on(scene, stage, 1).await;
    let failed = no_spare(&mut cast.events).await;
    assert!(failed.contains("Hello"), "{failed}");
    cast.leaves_nothing().await;
}
