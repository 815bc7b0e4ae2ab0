//! A VM of the idle kernel, for what needs no guest that answers.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use chv_sandbox::api::types::{
    ConsoleConfig, ConsoleMode, CpusConfig, DiskConfig, ImageType, MemoryConfig, PayloadConfig,
    VmConfig, VsockConfig,
};
use chv_sandbox::machine::VmShape;

use chv_sandbox::compat::probe::idle_kernel;

pub(super) const MEMORY: u64 = 64 << 20;

/// A VM with one CPU, a writable disk and a vsock device, whose files are in `folder`.
pub(super) fn config(folder: &Path) -> VmConfig {
    let disk = folder.join("disk.img");
    File::create(&disk).unwrap().set_len(1 << 20).unwrap();
    let disk = DiskConfig {
        id: Some("disk".to_owned()),
        path: Some(utf8(&disk)),
        image_type: Some(ImageType::Raw),
        ..DiskConfig::default()
    };
    VmConfig {
        cpus: Some(CpusConfig::new(1, 1)),
        memory: Some(MemoryConfig::new(MEMORY)),
        payload: Some(PayloadConfig {
            kernel: Some(kernel(folder)),
            ..PayloadConfig::default()
        }),
        disks: Some(vec![disk]),
        vsock: Some(VsockConfig::new(3, utf8(&folder.join("vsock.sock")))),
        console: Some(ConsoleConfig::new(ConsoleMode::Off)),
        ..VmConfig::default()
    }
}

/// The same as a machine has it.
pub(super) fn shape(folder: &Path) -> VmShape {
    VmShape {
        kernel: kernel(folder).into(),
        initramfs: None,
        cmdline: String::new(),
        vcpus: 1,
        memory_mib: MEMORY >> 20,
        cid: 3,
    }
}

/// The URL of an empty folder for a snapshot.
pub(super) fn snapshot_folder(folder: &Path) -> String {
    let into = folder.join("snapshot");
    fs::create_dir(&into).unwrap();
    format!("file://{}", utf8(&into))
}

fn kernel(folder: &Path) -> String {
    let kernel = folder.join("kernel");
    idle_kernel::write(&kernel).unwrap();
    utf8(&kernel)
}

/// A kernel that writes the letter x to the serial port for ever.
pub(super) fn flooding_kernel(folder: &Path) -> PathBuf {
    // mov dx, 0x3f8; mov al, 'x'; out dx, al; and a jump back to the `out`.
    const CODE: [u8; 9] = [0x66, 0xba, 0xf8, 0x03, 0xb0, b'x', 0xee, 0xeb, 0xfd];
    // Where the code begins, and where its length stands, in the file and in memory.
    const CODE_OFFSET: usize = 0x1000;
    const LENGTHS: [usize; 2] = [64 + 32, 64 + 40];
    let mut elf = idle_kernel::bytes();
    elf.truncate(CODE_OFFSET);
    elf.extend(CODE);
    for at in LENGTHS {
        elf[at..at + 8].copy_from_slice(&CODE.len().to_le_bytes());
    }
    let kernel = folder.join("flooding-kernel");
    fs::write(&kernel, elf).unwrap();
    kernel
}

fn utf8(path: &Path) -> String {
    path.to_str()
        .expect("the folder for temporary files is UTF-8")
        .to_owned()
}
