//! Manifests: hostile ones are refused, signatures and pins are checked before anything else is believed, and two
//! manifests are compared.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use chv_sandbox::golden::{Error, Golden, PublicKey, SigningKey, Trust, compare_manifests, mint};
use chv_sandbox::overlay::Digest;
use chv_sandbox::sandbox::Sandbox;
use serde_json::{Value, json};

use super::loaded::{TAMPERINGS, assert_names, open};
use crate::cli::check_output;
use crate::cli::signals::{check_reader, make_long};
use crate::sandbox::{Scene, chain, flip_a_bit};

#[tokio::test]
async fn another_release_executable_or_processor_is_named() {
    let scene = Scene::minted().await;
    let golden = open(&scene);
    let release = golden.manifest().release.clone();
    golden.check_host(&release, None, false).unwrap();
    assert_names(
        golden.check_host("v52.0", None, false),
        "release",
        "release",
    );

    let minted_by = Digest::of(b"the VMM");
    let edits: [(&str, Value, &str); 4] = [
        ("vendor", json!("Another"), "cpu.vendor"),
        ("family", json!("99"), "cpu.family"),
        ("model", json!("999"), "cpu.model"),
        ("flags", json!("no_such_flag"), "cpu.flags"),
    ];
    for (fact, value, field) in edits {
        let scene = Scene::minted().await;
        edit(&scene.path("golden"), |manifest| {
            manifest["cpu"][fact] = value;
            manifest["vmm"]["executable"] = json!({ "length": 7, "sha256": minted_by });
        });
        let golden = open(&scene);
        let other = Digest::of(b"another");
        let another = golden.check_host(&release, Some(&other), false);
        assert_names(another, "vmm.executable.sha256", fact);
        assert_names(
            golden.check_host(&release, Some(&minted_by), false),
            field,
            fact,
        );
        golden.check_host(&release, Some(&minted_by), true).unwrap();
        assert!(scene.vmm.take_asked().is_empty());
    }
}

/// Changes the manifest in `golden`.
pub(crate) fn edit(golden: &Path, edit: impl FnOnce(&mut Value)) {
    let path = golden.join("manifest.json");
    let mut manifest = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut manifest);
    fs::write(path, manifest.to_string()).unwrap();
}

/// A key pair for signing.
pub(crate) fn keys(scene: &Scene, seed: u8) -> (SigningKey, PublicKey) {
    let path: PathBuf = scene.path(&format!("key-{seed}"));
    fs::write(&path, [seed; 32]).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let key = SigningKey::load(&path).unwrap();
    let public = key.public();
    (key, public)
}

fn open_signed(golden: &Path, key: &PublicKey) -> Result<Golden, Error> {
    let mut trust = Trust::default();
    trust.signed_by = Some(*key);
    Golden::open_trusted(golden, &trust)
}

#[tokio::test]
async fn only_the_pinned_golden_snapshot_is_opened() {
    let scene = Scene::minted().await;
    let golden = open(&scene);
    let bytes = fs::read(scene.path("golden/manifest.json")).unwrap();
    assert_eq!(golden.digest(), Digest::of(&bytes));
    let pinned = |digest| scene.sandbox_of(scene.config_of(scene.golden().digest(digest)));
    let sandbox = pinned(golden.digest());
    sandbox.boot().await.unwrap();
    sandbox.shutdown().await;
    scene.vmm.take_asked();
    let sandbox = pinned(Digest::of(b"another"));
    let error = sandbox.boot().await.unwrap_err();
    assert!(chain(&error).contains("is pinned"), "{}", chain(&error));
    assert!(scene.vmm.take_asked().is_empty());
}

#[tokio::test]
async fn only_a_signature_of_the_expected_key_is_accepted() {
    let scene = Scene::new();
    let (key, public) = keys(&scene, 7);
    let (_, other) = keys(&scene, 8);
    let mut config = scene.mint_config();
    config.sign_with = Some(key);
    mint(config).await.unwrap();
    scene.vmm.take_asked();
    let golden = scene.path("golden");
    open_signed(&golden, &public).unwrap();
    Golden::open(&golden).unwrap();
    let mode = fs::metadata(golden.join("manifest.sig"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);

    let bad = |result: Result<Golden, Error>| {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::BadSignature { .. }), "{error:?}");
    };
    bad(open_signed(&golden, &other));
    for name in ["manifest.json", "manifest.sig"] {
        for (_, tamper, _) in TAMPERINGS {
            let path = golden.join(name);
            let original = fs::read(&path).unwrap();
            tamper(&path);
            bad(open_signed(&golden, &public));
            fs::write(&path, original).unwrap();
        }
    }
    open_signed(&golden, &public).unwrap();
    // A manifest that is rewritten with the same values has other bytes, so its signature no longer fits.
    edit(&golden, |_| ());
    bad(open_signed(&golden, &public));
    fs::remove_file(golden.join("manifest.sig")).unwrap();
    let error = open_signed(&golden, &public).unwrap_err();
    assert!(matches!(error, Error::Unsigned { .. }), "{error:?}");
    assert!(scene.vmm.take_asked().is_empty());
}

#[tokio::test]
async fn a_signature_is_checked_before_a_vmm_is_asked_for_anything() {
    let scene = Scene::new();
    let (key, _) = keys(&scene, 7);
    keys(&scene, 8);
    let mut config = scene.mint_config();
    config.sign_with = Some(key.clone());
    mint(config).await.unwrap();
    scene.vmm.take_asked();
    let public = |name: &str, bytes: &[u8]| {
        let path = scene.path(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let ours = key.public().as_bytes().to_owned();
    let theirs = keys(&scene, 8).1.as_bytes().to_owned();
    let check = async |key: PathBuf, expected: &str| {
        let config = scene.config_of(scene.golden().public_key(key));
        let error = scene.sandbox_of(config).boot().await.unwrap_err();
        assert_eq!(error.code(), "SANDBOX_BOOT_FAILED");
        assert!(chain(&error).contains(expected), "{}", chain(&error));
        assert!(scene.vmm.take_asked().is_empty(), "{expected}");
    };
    check(
        public("theirs", &theirs),
        "is not a signature of the manifest by",
    )
    .await;
    check(public("none", b""), "has no Ed25519 public key").await;
    check(scene.path("missing"), "cannot read the key").await;
    let config = scene.config_of(scene.golden().public_key(public("ours", &ours)));
    let sandbox = scene.sandbox_of(config);
    sandbox.boot().await.unwrap();
    sandbox.shutdown().await;
    scene.vmm.take_asked();
    flip_a_bit(&scene.path("golden/snapshot/state.json"));
    check(public("ours", &ours), "snapshot.state.fsverity").await;
    fs::remove_file(scene.path("golden/manifest.sig")).unwrap();
    check(public("ours", &ours), "is not signed").await;
}

/// Runs `chv-sandbox golden` with these arguments. Returns its exit status and its output.
fn command(arguments: &[&Path]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chv-sandbox"));
    let output = command.arg("golden").args(arguments).output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(printed).unwrap())
}

#[tokio::test]
async fn the_exit_status_of_the_commands_is_the_verdict() {
    let scene = Scene::minted().await;
    let golden = scene.path("golden");
    let check = |arguments: &[&Path], status: i32, expected: &str| {
        let (found, printed) = command(arguments);
        assert_eq!(found, Some(status), "{arguments:?}: {printed}");
        assert!(printed.contains(expected), "{arguments:?}: {printed}");
    };
    let (verify, compare) = (Path::new("verify"), Path::new("compare"));
    check(&[verify, &golden], 0, "snapshot.memory_ranges");
    check(&[compare, &golden, &golden], 0, "");
    let missing = scene.path("missing");
    check(&[verify, &missing], 2, "cannot be read");
    check(&[compare, &golden, &missing], 2, "cannot be read");
    let key = scene.path("key");
    fs::write(&key, keys(&scene, 7).1.as_bytes()).unwrap();
    let option = Path::new("--public-key");
    check(&[verify, &golden, option, &key], 1, "is not signed");
    check(
        &[verify, &golden, option, &missing],
        2,
        "cannot read the key",
    );
    flip_a_bit(&scene.path("golden/snapshot/memory-ranges"));
    check(&[verify, &golden], 1, "snapshot.memory_ranges.fsverity");
    let json = Path::new("--json");
    check(
        &[verify, &golden, json],
        1,
        "\"field\": \"snapshot.memory_ranges.fsverity\"",
    );
    let other = Scene::minted().await;
    edit(&other.path("golden"), |manifest| {
        manifest["shape"]["vcpus"] = json!(99)
    });
    check(&[compare, &golden, &other.path("golden")], 1, "shape.vcpus");
}

#[tokio::test]
async fn a_verdict_that_cannot_be_written_ends_with_2() {
    let (scene, other) = (Scene::minted().await, Scene::minted().await);
    let (golden, other) = (scene.path("golden"), other.path("golden"));
    let name = Path::new("golden");
    let (verify, compare) = (Path::new("verify"), Path::new("compare"));
    let json = Path::new("--json");
    check_output(&[name, verify, &golden], 0);
    check_output(&[name, compare, &golden, &golden, json], 0);
    edit(&other, |manifest| manifest["shape"]["vcpus"] = json!(99));
    check_output(&[name, compare, &golden, &other], 1);
    flip_a_bit(&golden.join("snapshot/memory-ranges"));
    check_output(&[name, verify, &golden], 1);
    check_output(&[name, verify, &golden, json], 1);
}

#[tokio::test]
async fn a_verification_ends_when_a_signal_comes() {
    let scene = Scene::minted().await;
    make_long(&scene.path("golden/overlay.img"));
    check_reader(&[
        Path::new("golden"),
        Path::new("verify"),
        &scene.path("golden"),
    ]);
}

#[tokio::test]
async fn hostile_manifests_are_refused() {
    let scene = Scene::minted().await;
    let path = scene.path("golden/manifest.json");
    let good = fs::read(&path).unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut manifest = serde_json::from_slice(&good).unwrap();
        change(&mut manifest);
        Value::to_string(&manifest).into_bytes()
    };
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "is not a manifest"),
        (vec![b' '; (1 << 20) + 1], "is larger than"),
        (b"[".repeat(100_000), "is not a manifest"),
        (
            [br#"{"format":2,"a":"#.to_vec(), b"[".repeat(100_000)].concat(),
            "is not a manifest",
        ),
        (vec![0xff; 64], "is not a manifest"),
        (br#"{"format":"2"}"#.to_vec(), "is not a manifest"),
        (
            br#"{"format":1}"#.to_vec(),
            "mint the golden snapshot again",
        ),
        (
            br#"{"format":4294967295}"#.to_vec(),
            "mint the golden snapshot again",
        ),
        (format!("{text}{{}}").into_bytes(), "is not a manifest"),
        (
            changed(&|it| it["disks"][0]["path"] = json!("/tmp/../etc/passwd")),
            "outside the folder",
        ),
        (
            changed(&|it| it["disks"][1]["path"] = json!("snapshot/../overlay.img")),
            "outside the folder",
        ),
        (
            changed(&|it| {
                let mut beneath = it["payload"]["kernel"].clone();
                beneath["path"] = json!("../base");
                it["disks"][1]["backing"] = json!([beneath]);
            }),
            "not a plain absolute path",
        ),
        (
            changed(&|it| it["disks"][1]["length"] = json!(-1)),
            "is not a manifest",
        ),
        (
            changed(&|it| it["snapshot"]["state"]["length"] = json!(0)),
            "has no bytes",
        ),
        (
            changed(&|it| it["snapshot"]["state"] = json!(null)),
            "is not a manifest",
        ),
        (
            changed(&|it| it["snapshot"]["state"]["fsverity"] = json!("sha256:00")),
            "is not a manifest",
        ),
    ];
    for (bytes, expected) in cases {
        fs::write(&path, &bytes).unwrap();
        let error = Golden::open(&scene.path("golden")).unwrap_err();
        assert!(
            chain(&error).contains(expected),
            "{expected}: {}",
            chain(&error)
        );
    }
}

#[tokio::test]
async fn manifests_are_compared_field_by_field() {
    let (one, other) = (Scene::minted().await, Scene::minted().await);
    let (first, second) = (open(&one), open(&other));
    assert!(compare_manifests(first.manifest(), first.manifest()).is_empty());
    let fields = |second: &Golden| {
        let differences = compare_manifests(first.manifest(), second.manifest());
        let unexpected = differences
            .into_iter()
            .filter(|difference| !difference.expected);
        unexpected
            .map(|difference| difference.field)
            .collect::<Vec<_>>()
    };
    // The two scenes have different directories, and no other difference.
    let places = |field: &String| !field.ends_with(".path");
    let mut told = fields(&second);
    told.retain(places);
    // The memories do differ, because a stand-in's memory is the VM's description with the directory's name in it. A
    // difference of the snapshot's files is an expected one.
    assert_eq!(told, [""; 0]);
    edit(&other.path("golden"), |manifest| {
        manifest["shape"]["memory_mib"] = json!(1);
        manifest["payload"]["initramfs"] = manifest["payload"]["kernel"].clone();
    });
    let mut told = fields(&open(&other));
    told.retain(places);
    assert_eq!(told, ["payload.initramfs", "shape.memory_mib"]);
}

#[tokio::test]
async fn the_container_image_of_a_root_is_recorded_and_signed() {
    let scene = Scene::new();
    let (key, public) = keys(&scene, 7);
    let mut config = scene.mint_config();
    let container = Digest::of(b"a container image");
    config.container_image = Some(container);
    config.sign_with = Some(key);
    let minted = mint(config).await.unwrap();
    assert_eq!(minted.manifest().container_image, Some(container));
    let golden = scene.path("golden");
    open_signed(&golden, &public).unwrap();
    edit(&golden, |manifest| {
        assert_eq!(manifest["container_image"], json!(container.to_string()));
        manifest["container_image"] = json!(Digest::of(b"another").to_string());
    });
    let differences = compare_manifests(minted.manifest(), open(&scene).manifest());
    let fields: Vec<_> = differences.iter().map(|it| it.field.as_str()).collect();
    assert_eq!(fields, ["container_image"]);
    let error = open_signed(&golden, &public).unwrap_err();
    assert!(matches!(error, Error::BadSignature { .. }), "{error:?}");
}
