//! `chv-sandbox golden`: golden snapshots.

use std::path::PathBuf;

use chv_sandbox::golden::{Golden, MintConfig, SigningKey, mint};
use chv_sandbox::image::Image;
use chv_sandbox::machine::{FurtherFiles, GuestMemory, MachineConfig, VmmSource};

use super::Failure;
use super::interrupt::Interrupt;
use super::status::{self, Status};
use super::vm::{self, VmArgs, VmmBinary};

mod check;

/// Golden snapshots: the state to which every reset returns.
#[derive(clap::Args)]
#[command(after_help = status::help(&[
    (Status::Yes, "done, good, or the same"),
    (Status::No, "not as it should be, or different"),
    (Status::Undecided, "it could not be decided or done"),
]))]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Mint(Box<MintArgs>),
    Verify(check::VerifyArgs),
    Compare(check::CompareArgs),
}

/// Boots an image, lets it settle, takes its snapshot, and records the baselines. Nothing is left of a mint that failed
/// or was interrupted; what one that was killed has left is removed by the next.
#[derive(clap::Args)]
#[command(after_help = status::help(&[
    (Status::Yes, "the golden snapshot is complete"),
    (Status::Undecided, "none was made, and the error says at which step it failed"),
]))]
struct MintArgs {
    #[command(flatten)]
    vmm: VmmBinary,
    /// An image that `chv-sandbox image` packed
    #[arg(long, value_name = "DIR")]
    image: PathBuf,
    /// The folder to make; it must not exist
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Take a guest whose dispatcher is of another build than this program
    #[arg(long)]
    any_guest: bool,
    /// Sign the manifest with this Ed25519 key: PKCS#8 in PEM or 32 bytes, in a file that only its owner may access
    #[arg(long, value_name = "FILE")]
    sign_with: Option<PathBuf>,
    #[command(flatten)]
    vm: VmArgs,
}

pub(crate) async fn run(args: Args) -> Result<Status, Failure> {
    match args.command {
        Command::Mint(args) => run_mint(*args).await,
        Command::Verify(args) => check::verify(args).await,
        Command::Compare(args) => check::compare(&args),
    }
}

async fn run_mint(args: MintArgs) -> Result<Status, Failure> {
    let interrupt = Interrupt::catch()?;
    let image = Image::open(&args.image)?;
    let container = image.manifest().container_image.as_ref();
    let container = container.map(|container| container.digest().parse());
    let sign_with = args.sign_with.as_deref().map(SigningKey::load);
    let config = MintConfig {
        container_image: container.transpose()?,
        sign_with: sign_with.transpose()?,
        machine: MachineConfig {
            vmm: VmmSource::Spawn(args.vm.vmm(args.vmm.path)),
            disks: vm::disks(&image),
            memory: GuestMemory::ByPath,
            port: args.vm.port,
            files: FurtherFiles::default(),
            limits: args.vm.limits(),
        },
        shape: args.vm.shape(&image),
        any_guest: args.any_guest,
        settle: args.vm.settle(),
        into: args.out,
    };
    let golden = interrupt.race(mint(config)).await??;
    print(&golden);
    Ok(Status::Yes)
}

fn print(golden: &Golden) {
    let manifest = golden.manifest();
    println!("golden snapshot  {}", golden.directory().display());
    println!("manifest         {}", golden.digest());
    println!("release          {}", manifest.release);
    if let Some(container) = &manifest.container_image {
        println!("container image  {container}");
    }
    for disk in &manifest.disks {
        let kind = if disk.readonly {
            "read-only"
        } else {
            "put back"
        };
        println!(
            "{:<16} {} ({kind}, {} bytes)",
            format!("{} disk", disk.role),
            disk.sha256,
            disk.length
        );
    }
    let mib = manifest.snapshot.memory_ranges.length >> 20;
    println!("memory           at most {mib} MiB of RAM, once for all sandboxes of a process");
    println!("open descriptors {}", manifest.baselines.open_fd_count);
    println!(
        "guest build      {}",
        manifest.guest.build_id.as_deref().unwrap_or("not told")
    );
}
