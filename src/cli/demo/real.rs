//! The real stage: a real VMM with a real guest.

use std::path::{Path, PathBuf};

use chv_sandbox::client::{Client, ErrorKind};
use chv_sandbox::image::Image;
use chv_sandbox::machine::VmmSource;
use chv_sandbox::overlay;

use super::place::Place;
use super::play::{Stage, play as perform};
use super::program::Program;
use crate::cli::Failure;
use crate::cli::interrupt::{Interrupt, Signalled};
use crate::cli::vm::{self, VmArgs};

/// Which VMM.
pub(super) enum Which {
    /// One that is spawned from this executable.
    Binary(PathBuf),
    /// One that runs already, by its api-socket.
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
    let mut disks = vm::disks(&image);
    // The play changes a byte of the root disk, and the image is to stay as it is.
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

/// Deletes the VM that an interrupted mint has left in a VMM that runs on.
async fn delete_vm(client: &Client) {
    match client.vm_delete().await {
        Err(error) if *error.kind() != ErrorKind::NotCreated => {
            eprintln!("warning: the demo's VM may still be there: {error}");
        }
        _ => {}
    }
}
