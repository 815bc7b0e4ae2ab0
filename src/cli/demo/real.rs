//! The real stage: a real VMM with a real guest.

use std::path::{Path, PathBuf};

use chv_sandbox::image::Image;
use chv_sandbox::machine::VmmSource;
use chv_sandbox::overlay;

use super::play::{Place, Stage, play as perform};
use super::program::Program;
use crate::cli::Failure;
use crate::cli::vm::{self, VmArgs};

/// Which VMM.
pub(super) enum Which {
    /// One that is spawned from this executable.
    Binary(PathBuf),
    /// One that runs already, by its api-socket.
    Running(PathBuf),
}

pub(super) async fn play(
    place: &Place,
    which: Which,
    image: &Path,
    args: &VmArgs,
    program: &mut Program,
) -> Result<(), Failure> {
    let image = Image::open(image)?;
    let mut disks = vm::disks(&image);
    // The play changes a byte of the root disk, and the image is somebody's.
    let root = place.path().join("root.img");
    let (from, to) = (disks[0].origin.clone(), root.clone());
    tokio::task::spawn_blocking(move || overlay::copy_private(&from, &to)).await??;
    disks[0].origin = root;
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
    perform(place, stage, program).await
}
