//! Many callers, and VMMs that die, diverge and hang: each caller is served or gets an error in time, and no caller
//! gets a sandbox that is not clean. `CHV_SANDBOX_ACQUISITIONS` says how many acquisitions (100 unless set).

use std::collections::HashSet;
use std::env;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chv_sandbox::sandbox::{Error, Sandbox, SandboxState};
use fastrand::Rng;

use super::Place;
use crate::sandbox::echo;
use crate::sandbox::script::Act;

const CALLERS: u64 = 32;

/// More time than any call takes here. A call that takes longer hangs.
const DEADLINE: Duration = Duration::from_secs(60);

const SIZE: u32 = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_caller_is_served_or_told_and_nothing_is_lost() {
    let acquisitions = env::var("CHV_SANDBOX_ACQUISITIONS");
    let acquisitions = acquisitions.map_or(100, |count| count.parse().unwrap());
    let mut place = Place::new().await;
    place.scene.hurry();
    let soon = Duration::from_millis(500);
    place.scene.limits = place.scene.limits.vmm_lifecycle(soon).vmm_transfer(soon);
    let config = place.config_with_spares(1).size(SIZE).idle(SIZE);
    let place = Arc::new(place);
    let pool = place.pool(config);
    let left = Arc::new(AtomicUsize::new(acquisitions));
    let (served, told) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let taken: Arc<Mutex<HashSet<u64>>> = Arc::default();
    let diverged = Arc::new(AtomicUsize::new(0));
    let is_over = Arc::new(AtomicBool::new(false));

    // At no moment are there more VMMs than the budget counts: those that serve, a spare, and one that is being killed.
    let watched = tokio::spawn({
        let (place, is_over) = (Arc::clone(&place), Arc::clone(&is_over));
        async move {
            let mut most = 0;
            let mut looks = tokio::time::interval(Duration::from_millis(20));
            while !is_over.load(Ordering::Acquire) {
                let stage = place.stage.clone();
                let running = tokio::task::spawn_blocking(move || stage.running().len());
                most = most.max(running.await.unwrap());
                looks.tick().await;
            }
            most
        }
    });
    let callers = (0..CALLERS).map(|seed| {
        let (pool, place, left) = (pool.clone(), Arc::clone(&place), Arc::clone(&left));
        let (served, told, taken) = (Arc::clone(&served), Arc::clone(&told), Arc::clone(&taken));
        let diverged = Arc::clone(&diverged);
        tokio::spawn(async move {
            let mut random = Rng::with_seed(seed);
            let one_less = |left: usize| left.checked_sub(1);
            while left
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less)
                .is_ok()
            {
                let began = Instant::now();
                let acquired = pool.acquire(DEADLINE).await;
                assert!(began.elapsed() < DEADLINE * 2, "a caller hangs");
                let sandbox = match acquired {
                    Ok(sandbox) => sandbox,
                    Err(Error::PoolHalted(_)) => panic!("one lie at a time doesn't halt a pool"),
                    Err(error) => {
                        assert!(!matches!(error, Error::PoolClosed));
                        told.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                };
                let count = served.fetch_add(1, Ordering::Relaxed);
                let number = sandbox.number();
                assert!(taken.lock().unwrap().insert(number), "two callers have one");
                match sandbox.state() {
                    SandboxState::Ready => {}
                    // Its VMM may have been killed for another caller since.
                    SandboxState::Failed { .. } | SandboxState::NeedsReset { .. } => {}
                    state => panic!("{state:?} was handed out"),
                }
                disturb(&place, &mut random, count, &diverged);
                // The result doesn't matter: the VMM may be gone.
                let _ = echo(&*sandbox, "work").await;
                taken.lock().unwrap().remove(&number);
                match random.bool() {
                    true => drop(sandbox),
                    false => drop(sandbox.recycle().await),
                }
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    for caller in callers {
        caller.await.unwrap();
    }
    is_over.store(true, Ordering::Release);
    let most = watched.await.unwrap();
    let (served, told) = (served.load(Ordering::Relaxed), told.load(Ordering::Relaxed));
    assert_eq!(served + told, acquisitions);
    assert!(
        served * 10 >= acquisitions * 9,
        "{told} of {acquisitions} were told"
    );
    // A VMM that was killed counts until the kernel has ended it.
    let counted = SIZE as usize + 1;
    assert!(most <= 2 * counted, "{most} VMMs at once");
    place.scene.vmm.script().forget_plans();
    pool.shutdown().await;
    place.stage.assert_empty();
}

/// Disturbs about one acquisition in four: a VMM dies, or a call to one fails, hangs or is not carried out.
fn disturb(place: &Place, random: &mut Rng, served: usize, diverged: &AtomicUsize) {
    let script = place.scene.vmm.script();
    match random.u32(0..20) {
        0 => {
            let running = place.stage.running();
            if !running.is_empty() {
                running[random.usize(0..running.len())].kill();
            }
        }
        1 => script.on("vm.resume", 1, Act::Hang),
        2 => script.on("vm.restore", 1, Act::Refuse),
        3 => script.on("vm.info", 1, Act::Close),
        // A VM stays paused, so the reset diverges. This must not happen twice in a row, which would halt the pool.
        4 if served > diverged.load(Ordering::Relaxed) + 3 * CALLERS as usize => {
            diverged.store(served, Ordering::Relaxed);
            script.on("vm.resume", 1, Act::Pretend);
        }
        _ => {}
    }
}
