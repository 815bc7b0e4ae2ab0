//! `chv-sandbox image`: packs a bootable image.

use std::path::PathBuf;

use chv_sandbox::{
    guest,
    image::{
        self, ContainerSource, DEFAULT_CMDLINE, DEFAULT_CONTENT_LIMIT, DEFAULT_OVERLAY_MIB,
        EntrypointTool, Image, ImageSpec, ModuleSource, RootSource,
    },
};

use super::interrupt::Interrupt;
use super::status::{self, Status};
use super::{Failure, usage};

/// Packs a bootable image from a kernel, chv-guest, and the content of the root disk: busybox, a directory tree or a
/// container image.
///
/// Needs no root, but e2fsprogs must be installed. Nothing is downloaded: `skopeo copy docker://IMAGE oci:DIR:TAG`
/// makes the OCI layout that `--oci DIR --image TAG` reads.
///
/// The inputs are read in this order, and the first that can't be used ends the command: the kernel with its modules,
/// chv-guest, --tools, and the content of the root disk. The output directory is checked before them.
#[derive(clap::Args)]
#[command(
    group = clap::ArgGroup::new("content").required(true),
    after_help = status::help(&[
        (Status::Yes, "the image is complete"),
        (Status::Undecided, "no image was packed, and no file of it is left"),
    ])
)]
pub(crate) struct Args {
    /// The kernel: a vmlinuz (bzImage) or an uncompressed vmlinux
    #[arg(long, value_name = "FILE")]
    kernel: PathBuf,
    /// The kernel's directory lib/modules/VERSION
    ///
    /// Without this option the kernel must have all drivers that the guest needs built in.
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
    /// Accept a kernel without --modules even if its built-in drivers can't be verified; it may not boot
    #[arg(long, conflicts_with = "modules")]
    assume_built_in: bool,
    /// Fill the root disk with this static busybox under its usual names
    #[arg(long, value_name = "FILE", group = "content")]
    busybox: Option<PathBuf>,
    /// Fill the root disk with this directory tree
    #[arg(long, value_name = "DIR", group = "content")]
    tree: Option<PathBuf>,
    /// Fill the root disk with a container image: an OCI layout (a directory or a tar file) or a `docker save` archive
    ///
    /// Tools get the image's environment, working directory and user, but never run as root.
    #[arg(long, value_name = "PATH", group = "content")]
    oci: Option<PathBuf>,
    /// Which container image to take if --oci has several: its tag, full name or digest
    #[arg(long, value_name = "TAG|DIGEST", requires = "oci")]
    image: Option<String>,
    /// Offer the container image's entry point as a tool of this name
    #[arg(long, value_name = "NAME", requires = "oci")]
    entrypoint_tool: Option<String>,
    /// A parameter of that tool, whose value becomes an argument of the entry point; may be repeated
    #[arg(long, value_name = "NAME", requires = "entrypoint_tool")]
    entrypoint_arg: Vec<String>,
    /// The most bytes that the container image's layers may have once they are decompressed
    #[arg(long, value_name = "BYTES", requires = "oci", default_value_t = DEFAULT_CONTENT_LIMIT)]
    content_limit: u64,
    /// The statically linked chv-guest [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    guest: Option<PathBuf>,
    /// The JSON file that declares the image's own tools
    #[arg(long, value_name = "FILE")]
    tools: Option<PathBuf>,
    /// The overlay disk's size in MiB
    #[arg(long, value_name = "MIB", default_value_t = DEFAULT_OVERLAY_MIB)]
    overlay_size: u64,
    /// The root disk's size in MiB [default: what its content needs]
    #[arg(long, value_name = "MIB")]
    root_size: Option<u64>,
    /// The kernel's command line
    #[arg(long, default_value = DEFAULT_CMDLINE)]
    cmdline: String,
    /// The directory to write the image to; it must not exist, or must be empty
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Packs the image and prints its manifest.
pub(crate) async fn run(args: Args) -> Result<Status, Failure> {
    let interrupt = Interrupt::catch()?;
    let spec = args.into_spec()?;
    if spec.modules == ModuleSource::AssumeBuiltIn {
        eprintln!(
            "warning: the kernel is not checked for the drivers that the guest needs; it boots only if virtio, vsock, ext4 and overlay are built in"
        );
    }
    let stop = interrupt.flag();
    let packed = tokio::task::spawn_blocking(move || image::pack_until(&spec, &stop));
    let image = match packed.await? {
        Err(image::Error::Stopped) => return Err(interrupt.received().await.into()),
        packed => packed.map_err(by_flag)?,
    };
    print(&image);
    let packed = &image.manifest().guest_build_id;
    if packed != guest::BUILD_ID {
        eprintln!(
            "warning: the packed chv-guest is build {packed}, but this program works with build {}: build both from the same sources",
            guest::BUILD_ID
        );
    }
    Ok(Status::Yes)
}

/// Names the option instead of the library's setting if a value is out of range.
fn by_flag(error: image::Error) -> Failure {
    let image::Error::OutOfRange {
        setting,
        value,
        allowed,
    } = &error
    else {
        return error.into();
    };
    let flag = match *setting {
        "overlay_mib" => "--overlay-size",
        "root_mib" => "--root-size",
        "cmdline" => "--cmdline",
        _ => return error.into(),
    };
    usage(
        "image",
        format_args!("{flag} is {value}; it must be {allowed}"),
    )
}

impl Args {
    fn into_spec(self) -> Result<ImageSpec, image::Error> {
        let root = match (self.busybox, self.oci, self.tree) {
            (Some(busybox), _, _) => RootSource::Busybox(busybox),
            (None, Some(path), _) => {
                let mut source = ContainerSource::new(path);
                source.image = self.image;
                source.content_limit = self.content_limit;
                let arguments = self.entrypoint_arg;
                source.entrypoint_tool = self
                    .entrypoint_tool
                    .map(|name| EntrypointTool { name, arguments });
                RootSource::Container(source)
            }
            // The parser requires one of the three.
            (None, None, tree) => RootSource::Tree(tree.unwrap_or_default()),
        };
        let guest = self.guest.map_or_else(image::guest_beside_executable, Ok)?;
        let mut spec = ImageSpec::new(self.kernel, guest, root, self.out);
        spec.modules = match self.modules {
            Some(dir) => ModuleSource::Directory(dir),
            None if self.assume_built_in => ModuleSource::AssumeBuiltIn,
            None => ModuleSource::BuiltIn,
        };
        spec.tools = self.tools;
        spec.root_mib = self.root_size;
        spec.overlay_mib = self.overlay_size;
        spec.cmdline = self.cmdline;
        Ok(spec)
    }
}

fn print(image: &Image) {
    let manifest = image.manifest();
    println!("{}", image.dir().display());
    println!(
        "  kernel release  {}",
        manifest
            .kernel_release
            .as_deref()
            .unwrap_or("not a Linux kernel")
    );
    println!("  guest build     {}", manifest.guest_build_id);
    if let Some(container) = &manifest.container_image {
        println!("  container image {}", container.digest());
        println!(
            "                  {} layers, {} set-id files; left out: {} devices, {} extended attributes",
            container.layers,
            container.set_id_files,
            container.skipped_devices,
            container.skipped_attributes
        );
    }
    println!("  modules         {}", manifest.modules.len());
    println!("  command line    {}", manifest.cmdline);
    for (name, file) in [
        ("kernel", &manifest.kernel),
        ("initramfs", &manifest.initramfs),
        ("root.img", &manifest.root),
        ("overlay.img", &manifest.overlay),
    ] {
        println!("  {name:<12} {:>12} bytes  {}", file.size, file.sha256);
    }
}
