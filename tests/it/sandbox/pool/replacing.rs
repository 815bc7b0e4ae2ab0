//! A pool's golden snapshot is replaced while it serves.

use std::sync::Arc;

use chv_sandbox::golden::{Golden, LoadOptions, LoadedGolden, MintConfig, mint};
use chv_sandbox::sandbox::{Error, FsHash, Sandbox};

use super::Place;
use crate::sandbox::{PATIENCE, echo};

/// Another golden snapshot, whose overlay has other bytes.
async fn another(place: &Place) -> Arc<LoadedGolden> {
    let scene = &place.scene;
    std::fs::write(scene.path("overlay.img"), vec![7; 0x8000]).unwrap();
    let into = scene.path("another");
    let config = MintConfig {
        into: into.clone(),
        ..scene.mint_config()
    };
    mint(config).await.unwrap();
    let golden = Golden::open(&into).unwrap();
    Arc::new(golden.load(&LoadOptions::default()).unwrap())
}

fn fs_hash(golden: &LoadedGolden) -> FsHash {
    FsHash::Digest(golden.golden().manifest().baselines.fs_hash)
}

#[tokio::test]
async fn new_sandboxes_are_of_the_new_one_and_old_ones_finish() {
    let place = Place::new().await;
    let pool = place.pool(place.config().size(2).idle(1));
    let old = pool.acquire(PATIENCE).await.unwrap();
    let new_golden = another(&place).await;
    assert_ne!(fs_hash(&new_golden), fs_hash(&place.golden));
    pool.replace_golden(Arc::clone(&new_golden)).await.unwrap();

    // The old one may be used, and reset, as before.
    let reset = old.reset().await.unwrap();
    assert_eq!(reset.outcome().state.golden_hash, fs_hash(&place.golden));
    let new = pool.acquire(PATIENCE).await.unwrap();
    echo(&*old, "old").await.unwrap();
    echo(&*new, "new").await.unwrap();
    let reset = new.recycle().await.unwrap();
    assert_eq!(reset.outcome().state.golden_hash, fs_hash(&new_golden));
    let discarded = old.recycle().await.unwrap_err();
    assert!(matches!(discarded, Error::PoolClosed), "{discarded:?}");

    for _ in 0..2 {
        let sandbox = pool.acquire(PATIENCE).await.unwrap();
        let reset = sandbox.recycle().await.unwrap();
        assert_eq!(reset.outcome().state.golden_hash, fs_hash(&new_golden));
    }
    pool.shutdown().await;
    place.stage.assert_empty();
}

#[tokio::test]
async fn both_have_to_fit_into_the_budget() {
    let place = Place::new().await;
    // One golden snapshot of 16 MiB with one VMM and one that is started ahead, and no more.
    let pool = place.pool(place.config().memory_limit_mib(16 + 2 * 48));
    let error = pool
        .replace_golden(another(&place).await)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Config(_)), "{error:?}");
    // It serves the old one as before.
    let sandbox = pool.acquire(PATIENCE).await.unwrap();
    let reset = sandbox.recycle().await.unwrap();
    assert_eq!(reset.outcome().state.golden_hash, fs_hash(&place.golden));
    pool.shutdown().await;
    let error = pool
        .replace_golden(another_again(&place))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::PoolClosed), "{error:?}");
    place.stage.assert_empty();
}

fn another_again(place: &Place) -> Arc<LoadedGolden> {
    let golden = Golden::open(&place.scene.path("another")).unwrap();
    Arc::new(golden.load(&LoadOptions::default()).unwrap())
}
