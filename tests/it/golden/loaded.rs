//! A golden snapshot that was tampered with: the mismatch is found and named before a VMM is asked for anything.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use chv_sandbox::golden::{Error, Golden, HeldDisks, LoadOptions, LoadedGolden, MemoryBasis};
use chv_sandbox::machine::DiskRole;
use chv_sandbox::overlay::{Basis, Digest, VerityDigest, Work};

use super::manifest::edit;
use crate::sandbox::{PATIENCE, Scene, chain, flip_a_bit};

/// A way of tampering with a file.
pub(crate) type Tamper = fn(&Path);

pub(crate) const TAMPERINGS: [(&str, Tamper, &str); 4] = [
    ("a bit", flip_a_bit, "fsverity"),
    ("cut off", |path| resize(path, -1), "length"),
    ("extended with a zero", |path| resize(path, 1), "length"),
    (
        "another file",
        |path| {
            let other = path.with_extension("other");
            fs::copy(path, &other).unwrap();
            flip_a_bit(&other);
            fs::rename(other, path).unwrap();
        },
        "fsverity",
    ),
];

/// Every file that a restore needs, with its field in the manifest.
const FILES: [(&str, &str); 5] = [
    ("golden/snapshot/config.json", "snapshot.config"),
    ("golden/snapshot/state.json", "snapshot.state"),
    ("golden/snapshot/memory-ranges", "snapshot.memory_ranges"),
    ("root.img", "disks[0]"),
    ("golden/overlay.img", "disks[1]"),
];

fn resize(path: &Path, by: i64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length.checked_add_signed(by).unwrap())
        .unwrap();
}

pub(crate) fn open(scene: &Scene) -> Golden {
    Golden::open(&scene.path("golden")).unwrap()
}

pub(crate) fn load(golden: &Golden) -> Result<LoadedGolden, Error> {
    golden.load(&LoadOptions::default())
}

/// The same as [`load`], for a VMM that another program runs.
fn load_attached(golden: &Golden) -> Result<LoadedGolden, Error> {
    let mut options = LoadOptions::default();
    options.attached_vmm = true;
    golden.load(&options)
}

/// Checks that the error names this field as the one that differs from the manifest.
#[track_caller]
pub(crate) fn assert_names<T: std::fmt::Debug>(
    result: Result<T, Error>,
    expected: &str,
    what: &str,
) {
    names(&result.unwrap_err(), expected, what);
}

/// Checks that the error names this field as the one that differs from the manifest.
#[track_caller]
pub(crate) fn names(error: &Error, expected: &str, what: &str) {
    match error {
        Error::Mismatch { field, .. } => assert_eq!(field, expected, "{what}"),
        other => panic!("{what}: {other:?}, not a mismatch of {expected}"),
    }
}

/// Whether this filesystem has leases. Without a lease a held file is compared again before each use.
#[expect(clippy::print_stdout, reason = "it says that a test was skipped")]
fn is_leased(loaded: &LoadedGolden) -> bool {
    let leased = loaded.held_disk(DiskRole::Root).is_some();
    if !leased {
        println!("skipped: no leases on the temporary directory");
    }
    leased
}

/// Ensures the disks, and does so again as long as one of them gets no lease. That happens while a process that another
/// test has just forked still has the writer's descriptor.
fn ensure_leased_disks(loaded: &LoadedGolden) -> Result<HeldDisks, Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let ensured = loaded.ensure_disks();
        let mut disks = [DiskRole::Root, DiskRole::Overlay].into_iter();
        if ensured.is_err() || disks.all(|role| loaded.held_disk(role).is_some()) {
            return ensured;
        }
        assert!(Instant::now() < deadline, "no lease on a disk");
        std::thread::yield_now();
    }
}

#[tokio::test]
async fn each_tampering_is_found_and_named() {
    for (name, field) in FILES {
        for (what, tamper, fact) in TAMPERINGS {
            let scene = Scene::minted().await;
            let golden = open(&scene);
            tamper(&scene.path(name));
            let (field, what) = (format!("{field}.{fact}"), format!("{name}: {what}"));
            assert_names(load(&golden), &field, &what);
            assert_names(load_attached(&golden), &field, &what);
            let verification = golden.verify().unwrap();
            let mismatches = verification.mismatches;
            assert!(
                mismatches.iter().any(|mismatch| mismatch.field == field),
                "{what}: {mismatches:?}"
            );
            assert!(scene.vmm.take_asked().is_empty());
        }
    }
}

#[tokio::test]
async fn a_disk_that_is_tampered_with_later_is_found_before_the_next_restore() {
    let disks = FILES.iter().filter(|(_, field)| field.starts_with("disks"));
    for (name, field) in disks {
        for (what, tamper, fact) in TAMPERINGS {
            let scene = Scene::minted().await;
            let loaded = load(&open(&scene)).unwrap();
            if !is_leased(&loaded) {
                return;
            }
            loaded.ensure_disks().unwrap();
            // The open for writing waits until the watcher gives the lease up. Without that the test would never end.
            tamper(&scene.path(name));
            let (field, what) = (format!("{field}.{fact}"), format!("{name}: {what}"));
            assert_names(ensure_leased_disks(&loaded), &field, &what);
        }
    }
}

#[tokio::test]
async fn later_changes_of_the_snapshots_own_files_do_not_matter() {
    let scene = Scene::minted().await;
    let loaded = load(&open(&scene)).unwrap();
    let memory = loaded.memory().clone();
    assert_eq!(
        (memory.basis, memory.bytes),
        (MemoryBasis::Sealed, 16 << 20)
    );
    assert!(
        memory.hashed > 0 && memory.hashed < memory.bytes,
        "{memory:?}"
    );
    for (name, _) in FILES
        .iter()
        .filter(|(_, field)| field.starts_with("snapshot"))
    {
        fs::remove_file(scene.path(name)).unwrap();
    }
    loaded.ensure_disks().unwrap();
    assert_eq!(loaded.snapshot().regions().len(), 2);
}

#[tokio::test]
async fn a_vmm_of_another_program_reads_the_memory_by_its_path_so_that_is_held() {
    let scene = Scene::minted().await;
    let loaded = load_attached(&open(&scene)).unwrap();
    assert_eq!(loaded.memory().basis, MemoryBasis::Unproved);
    flip_a_bit(&scene.path("golden/snapshot/memory-ranges"));
    let field = "snapshot.memory_ranges.fsverity";
    assert_names(loaded.ensure_disks(), field, "the memory");
}

#[tokio::test]
async fn a_hold_that_stands_costs_no_digest() {
    let scene = Scene::minted().await;
    let loaded = load(&open(&scene)).unwrap();
    if !is_leased(&loaded) {
        return;
    }
    let held = loaded.ensure_disks().unwrap();
    assert_eq!(loaded.ensure_disks().unwrap(), held);
    let root = loaded.held_disk(DiskRole::Root).unwrap();
    let bytes = fs::read(scene.path("root.img")).unwrap();
    assert_eq!(
        (root.digest.sha256, root.length),
        (Digest::of(&bytes), bytes.len() as u64)
    );
    assert_eq!((root.basis, root.elapsed), (Basis::Leased, Duration::ZERO));
    let nothing_read = Work {
        skipped: root.length,
        ..Work::default()
    };
    assert_eq!(root.work, nothing_read);
    assert_eq!(root.digest.fsverity, Some(VerityDigest::of(&bytes)));
}

#[tokio::test]
async fn only_a_disk_that_a_vm_goes_on_to_read_is_lost_to_it() {
    let scene = Scene::minted().await;
    let loaded = load(&open(&scene)).unwrap();
    if !is_leased(&loaded) {
        return;
    }
    let held = loaded.ensure_disks().unwrap();
    let open_for_writing = |name: &str| {
        let path = scene.path(name);
        move || drop(OpenOptions::new().append(true).open(path).unwrap())
    };
    std::thread::spawn(open_for_writing("golden/overlay.img"))
        .join()
        .unwrap();
    let lost = tokio::time::timeout(Duration::ZERO, loaded.lost(&held));
    lost.await.expect_err("a VM has a copy of the overlay");

    // Opened for writing and left unchanged: the file's bytes and times don't show it.
    std::thread::spawn(open_for_writing("root.img"))
        .join()
        .unwrap();
    let lost = tokio::time::timeout(Duration::from_secs(20), loaded.lost(&held));
    lost.await.expect("the watcher looks ten times a second");
    let again = loaded.ensure_disks().unwrap();
    assert_ne!(again, held);
    let lost = tokio::time::timeout(Duration::ZERO, loaded.lost(&again));
    lost.await.expect_err("it was looked at again");
}

/// Opens a file for writing, so that no lease can be taken on it.
fn writer(scene: &Scene, name: &str) -> fs::File {
    let opened = OpenOptions::new().write(true).open(scene.path(name));
    opened.unwrap()
}

/// Overwrites the start of a file with other bytes and restores its time of modification.
fn forge(writer: &fs::File) {
    let modified = writer.metadata().unwrap().modified().unwrap();
    writer.write_all_at(b"{}  ", 0).unwrap();
    writer.set_modified(modified).unwrap();
}

#[tokio::test]
async fn without_a_lease_the_manifest_is_compared_each_time() {
    let scene = Scene::minted().await;
    let writer = writer(&scene, "golden/manifest.json");
    let loaded = load(&open(&scene)).unwrap();
    for _ in 0..2 {
        loaded.ensure_disks().unwrap();
    }
    forge(&writer);
    let error = loaded.ensure_disks().unwrap_err();
    assert!(matches!(error, Error::ManifestChanged { .. }), "{error:?}");
}

#[tokio::test]
async fn without_a_lease_a_disk_is_compared_when_it_is_loaded_and_then_by_each_reset() {
    for (name, role, field) in [
        ("root.img", DiskRole::Root, "disks[0].fsverity"),
        ("golden/overlay.img", DiskRole::Overlay, "disks[1].fsverity"),
    ] {
        let scene = Scene::minted().await;
        let writer = writer(&scene, name);
        let loaded = load(&open(&scene)).unwrap();
        assert!(loaded.held_disk(role).is_none());
        let held = loaded.ensure_disks().unwrap();
        forge(&writer);
        assert_eq!(loaded.ensure_disks().unwrap(), held);
        assert!(loaded.held_disk(role).is_none());
        let lost = tokio::time::timeout(Duration::ZERO, loaded.lost(&held));
        lost.await.expect_err("a file that isn't held isn't lost");
        assert_names(load(&open(&scene)), field, name);
        // Once the writer is gone, a lease can be taken, so the file is compared and held.
        drop(writer);
        if directory_has_leases(&scene) {
            assert_names(ensure_leased_disks(&loaded), field, name);
        }
    }
}

fn directory_has_leases(scene: &Scene) -> bool {
    let path = scene.path("leased");
    fs::write(&path, "").unwrap();
    chv_sandbox::overlay::LeasedFile::take(&path).is_ok()
}

#[tokio::test]
async fn dropping_it_lets_writers_in() {
    let scene = Scene::minted().await;
    drop(load(&open(&scene)).unwrap());
    for (name, _) in FILES {
        let mut options = OpenOptions::new();
        let options = options.write(true).custom_flags(0o4000);
        // The watcher may have the file open at this moment.
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while let Err(error) = options.open(scene.path(name)) {
            assert!(std::time::Instant::now() < deadline, "{name}: {error}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn one_file_by_two_names_is_refused() {
    let check = async |one: &str, other: &str, disk: usize| {
        let scene = Scene::minted().await;
        edit(&scene.path("golden"), |manifest| {
            let facts = match disk {
                0 => manifest["disks"][1].clone(),
                _ => manifest["snapshot"]["memory_ranges"].clone(),
            };
            for fact in ["length", "fsverity"] {
                manifest["disks"][0][fact] = facts[fact].clone();
            }
            if let Some(sha256) = facts.get("sha256") {
                manifest["disks"][0]["sha256"] = sha256.clone();
            }
        });
        let (one, other) = (scene.path(one), scene.path(other));
        fs::remove_file(&one).unwrap();
        fs::hard_link(&other, &one).unwrap();
        let error = load(&open(&scene)).unwrap_err();
        assert!(chain(&error).contains("are the same file"), "{error:?}");
        scene
    };
    let scene = check("root.img", "golden/overlay.img", 0).await;
    let error = open(&scene).verify().unwrap_err();
    assert!(chain(&error).contains("are the same file"), "{error:?}");
    check("root.img", "golden/snapshot/memory-ranges", 1).await;
}

#[tokio::test]
async fn kernel_and_initramfs_are_verified_though_a_restore_needs_neither() {
    let scene = Scene::minted().await;
    let golden = open(&scene);
    let inspection = golden.verify().unwrap();
    assert!(inspection.mismatches.is_empty());
    assert_eq!(inspection.memory.at_most, 16 << 20);
    assert!(inspection.memory.at_first < inspection.memory.at_most);
    flip_a_bit(&scene.path("kernel"));
    load(&golden).unwrap();
    let found = golden.verify().unwrap().mismatches;
    let fields: Vec<_> = found.iter().map(|mismatch| &*mismatch.field).collect();
    assert_eq!(fields, ["payload.kernel.sha256", "payload.kernel.fsverity"]);
    fs::remove_file(scene.path("kernel")).unwrap();
    let error = golden.verify().unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error:?}");
}
