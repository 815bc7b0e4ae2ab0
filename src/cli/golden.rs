//! `chv-sandbox golden`: mints, verifies and compares golden snapshots.

use std::path::PathBuf;
use std::time::Duration;

use chv_sandbox::golden::{Golden, MintConfig, MintProgress, SigningKey, WarmTool, mint};
use chv_sandbox::guest::protocol::ToolName;
use chv_sandbox::image::Image;
use chv_sandbox::machine::{GuestMemory, MachineConfig, VmmFiles, VmmSource};
use chv_sandbox::sanitize;

use super::Failure;
use super::interrupt::Interrupt;
use super::status::{self, Status};
use super::tool_argument::{ToolLine, duration};
use super::vm_args::{self, VmArgs, VmmBinary};

mod check;
mod progress;

/// Mints, verifies and compares golden snapshots, the state to which every reset returns.
#[derive(clap::Args)]
#[command(after_help = status::help(&[
    (Status::Yes, "minted, verified, or equal"),
    (Status::No, "not verified, or different"),
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

/// Boots an image, waits until the guest has settled, takes a snapshot, and records the baselines for verification.
///
/// A mint that fails or is interrupted leaves nothing behind. Files of a mint that was killed are removed by the next
/// one.
#[derive(clap::Args)]
#[command(after_help = mint_help())]
struct MintArgs {
    #[command(flatten)]
    vmm: VmmBinary,
    /// The image, a directory that `chv-sandbox image` made
    ///
    /// It has to stay where it is: the golden snapshot refers to its root disk, kernel and
    /// initramfs, and copies only the overlay.
    #[arg(long, value_name = "DIR")]
    image: PathBuf,
    /// The directory to create for the golden snapshot; it must not exist
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Accept a guest whose dispatcher (chv-guest) is of another build than this program
    #[arg(long)]
    any_guest: bool,
    /// Sign the manifest with this Ed25519 private key: PKCS#8 in PEM, or 32 raw bytes
    ///
    /// Only the owner of the file may have access to it. The commands that make a key pair are at the end of this help.
    #[arg(long, value_name = "FILE")]
    sign_with: Option<PathBuf>,
    /// Run this tool before the snapshot, so that restored guests have in memory what it reads; may be repeated
    ///
    /// TOOL and its parameters are written as after the -- of `chv-sandbox run`, quoted as one argument. What the tool
    /// writes is discarded. The manifest records the parameters, so they must hold no secret.
    #[arg(long, value_name = "TOOL [--param NAME=TEXT]...", value_parser = ToolLine::split)]
    warm: Vec<ToolLine>,
    /// The time limit of each --warm tool, for example 90s or 5m
    #[arg(long, requires = "warm", value_name = "TIME", default_value = "60s", value_parser = duration)]
    warm_deadline: Duration,
    #[command(flatten)]
    vm: VmArgs,
}

/// The last part of the help of `mint`.
fn mint_help() -> String {
    let statuses = status::help(&[
        (Status::Yes, "the golden snapshot is complete"),
        (
            Status::Undecided,
            "no golden snapshot was made; the error says at which step the mint failed",
        ),
    ]);
    format!(
        "A key for --sign-with, and its public key for `golden verify --public-key`:\n  \
         openssl genpkey -algorithm ed25519 -out signing.pem\n  \
         openssl pkey -in signing.pem -pubout -out public.pem\n\n{statuses}"
    )
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
    let container = container.map(|container| container.digest());
    let sign_with = args.sign_with.as_deref().map(SigningKey::load);
    let warm = args.warm.iter().map(|line| warm_tool(line, &args));
    let warm = warm.collect::<Result<Vec<_>, _>>()?;
    let progress = MintProgress::default();
    let mut config = MintConfig::new(
        MachineConfig {
            vmm: VmmSource::Spawn(args.vm.vmm(args.vmm.path)),
            disks: vm_args::disks(&image),
            memory: GuestMemory::ByPath,
            port: args.vm.port,
            files: VmmFiles::default(),
            limits: args.vm.limits(),
        },
        args.vm.shape(&image),
        args.out,
    );
    config.warm = warm;
    config.progress = progress.clone();
    config.container_image = container;
    config.sign_with = sign_with.transpose()?;
    config.any_guest = args.any_guest;
    config.settle = args.vm.settle();
    let minted = progress::shown(&progress, interrupt.race(mint(config)));
    let golden = minted.await??;
    print(&golden)?;
    Ok(Status::Yes)
}

fn warm_tool(line: &ToolLine, args: &MintArgs) -> Result<WarmTool, Failure> {
    let deadline = args.warm_deadline.saturating_mul(args.vm.patience);
    Ok(WarmTool {
        tool: ToolName::new(line.tool.as_str())?,
        params: line.params.clone(),
        deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX),
    })
}

fn print(golden: &Golden) -> Result<(), Failure> {
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
    for warm in &manifest.warmed_by {
        let params = sanitize::line(&warm.params.to_string(), usize::MAX);
        println!(
            "warmed by        {} {params}",
            sanitize::line(warm.tool.as_str(), usize::MAX)
        );
    }
    println!("memory           {}", check::memory(golden.memory_need()?));
    println!("open descriptors {}", manifest.baselines.open_fd_count);
    println!(
        "guest build      {}",
        manifest.guest.build_id.as_deref().unwrap_or("not told")
    );
    Ok(())
}
