//! A guest that writes to a qcow2 overlay: its writes go to the overlay's own clusters and not to the backing file, and
//! a reset reverts them.

use std::path::{Path, PathBuf};

use chv_sandbox::golden::Error as GoldenError;
use chv_sandbox::image::Image;
use chv_sandbox::machine::DiskFormat;
use chv_sandbox::overlay::{self, AccessPolicy};
use chv_sandbox::sandbox::{Error, Sandbox, WireState};

use super::resets::change_a_byte;
use super::traces::Traces;
use super::{Stage, Stopwatch, assert_nothing_left, writes};
use crate::overlay::qcow2::image;

/// The name of the overlay's backing file, which is a copy of the image's overlay.
const BENEATH: &str = "given-overlay.img";

/// An empty qcow2 image in `folder`, over a copy of the overlay of `image`.
fn layered(folder: &Path, image: &Image) -> (PathBuf, DiskFormat) {
    let (beneath, overlay) = (folder.join(BENEATH), folder.join("given-overlay.qcow2"));
    overlay::copy_private(&image.overlay_disk(), &beneath).unwrap();
    let layer = image::Image {
        length: beneath.metadata().unwrap().len(),
        ..image::Image::over(&beneath, "raw")
    };
    layer.write(&overlay);
    (overlay, DiskFormat::Qcow2)
}

pub(super) async fn a_qcow2_overlay_takes_what_is_written_above_what_stays() {
    let stage = Stage::with_overlay(layered).await;
    let beneath = stage.folder().join(BENEATH);
    let digest = || {
        let hashed = overlay::sha256(&beneath, AccessPolicy::ReadOnly);
        hashed.unwrap().digest
    };
    let given = digest();
    writes::land_on_the_disk_and_are_gone_after_a_revert(&stage).await;
    assert_eq!(digest(), given, "what lies beneath is only read");

    let watch = Stopwatch::start();
    let sandbox = stage.sandbox();
    sandbox.boot().await.unwrap();
    let clean = Traces::look(&sandbox).await;
    for _ in 0..3 {
        clean.assert_comes_back(&sandbox).await;
    }
    assert_eq!(digest(), given, "what lies beneath is only read");
    watch.say("3 resets of a qcow2 overlay that was written to, each verified");

    change_a_byte(&beneath);
    let error = sandbox.reset().await.unwrap_err();
    println!("one byte beneath the overlay changed: {error:?}");
    assert!(
        matches!(
            &error,
            Error::ResetRefused(error)
                if matches!(&**error, GoldenError::Mismatch { field, .. } if field == "disks[1].backing[0].fsverity")
        ),
        "{error:?}"
    );
    assert_eq!(sandbox.state().wire(), WireState::Failed);
    sandbox.shutdown().await;
    assert_nothing_left(stage.folder());
}
