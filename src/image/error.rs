//! [`Error`]: why an image could not be packed or opened.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

use super::oci::ContainerError;
use crate::guest::dispatcher::ToolsFileError;

/// Why an image could not be packed or opened. None of these errors leaves an incomplete image behind.
///
/// A field that completes the error's sentence, such as `problem` or `remedy`, is an English phrase for the message
/// only. A path in the work directory of [`pack`](super::pack()) no longer exists when the caller gets the error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory could not be read, written, made or moved.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// The operation as an English verb phrase, for the message only: `read`, `create a file in`, ...
        action: &'static str,
        /// The file or directory that the operation was for.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A path leads to something that is not a regular file. A symbolic link to an input is followed; one in an image
    /// isn't.
    #[error("{} is not a regular file; the output of a pipe has to be copied into one first", path.display())]
    NotRegular {
        /// The path as the caller gave it, or of a file in the image.
        path: PathBuf,
    },
    /// A file is larger than its limit. The limits are inclusive and count the bytes on disk, before decompression:
    ///
    /// | file | limit |
    /// |---|---|
    /// | the kernel | 256 MiB |
    /// | a module | 64 MiB |
    /// | `modules.dep`, `modules.builtin` | 16 MiB |
    /// | `chv-guest`, busybox | 64 MiB |
    /// | the tools file | 64 KiB |
    /// | a file of a root tree, with its holes | 16 TiB less 4 KiB |
    /// | `image.json` | 64 KiB |
    ///
    /// For decompressed bytes see [`Decompress`](Error::Decompress).
    #[error("{} has {size} bytes; at most {limit} are accepted for this kind of file", path.display())]
    TooLarge {
        /// The path of the file that is too large.
        path: PathBuf,
        /// Its size in bytes. If it grew while it was read: the bytes that were read, one more than the limit.
        size: u64,
        /// The most bytes that it may have.
        limit: u64,
    },
    /// The output exists, and is not an empty directory.
    #[error("{} exists and is not an empty directory; name a new one", path.display())]
    OutputExists {
        /// [`ImageSpec::out`](super::ImageSpec::out).
        path: PathBuf,
    },
    /// The output is `.` or `/`, or ends in `..`, so the finished image can't be renamed to it.
    #[error("the output {} has no name of its own; name a new directory", path.display())]
    OutputUnnamed {
        /// [`ImageSpec::out`](super::ImageSpec::out).
        path: PathBuf,
    },
    /// The output lies inside the tree that fills the root disk.
    #[error("the output lies in the tree {}, which would then hold itself; name a directory outside", tree.display())]
    OutputInsideTree {
        /// The path in [`RootSource::Tree`](super::RootSource::Tree).
        tree: PathBuf,
    },
    /// Another thread set the flag that was given to [`pack_until`](super::pack_until).
    #[error("packing was stopped")]
    Stopped,
    /// A setting of the specification is out of range: a disk's size (4 to 1048576 MiB) or the command line (at most
    /// 2047 bytes without control characters). Or a root tree is too large: it may have 1,000,000 entries, and need
    /// 64 GiB without the holes of its files.
    #[error("{setting} is {value}; it must be {allowed}")]
    OutOfRange {
        /// The field of [`ImageSpec`](super::ImageSpec): `root_mib`, `overlay_mib` or `cmdline`. For a tree an English
        /// phrase that names the quantity.
        setting: &'static str,
        /// The value that was found, as a number or an English phrase.
        value: String,
        /// The allowed values, as an English phrase with the unit.
        allowed: &'static str,
    },

    /// The kernel is neither a bzImage (boot protocol 2.08 or later) nor an ELF.
    #[error("{} is neither a Linux bzImage nor an ELF kernel", path.display())]
    NotKernel {
        /// [`ImageSpec::kernel`](super::ImageSpec::kernel).
        path: PathBuf,
    },
    /// The kernel inside a bzImage has a compression format other than gzip, xz, lz4 and zstd.
    #[error(
        "the kernel inside {} is compressed in a way that is not supported ({found}); \
         gzip, xz, lz4 and zstd are supported: give an uncompressed vmlinux instead",
        path.display()
    )]
    KernelCompression {
        /// The path of the bzImage.
        path: PathBuf,
        /// The format: `bzip2`, `lzma` or `lzo`; or an English phrase with the first six bytes.
        found: String,
    },
    /// A compressed kernel or module could not be decompressed. It is damaged, has more than 512 MiB (the kernel) or
    /// 64 MiB (a module) after decompression, or needs a dictionary of more than 256 MiB.
    #[error("cannot decompress {what} in {}", path.display())]
    Decompress {
        /// `the kernel` or `the module`, for the message only.
        what: &'static str,
        /// The path of the compressed file.
        path: PathBuf,
        /// The decompressor's error. Its kind is [`FileTooLarge`](io::ErrorKind::FileTooLarge) if the decompressed size
        /// is above the limit.
        source: io::Error,
    },
    /// The kernel has no PVH entry, and the VMM boots an ELF by no other entry.
    #[error(
        "the kernel in {} has no PVH entry note; it must be built with CONFIG_PVH=y (distributions' cloud kernels are)",
        path.display()
    )]
    NoPvhEntry {
        /// [`ImageSpec::kernel`](super::ImageSpec::kernel).
        path: PathBuf,
    },
    /// The name of the directory of modules, with symbolic links resolved, is not the kernel's release. The kernel
    /// would refuse to load these modules.
    #[error("the modules in {} are not of this kernel, whose release is {kernel}", modules.display())]
    ModulesOfAnotherKernel {
        /// The path in [`ModuleSource::Directory`](super::ModuleSource::Directory).
        modules: PathBuf,
        /// The kernel's release, as `uname -r` prints it.
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
        /// [`ImageSpec::kernel`](super::ImageSpec::kernel).
        kernel: PathBuf,
        /// The kernel's release, as `uname -r` prints it.
        release: String,
        /// The drivers that the kernel's image doesn't show, by the names of their modules, such as `virtio_blk`.
        missing: Vec<&'static str>,
    },
    /// A module that the guest needs is neither listed in `modules.dep` nor known to be built into the kernel.
    #[error(
        "the guest needs the module {name}: modules.dep in {} does not list it, and it isn't known to be built in; {remedy}",
        modules.display()
    )]
    ModuleMissing {
        /// The module's name with underscores, such as `virtio_blk`.
        name: String,
        /// The path in [`ModuleSource::Directory`](super::ModuleSource::Directory).
        modules: PathBuf,
        /// How to get the module, for the message only.
        remedy: &'static str,
    },
    /// `modules.dep` is missing; or it or `modules.builtin` isn't UTF-8, or has a line that can't be used.
    #[error("{} cannot be used: {problem}", path.display())]
    ModuleList {
        /// The path of the list.
        path: PathBuf,
        /// What is wrong with the list, for the message only.
        problem: String,
    },

    /// The kernel, `chv-guest` or busybox is no 64-bit little-endian ELF, or is damaged; or a module is no ELF.
    #[error("{} is not a usable ELF file: {problem}", path.display())]
    NotElf {
        /// The path of the file.
        path: PathBuf,
        /// What is wrong with the file, for the message only.
        problem: &'static str,
    },
    /// The kernel, `chv-guest` or busybox is an ELF for another machine than x86-64.
    #[error("{} is built for another machine (ELF machine {machine}); x86-64 (62) is needed", path.display())]
    WrongMachine {
        /// The path of the file.
        path: PathBuf,
        /// The machine number in the ELF header (`e_machine`).
        machine: u16,
    },
    /// `chv-guest` or busybox is linked dynamically, and the guest has no dynamic loader.
    #[error("{} is linked dynamically (it needs {loader}), and the guest has no loader; {remedy}", path.display())]
    NotStatic {
        /// The path of the program.
        path: PathBuf,
        /// The path of the dynamic loader that the program names, at most 256 bytes.
        loader: String,
        /// How to get a static program, for the message only.
        remedy: &'static str,
    },
    /// The program that was given as `chv-guest` contains no build id of `chv-guest`.
    #[error("{} contains no chv-guest build id, so it is not this crate's chv-guest", path.display())]
    NoBuildId {
        /// [`ImageSpec::guest`](super::ImageSpec::guest).
        path: PathBuf,
    },

    /// The guest could not use the tools file, or the one that packing makes of it and of a container image.
    #[error("{} cannot be used as the image's tools", path.display())]
    Tools {
        /// The path of the tools file, or [`ContainerSource::path`](super::ContainerSource::path).
        path: PathBuf,
        /// Why the guest refuses the file.
        source: ToolsFileError,
    },

    /// The [container image](super#container-images) can't be used.
    #[error(transparent)]
    Container(#[from] ContainerError),

    /// The root tree lacks directories that the guest needs as mount points. A symbolic link to a directory doesn't
    /// count.
    #[error("the tree {} lacks the directories {}, which the guest needs as mount points", path.display(), missing.join(", "))]
    TreeLacks {
        /// The path in [`RootSource::Tree`](super::RootSource::Tree).
        path: PathBuf,
        /// Which of `dev`, `proc`, `sys` and `tmp` are missing.
        missing: Vec<&'static str>,
    },
    /// The root tree holds something other than files, directories and symbolic links.
    #[error("{} is a {kind}; a root tree may hold files, directories and symbolic links only", path.display())]
    TreeEntry {
        /// The path of the entry on this host.
        path: PathBuf,
        /// What the entry is: `block device`, `character device`, `FIFO` or `socket`.
        kind: &'static str,
    },

    /// A file of the root tree has more names, or a directory more subdirectories, than `mke2fs` supports in an ext4.
    #[error(
        "{} has more than {limit} {what} in the tree, which is the most that mke2fs supports; \
         leave some out, or spread them over several",
        path.display()
    )]
    TreeLinks {
        /// The path of the directory on this host, or one of the file's.
        path: PathBuf,
        /// Which things are too many: `names (hard links)` or `subdirectories`.
        what: &'static str,
        /// The most of them: 65,000 names or 64,998 subdirectories.
        limit: u64,
    },
    /// A file of the root tree has more extended attributes than fit into an inode and a block of ext4: more than 4,148
    /// bytes. Each attribute counts with 16 bytes, its name without the namespace (`user.`), and its value, the last
    /// two rounded up to multiples of four.
    #[error(
        "{} has {bytes} bytes of extended attributes, and ext4 holds about 4 KiB; remove some (setfattr -x)",
        path.display()
    )]
    TreeAttributes {
        /// The path of the file, directory or symbolic link on this host.
        path: PathBuf,
        /// How many bytes its attributes would take in the ext4, counted as above.
        bytes: u64,
    },

    /// `mke2fs` is not installed.
    #[error("mke2fs was not found in {searched}; install the package e2fsprogs")]
    Mke2fsMissing {
        /// The directories of [`ImageSpec::search_path`](super::ImageSpec::search_path), separated by colons.
        searched: String,
    },
    /// `mke2fs` failed.
    #[error("mke2fs failed for {} ({status}): {stderr}", path.display())]
    Mke2fsFailed {
        /// The path of the disk image in the work directory.
        path: PathBuf,
        /// How `mke2fs` ended.
        status: ExitStatus,
        /// The last 4,096 bytes of what it wrote to standard output and standard error.
        stderr: String,
    },
    /// A program of e2fsprogs did not end in time and was killed.
    #[error("{} did not finish {} within {limit:?} and was killed", program.display(), path.display())]
    ProgramTimeout {
        /// The path of the program: that of `mke2fs` or `e2fsck`.
        program: PathBuf,
        /// The path of the disk image in the work directory.
        path: PathBuf,
        /// How long the program had: ten minutes.
        limit: Duration,
    },
    /// The tree, or busybox, does not fit into a root disk of the given size. For a container image the error is
    /// [`ContainerError::DoesNotFit`].
    #[error(
        "the tree does not fit into a root disk of {size_mib} MiB; {needed_mib} MiB are enough, or leave the size out"
    )]
    RootTooSmall {
        /// [`ImageSpec::root_mib`](super::ImageSpec::root_mib), in MiB.
        size_mib: u64,
        /// A size that certainly holds the tree, in MiB. A smaller one may do.
        needed_mib: u64,
        /// The failure of `mke2fs`, an [`Error::Mke2fsFailed`].
        source: Box<Error>,
    },
    /// `e2fsck` found errors in the filesystem of a new root disk.
    #[error("e2fsck found errors in the filesystem made in {} ({status}): {messages}", path.display())]
    FilesystemErrors {
        /// The path of the disk image in the work directory.
        path: PathBuf,
        /// How `e2fsck` ended.
        status: ExitStatus,
        /// The last 4,096 bytes of what it wrote to standard output and standard error.
        messages: String,
    },
    /// `mke2fs` made a filesystem with other properties than requested.
    #[error("mke2fs made an unexpected filesystem in {}: {problem}", path.display())]
    UnexpectedFilesystem {
        /// The path of the disk image in the work directory.
        path: PathBuf,
        /// Which property is unexpected, for the message only.
        problem: &'static str,
    },

    /// `image.json` is not JSON, or its JSON is no [`Manifest`](super::Manifest): a field is missing, unknown or
    /// repeated, or a value has another type.
    #[error("{} is not an image manifest", path.display())]
    ManifestShape {
        /// The path of `image.json`.
        path: PathBuf,
        /// What differs, with line and column.
        source: serde_json::Error,
    },
    /// `image.json` has the fields of a [`Manifest`](super::Manifest), but another `format` than 1, or an invalid
    /// `cmdline` or `guest_build_id`.
    #[error("{} is not a valid image manifest: {problem}", path.display())]
    ManifestValue {
        /// The path of `image.json`.
        path: PathBuf,
        /// Which value is invalid and why, for the message only.
        problem: String,
    },
    /// A path does not lead to a directory that can be entered.
    #[error("there is no image at {}: name a directory that `chv-sandbox image` or `pack` made", dir.display())]
    NoImage {
        /// The path that was given to [`Image::open`](super::Image::open).
        dir: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file of the image is missing.
    #[error("the image {} has no {file}; pack it again", dir.display())]
    FileMissing {
        /// The image's directory.
        dir: PathBuf,
        /// The file's name: `image.json`, `kernel`, `initramfs`, `root.img` or `overlay.img`.
        file: &'static str,
    },
    /// A file of the image differs from the manifest.
    #[error("{} has {field} {found}, and its manifest says {expected}", path.display())]
    FileDiffers {
        /// The path of the file.
        path: PathBuf,
        /// Which property differs: `size` (in bytes) or `sha256`.
        field: &'static str,
        /// The property of the file: a decimal number, or `sha256:` and 64 hexadecimal digits.
        found: String,
        /// The property in the manifest, in the same form.
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
