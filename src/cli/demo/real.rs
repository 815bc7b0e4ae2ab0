//! Runs the demo on a real VMM with a real guest.

use std::path::{Path, PathBuf};

use chv_sandbox::api;
use chv_sandbox::client::{Client, ErrorKind};
use chv_sandbox::image::Image;
use chv_sandbox::machine::VmmSource;
use chv_sandbox::overlay;

use super::directory::Place;
use super::program::Program;
use super::steps::{Stage, play as perform};
use crate::cli::Failure;
use crate::cli::interrupt::{Interrupt, Signalled};
use crate::cli::vm_args::{self, VmArgs};

/// The VMM to use.
pub(super) enum Which {
    /// A VMM that is started from this executable.
    Binary(PathBuf),
    /// A VMM that runs already, by its api-socket.
    Running(PathBuf),
}

pub(super) async fn play(
    interrupt: &Interrupt,
    place: &Place,
    which: Which,
    image: &Path,
    args: &VmArgs,
    program: &mut Program,
) -> Result<(), Failure> {
    let image = Image::open(image)?;
    let mut disks = vm_args::disks(&image);
    // The demo changes a byte of the root disk, and the image must stay unchanged.
    let root = place.path().join("root.img");
    let (from, to) = (disks[0].origin.clone(), root.clone());
    let copied = tokio::task::spawn_blocking(move || overlay::copy_private(&from, &to));
    interrupt.race(copied).await???;
    disks[0].origin = root;
    let running = match &which {
        Which::Binary(_) => None,
        Which::Running(api_socket) => Some(Client::new(api_socket)?),
    };
    let (vmm, title) = match which {
        Which::Binary(binary) => {
            let title = format!("a real VMM, {}", binary.display());
            (VmmSource::Spawn(args.vmm(binary)), title)
        }
        Which::Running(api_socket) => {
            let title = format!("a real VMM behind {}", api_socket.display());
            let directory = place.folder("machine")?;
            let vmm = VmmSource::Attach {
                api_socket,
                directory,
            };
            (vmm, title)
        }
    };
    program.begin(&title, &[]);
    let stage = Stage {
        vmm,
        shape: args.shape(&image),
        disks,
        port: args.port,
        limits: args.limits(),
        settle: args.settle(),
    };
    let played = perform(interrupt, place, stage, program).await;
    if let (Some(client), Err(failure)) = (running, &played)
        && failure.is::<Signalled>()
    {
        delete_vm(&client).await;
    }
    played
}

/// Deletes the VM that an interrupted mint has left in a VMM that keeps running.
async fn delete_vm(client: &Client) {
    match client.send(api::vm_delete()).await {
        Err(error) if *error.kind() != ErrorKind::NotCreated => {
            eprintln!("warning: the demo's VM may still be there: {error}");
        }
        _ => {}
    }
}
