//! Sandboxes that diverge, and their effect on the pool.

use chv_sandbox::sandbox::{Advice, Error, Sandbox};

use super::{Place, until};
use crate::sandbox::{PATIENCE, echo};

/// From now on the guests' count of descriptors differs from the baseline, so each reset diverges.
fn forge(place: &Place) {
    place.scene.guest.set_open_files(999);
}

fn tell_the_truth(place: &Place) {
    place.scene.guest.set_open_files(12);
}

#[tokio::test]
async fn a_sandbox_that_diverged_is_not_handed_out_again() {
    let place = Place::new().await;
    let pool = place.pool(place.config());
    let sandbox = pool.acquire(PATIENCE).await.unwrap();
    let number = sandbox.number();
    forge(&place);
    let error = sandbox.recycle().await.unwrap_err();
    assert!(matches!(error, Error::ResetDivergence(_)), "{error:?}");
    tell_the_truth(&place);
    let another = pool.acquire(PATIENCE).await.unwrap();
    assert_ne!(another.number(), number);
    echo(&*another, "clean").await.unwrap();
    drop(another);
    // A verified reset came between, so the next divergence counts as the first again.
    until(&pool, |status| status.idle == 1).await;
    let sandbox = pool.acquire(PATIENCE).await.unwrap();
    forge(&place);
    sandbox.recycle().await.unwrap_err();
    tell_the_truth(&place);
    pool.acquire(PATIENCE).await.unwrap();
    assert!(!pool.status().closed);
    pool.shutdown().await;
    place.stage.assert_empty();
}

#[tokio::test]
async fn a_caller_that_resets_by_itself_and_diverges_counts_too() {
    let place = Place::new().await;
    let pool = place.pool(place.config());
    let sandbox = pool.acquire(PATIENCE).await.unwrap();
    let number = sandbox.number();
    forge(&place);
    sandbox.reset().await.unwrap_err();
    tell_the_truth(&place);
    let error = sandbox.recycle().await.unwrap_err();
    assert!(matches!(error, Error::Halted { .. }), "{error:?}");
    let another = pool.acquire(PATIENCE).await.unwrap();
    assert_ne!(another.number(), number);
    drop(another);
    pool.shutdown().await;
    place.stage.assert_empty();
}

#[tokio::test]
async fn two_in_a_row_halt_the_pool() {
    let place = Place::new().await;
    let pool = place.pool(place.config().size(3).idle(3));
    let mut sandboxes = Vec::new();
    for _ in 0..3 {
        sandboxes.push(pool.acquire(PATIENCE).await.unwrap());
    }
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.acquire(PATIENCE).await.map(drop) }
    });
    until(&pool, |status| status.waiting == 1).await;
    forge(&place);
    let left = sandboxes.pop().unwrap();
    for sandbox in sandboxes {
        let error = sandbox.recycle().await.unwrap_err();
        assert!(error.failed_reset().is_some(), "{error:?}");
    }
    for error in [
        waiting.await.unwrap().unwrap_err(),
        pool.acquire(PATIENCE).await.map(drop).unwrap_err(),
    ] {
        assert!(matches!(error, Error::PoolHalted(_)), "{error:?}");
        assert_eq!(error.code(), "SANDBOX_HALTED");
        assert_eq!(error.advice(), Advice::GiveUp);
        let failed = error.failed_reset().unwrap();
        assert!(!failed.outcome.state.verification_passed);
        assert!(failed.evidence.as_ref().unwrap().exists());
    }
    // The sandbox of a caller goes on working, and is not handed out again.
    echo(&*left, "goes on").await.unwrap();
    drop(left);
    pool.shutdown().await;
    place.stage.assert_empty();
}

#[tokio::test]
async fn two_boots_that_are_not_verified_halt_it_as_well() {
    let place = Place::new().await;
    forge(&place);
    let pool = place.pool(place.config());
    let error = pool.acquire(PATIENCE).await.unwrap_err();
    assert!(matches!(error, Error::PoolHalted(_)), "{error:?}");
    pool.shutdown().await;
    place.stage.assert_empty();
}
