//! Replacing a pool's golden snapshot while the pool serves.

use std::path::Path;
use std::sync::Arc;

use chv_sandbox::golden::{Golden, LoadOptions, LoadedGolden};
use chv_sandbox::overlay::{self, AccessPolicy, Threads};
use chv_sandbox::sandbox::{Error, FsHash, Sandbox};

use super::Place;
use crate::sandbox::{PATIENCE, echo};

/// The same golden snapshot with other bytes on its overlay. The guest's memory, and the nonce in it, stay the same.
fn another(place: &Place) -> Arc<LoadedGolden> {
    let (golden, into) = (place.scene.path("golden"), place.scene.path("another"));
    if !into.exists() {
        copy(&golden, &into);
        let disk = place.golden.golden().manifest().disks[1].clone();
        let name = place.golden.golden().disks()[1].origin.clone();
        let overlay = into.join(name.strip_prefix(&golden).unwrap());
        std::fs::write(&overlay, vec![7; disk.length as usize]).unwrap();
        let policy = AccessPolicy::ReadOnly;
        let sha256 = overlay::sha256(&overlay, policy).unwrap().digest;
        let fsverity = overlay::fsverity(&overlay, policy, Threads::default()).unwrap();
        let manifest = into.join("manifest.json");
        let text = std::fs::read_to_string(&manifest).unwrap();
        let text = text.replace(&disk.sha256.to_string(), &sha256.to_string());
        let text = text.replace(&disk.fsverity.to_string(), &fsverity.digest.to_string());
        std::fs::write(&manifest, text).unwrap();
    }
    let golden = Golden::open(&into).unwrap();
    Arc::new(golden.load(&LoadOptions::default()).unwrap())
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, copied) = (entry.path(), to.join(entry.file_name()));
        match path.is_dir() {
            true => copy(&path, &copied),
            false => drop(std::fs::copy(path, copied).unwrap()),
        }
    }
}

fn fs_hash(golden: &LoadedGolden) -> FsHash {
    FsHash::Digest(golden.golden().manifest().baselines.fs_hash)
}

#[tokio::test]
async fn new_sandboxes_are_of_the_new_one_and_old_ones_finish() {
    let place = Place::new().await;
    let pool = place.pool(place.config().size(2).idle(1));
    let old = pool.acquire(PATIENCE).await.unwrap();
    let new_golden = another(&place);
    assert_ne!(fs_hash(&new_golden), fs_hash(&place.golden));
    pool.replace_golden(Arc::clone(&new_golden)).await.unwrap();

    // The old sandbox can be used and reset as before.
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
    // The budget fits one golden snapshot of 16 MiB with its VMM, one VMM that is started ahead and one that is empty.
    // A second golden snapshot does not fit.
    let pool = place.pool(place.config().memory_limit_mib(16 + 2 * 48 + 32 + 1));
    let error = pool.replace_golden(another(&place)).await.unwrap_err();
    assert!(matches!(error, Error::Config(_)), "{error:?}");
    // The pool serves the old golden snapshot as before.
    let sandbox = pool.acquire(PATIENCE).await.unwrap();
    let reset = sandbox.recycle().await.unwrap();
    assert_eq!(reset.outcome().state.golden_hash, fs_hash(&place.golden));
    pool.shutdown().await;
    let error = pool.replace_golden(another(&place)).await.unwrap_err();
    assert!(matches!(error, Error::PoolClosed), "{error:?}");
    place.stage.assert_empty();
}
