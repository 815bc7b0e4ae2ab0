//! A VMM that refuses, or ends, at each step.

use chv_sandbox::sandbox::{Error, Sandbox, WireState};

use super::script::Act;
use super::{Scene, assert_echoed, chain, echo};

const RESET: [&str; 4] = ["vm.delete", "vm.restore", "vm.resume", "vm.info"];

/// Checks that the error names the operation and the api-socket.
#[track_caller]
fn assert_names(error: &Error, operation: &str, scene: &Scene) {
    let text = chain(error);
    assert!(text.contains(operation), "{text}");
    assert!(
        text.contains(scene.vmm.socket().to_str().unwrap()),
        "{text}"
    );
}

#[tokio::test]
async fn a_reset_whose_step_fails_is_typed_and_can_be_tried_again() {
    let (scene, sandbox) = Scene::booted().await;
    for operation in RESET {
        for act in [Act::Refuse, Act::Close] {
            scene.vmm.on(operation, 1, act);
            let error = sandbox.reset().await.unwrap_err();
            assert_eq!(error.code(), "SANDBOX_RESET_FAILED", "{operation}");
            assert_names(&error, operation, &scene);
            assert!(error.failed_reset().is_none(), "nothing was verified");
            assert_eq!(sandbox.state().wire(), WireState::Failed);
            let refused = echo(&sandbox, "too late").await.unwrap_err();
            assert!(matches!(refused, Error::NotReady { .. }));

            assert!(sandbox.reset().await.unwrap().is_verified());
            assert_echoed(echo(&sandbox, "mended").await, "mended");
        }
    }
    sandbox.shutdown().await;
    scene.assert_machine_is_empty();
}

#[tokio::test]
async fn a_boot_whose_step_fails_is_typed_and_leaves_nothing() {
    let scene = Scene::minted().await;
    let sandbox = scene.sandbox();
    for operation in [
        "vmm.ping",
        "vm.delete",
        "vm.restore",
        "vm.resume",
        "vm.info",
    ] {
        for act in [Act::Refuse, Act::Close] {
            scene.vmm.on(operation, 1, act);
            let error = sandbox.boot().await.unwrap_err();
            assert_eq!(error.code(), "SANDBOX_BOOT_FAILED", "{operation}");
            assert_names(&error, operation, &scene);
            assert_eq!(sandbox.state().wire(), WireState::Failed);
            scene.assert_machine_is_empty();
        }
    }
    sandbox.boot().await.unwrap();
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_vm_that_lacks_what_was_sent_is_not_booted() {
    let scene = Scene::new();
    let sandbox = scene.sandbox_of(scene.config_of(scene.scaffold()));
    scene.vmm.on("vm.create", 1, Act::Drop("vsock"));
    let error = sandbox.boot().await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_BOOT_FAILED");
    let text = chain(&error);
    assert!(text.contains("/vsock was dropped"), "{text}");
    assert!(!scene.vmm.take_asked().contains(&"vm.boot".to_owned()));
    scene.assert_machine_is_empty();
    sandbox.boot().await.unwrap();
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_cold_boot_whose_step_fails_is_typed_and_leaves_nothing() {
    let scene = Scene::new();
    let sandbox = scene.sandbox_of(scene.config_of(scene.scaffold()));
    for operation in ["vmm.ping", "vm.create", "vm.info", "vm.boot"] {
        for act in [Act::Refuse, Act::Close] {
            scene.vmm.on(operation, 1, act);
            let error = sandbox.boot().await.unwrap_err();
            assert_eq!(error.code(), "SANDBOX_BOOT_FAILED", "{operation}");
            assert_names(&error, operation, &scene);
            scene.assert_machine_is_empty();
        }
    }
    sandbox.boot().await.unwrap();
    sandbox.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_ends_although_the_vmm_refuses_it() {
    for act in [Act::Refuse, Act::Close] {
        let (scene, sandbox) = Scene::booted().await;
        scene.vmm.on("vm.delete", 1, act);
        sandbox.shutdown().await;
        assert_eq!(sandbox.state().wire(), WireState::NotBooted);
        sandbox.boot().await.unwrap();
        sandbox.shutdown().await;
        scene.assert_machine_is_empty();
    }
}

#[tokio::test]
async fn a_vmm_that_is_gone_for_good_fails_every_call_and_no_shutdown() {
    let (scene, sandbox) = Scene::booted().await;
    let machine = scene.path("machine");
    let socket = scene.vmm.socket().to_owned();
    std::fs::remove_file(&socket).unwrap();
    scene.vmm.on("vm.delete", 1, Act::Close);
    for _ in 0..2 {
        let error = sandbox.reset().await.unwrap_err();
        assert_eq!(error.code(), "SANDBOX_RESET_FAILED");
        assert_names(&error, "vm.delete", &scene);
    }
    sandbox.shutdown().await;
    assert_eq!(sandbox.state().wire(), WireState::NotBooted);
    assert_eq!(
        sandbox.boot().await.unwrap_err().code(),
        "SANDBOX_BOOT_FAILED"
    );
    assert!(!machine.join("overlay.img").exists());
}
