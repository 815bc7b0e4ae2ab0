//! Long runs: thousands of resets after tools that write, leave processes and allocate memory, and a large pool on one
//! thread.
//!
//! They are run by hand, with `--ignored`; `CHV_SANDBOX_SOAK` sets the number of resets and of acquisitions.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chv_sandbox::guest::dispatcher::Toolbox;
use chv_sandbox::sandbox::{
    GoldenOrigin, MemoryPerVm, Pool, PoolConfig, Sandbox, SandboxConfig, ToolInvocation,
};
use serde_json::json;
use tokio::task::JoinSet;

use super::scale::answers_of_echo;
use super::{Place, alone};
use crate::sandbox::{PATIENCE, Scene, assert_echoed, echo, generous};

/// The number of resets and of acquisitions, unless the variable sets another.
const COUNT: usize = 10_000;

/// How much a process may grow after its first tenth of the run, in KiB.
const GROWTH: u64 = 8 << 10;

/// The size of the pool that is under load. It has as many callers.
const SANDBOXES: u32 = 256;
const CALLERS: usize = 64;

/// The longest time for which one task may keep the only thread. A task that blocks on a VMM or a disk keeps it longer.
const LONGEST_STALL: Duration = Duration::from_secs(5);

/// Writes a file, leaves a process behind, and uses memory. The process outlives the reset, but not the test: a stand-in
/// for a guest has its processes on the host, where no reset ends them.
const TOOL: &str = "head -c 100000 /dev/zero > left; sleep 20 & x=$(head -c 200000 /dev/zero | tr '\\0' x); echo done";

fn count() -> usize {
    env::var("CHV_SANDBOX_SOAK").map_or(COUNT, |count| count.parse().unwrap())
}

async fn place() -> Place {
    Place::of(Scene::minted_with(Toolbox::built_in().with_shell()).await)
}

fn tool() -> ToolInvocation {
    ToolInvocation::new("sh", json!({ "script": TOOL })).with_deadline(PATIENCE)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn thousands_of_resets() {
    alone::run(&place().await, "sandbox::pool::soak::resets").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn a_large_pool_under_load() {
    let place = place().await;
    // All guests here are one dispatcher, which runs only few tools at once.
    place.scene.guest.behave(answers_of_echo());
    alone::run(&place, "sandbox::pool::soak::under_load").await;
}

/// Each reset is verified, or the run ends. Memory, descriptors and threads stay at their values after the first tenth.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a part of thousands_of_resets"]
#[expect(clippy::print_stdout, reason = "it prints what it found")]
async fn resets() {
    let Some((golden, loaded, vmm)) = alone::given() else {
        return;
    };
    let sandbox = SandboxConfig::new(GoldenOrigin::new(&golden)).limits(generous().scaled(10));
    let pool = Pool::with_loaded(PoolConfig::new(sandbox).size(1), vmm, loaded).unwrap();
    let sandbox = pool.acquire(PATIENCE).await.unwrap();
    let tenth = count().div_ceil(10);
    println!(
        "tools and resets one after the other, by tenths of {}",
        10 * tenth
    );
    println!(
        "{:>6}{:>12}{:>12}{:>13}{:>9}",
        "tenth", "median ms", "memory KiB", "descriptors", "threads"
    );
    let mut first = None;
    for number in 1..=10 {
        let mut times = Vec::with_capacity(tenth);
        for _ in 0..tenth {
            let ran = sandbox.execute_tool(tool()).await.unwrap();
            assert_eq!(ran.stdout.text(), "done\n", "{ran:?}");
            let began = Instant::now();
            assert!(sandbox.reset().await.unwrap().is_verified());
            times.push(began.elapsed());
        }
        times.sort();
        let (memory, descriptors) = (alone::status("VmRSS:"), alone::descriptors());
        let median = times[tenth / 2].as_secs_f64() * 1e3;
        println!(
            "{number:>6}{median:>12.2}{memory:>12}{descriptors:>13}{:>9}",
            alone::status("Threads:")
        );
        let (memory_then, descriptors_then, median_then) =
            *first.get_or_insert((memory, descriptors, median));
        assert!(memory <= memory_then + GROWTH, "the memory grows");
        // A VMM that is started ahead has some descriptors, and may or may not be there.
        assert!(descriptors <= descriptors_then + 64, "the descriptors grow");
        if number == 10 {
            println!(
                "the last tenth took {:.2} of the first",
                median / median_then
            );
        }
    }
    drop(sandbox);
    pool.shutdown().await;
}

/// Every caller gets its turns, and no task keeps the only thread for long.
#[tokio::test]
#[ignore = "a part of a_large_pool_under_load"]
#[expect(clippy::print_stdout, reason = "it prints what it found")]
async fn under_load() {
    let Some((golden, loaded, vmm)) = alone::given() else {
        return;
    };
    let origin = GoldenOrigin::new(&golden).spares(0);
    let sandbox = SandboxConfig::new(origin).limits(generous().scaled(10));
    let config = PoolConfig::new(sandbox)
        .size(SANDBOXES)
        .idle(SANDBOXES)
        .memory_per_vm(MemoryPerVm::Measured { mib: 1 });
    let pool = Arc::new(Pool::with_loaded(config, vmm, loaded).unwrap());
    pool.wait_until(|status| status.idle == SANDBOXES as usize)
        .await;
    let longest = watch_this_thread();
    let rounds = count() / CALLERS;
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let pool = Arc::clone(&pool);
        callers.spawn(async move {
            let mut longest = Duration::ZERO;
            for _ in 0..rounds {
                let began = Instant::now();
                let sandbox = pool.acquire(10 * PATIENCE).await.unwrap();
                longest = longest.max(began.elapsed());
                assert_echoed(echo(&*sandbox, "loaded").await, "loaded");
            }
            longest
        });
    }
    let waits = callers.join_all().await;
    let longest_wait = waits.into_iter().max().unwrap();
    let stall = Duration::from_millis(longest.load(Ordering::Acquire));
    println!(
        "{SANDBOXES} sandboxes, {CALLERS} callers, {} acquisitions on one thread: the longest wait {:.1} s, the longest that \
         the thread was kept {stall:?}",
        rounds * CALLERS,
        longest_wait.as_secs_f64(),
    );
    assert!(stall < LONGEST_STALL);
    pool.shutdown().await;
}

/// Measures from another thread how long this runtime's only thread leaves a ready task waiting. In milliseconds.
fn watch_this_thread() -> Arc<AtomicU64> {
    let (turns, longest) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let turned = Arc::clone(&turns);
    tokio::spawn(async move {
        loop {
            turned.fetch_add(1, Ordering::Release);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let seen = Arc::clone(&longest);
    thread::spawn(move || {
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let now = turns.load(Ordering::Acquire);
            if now != last {
                (last, since) = (now, Instant::now());
            }
            seen.fetch_max(since.elapsed().as_millis() as u64, Ordering::AcqRel);
            thread::sleep(Duration::from_millis(5));
        }
    });
    longest
}
