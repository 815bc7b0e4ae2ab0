//! The ways in which a pool ends.

use chv_sandbox::sandbox::{Advice, Error, Sandbox, SandboxState};

use super::{Place, until};
use crate::sandbox::{PATIENCE, echo};

#[tokio::test]
async fn a_drain_waits_for_the_sandboxes_that_callers_have() {
    let place = Place::new().await;
    let pool = place.pool(place.config().size(2).idle(2));
    let taken = pool.acquire(PATIENCE).await.unwrap();
    let _second = pool.acquire(PATIENCE).await.unwrap();
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.acquire(PATIENCE).await.map(drop) }
    });
    until(&pool, |status| status.waiting == 1).await;
    let drained = tokio::spawn({
        let pool = pool.clone();
        async move { pool.drain().await }
    });
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::PoolClosed), "{error:?}");
    assert_eq!(error.advice(), Advice::GiveUp);
    let error = pool.acquire(PATIENCE).await.unwrap_err();
    assert!(matches!(error, Error::PoolClosed), "{error:?}");

    // The acquired sandbox goes on working.
    echo(&*taken, "goes on").await.unwrap();
    assert!(!drained.is_finished());
    let error = taken.recycle().await.unwrap_err();
    assert!(
        matches!(error, Error::PoolClosed),
        "it is not reset: {error:?}"
    );
    drop(_second);
    drained.await.unwrap();
    assert!(pool.status().closed);
    place.stage.assert_empty();
    // Both again, and the other.
    pool.drain().await;
    pool.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_ends_what_callers_have() {
    let place = Place::new().await;
    let pool = place.pool(place.config().size(3).idle(3));
    let taken = pool.acquire(PATIENCE).await.unwrap();
    pool.shutdown().await;
    place.stage.assert_empty();
    assert!(matches!(taken.state(), SandboxState::NotBooted));
    let error = echo(&*taken, "late").await.unwrap_err();
    assert!(matches!(error, Error::NotReady { .. }), "{error:?}");
    drop(taken);
    pool.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_comes_while_sandboxes_boot() {
    let place = Place::new().await;
    let pool = place.pool(place.config().size(3).idle(3));
    until(&pool, |status| status.in_progress > 0).await;
    pool.shutdown().await;
    place.stage.assert_empty();
}

#[tokio::test]
async fn the_last_handle_takes_all_with_it_but_what_callers_have() {
    let place = Place::new().await;
    let pool = place.pool(place.config().size(2).idle(2));
    until(&pool, |status| status.idle == 2).await;
    let taken = pool.acquire(PATIENCE).await.unwrap();
    drop(pool);
    echo(&*taken, "goes on").await.unwrap();
    drop(taken);
    while !place.stage.is_empty() {
        tokio::task::yield_now().await;
    }
    place.stage.assert_empty();
}

#[test]
fn a_runtime_that_goes_takes_the_pool_with_it() {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let (place, pool, taken) = {
        let runtime = runtime();
        let made = runtime.block_on(async {
            let place = Place::new().await;
            let pool = place.pool(place.config().size(2).idle(1));
            let taken = pool.acquire(PATIENCE).await.unwrap();
            (place, pool, taken)
        });
        drop(runtime);
        made
    };
    // A VMM that was being started at that moment is killed and removed by the thread that started it.
    let deadline = std::time::Instant::now() + PATIENCE;
    while !place.stage.is_empty() && std::time::Instant::now() < deadline {
        std::thread::yield_now();
    }
    place.stage.assert_empty();
    runtime().block_on(async {
        let error = pool.acquire(PATIENCE).await.unwrap_err();
        assert!(matches!(error, Error::PoolClosed), "{error:?}");
        pool.shutdown().await;
        drop(taken);
    });
}
