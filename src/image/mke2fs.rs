//! [`Mke2fs`]: makes a filesystem with `mke2fs`.

use std::path::{Path, PathBuf};

use super::{Error, input::MIB, program::Program, stop::Stop};

/// The time of creation of every filesystem: 2020-01-01. It must not be 0, which means now.
pub(super) const EPOCH: u32 = 1_577_836_800;

/// The seed of directory hashes. Any value does, as long as it is always the same.
const HASH_SEED: &str = "6ba31a2c-54d7-4a0a-9c65-8d1d5bb0a7e1";

/// The features of an image's filesystems, which replace those of the host's mke2fs.conf. There is no journal, because
/// a disk that is replaced after use needs no recovery. There are no metadata checksums, because the whole disk is
/// digested from outside.
const FEATURES: &str = "none,dir_index,dir_nlink,ext_attr,extent,extra_isize,filetype,flex_bg,huge_file,large_file,sparse_super";

/// A filesystem to make.
pub(super) struct Filesystem<'a> {
    /// The file that receives it. It exists already, with the right mode.
    pub(super) image: &'a Path,
    /// The tree to copy into it.
    pub(super) tree: &'a Path,
    pub(super) uuid: &'a str,
    pub(super) size_mib: u64,
    pub(super) inodes: u64,
}

/// An installed `mke2fs`.
pub(super) struct Mke2fs {
    program: Program,
}

impl Mke2fs {
    /// Searches `directories` in their order.
    pub(super) fn find(directories: &[PathBuf]) -> Result<Mke2fs, Error> {
        Program::find("mke2fs", directories)
            .map(|program| Mke2fs { program })
            .ok_or_else(|| Error::Mke2fsMissing {
                searched: if directories.is_empty() {
                    "an empty search path".to_owned()
                } else {
                    directories
                        .iter()
                        .map(|dir| dir.display().to_string())
                        .collect::<Vec<_>>()
                        .join(":")
                },
            })
    }

    /// Makes an ext4 with 4 KiB blocks. `scratch` is a directory for its messages.
    pub(super) fn run(
        &self,
        filesystem: &Filesystem<'_>,
        scratch: &Path,
        stop: Stop<'_>,
    ) -> Result<(), Error> {
        let path = filesystem.image;
        let epoch = EPOCH.to_string();
        let mut command = self.program.command();
        command
            .args([
                "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "0", "-O", FEATURES,
            ])
            .args(["-U", filesystem.uuid, "-L", "", "-E"])
            .arg(format!(
                "hash_seed={HASH_SEED},root_owner=0:0,lazy_itable_init=0,nodiscard"
            ))
            .arg("-N")
            .arg(filesystem.inodes.to_string())
            .arg("-d")
            .arg(filesystem.tree)
            .arg(path)
            .arg((filesystem.size_mib * MIB / 4096).to_string())
            .env("MKE2FS_CONFIG", "/dev/null")
            // Older and newer versions of mke2fs use different names for this setting.
            .env("E2FSPROGS_FAKE_TIME", &epoch)
            .env("SOURCE_DATE_EPOCH", &epoch);
        let ended = self.program.run(command, path, scratch, stop)?;
        if ended.status.success() {
            return Ok(());
        }
        Err(Error::Mke2fsFailed {
            path: path.into(),
            status: ended.status,
            stderr: ended.messages,
        })
    }
}
