//! The smallest kernel that a VMM can boot. It disables interrupts and halts.
//!
//! With it, the real API of a real VMM (create, boot, pause, reboot, hot-plug, delete) can be tested on machines whose
//! KVM can't run a stock kernel. The bytes are written by this module, so that no binary is committed.
//! The module is public for the tests and benchmarks of this crate only.

use std::{fs, io, path::Path};

/// The guest physical address at which the code is loaded and entered.
const ENTRY: u32 = 0x20_0000;
/// The offset of the code in the file. The offset of a loadable segment must be congruent with its address, so the code
/// is on a page of its own.
const CODE_OFFSET: u64 = 0x1000;
/// `cli`, `hlt`, and a jump back to `hlt`, because an NMI ends `hlt` even with interrupts disabled.
const CODE: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfd];

const ELF_HEADER_LEN: u16 = 64;
const PROGRAM_HEADER_LEN: u16 = 56;
const PROGRAM_HEADERS: u16 = 2;
const NOTE_OFFSET: u64 = ELF_HEADER_LEN as u64 + PROGRAM_HEADERS as u64 * PROGRAM_HEADER_LEN as u64;

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// The Xen note with the 32-bit entry point of the PVH boot protocol.
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;

/// Writes the kernel to `path`, and replaces an existing file.
///
/// # Errors
///
/// The error of the kernel of the host, if the file can't be written.
pub fn write(path: &Path) -> io::Result<()> {
    fs::write(path, bytes())
}

/// Returns the bytes of the kernel: ELF header, two program headers, PVH note, and the code on the next page.
pub fn bytes() -> Vec<u8> {
    let note = note();
    let mut elf = header();
    elf.extend(program_header(
        PT_LOAD,
        CODE_OFFSET,
        ENTRY,
        CODE.len(),
        0x1000,
    ));
    elf.extend(program_header(PT_NOTE, NOTE_OFFSET, 0, note.len(), 4));
    elf.extend(note);
    elf.resize(CODE_OFFSET as usize, 0);
    elf.extend(CODE);
    elf
}

fn header() -> Vec<u8> {
    const CLASS_64: u8 = 2;
    const LITTLE_ENDIAN: u8 = 1;
    const VERSION: u8 = 1;
    const TYPE_EXECUTABLE: u16 = 2;
    const MACHINE_X86_64: u16 = 62;

    let mut header = Vec::new();
    header.extend(*b"\x7fELF");
    header.extend([CLASS_64, LITTLE_ENDIAN, VERSION]);
    header.extend([0; 9]); // System V ABI and padding.
    header.extend(TYPE_EXECUTABLE.to_le_bytes());
    header.extend(MACHINE_X86_64.to_le_bytes());
    header.extend(u32::from(VERSION).to_le_bytes());
    header.extend(u64::from(ENTRY).to_le_bytes());
    header.extend(u64::from(ELF_HEADER_LEN).to_le_bytes()); // Program headers follow at once.
    header.extend(0u64.to_le_bytes()); // No section headers.
    header.extend(0u32.to_le_bytes()); // No flags.
    for count in [ELF_HEADER_LEN, PROGRAM_HEADER_LEN, PROGRAM_HEADERS, 0, 0, 0] {
        header.extend(count.to_le_bytes());
    }
    header
}

fn program_header(kind: u32, offset: u64, address: u32, len: usize, align: u64) -> Vec<u8> {
    const READ_EXECUTE: u32 = 5;

    let mut header = Vec::new();
    header.extend(kind.to_le_bytes());
    header.extend(READ_EXECUTE.to_le_bytes());
    for field in [
        offset,
        address.into(),
        address.into(),
        len as u64,
        len as u64,
        align,
    ] {
        header.extend(field.to_le_bytes());
    }
    header
}

fn note() -> Vec<u8> {
    let mut note = Vec::new();
    for word in [4, 4, XEN_ELFNOTE_PHYS32_ENTRY] {
        note.extend(word.to_le_bytes());
    }
    note.extend(*b"Xen\0");
    note.extend(ENTRY.to_le_bytes());
    note
}
