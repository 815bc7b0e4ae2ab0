//! Inputs from which no sandbox can be made: each has an error of its own, and nothing is left.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use chv_sandbox::machine::VmmSource;
use chv_sandbox::sandbox::{ChvSandbox, Error, Sandbox, ScaffoldOrigin, WireState};

use super::{Scene, chain};

/// Checks that a cold boot of `origin` fails with `parts` in its chain of causes.
async fn check(scene: &Scene, origin: ScaffoldOrigin, parts: &[&str]) {
    let sandbox = scene.sandbox_of(scene.config_of(origin));
    let error = sandbox.boot().await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_BOOT_FAILED");
    assert_eq!(sandbox.state().wire(), WireState::Failed);
    for part in parts {
        assert!(chain(&error).contains(part), "{part}: {}", chain(&error));
    }
    scene.assert_machine_is_empty();
}

#[tokio::test]
async fn files_that_are_not_there() {
    let scene = Scene::new();
    let missing = scene.path("missing");
    let given = scene.scaffold();
    let kernel = ScaffoldOrigin::new(&missing, &given.root_disk);
    let initramfs = given.clone().initramfs(&missing);
    let root = ScaffoldOrigin::new(&given.kernel, &missing);
    let writable_root = root.clone().root_readonly(false);
    let overlay = given.clone().overlay(&missing);
    // The root has been copied by the time that the missing overlay is noticed.
    let overlay_after_root = overlay.clone().root_readonly(false);
    let path = missing.to_str().unwrap();
    for origin in [
        kernel,
        initramfs,
        root,
        writable_root,
        overlay,
        overlay_after_root,
    ] {
        check(&scene, origin, &[path, "No such file"]).await;
    }
    let folder = given.overlay(scene.path("machine"));
    check(
        &scene,
        folder,
        &["overlay disk", scene.path("machine").to_str().unwrap()],
    )
    .await;
}

#[tokio::test]
async fn paths_that_the_vmm_cannot_be_told_of() {
    let scene = Scene::new();
    let name = OsStr::from_bytes(b"not-utf8-\xff");
    let path = scene.directory.path().join(name);
    fs::write(&path, "a kernel\n").unwrap();
    let given = scene.scaffold();
    let kernel = ScaffoldOrigin::new(&path, &given.root_disk);
    check(&scene, kernel, &["the path of the kernel is not UTF-8"]).await;
    let disk = ScaffoldOrigin::new(&given.kernel, &path);
    check(&scene, disk, &["the path of the disk is not UTF-8"]).await;

    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let error = boot_in(&scene, &path).await;
    assert!(chain(&error).contains("is not UTF-8"), "{}", chain(&error));
    assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
}

#[tokio::test]
async fn a_directory_whose_vsock_socket_would_be_too_long() {
    let scene = Scene::new();
    let long = scene.path(&"x".repeat(100));
    fs::create_dir(&long).unwrap();
    let error = boot_in(&scene, &long).await;
    assert_eq!(error.code(), "SANDBOX_BOOT_FAILED");
    assert!(chain(&error).contains("107"), "{}", chain(&error));
    assert_eq!(fs::read_dir(&long).unwrap().count(), 0);
}

/// The error of a boot whose machine uses `directory`.
async fn boot_in(scene: &Scene, directory: &Path) -> Error {
    let source = VmmSource::Attach {
        api_socket: scene.vmm.socket().to_owned(),
        directory: directory.to_owned(),
    };
    let sandbox = ChvSandbox::with_vmm(scene.config_of(scene.scaffold()), source).unwrap();
    sandbox.boot().await.unwrap_err()
}

#[tokio::test]
async fn an_api_socket_that_is_not_there_or_cannot_be() {
    let scene = Scene::new();
    for (socket, expected) in [
        (scene.path("nobody.sock"), "vmm.ping"),
        (scene.path(&"x".repeat(108)), "must have"),
    ] {
        let source = VmmSource::Attach {
            api_socket: socket.clone(),
            directory: scene.path("machine"),
        };
        let sandbox = ChvSandbox::with_vmm(scene.config_of(scene.scaffold()), source).unwrap();
        let error = sandbox.boot().await.unwrap_err();
        assert_eq!(error.code(), "SANDBOX_BOOT_FAILED");
        let text = chain(&error);
        assert!(text.contains(expected), "{text}");
        assert!(text.contains(socket.to_str().unwrap()), "{text}");
        scene.assert_machine_is_empty();
    }
}

#[tokio::test]
async fn a_vmm_binary_that_is_not_there_or_cannot_run() {
    let scene = Scene::new();
    for binary in ["missing", "kernel"] {
        let config = scene.config_of(scene.scaffold());
        let config = config.vmm(scene.path(binary)).run_root(scene.path("run"));
        let sandbox = ChvSandbox::new(config).unwrap();
        let error = sandbox.boot().await.unwrap_err();
        // On a host without KVM, that is the first error.
        assert!(matches!(error, Error::NotAvailable(_)), "{error:?}");
        assert_eq!(error.code(), "SANDBOX_NOT_AVAILABLE");
        let text = chain(&error);
        let named =
            text.contains(scene.path(binary).to_str().unwrap()) || text.contains("/dev/kvm");
        assert!(named, "{text}");
        assert_eq!(sandbox.state().wire(), WireState::Failed);
        sandbox.shutdown().await;
        let run = fs::read_dir(scene.path("run"));
        assert_eq!(
            run.map_or(0, Iterator::count),
            0,
            "no run directory is left"
        );
    }
}

#[tokio::test]
async fn a_guest_that_never_answers() {
    let mut scene = Scene::new();
    scene.limits.boot = Duration::from_millis(200);
    scene
        .guest
        .behave(chv_sandbox::guest::stand_in::Behaviour::NoListener);
    let sandbox = scene.sandbox_of(scene.config_of(scene.scaffold()));
    let error = sandbox.boot().await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_BOOT_FAILED");
    assert!(
        chain(&error).contains("its guest never answered"),
        "{}",
        chain(&error)
    );
    scene.assert_machine_is_empty();
}
