//! The table of tamperings that halt a sandbox.

use std::fs;
use std::path::Path;

use chv_sandbox::sandbox::CheckSource;

use super::Moment::{self, AfterRestore, BeforeInfo, BeforeRestore, BeforeResume, Between};
use super::{ALL, By, Place};
use crate::sandbox::flip_a_bit;
use crate::sandbox::script::Opening;
use crate::sandbox::tamper::{punch_a_hole, set_length};

/// Puts another file under the name of `path`.
fn replace(path: &Path, change: impl FnOnce(&Path)) {
    let other = path.with_extension("other");
    fs::copy(path, &other).unwrap();
    change(&other);
    fs::rename(&other, path).unwrap();
}

/// A tampering that halts a sandbox: its moment, its name, the kinds of VMM with which it can happen, the tampering,
/// and the sources that then disagree. Where the VMM's process can't be examined, the source for the identity of a disk
/// does not disagree.
pub(super) type Halting = (
    Moment,
    &'static str,
    &'static [By],
    fn(&Place),
    &'static [CheckSource],
);

const OWN: &[By] = &[By::InPlace, By::New, By::Spare];

/// The kinds with which the reset itself stages the VM.
const STAGED_NOW: &[By] = &[By::Attached, By::InPlace, By::New];

const OWN_STAGED_NOW: &[By] = &[By::InPlace, By::New];

pub(super) const HALTING: &[Halting] = &[
    // The read-only disk.
    (
        Between,
        "a byte of the root",
        &ALL,
        |it| flip_a_bit(&it.file("root.img")),
        &[CheckSource::FsHash],
    ),
    (
        Between,
        "the root longer by a zero",
        &ALL,
        |it| set_length(it.file("root.img"), 0x1_0001),
        &[CheckSource::FsHash],
    ),
    (
        Between,
        "the root cut off",
        &ALL,
        |it| set_length(it.file("root.img"), 0x8000),
        &[CheckSource::FsHash],
    ),
    (
        Between,
        "another root",
        &[By::Attached],
        |it| replace(&it.file("root.img"), flip_a_bit),
        &[CheckSource::FsHash],
    ),
    // A VMM that was started before opens the files that it inherited.
    (
        Between,
        "another root than the VMM's",
        OWN,
        |it| replace(&it.file("root.img"), flip_a_bit),
        &[CheckSource::FsHash, CheckSource::DiskIdentity],
    ),
    (
        AfterRestore,
        "a byte of the root under the VMM's hands",
        STAGED_NOW,
        |it| flip_a_bit(&it.file("root.img")),
        &[CheckSource::FsHash],
    ),
    // The golden copy, from which the writable disk is put back.
    (
        Between,
        "a byte of the golden copy",
        STAGED_NOW,
        |it| flip_a_bit(&it.file("golden/overlay.img")),
        &[CheckSource::FsHash],
    ),
    (
        Between,
        "the golden copy cut off",
        STAGED_NOW,
        |it| set_length(it.file("golden/overlay.img"), 0x8000),
        &[CheckSource::FsHash],
    ),
    (
        Between,
        "the golden copy longer by zeros",
        STAGED_NOW,
        |it| set_length(it.file("golden/overlay.img"), 0x2_0000),
        &[CheckSource::FsHash],
    ),
    (
        Between,
        "a hole in the golden copy",
        STAGED_NOW,
        |it| punch_a_hole(&it.file("golden/overlay.img")),
        &[CheckSource::FsHash],
    ),
    // The writable disk after it was put back.
    (
        BeforeRestore,
        "a byte of the overlay",
        STAGED_NOW,
        |it| flip_a_bit(&it.overlay()),
        &[CheckSource::FsHash],
    ),
    (
        BeforeRestore,
        "the overlay cut off",
        STAGED_NOW,
        |it| set_length(it.overlay(), 0x8000),
        &[CheckSource::FsHash],
    ),
    (
        BeforeRestore,
        "the overlay empty",
        STAGED_NOW,
        |it| set_length(it.overlay(), 0),
        &[CheckSource::FsHash],
    ),
    (
        BeforeRestore,
        "the overlay longer by zeros",
        STAGED_NOW,
        |it| set_length(it.overlay(), 0x2_0000),
        &[CheckSource::FsHash],
    ),
    (
        BeforeRestore,
        "a hole in the overlay",
        STAGED_NOW,
        |it| punch_a_hole(&it.overlay()),
        &[CheckSource::FsHash],
    ),
    (
        BeforeRestore,
        "another overlay",
        &[By::Attached],
        |it| replace(&it.overlay(), flip_a_bit),
        &[CheckSource::FsHash],
    ),
    (
        AfterRestore,
        "a byte of the overlay under the VMM's hands",
        STAGED_NOW,
        |it| flip_a_bit(&it.overlay()),
        &[CheckSource::FsHash],
    ),
    (
        AfterRestore,
        "a hole in the overlay under the VMM's hands",
        STAGED_NOW,
        |it| punch_a_hole(&it.overlay()),
        &[CheckSource::FsHash],
    ),
    (
        AfterRestore,
        "another overlay than the VMM has open",
        &[By::Attached],
        |it| replace(&it.overlay(), flip_a_bit),
        &[CheckSource::FsHash, CheckSource::DiskIdentity],
    ),
    (
        AfterRestore,
        "the overlay of 8 TiB",
        STAGED_NOW,
        |it| set_length(it.overlay(), 1 << 43),
        &[CheckSource::FsHash],
    ),
    (
        Between,
        "the overlay of a spare of 8 TiB",
        &[By::Spare],
        |it| set_length(it.overlay(), 1 << 43),
        &[CheckSource::FsHash],
    ),
    (
        Between,
        "a byte of the overlay of a spare",
        &[By::Spare],
        |it| flip_a_bit(&it.overlay()),
        &[CheckSource::FsHash],
    ),
    // The file that the VMM opens as its writable disk.
    (
        Between,
        "a VMM that opens another file with the same bytes",
        OWN_STAGED_NOW,
        |it| it.open_overlay(Opening::Another),
        &[CheckSource::DiskIdentity],
    ),
    (
        Between,
        "a VMM that opens the file without a lock",
        OWN_STAGED_NOW,
        |it| it.open_overlay(Opening::Unlocked),
        &[CheckSource::DiskIdentity],
    ),
    (
        Between,
        "a VMM that has nothing but what it inherited",
        OWN_STAGED_NOW,
        |it| it.open_overlay(Opening::Inherited),
        &[CheckSource::DiskIdentity],
    ),
    // The guest.
    (
        Between,
        "a guest that was rebooted, not restored",
        STAGED_NOW,
        Place::reboot_guest,
        &[CheckSource::GuestNonce],
    ),
    (
        Between,
        "a descriptor more",
        &ALL,
        |it| it.guest.set_open_files(13),
        &[CheckSource::OpenFdCount],
    ),
    (
        BeforeResume,
        "a descriptor less",
        &ALL,
        |it| it.guest.set_open_files(11),
        &[CheckSource::OpenFdCount],
    ),
    (
        BeforeResume,
        "no descriptor at all",
        &ALL,
        |it| it.guest.set_open_files(0),
        &[CheckSource::OpenFdCount],
    ),
    (
        BeforeResume,
        "as many descriptors as a number can say",
        &ALL,
        |it| it.guest.set_open_files(u64::MAX),
        &[CheckSource::OpenFdCount],
    ),
    // The VM.
    (
        BeforeInfo,
        "a VM that was paused again",
        OWN,
        |it| {
            let stage = it.stage.as_ref().expect("the VMM is its own");
            stage.serving().player.set_state("Paused");
        },
        &[CheckSource::VmmApiState],
    ),
];
