//! A guest's memory: it is mapped from a file that nothing can change, or copied with a reason that the report gives;
//! and VMMs that map it differently.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use chv_sandbox::golden::{CopyReason, LoadOptions, LoadedMemory, MemoryBasis, MemoryLimit, mint};
use chv_sandbox::sandbox::{
    CheckOutcome, CheckSource, ChvSandbox, ConfigError, Error, Event, GoldenOrigin, MemoryMode,
    ResetReport, Sandbox, Strategy, VmmUsed,
};
use serde_json::{Value, json};

use super::memory_of_vmm::Mapping;
use super::{PATIENCE, Scene, assert_echoed, assert_halted, chain, echo, told};
use crate::golden::loaded::{load, open};
use crate::golden::manifest::{edit, keys};

fn outcome(report: &ResetReport) -> CheckOutcome {
    let checks = &report.checks;
    let memory = checks
        .iter()
        .find(|check| check.source == CheckSource::GuestMemory);
    memory.expect("it is checked").outcome
}

/// Resets a sandbox with VMMs of its own twice, and returns the report of the second reset.
async fn reset_with(scene: &Scene, golden: GoldenOrigin) -> (ChvSandbox, ResetReport) {
    let sandbox = scene.stage().sandbox(scene.config_of(golden));
    sandbox.boot().await.unwrap();
    sandbox.reset().await.unwrap();
    let reset = sandbox.reset().await.unwrap();
    assert!(reset.is_verified());
    assert_echoed(echo(&sandbox, "again").await, "again");
    let report = reset.outcome().report.clone();
    (sandbox, report)
}

fn memory(report: &ResetReport) -> &LoadedMemory {
    report.memory.as_ref().expect("a snapshot was restored")
}

#[tokio::test]
async fn memory_is_mapped_unless_told_otherwise() {
    let scene = Scene::minted().await;
    let (sandbox, report) = reset_with(&scene, scene.golden()).await;
    assert_eq!(outcome(&report), CheckOutcome::Agreed);
    let memory = memory(&report);
    assert_eq!(
        (memory.mode, memory.basis, memory.bytes),
        (MemoryMode::Mapped, MemoryBasis::Sealed, 16 << 20)
    );
    let json = serde_json::to_value(memory).unwrap();
    assert_eq!(
        (&json["mode"], &json["basis"], &json["copied_because"]),
        (&json!("mapped"), &json!("sealed"), &json!(null))
    );
    sandbox.shutdown().await;
}

#[tokio::test]
async fn memory_is_copied_from_the_same_file_on_request() {
    let scene = Scene::minted().await;
    let (sandbox, report) = reset_with(&scene, scene.golden().memory(MemoryMode::Copied)).await;
    assert_eq!(outcome(&report), CheckOutcome::VouchedFor);
    let memory = memory(&report);
    assert_eq!(
        (memory.mode, memory.basis),
        (MemoryMode::Copied, MemoryBasis::Sealed)
    );
    assert_eq!(memory.copied_because, Some(CopyReason::Configured));
    sandbox.shutdown().await;
}

/// A sandbox whose golden memory doesn't fit into the host's, so that the file is held under a lease. `None` where the
/// filesystem has no leases.
#[expect(clippy::print_stdout, reason = "it says that a test was skipped")]
async fn short_of_memory(scene: &Scene) -> Option<(ChvSandbox, ResetReport)> {
    let golden = scene.golden().memory_limit_mib(15);
    let sandbox = scene.stage().sandbox(scene.config_of(golden));
    match sandbox.boot().await {
        Ok(()) => {}
        Err(error) if chain(&error).contains("no lease") => {
            println!("skipped: no leases on the temporary directory");
            return None;
        }
        Err(error) => panic!("{}", chain(&error)),
    }
    let reset = sandbox.reset().await.unwrap();
    Some((sandbox, reset.outcome().report.clone()))
}

#[tokio::test]
async fn short_of_memory_the_memory_is_copied_under_a_lease() {
    let scene = Scene::minted().await;
    let Some((sandbox, report)) = short_of_memory(&scene).await else {
        return;
    };
    assert_eq!(outcome(&report), CheckOutcome::VouchedFor);
    let found = memory(&report);
    assert_eq!(
        (found.mode, found.basis),
        (MemoryMode::Copied, MemoryBasis::Leased)
    );
    let Some(CopyReason::ShortOfMemory(shortage)) = &found.copied_because else {
        panic!("{found:?}");
    };
    assert_eq!(shortage.limit, MemoryLimit::Configured);
    // A spare would hold the whole of its memory.
    assert_eq!(report.vmm, Some(VmmUsed::New));
    assert_eq!((shortage.needed, shortage.available), (16 << 20, 15 << 20));

    // Another file under the same name is not the file that is held.
    let memory = scene.path("golden/snapshot/memory-ranges");
    fs::rename(&memory, memory.with_extension("held")).unwrap();
    fs::write(&memory, "another").unwrap();
    assert!(sandbox.reset().await.unwrap().is_verified());

    // A file that was opened for writing and left unchanged is digested again.
    let held = memory.with_extension("held");
    let open = |path: &Path| OpenOptions::new().append(true).open(path).unwrap();
    drop(open(&held));
    assert!(sandbox.reset().await.unwrap().is_verified());
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_spare_keeps_its_copy_though_a_process_opens_the_file_while_it_waits() {
    let scene = Scene::minted().await;
    let Some((sandbox, _)) = short_of_memory(&scene).await else {
        return;
    };
    sandbox.shutdown().await;
    fs::remove_file(scene.path("stage.sock")).unwrap();
    let golden = scene.golden().memory_limit_mib(15).spares(1);
    let sandbox = scene.stage().sandbox(scene.config_of(golden));
    let mut events = sandbox.subscribe();
    sandbox.boot().await.unwrap();
    let ready = |event: &Event| matches!(event, Event::SpareReady).then_some(());
    told(&mut events, ready).await;
    let path = scene.path("golden/snapshot/memory-ranges");
    drop(OpenOptions::new().append(true).open(path).unwrap());
    let reset = sandbox.reset().await.unwrap();
    let report = &reset.outcome().report;
    assert_eq!(report.vmm, Some(VmmUsed::Spare));
    assert_eq!(outcome(report), CheckOutcome::VouchedFor);
    sandbox.shutdown().await;
}

/// Checks that a reset is verified once no process has the memory open for writing: a process that another test has
/// just forked has it open until it executes its program.
async fn assert_verified_without_writers(sandbox: &ChvSandbox) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match sandbox.reset().await {
            Err(error) if chain(&error).contains("no lease") && Instant::now() < deadline => {}
            reset => return assert!(reset.unwrap().is_verified()),
        }
    }
}

#[tokio::test]
async fn without_a_lease_a_copy_is_refused_before_the_live_vm_is_touched() {
    let scene = Scene::minted().await;
    let Some((sandbox, _)) = short_of_memory(&scene).await else {
        return;
    };
    let path = scene.path("golden/snapshot/memory-ranges");
    let writer = OpenOptions::new().append(true).open(&path).unwrap();
    scene.vmm.take_asked();
    let error = sandbox.reset().await.unwrap_err();
    assert!(chain(&error).contains("no lease"), "{}", chain(&error));
    let asked = scene.vmm.take_asked();
    assert!(!asked.contains(&"vm.delete".to_owned()), "{asked:?}");
    drop(writer);
    assert_verified_without_writers(&sandbox).await;

    super::flip_a_bit(&path);
    let error = sandbox.reset().await.unwrap_err();
    assert!(
        chain(&error).contains("no longer have the same digest"),
        "{}",
        chain(&error)
    );
    super::flip_a_bit(&path);
    assert_verified_without_writers(&sandbox).await;

    // Another process opens the file for writing between the lease and the VMM's answer.
    let opened = path.clone();
    let open = move || {
        let writer = OpenOptions::new().append(true).open(&opened).unwrap();
        drop(writer);
    };
    scene.vmm.take_asked();
    scene.vmm.before("vm.restore", open);
    let error = sandbox.reset().await.unwrap_err();
    assert!(
        chain(&error).contains("was opened for writing while a VM was restored"),
        "{}",
        chain(&error)
    );
    assert!(!scene.vmm.take_asked().contains(&"vm.resume".to_owned()));
    assert_verified_without_writers(&sandbox).await;
    sandbox.shutdown().await;
}

#[tokio::test]
async fn on_a_release_where_it_was_not_tried_it_is_copied() {
    let scene = Scene::new();
    scene.vmm.set_version("50.2.0");
    scene.mint().await.unwrap();
    let (sandbox, report) = reset_with(&scene, scene.golden()).await;
    let found = memory(&report);
    assert_eq!(found.mode, MemoryMode::Copied);
    assert_eq!(
        found.copied_because,
        Some(CopyReason::Release("v50.2".to_owned()))
    );
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_vmm_that_maps_otherwise_diverges() {
    for mapping in [
        Mapping::Nothing,
        Mapping::LowerTwice,
        Mapping::OnceMore,
        Mapping::Shared,
        Mapping::AnotherFile,
    ] {
        for strategy in [Strategy::InPlace, Strategy::Fresh] {
            let scene = Scene::minted().await;
            let stage = scene.stage();
            let sandbox =
                stage.sandbox(scene.config_of(scene.golden().strategy(strategy).spares(0)));
            sandbox.boot().await.unwrap();
            scene.vmm.set_mapping(mapping);
            let what = format!("{mapping:?}, {strategy:?}");
            let error = sandbox.reset().await.expect_err(&what);
            assert_eq!(error.code(), "SANDBOX_RESET_DIVERGENCE", "{what}");
            let failed = error.failed_reset().unwrap();
            assert_eq!(
                outcome(&failed.outcome.report),
                CheckOutcome::Disagreed,
                "{what}"
            );
            assert!(failed.evidence.is_some(), "{what}");
            assert_halted(&sandbox).await;
            stage.assert_empty();
        }
    }
}

#[tokio::test]
#[expect(clippy::print_stdout, reason = "it says that it was skipped")]
async fn one_golden_snapshot_serves_several_sandboxes_and_is_sealed_once() {
    let scene = Scene::minted().await;
    let loaded = Arc::new(load(&open(&scene)).unwrap());
    let stage = scene.stage();
    // From here on the memory is only reachable through the one descriptor.
    fs::remove_file(scene.path("golden/snapshot/memory-ranges")).unwrap();
    let sandboxes = [(); 2].map(|()| {
        let mut config = scene.config();
        let vmm = stage.config();
        config.vmm = vmm.binary;
        config.run_root = Some(vmm.run_root);
        config.vmm_programs = vmm.programs;
        config.confinement = vmm.confinement;
        let text = |it: &std::ffi::OsString| it.to_str().unwrap().to_owned();
        let env = vmm.env.iter();
        config.vmm_env.0 = env.map(|(name, value)| (text(name), text(value))).collect();
        ChvSandbox::with_loaded(config, Arc::clone(&loaded)).unwrap()
    });
    for sandbox in &sandboxes {
        match sandbox.boot().await {
            Err(Error::NotAvailable(why)) => {
                println!("skipped: this host runs no sandbox of its own: {why}");
                return;
            }
            booted => booted.unwrap(),
        }
        let reset = sandbox.reset().await.unwrap();
        assert_eq!(outcome(&reset.outcome().report), CheckOutcome::Agreed);
    }
    for sandbox in &sandboxes {
        sandbox.shutdown().await;
    }
    stage.assert_empty();
}

#[tokio::test]
async fn a_golden_snapshot_loaded_for_another_programs_vmm_is_refused() {
    let scene = Scene::minted().await;
    let mut options = LoadOptions::default();
    options.attached_vmm = true;
    let loaded = Arc::new(open(&scene).load(&options).unwrap());
    let error = ChvSandbox::with_loaded(scene.config(), loaded).unwrap_err();
    assert!(
        matches!(
            error,
            ConfigError::Invalid {
                field: "golden",
                ..
            }
        ),
        "{error}"
    );
}

/// Changes a file of the snapshot, and adjusts the manifest to it.
fn rewrite(scene: &Scene, name: &str, field: &str, change: impl FnOnce(&mut Value)) {
    let path = scene.path(&format!("golden/snapshot/{name}"));
    let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    let bytes = value.to_string().into_bytes();
    fs::write(&path, &bytes).unwrap();
    let digest = chv_sandbox::overlay::VerityDigest::of(&bytes);
    edit(&scene.path("golden"), |manifest| {
        manifest["snapshot"][field]["length"] = json!(bytes.len());
        manifest["snapshot"][field]["fsverity"] = json!(digest);
    });
}

#[tokio::test]
async fn a_config_that_names_a_canary_is_refused_before_a_vmm_starts_signed_or_not() {
    for signed in [false, true] {
        let scene = Scene::new();
        let (key, public) = keys(&scene, 7);
        mint(scene.mint_config()).await.unwrap();
        let canary = scene.path("canary");
        fs::write(&canary, "canary").unwrap();
        rewrite(&scene, "config.json", "config", |config| {
            config["debug_console"] = json!({ "mode": "File", "file": canary, "iobase": 233 });
        });
        let mut golden = scene.golden();
        if signed {
            let manifest = fs::read(scene.path("golden/manifest.json")).unwrap();
            let signature = key.sign(&manifest);
            fs::write(scene.path("golden/manifest.sig"), signature.as_bytes()).unwrap();
            fs::write(scene.path("public"), public.as_bytes()).unwrap();
            golden.public_key = Some(scene.path("public"));
        }
        scene.vmm.take_asked();
        for memory in [MemoryMode::Mapped, MemoryMode::Copied] {
            let stage = scene.stage();
            let golden = golden.clone().memory(memory);
            let sandbox = stage.sandbox(scene.config_of(golden));
            let error = sandbox.boot().await.unwrap_err();
            assert!(
                chain(&error).contains("/debug_console/"),
                "{}",
                chain(&error)
            );
            assert_eq!(stage.count(), 0);
            fs::remove_file(scene.path("stage.sock")).unwrap();
        }
        let attached = scene.sandbox_of(scene.config_of(golden));
        let error = attached.boot().await.unwrap_err();
        assert!(
            chain(&error).contains("/debug_console/"),
            "{}",
            chain(&error)
        );
        let inspection = open(&scene).verify().unwrap();
        let fields: Vec<_> = inspection.mismatches.iter().map(|it| &it.field).collect();
        assert!(
            fields[0].starts_with("snapshot.config at /debug_console/"),
            "{fields:?}"
        );
        assert_eq!(fs::read(&canary).unwrap(), b"canary");
        assert!(scene.vmm.take_asked().is_empty());
    }
}

#[tokio::test]
async fn a_state_that_does_not_fit_its_memory_is_refused_before_a_vmm_starts() {
    let scene = Scene::minted().await;
    rewrite(&scene, "state.json", "state", |state| {
        let manager = &mut state["snapshots"]["memory-manager"]["snapshot_data"]["state"];
        let changed = manager.as_str().unwrap().replace("8388608", "8384512");
        *manager = json!(changed);
    });
    let stage = scene.stage();
    let sandbox = stage.sandbox(scene.config());
    let error = sandbox.boot().await.unwrap_err();
    assert!(
        chain(&error).contains("/memory_ranges has"),
        "{}",
        chain(&error)
    );
    assert_eq!(stage.count(), 0);
    let inspection = open(&scene).verify().unwrap();
    assert_eq!(inspection.mismatches[0].field, "snapshot.state");
}

#[tokio::test]
async fn a_memory_file_of_another_length_than_the_vm_is_refused() {
    for length in [8 << 20, 32 << 20] {
        let scene = Scene::minted().await;
        let path = scene.path("golden/snapshot/memory-ranges");
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(length).unwrap();
        drop(file);
        let bytes = fs::read(&path).unwrap();
        let digest = chv_sandbox::overlay::VerityDigest::of(&bytes);
        edit(&scene.path("golden"), |manifest| {
            manifest["snapshot"]["memory_ranges"]["length"] = json!(length);
            manifest["snapshot"]["memory_ranges"]["fsverity"] = json!(digest);
        });
        let error = load(&open(&scene)).unwrap_err();
        assert!(
            chain(&error).contains("and the VM's memory has 16777216"),
            "{}",
            chain(&error)
        );
    }
}
