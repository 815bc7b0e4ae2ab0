//! The API of a real VMM, with a VM of the idle kernel.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use chv_sandbox::api::types::{RestoreConfig, VmSnapshotConfig, VmState, VsockConfig};
use chv_sandbox::api::{self, Operation, Request};
use chv_sandbox::client::{Client, ErrorKind};
use chv_sandbox::machine::{
    Disk, DiskFormat, DiskRole, Limits, Machine, MachineConfig, Reading, VmmFile, VmmSource,
};
use chv_sandbox::overlay;
use chv_sandbox::vmm::{ShutdownStep, VSOCK_SOCKET, Vmm};
use serde_json::json;
use tempfile::tempdir;

use super::{assert_nothing_left, idle_vm, vmm_config};
use crate::expected::same_kind;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real VMM: set CLOUD_HYPERVISOR"]
async fn a_vm_lives_is_reverted_and_ends() {
    let folder = tempdir().unwrap();
    let Some(config) = vmm_config(folder.path()).await else {
        return;
    };
    let started = Instant::now();
    let vmm = Vmm::spawn(&config).await.unwrap();
    let client = vmm.client();
    let release = client.release().await.unwrap();
    println!("{release} is ready after {:.1?}", started.elapsed());
    let disk = folder.path().join("disk.img");
    let snapshot = idle_vm::snapshot_folder(folder.path());

    send(client, api::vm_create(&idle_vm::config(folder.path()))).await;
    expect(client, VmState::Created).await;
    send(client, api::vm_boot()).await;
    expect(client, VmState::Running).await;
    send(client, api::vm_pause()).await;
    expect(client, VmState::Paused).await;
    assert_eq!(descriptors_of(&vmm, &disk), 1);
    let taken = VmSnapshotConfig::new(snapshot.clone());
    send(client, api::vm_snapshot(&taken)).await;
    send(client, api::vm_resume()).await;
    expect(client, VmState::Running).await;
    send(client, api::vm_delete()).await;
    assert_eq!(descriptors_of(&vmm, &disk), 0);

    for _ in 0..2 {
        let restored = RestoreConfig::new(snapshot.clone());
        send(client, api::vm_restore(&restored)).await;
        expect(client, VmState::Paused).await;
        assert_eq!(descriptors_of(&vmm, &disk), 1);
        send(client, api::vm_resume()).await;
        expect(client, VmState::Running).await;
        let counters = send(client, api::vm_counters()).await;
        assert!(counters.contains_key("disk"), "{counters:?}");
        send(client, api::vm_delete()).await;
    }
    assert_eq!(vmm.shutdown().await.step, ShutdownStep::Api);
    assert_nothing_left(folder.path());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real VMM: set CLOUD_HYPERVISOR"]
async fn what_a_state_does_not_allow_is_an_error_of_its_own() {
    use ErrorKind::{AlreadyCreated, NotCreated, WrongState};
    use Operation::{VmBoot, VmCounters, VmCreate, VmInfo, VmPause, VmResume, VmShutdown};

    let folder = tempdir().unwrap();
    let Some(config) = vmm_config(folder.path()).await else {
        return;
    };
    let vmm = Vmm::spawn(&config).await.unwrap();
    let client = vmm.client();
    let check = async |state: &str, operation: Operation, expected: ErrorKind| {
        let body = (operation == VmCreate).then(|| json!({}).to_string().into());
        let result = client.send(Request::raw(operation, body)).await;
        let error = result.expect_err(&format!("{operation} of a VM that is {state}"));
        let kind = error.kind();
        assert!(same_kind(&expected, kind), "{state}: {operation}: {error}");
    };

    check("not there", VmInfo, NotCreated).await;
    check("not there", VmBoot, NotCreated).await;
    check("not there", VmPause, WrongState).await;
    check("not there", VmCounters, WrongState).await;
    send(client, api::vm_create(&idle_vm::config(folder.path()))).await;
    check("created", VmCreate, AlreadyCreated).await;
    check("created", VmPause, WrongState).await;
    check("created", VmShutdown, WrongState).await;
    check("created", VmCounters, WrongState).await;
    send(client, api::vm_boot()).await;
    check("running", VmCreate, AlreadyCreated).await;
    check("running", VmBoot, WrongState).await;
    check("running", VmResume, WrongState).await;
    send(client, api::vm_pause()).await;
    check("paused", VmCreate, AlreadyCreated).await;
    vmm.shutdown().await;
    assert_nothing_left(folder.path());
}

/// A machine is reverted to a snapshot whose guest can't answer: everything but the guest agrees.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real VMM: set CLOUD_HYPERVISOR"]
async fn a_machine_is_reverted_and_its_vmm_serves_the_disks_that_were_hashed() {
    let folder = tempdir().unwrap();
    let Some(vmm) = vmm_config(folder.path()).await else {
        return;
    };
    let disk = |role: DiskRole, readonly| {
        let origin = folder.path().join(format!("given-{role}.img"));
        File::create(&origin).unwrap().set_len(1 << 20).unwrap();
        Disk {
            role,
            origin,
            readonly,
            format: DiskFormat::Raw,
        }
    };
    let mut machine = Machine::start(MachineConfig {
        vmm: VmmSource::Spawn(vmm),
        disks: vec![disk(DiskRole::Root, true), disk(DiskRole::Overlay, false)],
        port: 1024,
        limits: Limits {
            settle: Duration::from_millis(300),
            ..Limits::default()
        },
    })
    .await
    .unwrap();
    let snapshot = folder.path().join("golden");
    fs::create_dir(&snapshot).unwrap();
    let given = folder.path().join("given-overlay.img");
    overlay::put_back(&given, machine.disk_path(DiskRole::Overlay).unwrap()).unwrap();
    boot_idle(&machine, folder.path()).await;
    machine.pause().await.unwrap();
    machine.snapshot(&snapshot).await.unwrap();
    // The machine deletes what it made itself, and this VM was made behind its back.
    machine.delete().await.unwrap();

    for _ in 0..2 {
        let readings = machine.revert(&snapshot).await.unwrap();
        for disk in &readings.disks {
            assert_eq!(disk.vmm_file, VmmFile::Same, "{}", disk.role);
        }
        assert!(matches!(readings.guest, Reading::Silent(_)));
        assert!(matches!(
            readings.vm_state,
            Reading::Answered(VmState::Running)
        ));
        let steps: Vec<_> = readings.steps.iter().map(ToString::to_string).collect();
        println!("reverted: {}", steps.join(", "));
    }
    machine.shutdown().await.unwrap();
    assert_nothing_left(folder.path());
}

/// Boots the idle kernel in a machine by hand, since the machine itself would wait for its guest.
async fn boot_idle(machine: &Machine, folder: &Path) {
    let mut config = idle_vm::config(folder);
    let mut root = config.disks.take().unwrap().remove(0);
    let mut overlay = root.clone();
    for (role, disk) in [
        (DiskRole::Root, &mut root),
        (DiskRole::Overlay, &mut overlay),
    ] {
        let path = machine.disk_path(role).unwrap();
        disk.id = Some(role.to_string());
        disk.path = Some(path.to_str().unwrap().to_owned());
        disk.readonly = Some(role == DiskRole::Root);
    }
    config.disks = Some(vec![root, overlay]);
    let socket = machine.vmm().run_dir().unwrap().join(VSOCK_SOCKET);
    config.vsock = Some(VsockConfig::new(3, socket.to_str().unwrap()));
    send(machine.client(), api::vm_create(&config)).await;
    send(machine.client(), api::vm_boot()).await;
}

/// Sends what goes well, and prints what it took.
pub(super) async fn send<T>(client: &Client, request: Request<T>) -> T {
    let operation = request.operation().to_string();
    let started = Instant::now();
    let answer = client.send(request).await;
    println!("{operation:<12} {:>8.1?}", started.elapsed());
    answer.unwrap_or_else(|error| panic!("{error}"))
}

async fn expect(client: &Client, state: VmState) {
    let info = client.send(api::vm_info()).await.unwrap();
    assert_eq!(info.state, state);
    assert_eq!(info.memory_actual_size, idle_vm::MEMORY);
}

/// How many of the VMM's descriptors are of the file at `path`.
fn descriptors_of(vmm: &Vmm, path: &Path) -> usize {
    let file = fs::metadata(path).unwrap();
    let open = vmm.process().unwrap().open_files().unwrap();
    let of_file = open
        .iter()
        .filter(|open| (open.device, open.inode) == (file.dev(), file.ino()));
    of_file.count()
}
