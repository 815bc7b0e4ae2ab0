//! `chv-sandbox demo`: the main job, start to end.
//!
//! The same play is given on two stages: on a recorded VMM with a stand-in for the guest ([`recorded`]), and on a
//! real one with a real guest ([`real`]).

mod play;
mod program;
mod real;
mod recorded;

use std::path::PathBuf;
use std::process::ExitCode;

use super::Failure;
use super::vm::VmArgs;

/// Boots a sandbox, runs a tool, resets and verifies it, tampers with its disk, and sees the next reset halt.
///
/// Without arguments on a recorded VMM, with real disk files; with --vmm and --image on the real thing.
/// Exit status: 0 only if the clean reset passed and the tampered one halted.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A real VMM's executable; needs --image, and /dev/kvm
    #[arg(long, value_name = "BIN", requires = "image")]
    vmm: Option<PathBuf>,
    /// A real VMM that runs already, by its api-socket; needs --image, on the same machine
    #[arg(long, value_name = "PATH", requires = "image", conflicts_with = "vmm")]
    api_socket: Option<PathBuf>,
    /// An image that `chv-sandbox image` packed. The demo works on a copy of its disks
    #[arg(long, value_name = "DIR")]
    image: Option<PathBuf>,
    /// Where the demo works: a new folder, which stays [default: a temporary one, which does not]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    vm: VmArgs,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let place = play::Place::new(args.directory.as_deref())?;
    let mut program = program::Program::new(args.json);
    let played = match args.image {
        None if args.vmm.is_none() && args.api_socket.is_none() => {
            recorded::play(&place, &mut program).await
        }
        None => unreachable!("clap requires --image"),
        Some(image) => {
            let vmm = match (args.vmm, args.api_socket) {
                (_, Some(socket)) => real::Which::Running(socket),
                (Some(binary), None) => real::Which::Binary(binary),
                (None, None) => real::Which::Binary("cloud-hypervisor".into()),
            };
            real::play(&place, vmm, &image, &args.vm, &mut program).await
        }
    };
    program.end(played.is_ok());
    played.map(|()| ExitCode::SUCCESS)
}
