//! [`Error`]: why an image could not be packed or opened.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

use super::oci::ContainerError;
use crate::guest::dispatcher::ToolsFileError;

/// Why an image could not be packed or opened. None of these errors leaves an incomplete image behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory could not be read, written, made or moved.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The operation, as a verb: `read`, `write`, `create`, ...
        action: &'static str,
        /// The file or directory of the operation.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A path leads to something that is not a regular file.
    #[error("{} is not a regular file; the output of a pipe has to be copied into one first", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
    },
    /// A file is larger than the limit for its kind.
    #[error("{} has {size} bytes; at most {limit} are accepted for this kind of file", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The output exists, and is not an empty directory.
    #[error("{} exists and is not an empty directory; name a new one", path.display())]
    OutputExists {
        /// The output path.
        path: PathBuf,
    },
    /// The output is `.` or `/`, or ends in `..`, so the finished image can't be renamed to it.
    #[error("the output {} has no name of its own; name a new directory", path.display())]
    OutputUnnamed {
        /// The output path.
        path: PathBuf,
    },
    /// The output lies inside the tree that fills the root disk.
    #[error("the output lies in the tree {}, which would then hold itself; name a directory outside", tree.display())]
    OutputInsideTree {
        /// The tree.
        tree: PathBuf,
    },
    /// Another thread set the flag that was given to [`pack_until`](super::pack_until).
    #[error("packing was stopped")]
    Stopped,
    /// A setting of the specification is out of range.
    #[error("{setting} is {value}; it must be {allowed}")]
    OutOfRange {
        /// The name of the setting.
        setting: &'static str,
        /// The value.
        value: String,
        /// The allowed values.
        allowed: &'static str,
    },

    /// The kernel is neither a bzImage nor an ELF.
    #[error("{} is neither a Linux bzImage nor an ELF kernel", path.display())]
    NotKernel {
        /// The file.
        path: PathBuf,
    },
    /// The kernel's payload has a compression format that isn't supported.
    #[error(
        "the kernel inside {} is compressed in a way that is not supported ({found}); \
         gzip, xz, lz4 and zstd are supported: give an uncompressed vmlinux instead",
        path.display()
    )]
    KernelCompression {
        /// The bzImage.
        path: PathBuf,
        /// The name of the format, or the payload's first bytes.
        found: String,
    },
    /// Compressed data could not be decompressed, because it is damaged or exceeds a limit.
    #[error("cannot decompress {what} in {}", path.display())]
    Decompress {
        /// The kind of data.
        what: &'static str,
        /// The file that holds the data.
        path: PathBuf,
        /// The decompressor's error.
        source: io::Error,
    },
    /// The kernel has no PVH entry, and the VMM boots an ELF by no other entry.
    #[error(
        "the kernel in {} has no PVH entry note; it must be built with CONFIG_PVH=y (distributions' cloud kernels are)",
        path.display()
    )]
    NoPvhEntry {
        /// The kernel file.
        path: PathBuf,
    },
    /// The modules belong to another kernel release, and this kernel would refuse to load them.
    #[error("the modules in {} are not of this kernel, whose release is {kernel}", modules.display())]
    ModulesOfAnotherKernel {
        /// The directory of modules.
        modules: PathBuf,
        /// The kernel's release.
        kernel: String,
    },
    /// A Linux kernel was given without modules, and its image doesn't show that all drivers that the guest needs are
    /// built in, so the guest might not boot.
    #[error(
        "the kernel {} doesn't show that it has {} built in; give its modules too, the directory lib/modules/{release}",
        kernel.display(),
        missing.join(", ")
    )]
    ModulesNeeded {
        /// The kernel file.
        kernel: PathBuf,
        /// The kernel's release.
        release: String,
        /// The missing drivers, by the names of their modules.
        missing: Vec<&'static str>,
    },
    /// A module that the guest needs is neither listed in `modules.dep` nor known to be built into the kernel.
    #[error(
        "the guest needs the module {name}: modules.dep in {} does not list it, and it isn't known to be built in; {remedy}",
        modules.display()
    )]
    ModuleMissing {
        /// The module's name.
        name: String,
        /// The directory of modules.
        modules: PathBuf,
        /// The advice.
        remedy: &'static str,
    },
    /// A list of modules is missing or malformed.
    #[error("{} cannot be used: {problem}", path.display())]
    ModuleList {
        /// The list.
        path: PathBuf,
        /// The problem.
        problem: String,
    },

    /// A file that must be an ELF is not one, or is damaged.
    #[error("{} is not a usable ELF file: {problem}", path.display())]
    NotElf {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: &'static str,
    },
    /// An ELF is built for another machine than x86-64.
    #[error("{} is built for another machine (ELF machine {machine}); x86-64 (62) is needed", path.display())]
    WrongMachine {
        /// The file.
        path: PathBuf,
        /// Its ELF machine number.
        machine: u16,
    },
    /// A program is linked dynamically, and the guest has no dynamic loader.
    #[error("{} is linked dynamically (it needs {loader}), and the guest has no loader; {remedy}", path.display())]
    NotStatic {
        /// The program.
        path: PathBuf,
        /// The loader that it names.
        loader: String,
        /// How to get a static one.
        remedy: &'static str,
    },
    /// A program contains no build id of `chv-guest`.
    #[error("{} contains no chv-guest build id, so it is not this crate's chv-guest", path.display())]
    NoBuildId {
        /// The program.
        path: PathBuf,
    },

    /// The guest could not use the tools file.
    #[error("{} cannot be used as the image's tools", path.display())]
    Tools {
        /// The file.
        path: PathBuf,
        /// The problem.
        source: ToolsFileError,
    },

    /// The container image can't be used.
    #[error(transparent)]
    Container(#[from] ContainerError),

    /// The root tree lacks directories that the guest needs as mount points.
    #[error("the tree {} lacks the directories {}, which the guest needs as mount points", path.display(), missing.join(", "))]
    TreeLacks {
        /// The tree.
        path: PathBuf,
        /// The missing directories.
        missing: Vec<&'static str>,
    },
    /// The root tree holds something other than files, directories and symbolic links.
    #[error("{} is a {kind}; a root tree may hold files, directories and symbolic links only", path.display())]
    TreeEntry {
        /// The entry.
        path: PathBuf,
        /// The kind of the entry.
        kind: &'static str,
    },

    /// A file of the root tree has more names, or a directory more subdirectories, than `mke2fs` supports in an ext4.
    #[error(
        "{} has more than {limit} {what} in the tree, which is the most that mke2fs supports; \
         leave some out, or spread them over several",
        path.display()
    )]
    TreeLinks {
        /// The directory, or one of the file's names.
        path: PathBuf,
        /// Which things are too many: names or subdirectories.
        what: &'static str,
        /// The most of them.
        limit: u64,
    },
    /// A file of the root tree has more extended attributes than fit into an inode and a block of ext4.
    #[error(
        "{} has {bytes} bytes of extended attributes, and ext4 holds about 4 KiB; remove some (setfattr -x)",
        path.display()
    )]
    TreeAttributes {
        /// The file, directory or symbolic link.
        path: PathBuf,
        /// How many bytes its attributes would take.
        bytes: u64,
    },

    /// `mke2fs` is not installed.
    #[error("mke2fs was not found in {searched}; install the package e2fsprogs")]
    Mke2fsMissing {
        /// The directories that were searched.
        searched: String,
    },
    /// `mke2fs` failed.
    #[error("mke2fs failed for {} ({status}): {stderr}", path.display())]
    Mke2fsFailed {
        /// The disk image.
        path: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The end of its messages.
        stderr: String,
    },
    /// A program of e2fsprogs did not end in time and was killed.
    #[error("{} did not finish {} within {limit:?} and was killed", program.display(), path.display())]
    ProgramTimeout {
        /// The program.
        program: PathBuf,
        /// The disk image it worked on.
        path: PathBuf,
        /// How long it had.
        limit: Duration,
    },
    /// The tree does not fit into a root disk of the given size.
    #[error(
        "the tree does not fit into a root disk of {size_mib} MiB; {needed_mib} MiB are enough, or leave the size out"
    )]
    RootTooSmall {
        /// The given size, in MiB.
        size_mib: u64,
        /// A size that certainly holds the tree, in MiB.
        needed_mib: u64,
        /// The failure of `mke2fs`.
        source: Box<Error>,
    },
    /// `e2fsck` found errors in the filesystem that was made.
    #[error("e2fsck found errors in the filesystem made in {} ({status}): {messages}", path.display())]
    FilesystemErrors {
        /// The disk image.
        path: PathBuf,
        /// How `e2fsck` ended.
        status: ExitStatus,
        /// The end of its messages.
        messages: String,
    },
    /// `mke2fs` made a filesystem with other properties than requested.
    #[error("mke2fs made an unexpected filesystem in {}: {problem}", path.display())]
    UnexpectedFilesystem {
        /// The disk image.
        path: PathBuf,
        /// The unexpected property.
        problem: &'static str,
    },

    /// `image.json` is not JSON of the expected shape.
    #[error("{} is not an image manifest", path.display())]
    ManifestShape {
        /// The manifest.
        path: PathBuf,
        /// Where the JSON differs.
        source: serde_json::Error,
    },
    /// `image.json` has the shape of a manifest, but an invalid value.
    #[error("{} is not a valid image manifest: {problem}", path.display())]
    ManifestValue {
        /// The manifest.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// A path does not lead to a directory that can be entered.
    #[error("there is no image at {}: name a directory that `chv-sandbox image` or `pack` made", dir.display())]
    NoImage {
        /// The path.
        dir: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file of the image is missing.
    #[error("the image {} has no {file}; pack it again", dir.display())]
    FileMissing {
        /// The image.
        dir: PathBuf,
        /// The file's name.
        file: &'static str,
    },
    /// A file of the image differs from the manifest.
    #[error("{} has {field} {found}, and its manifest says {expected}", path.display())]
    FileDiffers {
        /// The file.
        path: PathBuf,
        /// Which property differs: `size` or `sha256`.
        field: &'static str,
        /// The value of the file.
        found: String,
        /// The value in the manifest.
        expected: String,
    },
}

impl Error {
    /// For `map_err`: wraps the system's error for an operation on a path.
    pub(super) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io {
            action,
            path,
            source,
        }
    }
}
