//! The kernel's own fs-verity: reads the digest of a protected file ([`measure`]) and protects a file ([`enable`]).

use std::fs::File;

use rustix::io::Errno;
use rustix::ioctl::{Opcode, Setter, Updater, ioctl, opcode};

use super::VerityDigest;

/// `FS_VERITY_HASH_ALG_SHA256` of the kernel's `linux/fsverity.h`.
const SHA256: u16 = 1;

/// The kernel's `struct fsverity_digest` with room for a digest of SHA-256.
#[repr(C)]
struct Measured {
    algorithm: u16,
    /// In: the size of the buffer in bytes. Out: the size of the digest.
    size: u16,
    digest: [u8; 32],
}

/// `FS_IOC_MEASURE_VERITY`. The ioctl number encodes the size of the structure without the digest.
const MEASURE: Opcode = opcode::read_write::<[u16; 2]>(b'f', 134);

/// The SHA-256 fs-verity digest against which the kernel checks every page that is read from the file. `None` if the
/// file isn't protected with SHA-256, in which case it may change.
pub(super) fn measure(file: &File) -> Option<VerityDigest> {
    let mut measured = Measured {
        algorithm: 0,
        size: 32,
        digest: [0; 32],
    };
    // SAFETY: the kernel reads and writes a `struct fsverity_digest` followed by as many bytes as its size field
    // says, and fails with EOVERFLOW where a digest is longer. `Measured` has that layout.
    let done = unsafe { ioctl(file, Updater::<MEASURE, Measured>::new(&mut measured)) };
    (done.is_ok() && measured.algorithm == SHA256 && measured.size == 32)
        .then(|| VerityDigest::from(measured.digest))
}

/// The kernel's `struct fsverity_enable_arg`.
#[repr(C)]
struct Enable {
    version: u32,
    algorithm: u32,
    block_size: u32,
    salt_size: u32,
    salt: u64,
    signature_size: u32,
    reserved1: u32,
    signature: u64,
    reserved2: [u64; 11],
}

/// `FS_IOC_ENABLE_VERITY`.
const ENABLE: Opcode = opcode::write::<Enable>(b'f', 133);

/// Protects a file by fs-verity, with SHA-256, blocks of 4 KiB and no salt. No process may have the file open for
/// writing, and the file can never be written to again.
pub(crate) fn enable(file: &File) -> Result<(), Errno> {
    let argument = Enable {
        version: 1,
        algorithm: u32::from(SHA256),
        block_size: 4096,
        salt_size: 0,
        salt: 0,
        signature_size: 0,
        reserved1: 0,
        signature: 0,
        reserved2: [0; 11],
    };
    // SAFETY: the kernel reads a `struct fsverity_enable_arg`, whose layout `Enable` has, and follows neither of its
    // pointers, since both sizes are 0.
    unsafe { ioctl(file, Setter::<ENABLE, Enable>::new(argument)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_kernel() {
        assert_eq!(MEASURE, 0xc004_6686);
        assert_eq!(ENABLE, 0x4080_6685);
    }

    #[test]
    fn a_plain_file_is_not_protected() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(measure(&file), None);
    }
}
