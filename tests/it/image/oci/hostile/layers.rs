//! Layers with entries that no root can have.

use chv_sandbox::image::{ContainerError, ContainerSource, LayerError, RootSource};
use serde_json::json;
use tar::EntryType;

use super::super::super::{Inputs, gzip};
use super::super::layout::{Family, Layer, Parts, refer};
use super::{check, check_layers, refused, simple};

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
        // A file that is much larger than its compressed layer, and zeros behind a tar's end.
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
    // One header, repeated a million and one times, compresses well and is not kept in memory.
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
    // The compressed stream is cut short.
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
