//! `chv-sandbox demo`: boots a sandbox, runs a tool, resets, and shows that a tampered disk makes the next reset halt.
//!
//! The steps ([`play`]) are the same on a recorded VMM with a simulated guest ([`recorded`]) and on a real VMM with a
//! real guest ([`real`]).

mod directory;
mod program;
mod real;
mod recorded;
mod steps;

use std::path::PathBuf;

use super::interrupt::{Interrupt, Signalled};
use super::status::{self, Status};
use super::vm_args::VmArgs;
use super::{Failure, explain, usage};

/// Boots a sandbox, runs a tool, resets and verifies the sandbox, tampers with its disk, and shows that the next reset
/// halts.
///
/// Without options the demo needs no KVM: it runs on the recorded answers of a VMM, with real disk files. With --image
/// it runs on a real VMM.
#[derive(clap::Args)]
#[command(after_help = status::help(&[
    (Status::Yes, "the clean reset was verified and the tampered one halted"),
    (Status::No, "the tool or a reset had another result"),
    (Status::Undecided, "the demo could not be completed"),
]))]
pub(crate) struct Args {
    /// The Cloud Hypervisor executable of a real VMM; needs --image and /dev/kvm [default with --image:
    /// cloud-hypervisor]
    #[arg(long, value_name = "BIN", requires = "image")]
    vmm: Option<PathBuf>,
    /// The api-socket of a VMM that runs already on this host; needs --image
    #[arg(long, value_name = "PATH", requires = "image", conflicts_with = "vmm")]
    api_socket: Option<PathBuf>,
    /// The image, a directory that `chv-sandbox image` made. It stays as it is: the demo tampers with a copy
    #[arg(long, value_name = "DIR")]
    image: Option<PathBuf>,
    /// A new directory for the demo's files, which is kept unless the demo is interrupted [default: a temporary
    /// directory]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Print the results as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    vm: VmArgs,
}

pub(crate) async fn run(args: Args) -> Result<Status, Failure> {
    if args.api_socket.is_some() && (args.vm.run_root.is_some() || !args.vm.vmm_env.is_empty()) {
        let message = "--run-root and --vmm-env apply to a VMM that the demo starts, but --api-socket names one that runs already";
        return Err(usage("demo", message));
    }
    let interrupt = Interrupt::catch()?;
    let mut place = directory::Place::new(args.directory.as_deref())?;
    let mut program = program::Program::new(args.json);
    let played = match args.image {
        None => recorded::play(&interrupt, &place, &mut program).await,
        Some(image) => {
            let vmm = match (args.vmm, args.api_socket) {
                (_, Some(socket)) => real::Which::Running(socket),
                (Some(binary), None) => real::Which::Binary(binary),
                (None, None) => real::Which::Binary("cloud-hypervisor".into()),
            };
            real::play(&interrupt, &place, vmm, &image, &args.vm, &mut program).await
        }
    };
    let verdict = match played {
        Err(failure) if failure.is::<Signalled>() => return Err(failure),
        Err(failure) => failure.downcast::<steps::Unexpected>().map(Some),
        Ok(()) => Ok(None),
    };
    program.end(matches!(verdict, Ok(None)));
    place.settle();
    Ok(match verdict? {
        None => Status::Yes,
        Some(unexpected) => {
            explain(&*unexpected);
            // The folder holds the evidence.
            place.keep();
            eprintln!(
                "note: the demo's files are kept in {}",
                place.path().display()
            );
            Status::No
        }
    })
}
