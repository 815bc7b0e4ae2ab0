//! A network device on an open tap, which is passed to a real VMM with the request.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use chv_sandbox::api::types::NetConfig;
use chv_sandbox::api::{self, Operation};
use chv_sandbox::client::Client;
use chv_sandbox::replay::{Recorder, RecorderOptions};
use chv_sandbox::vmm::{Layer, Vmm};
use tempfile::{TempDir, tempdir};

use super::native::send;
use super::nested_state::grants;
use super::{assert_nothing_left, idle_vm, skipped, vmm_config};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real VMM: set CLOUD_HYPERVISOR"]
async fn a_tap_is_handed_over_open() {
    let Some((folder, vmm, tap)) = vmm_and_tap().await else {
        return;
    };
    boot_and_add(vmm.client(), folder.path(), tap).await;
    vmm.shutdown().await;
    assert_nothing_left(folder.path());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real VMM: set CLOUD_HYPERVISOR"]
async fn a_tap_passes_a_recorder() {
    let Some((folder, vmm, tap)) = vmm_and_tap().await else {
        return;
    };
    // A folder outside the VMM's, which has to be empty in the end.
    let own = tempdir().unwrap();
    let options = RecorderOptions::new(vmm.client().address().clone(), own.path().join("s"));
    let recorder = Recorder::start(options).await.unwrap();
    let client = Client::new(recorder.socket()).unwrap();
    boot_and_add(&client, folder.path(), tap).await;
    let cassette = recorder.finish().await.unwrap();
    let descriptors: Vec<_> = cassette
        .exchanges
        .iter()
        .map(|exchange| (exchange.request.path.as_str(), exchange.request.descriptors))
        .filter(|(_, descriptors)| *descriptors > 0)
        .collect();
    assert_eq!(descriptors, [(Operation::VmAddNet.path(), 1)]);
    vmm.shutdown().await;
    assert_nothing_left(folder.path());
}

/// A VMM with its folder, and a tap; `None` if this machine can't have both.
async fn vmm_and_tap() -> Option<(TempDir, Vmm, File)> {
    let folder = tempdir().unwrap();
    let mut config = vmm_config(folder.path()).await?;
    // v51.2 asks for the tap by its name, and another network namespace doesn't know that name.
    config.confinement.without = vec![Layer::Namespaces];
    match open_tap() {
        Ok(tap) => {
            let vmm = Vmm::spawn_with(&config, grants(folder.path())).await;
            Some((folder, vmm.unwrap(), tap))
        }
        Err(error) => {
            skipped(format!("no tap can be made here: {error}"));
            None
        }
    }
}

/// Boots a VM and adds a network device on `tap`.
async fn boot_and_add(client: &Client, folder: &Path, tap: File) {
    send(client, api::vm_create(&idle_vm::config(folder))).await;
    send(client, api::vm_boot()).await;
    let net = NetConfig::default().with_id("net").with_num_queues(2);
    let added = client
        .send_with_fds(api::vm_add_net(&net), &[tap.as_fd()])
        .await
        .unwrap();
    let device = added.expect("a running VM says where the device is");
    println!("vm.add-net   {} at {}", device.id, device.bdf);
    assert_eq!(device.id, "net");
    let info = client.vm_info().await.unwrap();
    let nets = info.config.net.unwrap();
    assert_eq!(nets.len(), 1);
    // The VMM has a descriptor of its own for the tap. Without the passed descriptor it would have made a tap itself.
    assert_eq!(nets[0].fds.as_ref().map(Vec::len), Some(1), "{nets:?}");
}

/// Opens a tap that goes away when its last descriptor is closed. The kernel chooses its name.
fn open_tap() -> io::Result<File> {
    let tap = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    // SAFETY: each field may be zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: this request reads and writes an `ifreq`, which outlives the call.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF as _, &mut request) };
    match result {
        0 => Ok(tap),
        _ => Err(io::Error::last_os_error()),
    }
}
