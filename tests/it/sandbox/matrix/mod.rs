//! The tamperings that a reset of a live sandbox has to find, each at its moment, with each kind of VMM: one table of
//! tamperings that halt the sandbox, and one of tamperings that refuse the reset before the running VM is touched.

mod halting;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chv_sandbox::guest::stand_in::StandIn;
use chv_sandbox::sandbox::{
    CheckOutcome, CheckSource, ChvSandbox, Error, Event, Sandbox, Strategy, WireState,
};

use super::script::{Act, Opening, Script};
use super::stage::Stage;
use super::{Scene, assert_echoed, assert_halted, chain, echo, flip_a_bit, told};
use crate::golden::loaded::TAMPERINGS;

/// The kind of VMM with which a reset is made.
#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    /// A VMM of another program, whose process can't be examined.
    Attached,
    /// The sandbox's own VMM, in place.
    InPlace,
    /// Another VMM, which was started ahead.
    New,
    /// A spare, which was staged before the tampering.
    Spare,
}

const ALL: [By; 4] = [By::Attached, By::InPlace, By::New, By::Spare];

/// The moment of a tampering.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// After one reset, before the next begins.
    Between,
    /// The writable disk is put back, and no VMM has it open.
    BeforeRestore,
    /// The VMM has everything open, and has not answered the restore.
    AfterRestore,
    /// The disks are proved, and the VM is about to run.
    BeforeResume,
    /// The VM runs, and its guest was read.
    BeforeInfo,
}

use Moment::{AfterRestore, BeforeInfo, BeforeRestore, BeforeResume, Between};
use halting::HALTING;

/// The files and stand-ins that a tampering can reach.
#[derive(Clone)]
struct Place {
    directory: PathBuf,
    guest: StandIn,
    script: Arc<Script>,
    stage: Option<Stage>,
}

impl Place {
    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The disk of the VM that is reset, or of the VM that replaces it.
    fn overlay(&self) -> PathBuf {
        match &self.stage {
            Some(stage) => stage.staged().overlay().expect("it is staged"),
            None => self.file("machine/overlay.img"),
        }
    }

    /// From now on VMMs open their overlay in this way.
    fn open_overlay(&self, opening: Opening) {
        self.script.open_overlay(opening);
    }

    /// Makes the guest forget what it kept in memory, in each running VM and in any that comes.
    fn reboot_guest(&self) {
        self.guest.forget().unwrap();
        for vmm in self.stage.iter().flat_map(Stage::running) {
            vmm.player.guest().forget().unwrap();
        }
    }
}

/// A sandbox that has booted and was reset once.
async fn reset_once(by: By) -> (Scene, Place, ChvSandbox) {
    let scene = Scene::minted().await;
    let golden = scene.golden().spares(u32::from(by == By::Spare));
    let config = scene.config_of(match by {
        By::InPlace => golden.strategy(Strategy::InPlace),
        _ => golden,
    });
    let stage = (by != By::Attached).then(|| scene.stage());
    let sandbox = match &stage {
        Some(stage) => stage.sandbox(config),
        None => scene.sandbox_of(config),
    };
    let mut events = sandbox.subscribe();
    sandbox.boot().await.unwrap();
    sandbox.reset().await.unwrap();
    if by == By::Spare {
        // The VMM that serves may have been a spare that waited, too.
        let served = stage.as_ref().map(|stage| stage.serving().pid);
        let waits = || {
            stage
                .as_ref()
                .is_some_and(|it| Some(it.staged().pid) != served)
        };
        while !waits() {
            let ready = |event: &Event| matches!(event, Event::SpareReady).then_some(());
            told(&mut events, ready).await;
        }
    }
    scene.vmm.take_asked();
    let place = Place {
        directory: scene.directory.path().to_owned(),
        guest: scene.guest.clone(),
        script: Arc::clone(scene.vmm.script()),
        stage,
    };
    (scene, place, sandbox)
}

fn at(moment: Moment, by: By, scene: &Scene, place: &Place, tamper: fn(&Place)) {
    let place = place.clone();
    let tamper = move || tamper(&place);
    match moment {
        Between => tamper(),
        BeforeRestore => scene.vmm.before("vm.restore", tamper),
        AfterRestore => scene.vmm.on("vm.restore", 1, Act::Then(Box::new(tamper))),
        BeforeResume => scene.vmm.before("vm.resume", tamper),
        // A spare is also asked for its state before it is resumed.
        BeforeInfo => {
            let nth = 1 + usize::from(by == By::Spare);
            scene.vmm.on("vm.info", nth, Act::First(Box::new(tamper)));
        }
    }
}

#[tokio::test]
async fn each_disagreement_halts() {
    for &(moment, what, by, tamper, sources) in HALTING {
        for &by in by {
            let (scene, place, sandbox) = reset_once(by).await;
            at(moment, by, &scene, &place, tamper);
            let what = format!("{what}, {moment:?}, {by:?}");
            let error = sandbox.reset().await.expect_err(&what);
            assert_eq!(error.code(), "SANDBOX_RESET_DIVERGENCE", "{what}: {error}");
            let failed = error.failed_reset().unwrap();
            let checks = failed.outcome.report.checks.iter();
            let disagree = checks.filter(|check| check.outcome == CheckOutcome::Disagreed);
            let disagree: Vec<_> = disagree.map(|check| check.source).collect();
            let told =
                |source: &&CheckSource| by != By::Attached || **source != CheckSource::DiskIdentity;
            let expected: Vec<_> = sources.iter().filter(told).copied().collect();
            assert_eq!(disagree, expected, "{what}: {error}");
            assert!(failed.evidence.is_some(), "{what}");
            assert_halted(&sandbox).await;
            if let Some(stage) = &place.stage {
                stage.assert_empty();
            }
        }
    }
}

#[tokio::test]
async fn a_vm_left_paused_halts() {
    for by in ALL {
        let (scene, _, sandbox) = reset_once(by).await;
        scene.vmm.on("vm.resume", 1, Act::Pretend);
        let error = sandbox.reset().await.unwrap_err();
        assert_eq!(
            error.code(),
            "SANDBOX_RESET_DIVERGENCE",
            "{by:?}: {error:?}"
        );
        assert_halted(&sandbox).await;
    }
}

/// A file whose tampering refuses a reset, the kinds of VMM with which that can happen, and the field that the refusal
/// names. A VMM of the sandbox's own has its memory from a file that nothing can change.
const REFUSING: [(&str, &[By], &str); 2] = [
    (
        "golden/snapshot/memory-ranges",
        &[By::Attached],
        "snapshot.memory_ranges",
    ),
    ("golden/manifest.json", &ALL, "manifest.json"),
];

/// Checks that the error names the field that has changed, and says what to do about it.
#[track_caller]
fn assert_refused(error: &Error, field: &str, what: &str) {
    assert_eq!(error.code(), "SANDBOX_RESET_FAILED", "{what}: {error}");
    assert!(matches!(error, Error::ResetRefused(_)), "{what}: {error:?}");
    let text = chain(error);
    assert!(text.contains(field), "{what}: {text}");
    assert!(text.contains("put it back") || text.contains("put the file back"));
}

#[tokio::test]
async fn a_changed_memory_file_or_manifest_refuses_before_the_live_vm_is_touched() {
    for (name, by, field) in REFUSING {
        for &by in by {
            for (tampering, tamper, fact) in TAMPERINGS {
                check_refused(by, name, tamper, field, fact, tampering).await;
            }
        }
    }
}

async fn check_refused(
    by: By,
    name: &str,
    tamper: fn(&Path),
    field: &str,
    fact: &str,
    tampering: &str,
) {
    let what = format!("{name}: {tampering}, {by:?}");
    let (scene, place, sandbox) = reset_once(by).await;
    let path = place.file(name);
    let original = fs::read(&path).unwrap();
    let live = place.stage.as_ref().map(Stage::serving);
    tamper(&path);
    let error = sandbox.reset().await.expect_err(&what);
    let field = match field {
        "manifest.json" => field.to_owned(),
        field => format!("{field}.{fact}"),
    };
    assert_refused(&error, &field, &what);

    let asked = scene.vmm.take_asked();
    // The sandbox may be making a spare.
    let touches = |asked: &String| by != By::Spare && asked.starts_with("vm.");
    assert!(!asked.iter().any(touches), "{what}: {asked:?}");
    let state = match live {
        Some(vmm) => vmm.player.state(),
        None => scene.vmm.state(),
    };
    assert_eq!(state, Some("Running"), "{what}");
    assert_eq!(sandbox.state().wire(), WireState::Failed, "{what}");
    echo(&sandbox, "refused").await.unwrap_err();

    fs::write(&path, original).unwrap();
    let reset = sandbox.reset().await.expect(&what);
    assert!(reset.is_verified(), "{what}");
    assert_echoed(echo(&sandbox, "again").await, "again");
    sandbox.shutdown().await;
}

/// The snapshot's own files, which are not needed any more once they were loaded.
const HARMLESS: [&str; 3] = [
    "golden/snapshot/config.json",
    "golden/snapshot/state.json",
    "golden/snapshot/memory-ranges",
];

#[tokio::test]
async fn later_changes_of_the_snapshots_own_files_change_nothing() {
    for (name, moment) in [
        (HARMLESS[0], Between),
        (HARMLESS[1], Between),
        (HARMLESS[2], Between),
        (HARMLESS[2], BeforeRestore),
        (HARMLESS[2], AfterRestore),
    ] {
        for by in [By::InPlace, By::New] {
            let (scene, place, sandbox) = reset_once(by).await;
            let what = format!("{name}, {moment:?}, {by:?}");
            match (name, moment) {
                (_, Between) => flip_a_bit(&place.file(name)),
                _ => at(moment, by, &scene, &place, |it| {
                    flip_a_bit(&it.file(HARMLESS[2]))
                }),
            }
            let reset = sandbox.reset().await.expect(&what);
            assert!(reset.is_verified(), "{what}");
            let checks = &reset.outcome().report.checks;
            let memory = checks
                .iter()
                .find(|check| check.source == CheckSource::GuestMemory);
            assert_eq!(memory.unwrap().outcome, CheckOutcome::Agreed, "{what}");
            assert_echoed(echo(&sandbox, "again").await, "again");
            sandbox.shutdown().await;
        }
    }
}
