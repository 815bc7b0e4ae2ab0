//! A network device by an open tap, sent to a real VMM with the request.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use chv_sandbox::api;
use chv_sandbox::api::types::NetConfig;
use chv_sandbox::vmm::Vmm;
use tempfile::tempdir;

use super::native::send;
use super::{assert_nothing_left, idle_vm, skipped, vmm_config};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real VMM: set CLOUD_HYPERVISOR"]
async fn a_tap_is_handed_over_open() {
    let folder = tempdir().unwrap();
    let Some(config) = vmm_config(folder.path()).await else {
        return;
    };
    let tap = match open_tap() {
        Ok(tap) => tap,
        Err(error) => {
            skipped(format!("no tap can be made here: {error}"));
            return;
        }
    };
    let vmm = Vmm::spawn(&config).await.unwrap();
    let client = vmm.client();
    send(client, api::vm_create(&idle_vm::config(folder.path()))).await;
    send(client, api::vm_boot()).await;
    let net = NetConfig {
        id: Some("net".to_owned()),
        num_queues: Some(2),
        ..NetConfig::default()
    };
    let added = client
        .send_with_fds(api::vm_add_net(&net), &[tap.as_fd()])
        .await
        .unwrap();
    let device = added.expect("a running VM says where the device is");
    println!("vm.add-net   {} at {}", device.id, device.bdf);
    assert_eq!(device.id, "net");
    let info = client.send(api::vm_info()).await.unwrap();
    let nets = info.config.net.unwrap();
    assert_eq!(nets.len(), 1);
    // Its own descriptor of it, not ours.
    assert_eq!(nets[0].fds.as_ref().map(Vec::len), Some(1), "{nets:?}");
    drop(tap);
    vmm.shutdown().await;
    assert_nothing_left(folder.path());
}

/// A tap that is gone when its last descriptor is closed. The kernel chooses its name.
fn open_tap() -> io::Result<File> {
    let tap = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun")?;
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    // SAFETY: zero is a value of each of its fields.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: this request reads and writes an `ifreq`, which outlives the call.
    let result = unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF as _, &mut request) };
    match result {
        0 => Ok(tap),
        _ => Err(io::Error::last_os_error()),
    }
}
