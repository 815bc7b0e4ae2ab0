//! The API of a real VMM, with a VM of the idle kernel.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use chv_sandbox::api::types::{RestoreConfig, VmSnapshotConfig, VmState};
use chv_sandbox::api::{self, Operation, Request};
use chv_sandbox::client::{Client, ErrorKind};
use chv_sandbox::vmm::{ShutdownStep, Vmm};
use serde_json::json;
use tempfile::tempdir;

use super::nested_state::grants;
use super::{assert_nothing_left, idle_vm, vmm_config};
use crate::compat::probe::expected::same_kind;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real VMM: set CLOUD_HYPERVISOR"]
async fn a_vm_lives_is_reverted_and_ends() {
    let folder = tempdir().unwrap();
    let Some(config) = vmm_config(folder.path()).await else {
        return;
    };
    let started = Instant::now();
    let vmm = Vmm::spawn_with(&config, grants(folder.path()))
        .await
        .unwrap();
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
async fn calls_that_a_state_does_not_allow_have_errors_of_their_own() {
    use ErrorKind::{AlreadyCreated, NotCreated, WrongState};
    use Operation::{VmBoot, VmCounters, VmCreate, VmInfo, VmPause, VmResume, VmShutdown};

    let folder = tempdir().unwrap();
    let Some(config) = vmm_config(folder.path()).await else {
        return;
    };
    let vmm = Vmm::spawn_with(&config, grants(folder.path()))
        .await
        .unwrap();
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

/// Sends a request that must succeed, and prints the time that it took.
pub(super) async fn send<T>(client: &Client, request: Request<T>) -> T {
    let operation = request.operation().to_string();
    let started = Instant::now();
    let answer = client.send(request).await;
    println!("{operation:<12} {:>8.1?}", started.elapsed());
    answer.unwrap_or_else(|error| panic!("{error}"))
}

async fn expect(client: &Client, state: VmState) {
    let info = client.vm_info().await.unwrap();
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
