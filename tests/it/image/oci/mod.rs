//! Roots from container images: what a root takes from its layers, and that every storage form of an image gives the
//! same root.

use std::{fs, path::PathBuf, process::Command};

use chv_sandbox::image::{ContainerSource, EntrypointTool, Image, ImageSpec, RootSource};
use serde_json::{Value, json};

use super::{Inputs, pack_or_skip, skip};
use layout::{Family, Layer, Parts};

mod hostile;
mod layout;

/// A specification of an image whose root is the container image at `path`.
fn spec(inputs: &Inputs, path: PathBuf) -> ImageSpec {
    let mut spec = inputs.spec();
    spec.root = RootSource::Container(ContainerSource::new(path));
    spec
}

/// Packs an image with these layers. Without `mke2fs` it prints that the test was skipped, and returns `None`.
fn packed(inputs: &Inputs, layers: Vec<Layer>) -> Option<Image> {
    let parts = Parts::new(Family::Oci, layers, json!({}));
    pack_or_skip(&spec(inputs, parts.write(&inputs.path("layout"))))
}

/// The answer of `debugfs` to a request about the root disk. Without `debugfs` it prints that the test was skipped, and
/// returns `None`.
fn debugfs(image: &Image, request: &str) -> Option<String> {
    let run = |program| {
        Command::new(program)
            .args(["-R", request])
            .arg(image.root_disk())
            .output()
    };
    let Ok(output) = run("debugfs").or_else(|_| run("/sbin/debugfs")) else {
        skip("debugfs (package e2fsprogs) is not installed");
        return None;
    };
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn content(image: &Image, path: &str) -> Option<String> {
    debugfs(image, &format!("cat {path}"))
}

/// Whether the root disk has a file of this name, which may be a symbolic link.
fn exists(image: &Image, path: &str) -> Option<bool> {
    debugfs(image, &format!("stat {path}")).map(|stat| stat.contains("Inode:"))
}

#[track_caller]
fn check_stat(image: &Image, path: &str, expected: &[&str]) {
    let Some(stat) = debugfs(image, &format!("stat {path}")) else {
        return;
    };
    let stat = stat.split_whitespace().collect::<Vec<_>>().join(" ");
    for expected in expected {
        assert!(stat.contains(expected), "{path}: no {expected:?} in {stat}");
    }
}

#[test]
fn a_root_has_the_owners_modes_times_and_targets_of_the_layers() {
    let inputs = Inputs::new();
    let long = "x/".repeat(49);
    let layer = Layer::new()
        .directory("./")
        .directory("etc/")
        .mode("etc/secret", 0o640, 33, b"content")
        .mode("su", 0o4755, 0, b"program")
        .mode("big-owner", 0o2711, 70_000, b"program")
        .symlink("short", "etc/secret")
        .symlink("long", &long)
        .device("null")
        .entry(tar::EntryType::Fifo, "pipe", "", b"", |_| {})
        .hard_link("again", "./etc/secret");
    let Some(image) = packed(&inputs, vec![layer]) else {
        return;
    };
    check_stat(
        &image,
        "/etc/secret",
        &[
            "Type: regular",
            "Mode: 0640",
            "User: 33 Group: 33",
            "Size: 7",
            "Links: 2",
            "mtime: 0x3b9aca00:00000000",
        ],
    );
    check_stat(&image, "/su", &["Mode: 04755", "User: 0 Group: 0"]);
    check_stat(
        &image,
        "/big-owner",
        &["Mode: 02711", "User: 70000 Group: 70000"],
    );
    check_stat(
        &image,
        "/short",
        &[
            "Type: symlink",
            "Mode: 0777",
            "Fast link dest: \"etc/secret\"",
        ],
    );
    check_stat(&image, "/long", &["Type: symlink", "Size: 98"]);
    check_stat(&image, "/pipe", &["Type: FIFO"]);
    check_stat(&image, "/tmp", &["Type: directory", "Mode: 01777"]);
    assert_ne!(exists(&image, "/null"), Some(true));
    let container = image.manifest().container_image.clone().expect("recorded");
    assert_eq!((container.set_id_files, container.skipped_devices), (2, 1));
    assert_eq!(container.reference.as_deref(), Some("one"));
    assert_eq!(container.layers, 1);
}

#[test]
fn capabilities_and_attributes_of_users_are_kept_and_others_counted() {
    let inputs = Inputs::new();
    let capability = [
        1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let layer = Layer::new()
        .pax(&[
            ("SCHILY.xattr.security.capability", &capability[..]),
            ("SCHILY.xattr.user.note", b"kept"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ])
        .file("ping", b"program")
        .pax(&[("SCHILY.xattr.user.long", &[b'x'; 3000][..])])
        .file("noted", b"");
    let Some(image) = packed(&inputs, vec![layer]) else {
        return;
    };
    let container = image.manifest().container_image.clone().expect("recorded");
    assert_eq!(container.skipped_attributes, 1);
    let Some(listed) = debugfs(&image, "ea_list /ping") else {
        return;
    };
    assert!(
        listed.contains("security.capability (20)") && listed.contains("user.note (4)"),
        "{listed}"
    );
    let listed = debugfs(&image, "ea_list /noted").expect("asked before");
    assert!(listed.contains("user.long (3000)"), "{listed}");
}

#[test]
fn whiteouts_and_opaque_directories_hide_what_is_below_and_nothing_else() {
    let inputs = Inputs::new();
    let lower = Layer::new()
        .file("a/one", b"1")
        .file("a/two", b"2")
        .file("b/old", b"old")
        .file("b/deep/older", b"old")
        .file("c/gone", b"gone")
        .file("d", b"a file");
    let upper = Layer::new()
        .whiteout("a/.wh.one")
        .file("b/new", b"new")
        .whiteout("b/.wh..wh..opq")
        .file("b/deep/newer", b"new")
        .whiteout(".wh.c")
        .file("c/there", b"again")
        .whiteout("nowhere/.wh.x")
        .directory("d/");
    let Some(image) = packed(&inputs, vec![lower, upper]) else {
        return;
    };
    for (path, expected) in [
        ("/a/one", false),
        ("/a/two", true),
        ("/b/old", false),
        ("/b/new", true),
        ("/b/deep/older", false),
        ("/b/deep/newer", true),
        ("/c/gone", false),
        ("/c/there", true),
        ("/nowhere", false),
        ("/a/.wh.one", false),
    ] {
        let Some(found) = exists(&image, path) else {
            return;
        };
        assert_eq!(found, expected, "{path}");
    }
    check_stat(&image, "/d", &["Type: directory"]);
}

#[test]
fn a_hard_link_to_a_file_of_a_layer_below_keeps_its_content() {
    let inputs = Inputs::new();
    let layers = vec![
        Layer::new().file("f", b"the first"),
        Layer::new().hard_link("g", "f"),
        Layer::new().file("f", b"the second"),
        Layer::new().whiteout(".wh.f").hard_link("h", "g"),
    ];
    let Some(image) = packed(&inputs, layers) else {
        return;
    };
    check_stat(&image, "/g", &["Links: 2", "Size: 9"]);
    if let Some(found) = content(&image, "/h") {
        assert_eq!(found, "the first");
        assert_eq!(exists(&image, "/f"), Some(false));
    }
}

#[test]
fn an_entry_below_a_symbolic_link_lies_where_it_leads_inside_the_root() {
    let inputs = Inputs::new();
    let layers = vec![
        Layer::new()
            .file("etc/passwd", b"old")
            .symlink("a", "/etc")
            .symlink("out", "../../../../etc"),
        Layer::new()
            .file("a/passwd", b"new")
            .file("out/shadow", b"new"),
    ];
    let Some(image) = packed(&inputs, layers) else {
        return;
    };
    if let Some(found) = content(&image, "/etc/passwd") {
        assert_eq!(found, "new");
        assert_eq!(content(&image, "/etc/shadow").as_deref(), Some("new"));
        check_stat(&image, "/a", &["Type: symlink"]);
    }
}

/// Layers with some entries of every kind.
fn assorted() -> Vec<Layer> {
    let many = (0..300).fold(Layer::new().directory("many/"), |layer, index| {
        layer.file(&format!("many/{index:0>40}"), &vec![7; index * 17])
    });
    vec![
        many,
        Layer::new()
            .file("z", &[1; 9000])
            .symlink("y", "z")
            .hard_link("x", "z"),
        Layer::new().whiteout(".wh.y").mode("s", 0o4755, 5, b"s"),
    ]
}

#[test]
fn every_form_of_an_image_gives_the_same_root() {
    let inputs = Inputs::new();
    let mut roots = Vec::new();
    for family in [
        Family::Oci,
        Family::OciZstd,
        Family::OciPlain,
        Family::Docker,
    ] {
        let parts = Parts::new(family, assorted(), json!({}));
        let name = |form: &str| inputs.path(&format!("{family:?}-{form}"));
        for path in [
            parts.write(&name("directory")),
            parts.write_tar(&name("tar")),
            parts.write_docker_save(&name("save")),
        ] {
            let mut spec = spec(&inputs, path.clone());
            spec.out = path.with_extension("image");
            let Some(image) = pack_or_skip(&spec) else {
                return;
            };
            roots.push((path, image.manifest().root.clone()));
        }
    }
    let (_, first) = &roots[0];
    for (path, root) in &roots {
        assert_eq!(root, first, "{}", path.display());
    }
}

#[test]
fn large_directories_and_files_of_several_groups_are_in_order() {
    let inputs = Inputs::new();
    let names = (0..3000).fold(Layer::new(), |layer, index| {
        layer.symlink(&format!("names/{index:0>60}"), "nowhere")
    });
    // This file is larger than one group of blocks.
    let large = Layer::new().file("large", &vec![0x5a; 140 << 20]);
    let Some(image) = packed(&inputs, vec![names, large]) else {
        return;
    };
    // Packing has run `e2fsck`, if it is installed.
    check_stat(&image, "/large", &["Size: 146800640"]);
    check_stat(&image, &format!("/names/{:0>60}", 2999), &["Type: symlink"]);
    let size = fs::metadata(image.root_disk()).expect("there").len();
    assert!((140 << 20..146 << 20).contains(&size), "{size}");
}

/// The tools file in an image's initramfs.
fn tools_of(image: &Image) -> Value {
    let initramfs = fs::read(image.initramfs()).expect("read");
    let name = b"tools.json\0";
    let start = initramfs
        .windows(name.len())
        .position(|window| window == name)
        .expect("there is a tools file");
    let json = initramfs[start + name.len()..]
        .iter()
        .position(|&byte| byte == b'{')
        .map(|at| &initramfs[start + name.len() + at..])
        .expect("there is an object");
    let mut values = serde_json::Deserializer::from_slice(json).into_iter();
    values.next().expect("one").expect("whole")
}

/// An image for the tests of configurations: it has a user, a program and a directory.
fn configured(execution: Value) -> Parts {
    let layer = Layer::new()
        .file(
            "etc/passwd",
            b"root:x:0:0::/:/bin/sh\nadmin:x:0:0::/:\nweb:x:33:44::/srv:/bin/sh\n",
        )
        .file("etc/group", b"staff:x:50:\n")
        .mode("opt/bin/run", 0o755, 0, b"program")
        .symlink("opt/bin/go", "/opt/bin/run")
        .entry(tar::EntryType::Directory, "private/", "", b"", |header| {
            header.set_mode(0o700);
        })
        .directory("srv/");
    Parts::new(Family::Oci, vec![layer], execution)
}

#[test]
fn environment_directory_and_user_of_the_image_become_those_of_tools() {
    let inputs = Inputs::new();
    let parts = configured(json!({
        "Env": ["PATH=/opt/bin", "EMPTY=", "A=b=c"], "WorkingDir": "/srv/app", "User": "web",
    }));
    let Some(image) = pack_or_skip(&spec(&inputs, parts.write(&inputs.path("layout")))) else {
        return;
    };
    assert_eq!(
        tools_of(&image),
        json!({"defaults": {
            "env": {"PATH": "/opt/bin", "EMPTY": "", "A": "b=c"},
            "cwd": "/srv/app",
            "user": {"uid": 33, "gid": 44},
        }})
    );
    check_stat(&image, "/srv/app", &["Type: directory", "Mode: 0755"]);
}

#[test]
fn no_user_of_an_image_is_root() {
    let inputs = Inputs::new();
    let user = |uid: u32, gid: u32| json!({"uid": uid, "gid": gid});
    for (index, (name, expected)) in [
        ("", Value::Null),
        ("0", Value::Null),
        ("root", Value::Null),
        ("admin", Value::Null),
        ("0:50", Value::Null),
        ("web:", user(33, 44)),
        ("33", user(33, 44)),
        ("web:staff", user(33, 50)),
        ("1234", user(1234, 1234)),
        ("1234:0", user(1234, 0)),
    ]
    .into_iter()
    .enumerate()
    {
        let parts = configured(json!({"Env": ["A=b"], "User": name}));
        let path = parts.write(&inputs.path(&format!("layout{index}")));
        let mut spec = spec(&inputs, path);
        spec.out = inputs.path(&format!("image{index}"));
        let Some(image) = pack_or_skip(&spec) else {
            return;
        };
        assert_eq!(tools_of(&image)["defaults"]["user"], expected, "{name:?}");
    }
}

#[test]
fn the_entry_point_becomes_a_tool_and_a_tools_file_comes_first() {
    let inputs = Inputs::new();
    let parts = configured(json!({
        "Env": ["PATH=/bin:/opt/bin", "A=image"], "WorkingDir": "/private",
        "Entrypoint": ["go", "-x"], "Cmd": ["command"],
    }));
    let layout = parts.write(&inputs.path("layout"));
    let given = json!({
        "tools": {"other": {"program": "/opt/bin/run"}},
        "defaults": {"env": {"A": "given"}, "cwd": "/srv", "user": {"uid": 7, "gid": 7}},
    });
    let tools = inputs.write("tools.json", given.to_string().as_bytes());
    for (arguments, expected) in [
        (vec![], json!(["-x", "command"])),
        (vec!["script", "data"], json!(["-x", "{script}", "{data}"])),
    ] {
        let mut spec = spec(&inputs, layout.clone());
        spec.tools = Some(tools.clone());
        spec.out = inputs.path(&format!("image{}", arguments.len()));
        let mut source = ContainerSource::new(layout.clone());
        source.entrypoint_tool = Some(EntrypointTool {
            name: "main".to_owned(),
            arguments: arguments.into_iter().map(str::to_owned).collect(),
        });
        spec.root = RootSource::Container(source);
        let Some(image) = pack_or_skip(&spec) else {
            return;
        };
        assert_eq!(
            tools_of(&image),
            json!({
                "tools": {
                    "main": {"program": "/opt/bin/go", "arguments": expected},
                    "other": {"program": "/opt/bin/run"},
                },
                "defaults": {
                    "env": {"PATH": "/bin:/opt/bin", "A": "given"},
                    "cwd": "/srv",
                    "user": {"uid": 7, "gid": 7},
                },
            })
        );
    }
}
