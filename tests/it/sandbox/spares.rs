//! The spares of a sandbox: how many there are, and what becomes of those that can't be made, die or grow old.

use std::time::Duration;

use chv_sandbox::broadcast::Receiver;
use chv_sandbox::guest::stand_in::Behaviour;
use chv_sandbox::sandbox::{
    ChvSandbox, Event, Sandbox, SandboxConfig, Standby, Strategy, StrategyUsed,
};
use chv_sandbox::vmm::Exit;
use tokio::time::timeout;

use super::stage::{Spawned, Stage};
use super::vmm::Act;
use super::{PATIENCE, Scene, assert_echoed, echo, flip_a_bit, no_spare, told};

/// A sandbox whose resets take spares.
pub(super) struct Cast {
    pub(super) sandbox: ChvSandbox,
    pub(super) events: Receiver<Event>,
    pub(super) stage: Stage,
    pub(super) scene: Scene,
}

impl Cast {
    /// One that has booted. Spares may be under way.
    pub(super) async fn booted(standby: Standby) -> Cast {
        let scene = Scene::minted().await;
        Cast::booted_in(scene, standby).await
    }

    pub(super) async fn booted_in(scene: Scene, standby: Standby) -> Cast {
        let stage = scene.stage();
        let config = SandboxConfig {
            strategy: Strategy::Standby(standby),
            ..scene.config()
        };
        let sandbox = stage.sandbox(config);
        let events = sandbox.subscribe();
        sandbox.boot().await.unwrap();
        Cast {
            sandbox,
            events,
            stage,
            scene,
        }
    }

    /// One with a spare that waits, which is returned too.
    pub(super) async fn waiting() -> (Cast, std::sync::Arc<Spawned>) {
        let mut cast = Cast::booted(Standby::default()).await;
        cast.spare_is_ready().await;
        let spare = cast.stage.last();
        (cast, spare)
    }

    pub(super) async fn spare_is_ready(&mut self) {
        let ready = |event: &Event| matches!(event, Event::SpareReady).then_some(());
        told(&mut self.events, ready).await;
    }

    /// A reset passes, by this strategy, and a tool runs.
    pub(super) async fn reset_by(&self, expected: StrategyUsed) {
        let reset = self.sandbox.reset().await.unwrap();
        assert!(reset.is_verified());
        assert_eq!(reset.outcome().report.strategy, expected);
        assert_echoed(echo(&self.sandbox, "again").await, "again");
    }

    /// A shutdown leaves nothing.
    pub(super) async fn leaves_nothing(self) {
        timeout(PATIENCE, self.sandbox.shutdown()).await.unwrap();
        self.stage.assert_empty();
    }
}

#[tokio::test]
async fn a_reset_takes_the_spare_and_another_is_made() {
    let (mut cast, spare) = Cast::waiting().await;
    cast.reset_by(StrategyUsed::Standby).await;
    assert_eq!(spare.player.state(), Some("Running"));
    cast.spare_is_ready().await;
    assert_eq!(cast.stage.count(), 3);
    cast.reset_by(StrategyUsed::Standby).await;
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
    cast.reset_by(StrategyUsed::Standby).await;
    cast.leaves_nothing().await;
}

#[tokio::test]
async fn a_spare_that_grew_old_is_replaced() {
    let mut cast = Cast::booted(Standby {
        max_age_s: 1,
        ..Standby::default()
    })
    .await;
    cast.spare_is_ready().await;
    let old = cast.stage.last();
    cast.spare_is_ready().await;
    let young = cast.stage.last();
    assert_ne!(old.pid, young.pid);
    assert!(!old.runs() && !old.run_dir.exists(), "it went before");
    cast.leaves_nothing().await;
}

#[tokio::test]
async fn there_are_no_more_spares_than_their_memory_allows() {
    // The VM has 16 MiB.
    let none = Cast::booted(Standby {
        memory_budget_mib: 15,
        ..Standby::default()
    })
    .await;
    none.reset_by(StrategyUsed::Respawn).await;
    none.reset_by(StrategyUsed::Respawn).await;
    assert_eq!(none.stage.count(), 3, "the boot's, and one for each reset");
    none.leaves_nothing().await;

    let mut one = Cast::booted(Standby {
        spares: 2,
        memory_budget_mib: 31,
        ..Standby::default()
    })
    .await;
    one.spare_is_ready().await;
    assert_eq!(one.stage.count(), 2);
    one.reset_by(StrategyUsed::Standby).await;
    one.spare_is_ready().await;
    assert_eq!(one.stage.count(), 3);
    one.leaves_nothing().await;

    let mut two = Cast::booted(Standby {
        spares: 2,
        memory_budget_mib: 32,
        ..Standby::default()
    })
    .await;
    two.spare_is_ready().await;
    two.spare_is_ready().await;
    assert_eq!(two.stage.count(), 3);
    two.reset_by(StrategyUsed::Standby).await;
    two.reset_by(StrategyUsed::Standby).await;
    two.leaves_nothing().await;
}

#[tokio::test]
async fn a_refill_that_fails_is_told_and_tried_again_and_resets_do_without() {
    for act in [Act::Refuse, Act::Close] {
        let scene = Scene::minted().await;
        // The first is the boot's.
        scene.vmm.on("vm.restore", 2, act);
        let mut cast = Cast::booted_in(scene, Standby::default()).await;
        let failed = no_spare(&mut cast.events).await;
        assert!(failed.contains("vm.restore"), "{failed}");
        // It rests for a second now, in which there is no spare.
        cast.reset_by(StrategyUsed::Respawn).await;
        cast.spare_is_ready().await;
        cast.reset_by(StrategyUsed::Standby).await;
        cast.leaves_nothing().await;
    }
}

#[tokio::test]
async fn a_shutdown_while_a_spare_is_made_leaves_nothing() {
    // The second call of each is the refill's.
    for operation in ["vmm.ping", "vm.restore"] {
        let scene = Scene::minted().await;
        scene.vmm.take_asked();
        scene.vmm.on(operation, 2, Act::Hang);
        let cast = Cast::booted_in(scene, Standby::default()).await;
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
    let used = [first, second].map(|reset| reset.unwrap().outcome().report.strategy);
    // No spare is made while somebody resets or waits for it.
    assert_eq!(used, [StrategyUsed::Standby, StrategyUsed::Respawn]);
    assert_echoed(echo(&cast.sandbox, "after both").await, "after both");
    cast.spare_is_ready().await;
    cast.leaves_nothing().await;
}

/// How often a VM was paused since the last time.
fn pauses(cast: &Cast) -> usize {
    let asked = cast.scene.vmm.take_asked();
    asked.iter().filter(|asked| *asked == "vm.pause").count()
}

#[tokio::test]
async fn the_guest_of_a_spare_has_answered_before_it_waits() {
    let (mut cast, spare) = Cast::waiting().await;
    assert_eq!(spare.player.state(), Some("Paused"));
    assert_eq!(pauses(&cast), 1);
    // No other process can give a waiting spare orders: none of its sockets has a name.
    for name in ["api.sock", "rw/vsock.sock"] {
        assert!(!spare.run_dir.join(name).exists(), "{name}");
    }
    cast.reset_by(StrategyUsed::Standby).await;
    cast.spare_is_ready().await;
    assert_eq!(pauses(&cast), 1);
    cast.leaves_nothing().await;
}

#[tokio::test]
async fn a_spare_whose_guest_writes_of_its_own_accord_waits_as_it_was_restored() {
    let scene = Scene::minted().await;
    let run_root = scene.path("run");
    let write = move || {
        let run_dirs = run_root.read_dir().unwrap();
        run_dirs.for_each(|entry| flip_a_bit(&entry.unwrap().path().join("rw/overlay.img")));
    };
    // The first is the boot's.
    scene.vmm.on("vm.resume", 2, Act::First(Box::new(write)));
    let mut cast = Cast::booted_in(scene, Standby::default()).await;
    cast.spare_is_ready().await;
    assert_eq!(pauses(&cast), 1, "it was tried");
    cast.reset_by(StrategyUsed::Standby).await;
    cast.spare_is_ready().await;
    assert_eq!(pauses(&cast), 0, "and not again");
    cast.reset_by(StrategyUsed::Standby).await;
    cast.leaves_nothing().await;
}

#[tokio::test]
async fn a_spare_whose_guest_does_not_answer_is_no_spare() {
    let mut scene = Scene::minted().await;
    scene.hurry();
    let guest = scene.guest.clone();
    // The boot's guest has answered by then, and no spare was begun.
    let silent = move || guest.behave(Behaviour::Silent);
    scene.vmm.before("vm.info", silent);
    let mut cast = Cast::booted_in(scene, Standby::default()).await;
    let failed = no_spare(&mut cast.events).await;
    assert!(failed.contains("Hello"), "{failed}");
    cast.leaves_nothing().await;
}
