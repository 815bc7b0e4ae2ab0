//! Attacks by a VMM, or by a guest that has taken it over: it tries to keep state that a reset is to revert, to pass
//! for another VMM, or to delay the reset. No reset is verified falsely, and each ends within its limit.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use chv_sandbox::sandbox::{
    CheckOutcome, CheckSource, Error, Event, Reset, Sandbox, SandboxState, Strategy, VmmUsed,
};
use memmap2::MmapMut;
use tokio::time::timeout;

use super::script::Act;
use super::spares::Cast;
use super::vmm::lock;
use super::{PATIENCE, Scene, assert_echoed, assert_halted, chain, echo, flip_a_bit, told};

/// The kind of VMM that serves after a reset which finds this number of spares.
fn used_with(spares: u32) -> VmmUsed {
    match spares {
        0 => VmmUsed::New,
        _ => VmmUsed::Spare,
    }
}

async fn reset(cast: &Cast) -> Result<Reset, Error> {
    let reset = timeout(PATIENCE, cast.sandbox.reset());
    reset.await.expect("the reset ends in time")
}

/// Checks that the reset failed with a divergence of the disks and kept evidence.
async fn assert_disks_diverged(cast: Cast, result: Result<Reset, Error>, what: &str) {
    let error = result.expect_err(what);
    assert_eq!(
        error.code(),
        "SANDBOX_RESET_DIVERGENCE",
        "{what}: {}",
        chain(&error)
    );
    let failed = error.failed_reset().unwrap();
    let checks = failed.outcome.report.checks.iter();
    let disagree = checks.filter(|check| check.outcome == CheckOutcome::Disagreed);
    let disagree: Vec<_> = disagree.map(|check| check.source).collect();
    assert_eq!(disagree, [CheckSource::FsHash], "{what}");
    let evidence = failed.evidence.as_ref().expect("the evidence is kept");
    assert!(evidence.join("reset.json").exists(), "{what}");
    assert_halted(&cast.sandbox).await;
    cast.stage.assert_empty();
}

#[tokio::test]
async fn a_vmm_that_served_is_asked_nothing_and_keeps_nothing() {
    for spares in [0, 1] {
        let cast = Cast::with_spares(spares).await;
        let served = cast.stage.serving();
        served.player.pretend();
        let before = served.player.asked();
        assert!(reset(&cast).await.unwrap().is_verified());
        assert_eq!(served.player.asked(), before, "{spares} spares");
        assert!(!served.runs(), "{spares} spares");
        let serves = cast.stage.serving();
        assert_ne!(serves.pid, served.pid);
        assert_eq!(serves.player.restored(), 1);
        assert_echoed(echo(&cast.sandbox, "after").await, "after");
        cast.leaves_nothing().await;
    }
}

/// As the documentation of [`Strategy::InPlace`] says, a guest that has taken over its VMM can answer every question of
/// a reset as it likes and keep its memory, and no check can find that.
#[tokio::test]
async fn in_place_no_check_finds_a_vmm_that_only_says_that_it_restored_something() {
    let scene = Scene::minted().await;
    let stage = scene.stage();
    let sandbox = stage.sandbox(scene.config_of(scene.golden().strategy(Strategy::InPlace)));
    sandbox.boot().await.unwrap();
    let served = stage.serving();
    served.player.pretend();
    for _ in 0..3 {
        let reset = sandbox.reset().await.unwrap();
        let report = &reset.outcome().report;
        assert!(reset.is_verified());
        assert_eq!(report.vmm, Some(VmmUsed::Reused));
        let disagree = |outcome| matches!(outcome, CheckOutcome::Disagreed | CheckOutcome::Silent);
        assert!(!report.checks.iter().any(|check| disagree(check.outcome)));
        assert_eq!(served.player.restored(), 1, "the same guest still runs");
    }
    sandbox.shutdown().await;
    stage.assert_empty();
}

/// Gives the scene's sandboxes a limit of an hour for each step of an orderly shutdown.
fn wait_for_an_hour(scene: &mut Scene) {
    let hour = Duration::from_secs(3600);
    scene.limits = scene.limits.vmm_shutdown(hour).vmm_terminate(hour);
}

#[tokio::test]
async fn a_vmm_that_ignores_a_shutdown_and_sigterm_delays_no_reset() {
    for spares in [0, 1] {
        let mut scene = Scene::minted().await;
        wait_for_an_hour(&mut scene);
        let stage = scene.stage();
        let mut config = stage.config();
        config.env.push(("FAKE_VMM".into(), "ignore-term".into()));
        let mut cast = Cast::booted_as(scene, stage, config, spares).await;
        for _ in 0..spares {
            cast.spare_is_ready().await;
        }
        let served = cast.stage.serving();
        for _ in 0..20 {
            cast.scene.vmm.on("vmm.shutdown", 1, Act::Hang);
        }
        let reset = reset(&cast).await.unwrap();
        assert_eq!(reset.outcome().report.vmm, Some(used_with(spares)));
        assert!(!served.runs());
        let asked = cast.scene.vmm.take_asked();
        assert!(!asked.contains(&"vmm.shutdown".to_owned()), "{asked:?}");
        cast.leaves_nothing().await;
    }
}

#[tokio::test]
async fn a_vmm_that_has_stopped_itself_delays_no_reset() {
    for spares in [0, 1] {
        let mut scene = Scene::minted().await;
        wait_for_an_hour(&mut scene);
        let mut cast = Cast::booted_in(scene, spares).await;
        for _ in 0..spares {
            cast.spare_is_ready().await;
        }
        let served = cast.stage.serving();
        served.stop();
        let reset = reset(&cast).await.unwrap();
        assert_eq!(reset.outcome().report.vmm, Some(used_with(spares)));
        assert!(!served.runs());
        // A stopped VMM does not delay a shutdown either.
        cast.stage.serving().stop();
        cast.leaves_nothing().await;
    }
}

/// The same for the VMM that is to serve next: the reset waits for it no longer than for any call.
#[tokio::test]
async fn a_spare_that_has_stopped_itself_is_refused_in_time() {
    let mut scene = Scene::minted().await;
    scene.limits.vmm_lifecycle = Duration::from_millis(500);
    wait_for_an_hour(&mut scene);
    let mut cast = Cast::booted_in(scene, 1).await;
    cast.spare_is_ready().await;
    let spare = cast.stage.last();
    spare.stop();
    assert_eq!(
        reset(&cast).await.unwrap().outcome().report.vmm,
        Some(VmmUsed::New)
    );
    let refused = told(&mut cast.events, |event| match event {
        Event::SpareRefused(error) => Some(chain(error)),
        _ => None,
    });
    let refused = refused.await;
    assert!(refused.contains("vm.info"), "{refused}");
    assert!(!spare.runs());
    cast.leaves_nothing().await;
}

fn map(path: &Path) -> MmapMut {
    let file = OpenOptions::new().read(true).write(true).open(path);
    // SAFETY: nothing refers to the bytes; they are read and written one by one.
    let mut map = unsafe { MmapMut::map_mut(&file.unwrap()) }.unwrap();
    // The page is dirty from now on, so a later write through the mapping changes no timestamp.
    map[0x100] = map[0x100].wrapping_add(0);
    map
}

#[tokio::test]
async fn a_spare_whose_disk_was_mapped_before_it_waited_is_found_out() {
    let scene = Scene::minted().await;
    let stage = scene.stage();
    let mapped = Arc::<Mutex<Option<MmapMut>>>::default();
    let first = {
        let (stage, mapped) = (stage.clone(), Arc::clone(&mapped));
        move || *lock(&mapped) = Some(map(&stage.last().overlay().unwrap()))
    };
    scene.vmm.before("vm.pause", first);
    let config = stage.config();
    let mut cast = Cast::booted_as(scene, stage, config, 1).await;
    cast.spare_is_ready().await;
    let mut map = lock(&mapped).take().expect("it was mapped");
    map[0x100] ^= 1;
    let result = reset(&cast).await;
    assert_disks_diverged(cast, result, "a write through a map").await;
}

/// Runs `write`, and restores the file's timestamps.
fn with_times_put_back(path: &Path, write: impl FnOnce(&Path)) {
    let modified: SystemTime = fs::metadata(path).unwrap().modified().unwrap();
    write(path);
    let file = File::options().write(true).open(path).unwrap();
    file.set_modified(modified).unwrap();
    assert_eq!(file.metadata().unwrap().modified().unwrap(), modified);
}

#[tokio::test]
async fn a_spare_whose_disk_has_its_timestamp_put_back_is_found_out() {
    const CHANGES: [fn(&Path); 2] = [flip_a_bit, super::tamper::punch_a_hole];
    for change in CHANGES {
        let (cast, spare) = Cast::waiting().await;
        with_times_put_back(&spare.overlay().unwrap(), change);
        let result = reset(&cast).await;
        assert_disks_diverged(cast, result, "a write").await;
    }
}

/// A thread that changes a file without pause until this is dropped. The file never has its original content.
struct Restless {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Restless {
    /// Starts the thread, which makes `changes` in turn. Each gets the file, its original length, and the byte that was
    /// in its middle.
    fn begin(path: &Path, changes: &'static [fn(&File, u64, u8)]) -> Restless {
        let file = OpenOptions::new().read(true).write(true).open(path);
        let file = file.unwrap();
        let length = file.metadata().unwrap().len();
        let mut byte = [0];
        file.read_exact_at(&mut byte, length / 2).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        changes[0](&file, length, byte[0]);
        let thread = thread::spawn(move || {
            for change in changes.iter().cycle() {
                if over.load(Ordering::Acquire) {
                    break;
                }
                change(&file, length, byte[0]);
            }
        });
        Restless {
            is_over,
            thread: Some(thread),
        }
    }
}

impl Drop for Restless {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        let thread = self.thread.take().expect("it is joined once");
        thread.join().unwrap();
    }
}

type Changes = &'static [fn(&File, u64, u8)];

const RESTLESS: [(&str, Changes); 3] = [
    (
        "bytes",
        &[
            |file, length, byte| file.write_all_at(&[byte ^ 1], length / 2).unwrap(),
            |file, length, byte| file.write_all_at(&[byte ^ 2], length / 2).unwrap(),
        ],
    ),
    (
        "lengths",
        &[
            |file, length, _| file.set_len(length + 1).unwrap(),
            |file, length, _| file.set_len(length / 3).unwrap(),
            |file, _, _| file.set_len(1 << 43).unwrap(),
            |file, _, _| file.set_len(0).unwrap(),
        ],
    ),
    (
        // The length is right most of the time, and the byte in the middle never is.
        "bytes and lengths",
        &[
            |file, length, byte| file.write_all_at(&[byte ^ 1], length / 2).unwrap(),
            |file, length, byte| {
                file.set_len(length / 2).unwrap();
                file.write_all_at(&[byte ^ 2], length / 2).unwrap();
                file.set_len(length).unwrap();
            },
        ],
    ),
];

/// Under a VMM that the reset stages, the changes begin once the VMM has its files open; under a spare, they begin
/// while it waits.
#[tokio::test]
async fn a_disk_that_keeps_changing_diverges_in_time() {
    for (what, changes) in RESTLESS {
        for spares in [0, 1] {
            let cast = Cast::with_spares(spares).await;
            let restless = Arc::<Mutex<Option<Restless>>>::default();
            let begin = {
                let (stage, restless) = (cast.stage.clone(), Arc::clone(&restless));
                move || {
                    let overlay: PathBuf = stage.staged().overlay().unwrap();
                    *lock(&restless) = Some(Restless::begin(&overlay, changes));
                }
            };
            match spares {
                0 => cast
                    .scene
                    .vmm
                    .on("vm.restore", 1, Act::Then(Box::new(begin))),
                _ => begin(),
            }
            let result = reset(&cast).await;
            drop(lock(&restless).take().expect("it has begun"));
            let what = format!("{what}, {spares} spares");
            assert_disks_diverged(cast, result, &what).await;
        }
    }
}

/// An outage in which no other VMM can be had: its name, how it begins, how it ends, and a part of the error.
type Outage = (
    &'static str,
    fn(&Cast, &Path),
    fn(&Cast, &Path),
    &'static str,
);

/// The time limit of a start. The outage without an answer lasts as long. A busy machine may need more than two seconds
/// for a start that succeeds.
const START: Duration = Duration::from_secs(8);

const OUTAGES: [Outage; 3] = [
    (
        "its executable is gone",
        |_, vmm| fs::rename(vmm, vmm.with_extension("gone")).unwrap(),
        |_, vmm| fs::rename(vmm.with_extension("gone"), vmm).unwrap(),
        "status 127",
    ),
    (
        "it answers with an error",
        |cast, _| always(cast, || Act::Refuse),
        |cast, _| cast.scene.vmm.script().forget_plans(),
        "vmm.ping",
    ),
    (
        "it doesn't answer",
        |cast, _| always(cast, || Act::Hang),
        |cast, _| cast.scene.vmm.script().forget_plans(),
        "within 8s",
    ),
];

/// Makes every later `vmm.ping` meet `act`.
fn always(cast: &Cast, act: fn() -> Act) {
    for _ in 0..100 {
        cast.scene.vmm.on("vmm.ping", 1, act());
    }
}

#[tokio::test]
async fn where_no_other_vmm_can_be_had_the_one_that_served_is_dead_and_the_cause_is_told() {
    for (what, begin, end, cause) in OUTAGES {
        for spares in [0, 1] {
            let mut scene = Scene::minted().await;
            scene.limits.vmm_start = START;
            let stage = scene.stage();
            let vmm = scene.path("vmm");
            let executable = std::env::current_exe().unwrap();
            symlink(&executable, &vmm).unwrap();
            let mut config = stage.config_of(&vmm);
            config.programs.push(executable);
            let mut cast = Cast::booted_as(scene, stage, config, spares).await;
            let served = cast.stage.serving();
            // The VMM that waits, or was started ahead, is lost, and no other can be started.
            let waits = match spares {
                0 => {
                    super::hanging::until(|| cast.stage.count() == 2).await;
                    cast.stage.last()
                }
                _ => {
                    cast.spare_is_ready().await;
                    cast.stage.last()
                }
            };
            begin(&cast, &vmm);
            waits.kill();
            told(&mut cast.events, |event| {
                matches!(event, Event::SpareEnded(_) | Event::SpareFailed(_)).then_some(())
            })
            .await;
            let error = reset(&cast).await.unwrap_err();
            let what = format!("{what}, {spares} spares");
            assert_eq!(error.code(), "SANDBOX_RESET_FAILED", "{what}");
            assert!(chain(&error).contains(cause), "{what}: {}", chain(&error));
            match cast.sandbox.state() {
                SandboxState::Failed { error: why } => assert_eq!(chain(&why), chain(&error)),
                state => panic!("{what}: {state:?}"),
            }
            assert!(!served.runs(), "{what}");
            end(&cast, &vmm);
            cast.reset_by(VmmUsed::New).await;
            cast.leaves_nothing().await;
        }
    }
}
