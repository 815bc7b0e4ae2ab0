//! What halts a sandbox.

use std::fs;
use std::path::Path;

use chv_sandbox::sandbox::Source;

use super::Moment::{self, AfterRestore, BeforeInfo, BeforeRestore, BeforeResume, Between};
use super::{ALL, By, Place};
use crate::sandbox::flip_a_bit;
use crate::sandbox::tamper::{punch_a_hole, set_length};

/// Puts another file under the name of `path`.
fn replace(path: &Path, change: impl FnOnce(&Path)) {
    let other = path.with_extension("other");
    fs::copy(path, &other).unwrap();
    change(&other);
    fs::rename(&other, path).unwrap();
}

/// What halts a sandbox: when, what, by which VMMs it can happen, and which sources disagree then. Without a process to
/// look into, the identity of a disk disagrees with nothing.
pub(super) type Halting = (
    Moment,
    &'static str,
    &'static [By],
    fn(&Place),
    &'static [Source],
);

const OWN: &[By] = &[By::InPlace, By::Respawn];

pub(super) const HALTING: &[Halting] = &[
    // The read-only disk.
    (
        Between,
        "a byte of the root",
        &ALL,
        |it| flip_a_bit(&it.file("root.img")),
        &[Source::FsHash],
    ),
    (
        Between,
        "the root longer by a zero",
        &ALL,
        |it| set_length(it.file("root.img"), 0x1_0001),
        &[Source::FsHash],
    ),
    (
        Between,
        "the root cut off",
        &ALL,
        |it| set_length(it.file("root.img"), 0x8000),
        &[Source::FsHash],
    ),
    (
        Between,
        "another root",
        &[By::Respawn, By::Attached],
        |it| replace(&it.file("root.img"), flip_a_bit),
        &[Source::FsHash],
    ),
    // The VMM that was there opens what it has inherited.
    (
        Between,
        "another root than the VMM's",
        &[By::InPlace],
        |it| replace(&it.file("root.img"), flip_a_bit),
        &[Source::FsHash, Source::DiskIdentity],
    ),
    (
        AfterRestore,
        "a byte of the root under the VMM's hands",
        &ALL,
        |it| flip_a_bit(&it.file("root.img")),
        &[Source::FsHash],
    ),
    // What the writable disk is put back from.
    (
        Between,
        "a byte of the golden copy",
        &ALL,
        |it| flip_a_bit(&it.file("golden/overlay.img")),
        &[Source::FsHash],
    ),
    (
        Between,
        "the golden copy cut off",
        &ALL,
        |it| set_length(it.file("golden/overlay.img"), 0x8000),
        &[Source::FsHash],
    ),
    (
        Between,
        "the golden copy longer by zeros",
        &ALL,
        |it| set_length(it.file("golden/overlay.img"), 0x2_0000),
        &[Source::FsHash],
    ),
    (
        Between,
        "a hole in the golden copy",
        &ALL,
        |it| punch_a_hole(&it.file("golden/overlay.img")),
        &[Source::FsHash],
    ),
    // The writable disk, put back.
    (
        BeforeRestore,
        "a byte of the overlay",
        &ALL,
        |it| flip_a_bit(&it.overlay()),
        &[Source::FsHash],
    ),
    (
        BeforeRestore,
        "the overlay cut off",
        &ALL,
        |it| set_length(it.overlay(), 0x8000),
        &[Source::FsHash],
    ),
    (
        BeforeRestore,
        "the overlay empty",
        &ALL,
        |it| set_length(it.overlay(), 0),
        &[Source::FsHash],
    ),
    (
        BeforeRestore,
        "the overlay longer by zeros",
        &ALL,
        |it| set_length(it.overlay(), 0x2_0000),
        &[Source::FsHash],
    ),
    (
        BeforeRestore,
        "a hole in the overlay",
        &ALL,
        |it| punch_a_hole(&it.overlay()),
        &[Source::FsHash],
    ),
    (
        BeforeRestore,
        "another overlay",
        &ALL,
        |it| replace(&it.overlay(), flip_a_bit),
        &[Source::FsHash],
    ),
    (
        AfterRestore,
        "a byte of the overlay under the VMM's hands",
        &ALL,
        |it| flip_a_bit(&it.overlay()),
        &[Source::FsHash],
    ),
    (
        AfterRestore,
        "a hole in the overlay under the VMM's hands",
        &ALL,
        |it| punch_a_hole(&it.overlay()),
        &[Source::FsHash],
    ),
    (
        AfterRestore,
        "another overlay than the VMM has open",
        &ALL,
        |it| replace(&it.overlay(), flip_a_bit),
        &[Source::FsHash, Source::DiskIdentity],
    ),
    (
        AfterRestore,
        "the same bytes in another file than the VMM has open",
        OWN,
        |it| replace(&it.overlay(), |_| ()),
        &[Source::DiskIdentity],
    ),
    // The guest.
    (
        Between,
        "a guest that was rebooted, not restored",
        &ALL,
        Place::reboot_guest,
        &[Source::GuestNonce],
    ),
    (
        Between,
        "a descriptor more",
        &ALL,
        |it| it.guest.set_open_files(13),
        &[Source::OpenFdCount],
    ),
    (
        BeforeResume,
        "a descriptor less",
        &ALL,
        |it| it.guest.set_open_files(11),
        &[Source::OpenFdCount],
    ),
    (
        BeforeResume,
        "no descriptor at all",
        &ALL,
        |it| it.guest.set_open_files(0),
        &[Source::OpenFdCount],
    ),
    (
        BeforeResume,
        "as many descriptors as a number can say",
        &ALL,
        |it| it.guest.set_open_files(u64::MAX),
        &[Source::OpenFdCount],
    ),
    // The VM.
    (
        BeforeInfo,
        "a VM that was paused again",
        OWN,
        |it| {
            let stage = it.stage.as_ref().expect("the VMM is its own");
            stage.last().player.set_state("Paused");
        },
        &[Source::VmmApiState],
    ),
];
