//! A pool of four sandboxes, each with a guest: all are in use at the same time, and each is given back twice.

use std::time::Duration;

use chv_sandbox::sandbox::{Pool, PoolConfig, Strategy};
use futures_util::future::join_all;

use super::traces::Traces;
use super::{Stage, Stopwatch, patient};

const SIZE: u32 = 4;

pub(super) async fn of_four_hands_out_clean_guests(stage: &Stage) {
    let watch = Stopwatch::start();
    let sandbox = stage.config_of(stage.origin().strategy(Strategy::Fresh).spares(1));
    let pool = Pool::open(PoolConfig::new(sandbox).size(SIZE).idle(SIZE))
        .await
        .unwrap();
    pool.wait_until(|status| status.idle == SIZE as usize).await;
    watch.say(format!("{SIZE} sandboxes of a pool wait"));
    let watch = Stopwatch::start();
    for _ in 0..2 {
        let acquired = join_all((0..SIZE).map(|_| pool.acquire(limit()))).await;
        let uses = acquired.into_iter().map(|acquired| async move {
            let sandbox = acquired.unwrap();
            let clean = Traces::look(&*sandbox).await;
            clean.assert_comes_back(&*sandbox).await;
            let number = sandbox.number();
            assert!(sandbox.recycle().await.unwrap().is_verified());
            number
        });
        let mut numbers = join_all(uses).await;
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(
            numbers.len(),
            SIZE as usize,
            "each caller had one of its own"
        );
    }
    pool.shutdown().await;
    watch.say(format!(
        "{SIZE} guests at once, twice, each used, reset, verified, given back and verified again"
    ));
}

fn limit() -> Duration {
    patient(Duration::from_secs(60))
}
