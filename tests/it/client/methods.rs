//! The client's methods, one for each operation.

use std::sync::mpsc;

use chv_sandbox::api::types::*;
use chv_sandbox::api::{self, Operation, Request};
use chv_sandbox::client::{Client, Error, Release};
use serde::Serialize;
use serde_json::Value;

use super::server::{NO_CONTENT, Server, accept, answer, ping, read_request, with_body};

pub(crate) const VM_INFO: &str = include_str!("../api/vm-info-v53.0.json");

/// Answers requests until the client closes its connection, and returns them as they came.
fn obliging() -> (Server, mpsc::Receiver<String>) {
    let (got, requests) = mpsc::channel();
    let server = Server::run(move |listener| {
        let mut stream = accept(listener);
        while stream.peek_is_open() {
            let request = read_request(&mut stream);
            let reply = match request.split(' ').nth(1) {
                Some("/api/v1/vmm.ping") => ping("53.0.0"),
                Some("/api/v1/vm.info") => with_body(200, VM_INFO),
                Some("/api/v1/vm.counters") => with_body(200, r#"{"disk":{"read_ops":1}}"#),
                _ => NO_CONTENT.to_owned(),
            };
            std::io::Write::write_all(&mut stream, reply.as_bytes()).unwrap();
            got.send(request).unwrap();
        }
    });
    (server, requests)
}

/// Whether another request comes.
trait PeekIsOpen {
    fn peek_is_open(&self) -> bool;
}

impl PeekIsOpen for std::os::unix::net::UnixStream {
    fn peek_is_open(&self) -> bool {
        let mut byte = [0];
        let flags = rustix::net::RecvFlags::PEEK;
        let (length, _) = rustix::net::recv(self, &mut byte, flags).unwrap();
        length > 0
    }
}

#[tokio::test]
async fn each_operation_has_a_method_that_sends_it() {
    let (server, requests) = obliging();
    let client = Client::new(server.socket()).unwrap();
    // Told once, so that no method asks.
    assert_eq!(client.release().await.unwrap(), Release::new(53, 0));
    assert!(requests.recv().unwrap().contains("vmm.ping"));
    let mut called = Vec::new();
    macro_rules! check {
        ($method:ident $(, $body:expr)?) => {
            let expected = api::$method($($body)?);
            client.$method($($body)?).await.unwrap();
            let request = requests.recv().unwrap();
            let operation = expected.operation();
            let line = format!("{} {} HTTP/1.1\r\n", operation.method().as_str(), operation.path());
            assert!(request.starts_with(&line), "{request}");
            let (_, body) = request.split_once("\r\n\r\n").unwrap();
            let sent = expected.body().map_or(&[][..], |body| body);
            assert_eq!(body.as_bytes(), sent, "{operation}");
            called.push(operation);
        };
    }
    check!(vm_add_device, &DeviceConfig::default().with_path("/d"));
    check!(vm_add_disk, &DiskConfig::default().with_path("/d"));
    check!(vm_add_fs, &FsConfig::new("/s", "tag"));
    let generic = GenericVhostUserConfig::new(2, vec![64], "/s");
    check!(vm_add_generic_vhost_user, &generic);
    check!(vm_add_net, &NetConfig::default().with_tap("tap0"));
    check!(vm_add_pmem, &PmemConfig::new("/f"));
    check!(vm_add_user_device, &VmAddUserDevice::new("/s"));
    check!(vm_add_vdpa, &VdpaConfig::new("/v"));
    check!(vm_add_vsock, &VsockConfig::new(3, "/s"));
    check!(vm_boot);
    check!(vm_coredump, &VmCoredumpData::new("file:///c"));
    check!(vm_counters);
    check!(vm_create, &VmConfig::default());
    check!(vm_delete);
    check!(vm_info);
    check!(vm_nmi);
    check!(vm_pause);
    check!(vm_power_button);
    check!(vm_reboot);
    check!(vm_receive_migration, &ReceiveMigrationData::new("unix:/m"));
    check!(vm_remove_device, &VmRemoveDevice::new("disk"));
    check!(vm_resize, &VmResize::default().with_desired_vcpus(2));
    check!(vm_resize_disk, &VmResizeDisk::new(1 << 40, "disk"));
    check!(vm_resize_zone, &VmResizeZone::new(1 << 30, "zone"));
    check!(
        vm_restore,
        &RestoreConfig::new("file:///s").with_resume(true)
    );
    check!(vm_resume);
    check!(vm_send_migration, &SendMigrationData::new("unix:/m"));
    check!(vm_shutdown);
    check!(vm_snapshot, &VmSnapshotConfig::new("file:///s"));
    check!(vmm_ping);
    check!(vmm_shutdown);
    assert_eq!(called, Operation::ALL);
    drop(client);
    server.finish();
}

#[tokio::test]
async fn a_method_returns_what_the_vmm_answers() {
    let server = Server::run(|listener| {
        let mut stream = accept(listener);
        answer(&mut stream, &with_body(200, VM_INFO));
        answer(&mut stream, &with_body(200, r#"{"disk":{"read_ops":1}}"#));
        answer(&mut stream, NO_CONTENT);
        let device = r#"{"id":"disk","bdf":"0000:00:06.0"}"#;
        answer(&mut stream, &with_body(200, device));
    });
    let client = Client::new(server.socket()).unwrap();
    assert_eq!(client.vm_info().await.unwrap().state, VmState::Running);
    assert_eq!(client.vm_counters().await.unwrap()["disk"]["read_ops"], 1);
    let disk = DiskConfig::default().with_path("/d");
    assert_eq!(client.vm_add_disk(&disk).await.unwrap(), None);
    let device = client.vm_add_disk(&disk).await.unwrap();
    assert_eq!(device, Some(PciDeviceInfo::new("0000:00:06.0", "disk")));
    server.finish();
}

/// Sends a recorded request by the method of its operation. None where the method would not send the same: the body is
/// no value of its type, or the client would ask for the release first.
pub(crate) async fn by_method(
    client: &Client,
    operation: Operation,
    body: Option<&str>,
) -> Option<Result<Option<Value>, Error>> {
    fn value<T: Serialize>(answer: Result<T, Error>) -> Option<Result<Option<Value>, Error>> {
        let value = |answer| serde_json::to_value(answer).unwrap();
        Some(answer.map(|answer| Some(value(answer)).filter(|value| !value.is_null())))
    }
    fn is_same<T>(request: &Request<T>, body: Option<&str>) -> bool {
        let parse = |body: &[u8]| serde_json::from_slice::<Value>(body).ok();
        request.requirements().is_empty()
            && request.body().map(|body| parse(body)) == body.map(|body| parse(body.as_bytes()))
    }
    macro_rules! without_body {
        ($method:ident) => {{
            is_same(&api::$method(), body).then_some(())?;
            value(client.$method().await)
        }};
    }
    macro_rules! with_body {
        ($method:ident) => {{
            let typed = serde_json::from_str(body?).ok()?;
            is_same(&api::$method(&typed), body).then_some(())?;
            value(client.$method(&typed).await)
        }};
    }
    match operation {
        Operation::VmAddDevice => with_body!(vm_add_device),
        Operation::VmAddDisk => with_body!(vm_add_disk),
        Operation::VmAddFs => with_body!(vm_add_fs),
        Operation::VmAddGenericVhostUser => with_body!(vm_add_generic_vhost_user),
        Operation::VmAddNet => with_body!(vm_add_net),
        Operation::VmAddPmem => with_body!(vm_add_pmem),
        Operation::VmAddUserDevice => with_body!(vm_add_user_device),
        Operation::VmAddVdpa => with_body!(vm_add_vdpa),
        Operation::VmAddVsock => with_body!(vm_add_vsock),
        Operation::VmBoot => without_body!(vm_boot),
        Operation::VmCoredump => with_body!(vm_coredump),
        Operation::VmCounters => without_body!(vm_counters),
        Operation::VmCreate => with_body!(vm_create),
        Operation::VmDelete => without_body!(vm_delete),
        Operation::VmInfo => without_body!(vm_info),
        Operation::VmNmi => without_body!(vm_nmi),
        Operation::VmPause => without_body!(vm_pause),
        Operation::VmPowerButton => without_body!(vm_power_button),
        Operation::VmReboot => without_body!(vm_reboot),
        Operation::VmReceiveMigration => with_body!(vm_receive_migration),
        Operation::VmRemoveDevice => with_body!(vm_remove_device),
        Operation::VmResize => with_body!(vm_resize),
        Operation::VmResizeDisk => with_body!(vm_resize_disk),
        Operation::VmResizeZone => with_body!(vm_resize_zone),
        Operation::VmRestore => with_body!(vm_restore),
        Operation::VmResume => without_body!(vm_resume),
        Operation::VmSendMigration => with_body!(vm_send_migration),
        Operation::VmShutdown => without_body!(vm_shutdown),
        Operation::VmSnapshot => with_body!(vm_snapshot),
        Operation::VmmPing => without_body!(vmm_ping),
        Operation::VmmShutdown => without_body!(vmm_shutdown),
        other => panic!("{other} has no method here"),
    }
}
