//! Minting, and folders that are not accepted as golden snapshots.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use chv_sandbox::golden::{BaselineError, Error as GoldenError, Golden, MintError, mint};
use chv_sandbox::guest::frame::encode;
use chv_sandbox::guest::protocol::{Frame, Hello};
use chv_sandbox::guest::stand_in::Behaviour;
use chv_sandbox::machine::SNAPSHOT_FILES;
use chv_sandbox::sandbox::{Error, GoldenOrigin, Sandbox};
use serde_json::json;

use super::manifest::edit;
use crate::sandbox::script::Act;
use crate::sandbox::{Scene, assert_echoed, chain, echo};

/// Checks that the mint failed and left nothing. Returns its error.
#[track_caller]
fn assert_nothing_minted(scene: &Scene, minted: Result<Golden, MintError>) -> MintError {
    let error = minted.unwrap_err();
    assert!(!scene.path("golden").exists(), "{error}");
    scene.assert_machine_is_empty();
    error
}

#[tokio::test]
async fn a_golden_snapshot_is_private_and_can_be_moved() {
    let scene = Scene::minted().await;
    scene.assert_machine_is_empty();
    for (name, expected) in [
        ("golden", 0o700),
        ("golden/snapshot", 0o700),
        ("golden/manifest.json", 0o600),
        ("golden/overlay.img", 0o600),
    ] {
        let mode = fs::metadata(scene.path(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, expected, "{name}");
    }
    fs::rename(scene.path("golden"), scene.path("moved")).unwrap();
    let mut golden = scene.golden();
    golden.directory = scene.path("moved");
    let config = scene.config_of(golden);
    let sandbox = scene.sandbox_of(config);
    sandbox.boot().await.unwrap();
    assert!(sandbox.reset().await.unwrap().is_verified());
    assert_echoed(echo(&sandbox, "moved").await, "moved");
    sandbox.shutdown().await;
}

#[tokio::test]
async fn the_digest_of_nothing_is_no_baseline() {
    for disk in ["overlay.img", "root.img"] {
        let scene = Scene::new();
        fs::write(scene.path(disk), "").unwrap();
        let error = assert_nothing_minted(&scene, scene.mint().await);
        let nothing = BaselineErrorKind::of(&error);
        assert_eq!(
            nothing,
            BaselineErrorKind::DigestOfNothing,
            "{disk}: {error:?}"
        );
    }
}

/// Which baseline a mint refuses.
#[derive(Debug, PartialEq)]
enum BaselineErrorKind {
    DigestOfNothing,
    NoDescriptors,
    Unstable,
    NotRunning,
    DiskChanged,
    AnotherGuest,
    Silent,
    Other,
}

impl BaselineErrorKind {
    fn of(error: &MintError) -> Self {
        let MintError::Baseline(error) = error else {
            return BaselineErrorKind::Other;
        };
        match error {
            BaselineError::DigestOfNothing { .. } => BaselineErrorKind::DigestOfNothing,
            BaselineError::NoDescriptors => BaselineErrorKind::NoDescriptors,
            BaselineError::Unstable { .. } => BaselineErrorKind::Unstable,
            BaselineError::NotRunning(_) => BaselineErrorKind::NotRunning,
            BaselineError::DiskChanged { .. } => BaselineErrorKind::DiskChanged,
            BaselineError::AnotherGuest => BaselineErrorKind::AnotherGuest,
            BaselineError::Silent { .. } => BaselineErrorKind::Silent,
            _ => BaselineErrorKind::Other,
        }
    }
}

/// After `prepare`, a mint refuses the readings with the error `expected`.
async fn check_baseline(prepare: impl FnOnce(&Scene), expected: BaselineErrorKind) {
    let scene = Scene::new();
    prepare(&scene);
    let error = assert_nothing_minted(&scene, scene.mint().await);
    assert_eq!(BaselineErrorKind::of(&error), expected, "{error:?}");
}

#[tokio::test]
async fn readings_that_cannot_be_baselines_are_refused() {
    use BaselineErrorKind::*;
    check_baseline(|scene| scene.guest.set_open_files(0), NoDescriptors).await;
    let not_resumed = |scene: &Scene| scene.vmm.on("vm.resume", 1, Act::Pretend);
    check_baseline(not_resumed, NotRunning).await;
    let forgets = |scene: &Scene| {
        let guest = scene.guest.clone();
        scene
            .vmm
            .before("vm.restore", move || guest.forget().unwrap());
    };
    check_baseline(forgets, AnotherGuest).await;
    let changed = |scene: &Scene| {
        let overlay = scene.path("machine/overlay.img");
        scene
            .vmm
            .before("vm.restore", move || crate::sandbox::flip_a_bit(&overlay));
    };
    check_baseline(changed, DiskChanged).await;
    // The boot, the first revert and the second revert each send one `vm.info`. The change comes at the first revert.
    let unstable = |scene: &Scene| {
        let guest = scene.guest.clone();
        let change = Act::First(Box::new(move || guest.set_open_files(13)));
        scene.vmm.on("vm.info", 2, change);
    };
    check_baseline(unstable, Unstable).await;
}

#[tokio::test]
async fn a_guest_that_is_silent_after_the_revert_gives_no_baseline() {
    let scene = Scene::new();
    let restored = Arc::new(AtomicBool::new(false));
    let after = Arc::clone(&restored);
    scene
        .vmm
        .before("vm.restore", move || after.store(true, Ordering::Relaxed));
    let mute = move |_: &Frame| restored.load(Ordering::Relaxed).then(Vec::new);
    scene.guest.behave(Behaviour::Intercepted(Arc::new(mute)));
    let mut config = scene.mint_config();
    config.machine.limits.settle = Duration::from_millis(300);
    config.machine.limits.query = Duration::from_millis(300);
    let error = assert_nothing_minted(&scene, mint(config).await);
    assert_eq!(
        BaselineErrorKind::of(&error),
        BaselineErrorKind::Silent,
        "{error:?}"
    );
}

#[tokio::test]
async fn a_restless_guest_is_not_minted() {
    let scene = Scene::new();
    let count = AtomicU64::new(1);
    let guest = scene.guest.clone();
    let restless = move |frame: &Frame| {
        if let Frame::GuestQuery(_) = frame {
            guest.set_open_files(count.fetch_add(1, Ordering::Relaxed));
        }
        None
    };
    scene
        .guest
        .behave(Behaviour::Intercepted(Arc::new(restless)));
    let mut config = scene.mint_config();
    config.settle = Duration::from_millis(300);
    let error = assert_nothing_minted(&scene, mint(config).await);
    assert!(
        matches!(error, MintError::Restless { last: 1.., .. }),
        "{error:?}"
    );
    // The guest and the function that it was given hold each other; this ends the cycle.
    scene.guest.behave(Behaviour::Dispatcher);
}

#[tokio::test]
async fn a_guest_of_another_build_is_minted_only_if_asked_for() {
    let scene = Scene::new();
    let stale = |frame: &Frame| {
        let hello = Hello {
            build_id: "0123456789abcdef".to_owned(),
            extensions: Vec::new(),
            ..Hello::of_this_build()
        };
        matches!(frame, Frame::Hello(_)).then(|| encode(&Frame::Hello(hello)).unwrap())
    };
    scene.guest.behave(Behaviour::Intercepted(Arc::new(stale)));
    let error = assert_nothing_minted(&scene, scene.mint().await);
    assert!(matches!(error, MintError::AnotherBuild { .. }), "{error:?}");

    let mut config = scene.mint_config();
    config.any_guest = true;
    let golden = mint(config).await.unwrap();
    let build = golden.manifest().guest.build_id.as_deref();
    assert_eq!(build, Some("0123456789abcdef"));
}

#[tokio::test]
async fn a_mint_whose_step_fails_says_which_and_leaves_nothing() {
    type Expected = fn(&MintError) -> bool;
    let cases: [(&str, usize, Expected); 9] = [
        ("vmm.ping", 1, |error| matches!(error, MintError::Boot(_))),
        ("vm.create", 1, |error| matches!(error, MintError::Boot(_))),
        ("vm.boot", 1, |error| matches!(error, MintError::Boot(_))),
        ("vm.pause", 1, |error| {
            matches!(error, MintError::Snapshot(_))
        }),
        ("vm.snapshot", 1, |error| {
            matches!(error, MintError::Snapshot(_))
        }),
        ("vm.delete", 1, |error| {
            matches!(error, MintError::Revert(_))
        }),
        ("vm.restore", 2, |error| {
            matches!(error, MintError::Revert(_))
        }),
        ("vm.resume", 1, |error| {
            matches!(error, MintError::Revert(_))
        }),
        ("vm.info", 2, |error| matches!(error, MintError::Revert(_))),
    ];
    for (operation, nth, expected) in cases {
        for act in [Act::Refuse, Act::Close] {
            let scene = Scene::new();
            scene.vmm.on(operation, nth, act);
            let error = assert_nothing_minted(&scene, scene.mint().await);
            assert!(expected(&error), "{operation}: {error:?}");
            assert!(chain(&error).contains(operation), "{}", chain(&error));
        }
    }
}

#[tokio::test]
async fn a_mint_refuses_a_folder_that_exists() {
    let scene = Scene::new();
    fs::create_dir(scene.path("golden")).unwrap();
    let error = scene.mint().await.unwrap_err();
    assert!(matches!(error, MintError::Exists { .. }), "{error:?}");
    assert!(scene.path("golden").is_dir(), "it isn't ours to remove");
    assert!(scene.vmm.take_asked().is_empty());
}

#[tokio::test]
async fn a_mint_that_is_dropped_leaves_no_folder() {
    let scene = Scene::new();
    scene.vmm.on("vm.snapshot", 1, Act::Hang);
    let hung = async {
        while !scene
            .vmm
            .take_asked()
            .iter()
            .any(|asked| asked == "vm.snapshot")
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        minted = scene.mint() => panic!("it hangs: {minted:?}"),
        () = hung => {}
    }
    assert!(!scene.path("golden").exists());
    assert!(!scene.path("machine/overlay.img").exists());
}

#[tokio::test]
async fn folders_that_are_no_golden_snapshots_are_refused() {
    type Spoil = fn(&Path);
    let cases: [(Spoil, &str); 14] = [
        (|golden| fs::remove_dir_all(golden).unwrap(), "golden-0"),
        (
            |golden| fs::remove_file(golden.join("manifest.json")).unwrap(),
            "manifest.json",
        ),
        (
            |golden| fs::remove_file(golden.join("overlay.img")).unwrap(),
            "overlay.img",
        ),
        (
            |golden| fs::remove_file(golden.join("snapshot/state.json")).unwrap(),
            "state.json",
        ),
        (
            |golden| fs::remove_file(golden.join("snapshot/memory-ranges")).unwrap(),
            "memory-ranges",
        ),
        (
            |golden| {
                edit(golden, |manifest| {
                    manifest["disks"][0]["path"] = json!("/no/root.img")
                })
            },
            "/no/root.img",
        ),
        (
            |golden| {
                let path = golden.join("manifest.json");
                let half = fs::read(&path).unwrap();
                fs::write(path, &half[..half.len() / 2]).unwrap();
            },
            "is not a manifest",
        ),
        (
            |golden| edit(golden, |manifest| manifest["more"] = json!(1)),
            "unknown field `more`",
        ),
        (
            |golden| edit(golden, |manifest| manifest["format"] = json!(1)),
            "has format 1, this version reads 2 only: mint the golden snapshot again",
        ),
        (
            |golden| edit(golden, |manifest| manifest["disks"] = json!([])),
            "its disks are []",
        ),
        (
            |golden| {
                edit(golden, |manifest| {
                    manifest["disks"][1]["path"] = json!("../overlay.img")
                })
            },
            "outside the folder",
        ),
        (
            |golden| {
                edit(golden, |manifest| {
                    manifest["baselines"]["open_fd_count"] = json!(0)
                })
            },
            "which no guest has",
        ),
        (
            |golden| {
                edit(golden, |manifest| {
                    let root = manifest["disks"][0]["sha256"].clone();
                    manifest["baselines"]["fs_hash"] = root;
                });
            },
            "not the digest of its overlay",
        ),
        (
            |golden| {
                edit(golden, |manifest| {
                    let nothing = json!(chv_sandbox::overlay::Digest::OF_NOTHING);
                    manifest["disks"][1]["sha256"] = nothing.clone();
                    manifest["baselines"]["fs_hash"] = nothing;
                });
            },
            "that of no bytes",
        ),
    ];
    let scene = Scene::minted().await;
    for (number, (spoil, expected)) in cases.into_iter().enumerate() {
        let golden = scene.path(&format!("golden-{number}"));
        fs::create_dir_all(golden.join("snapshot")).unwrap();
        for name in ["manifest.json", "overlay.img"]
            .into_iter()
            .map(PathBuf::from)
            .chain(
                SNAPSHOT_FILES
                    .iter()
                    .map(|name| Path::new("snapshot").join(name)),
            )
        {
            fs::copy(scene.path("golden").join(&name), golden.join(&name)).unwrap();
        }
        Golden::open(&golden).unwrap();
        spoil(&golden);
        let error: GoldenError = Golden::open(&golden).unwrap_err();
        assert!(chain(&error).contains(expected), "{}", chain(&error));

        let config = scene.config_of(GoldenOrigin::new(golden));
        let error = scene.sandbox_of(config).boot().await.unwrap_err();
        assert_eq!(error.code(), "SANDBOX_BOOT_FAILED");
        assert!(chain(&error).contains(expected), "{}", chain(&error));
        assert!(
            scene.vmm.take_asked().is_empty(),
            "no VMM is asked for anything"
        );
    }
}

#[tokio::test]
async fn a_snapshot_of_another_release_or_shape_is_not_restored() {
    let scene = Scene::minted().await;
    let sandbox = scene.sandbox();
    for (version, expected) in [
        ("52.0.0", "minted by v53.0: mint it again"),
        ("43.0.0", "the oldest that is supported"),
    ] {
        scene.vmm.set_version(version);
        let error = sandbox.boot().await.unwrap_err();
        assert!(matches!(error, Error::NotAvailable(_)), "{error:?}");
        assert_eq!(error.code(), "SANDBOX_NOT_AVAILABLE");
        let text = chain(&error);
        assert!(text.contains(expected), "{text}");
        scene.assert_machine_is_empty();
    }
    scene.vmm.set_version("53.0.0");
    sandbox.boot().await.unwrap();
    sandbox.shutdown().await;

    let config = scene.path("golden/snapshot/config.json");
    let original = fs::read_to_string(&config).unwrap();
    for spoilt in [
        original.replace(r#""id":"overlay""#, r#""id":"other""#),
        original.replace(r#""readonly":true"#, r#""readonly":false"#),
        original.replace("vsock", "no_vsock"),
        "[]".to_owned(),
        String::new(),
    ] {
        assert_ne!(spoilt, original);
        fs::write(&config, spoilt).unwrap();
        let error = sandbox.boot().await.unwrap_err();
        assert_eq!(error.code(), "SANDBOX_BOOT_FAILED");
        // The file was changed after the mint, so its content isn't even read.
        let text = chain(&error);
        assert!(text.contains("snapshot.config"), "{text}");
        scene.assert_machine_is_empty();
    }
}
