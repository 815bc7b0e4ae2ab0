//! `chv-sandbox golden`: golden snapshots.

use std::path::PathBuf;
use std::process::ExitCode;

use chv_sandbox::golden::{Golden, MintConfig, MintError, SigningKey, mint};
use chv_sandbox::image::Image;
use chv_sandbox::machine::{GuestMemory, MachineConfig, VmmSource};

use super::vm::{self, VmArgs};
use super::{Failure, explain};

mod check;

/// Golden snapshots: the state to which every reset returns.
#[derive(clap::Args)]
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

/// Boots an image, lets it settle, takes its snapshot, and records the baselines.
///
/// Exit status: 0 done; 2 wrong usage; 3 the VM did not boot or settle; 4 the snapshot was not taken or cannot
/// be reverted to; 5 the readings cannot serve as baselines; 1 anything else. Nothing is left of a mint that
/// failed.
#[derive(clap::Args)]
struct MintArgs {
    /// The VMM's executable; a bare name is looked up in PATH
    #[arg(
        long,
        value_name = "BIN",
        env = "CLOUD_HYPERVISOR",
        default_value = "cloud-hypervisor"
    )]
    vmm: PathBuf,
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

pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    match args.command {
        Command::Mint(args) => run_mint(*args).await,
        Command::Verify(args) => check::verify(args).await,
        Command::Compare(args) => check::compare(&args),
    }
}

async fn run_mint(args: MintArgs) -> Result<ExitCode, Failure> {
    let image = Image::open(&args.image)?;
    let sign_with = args.sign_with.as_deref().map(SigningKey::load);
    let config = MintConfig {
        sign_with: sign_with.transpose()?,
        machine: MachineConfig {
            vmm: VmmSource::Spawn(args.vm.vmm(args.vmm)),
            disks: vm::disks(&image),
            memory: GuestMemory::ByPath,
            port: args.vm.port,
            limits: args.vm.limits(),
        },
        shape: args.vm.shape(&image),
        any_guest: args.any_guest,
        settle: args.vm.settle(),
        into: args.out,
    };
    match mint(config).await {
        Ok(golden) => {
            print(&golden);
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            explain(&error);
            Ok(exit_code(&error))
        }
    }
}

fn print(golden: &Golden) {
    let manifest = golden.manifest();
    println!("golden snapshot  {}", golden.directory().display());
    println!("release          {}", manifest.release);
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
    println!("open descriptors {}", manifest.baselines.open_fd_count);
    println!(
        "guest build      {}",
        manifest.guest.build_id.as_deref().unwrap_or("not told")
    );
}

fn exit_code(error: &MintError) -> ExitCode {
    ExitCode::from(match error {
        MintError::Boot(_) | MintError::AnotherBuild { .. } | MintError::Restless { .. } => 3,
        MintError::Snapshot(_) | MintError::Revert(_) => 4,
        MintError::Baseline(_) => 5,
        _ => 1,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chv_sandbox::golden::BaselineError;
    use chv_sandbox::machine;

    use super::*;

    #[test]
    fn the_exit_status_tells_the_stage() {
        let check = |error: MintError, expected: u8| {
            assert_eq!(exit_code(&error), ExitCode::from(expected), "{error:?}");
        };
        let folder = MintError::Folder {
            path: "/golden".into(),
            source: std::io::ErrorKind::AlreadyExists.into(),
        };
        check(folder, 1);
        check(MintError::Boot(machine::Error::NoChannel), 3);
        let guest = "another".to_owned();
        check(MintError::AnotherBuild { guest }, 3);
        let limit = Duration::from_secs(10);
        check(MintError::Restless { limit, last: 7 }, 3);
        check(MintError::Snapshot(machine::Error::NoChannel), 4);
        check(MintError::Revert(machine::Error::NoChannel), 4);
        check(MintError::Baseline(BaselineError::NoDescriptors), 5);
    }
}
