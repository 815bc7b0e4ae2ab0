//! The recorded stage: the answers of a real VMM, played back, and a stand-in for its guest.

use std::fs;
use std::path::Path;
use std::time::Duration;

use chv_sandbox::guest::stand_in::StandIn;
use chv_sandbox::limits::TimeLimits;
use chv_sandbox::machine::{Disk, DiskFormat, DiskRole, SNAPSHOT_FILES, VmShape, VmmSource};
use chv_sandbox::replay::{Cassette, HookError, Played, Player, PlayerOptions, RequestBody};
use serde_json::Value;

use super::place::Place;
use super::play::{Stage, play as perform};
use super::program::Program;
use crate::cli::Failure;
use crate::cli::interrupt::Interrupt;

/// This very play, as a real VMM answered it. The README says how it was recorded.
const CASSETTE: &[u8] = include_bytes!("../../../fixtures/demo.json");

/// The disks' sizes, in bytes.
const ROOT_BYTES: usize = 8 << 20;
const OVERLAY_BYTES: u64 = 64 << 20;

pub(super) async fn play(
    interrupt: &Interrupt,
    place: &Place,
    program: &mut Program,
) -> Result<(), Failure> {
    let cassette = Cassette::from_slice(CASSETTE)?;
    let image = place.folder("image")?;
    let machine = place.folder("machine")?;
    let root = place.path().join("root.img");
    lay_out(&image, &root)?;

    let (work, images) = (text(place.path())?, text(&image)?);
    let config = created_vm(&cassette)?
        .replace("${WORK}", &work)
        .replace("${IMAGE}", &images);
    let config: Value = serde_json::from_str(&config)?;
    let shape = shape(&config).ok_or("the recorded VM is not one of this demo")?;
    let title = format!("the recording of a real VMM, {}", cassette.release);

    let guest = StandIn::new(machine.join("vsock.sock"))?;
    let golden = place.path().join("golden/snapshot");
    let options = PlayerOptions::new(place.path().join("api.sock"))
        .substitute("WORK", work)
        .substitute("IMAGE", images)
        .on_exchange(move |played| {
            let done = act(&played, &guest, &golden, &config);
            async move { done }
        });
    let player = Player::start(cassette, options).await?;
    program.begin(
        &title,
        &[
            "the disks are real files, really hashed and put back",
            "the guest is a stand-in: its dispatcher is the real one, in this process, behind a real hybrid-vsock \
             socket; its descriptors, clock and random pool are made up",
            "checks that need a VMM process do not apply",
        ],
    );
    let stage = Stage {
        vmm: VmmSource::Attach {
            api_socket: player.socket().to_owned(),
            directory: machine,
        },
        shape,
        disks: disks(&image, &root),
        port: chv_sandbox::guest::protocol::DEFAULT_PORT,
        limits: TimeLimits::default(),
        settle: Duration::from_secs(10),
    };
    perform(interrupt, place, stage, program).await?;
    Ok(player.finish().await?)
}

/// What a VMM does besides answering: its vsock socket and its guest come and go, and a snapshot has files.
fn act(played: &Played, guest: &StandIn, golden: &Path, config: &Value) -> Result<(), HookError> {
    match played.path.rsplit('/').next() {
        Some("vm.boot" | "vm.restore") => guest.start()?,
        Some("vm.delete") => guest.stop(),
        Some("vm.snapshot") => {
            for name in SNAPSHOT_FILES {
                fs::write(golden.join(name), config.to_string())?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// The body of the recorded `vm.create`.
fn created_vm(cassette: &Cassette) -> Result<String, Failure> {
    let mut requests = cassette.exchanges.iter().map(|exchange| &exchange.request);
    let create = requests.find(|request| request.path.ends_with("/vm.create"));
    match create.map(|create| &create.body) {
        Some(RequestBody::Json(config)) => Ok(config.to_string()),
        _ => Err("the recording creates no VM".into()),
    }
}

/// The VM of the recording, so that the same one is asked for again.
fn shape(config: &Value) -> Option<VmShape> {
    let payload = &config["payload"];
    Some(VmShape {
        kernel: payload["kernel"].as_str()?.into(),
        initramfs: payload["initramfs"].as_str().map(Into::into),
        cmdline: payload["cmdline"].as_str()?.to_owned(),
        vcpus: config["cpus"]["boot_vcpus"].as_u64()?.try_into().ok()?,
        memory_mib: config["memory"]["size"].as_u64()? >> 20,
        cid: config["vsock"]["cid"].as_u64()?.try_into().ok()?,
    })
}

fn lay_out(image: &Path, root: &Path) -> std::io::Result<()> {
    for name in ["kernel", "initramfs"] {
        fs::write(image.join(name), "stands for a real one\n")?;
    }
    let pattern = (0..ROOT_BYTES).map(|at| (at / 4096 + at) as u8);
    fs::write(root, pattern.collect::<Vec<_>>())?;
    let overlay = image.join("overlay.img");
    fs::write(&overlay, "an overlay with one line and a large hole\n")?;
    fs::File::options()
        .write(true)
        .open(overlay)?
        .set_len(OVERLAY_BYTES)
}

fn disks(image: &Path, root: &Path) -> Vec<Disk> {
    let root = Disk {
        role: DiskRole::Root,
        origin: root.to_owned(),
        readonly: true,
        format: DiskFormat::Raw,
    };
    let overlay = Disk {
        role: DiskRole::Overlay,
        origin: image.join("overlay.img"),
        readonly: false,
        format: DiskFormat::Raw,
    };
    vec![root, overlay]
}

fn text(path: &Path) -> Result<String, Failure> {
    let text = path
        .to_str()
        .ok_or("the temporary folder's path is not UTF-8")?;
    Ok(text.to_owned())
}
