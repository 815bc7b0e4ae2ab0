//! What the kernel says of a file that it protects itself (fs-verity).

use std::fs::File;

use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

use super::VerityDigest;

/// `FS_VERITY_HASH_ALG_SHA256` of the kernel's `linux/fsverity.h`.
const SHA256: u16 = 1;

/// The kernel's `struct fsverity_digest` with room for a digest of SHA-256.
#[repr(C)]
struct Measured {
    algorithm: u16,
    /// In: how many bytes there is room for. Out: how many there are.
    size: u16,
    digest: [u8; 32],
}

/// `FS_IOC_MEASURE_VERITY`: its number counts the structure without the digest.
const MEASURE: Opcode = opcode::read_write::<[u16; 2]>(b'f', 134);

/// The digest by which the kernel checks every page of the file that is read, or `None` if it checks none: then the
/// file may change.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_that_of_the_kernel() {
        assert_eq!(MEASURE, 0xc004_6686);
    }

    #[test]
    fn a_plain_file_is_not_protected() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(measure(&file), None);
    }
}
