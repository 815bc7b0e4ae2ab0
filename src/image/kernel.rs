//! [`Kernel`]: reads a kernel, extracts it from a bzImage if necessary, and checks that the VMM can boot it.

use std::{io, path::Path};

use super::{
    Error,
    compression::Compression,
    elf::{self, Elf},
    input::{self, MIB, u16_at, u32_at},
};

/// The largest kernel file that is accepted, in bytes.
const FILE_LIMIT: u64 = 256 * MIB;
/// The largest decompressed kernel that is accepted, in bytes.
const KERNEL_LIMIT: u64 = 512 * MIB;
/// The owner and type of the note that holds the PVH entry point (Xen's elfnote.h).
const PVH_NOTE: (&[u8], u32) = (b"Xen\0", 18);
/// The beginning of the banner that every Linux kernel has; the release follows.
const BANNER: &[u8] = b"Linux version ";
/// A release is a `uname` field: 64 characters and a NUL.
const RELEASE_LIMIT: usize = 64;

/// A kernel that the VMM can boot.
pub(super) struct Kernel {
    /// The uncompressed ELF.
    pub(super) elf: Vec<u8>,
    /// The release, as `uname -r` prints it; `None` for a kernel that isn't Linux.
    pub(super) release: Option<String>,
}

impl Kernel {
    /// Reads the kernel at `path`: a bzImage (`vmlinuz`) or an uncompressed ELF (`vmlinux`).
    pub(super) fn read(path: &Path) -> Result<Kernel, Error> {
        let bytes = input::read(path, FILE_LIMIT)?;
        let elf = if bytes.starts_with(elf::MAGIC) {
            bytes
        } else {
            decompress(
                payload(&bytes).ok_or_else(|| Error::NotKernel { path: path.into() })?,
                path,
            )?
        };
        if !Elf::parse(&elf, path)?.has_note(PVH_NOTE.0, PVH_NOTE.1) {
            return Err(Error::NoPvhEntry { path: path.into() });
        }
        let release = release(&elf);
        Ok(Kernel { elf, release })
    }

    /// Whether the kernel contains these bytes, which must not be empty.
    pub(super) fn contains(&self, bytes: &[u8]) -> bool {
        find_all(&self.elf, bytes).next().is_some()
    }
}

/// The compressed kernel inside a bzImage, by the fields of its setup header (Documentation/arch/x86/boot.rst).
fn payload(image: &[u8]) -> Option<&[u8]> {
    const SETUP_SECTORS: usize = 0x1f1;
    const MAGIC: usize = 0x202;
    const PROTOCOL: usize = 0x206;
    const PAYLOAD_OFFSET: usize = 0x248;
    const PAYLOAD_LENGTH: usize = 0x24c;
    /// The first boot protocol whose header has the place of the payload.
    const PROTOCOL_2_08: u16 = 0x208;

    if image.get(MAGIC..MAGIC + 4)? != b"HdrS" || u16_at(image, PROTOCOL)? < PROTOCOL_2_08 {
        return None;
    }
    let sectors = match image[SETUP_SECTORS] {
        0 => 4, // The default of old kernels.
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * 512 + u32_at(image, PAYLOAD_OFFSET)? as usize;
    let len = u32_at(image, PAYLOAD_LENGTH)? as usize;
    image.get(start..start.checked_add(len)?)
}

/// Decompresses a payload. Its last four bytes are the kernel's length modulo 2^32. The kernel's build appends them,
/// except for gzip, whose members each end in their own length.
fn decompress(payload: &[u8], path: &Path) -> Result<Vec<u8>, Error> {
    let compression = Compression::detect(payload).ok_or_else(|| Error::KernelCompression {
        path: path.into(),
        found: match payload {
            [b'B', b'Z', b'h', ..] => "bzip2".to_owned(),
            [0x5d, 0, 0, ..] => "lzma".to_owned(),
            [0x89, b'L', b'Z', b'O', ..] => "lzo".to_owned(),
            other => format!("it begins with {:02x?}", &other[..other.len().min(6)]),
        },
    })?;
    let decompressed = match (compression, payload.split_last_chunk()) {
        (Compression::Gzip, _) | (_, None) => compression.decompress(payload, KERNEL_LIMIT),
        (_, Some((streams, &length))) => compression
            .decompress(streams, KERNEL_LIMIT)
            .and_then(|elf| check_length(elf, u32::from_le_bytes(length))),
    };
    decompressed.map_err(|source| Error::Decompress {
        what: "the kernel",
        path: path.into(),
        source,
    })
}

fn check_length(elf: Vec<u8>, expected: u32) -> io::Result<Vec<u8>> {
    if elf.len() as u32 == expected {
        return Ok(elf);
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "it has {} bytes, and its end says {expected} (modulo 2^32)",
            elf.len()
        ),
    ))
}

fn release(elf: &[u8]) -> Option<String> {
    find_all(elf, BANNER).find_map(|at| {
        let rest = &elf[at + BANNER.len()..];
        let end = rest
            .iter()
            .take(RELEASE_LIMIT + 1)
            .position(|&b| b == b' ')?;
        let release = std::str::from_utf8(&rest[..end]).ok()?;
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-+_~".contains(c);
        (release.starts_with(|c: char| c.is_ascii_digit()) && release.chars().all(plain))
            .then(|| release.to_owned())
    })
}

/// The offsets of `needle`, which must not be empty, in `haystack`.
pub(super) fn find_all<'a>(
    haystack: &'a [u8],
    needle: &'a [u8],
) -> impl Iterator<Item = usize> + 'a {
    let first = needle[0];
    haystack
        .iter()
        .enumerate()
        .filter(move |&(at, &byte)| byte == first && haystack[at..].starts_with(needle))
        .map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_follows_the_banner() {
        let check =
            |bytes: &[u8], expected: Option<&str>| assert_eq!(release(bytes).as_deref(), expected);
        check(
            b"..Linux version 6.1.0-56-cloud-amd64 (someone) #1",
            Some("6.1.0-56-cloud-amd64"),
        );
        check(
            b"Linux version %s (%s)..Linux version 5.10.0 x",
            Some("5.10.0"),
        );
        check(b"Linux version 6.1.0", None);
        check(b"Linux version 6/../1 (x)", None);
        check(b"Linux version ", None);
        check(b"", None);
    }

    #[test]
    fn a_short_or_wrong_header_is_no_bzimage() {
        assert_eq!(payload(b""), None);
        assert_eq!(payload(&[0; 0x400]), None);
        let mut image = vec![0; 0x400];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206] = 0x0f;
        image[0x207] = 2;
        image[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(payload(&image), None, "a payload beyond the end");
    }
}
