//! qcow2 overlays: a backing file is part of the disk that the guest sees, so a change of a backing file is found too,
//! and named, while the running VM is untouched.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use chv_sandbox::golden::{MintConfig, mint};
use chv_sandbox::machine::DiskFormat;
use chv_sandbox::overlay::Digest;
use chv_sandbox::sandbox::{
    BootFailure, CheckOutcome, CheckSource, ChvSandbox, Error, Sandbox, Strategy, WireState,
};

use super::script::Opening;
use super::{Scene, assert_echoed, echo, flip_a_bit};
use crate::golden::loaded::{TAMPERINGS, names, open};
use crate::overlay::qcow2::image::Image;

/// The backing files, the nearest first, with their fields in the manifest.
const BENEATH: [(&str, &str); 2] = [
    ("middle.qcow2", "disks[1].backing[0]"),
    ("base.img", "disks[1].backing[1]"),
];

/// A scene whose overlay has the backing file `middle.qcow2`, which has the raw backing file `base.img`.
fn layered() -> (Scene, MintConfig) {
    let scene = Scene::new();
    let (base, middle) = (scene.path("base.img"), scene.path("middle.qcow2"));
    let length = 0x1_0000;
    fs::write(&base, vec![0x5a; length]).unwrap();
    let layer = |beneath: &Path, format| Image {
        length: length as u64,
        ..Image::over(beneath, format)
    };
    layer(&base, "raw").write(&middle);
    layer(&middle, "qcow2").write(&scene.path("overlay.img"));
    let mut config = scene.mint_config();
    config.machine.disks[1].format = DiskFormat::Qcow2;
    (scene, config)
}

async fn minted() -> Scene {
    let (scene, config) = layered();
    mint(config).await.unwrap();
    scene.vmm.take_asked();
    scene
}

#[tokio::test]
async fn all_that_lies_beneath_is_in_the_manifest_and_left_alone() {
    let scene = minted().await;
    let golden = open(&scene);
    let disk = &golden.manifest().disks[1];
    assert_eq!(disk.format, DiskFormat::Qcow2);
    let beneath = BENEATH.map(|(name, _)| scene.path(name));
    let found: Vec<_> = disk.backing.iter().map(|file| &file.path).collect();
    assert_eq!(found, beneath.iter().collect::<Vec<_>>());
    let digests = beneath.map(|path| Digest::of(&fs::read(path).unwrap()));
    for (file, digest) in disk.backing.iter().zip(digests) {
        assert_eq!(file.sha256, digest);
    }

    let sandbox = scene.sandbox();
    sandbox.boot().await.unwrap();
    // A guest's writes go into the overlay's own clusters, which are put back with the overlay.
    let overlay = scene.path("machine/overlay.img");
    for _ in 0..2 {
        flip_a_bit(&overlay);
        assert!(sandbox.reset().await.unwrap().is_verified());
        let golden = fs::read(scene.path("golden/overlay.img")).unwrap();
        assert_eq!(fs::read(&overlay).unwrap(), golden);
    }
    sandbox.shutdown().await;
    for ((name, _), digest) in BENEATH.into_iter().zip(digests) {
        assert_eq!(Digest::of(&fs::read(scene.path(name)).unwrap()), digest);
    }
}

#[tokio::test]
async fn a_change_beneath_is_found_at_boot_before_a_vmm_is_asked_for_anything() {
    for (name, field) in BENEATH {
        for (what, tamper, fact) in TAMPERINGS {
            let scene = minted().await;
            tamper(&scene.path(name));
            let (field, what) = (format!("{field}.{fact}"), format!("{name}: {what}"));
            let error = scene.sandbox().boot().await.unwrap_err();
            assert_eq!(error.code(), "SANDBOX_BOOT_FAILED", "{what}");
            let Error::BootFailed(failure) = &error else {
                panic!("{what}: {error:?}");
            };
            let BootFailure::Golden(error) = &**failure else {
                panic!("{what}: {error:?}");
            };
            names(error, &field, &what);
            assert!(scene.vmm.take_asked().is_empty(), "{what}");
            let found = open(&scene).verify().unwrap().mismatches;
            assert!(
                found.iter().any(|mismatch| mismatch.field == field),
                "{what}: {found:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_change_beneath_a_live_sandbox_is_found_by_the_next_reset() {
    for (name, field) in BENEATH {
        for (what, tamper, fact) in TAMPERINGS {
            let scene = minted().await;
            let sandbox = scene.sandbox();
            sandbox.boot().await.unwrap();
            assert!(sandbox.reset().await.unwrap().is_verified());
            let path = scene.path(name);
            let kept = Kept::of(&path);
            tamper(&path);
            let (field, what) = (format!("{field}.{fact}"), format!("{name}: {what}"));
            // Each further reset finds it again.
            for _ in 0..2 {
                refuses_to_reset(&scene, &sandbox, &field, &what).await;
            }
            kept.put_back();
            assert!(sandbox.reset().await.unwrap().is_verified(), "{what}");
            assert_echoed(echo(&sandbox, "mended").await, "mended");
            sandbox.shutdown().await;
            scene.assert_machine_is_empty();
        }
    }
}

/// A file under a second name, and its bytes.
struct Kept {
    path: PathBuf,
    link: PathBuf,
    bytes: Vec<u8>,
}

impl Kept {
    fn of(path: &Path) -> Kept {
        let link = path.with_extension("kept");
        fs::hard_link(path, &link).unwrap();
        Kept {
            path: path.to_owned(),
            link,
            bytes: fs::read(path).unwrap(),
        }
    }

    /// Restores the file with its bytes under its first name.
    fn put_back(self) {
        fs::write(&self.link, self.bytes).unwrap();
        fs::rename(&self.link, &self.path).unwrap();
    }
}

/// Checks that the reset names the changed field, and that nothing was done to the VM.
async fn refuses_to_reset(scene: &Scene, sandbox: &ChvSandbox, field: &str, what: &str) {
    scene.vmm.take_asked();
    let error = sandbox.reset().await.unwrap_err();
    assert_eq!(error.code(), "SANDBOX_RESET_FAILED", "{what}");
    let Error::ResetRefused(error) = error else {
        panic!("{what}: {error:?}");
    };
    names(&error, field, what);
    assert!(scene.vmm.take_asked().is_empty(), "{what}");
    assert_eq!(scene.vmm.state(), Some("Running"), "it was not touched");
    assert_eq!(sandbox.state().wire(), WireState::Failed, "{what}");
    let refused = echo(sandbox, "beneath").await.unwrap_err();
    assert_eq!(refused.code(), "SANDBOX_NOT_READY", "{what}");
}

/// No lease can be taken on a file that a process has open for writing, so each reset compares the file, whatever its
/// timestamps say.
#[tokio::test]
async fn a_change_beneath_is_found_without_a_lease_too() {
    for (name, field) in BENEATH {
        let scene = minted().await;
        let writer = fs::File::options().write(true).open(scene.path(name));
        let writer = writer.unwrap();
        let sandbox = scene.sandbox();
        sandbox.boot().await.unwrap();
        assert!(sandbox.reset().await.unwrap().is_verified());
        let modified = writer.metadata().unwrap().modified().unwrap();
        // The change is in an unused part at the end of the image, so nothing else shows it.
        let end = writer.metadata().unwrap().len() - 1;
        writer.write_all_at(b"!", end).unwrap();
        writer.set_modified(modified).unwrap();
        refuses_to_reset(&scene, &sandbox, &format!("{field}.fsverity"), name).await;
        sandbox.shutdown().await;
    }
}

/// A VMM whose process can be examined must have the very file of the manifest open; for a VMM of another program the
/// bytes decide.
#[tokio::test]
async fn another_file_beneath_with_the_same_bytes_is_as_good_to_a_vmm_of_another_program() {
    for (name, _) in BENEATH {
        let scene = minted().await;
        let sandbox = scene.sandbox();
        sandbox.boot().await.unwrap();
        let (path, twin) = (scene.path(name), scene.path("twin"));
        fs::copy(&path, &twin).unwrap();
        fs::rename(&twin, &path).unwrap();
        assert!(sandbox.reset().await.unwrap().is_verified(), "{name}");
        sandbox.shutdown().await;
    }
}

#[tokio::test]
async fn a_vmm_that_opens_another_file_beneath_diverges() {
    for strategy in [Strategy::InPlace, Strategy::Fresh] {
        let scene = minted().await;
        let stage = scene.stage();
        let sandbox = stage.sandbox(scene.config_of(scene.golden().strategy(strategy).spares(0)));
        sandbox.boot().await.unwrap();
        assert!(sandbox.reset().await.unwrap().is_verified());
        scene.vmm.script().open_overlay(Opening::NothingBeneath);
        let error = sandbox.reset().await.unwrap_err();
        let failed = error.failed_reset().expect("it was made");
        let checks = failed.outcome.report.checks.iter();
        let disagree = checks.filter(|check| check.outcome == CheckOutcome::Disagreed);
        let disagree: Vec<_> = disagree.map(|check| check.source).collect();
        assert_eq!(disagree, [CheckSource::DiskIdentity], "{strategy:?}");
        sandbox.shutdown().await;
        stage.assert_empty();
    }
}
