//! [`pack`]: packs an image from an [`ImageSpec`].

use std::{
    env,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use super::{
    Error, FileRecord, Image, Manifest,
    e2fsck::E2fsck,
    ext4::{DISK_MIB, DiskMaker},
    guest::{self, Guest},
    initramfs::Initramfs,
    inodes::Modified,
    input,
    kernel::Kernel,
    manifest::{self, FORMAT},
    mke2fs::Mke2fs,
    modules::{self, ModuleSource},
    oci::{Assembled, ContainerSource},
    open,
    stop::Stop,
    tree,
};
use crate::files::{create_private, create_private_directory, directory_of};
use crate::guest::dispatcher::Toolbox;

/// The default command line of the kernel: errors are printed on the first serial port, and a panic ends the VM.
pub const DEFAULT_CMDLINE: &str = "console=ttyS0 quiet panic=-1";
/// The default size of the overlay disk, in MiB.
pub const DEFAULT_OVERLAY_MIB: u64 = 64;

const TOOLS_LIMIT: u64 = 64 * 1024;

/// The source of the root disk's content.
#[derive(Clone, Debug)]
pub enum RootSource {
    /// The path of a static busybox of at most 64 MiB. The root has its usual names in `/bin`, and the users `root` and
    /// `tool` (1000).
    Busybox(PathBuf),
    /// The path of a directory tree. Symbolic links and modification times are kept, and files of the packing user
    /// become root's. It must have the directories `dev`, `proc`, `sys` and `tmp`, and must hold only files,
    /// directories and symbolic links: at most 1,000,000 of them, and at most 64 GiB without the holes of files.
    Tree(PathBuf),
    /// A [container image](super#container-images): the files of its layers, with their owners and modes.
    Container(ContainerSource),
}

/// The inputs and settings of [`pack`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ImageSpec {
    /// The path of the kernel: a distribution's bzImage (`vmlinuz`), or an uncompressed ELF with a PVH entry. The file
    /// may have 256 MiB, and the kernel in a bzImage 512 MiB after decompression.
    pub kernel: PathBuf,
    /// The source of the kernel's modules.
    pub modules: ModuleSource,
    /// The content of the root disk.
    pub root: RootSource,
    /// The path of the static `chv-guest`, at most 64 MiB; see [`guest_beside_executable`].
    pub guest: PathBuf,
    /// The path of the JSON file that declares the image's own tools, at most 64 KiB (see [`Toolbox::from_json`]);
    /// `None` for the built-in tools alone.
    pub tools: Option<PathBuf>,
    /// The root disk's size in MiB, from 4 to 1048576, otherwise [`Error::OutOfRange`]; `None` for as much as its
    /// content needs. If the content doesn't fit: [`Error::RootTooSmall`], or for a container image
    /// [`ContainerError::DoesNotFit`](super::ContainerError::DoesNotFit).
    pub root_mib: Option<u64>,
    /// The overlay disk's size in MiB, from 4 to 1048576, otherwise [`Error::OutOfRange`]. It limits how much tools can
    /// write to their file system between two resets.
    pub overlay_mib: u64,
    /// The kernel's command line, at most 2047 bytes without control characters, otherwise [`Error::OutOfRange`].
    pub cmdline: String,
    /// The directory for the image. It must not exist or must be empty, otherwise [`Error::OutputExists`], and its
    /// parent must exist.
    pub out: PathBuf,
    /// The directories to search for `mke2fs` and `e2fsck`; the first that has the program counts. Without `mke2fs`
    /// packing fails with [`Error::Mke2fsMissing`]; without `e2fsck` the root disk isn't checked, and a warning is
    /// logged.
    pub search_path: Vec<PathBuf>,
}

impl ImageSpec {
    /// A specification with the defaults: no modules, no tools file, a root disk of the size that its content needs,
    /// [`DEFAULT_OVERLAY_MIB`], [`DEFAULT_CMDLINE`], and e2fsprogs from the absolute directories of `PATH` or else from
    /// `/usr/sbin` or `/sbin`. Nothing is checked before [`pack`].
    pub fn new(
        kernel: impl Into<PathBuf>,
        guest: impl Into<PathBuf>,
        root: RootSource,
        out: impl Into<PathBuf>,
    ) -> ImageSpec {
        let path = env::var_os("PATH").unwrap_or_default();
        // An ordinary user's PATH often lacks these.
        let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        ImageSpec {
            kernel: kernel.into(),
            modules: ModuleSource::BuiltIn,
            root,
            guest: guest.into(),
            tools: None,
            root_mib: None,
            overlay_mib: DEFAULT_OVERLAY_MIB,
            cmdline: DEFAULT_CMDLINE.to_owned(),
            out: out.into(),
            search_path: env::split_paths(&path)
                .filter(|dir| dir.is_absolute())
                .chain(system)
                .collect(),
        }
    }

    fn check(&self) -> Result<(), Error> {
        let sizes = [
            ("overlay_mib", Some(self.overlay_mib)),
            ("root_mib", self.root_mib),
        ];
        for (setting, size) in sizes
            .into_iter()
            .filter_map(|(setting, size)| Some((setting, size?)))
        {
            if !DISK_MIB.contains(&size) {
                return Err(Error::OutOfRange {
                    setting,
                    value: size.to_string(),
                    allowed: "4 to 1048576 MiB",
                });
            }
        }
        if let Some(problem) = manifest::cmdline_problem(&self.cmdline) {
            return Err(Error::OutOfRange {
                setting: "cmdline",
                value: format!("one that {problem}"),
                allowed: "at most 2047 bytes without control characters",
            });
        }
        check_vacant(&self.out)
    }
}

/// The path of `chv-guest` in the directory of the running program, where cargo puts both programs. The file may not
/// exist.
///
/// # Errors
///
/// [`Error::Io`] if the path of the running program can't be determined.
pub fn guest_beside_executable() -> Result<PathBuf, Error> {
    let program = env::current_exe().map_err(Error::io("find", "the running program"))?;
    Ok(program.with_file_name("chv-guest"))
}

/// Packs an image. It is built in a work directory (`.chv-image-` and random characters) beside `spec.out` and renamed
/// to `spec.out` at the end, so an incomplete image never has that name. The work directory is removed in any case.
///
/// Needs no root. Blocks for about as long as it takes to read the inputs and write the disks.
///
/// # Errors
///
/// The settings and `spec.out` are checked first, then the mount points of a tree, the kernel with its modules,
/// `chv-guest`, the tools file, and the content of the root disk. The first error ends packing.
///
/// - Inputs and settings: [`Error::Io`], [`Error::NotRegular`], [`Error::TooLarge`], [`Error::OutOfRange`],
///   [`Error::OutputExists`], [`Error::OutputUnnamed`].
/// - The kernel: [`Error::NotKernel`], [`Error::KernelCompression`], [`Error::Decompress`], [`Error::NotElf`],
///   [`Error::WrongMachine`], [`Error::NoPvhEntry`].
/// - Its modules: [`Error::ModulesNeeded`], [`Error::ModuleList`], [`Error::ModuleMissing`],
///   [`Error::ModulesOfAnotherKernel`].
/// - `chv-guest` and busybox: [`Error::NotElf`], [`Error::WrongMachine`], [`Error::NotStatic`], and
///   [`Error::NoBuildId`]; the tools file: [`Error::Tools`].
/// - A tree: [`Error::TreeLacks`], [`Error::TreeEntry`], [`Error::TreeLinks`], [`Error::TreeAttributes`],
///   [`Error::OutputInsideTree`].
/// - A container image: [`Error::Container`].
/// - The disks: [`Error::Mke2fsMissing`], [`Error::Mke2fsFailed`], [`Error::RootTooSmall`],
///   [`Error::ProgramTimeout`], [`Error::UnexpectedFilesystem`], [`Error::FilesystemErrors`].
pub fn pack(spec: &ImageSpec) -> Result<Image, Error> {
    pack_stoppable(spec, Stop::never())
}

/// Like [`pack`], but fails soon after another thread sets `stop` to true. No file of the image is left then. The flag
/// is looked at between the steps, for each piece of a disk or layer, and every 50 ms while e2fsprogs run.
///
/// # Errors
///
/// [`Error::Stopped`], and those of [`pack`].
pub fn pack_until(spec: &ImageSpec, stop: &AtomicBool) -> Result<Image, Error> {
    pack_stoppable(spec, Stop::at(stop))
}

fn pack_stoppable(spec: &ImageSpec, stop: Stop<'_>) -> Result<Image, Error> {
    spec.check()?;
    // The work directory lies beside the destination, so that the last step can be a rename. It is removed with its
    // content on every exit. It is created first, so that an unwritable destination is an error before the inputs are
    // read.
    let parent = directory_of(&spec.out);
    let work = tempfile::Builder::new()
        .prefix(".chv-image-")
        .tempdir_in(parent)
        .map_err(Error::io("create a directory in", parent))?;
    if let RootSource::Tree(given) = &spec.root {
        tree::check_mount_points(given)?;
        check_outside(work.path(), given)?;
    }
    let kernel = Kernel::read(&spec.kernel)?;
    let modules = modules::collect(&spec.modules, &kernel, &spec.kernel)?;
    let guest = Guest::read(&spec.guest)?;
    let mut tools = spec.tools.as_deref().map(read_tools).transpose()?;
    let mke2fs = Mke2fs::find(&spec.search_path)?;
    let mut container = match &spec.root {
        RootSource::Container(source) => {
            let read = Assembled::read(source, tools.as_deref(), work.path(), stop)?;
            tools.clone_from(&read.tools);
            if let Some(tools) = &tools {
                check_tools(tools, &source.path)?;
            }
            Some(read)
        }
        RootSource::Busybox(_) | RootSource::Tree(_) => None,
    };

    stop.check()?;
    let dir = work.path().join("image");
    create_private_directory(&dir).map_err(Error::io("create", &dir))?;

    let module_names = modules.iter().map(|m| m.file_name.clone()).collect();
    let write = |name: &str, content: &[u8]| {
        let (path, mut file) = create(&dir, name)?;
        file.write_all(content).map_err(Error::io("write", path))
    };
    write(open::KERNEL, &kernel.elf)?;
    let (path, file) = create(&dir, open::INITRAMFS)?;
    Initramfs {
        init: guest.program,
        modules,
        tools,
    }
    .write(&file, &path)?;
    stop.check()?;
    write_disks(spec, container.as_mut(), &mke2fs, work.path(), &dir, stop)?;

    let record = |name| FileRecord::of(&dir.join(name), stop);
    let manifest = Manifest {
        format: FORMAT,
        cmdline: spec.cmdline.clone(),
        kernel_release: kernel.release,
        guest_build_id: guest.build_id,
        container_image: container.map(|container| container.record),
        modules: module_names,
        kernel: record(open::KERNEL)?,
        initramfs: record(open::INITRAMFS)?,
        root: record(open::ROOT)?,
        overlay: record(open::OVERLAY)?,
    };
    write(open::MANIFEST, manifest.to_json().as_bytes())?;

    // This replaces an empty directory, and fails on any other.
    fs::rename(&dir, &spec.out).map_err(Error::io("move the image to", &spec.out))?;
    Image::open(&spec.out)
}

/// Reads a tools file, and checks that the guest can use it; otherwise the error would appear only at boot.
fn read_tools(path: &Path) -> Result<Vec<u8>, Error> {
    let json = input::read(path, TOOLS_LIMIT)?;
    check_tools(&json, path)?;
    Ok(json)
}

fn check_tools(json: &[u8], path: &Path) -> Result<(), Error> {
    match Toolbox::from_json(json) {
        Ok(_) => Ok(()),
        Err(source) => Err(Error::Tools {
            path: path.into(),
            source,
        }),
    }
}

fn write_disks(
    spec: &ImageSpec,
    container: Option<&mut Assembled>,
    mke2fs: &Mke2fs,
    scratch: &Path,
    dir: &Path,
    stop: Stop<'_>,
) -> Result<(), Error> {
    let maker = DiskMaker {
        mke2fs,
        e2fsck: E2fsck::find(&spec.search_path),
        scratch,
        stop,
    };
    let (path, file) = create(dir, open::ROOT)?;
    match (&spec.root, container) {
        (_, Some(container)) => {
            container.write(&file, &path, spec.root_mib, stop)?;
            maker.check(&path)?;
        }
        (RootSource::Busybox(busybox), None) => {
            let made = scratch.join("root");
            tree::make(&made, &guest::busybox(busybox)?)?;
            maker.root(&file, &path, &made, Modified::Fix, spec.root_mib)?;
        }
        (RootSource::Tree(given), None) => {
            maker.root(&file, &path, given, Modified::Keep, spec.root_mib)?;
        }
        // `container` is always given for this source.
        (RootSource::Container(_), None) => {}
    }
    let (path, file) = create(dir, open::OVERLAY)?;
    maker.overlay(&file, &path, spec.overlay_mib)
}

/// Checks that the work directory doesn't lie inside the tree that fills the disk, because the disk would then contain
/// itself.
fn check_outside(dir: &Path, tree: &Path) -> Result<(), Error> {
    let real = |path: &Path| fs::canonicalize(path).map_err(Error::io("resolve", path));
    if real(dir)?.starts_with(real(tree)?) {
        return Err(Error::OutputInsideTree { tree: tree.into() });
    }
    Ok(())
}

/// Creates a file of the image, which only its owner can read.
fn create(dir: &Path, name: &str) -> Result<(PathBuf, File), Error> {
    let path = dir.join(name);
    let file = create_private(&path).map_err(Error::io("create", &path))?;
    Ok((path, file))
}

fn check_vacant(out: &Path) -> Result<(), Error> {
    // The finished image is renamed to this path, which is impossible for `.`, `..` and `/`.
    if out.file_name().is_none() {
        return Err(Error::OutputUnnamed { path: out.into() });
    }
    let occupied = || Error::OutputExists { path: out.into() };
    match fs::symlink_metadata(out) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io("examine", out)(e)),
        Ok(metadata) if !metadata.is_dir() => Err(occupied()),
        Ok(_) => match fs::read_dir(out).map_err(Error::io("read", out))?.next() {
            None => Ok(()),
            Some(_) => Err(occupied()),
        },
    }
}
