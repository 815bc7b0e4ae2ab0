//! Resets on the recorded answers of a real VMM, which come at once, and a stand-in for the guest in this process.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use chv_sandbox::golden::{MintConfig, mint};
use chv_sandbox::guest::protocol::DEFAULT_PORT;
use chv_sandbox::guest::stand_in::StandIn;
use chv_sandbox::limits::TimeLimits;
use chv_sandbox::machine::{
    DiskRole, FurtherFiles, GuestMemory, MachineConfig, SNAPSHOT_FILES, VmShape, VmmSource,
};
use chv_sandbox::replay::{Cassette, HookError, Played, Player, PlayerOptions, RequestBody};
use chv_sandbox::sandbox::{ChvSandbox, Reset, ResetReport, Sandbox, SandboxConfig};
use serde_json::Value;

use super::measure::{Row, print};
use super::{Outcome, disk};

const CASSETTE: &[u8] = include_bytes!("../../fixtures/demo.json");

/// Where the recording's first reset begins, and how many exchanges it has.
const FIRST_RESET: usize = 21;
const OF_A_RESET: usize = 4;

pub(crate) async fn run(resets: usize) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path();
    for name in ["image", "machine"] {
        fs::create_dir(path.join(name))?;
    }
    lay_out(path)?;

    let mut cassette = Cassette::from_slice(CASSETTE)?;
    let config = created_vm(&cassette)?
        .replace("${WORK}", text(path)?)
        .replace("${IMAGE}", text(&path.join("image"))?);
    let config: Value = serde_json::from_str(&config)?;
    repeat_the_reset(&mut cassette, resets + 1);

    let guest = StandIn::new(path.join("machine/vsock.sock"))?;
    let golden = path.join("golden/snapshot");
    let shape = shape(&config).ok_or("the recorded VM is not the demo's")?;
    let options = PlayerOptions::new(path.join("api.sock"))
        .substitute("WORK", text(path)?)
        .substitute("IMAGE", text(&path.join("image"))?)
        .on_exchange(move |played| {
            let done = act(&played, &guest, &golden, &config);
            async move { done }
        });
    let player = Player::start(cassette, options).await?;
    let vmm = VmmSource::Attach {
        api_socket: player.socket().to_owned(),
        directory: path.join("machine"),
    };
    mint(MintConfig {
        machine: MachineConfig {
            vmm: vmm.clone(),
            disks: vec![
                disk(DiskRole::Root, path.join("root.img"), true),
                disk(DiskRole::Overlay, path.join("image/overlay.img"), false),
            ],
            memory: GuestMemory::ByPath,
            port: DEFAULT_PORT,
            files: FurtherFiles::default(),
            limits: TimeLimits::default(),
        },
        shape,
        any_guest: false,
        sign_with: None,
        settle: TimeLimits::default().boot,
        into: path.join("golden"),
    })
    .await?;

    let sandbox = ChvSandbox::with_vmm(SandboxConfig::golden(path.join("golden")), vmm)?;
    sandbox.boot().await?;
    let mut whole = Row::new("a reset, in place, verified");
    let mut hashing = Row::new("of it, the overlay's digest");
    for round in 0..=resets {
        let began = Instant::now();
        let Reset::Verified(outcome) = sandbox.reset().await? else {
            return Err("a reset was not verified".into());
        };
        // The first one only warms up.
        if round > 0 {
            whole.add(began.elapsed());
            hashing.add(hashing_time(&outcome.report));
        }
    }
    sandbox.shutdown().await;
    println!("\non recordings: a VMM that answers at once, a stand-in for the guest");
    let host = whole.median().saturating_sub(hashing.median());
    print(&[whole, hashing]);
    println!(
        "host-side cost beyond VMM and hashing: {:.2} ms (goal: under 2)",
        super::millis(host)
    );
    Ok(())
}

fn hashing_time(report: &ResetReport) -> Duration {
    report.disks.iter().map(|disk| disk.bytes.elapsed).sum()
}

/// Mint, boot, `resets` times the reset that was recorded, shutdown.
fn repeat_the_reset(cassette: &mut Cassette, resets: usize) {
    let recorded = std::mem::take(&mut cassette.exchanges);
    let (before, rest) = recorded.split_at(FIRST_RESET);
    let (reset, rest) = rest.split_at(OF_A_RESET);
    cassette.exchanges.extend_from_slice(before);
    for _ in 0..resets {
        cassette.exchanges.extend_from_slice(reset);
    }
    cassette.exchanges.extend(rest.last().cloned());
}

/// What a VMM does besides answering.
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

fn created_vm(cassette: &Cassette) -> Outcome<String> {
    let mut requests = cassette.exchanges.iter().map(|exchange| &exchange.request);
    let create = requests.find(|request| request.path.ends_with("/vm.create"));
    match create.map(|create| &create.body) {
        Some(RequestBody::Json(config)) => Ok(config.to_string()),
        _ => Err("the recording creates no VM".into()),
    }
}

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

fn lay_out(folder: &Path) -> Outcome<()> {
    for name in ["image/kernel", "image/initramfs"] {
        fs::write(folder.join(name), "stands for a real one\n")?;
    }
    fs::write(folder.join("root.img"), vec![7; 8 << 20])?;
    let overlay = folder.join("image/overlay.img");
    fs::write(&overlay, "an overlay with one line and a large hole\n")?;
    File::options()
        .write(true)
        .open(overlay)?
        .set_len(64 << 20)?;
    Ok(())
}

fn text(path: &Path) -> Outcome<&str> {
    Ok(path
        .to_str()
        .ok_or("the temporary folder's path is not UTF-8")?)
}
