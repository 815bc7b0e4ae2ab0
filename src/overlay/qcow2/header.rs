//! Parses the header of a qcow2 image strictly, from a bounded number of bytes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::overlay::DiskFormat;

/// Why an image can't be used as a qcow2 disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// It doesn't begin with qcow2's magic number.
    #[error("it has no qcow2 header")]
    NoHeader,
    /// The header contradicts itself or the file.
    #[error("its header is malformed: {0}")]
    Malformed(&'static str),
    /// A version other than 2 and 3.
    #[error("it is of version {0}, not 2 or 3")]
    Version(u32),
    /// Its clusters are encrypted, for which a key would have to be given.
    #[error("it is encrypted")]
    Encrypted,
    /// The dirty bit is set: the last writer didn't close the image, or it is open now. A VMM that opens it changes it.
    #[error("it is marked as in use: it was not closed cleanly, or is open now")]
    Dirty,
    /// The corrupt bit is set: a program that wrote to the image found damage.
    #[error("it is marked as corrupt")]
    Corrupt,
    /// Its data lies in another file, which no digest here would cover.
    #[error("its data lies in an external file")]
    ExternalData,
    /// It uses incompatible features that this parser doesn't know.
    #[error("it needs unknown features: bits {0:#x}")]
    Features(u64),
    /// It holds internal snapshots, which a VMM doesn't keep intact.
    #[error("it has {0} internal snapshots")]
    Snapshots(u32),
    /// The backing file's name isn't an absolute path in UTF-8.
    #[error(
        "its backing file {0:?} is not named by an absolute path (`qemu-img rebase -u -b` changes the name)"
    )]
    BackingNotAbsolute(String),
    /// It doesn't state the format of its backing file, so the VMM would guess it.
    #[error("it does not state the format of its backing file (`qemu-img rebase -u -F` sets it)")]
    BackingFormatMissing,
    /// The stated format of the backing file is neither raw nor qcow2.
    #[error("the stated format of its backing file is {0:?}, not raw or qcow2")]
    BackingFormat(String),
    /// The backing file is stated to be raw, but begins like a qcow2 image, so a VMM may read it as one.
    #[error("its backing file {0:?} is stated to be raw, but has a qcow2 header")]
    NotRaw(PathBuf),
    /// A file is in the chain twice, under one name or two.
    #[error("its chain of backing files contains {0:?} twice")]
    Cycle(PathBuf),
    /// The chain has more than 8 backing files.
    #[error("its chain has more than {limit} backing files", limit = MAX_BACKING)]
    TooDeep,
    /// A writable image of version 3. See the [module](super).
    #[error(
        "it is of version 3, and a VMM changes the header of a version 3 image when it opens it, so its digest would differ (`qemu-img amend -o compat=0.10` makes it version 2)"
    )]
    ChangedByOpening,
}

/// The fields of an image's header that are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// 2 or 3.
    pub(super) version: u32,
    /// The length of the disk, in bytes.
    pub(super) disk_length: u64,
    pub(super) cluster_length: u64,
    /// The backing file, with its format.
    pub(super) backing: Option<(PathBuf, DiskFormat)>,
}

/// The most backing files in a chain. Cloud Hypervisor accepts 10 (v51.2, `block/src/qcow/mod.rs`).
pub(super) const MAX_BACKING: usize = 8;

/// The first four bytes of a qcow2 image.
const MAGIC: &[u8] = b"QFI\xfb";

/// How many bytes are read. Header, extensions and the backing file's name lie in the first cluster, and in practice in
/// its first KiB.
const MAX_BYTES: usize = 64 << 10;

const VERSION_2_LENGTH: usize = 72;
const VERSION_3_LENGTH: usize = 104;

/// The longest name that the format allows, in bytes.
const MAX_NAME: usize = 1023;

/// The most extensions that are accepted. QEMU writes three.
const MAX_EXTENSIONS: usize = 64;

/// The type of the extension that holds the name of the backing file's format.
const BACKING_FORMAT: u32 = 0xe279_2aca;

/// Bits of the incompatible features.
const DIRTY: u64 = 1 << 0;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
/// The compression type differs from zlib. A VMM that supports the type can read the clusters.
const COMPRESSION: u64 = 1 << 3;

/// Whether `file` begins like a qcow2 image.
pub(super) fn has_magic(file: &File) -> io::Result<bool> {
    let mut start = [0; MAGIC.len()];
    match file.read_exact_at(&mut start, 0) {
        Ok(()) => Ok(start == MAGIC),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads the first bytes of `file`, at most 64 KiB.
pub(super) fn read_start(file: &File) -> io::Result<Vec<u8>> {
    let mut start = vec![0; MAX_BYTES];
    let mut length = 0;
    while length < start.len() {
        match file.read_at(&mut start[length..], length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    start.truncate(length);
    Ok(start)
}

impl Header {
    /// Parses the header in `start`, which has the first 64 KiB of the image or all of a shorter one.
    pub(super) fn parse(start: &[u8]) -> Result<Header, Problem> {
        if !start.starts_with(MAGIC) {
            return Err(Problem::NoHeader);
        }
        let fields = Fields(start);
        let version = fields.u32(4)?;
        let length = match version {
            2 => VERSION_2_LENGTH,
            3 => fields.u32(100)? as usize,
            _ => return Err(Problem::Version(version)),
        };
        if version == 3 && (length < VERSION_3_LENGTH || !length.is_multiple_of(8)) {
            return Err(Problem::Malformed("the header's length"));
        }
        let cluster_bits = fields.u32(20)?;
        if !(9..=21).contains(&cluster_bits) {
            return Err(Problem::Malformed("the size of a cluster"));
        }
        if fields.u32(32)? != 0 {
            return Err(Problem::Encrypted);
        }
        if version == 3 {
            check_features(fields.u64(72)?)?;
        }
        match fields.u32(60)? {
            0 => {}
            snapshots => return Err(Problem::Snapshots(snapshots)),
        }
        // The whole header lies in the first cluster.
        let first_cluster = Fields(&start[..start.len().min(1 << cluster_bits)]);
        Ok(Header {
            version,
            disk_length: fields.u64(24)?,
            cluster_length: 1 << cluster_bits,
            backing: first_cluster.backing(length)?,
        })
    }
}

fn check_features(features: u64) -> Result<(), Problem> {
    let unknown = features & !(DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION);
    match features {
        _ if unknown != 0 => Err(Problem::Features(unknown)),
        _ if features & CORRUPT != 0 => Err(Problem::Corrupt),
        _ if features & DIRTY != 0 => Err(Problem::Dirty),
        _ if features & EXTERNAL_DATA != 0 => Err(Problem::ExternalData),
        _ => Ok(()),
    }
}

/// Reads big-endian numbers and byte strings at offsets, which may lie outside the bytes.
#[derive(Clone, Copy)]
struct Fields<'bytes>(&'bytes [u8]);

impl<'bytes> Fields<'bytes> {
    fn slice(self, offset: usize, length: usize) -> Result<&'bytes [u8], Problem> {
        let end = offset.checked_add(length);
        end.and_then(|end| self.0.get(offset..end))
            .ok_or(Problem::Malformed("it ends within its header"))
    }

    fn array<const N: usize>(self, offset: usize) -> Result<[u8; N], Problem> {
        let mut array = [0; N];
        array.copy_from_slice(self.slice(offset, N)?);
        Ok(array)
    }

    fn u32(self, offset: usize) -> Result<u32, Problem> {
        self.array(offset).map(u32::from_be_bytes)
    }

    fn u64(self, offset: usize) -> Result<u64, Problem> {
        self.array(offset).map(u64::from_be_bytes)
    }

    /// The backing file, if there is one. The extensions begin at `extensions`.
    fn backing(self, extensions: usize) -> Result<Option<(PathBuf, DiskFormat)>, Problem> {
        let (offset, length) = (self.u64(8)?, self.u32(16)? as usize);
        match (offset, length) {
            (0, 0) => return Ok(None),
            (0, _) | (_, 0) => {
                return Err(Problem::Malformed("half of the backing file's name"));
            }
            (_, length) if length > MAX_NAME => {
                return Err(Problem::Malformed("the length of the backing file's name"));
            }
            _ => {}
        }
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        if offset < extensions {
            return Err(Problem::Malformed("the place of the backing file's name"));
        }
        let name = self.slice(offset, length)?;
        let path = match std::str::from_utf8(name) {
            Ok(name) if Path::new(name).is_absolute() && !name.contains('\0') => name.into(),
            _ => {
                let name = String::from_utf8_lossy(name).into_owned();
                return Err(Problem::BackingNotAbsolute(name));
            }
        };
        let format = self.extension(extensions, offset, BACKING_FORMAT)?;
        let format = match format.ok_or(Problem::BackingFormatMissing)? {
            b"raw" => DiskFormat::Raw,
            b"qcow2" => DiskFormat::Qcow2,
            other => {
                let name = String::from_utf8_lossy(other).into_owned();
                return Err(Problem::BackingFormat(name));
            }
        };
        Ok(Some((path, format)))
    }

    /// The content of the extension of type `wanted`, if there is one between `from` and `until`. Two of them are an
    /// error, because VMMs may differ in which one they use.
    fn extension(
        self,
        from: usize,
        until: usize,
        wanted: u32,
    ) -> Result<Option<&'bytes [u8]>, Problem> {
        let mut found = None;
        let mut offset = from;
        for _ in 0..MAX_EXTENSIONS {
            // The list of extensions may end without an end marker, where the name begins.
            if offset >= until {
                return Ok(found);
            }
            let (kind, length) = (self.u32(offset)?, self.u32(offset + 4)? as usize);
            if kind == 0 {
                return Ok(found);
            }
            let content = self.slice(offset + 8, length)?;
            if kind == wanted && found.replace(content).is_some() {
                return Err(Problem::Malformed("two formats of the backing file"));
            }
            offset += 8 + length.next_multiple_of(8);
        }
        Err(Problem::Malformed("the number of its extensions"))
    }
}
