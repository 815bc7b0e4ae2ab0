//! Pools, on VMMs that are processes of their own.

mod alone;
mod closing;
mod example;
mod halting;
mod loss;
mod measured;
mod replacing;
mod scale;
mod soak;

use std::sync::Arc;
use std::time::Duration;

use chv_sandbox::golden::{Golden, LoadOptions, LoadedGolden};
use chv_sandbox::overlay::Basis;
use chv_sandbox::sandbox::{
    Advice, ConfigError, Error, Event, MemoryPerVm, Pool, PoolConfig, PoolStatus, Sandbox,
    SandboxState, ToolsPerReset,
};

use super::script::Act;
use super::stage::Stage;
use super::{PATIENCE, Scene, assert_echoed, echo, told};

/// A scene, and the stage for the VMMs of its pools.
struct Place {
    scene: Scene,
    stage: Stage,
    golden: Arc<LoadedGolden>,
}

impl Place {
    async fn new() -> Place {
        Place::of(Scene::minted().await)
    }

    /// A place for a scene that has a golden snapshot.
    fn of(scene: Scene) -> Place {
        let golden = load(&scene);
        Place {
            stage: scene.stage(),
            scene,
            golden,
        }
    }

    fn config(&self) -> PoolConfig {
        self.config_with_spares(0)
    }

    fn config_with_spares(&self, spares: u32) -> PoolConfig {
        let sandbox = self.scene.config_of(self.scene.golden().spares(spares));
        PoolConfig::new(sandbox.tools_per_reset(ToolsPerReset::One))
    }

    fn pool(&self, config: PoolConfig) -> Pool {
        self.try_pool(config).unwrap()
    }

    fn try_pool(&self, config: PoolConfig) -> Result<Pool, Error> {
        Pool::with_loaded(config, self.stage.config(), Arc::clone(&self.golden))
    }
}

fn load(scene: &Scene) -> Arc<LoadedGolden> {
    let golden = Golden::open(&scene.path("golden")).unwrap();
    Arc::new(golden.load(&LoadOptions::default()).unwrap())
}

/// Waits until `is_it` accepts the pool's status.
async fn until(pool: &Pool, is_it: impl Fn(&PoolStatus) -> bool) {
    let stands = pool.wait_until(is_it);
    tokio::time::timeout(PATIENCE, stands)
        .await
        .expect("it comes to stand so");
}

#[tokio::test]
async fn a_caller_gets_a_sandbox_that_no_other_has_used_since_its_reset() {
    let place = Place::new().await;
    let pool = place.pool(place.config());
    let mut events = pool.subscribe();
    for round in ["first", "second", "third"] {
        let sandbox = pool.acquire(PATIENCE).await.unwrap();
        assert_echoed(echo(&*sandbox, round).await, round);
        assert!(matches!(sandbox.state(), SandboxState::NeedsReset { .. }));
        if round == "second" {
            drop(sandbox);
        } else {
            assert!(sandbox.recycle().await.unwrap().is_verified());
        }
    }
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        if let Event::Acquired { sandbox } | Event::Released { sandbox } = event {
            told.push((matches!(event, Event::Acquired { .. }), sandbox));
        }
    }
    assert_eq!(told, [(true, 1), (false, 1)].repeat(3));
    pool.shutdown().await;
    place.stage.assert_empty();
}

#[tokio::test]
async fn the_second_sandbox_of_a_golden_snapshot_digests_nothing_that_is_held() {
    let place = Place::new().await;
    let pool = place.pool(place.config().size(2).idle(2));
    let sandboxes = [
        pool.acquire(PATIENCE).await.unwrap(),
        pool.acquire(PATIENCE).await.unwrap(),
    ];
    assert_ne!(sandboxes[0].number(), sandboxes[1].number());
    for sandbox in sandboxes {
        let reset = sandbox.recycle().await.unwrap();
        let root = reset.outcome().report.disks[0];
        // On a filesystem without leases the disk is digested each time.
        if root.bytes.basis == Basis::Leased {
            assert_eq!(root.bytes.work.hashed, 0);
        }
        let memory = reset.outcome().report.memory.clone().unwrap();
        assert_eq!(&memory, place.golden.memory(), "loaded once, for all");
    }
    pool.shutdown().await;
    place.stage.assert_empty();
}

#[tokio::test]
async fn callers_are_served_in_the_order_in_which_they_ask() {
    let place = Place::new().await;
    let pool = place.pool(place.config());
    let first = pool.acquire(PATIENCE).await.unwrap();
    let (served, mut order) = tokio::sync::mpsc::unbounded_channel();
    let callers: Vec<_> = (0..4)
        .map(|number| {
            let (pool, served) = (pool.clone(), served.clone());
            async move {
                let sandbox = pool.acquire(PATIENCE).await.unwrap();
                served.send(number).unwrap();
                drop(sandbox);
            }
        })
        .collect();
    let mut running = Vec::new();
    for (waiting, caller) in callers.into_iter().enumerate() {
        running.push(tokio::spawn(caller));
        until(&pool, |status| status.waiting == waiting + 1).await;
    }
    // A caller that gives up loses its place in the queue, and nothing else.
    running.remove(1).abort();
    drop(first);
    for caller in running {
        caller.await.unwrap();
    }
    let order: Vec<i32> = std::iter::from_fn(|| order.try_recv().ok()).collect();
    assert_eq!(order, [0, 2, 3]);
    pool.shutdown().await;
    place.stage.assert_empty();
}

#[tokio::test]
async fn a_deadline_is_kept_and_says_why() {
    let place = Place::new().await;
    let pool = place.pool(place.config());
    let taken = pool.acquire(PATIENCE).await.unwrap();
    let error = pool.acquire(Duration::from_millis(50)).await.unwrap_err();
    assert!(
        matches!(error, Error::AcquireTimeout { source: None, .. }),
        "{error:?}"
    );
    assert_eq!(error.code(), "SANDBOX_ACQUIRE_TIMEOUT");
    assert_eq!(error.advice(), Advice::Retry);
    drop(taken);
    // A caller that gave up is not served in place of one that waits.
    pool.acquire(PATIENCE).await.unwrap();
    pool.shutdown().await;
    place.stage.assert_empty();
}

#[tokio::test]
async fn a_caller_that_goes_away_with_its_answer_on_the_way_loses_nothing_for_the_others() {
    let place = Place::new().await;
    let pool = place.pool(place.config());
    for _ in 0..3 {
        let taken = pool.acquire(PATIENCE).await.unwrap();
        {
            let mut next = Box::pin(pool.acquire(PATIENCE));
            // The future is polled once, so that it waits in the queue, and never again, although it is served.
            assert!(futures_util::poll!(&mut next).is_pending());
            until(&pool, |status| status.waiting == 1).await;
            drop(taken);
            until(&pool, |status| status.waiting == 0 && status.acquired == 1).await;
        }
        until(&pool, |status| status.idle == 1 && status.acquired == 0).await;
    }
    pool.shutdown().await;
    place.stage.assert_empty();
}

#[tokio::test]
async fn the_reason_why_no_sandbox_boots_is_the_cause_of_a_timeout() {
    let place = Place::new().await;
    for _ in 0..100 {
        place.scene.vmm.script().on("vm.restore", 1, Act::Refuse);
    }
    let pool = place.pool(place.config());
    until(&pool, |status| status.last_error.is_some()).await;
    let error = pool.acquire(Duration::from_millis(50)).await.unwrap_err();
    let Error::AcquireTimeout {
        source: Some(cause),
        ..
    } = &error
    else {
        panic!("{error:?}");
    };
    assert_eq!(cause.code(), "SANDBOX_BOOT_FAILED");
    place.scene.vmm.script().forget_plans();
    // The pool has tried again by itself.
    pool.acquire(PATIENCE).await.unwrap();
    assert!(pool.status().last_error.is_none());
    pool.shutdown().await;
    place.stage.assert_empty();
}

#[tokio::test]
async fn a_sandbox_whose_vmm_ends_while_it_waits_is_reset_before_a_caller_gets_it() {
    let place = Place::new().await;
    let pool = place.pool(place.config());
    until(&pool, |status| status.idle == 1).await;
    place.stage.serving().kill();
    until(&pool, |status| status.idle == 0).await;
    until(&pool, |status| status.idle == 1).await;
    let sandbox = pool.acquire(PATIENCE).await.unwrap();
    assert_echoed(echo(&*sandbox, "another VMM").await, "another VMM");
    drop(sandbox);
    pool.shutdown().await;
    place.stage.assert_empty();
}

#[tokio::test]
async fn spares_belong_to_the_pool() {
    let place = Place::new().await;
    let config = place.config_with_spares(1).size(2).idle(2);
    let pool = place.pool(config);
    let mut events = pool.subscribe();
    until(&pool, |status| status.idle == 2).await;
    told(&mut events, |event| {
        matches!(event, Event::SpareReady).then_some(())
    })
    .await;
    // Two VMMs that serve, and the spare that waits.
    assert_eq!(place.stage.running().len(), 3);
    let sandbox = pool.acquire(PATIENCE).await.unwrap();
    let reset = sandbox.recycle().await.unwrap();
    let used = reset.outcome().report.vmm;
    assert_eq!(used, Some(chv_sandbox::sandbox::VmmUsed::Spare));
    pool.shutdown().await;
    place.stage.assert_empty();
}

#[tokio::test]
async fn a_configuration_that_cannot_be_is_refused() {
    let place = Place::new().await;
    #[track_caller]
    fn check(place: &Place, config: PoolConfig, field: &str, words: &str) {
        let error = place.try_pool(config).unwrap_err();
        assert_eq!(error.advice(), Advice::GiveUp);
        let Error::Config(error) = error else {
            panic!("{error:?}");
        };
        let ConfigError::Invalid { field: found, .. } = &*error else {
            panic!("{error:?}");
        };
        assert_eq!(*found, field);
        assert!(error.to_string().contains(words), "{error}");
    }
    let config = || place.config();
    check(&place, config().size(0), "size", "is 0");
    check(&place, config().size(1025), "size", "is 1025");
    check(&place, config().idle(2), "idle", "more than the size of 1");
    let scaffold = place.scene.config_of(place.scene.scaffold());
    let no_pool = "scaffold mode has no pool";
    check(&place, PoolConfig::new(scaffold), "golden", no_pool);
    // The golden snapshot takes 16 MiB, each VMM 48 MiB (one of them is started ahead), and an empty VMM for each
    // sandbox 32 MiB.
    let fits = 16 + 3 * 48 + 2 * 32;
    check(
        &place,
        config().size(2).memory_limit_mib(fits - 1),
        "size",
        "the budget is 223 MiB",
    );
    // If the directory for temporary files is in memory, the overlays count too. They take less than 1 MiB together.
    place.pool(config().size(2).memory_limit_mib(fits + 1));
    let measured = MemoryPerVm::Measured { mib: 8 };
    place.pool(
        config()
            .size(2)
            .memory_per_vm(measured)
            .memory_limit_mib(16 + 3 * 8),
    );
    check(
        &place,
        config().memory_limit_mib(u64::MAX),
        "memory_limit_mib",
        "number of bytes",
    );
}
