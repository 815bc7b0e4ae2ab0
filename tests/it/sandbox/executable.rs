//! The VMM's executable: each process that is started must run the executable of the golden snapshot, or it restores
//! nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use chv_sandbox::overlay::{AccessPolicy, sha256};
use chv_sandbox::sandbox::{ChvSandbox, Event, Sandbox, Strategy};
use serde_json::json;
use tokio::time::timeout;

use super::stage::Stage;
use super::{PATIENCE, Scene, assert_echoed, chain, echo, no_spare, told};
use crate::golden::manifest::edit;

const FIELD: &str = "vmm.executable.sha256";

/// A sandbox whose VMM's executable is a file of the scene, which the manifest names.
async fn scene(strategy: Strategy, spares: u32) -> (Scene, Stage, ChvSandbox, PathBuf) {
    let scene = Scene::minted().await;
    let stage = scene.stage();
    let vmm = scene.path("vmm");
    copy(&std::env::current_exe().unwrap(), &vmm, "");
    let digested = sha256(&vmm, AccessPolicy::ReadOnly).unwrap();
    edit(&scene.path("golden"), |manifest| {
        manifest["vmm"]["executable"] =
            json!({ "length": digested.length, "sha256": digested.digest });
    });
    let config = scene.config_of(scene.golden().strategy(strategy).spares(spares));
    let sandbox = ChvSandbox::with_vmm(
        config,
        chv_sandbox::machine::VmmSource::Spawn(stage.config_of(&vmm)),
    );
    (scene, stage, sandbox.unwrap(), vmm)
}

/// Copies an executable and appends to it. Another process does this: a child that another test starts at that moment
/// would inherit the descriptor that is open for writing, and the kernel refuses to run such a file.
fn copy(from: &Path, to: &Path, appended: &str) {
    let script = r#"cp "$1" "$2" && printf %s "$3" >> "$2""#;
    let copied = Command::new("/bin/sh")
        .args(["-c", script, "copy"])
        .args([from, to])
        .arg(appended)
        .status();
    assert!(copied.unwrap().success());
}

/// Puts another file under the name of the VMM's executable, as the update of a package does.
fn update(vmm: &Path, appended: &str) {
    put(vmm, vmm, appended);
}

/// Puts a copy of `from` under the name of the VMM's executable, whole at once: a VMM may be started at any moment.
fn put(from: &Path, vmm: &Path, appended: &str) {
    let other = vmm.with_extension("new");
    copy(from, &other, appended);
    fs::rename(other, vmm).unwrap();
}

#[tokio::test]
async fn a_boot_with_another_one_is_refused_and_nothing_is_restored() {
    let (scene, stage, sandbox, vmm) = scene(Strategy::InPlace, 0).await;
    update(&vmm, "another");
    let error = sandbox.boot().await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_BOOT_FAILED");
    assert!(chain(&error).contains(FIELD), "{}", chain(&error));
    assert_eq!(scene.vmm.take_asked(), ["vmm.ping"]);
    stage.assert_empty();
}

#[tokio::test]
async fn a_new_vmm_with_another_one_is_refused_before_the_live_vm_is_touched() {
    let (scene, stage, sandbox, vmm) = scene(Strategy::Fresh, 0).await;
    let mut events = sandbox.subscribe();
    sandbox.boot().await.unwrap();
    // An empty VMM is started ahead.
    let started = async {
        while stage.count() < 2 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, started).await.unwrap();
    let kept = vmm.with_extension("kept");
    fs::rename(&vmm, &kept).unwrap();
    put(&kept, &vmm, "another");
    // The VMM that was started ahead was compared at its start, and still runs the old executable. The next one does
    // not.
    assert!(sandbox.reset().await.unwrap().is_verified());
    let failed = no_spare(&mut events).await;
    assert!(failed.contains(FIELD), "{failed}");
    let live = stage.serving();
    scene.vmm.take_asked();

    let error = sandbox.reset().await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_RESET_FAILED");
    assert!(chain(&error).contains(FIELD), "{}", chain(&error));
    let asked = scene.vmm.take_asked();
    assert!(
        asked.iter().all(|asked| !asked.starts_with("vm.")),
        "{asked:?}"
    );
    assert_eq!(live.player.state(), Some("Running"));

    // Another file with the same bytes is accepted.
    put(&kept, &vmm, "");
    assert!(sandbox.reset().await.unwrap().is_verified());
    assert_echoed(echo(&sandbox, "again").await, "again");
    sandbox.shutdown().await;
    stage.assert_empty();
}

#[tokio::test]
async fn no_spare_is_made_with_another_one() {
    let (_scene, stage, sandbox, vmm) = scene(Strategy::Fresh, 1).await;
    let mut events = sandbox.subscribe();
    sandbox.boot().await.unwrap();
    let ready = |event: &Event| matches!(event, Event::SpareReady).then_some(());
    told(&mut events, ready).await;
    update(&vmm, "another");
    // The waiting spare was compared at its start, and still runs the old executable.
    assert!(sandbox.reset().await.unwrap().is_verified());
    let failed = no_spare(&mut events).await;
    assert!(failed.contains(FIELD), "{failed}");
    let error = sandbox.reset().await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_RESET_FAILED");
    assert!(chain(&error).contains(FIELD), "{}", chain(&error));
    sandbox.shutdown().await;
    stage.assert_empty();
}
