//! Container images that lie or are incomplete: each is refused with a typed error, and leaves nothing.

use chv_sandbox::image::{ContainerError, Error, ImageSpec, LayerError, pack};
use serde_json::json;

use super::super::{Inputs, skipped};
use super::layout::{Family, Layer, Parts};
use super::spec;

mod configurations;
mod layers;
mod layouts;

/// The error with which packing is refused. Without `mke2fs` it prints that the test was skipped, and returns `None`.
#[track_caller]
fn refused(inputs: &Inputs, spec: &ImageSpec) -> Option<ContainerError> {
    let before = inputs.names();
    let error = pack(spec).expect_err("must be refused");
    assert_eq!(inputs.names(), before, "nothing is left");
    match error {
        Error::Container(error) => Some(error),
        Error::Mke2fsMissing { .. } => {
            skipped();
            None
        }
        error => panic!("{error:?}"),
    }
}

/// Checks the error that an image gives.
#[track_caller]
fn check(parts: &Parts, is_expected: impl Fn(&ContainerError) -> bool) {
    let inputs = Inputs::new();
    let path = parts.write(&inputs.path("layout"));
    if let Some(error) = refused(&inputs, &spec(&inputs, path)) {
        assert!(is_expected(&error), "{error:?}");
    }
}

/// Checks the error that the last of some layers gives.
#[track_caller]
fn check_layers(layers: Vec<Layer>, is_expected: impl Fn(&LayerError) -> bool) {
    let parts = Parts::new(Family::Oci, layers, json!({}));
    check(
        &parts,
        |error| matches!(error, ContainerError::Layer { source, .. } if is_expected(source)),
    );
}

fn simple() -> Parts {
    Parts::new(
        Family::Oci,
        vec![Layer::new().file("f", b"content")],
        json!({}),
    )
}
