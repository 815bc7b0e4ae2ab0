//! Measures the VMM's part of a reset, with an idle VM, compared with the same calls written by hand.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chv_sandbox::api::types::{MemoryConfig, VmConfig, VmSnapshotConfig, VsockConfig};
use chv_sandbox::client::Client;
use chv_sandbox::machine::{Machine, RevertOptions, Steps};
use chv_sandbox::vmm::{VSOCK_SOCKET, Vmm, VmmConfig};

use super::idle_snapshot::{IdleSnapshot, noise, vmm_below};
use super::measure::{Row, print};
use super::raw::RawConnection;
use super::{Outcome, idle_vm, nested_state};

const MEMORY: u64 = 128 << 20;

pub(crate) async fn run(binary: &Path, resets: usize) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let vmm = vmm_below(folder.path(), binary).await;
    let mut ours = Ours::start(&vmm, &folder.path().join("ours")).await?;
    let mut by_hand = ByHand::start(&vmm, &folder.path().join("by-hand")).await?;
    let mut rows = [
        Row::new("raw: delete, copy, restore, resume, state"),
        Row::new("this crate: the same, disks proved"),
    ];
    for round in 0..=resets {
        let times = [by_hand.reset()?, ours.reset().await?];
        // The first reset only warms up.
        if round > 0 {
            rows.iter_mut()
                .zip(times)
                .for_each(|(row, time)| row.add(time));
        }
    }
    let release = ours.machine.release().await?;
    ours.machine.shutdown().await;
    by_hand.vmm.shutdown().await;
    println!(
        "\n{release} with a VM that only idles: 128 MiB of memory, a disk of 16 MiB with 1 MiB of data"
    );
    print(&rows);
    let ratio = rows[1].median().as_secs_f64() / rows[0].median().as_secs_f64();
    println!("this crate / raw: {ratio:.2} (goal: at most 1.2)");
    Ok(())
}

/// A machine of this crate.
struct Ours {
    machine: Machine,
    options: RevertOptions,
}

impl Ours {
    async fn start(vmm: &VmmConfig, folder: &Path) -> Outcome<Ours> {
        let snapshot = IdleSnapshot::take(vmm, folder, MEMORY >> 20, 0).await?;
        let (machine, options) = snapshot.machine(snapshot.mapped()).await?;
        Ok(Ours { machine, options })
    }

    async fn reset(&mut self) -> Outcome<Duration> {
        let began = Instant::now();
        let mut steps = Steps::start();
        self.machine.stage(&self.options, &mut steps).await?;
        self.machine.client().vm_resume().await?;
        self.machine.client().vm_info().await?;
        Ok(began.elapsed())
    }
}

/// The same calls and the same copy, written by hand.
struct ByHand {
    vmm: Vmm,
    connection: RawConnection,
    folder: PathBuf,
}

impl ByHand {
    async fn start(vmm: &VmmConfig, folder: &Path) -> Outcome<ByHand> {
        fs::create_dir(folder)?;
        let golden = noise(&folder.join("golden.img"))?;
        fs::copy(golden, folder.join("disk.img"))?;
        let vmm = Vmm::spawn_with(vmm, nested_state::grants(folder)).await?;
        let config = config(folder)?;
        boot_paused(vmm.client(), &config).await?;
        let into = idle_vm::snapshot_folder(folder);
        let snapshot = VmSnapshotConfig::new(into);
        vmm.client().vm_snapshot(&snapshot).await?;
        Ok(ByHand {
            connection: RawConnection::open(vmm.client())?,
            vmm,
            folder: folder.to_owned(),
        })
    }

    fn reset(&mut self) -> Outcome<Duration> {
        let snapshot = self.folder.join("snapshot");
        let began = Instant::now();
        self.connection.delete()?;
        let fresh = self.folder.join("fresh.img");
        fs::copy(self.folder.join("golden.img"), &fresh)?;
        fs::rename(fresh, self.folder.join("disk.img"))?;
        self.connection.restore(&snapshot)?;
        self.connection.resume()?;
        self.connection.info()?;
        Ok(began.elapsed())
    }
}

fn config(folder: &Path) -> Outcome<VmConfig> {
    let mut config = idle_vm::config(folder);
    let socket = folder.join(VSOCK_SOCKET);
    config.memory = Some(MemoryConfig::new(MEMORY));
    config.vsock = Some(VsockConfig::new(3, socket.to_str().ok_or("UTF-8 paths")?));
    Ok(config)
}

async fn boot_paused(client: &Client, config: &VmConfig) -> Outcome<()> {
    client.vm_create(config).await?;
    client.vm_boot().await?;
    client.vm_pause().await?;
    Ok(())
}
