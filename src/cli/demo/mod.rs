//! `chv-sandbox demo`: the main job, start to end.
//!
//! The same play is given on two stages: on a recorded VMM with a stand-in for the guest ([`recorded`]), and on a
//! real one with a real guest ([`real`]).

mod place;
mod play;
mod program;
mod real;
mod recorded;

use std::path::PathBuf;

use super::interrupt::{Interrupt, Signalled};
use super::status::{self, Status};
use super::vm::VmArgs;
use super::{Failure, explain, usage};

/// Boots a sandbox, runs a tool, resets and verifies it, tampers with its disk, and sees the next reset halt.
///
/// Without arguments on a recorded VMM, with real disk files; with --vmm and --image on the real thing.
#[derive(clap::Args)]
#[command(after_help = status::help(&[
    (Status::Yes, "the clean reset was verified and the tampered one halted"),
    (Status::No, "a reset or the tool came out otherwise"),
    (Status::Undecided, "it could not be played to its end"),
]))]
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
    /// Where the demo works: a new folder, which stays unless the demo is interrupted [default: a temporary one]
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
        let message = "--run-root and --vmm-env are for a VMM that is started, and --api-socket names one that runs already";
        return Err(usage("demo", message));
    }
    let interrupt = Interrupt::catch()?;
    let mut place = place::Place::new(args.directory.as_deref())?;
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
        Err(failure) => failure.downcast::<play::Unexpected>().map(Some),
        Ok(()) => Ok(None),
    };
    program.end(matches!(verdict, Ok(None)));
    place.settle();
    Ok(match verdict? {
        None => Status::Yes,
        Some(unexpected) => {
            explain(&*unexpected);
            // The evidence is in there.
            place.keep();
            eprintln!("note: the demo's files stay in {}", place.path().display());
            Status::No
        }
    })
}
