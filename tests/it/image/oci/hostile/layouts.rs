//! Layouts and documents that contradict themselves.

use std::{fs, os::unix::fs::symlink};

use chv_sandbox::image::{ContainerError, ContainerSource, LayerError, RootSource, pack};
use serde_json::json;

use super::super::layout::{Layer, OCI_INDEX, OCI_MANIFEST, bytes, digest, refer};
use super::super::{super::Inputs, spec};
use super::{check, refused, simple};

#[test]
fn a_blob_that_is_another_than_its_descriptor_says() {
    let inputs = Inputs::new();
    let parts = simple();
    let dir = parts.write(&inputs.path("layout"));
    for (index, (name, bytes)) in parts.files().iter().enumerate() {
        let Some(hex) = name.strip_prefix("blobs/sha256/") else {
            continue;
        };
        let path = dir.join(name);
        let mut changed = bytes.clone();
        let middle = changed.len() / 2;
        changed[middle] ^= 1;
        for (change, found) in [
            (Some(&changed[..]), "digest"),
            (Some(&bytes[..bytes.len() - 1]), "size"),
            (Some(&[&bytes[..], b"x"].concat()), "size"),
            (None, "missing"),
        ] {
            match change {
                Some(change) => fs::write(&path, change).expect("written"),
                None => fs::remove_file(&path).expect("removed"),
            }
            let Some(error) = refused(&inputs, &spec(&inputs, dir.clone())) else {
                return;
            };
            let expected = format!("sha256:{hex}");
            let is_expected = match &error {
                ContainerError::BlobDigest {
                    expected: named, ..
                } => found == "digest" && *named == expected,
                ContainerError::BlobSize { blob, .. } => found == "size" && *blob == expected,
                ContainerError::BlobMissing { blob } => found == "missing" && *blob == expected,
                _ => false,
            };
            assert!(is_expected, "{index} {found}: {error:?}");
        }
        fs::write(&path, bytes).expect("written");
    }
}

#[test]
fn a_layer_that_holds_another_tar_than_the_configuration_says() {
    let mut parts = simple();
    parts.config["rootfs"]["diff_ids"] = json!([digest(b"another")]);
    parts.seal();
    check(&parts, |error| {
        matches!(
            error,
            ContainerError::Layer {
                source: LayerError::DiffId { .. },
                ..
            }
        )
    });
    parts.config["rootfs"]["diff_ids"] = json!([]);
    parts.seal();
    check(&parts, |error| {
        matches!(error, ContainerError::Value { .. })
    });
}

#[test]
fn platforms_that_the_guest_does_not_run() {
    let mut parts = simple();
    parts.config["architecture"] = json!("arm64");
    parts.seal();
    check(
        &parts,
        |error| matches!(error, ContainerError::Platform { found } if found[..] == ["linux/arm64"]),
    );

    let mut parts = simple();
    let mut nested = parts.index.clone();
    nested["mediaType"] = json!(OCI_INDEX);
    nested["manifests"][0]["platform"] = json!({"os": "linux", "architecture": "riscv64"});
    let list = bytes(&nested);
    parts.index["manifests"][0]["mediaType"] = json!(OCI_INDEX);
    refer(&mut parts.index["manifests"][0], &list);
    parts.blobs.push(list);
    check(
        &parts,
        |error| matches!(error, ContainerError::Platform { found } if found[..] == ["linux/riscv64"]),
    );
}

#[test]
fn media_types_that_are_not_read() {
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    for (what, place) in [
        (foreign, "/layers/0/mediaType"),
        ("application/vnd.example.config+json", "/config/mediaType"),
        ("text/plain", "/mediaType"),
    ] {
        let mut parts = simple();
        *parts.manifest.pointer_mut(place).expect("there") = json!(what);
        parts.seal();
        check(
            &parts,
            |error| matches!(error, ContainerError::MediaType { found, .. } if found == what),
        );
    }
    let mut parts = simple();
    parts.index["manifests"][0]["mediaType"] = json!("application/json");
    check(&parts, |error| {
        matches!(error, ContainerError::MediaType { .. })
    });
    // A known media type at the wrong place.
    let mut parts = simple();
    parts.manifest["layers"][0]["mediaType"] = json!(OCI_MANIFEST);
    parts.seal();
    check(&parts, |error| {
        matches!(error, ContainerError::Value { .. })
    });
    // A descriptor with another length than its blob has.
    let mut parts = simple();
    parts.manifest["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar");
    parts.seal();
    check(&parts, |error| {
        matches!(
            error,
            ContainerError::Layer {
                source: LayerError::Compression { .. },
                ..
            }
        )
    });
}

#[test]
fn digests_and_documents_that_are_none() {
    for wrong in ["sha512:00", "sha256:../../etc/passwd", "", "sha256"] {
        let mut parts = simple();
        parts.manifest["layers"][0]["digest"] = json!(wrong);
        parts.seal();
        check(&parts, |error| {
            matches!(error, ContainerError::Value { .. })
        });
    }
    let mut parts = simple();
    parts.index = json!({"schemaVersion": 2});
    check(&parts, |error| {
        matches!(error, ContainerError::Document { .. })
    });
    parts.index = json!({"schemaVersion": 1, "manifests": []});
    check(&parts, |error| {
        matches!(error, ContainerError::Value { .. })
    });
    parts.index = json!({"schemaVersion": 2, "manifests": []});
    check(&parts, |error| {
        matches!(error, ContainerError::Value { .. })
    });
}

#[test]
fn a_layout_that_lies_elsewhere() {
    let inputs = Inputs::new();
    let parts = simple();
    let dir = parts.write(&inputs.path("layout"));
    symlink(&dir, inputs.path("link")).expect("linked");
    let Some(error) = refused(&inputs, &spec(&inputs, inputs.path("link"))) else {
        return;
    };
    assert!(
        matches!(error, ContainerError::NotLayout { .. }),
        "{error:?}"
    );

    for name in ["blobs", "blobs/sha256", "index.json"] {
        let moved = inputs.path("elsewhere");
        fs::rename(dir.join(name), &moved).expect("moved");
        symlink(&moved, dir.join(name)).expect("linked");
        let error = refused(&inputs, &spec(&inputs, dir.clone())).expect("packed before");
        assert!(
            matches!(error, ContainerError::NotInside { .. }),
            "{error:?}"
        );
        fs::remove_file(dir.join(name)).expect("removed");
        fs::rename(&moved, dir.join(name)).expect("moved back");
    }
    fs::remove_file(dir.join("index.json")).expect("removed");
    let error = refused(&inputs, &spec(&inputs, dir)).expect("packed before");
    assert!(
        matches!(error, ContainerError::NotLayout { .. }),
        "{error:?}"
    );
}

#[test]
fn archives_that_hold_no_layout() {
    let inputs = Inputs::new();
    let check = |name: &str, content: &[u8]| {
        let path = inputs.write(name, content);
        if let Some(error) = refused(&inputs, &spec(&inputs, path)) {
            assert!(
                matches!(
                    error,
                    ContainerError::Archive { .. } | ContainerError::NotLayout { .. }
                ),
                "{name}: {error:?}"
            );
        }
    };
    check("empty", b"");
    check("text", b"no tar at all");
    check("nothing", &Layer::new().bytes());
    check("device", &Layer::new().device("index.json").bytes());
    let twice = Layer::new().file("index.json", b"{}");
    check("twice", &twice.file("./index.json", b"{}").bytes());
}

#[test]
fn an_image_that_is_not_there_or_not_the_only_one() {
    let inputs = Inputs::new();
    let mut parts = simple();
    let first = parts.index["manifests"][0].clone();
    let mut second = first.clone();
    second["annotations"]["org.opencontainers.image.ref.name"] = json!("two");
    parts.index["manifests"] = json!([first, second]);
    let layout = parts.write(&inputs.path("layout"));
    let save = parts.write_docker_save(&inputs.path("save"));
    let named = |path: &std::path::Path, image: Option<&str>| {
        let mut source = ContainerSource::new(path);
        source.image = image.map(str::to_owned);
        let mut spec = inputs.spec();
        spec.root = RootSource::Container(source);
        spec
    };
    let Some(error) = refused(&inputs, &named(&layout, None)) else {
        return;
    };
    assert!(
        matches!(&error, ContainerError::SeveralImages { held } if held[..] == ["one", "two"]),
        "{error:?}"
    );
    for path in [&layout, &save] {
        let error = refused(&inputs, &named(path, Some("three"))).expect("packed before");
        assert!(
            matches!(&error, ContainerError::NoSuchImage { wanted, .. } if wanted == "three"),
            "{error:?}"
        );
    }
    for (index, (path, image)) in [(&layout, "two"), (&save, "one"), (&save, "repository:one")]
        .into_iter()
        .enumerate()
    {
        let mut spec = named(path, Some(image));
        spec.out = inputs.path(&format!("image{index}"));
        pack(&spec).expect("one of that name");
    }
}
