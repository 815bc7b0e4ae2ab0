//! Inputs that can't be packed: each is refused with a clear error and leaves nothing.

use std::{fs, process::Command};

use chv_sandbox::image::{Error, ImageSpec, ModuleSource, RootSource, pack};

use super::{Inputs, bzimage, gzip, idle_kernel, skipped, with_length, xz};

#[test]
fn inputs_that_cannot_be_packed_are_refused_and_leave_nothing() {
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

    for out in [".", "..", "/"] {
        check(|_, spec| spec.out = out.into(), &["no name of its own"]);
    }

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
    check(kernel(bzimage(b"BZh9")), &["bzip2", "vmlinux"]);
    check(kernel(bzimage(b"????")), &["begins with"]);
    check(kernel(bzimage(&gzip(b"not an ELF"))), &["not a usable ELF"]);
    check(
        kernel(bzimage(&gzip(&[7; 4096])[..12])),
        &["cannot decompress the kernel"],
    );
    check(
        kernel(bzimage(&with_length(xz(b"short"), 6))),
        &["cannot decompress the kernel"],
    );
    check(kernel(without_note()), &["no PVH entry", "CONFIG_PVH"]);
    check(kernel(b"\x7fELF\x02\x01".to_vec()), &["cut off"]);

    // The modules.
    check(
        |inputs, spec| spec.modules = ModuleSource::Directory(inputs.modules("m", "overlay")),
        &["module overlay", "run depmod again"],
    );
    check(
        |inputs, spec| spec.modules = ModuleSource::Directory(inputs.path("none")),
        &["cannot read the directory of modules", "none"],
    );
    check(
        |inputs, spec| {
            spec.kernel = inputs.linux(&[]);
            spec.modules = ModuleSource::Directory(inputs.modules("6.1.0-other", "none"));
        },
        &["6.1.0-other", "not of this kernel", "6.1.0-one"],
    );

    let without = |list: &'static str| {
        move |inputs: &Inputs, spec: &mut ImageSpec| {
            let dir = inputs.modules("m", "none");
            fs::remove_file(dir.join(list)).expect("removed");
            spec.modules = ModuleSource::Directory(dir);
        }
    };
    check(without("modules.dep"), &["modules.dep", "depmod -b"]);
    check(
        without("modules.builtin"),
        &["module ext4", "copy modules.builtin"],
    );
    check(
        |inputs, spec| {
            let dir = inputs.modules("m", "none");
            inputs.write("m/modules.dep", b"overlay.ko: ../../overlay.ko\n");
            spec.modules = ModuleSource::Directory(dir);
        },
        &["modules.dep", "line 1", "../../overlay.ko"],
    );
    check(
        |inputs, spec| {
            let dir = inputs.modules("m", "none");
            let module = [xz(b"\x7fELF module"), b"garbage".to_vec()].concat();
            inputs.write("m/virtio.ko.xz", &module);
            spec.modules = ModuleSource::Directory(dir);
        },
        &["cannot decompress the module", "virtio.ko.xz"],
    );
    check(
        |inputs, spec| spec.kernel = inputs.linux(&[b"virtio-pci\0", b"EXT4-fs"]),
        &[
            "virtio_blk, vmw_vsock_virtio_transport, overlay",
            "lib/modules/6.1.0-one",
        ],
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
            for dir in ["dev", "proc", "sys", "tmp"] {
                fs::create_dir_all(inputs.path(dir)).expect("made");
            }
            spec.root = RootSource::Tree(inputs.dir.path().into());
        },
        &["the output lies in the tree"],
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
        &["does not fit into a root disk of 4 MiB; 9 MiB are enough"],
    );
}

/// The idle kernel with an unknown type for its second program header, which is the note.
fn without_note() -> Vec<u8> {
    with_second_segment(0x6fff_ffff)
}

/// The idle kernel with a request for a loader in the place of its note.
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

#[test]
fn the_command_says_how_a_static_guest_is_built() {
    let inputs = Inputs::new();
    let output = Command::new(env!("CARGO_BIN_EXE_chv-sandbox"))
        .arg("image")
        .arg("--kernel")
        .arg(inputs.path("vmlinux"))
        .arg("--busybox")
        .arg(inputs.path("busybox"))
        .arg("--guest")
        .arg(inputs.write("guest", &dynamic()))
        .arg("--out")
        .arg(inputs.path("image"))
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    let build = "cargo rustc --release --bin chv-guest -- -C target-feature=+crt-static";
    assert!(text.contains(build), "{text}");
}
