//! A qcow2 overlay over a raw backing file, on a real VMM.

use std::fs::{self, File};
use std::sync::Arc;
use std::time::Duration;

use chv_sandbox::limits::TimeLimits;
use chv_sandbox::machine::{
    Disk, DiskFormat, DiskRole, GuestMemory, Machine, MachineConfig, OpenInVmm, RevertOptions,
    Snapshot, VmmSource,
};
use chv_sandbox::overlay::{self, AccessPolicy};
use tempfile::tempdir;

use super::{assert_nothing_left, idle_vm, vmm_config};
use crate::overlay::qcow2::image::Image;

/// The overlay keeps its bytes while it is opened, paused and restored, because the image is of version 2.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real VMM: set CLOUD_HYPERVISOR"]
async fn a_qcow2_overlay_keeps_its_digest_across_reverts() {
    let folder = tempdir().unwrap();
    let Some(vmm) = vmm_config(folder.path()).await else {
        return;
    };
    let (base, origin) = (folder.path().join("base"), folder.path().join("given"));
    File::create(&base).unwrap().set_len(8 << 20).unwrap();
    Image::over(&base, "raw").write(&origin);
    let golden = overlay::sha256(&origin, AccessPolicy::PreferMapped).unwrap();

    let disk = Disk {
        role: DiskRole::Overlay,
        origin: origin.clone(),
        readonly: false,
        format: DiskFormat::Qcow2,
    };
    let backing = disk.backing().unwrap();
    assert_eq!(backing.iter().map(|m| &m.path).collect::<Vec<_>>(), [&base]);
    let mut machine = Machine::start(MachineConfig {
        vmm: VmmSource::Spawn(vmm),
        disks: vec![disk],
        memory: GuestMemory::ByPath,
        port: 1024,
        files: idle_vm::files(folder.path()),
        limits: TimeLimits::default().settle(Duration::from_millis(300)),
    })
    .await
    .unwrap();
    let shape = idle_vm::shape(folder.path());
    machine.boot_vm(&shape).await.unwrap();
    machine.pause().await.unwrap();
    let folder_of_snapshot = folder.path().join("golden");
    fs::create_dir(&folder_of_snapshot).unwrap();
    machine.snapshot(&folder_of_snapshot).await.unwrap();
    let disks = machine.disks();
    let snapshot = Snapshot::read(&folder_of_snapshot, shape, &disks).unwrap();
    let options = RevertOptions::new(Arc::new(snapshot));

    for _ in 0..2 {
        let readings = machine.revert(&options).await.unwrap();
        assert_eq!(readings.disks[0].open_in_vmm, OpenInVmm::Yes);
        assert_eq!(readings.disks[0].bytes.digest.sha256, golden.digest);
    }
    machine.shutdown().await.unwrap();
    assert_nothing_left(folder.path());
}
