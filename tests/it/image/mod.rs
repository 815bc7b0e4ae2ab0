//! Packing and opening images. The kernels, modules and guests are made by the tests.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use chv_sandbox::image::{Error, Image, ImageSpec, ModuleSource, RootSource, pack};
use tempfile::TempDir;

use chv_sandbox::compat::probe::idle_kernel;

mod oci;
mod opened;
mod refused;
mod roots;

/// A folder with every input of an image.
struct Inputs {
    dir: TempDir,
}

impl Inputs {
    fn new() -> Inputs {
        let inputs = Inputs {
            dir: tempfile::tempdir().expect("a directory"),
        };
        idle_kernel::write(&inputs.path("vmlinux")).expect("written");
        // This ELF is never run, so only its headers matter. The idle kernel is a static x86-64 program like a guest.
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

    /// A kernel that says it is Linux, with traces of the drivers that are built in.
    fn linux(&self, traces: &[&[u8]]) -> PathBuf {
        let kernel = idle_kernel::bytes();
        let banner = b"Linux version 6.1.0-one (x) ";
        self.write("linux", &[&kernel, &banner[..], &traces.concat()].concat())
    }

    /// The modules that a guest needs, with a line of `modules.dep` for each.
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

    /// The names in the folder, by which a test sees that a failure left nothing.
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

/// A compressed stream followed by the length of its content. The kernel's build appends that length to formats that
/// don't end with it.
fn with_length(mut stream: Vec<u8>, decompressed: usize) -> Vec<u8> {
    stream.extend((decompressed as u32).to_le_bytes());
    stream
}

/// A bzImage around a payload: two sectors of setup code with the header's fields, then the payload.
fn bzimage(payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 1024];
    image[0x1f1] = 1;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
    image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    image.extend(payload);
    image
}

fn skipped() {
    skip("mke2fs (package e2fsprogs) is not installed");
}

#[expect(
    clippy::print_stderr,
    reason = "the output says which tests were skipped"
)]
fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
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
    spec.modules = ModuleSource::Directory(inputs.modules("modules", "none"));
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
fn every_stream_of_a_module_is_packed() {
    let inputs = Inputs::new();
    let mut spec = inputs.spec();
    spec.modules = ModuleSource::Directory(inputs.modules("modules", "none"));
    let halves = [&b"\x7fELF the first half, "[..], b"the second half"];
    let skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc".to_vec();
    for (file, streams) in [
        ("virtio.ko.xz", halves.map(xz).concat()),
        ("virtio_pci.ko.gz", halves.map(gzip).concat()),
        (
            "vmw_vsock_virtio_transport.ko.zst",
            [skippable, halves.map(zstd).concat()].concat(),
        ),
    ] {
        inputs.write(&format!("modules/{file}"), &streams);
    }
    let Some(image) = pack_or_skip(&spec) else {
        return;
    };
    let initramfs = fs::read(image.initramfs()).expect("read");
    let whole = halves.concat();
    let found = initramfs
        .windows(whole.len())
        .filter(|window| *window == whole);
    assert_eq!(found.count(), 3);
}

#[test]
fn a_kernel_with_all_built_in_needs_no_modules() {
    let inputs = Inputs::new();
    let mut spec = inputs.spec();
    spec.kernel = inputs.linux(&[
        b"virtio-pci\0",
        b"virtio_blk\0",
        b"vmw_vsock_virtio_transport\0",
        b"EXT4-fs",
        b"overlayfs: ",
    ]);
    let Some(image) = pack_or_skip(&spec) else {
        return;
    };
    assert!(image.manifest().modules.is_empty());

    // A kernel that shows no built-in drivers is accepted if the caller asks for that.
    spec.kernel = inputs.linux(&[]);
    spec.modules = ModuleSource::AssumeBuiltIn;
    spec.out = inputs.path("assumed");
    let image = pack(&spec).expect("packed before");
    assert!(image.manifest().modules.is_empty());
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let inputs = Inputs::new();
    let mut spec = inputs.spec();
    spec.modules = ModuleSource::Directory(inputs.modules("modules", "none"));
    let Some(one) = pack_or_skip(&spec) else {
        return;
    };
    spec.out = inputs.path("other");
    // An empty output directory is accepted like a missing one.
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
fn the_build_id_of_the_real_guest_is_found() {
    const PT_INTERP: u32 = 3;
    const PT_NULL: u32 = 0;
    let inputs = Inputs::new();
    let mut program = fs::read(env!("CARGO_BIN_EXE_chv-guest")).expect("built");
    // The guest that is built for the tests is linked dynamically. Without its request for a loader it passes as
    // static.
    let headers = u64::from_le_bytes(program[32..40].try_into().expect("eight bytes")) as usize;
    let count = u16::from_le_bytes(program[56..58].try_into().expect("two bytes")) as usize;
    for header in (0..count).map(|index| headers + index * 56) {
        if program[header..header + 4] == PT_INTERP.to_le_bytes() {
            program[header..header + 4].copy_from_slice(&PT_NULL.to_le_bytes());
        }
    }
    let mut spec = inputs.spec();
    spec.guest = inputs.write("guest", &program);
    let Some(image) = pack_or_skip(&spec) else {
        return;
    };
    assert_eq!(
        image.manifest().guest_build_id,
        chv_sandbox::guest::BUILD_ID
    );
}

#[test]
fn a_bzimage_of_each_compression_gives_its_kernel() {
    let inputs = Inputs::new();
    let kernel = idle_kernel::bytes();
    let len = kernel.len();
    for (name, payload) in [
        ("gzip", gzip(&kernel)),
        ("xz", with_length(xz(&kernel), len)),
        ("lz4", with_length(lz4(&kernel), len)),
        ("zstd", with_length(zstd(&kernel), len)),
    ] {
        let mut spec = inputs.spec();
        spec.kernel = inputs.write(name, &bzimage(&payload));
        spec.out = inputs.path(&format!("image-{name}"));
        let Some(image) = pack_or_skip(&spec) else {
            return;
        };
        assert_eq!(fs::read(image.kernel()).expect("read"), kernel, "{name}");
    }
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
