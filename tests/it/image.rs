//! Packing and opening of images, from kernels, modules and guests that are made here.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use chv_sandbox::image::{Error, Image, ImageSpec, RootSource, pack};
use tempfile::TempDir;

use super::idle_kernel;

/// A folder with everything that an image is packed from.
struct Inputs {
    dir: TempDir,
}

impl Inputs {
    fn new() -> Inputs {
        let inputs = Inputs {
            dir: tempfile::tempdir().expect("a directory"),
        };
        idle_kernel::write(&inputs.path("vmlinux")).expect("written");
        // Of an ELF that is never run, only the headers matter: the idle kernel is a static x86-64 program too.
        inputs.write(
            "chv-guest",
            &[&idle_kernel::bytes()[..], b"chv-guest-build-id=0123abcd\0"].concat(),
        );
        inputs.write("busybox", &idle_kernel::bytes());
        inputs
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("inside the folder")).expect("made");
        fs::write(&path, content).expect("written");
        path
    }

    fn spec(&self) -> ImageSpec {
        let root = RootSource::Busybox(self.path("busybox"));
        let mut spec = ImageSpec::new(
            self.path("vmlinux"),
            self.path("chv-guest"),
            root,
            self.path("image"),
        );
        spec.overlay_mib = 4;
        spec
    }

    /// Modules that a guest needs, with a line of `modules.dep` for each.
    fn modules(&self, dir: &str, missing: &str) -> PathBuf {
        let module = |name: &str| [b"\x7fELF module ", name.as_bytes()].concat();
        let files = [
            ("virtio.ko.xz", xz(&module("virtio"))),
            ("virtio_pci.ko.gz", gzip(&module("virtio_pci"))),
            ("virtio_blk.ko", module("virtio_blk")),
            ("vmw_vsock_virtio_transport.ko.zst", zstd(&module("vsock"))),
            ("overlay.ko", module("overlay")),
        ];
        let mut dep = String::new();
        for (name, content) in files.iter().filter(|(name, _)| !name.starts_with(missing)) {
            self.write(&format!("{dir}/{name}"), content);
            let needs = if name.starts_with("virtio_") {
                "virtio.ko.xz"
            } else {
                ""
            };
            dep += &format!("{name}: {needs}\n");
        }
        self.write(&format!("{dir}/modules.dep"), dep.as_bytes());
        self.write(
            &format!("{dir}/modules.builtin"),
            b"kernel/fs/ext4/ext4.ko\n",
        );
        self.path(dir)
    }

    /// What lies in the folder, to see that a failure left nothing.
    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.dir.path())
            .expect("read")
            .map(|entry| {
                entry
                    .expect("read")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let options = lzma_rust2::XzOptions::with_preset(1);
    let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).expect("options");
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

fn lz4(bytes: &[u8]) -> Vec<u8> {
    let block = lz4_flex::block::compress(bytes);
    [
        &b"\x02\x21\x4c\x18"[..],
        &(block.len() as u32).to_le_bytes(),
        &block,
    ]
    .concat()
}

/// A bzImage around a payload: one sector of setup code, the header's fields, the payload and its length.
fn bzimage(payload: &[u8], decompressed: usize) -> Vec<u8> {
    let mut image = vec![0; 1024];
    image[0x1f1] = 1;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
    image[0x24c..0x250].copy_from_slice(&(payload.len() as u32 + 4).to_le_bytes());
    image.extend(payload);
    image.extend((decompressed as u32).to_le_bytes());
    image
}

#[expect(
    clippy::print_stderr,
    reason = "who runs the tests is told what was not tested"
)]
fn skipped() {
    eprintln!("SKIPPED: mke2fs (package e2fsprogs) is not installed");
}

/// Runs `pack` where `mke2fs` is needed. Without it, says so and returns `None`.
fn pack_or_skip(spec: &ImageSpec) -> Option<Image> {
    match pack(spec) {
        Ok(image) => Some(image),
        Err(Error::Mke2fsMissing { .. }) => {
            skipped();
            None
        }
        Err(error) => panic!(
            "packing failed: {error}: {:?}",
            std::error::Error::source(&error)
        ),
    }
}

#[test]
fn an_image_is_packed_and_opened() {
    let inputs = Inputs::new();
    let mut spec = inputs.spec();
    spec.modules = Some(inputs.modules("modules", "none"));
    spec.tools = Some(inputs.write("tools.json", b"{}"));
    let Some(image) = pack_or_skip(&spec) else {
        return;
    };

    let manifest = image.manifest();
    assert_eq!(manifest.guest_build_id, "0123abcd");
    assert_eq!(
        manifest.modules,
        [
            "virtio.ko",
            "virtio_pci.ko",
            "virtio_blk.ko",
            "vmw_vsock_virtio_transport.ko",
            "overlay.ko"
        ]
    );
    assert_eq!(
        fs::read(image.kernel()).expect("read"),
        idle_kernel::bytes()
    );
    let initramfs = fs::read(image.initramfs()).expect("read");
    let contains = |needle: &[u8]| {
        initramfs
            .windows(needle.len())
            .any(|window| window == needle)
    };
    assert!(contains(
        b"virtio.ko\nvirtio_pci.ko\nvirtio_blk.ko\nvmw_vsock_virtio_transport.ko\noverlay.ko\n"
    ));
    assert!(contains(b"\x7fELF module vsock"), "decompressed");
    assert_eq!(
        fs::metadata(image.overlay_disk()).expect("there").len(),
        4 << 20
    );

    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o7777;
    assert_eq!(mode(image.dir()), 0o700);
    for file in [
        image.kernel(),
        image.initramfs(),
        image.root_disk(),
        image.overlay_disk(),
    ] {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    assert_eq!(mode(&image.dir().join("image.json")), 0o600);
    image.verify().expect("as packed");
    assert_eq!(
        inputs.names(),
        [
            "busybox",
            "chv-guest",
            "image",
            "modules",
            "tools.json",
            "vmlinux"
        ]
    );
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let inputs = Inputs::new();
    let mut spec = inputs.spec();
    spec.modules = Some(inputs.modules("modules", "none"));
    let Some(one) = pack_or_skip(&spec) else {
        return;
    };
    spec.out = inputs.path("other");
    // An empty directory is as good as none.
    fs::create_dir(&spec.out).expect("made");
    let other = pack(&spec).expect("packed before");
    assert_eq!(one.manifest(), other.manifest());
}

#[test]
fn a_tree_is_packed_as_it_is() {
    let inputs = Inputs::new();
    for dir in ["dev", "proc", "sys", "tmp"] {
        fs::create_dir_all(inputs.path("tree").join(dir)).expect("made");
    }
    inputs.write("tree/data", b"content of the tree");
    std::os::unix::fs::symlink("/nowhere", inputs.path("tree/link")).expect("linked");
    let mut spec = inputs.spec();
    spec.root = RootSource::Tree(inputs.path("tree"));
    let Some(image) = pack_or_skip(&spec) else {
        return;
    };
    let disk = fs::read(image.root_disk()).expect("read");
    for needle in [&b"content of the tree"[..], b"/nowhere"] {
        assert!(disk.windows(needle.len()).any(|window| window == needle));
    }
}

#[test]
fn a_bzimage_of_each_compression_gives_its_kernel() {
    let inputs = Inputs::new();
    let kernel = idle_kernel::bytes();
    for (name, payload) in [
        ("gzip", gzip(&kernel)),
        ("xz", xz(&kernel)),
        ("lz4", lz4(&kernel)),
        ("zstd", zstd(&kernel)),
        ("none", kernel.clone()),
    ] {
        let mut spec = inputs.spec();
        spec.kernel = inputs.write(name, &bzimage(&payload, kernel.len()));
        spec.out = inputs.path(&format!("image-{name}"));
        let Some(image) = pack_or_skip(&spec) else {
            return;
        };
        assert_eq!(fs::read(image.kernel()).expect("read"), kernel, "{name}");
    }
}

#[test]
fn what_cannot_be_packed_is_refused_and_leaves_nothing() {
    fn check(change: impl FnOnce(&Inputs, &mut ImageSpec), expected: &[&str]) {
        let inputs = Inputs::new();
        let mut spec = inputs.spec();
        change(&inputs, &mut spec);
        let before = inputs.names();
        let error = pack(&spec).expect_err("must be refused");
        if matches!(error, Error::Mke2fsMissing { .. }) && !spec.search_path.is_empty() {
            return skipped();
        }
        let text = error.to_string();
        for part in expected {
            assert!(text.contains(part), "{part:?} is not in: {text}");
        }
        assert_eq!(inputs.names(), before, "{text}");
    }

    check(|_, spec| spec.search_path.clear(), &["mke2fs", "e2fsprogs"]);
    check(|_, spec| spec.overlay_mib = 0, &["overlay_mib is 0"]);
    check(
        |_, spec| spec.root_mib = Some(u64::MAX),
        &["root_mib is 18446744073709551615"],
    );
    check(
        |_, spec| spec.cmdline = "a\nb".into(),
        &["control character"],
    );
    check(|_, spec| spec.cmdline = "x".repeat(2048), &["2047"]);

    // The output.
    check(
        |inputs, spec| spec.out = inputs.path("vmlinux"),
        &["vmlinux", "not an empty directory"],
    );
    check(
        |inputs, spec| spec.out = inputs.path("none/image"),
        &["cannot create a directory in"],
    );
    check(
        |inputs, _| {
            inputs.write("image/file", b"");
        },
        &["not an empty directory"],
    );

    // The kernel.
    let kernel = |content: Vec<u8>| {
        move |inputs: &Inputs, spec: &mut ImageSpec| spec.kernel = inputs.write("kernel", &content)
    };
    check(
        |inputs, spec| spec.kernel = inputs.path("none"),
        &["cannot open", "none"],
    );
    check(
        |inputs, spec| spec.kernel = inputs.dir.path().into(),
        &["not a regular file"],
    );
    check(kernel(Vec::new()), &["neither a Linux bzImage nor an ELF"]);
    check(kernel(bzimage(b"BZh9", 9)), &["bzip2", "vmlinux"]);
    check(kernel(bzimage(b"????", 9)), &["begins with"]);
    check(
        kernel(bzimage(&gzip(b"not an ELF"), 10)),
        &["not a usable ELF"],
    );
    check(
        kernel(bzimage(&gzip(&[7; 4096])[..12], 10)),
        &["cannot decompress the kernel"],
    );
    check(kernel(without_note()), &["no PVH entry", "CONFIG_PVH"]);
    check(kernel(b"\x7fELF\x02\x01".to_vec()), &["cut off"]);

    // The modules.
    check(
        |inputs, spec| spec.modules = Some(inputs.modules("m", "overlay")),
        &["module overlay is neither"],
    );
    check(
        |inputs, spec| spec.modules = Some(inputs.path("none")),
        &["modules.builtin", "depmod"],
    );
    check(
        |inputs, spec| {
            spec.kernel = inputs.write(
                "kernel",
                &[&idle_kernel::bytes()[..], b"Linux version 6.1.0-one (x) "].concat(),
            );
            spec.modules = Some(inputs.modules("6.1.0-other", "none"));
        },
        &["6.1.0-other", "not of this kernel", "6.1.0-one"],
    );

    // The guest.
    let guest = |content: Vec<u8>| {
        move |inputs: &Inputs, spec: &mut ImageSpec| spec.guest = inputs.write("guest", &content)
    };
    let build = "cargo rustc --release --bin chv-guest -- -C target-feature=+crt-static";
    check(guest(dynamic()), &["/lib/loader", build]);
    check(guest(idle_kernel::bytes()), &["no chv-guest build id"]);
    check(guest(b"#!/bin/sh\n".to_vec()), &["ELF magic"]);
    check(guest(for_machine(183)), &["another machine", "183"]);

    // The tools file.
    check(
        |inputs, spec| spec.tools = Some(inputs.write("tools", br#"{"tool": {}}"#)),
        &["tools cannot be used"],
    );

    // The root.
    check(
        |inputs, spec| spec.root = RootSource::Tree(inputs.path("none")),
        &["dev, proc, sys, tmp"],
    );
    check(
        |inputs, spec| spec.root = RootSource::Busybox(inputs.write("dynamic", &dynamic())),
        &["dynamic", "busybox-static"],
    );
    check(
        |inputs, spec| spec.tools = Some(inputs.write("tools", &vec![b' '; 65537])),
        &["65537", "65536"],
    );
    check(
        |inputs, spec| {
            inputs.write("big", &vec![1; 8 << 20]);
            for dir in ["dev", "proc", "sys", "tmp"] {
                fs::create_dir_all(inputs.path("tree").join(dir)).expect("made");
            }
            fs::rename(inputs.path("big"), inputs.path("tree/big")).expect("moved");
            spec.root = RootSource::Tree(inputs.path("tree"));
            spec.root_mib = Some(4);
        },
        &["mke2fs failed"],
    );
}

/// The idle kernel with its second program header made one that nobody asks for.
fn without_note() -> Vec<u8> {
    with_second_segment(0x6fff_ffff)
}

/// The idle kernel, asking for a loader where its note was.
fn dynamic() -> Vec<u8> {
    const PT_INTERP: u32 = 3;
    let mut elf = with_second_segment(PT_INTERP);
    elf[0xb0..0xb0 + 12].copy_from_slice(b"/lib/loader\0");
    elf
}

fn with_second_segment(kind: u32) -> Vec<u8> {
    let mut elf = idle_kernel::bytes();
    let second = 64 + 56;
    elf[second..second + 4].copy_from_slice(&kind.to_le_bytes());
    elf
}

fn for_machine(machine: u16) -> Vec<u8> {
    let mut elf = idle_kernel::bytes();
    elf[18..20].copy_from_slice(&machine.to_le_bytes());
    elf
}

/// An image of small files, made without packing.
fn opened(change: impl FnOnce(&Path, &mut serde_json::Value)) -> Result<Image, Error> {
    let dir = tempfile::tempdir().expect("a directory");
    let record = serde_json::json!({"size": 1, "sha256": format!("sha256:{}", "0".repeat(64))});
    let mut manifest = serde_json::json!({
        "format": 1, "cmdline": "quiet", "kernel_release": "6.1.0", "guest_build_id": "id", "modules": [],
        "kernel": record, "initramfs": record, "root": record, "overlay": record,
    });
    for file in ["kernel", "initramfs", "root.img", "overlay.img"] {
        fs::write(dir.path().join(file), "x").expect("written");
    }
    change(dir.path(), &mut manifest);
    if !manifest.is_null() {
        fs::write(dir.path().join("image.json"), manifest.to_string()).expect("written");
    }
    Image::open(dir.path())
}

#[test]
fn an_image_that_is_not_whole_is_not_opened() {
    fn check(change: impl FnOnce(&Path, &mut serde_json::Value), expected: &str) {
        let error = opened(change).expect_err("must be refused");
        let source = std::error::Error::source(&error)
            .map(ToString::to_string)
            .unwrap_or_default();
        let text = format!("{error}: {source}");
        assert!(text.contains(expected), "{expected:?} is not in: {text}");
    }

    let image = opened(|_, _| {}).expect("whole");
    assert_eq!(
        (image.cmdline(), image.manifest().kernel_release.as_deref()),
        ("quiet", Some("6.1.0"))
    );

    check(
        |_, json| *json = serde_json::Value::Null,
        "has no image.json",
    );
    for file in ["kernel", "initramfs", "root.img", "overlay.img"] {
        check(
            |dir, _| fs::remove_file(dir.join(file)).expect("removed"),
            &format!("has no {file}"),
        );
    }
    check(
        |dir, _| {
            fs::remove_file(dir.join("kernel")).expect("removed");
            fs::create_dir(dir.join("kernel")).expect("made");
        },
        "not a regular file",
    );
    check(
        |dir, _| fs::write(dir.join("root.img"), "xx").expect("written"),
        "has size 2, and its manifest says 1",
    );
    check(|_, json| json["format"] = 2.into(), "format is 2");
    check(|_, json| json["more"] = 2.into(), "unknown field `more`");
    check(
        |_, json| json["root"]["more"] = 2.into(),
        "unknown field `more`",
    );
    check(
        |_, json| json["root"]["sha256"] = "sha256:00".into(),
        "no sha256 digest",
    );
    check(
        |_, json| json["root"]["size"] = (-1).into(),
        "invalid value",
    );
    check(
        |_, json| json["guest_build_id"] = "".into(),
        "guest_build_id",
    );
    check(
        |_, json| json["cmdline"] = "a\u{0}".into(),
        "control character",
    );
    check(
        |_, json| drop(json.as_object_mut().expect("an object").remove("overlay")),
        "missing field `overlay`",
    );
    check(
        |_, json| json["cmdline"] = "x".repeat(70_000).into(),
        "at most 65536",
    );
    check(
        |dir, json| {
            let text = json
                .to_string()
                .replacen("\"format\":1", "\"format\":1,\"format\":1", 1);
            fs::write(dir.join("image.json"), text).expect("written");
            *json = serde_json::Value::Null;
        },
        "duplicate field `format`",
    );
}

#[test]
fn a_changed_byte_is_found_by_verify() {
    let inputs = Inputs::new();
    let Some(image) = pack_or_skip(&inputs.spec()) else {
        return;
    };
    let mut disk = fs::read(image.root_disk()).expect("read");
    *disk.last_mut().expect("not empty") ^= 1;
    fs::write(image.root_disk(), disk).expect("written");
    let error = Image::open(image.dir())
        .expect("sizes are right")
        .verify()
        .expect_err("must be found");
    assert!(
        matches!(
            &error,
            Error::FileDiffers {
                field: "sha256",
                ..
            }
        ),
        "{error}"
    );
}
