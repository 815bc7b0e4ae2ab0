//! [`Manifest`]: the content of `image.json`, which is parsed strictly.

use std::{fs::File, io::Read, path::Path};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Error, guest::BUILD_ID_LIMIT, input, oci::ContainerRecord, stop::Stop};
use crate::digest::Digest;

/// The format that is written, and the only one that is read.
pub(super) const FORMAT: u32 = 1;
/// The largest manifest that is read, in bytes.
pub(crate) const MANIFEST_LIMIT: u64 = 64 * 1024;
/// The longest command line that an x86 kernel accepts, in bytes without the final NUL.
pub(super) const CMDLINE_LIMIT: usize = 2047;

/// The manifest of an image: the content of its `image.json`, a JSON object with these fields. A missing, unknown or
/// repeated field and a value of another type are an [`Error::ManifestShape`]. The file has at most 64 KiB.
///
/// Nothing authenticates the manifest: a program that can change the image's files can change their digests here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Manifest {
    /// The version of the manifest's fields: 1. Another number is an [`Error::ManifestValue`].
    pub format: u32,
    /// The kernel's command line: at most 2047 bytes without control characters. Another text is an
    /// [`Error::ManifestValue`].
    pub cmdline: String,
    /// The kernel's release, as `uname -r` prints it in the guest; absent (`None`) for a kernel that isn't Linux. Its
    /// text isn't checked when an image is opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_release: Option<String>,
    /// The build id of the packed `chv-guest` ([`BUILD_ID`](crate::guest::BUILD_ID)), which is also in its
    /// [`Hello`](crate::guest::protocol::Hello): 1 to 128 visible ASCII characters. Another text is an
    /// [`Error::ManifestValue`].
    pub guest_build_id: String,
    /// The container image that the root disk was made from; absent (`None`) for a disk made from busybox or a tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_image: Option<ContainerRecord>,
    /// The file names of the modules in the initramfs that the guest loads, ending in `.ko`, in load order; empty if
    /// everything is built in. The names aren't checked when an image is opened.
    pub modules: Vec<String>,
    /// `kernel`: an uncompressed ELF with a PVH entry.
    pub kernel: FileRecord,
    /// `initramfs`: a newc archive.
    pub initramfs: FileRecord,
    /// `root.img`: the read-only ext4 that the guest sees as `/dev/vda`.
    pub root: FileRecord,
    /// `overlay.img` as it was packed: the empty ext4 that the guest sees as `/dev/vdb` and writes to.
    pub overlay: FileRecord,
}

/// Size and digest of one file of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct FileRecord {
    /// The file's length in bytes. A disk is a sparse file, so it may take less room.
    pub size: u64,
    /// The SHA-256 of all the file's bytes, holes included. In JSON: `sha256:` and 64 lower-case hexadecimal digits;
    /// another text is an [`Error::ManifestShape`].
    pub sha256: Digest,
}

impl FileRecord {
    /// Reads a file to its end, or until a stop is requested.
    pub(super) fn of(path: &Path, stop: Stop<'_>) -> Result<FileRecord, Error> {
        let mut file = File::open(path).map_err(Error::io("open", path))?;
        let mut hash = Sha256::new();
        let mut size = 0;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            stop.check()?;
            match file.read(&mut buffer).map_err(Error::io("read", path))? {
                0 => break,
                read => {
                    hash.update(&buffer[..read]);
                    size += read as u64;
                }
            }
        }
        Ok(FileRecord {
            size,
            sha256: hash.finalize().into(),
        })
    }
}

impl Manifest {
    /// Reads and checks the manifest at `path`.
    pub(super) fn read(path: &Path) -> Result<Manifest, Error> {
        let bytes = input::read(path, MANIFEST_LIMIT)?;
        let manifest: Manifest =
            serde_json::from_slice(&bytes).map_err(|source| Error::ManifestShape {
                path: path.into(),
                source,
            })?;
        match manifest.problem() {
            None => Ok(manifest),
            Some(problem) => Err(Error::ManifestValue {
                path: path.into(),
                problem,
            }),
        }
    }

    /// The text of the file: fields in the order of their declaration, with a line feed at the end.
    pub(super) fn to_json(&self) -> String {
        // Strings and numbers can't fail to serialise.
        let json = serde_json::to_string_pretty(self).unwrap_or_default();
        format!("{json}\n")
    }

    fn problem(&self) -> Option<String> {
        if self.format != FORMAT {
            return Some(format!(
                "its format is {}, and this program reads {FORMAT}",
                self.format
            ));
        }
        if let Some(problem) = cmdline_problem(&self.cmdline) {
            return Some(format!("its cmdline {problem}"));
        }
        let id = &self.guest_build_id;
        if id.is_empty() || id.len() > BUILD_ID_LIMIT || !id.chars().all(|c| c.is_ascii_graphic()) {
            return Some("its guest_build_id is not 1 to 128 visible ASCII characters".to_owned());
        }
        None
    }
}

/// The problem of a command line, or `None` if it is valid.
pub(super) fn cmdline_problem(cmdline: &str) -> Option<&'static str> {
    if cmdline.len() > CMDLINE_LIMIT {
        Some("has more than 2047 bytes")
    } else if cmdline.chars().any(|c| c.is_control()) {
        Some("holds a control character")
    } else {
        None
    }
}
