//! Container images that lie, or are not whole: each is a typed error, and nothing is left of it.

use std::{fs, os::unix::fs::symlink};

use chv_sandbox::image::{
    ContainerError, ContainerSource, EntrypointTool, Error, ImageSpec, LayerError, RootSource, pack,
};
use serde_json::{Value, json};
use tar::EntryType;

use super::super::{Inputs, gzip, skipped};
use super::layout::{Family, Layer, OCI_INDEX, OCI_MANIFEST, Parts, bytes, digest, refer};
use super::{configured, spec};

/// The error with which packing is refused; `None`, said on the terminal, without `mke2fs`.
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
    // One that is known, at another place.
    let mut parts = simple();
    parts.manifest["layers"][0]["mediaType"] = json!(OCI_MANIFEST);
    parts.seal();
    check(&parts, |error| {
        matches!(error, ContainerError::Value { .. })
    });
    // One that says other bytes than there are.
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
fn names_that_leave_the_root() {
    for name in ["/etc/passwd", "../x", "a/../../x", "a/..", ".."] {
        check_layers(
            vec![Layer::new().file(name, b"x")],
            |error| matches!(error, LayerError::Name { name: named, .. } if named == name),
        );
    }
    check_layers(
        vec![Layer::new().pax(&[("path", b"a\0b")]).file("x", b"")],
        |error| matches!(error, LayerError::Name { .. }),
    );
    check_layers(
        vec![
            Layer::new()
                .pax(&[("path", &[b'x'; 256][..])])
                .file("x", b""),
        ],
        |error| matches!(error, LayerError::Name { .. }),
    );
    let root = Layer::new().symlink("./", "etc");
    check_layers(vec![root], |error| matches!(error, LayerError::Name { .. }));
}

#[test]
fn entries_below_what_is_no_directory() {
    let is_name = |error: &LayerError| matches!(error, LayerError::Name { .. });
    check_layers(
        vec![Layer::new().file("f", b""), Layer::new().file("f/x", b"")],
        is_name,
    );
    check_layers(
        vec![
            Layer::new().symlink("a", "b").symlink("b", "a"),
            Layer::new().file("a/x", b""),
        ],
        is_name,
    );
}

#[test]
fn hard_links_to_nothing_directories_and_out_of_the_root() {
    for target in ["../etc/passwd", "/etc/passwd", "nothing", "d", ".", "l/x"] {
        let layer = Layer::new()
            .directory("d/")
            .symlink("l", "/outside")
            .hard_link("link", target);
        check_layers(
            vec![layer],
            |error| matches!(error, LayerError::HardLink { target: named, .. } if named == target),
        );
    }
}

#[test]
fn whiteouts_of_what_no_file_is_named() {
    for name in [".wh..wh.x", "d/.wh.", ".wh..", ".wh...", ".wh..wh.plnk"] {
        check_layers(
            vec![Layer::new().whiteout(name)],
            |error| matches!(error, LayerError::Whiteout { name: named, .. } if named == name),
        );
    }
}

#[test]
fn a_name_that_comes_twice() {
    let twice = |error: &LayerError| matches!(error, LayerError::Twice { .. });
    let layer = Layer::new;
    check_layers(vec![layer().file("f", b"1").file("./f", b"2")], twice);
    check_layers(vec![layer().file("f", b"1").directory("f/")], twice);
    check_layers(vec![layer().file("d/f", b"1").file("d", b"2")], twice);
    check_layers(vec![layer().file("f", b"").hard_link("f", "f")], twice);
    let linked = layer().file("d/f", b"1").symlink("l", "d");
    check_layers(vec![linked.file("l/f", b"2")], twice);
    check_layers(vec![layer().whiteout(".wh.x").whiteout(".wh.x")], twice);
}

#[test]
fn a_bomb_is_stopped_at_the_limit() {
    let inputs = Inputs::new();
    for family in [Family::Oci, Family::OciZstd] {
        // Content that is much larger than its layer, and zeros behind a tar's end.
        let content = Layer::new().file("zeros", &vec![0; 8 << 20]).bytes();
        let behind = [Layer::new().bytes(), vec![0; 8 << 20]].concat();
        for (index, tar) in [content, behind].into_iter().enumerate() {
            let parts = Parts::of_tars(family, vec![tar], json!({}));
            let name = format!("{family:?}{index}");
            let mut source = ContainerSource::new(parts.write(&inputs.path(&name)));
            source.content_limit = 1 << 20;
            let mut spec = inputs.spec();
            spec.root = RootSource::Container(source);
            let Some(error) = refused(&inputs, &spec) else {
                return;
            };
            assert!(
                matches!(
                    error,
                    ContainerError::Layer {
                        source: LayerError::Limit {
                            limit: 1_048_576,
                            ..
                        },
                        ..
                    }
                ),
                "{error:?}"
            );
        }
    }
}

#[test]
fn more_entries_than_are_taken() {
    // One header a million times and once more compresses well, and is not kept.
    let header = Layer::new().directory("d/").bytes();
    let tar = header[..512].repeat(1_000_001);
    let parts = Parts::of_tars(Family::Oci, vec![tar], json!({}));
    check(&parts, |error| {
        matches!(
            error,
            ContainerError::Layer {
                source: LayerError::Limit {
                    limit: 1_000_000,
                    ..
                },
                ..
            }
        )
    });
}

#[test]
fn a_layer_that_is_cut_short_behind_right_digests() {
    let tar = Layer::new().file("f", &[1; 5000]).bytes();
    for length in [0, 100, 512, 3000, 512 + 5120] {
        let parts = Parts::of_tars(Family::Oci, vec![tar[..length].to_vec()], json!({}));
        check(&parts, |error| {
            matches!(
                error,
                ContainerError::Layer {
                    source: LayerError::CutShort,
                    ..
                }
            )
        });
    }
    // The compressed stream is cut.
    let whole = gzip(&tar);
    let mut parts = simple();
    let cut = whole[..whole.len() / 2].to_vec();
    refer(&mut parts.manifest["layers"][0], &cut);
    parts.blobs = vec![cut];
    parts.seal();
    check(&parts, |error| {
        matches!(
            error,
            ContainerError::Layer {
                source: LayerError::CutShort,
                ..
            }
        )
    });
}

#[test]
fn owners_and_kinds_that_a_file_system_does_not_have() {
    let owner = |text: &'static [u8]| vec![Layer::new().pax(&[("uid", text)]).file("f", b"")];
    for text in [&b"4294967295"[..], b"99999999999"] {
        check_layers(owner(text), |error| {
            matches!(error, LayerError::Name { .. })
        });
    }
    check_layers(owner(b"-1"), |error| {
        matches!(error, LayerError::Damaged { .. })
    });
    let sparse = Layer::new().entry(EntryType::GNUSparse, "s", "", b"", |_| {});
    check_layers(vec![sparse], |error| {
        matches!(error, LayerError::Kind { .. })
    });
    let empty = Layer::new().symlink("l", "");
    check_layers(vec![empty], |error| {
        matches!(error, LayerError::Name { .. })
    });
    let much = Layer::new()
        .pax(&[("SCHILY.xattr.user.much", &[b'x'; 5000][..])])
        .file("f", b"");
    let parts = Parts::new(Family::Oci, vec![much], json!({}));
    check(&parts, |error| {
        matches!(error, ContainerError::Attributes { .. })
    });
}

#[test]
fn mount_points_that_are_links_or_files() {
    for (index, name) in ["dev", "proc", "sys", "tmp"].into_iter().enumerate() {
        let layer = match index % 2 {
            0 => Layer::new().symlink(name, "/etc"),
            _ => Layer::new().file(name, b""),
        };
        let parts = Parts::new(Family::Oci, vec![layer], json!({}));
        check(
            &parts,
            |error| matches!(error, ContainerError::MountPoint { name: named } if *named == name),
        );
    }
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

#[test]
fn configurations_that_tools_cannot_have() {
    let user = |error: &ContainerError| matches!(error, ContainerError::User { .. });
    check(&configured(json!({"User": "nobody"})), user);
    check(&configured(json!({"User": "web:nobody"})), user);
    let directory =
        |error: &ContainerError| matches!(error, ContainerError::WorkingDirectory { .. });
    for path in ["srv", "/a/../b", "/etc/passwd", "/private"] {
        check(&configured(json!({"WorkingDir": path})), directory);
    }
    let value = |error: &ContainerError| matches!(error, ContainerError::Value { .. });
    check(
        &configured(json!({"Env": ["secret without a sign"]})),
        value,
    );
    check(&configured(json!({"Env": ["=x"]})), value);
}

#[test]
fn entry_points_that_are_no_tools() {
    let inputs = Inputs::new();
    for (index, execution) in [
        json!({}),
        json!({"Entrypoint": ["missing"]}),
        json!({"Entrypoint": ["/etc/passwd"]}),
        json!({"Entrypoint": ["./run"]}),
        json!({"Entrypoint": ["/opt/bin/run", "{brace}"]}),
    ]
    .into_iter()
    .enumerate()
    {
        let parts = configured(execution);
        let path = parts.write(&inputs.path(&format!("layout{index}")));
        let mut source = ContainerSource::new(path);
        source.entrypoint_tool = Some(EntrypointTool {
            name: "main".to_owned(),
            arguments: Vec::new(),
        });
        let mut spec = inputs.spec();
        spec.root = RootSource::Container(source);
        if let Some(error) = refused(&inputs, &spec) {
            assert!(
                matches!(error, ContainerError::Entrypoint { .. }),
                "{index}: {error:?}"
            );
        }
    }
}

#[test]
fn a_root_that_is_too_small_for_the_image() {
    let inputs = Inputs::new();
    let layer = Layer::new().file("large", &vec![1; 9 << 20]);
    let parts = Parts::new(Family::Oci, vec![layer], Value::Null);
    let mut spec = spec(&inputs, parts.write(&inputs.path("layout")));
    spec.root_mib = Some(9);
    let Some(error) = refused(&inputs, &spec) else {
        return;
    };
    let ContainerError::DoesNotFit { needed_mib, .. } = error else {
        panic!("{error:?}");
    };
    spec.root_mib = Some(needed_mib);
    pack(&spec).expect("as much as it needs");
}
