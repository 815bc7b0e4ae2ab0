//! What can go wrong while an image is packed or opened.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

use super::oci::ContainerError;
use crate::guest::dispatcher::ToolsFileError;

/// Why an image could not be packed or opened. Nothing half-made is left behind by any of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory could not be read, written, made or moved.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried, as a verb: `read`, `write`, `create`, ...
        action: &'static str,
        /// What it was tried on.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A regular file was expected, and something else lies there.
    #[error("{} is not a regular file; what a pipe gives has to be copied into one first", path.display())]
    NotRegular {
        /// What was given.
        path: PathBuf,
    },
    /// A file is larger than anything sensible of its kind.
    #[error("{} has {size} bytes; at most {limit} are taken for this kind of file", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The most that is taken, in bytes.
        limit: u64,
    },
    /// The output directory exists and holds something.
    #[error("{} exists and is not an empty directory; name a new one", path.display())]
    OutputExists {
        /// The output path.
        path: PathBuf,
    },
    /// The output is `.`, `/` or ends in `..`: it can't be replaced by the finished image.
    #[error("the output {} has no name of its own; name a new directory", path.display())]
    OutputUnnamed {
        /// The output path.
        path: PathBuf,
    },
    /// The output lies in the tree that the root disk is filled from.
    #[error("the output lies in the tree {}, which would then hold itself; name one outside", tree.display())]
    OutputInsideTree {
        /// The tree.
        tree: PathBuf,
    },
    /// It was asked to stop, through the flag given to [`pack_until`](super::pack_until).
    #[error("packing was stopped")]
    Stopped,
    /// A setting of the specification is out of range.
    #[error("{setting} is {value}; it must be {allowed}")]
    OutOfRange {
        /// The name of the setting.
        setting: &'static str,
        /// What was asked for.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },

    /// The kernel is neither a bzImage nor an ELF.
    #[error("{} is neither a Linux bzImage nor an ELF kernel", path.display())]
    NotKernel {
        /// The file.
        path: PathBuf,
    },
    /// The kernel's payload is compressed in a way that isn't read here.
    #[error(
        "the kernel inside {} is compressed in a way that is not supported ({found}); \
         gzip, xz, lz4 and zstd are: give an uncompressed vmlinux instead",
        path.display()
    )]
    KernelCompression {
        /// The bzImage.
        path: PathBuf,
        /// The format, or the payload's first bytes.
        found: String,
    },
    /// Compressed data could not be decompressed: damaged, or larger than is taken.
    #[error("cannot decompress {what} in {}", path.display())]
    Decompress {
        /// What was decompressed.
        what: &'static str,
        /// The file that holds it.
        path: PathBuf,
        /// What the decompressor said.
        source: io::Error,
    },
    /// The kernel has no PVH entry, the only one by which the VMM boots an ELF.
    #[error(
        "the kernel in {} has no PVH entry note; it must be built with CONFIG_PVH=y (distributions' cloud kernels are)",
        path.display()
    )]
    NoPvhEntry {
        /// The kernel file.
        path: PathBuf,
    },
    /// The modules are another kernel's: it would refuse to load them.
    #[error("the modules in {} are not of this kernel, whose release is {kernel}", modules.display())]
    ModulesOfAnotherKernel {
        /// The directory of modules.
        modules: PathBuf,
        /// The kernel's release.
        kernel: String,
    },
    /// A Linux kernel was given without modules and doesn't have all built in that the guest needs: it wouldn't boot.
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
        /// The modules that it needs.
        missing: Vec<&'static str>,
    },
    /// A module that the guest needs is neither among the modules nor built into the kernel.
    #[error(
        "the guest needs the module {name}: modules.dep in {} has none, and it isn't known to be built in; {remedy}",
        modules.display()
    )]
    ModuleMissing {
        /// The module's name.
        name: String,
        /// The directory of modules.
        modules: PathBuf,
        /// What to do.
        remedy: &'static str,
    },
    /// A list of modules can't be used as it is.
    #[error("{} cannot be used: {problem}", path.display())]
    ModuleList {
        /// The list.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },

    /// A file that must be an ELF is none, or a damaged one.
    #[error("{} is not a usable ELF file: {problem}", path.display())]
    NotElf {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// An ELF for another machine than x86-64.
    #[error("{} is built for another machine (ELF machine {machine}); x86-64 (62) is needed", path.display())]
    WrongMachine {
        /// The file.
        path: PathBuf,
        /// Its ELF machine number.
        machine: u16,
    },
    /// A program needs a dynamic loader, which the guest has not.
    #[error("{} is linked dynamically (it wants {loader}), and the guest has no loader; {remedy}", path.display())]
    NotStatic {
        /// The program.
        path: PathBuf,
        /// The loader it names.
        loader: String,
        /// How to get a static one.
        remedy: &'static str,
    },
    /// A program carries no build id of `chv-guest`.
    #[error("{} carries no chv-guest build id, so it is not this crate's chv-guest", path.display())]
    NoBuildId {
        /// The program.
        path: PathBuf,
    },

    /// The guest could not use the tools file.
    #[error("{} cannot be used as the image's tools", path.display())]
    Tools {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ToolsFileError,
    },

    /// The container image can't be used.
    #[error(transparent)]
    Container(#[from] ContainerError),

    /// The root tree lacks directories on which the guest mounts.
    #[error("the tree {} lacks the directories {}, on which the guest mounts", path.display(), missing.join(", "))]
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
        /// What it is.
        kind: &'static str,
    },

    /// A file of the root tree has more names, or a directory more subdirectories, than an ext4 that `mke2fs` makes.
    #[error(
        "{} has more than {limit} {what} in the tree, the most that mke2fs can count; \
         leave some out, or spread them over several",
        path.display()
    )]
    TreeLinks {
        /// The directory, or one of the file's names.
        path: PathBuf,
        /// What it has too many of.
        what: &'static str,
        /// The most of them.
        limit: u64,
    },
    /// A file of the root tree has more extended attributes than fit into an inode and a block of ext4.
    #[error(
        "{} has {bytes} bytes of extended attributes, and ext4 takes about 4 KiB; remove some (setfattr -x)",
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
        /// The disk image it was to make.
        path: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said.
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
    /// The root disk has a size that was asked for, and the tree does not fit.
    #[error(
        "the tree does not fit into a root disk of {size_mib} MiB; {needed_mib} MiB are enough, as is to ask for no size"
    )]
    RootTooSmall {
        /// The size that was asked for.
        size_mib: u64,
        /// A size that is sure to hold the tree.
        needed_mib: u64,
        /// What `mke2fs` said.
        source: Box<Error>,
    },
    /// `e2fsck` found errors in what `mke2fs` made.
    #[error("e2fsck found errors in the file system made in {} ({status}): {messages}", path.display())]
    FilesystemErrors {
        /// The disk image.
        path: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said.
        messages: String,
    },
    /// `mke2fs` made another file system than it was asked for.
    #[error("mke2fs made an unexpected file system in {}: {problem}", path.display())]
    UnexpectedFilesystem {
        /// The disk image.
        path: PathBuf,
        /// What was not expected.
        problem: &'static str,
    },

    /// `image.json` is not JSON of the expected shape.
    #[error("{} is not an image manifest", path.display())]
    ManifestShape {
        /// The manifest.
        path: PathBuf,
        /// Where it differs.
        source: serde_json::Error,
    },
    /// `image.json` has the shape of a manifest, and a value that none can have.
    #[error("{} is not a valid image manifest: {problem}", path.display())]
    ManifestValue {
        /// The manifest.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// There is no image at a path.
    #[error("there is no image at {}: name a directory that was packed", dir.display())]
    NoImage {
        /// The path.
        dir: PathBuf,
        /// What the system said of it.
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
    /// A file of the image differs from what the manifest says.
    #[error("{} has {field} {found}, and its manifest says {expected}", path.display())]
    FileDiffers {
        /// The file.
        path: PathBuf,
        /// Which property differs: `size` or `sha256`.
        field: &'static str,
        /// What is there.
        found: String,
        /// What the manifest says.
        expected: String,
    },
}

impl Error {
    /// Wraps a system error with what was tried and on what; for `map_err`.
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
