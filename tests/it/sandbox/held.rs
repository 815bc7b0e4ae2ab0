//! A golden snapshot that was tampered with: found, named, and found before any VMM is asked for anything.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use chv_sandbox::golden::{Basis, Error, Golden, HeldGolden, MemoryPolicy};
use chv_sandbox::machine::DiskRole;
use chv_sandbox::overlay::Digest;
use serde_json::json;

use super::manifest::edit;
use super::{Scene, chain, flip_a_bit};

/// What may happen to a file.
pub(super) type Tamper = fn(&Path);

pub(super) const TAMPERINGS: [(&str, Tamper, &str); 4] = [
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

/// Every file that a restore reads, with its field in the manifest.
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

pub(super) fn open(scene: &Scene) -> Golden {
    Golden::open(&scene.path("golden")).unwrap()
}

/// It says that this field isn't as the manifest has it.
#[track_caller]
pub(super) fn assert_names<T: std::fmt::Debug>(
    result: Result<T, Error>,
    expected: &str,
    what: &str,
) {
    match result {
        Err(Error::Mismatch { field, .. }) => assert_eq!(field, expected, "{what}"),
        other => panic!("{what}: {other:?}, not a mismatch of {expected}"),
    }
}

/// Whether this filesystem gives leases: without them a hold proves less.
#[expect(clippy::print_stdout, reason = "it says that a test was skipped")]
fn is_leased(held: &HeldGolden) -> bool {
    let leased = held.held_disk(DiskRole::Root).is_some();
    if !leased {
        println!("skipped: no leases on the temporary directory");
    }
    leased
}

#[tokio::test]
async fn each_tampering_is_found_and_named() {
    for (name, field) in FILES {
        for (what, tamper, fact) in TAMPERINGS {
            let scene = Scene::minted().await;
            let golden = open(&scene);
            tamper(&scene.path(name));
            let (field, what) = (format!("{field}.{fact}"), format!("{name}: {what}"));
            for policy in [
                MemoryPolicy::Held,
                MemoryPolicy::Digest,
                MemoryPolicy::Trust,
            ] {
                assert_names(golden.hold(policy), &field, &what);
            }
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
async fn what_happens_while_it_is_held_is_found_before_the_next_restore() {
    for (name, field) in FILES {
        for (what, tamper, fact) in TAMPERINGS {
            for policy in [MemoryPolicy::Held, MemoryPolicy::Digest] {
                let scene = Scene::minted().await;
                let held = open(&scene).hold(policy).unwrap();
                let proof = held.recheck().unwrap();
                assert!(held.stands(&proof));
                // Whoever writes waits until the watcher gives way: this ends, or the test never does.
                tamper(&scene.path(name));
                let memory = field.starts_with("snapshot");
                assert_eq!(held.confirm(proof).is_err(), memory, "{name}: {what}");
                let what = format!("{name}: {what}, {policy:?}");
                assert_names(held.recheck(), &format!("{field}.{fact}"), &what);
            }
        }
    }
}

#[tokio::test]
async fn a_hold_that_stands_costs_no_digest() {
    let scene = Scene::minted().await;
    let held = open(&scene).hold(MemoryPolicy::Held).unwrap();
    if !is_leased(&held) {
        return;
    }
    let proof = held.recheck().unwrap();
    assert_eq!((proof.basis, proof.hashed), (Basis::Lease, 0));
    assert!(proof.skipped > 0 && !proof.confirmed);
    let proof = held.confirm(proof).unwrap();
    assert!(proof.confirmed);
    let json = serde_json::to_value(&proof).unwrap();
    assert_eq!(
        (&json["policy"], &json["basis"]),
        (&json!("held"), &json!("lease"))
    );
    let root = held.held_disk(DiskRole::Root).unwrap();
    let bytes = fs::read(scene.path("root.img")).unwrap();
    assert_eq!(
        (root.sha256, root.length),
        (Digest::of(&bytes), bytes.len() as u64)
    );
    let config = fs::read(scene.path("golden/snapshot/config.json")).unwrap();
    assert_eq!(**held.config(), *config);
}

#[tokio::test]
async fn a_lost_hold_is_noticed_and_taken_again() {
    let scene = Scene::minted().await;
    let held = open(&scene).hold(MemoryPolicy::Held).unwrap();
    if !is_leased(&held) {
        return;
    }
    let proof = held.recheck().unwrap();
    let memory = scene.path("golden/snapshot/memory-ranges");
    // Opened and left as it was: who knows.
    let opened = std::thread::spawn(move || OpenOptions::new().append(true).open(memory).map(drop));
    let lost = tokio::time::timeout(Duration::from_secs(20), held.lost(&proof));
    lost.await.expect("the watcher looks ten times a second");
    opened.join().unwrap().unwrap();
    assert!(!held.stands(&proof));
    assert!(matches!(held.confirm(proof), Err(Error::HoldLost { .. })));
    let again = held.recheck().unwrap();
    assert!(
        again.basis == Basis::Digested && again.hashed > 0,
        "{again:?}"
    );
    held.confirm(again).unwrap();
    assert_eq!(held.recheck().unwrap().basis, Basis::Lease);
}

#[tokio::test]
async fn only_what_a_vm_has_yet_to_read_is_lost_to_it() {
    let scene = Scene::minted().await;
    let held = open(&scene).hold(MemoryPolicy::Held).unwrap();
    if !is_leased(&held) {
        return;
    }
    let on_demand = held.recheck().unwrap();
    let copied = held.confirm(on_demand.clone()).unwrap();
    let open_for_writing = |name: &str| {
        let path = scene.path(name);
        move || drop(OpenOptions::new().append(true).open(path).unwrap())
    };
    let patience = Duration::from_secs(20);
    let now = Duration::ZERO;

    let (memory, copy) = ("golden/snapshot/memory-ranges", "golden/overlay.img");
    std::thread::spawn(open_for_writing(copy)).join().unwrap();
    std::thread::spawn(open_for_writing(memory)).join().unwrap();
    let lost = tokio::time::timeout(patience, held.lost(&on_demand));
    lost.await.expect("the memory was still to be read");
    let lost = tokio::time::timeout(now, held.lost(&copied));
    lost.await.expect_err("the memory was read");
    let renewed = held.renew(copied.clone()).unwrap();
    assert_eq!(renewed, copied);

    std::thread::spawn(open_for_writing("root.img"))
        .join()
        .unwrap();
    let lost = tokio::time::timeout(patience, held.lost(&copied));
    lost.await.expect("the root is read all the time");
    let renewed = held.renew(copied).unwrap();
    let lost = tokio::time::timeout(now, held.lost(&renewed));
    lost.await.expect_err("it was looked at again");
    assert!(renewed.confirmed);
}

#[tokio::test]
async fn each_policy_says_what_it_rests_on() {
    let scene = Scene::minted().await;
    let golden = open(&scene);
    let trusted = golden.hold(MemoryPolicy::Trust).unwrap();
    flip_a_bit(&scene.path("golden/snapshot/memory-ranges"));
    let proof = trusted.recheck().unwrap();
    assert_eq!((proof.basis, proof.hashed), (Basis::Trusted, 0));
    assert!(!trusted.stands(&proof) && !trusted.confirm(proof).unwrap().confirmed);
    assert_eq!(trusted.held_disk(DiskRole::Root), None);
    flip_a_bit(&scene.path("golden/snapshot/memory-ranges"));

    let digested = golden.hold(MemoryPolicy::Digest).unwrap();
    if is_leased(&digested) {
        let first = digested.recheck().unwrap();
        assert!(first.basis == Basis::Digested && first.hashed > 0);
        // A spare's proof doesn't take a reset's away.
        let second = digested.recheck().unwrap();
        digested.confirm(first).unwrap();
        digested.confirm(second).unwrap();
    }
    drop(digested);

    let writer = OpenOptions::new()
        .append(true)
        .open(scene.path("golden/snapshot/state.json"))
        .unwrap();
    let unleased = golden.hold(MemoryPolicy::Held).unwrap();
    let proof = unleased.recheck().unwrap();
    assert!(
        proof.basis == Basis::Unleased && proof.hashed > 0,
        "{proof:?}"
    );
    assert!(unleased.stands(&proof), "as far as timestamps go");
    drop(writer);
}

#[tokio::test]
async fn letting_go_lets_writers_in() {
    let scene = Scene::minted().await;
    drop(open(&scene).hold(MemoryPolicy::Held).unwrap());
    for (name, _) in FILES {
        let mut options = OpenOptions::new();
        let options = options.write(true).custom_flags(0o4000);
        // The watcher may be looking at this very moment.
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while let Err(error) = options.open(scene.path(name)) {
            assert!(std::time::Instant::now() < deadline, "{name}: {error}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn one_file_by_two_names_is_refused() {
    let scene = Scene::minted().await;
    let golden = open(&scene);
    let (root, overlay) = (scene.path("root.img"), scene.path("golden/overlay.img"));
    edit(&scene.path("golden"), |manifest| {
        let one = manifest["disks"][1].clone();
        for fact in ["length", "sha256", "fsverity"] {
            manifest["disks"][0][fact] = one[fact].clone();
        }
    });
    fs::remove_file(&root).unwrap();
    fs::hard_link(&overlay, &root).unwrap();
    drop(golden);
    let golden = open(&scene);
    for error in [
        golden.hold(MemoryPolicy::Held).unwrap_err(),
        golden.verify().unwrap_err(),
    ] {
        assert!(chain(&error).contains("are the same file"), "{error:?}");
    }
}

#[tokio::test]
async fn kernel_and_initramfs_are_verified_though_a_restore_needs_neither() {
    let scene = Scene::minted().await;
    let golden = open(&scene);
    assert!(golden.verify().unwrap().mismatches.is_empty());
    flip_a_bit(&scene.path("kernel"));
    golden.hold(MemoryPolicy::Held).unwrap();
    let found = golden.verify().unwrap().mismatches;
    let fields: Vec<_> = found.iter().map(|mismatch| &*mismatch.field).collect();
    assert_eq!(fields, ["payload.kernel.sha256", "payload.kernel.fsverity"]);
    fs::remove_file(scene.path("kernel")).unwrap();
    let error = golden.verify().unwrap_err();
    assert!(matches!(error, Error::Missing { .. }), "{error:?}");
}
