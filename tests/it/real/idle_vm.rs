//! A VM that runs the idle kernel, for tests that need no guest that answers.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use chv_sandbox::api::types::{
    ConsoleConfig, ConsoleMode, CpusConfig, DiskConfig, ImageType, MemoryConfig, PayloadConfig,
    VmConfig, VsockConfig,
};
use chv_sandbox::machine::{VmShape, VmmFiles};

use chv_sandbox::compat::probe::idle_kernel;

pub(super) const MEMORY: u64 = 64 << 20;

/// The configuration of a VM with one CPU, a writable disk and a vsock device, whose files are in `folder`.
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

/// The same VM as the shape of a machine.
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

/// Lets the VMM of a machine make all of its files in `folder`.
pub(super) fn files(folder: &Path) -> VmmFiles {
    VmmFiles {
        writes: vec![folder.to_owned()],
        // More than any VM here has.
        largest: 64 << 30,
        ..VmmFiles::default()
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

/// Writes a kernel that writes the letter x to the serial port without end.
pub(super) fn flooding_kernel(folder: &Path) -> PathBuf {
    // mov dx, 0x3f8; mov al, 'x'; out dx, al; and a jump back to the `out`.
    const CODE: [u8; 9] = [0x66, 0xba, 0xf8, 0x03, 0xb0, b'x', 0xee, 0xeb, 0xfd];
    kernel_of(&CODE, &folder.join("flooding-kernel"))
}

/// Writes a kernel that stores L in the first byte of memory and H in the byte at 4 GiB, and then repeatedly reads both
/// and writes them, with a newline, to the serial port.
pub(super) fn two_regions_kernel(folder: &Path) -> PathBuf {
    #[rustfmt::skip]
    const CODE: [u8; 156] = [
        // Page tables at 0x300000 (PAE, pages of 2 MiB), cleared first. They map the first 16 MiB to themselves, and 3
        // GiB to 4 GiB.
        0xbf, 0x00, 0x00, 0x30, 0x00, // mov edi, 0x300000
        0x31, 0xc0, // xor eax, eax
        0xb9, 0x00, 0x0c, 0x00, 0x00, // mov ecx, 0xc00
        0xf3, 0xab, // rep stosd
        0xc7, 0x05, 0x00, 0x00, 0x30, 0x00, 0x01, 0x10, 0x30, 0x00, // mov dword [0x300000], 0x301001
        0xc7, 0x05, 0x18, 0x00, 0x30, 0x00, 0x01, 0x20, 0x30, 0x00, // mov dword [0x300018], 0x302001
        0xbf, 0x00, 0x10, 0x30, 0x00, // mov edi, 0x301000
        0xb8, 0x83, 0x00, 0x00, 0x00, // mov eax, 0x83
        0xb9, 0x08, 0x00, 0x00, 0x00, // mov ecx, 8
        0x89, 0x07, // mov [edi], eax
        0x05, 0x00, 0x00, 0x20, 0x00, // add eax, 0x200000
        0x83, 0xc7, 0x08, // add edi, 8
        0xe2, 0xf4, // loop to the mov
        0xc7, 0x05, 0x00, 0x20, 0x30, 0x00, 0x83, 0x00, 0x00, 0x00, // mov dword [0x302000], 0x83
        0xc7, 0x05, 0x04, 0x20, 0x30, 0x00, 0x01, 0x00, 0x00, 0x00, // mov dword [0x302004], 1
        0x0f, 0x20, 0xe0, 0x83, 0xc8, 0x20, 0x0f, 0x22, 0xe0, // or cr4, PAE
        0xb8, 0x00, 0x00, 0x30, 0x00, 0x0f, 0x22, 0xd8, // mov cr3, 0x300000
        0x0f, 0x20, 0xc0, 0x0d, 0x00, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc0, // or cr0, PG
        0xeb, 0x00, // jump to the next instruction
        0xc6, 0x05, 0x00, 0x00, 0x00, 0x00, b'L', // mov byte [0], 'L'
        0xc6, 0x05, 0x00, 0x00, 0x00, 0xc0, b'H', // mov byte [0xc0000000], 'H'
        0xba, 0xf8, 0x03, 0x00, 0x00, // mov edx, 0x3f8
        0xa0, 0x00, 0x00, 0x00, 0x00, 0xee, // mov al, [0]; out dx, al
        0xa0, 0x00, 0x00, 0x00, 0xc0, 0xee, // mov al, [0xc0000000]; out dx, al
        0xb0, b'\n', 0xee, // mov al, '\n'; out dx, al
        0xb9, 0x00, 0x00, 0x20, 0x00, // mov ecx, 0x200000
        0xf3, 0x90, // pause
        0xe2, 0xfc, // loop to the pause
        0xeb, 0xe6, // jump to the first read
    ];
    kernel_of(&CODE, &folder.join("two-regions-kernel"))
}

/// Writes the idle kernel with other code.
fn kernel_of(code: &[u8], path: &Path) -> PathBuf {
    // Where the code begins, and where the program header has its lengths in the file and in memory.
    const CODE_OFFSET: usize = 0x1000;
    const LENGTHS: [usize; 2] = [64 + 32, 64 + 40];
    let mut elf = idle_kernel::bytes();
    elf.truncate(CODE_OFFSET);
    elf.extend(code);
    for at in LENGTHS {
        elf[at..at + 8].copy_from_slice(&code.len().to_le_bytes());
    }
    fs::write(path, elf).unwrap();
    path.to_owned()
}

fn utf8(path: &Path) -> String {
    path.to_str()
        .expect("the folder for temporary files is UTF-8")
        .to_owned()
}
