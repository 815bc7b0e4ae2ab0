//! A qcow2 overlay over a raw backing file, on a real VMM.

use std::fs::{self, File};
use std::time::Duration;

use chv_sandbox::api;
use chv_sandbox::api::types::{ImageType, VsockConfig};
use chv_sandbox::machine::{
    Disk, DiskFormat, DiskRole, Limits, Machine, MachineConfig, VmmFile, VmmSource,
};
use chv_sandbox::overlay::{self, AccessPolicy};
use chv_sandbox::vmm::VSOCK_SOCKET;
use tempfile::tempdir;

use super::native::send;
use super::{assert_nothing_left, idle_vm, vmm_config};
use crate::qcow2_image::Image;

/// Opened, paused, kept, restored: the overlay has the bytes of its origin all the time, because it is of version 2.
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
        port: 1024,
        limits: Limits {
            settle: Duration::from_millis(300),
            ..Limits::default()
        },
    })
    .await
    .unwrap();
    let path = machine.disk_path(DiskRole::Overlay).unwrap().to_owned();
    overlay::put_back(&origin, &path).unwrap();

    let mut config = idle_vm::config(folder.path());
    let disk = &mut config.disks.as_mut().unwrap()[0];
    disk.id = Some(DiskRole::Overlay.to_string());
    disk.path = Some(path.to_str().unwrap().to_owned());
    disk.image_type = Some(ImageType::Qcow2);
    disk.backing_files = Some(true);
    let socket = machine.vmm().run_dir().unwrap().join(VSOCK_SOCKET);
    config.vsock = Some(VsockConfig::new(3, socket.to_str().unwrap()));
    send(machine.client(), api::vm_create(&config)).await;
    send(machine.client(), api::vm_boot()).await;
    machine.pause().await.unwrap();
    let snapshot = folder.path().join("golden");
    fs::create_dir(&snapshot).unwrap();
    machine.snapshot(&snapshot).await.unwrap();
    machine.delete().await.unwrap();

    for _ in 0..2 {
        let readings = machine.revert(&snapshot).await.unwrap();
        assert_eq!(readings.disks[0].vmm_file, VmmFile::Same);
        assert_eq!(readings.disks[0].digest, golden.digest);
    }
    machine.shutdown().await.unwrap();
    assert_nothing_left(folder.path());
}
