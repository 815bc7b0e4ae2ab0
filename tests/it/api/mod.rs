//! Building requests and decoding answers, without a VMM.

mod support;

use std::collections::BTreeMap;

use chv_sandbox::api::types::*;
use chv_sandbox::api::{self, Method, Operation, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// `vm.info` of a running VM on a real v53.0, with its paths shortened.
const VM_INFO: &str = include_str!("vm-info-v53.0.json");

#[test]
fn a_builder_gives_method_path_and_body() {
    fn check<T>(request: Request<T>, method: Method, path: &str, body: Option<Value>) {
        assert_eq!(
            (request.operation().method(), request.operation().path()),
            (method, path)
        );
        let sent = request
            .body()
            .map(|body| serde_json::from_slice::<Value>(body).unwrap());
        assert_eq!(sent, body, "{path}");
        assert_eq!(request.operation().takes_body(), body.is_some(), "{path}");
    }
    let (get, put) = (Method::Get, Method::Put);
    check(api::vmm_ping(), get, "/api/v1/vmm.ping", None);
    check(api::vmm_shutdown(), put, "/api/v1/vmm.shutdown", None);
    check(api::vm_info(), get, "/api/v1/vm.info", None);
    check(api::vm_counters(), get, "/api/v1/vm.counters", None);
    check(
        api::vm_create(&VmConfig::default()),
        put,
        "/api/v1/vm.create",
        Some(json!({})),
    );
    check(api::vm_delete(), put, "/api/v1/vm.delete", None);
    check(api::vm_boot(), put, "/api/v1/vm.boot", None);
    check(api::vm_pause(), put, "/api/v1/vm.pause", None);
    check(api::vm_resume(), put, "/api/v1/vm.resume", None);
    check(api::vm_shutdown(), put, "/api/v1/vm.shutdown", None);
    check(api::vm_reboot(), put, "/api/v1/vm.reboot", None);
    check(api::vm_power_button(), put, "/api/v1/vm.power-button", None);
    check(api::vm_nmi(), put, "/api/v1/vm.nmi", None);
    check(
        api::vm_resize(&VmResize::default().with_desired_vcpus(2)),
        put,
        "/api/v1/vm.resize",
        Some(json!({ "desired_vcpus": 2 })),
    );
    check(
        api::vm_resize_disk(&VmResizeDisk::new(1 << 40, "root")),
        put,
        "/api/v1/vm.resize-disk",
        Some(json!({ "id": "root", "desired_size": 1_u64 << 40 })),
    );
    check(
        api::vm_resize_zone(&VmResizeZone::new(1 << 30, "zone")),
        put,
        "/api/v1/vm.resize-zone",
        Some(json!({ "id": "zone", "desired_ram": 1 << 30 })),
    );
    check(
        api::vm_add_disk(&DiskConfig::default().with_path("/d").with_readonly(true)),
        put,
        "/api/v1/vm.add-disk",
        Some(json!({ "path": "/d", "readonly": true })),
    );
    check(
        api::vm_add_device(&DeviceConfig::default()),
        put,
        "/api/v1/vm.add-device",
        Some(json!({})),
    );
    check(
        api::vm_add_fs(&FsConfig::new("/s", "tag")),
        put,
        "/api/v1/vm.add-fs",
        Some(json!({ "socket": "/s", "tag": "tag" })),
    );
    check(
        api::vm_add_generic_vhost_user(&GenericVhostUserConfig::new(2, vec![64], "/s")),
        put,
        "/api/v1/vm.add-generic-vhost-user",
        Some(json!({ "device_type": 2, "queue_sizes": [64], "socket": "/s" })),
    );
    check(
        api::vm_add_net(&NetConfig::default().with_vhost_mode(VhostMode::Server)),
        put,
        "/api/v1/vm.add-net",
        Some(json!({ "vhost_mode": "Server" })),
    );
    check(
        api::vm_add_pmem(&PmemConfig::new("/f")),
        put,
        "/api/v1/vm.add-pmem",
        Some(json!({ "file": "/f" })),
    );
    check(
        api::vm_add_user_device(&VmAddUserDevice::new("/s")),
        put,
        "/api/v1/vm.add-user-device",
        Some(json!({ "socket": "/s" })),
    );
    check(
        api::vm_add_vdpa(&VdpaConfig::new("/v")),
        put,
        "/api/v1/vm.add-vdpa",
        Some(json!({ "path": "/v" })),
    );
    check(
        api::vm_add_vsock(&VsockConfig::new(3, "/s")),
        put,
        "/api/v1/vm.add-vsock",
        Some(json!({ "cid": 3, "socket": "/s" })),
    );
    check(
        api::vm_remove_device(&VmRemoveDevice::new("root")),
        put,
        "/api/v1/vm.remove-device",
        Some(json!({ "id": "root" })),
    );
    check(
        api::vm_snapshot(&VmSnapshotConfig::new("file:///s")),
        put,
        "/api/v1/vm.snapshot",
        Some(json!({ "destination_url": "file:///s" })),
    );
    check(
        api::vm_coredump(&VmCoredumpData::new("file:///c")),
        put,
        "/api/v1/vm.coredump",
        Some(json!({ "destination_url": "file:///c" })),
    );
    let restore = RestoreConfig::new("file:///s")
        .with_memory_restore_mode(MemoryRestoreMode::OnDemand)
        .with_net_fds([RestoredNetConfig::new("net").with_num_fds(2)]);
    check(
        api::vm_restore(&restore),
        put,
        "/api/v1/vm.restore",
        Some(json!({
            "source_url": "file:///s",
            "memory_restore_mode": "OnDemand",
            "net_fds": [{ "id": "net", "num_fds": 2 }],
        })),
    );
    check(
        api::vm_receive_migration(&ReceiveMigrationData::new("unix:/m")),
        put,
        "/api/v1/vm.receive-migration",
        Some(json!({ "receiver_url": "unix:/m" })),
    );
    check(
        api::vm_send_migration(&SendMigrationData::new("unix:/m")),
        put,
        "/api/v1/vm.send-migration",
        Some(json!({ "destination_url": "unix:/m" })),
    );
}

#[test]
fn every_operation_is_known_by_its_name() {
    assert_eq!(Operation::ALL.len(), 31);
    for &operation in Operation::ALL {
        assert_eq!(operation.name().parse(), Ok(operation));
        assert_eq!(operation.path(), format!("/api/v1/{operation}"));
    }
    assert!(Operation::ALL.is_sorted_by_key(|operation| operation.name()));
    assert!("vm.inf".parse::<Operation>().is_err());
}

#[test]
fn a_real_answer_loses_nothing() {
    let info = api::vm_info().decode(VM_INFO.as_bytes()).unwrap();
    assert_eq!(info.state, VmState::Running);
    assert_eq!(
        info.config.cpus.as_ref().unwrap().profile,
        Some(CpuProfile::Host)
    );
    assert!(
        info.unknown.is_empty() && info.config.unknown.is_empty(),
        "the types have every field"
    );
    let device = &info.device_tree.as_ref().unwrap()["_virtio-pci-root"];
    let resource: Value = device.resources[0].parse().unwrap();
    assert_eq!(resource["PciBar"]["base"], 3_891_789_824_u64);
    let sent: Value = serde_json::from_str(VM_INFO).unwrap();
    assert_eq!(serde_json::to_value(&info).unwrap(), without_nulls(sent));
}

/// The server sends `null` for a field of a rate limiter that is not set; a type leaves the field out.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nulls(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        scalar => scalar,
    }
}

#[test]
fn unknown_fields_and_values_of_a_newer_server_are_kept() {
    fn check<T: DeserializeOwned + Serialize>(sent: Value) {
        let read: T = serde_json::from_value(sent.clone())
            .unwrap_or_else(|error| panic!("{error} in {sent}"));
        assert_eq!(serde_json::to_value(read).unwrap(), sent);
    }
    check::<VmState>(json!("Created"));
    check::<VmState>(json!("BreakPoint"));
    check::<VmState>(json!("Hibernated"));
    check::<ImageType>(json!("Unknown"));
    check::<DiskConfig>(
        json!({ "path": "/d", "image_type": "Qcow9", "colour": { "hue": [1, null] } }),
    );
    check::<VmConfig>(json!({ "gdb": true }));
    check::<PciDeviceInfo>(json!({ "id": "a", "bdf": "0000:00:01.0", "slot": 1 }));
    check::<DiskConfig>(json!({ "queue_size": u16::MAX, "num_queues": u64::MAX }));
}

#[test]
fn an_unknown_value_is_not_the_value_unknown() {
    let read = |text: &str| serde_json::from_value::<ImageType>(json!(text)).unwrap();
    assert_eq!(read("Unknown"), ImageType::Undetermined);
    assert_eq!(read("Qcow9"), ImageType::Unknown("Qcow9".into()));
    assert_eq!(read("Qcow9").to_string(), "Qcow9");
    assert_eq!(read("\u{1b}[1A\n").as_str(), "\u{1b}[1A\n");
    assert_eq!(read("\u{1b}[1A\n").to_string(), "\\u{1b}[1A\\n");
    assert_eq!(ImageType::default(), ImageType::Undetermined);
}

#[test]
fn an_enum_takes_only_texts() {
    fn check(sent: Value) {
        assert!(
            serde_json::from_value::<VmState>(sent.clone()).is_err(),
            "{sent}"
        );
    }
    check(json!(1));
    check(json!(null));
    check(json!(["Created"]));
}

#[test]
fn counters_hold_the_greatest_number() {
    let body = format!(
        r#"{{"_disk0":{{"read_latency_min":{},"read_ops":0}}}}"#,
        u64::MAX
    );
    let counters = api::vm_counters().decode(body.as_bytes()).unwrap();
    let expected = BTreeMap::from([
        ("read_latency_min".to_owned(), u64::MAX),
        ("read_ops".to_owned(), 0),
    ]);
    assert_eq!(counters["_disk0"], expected);
}

#[test]
fn an_answer_with_or_without_a_body_is_read() {
    let request = api::vm_add_disk(&DiskConfig::default());
    assert_eq!(request.decode(b"").unwrap(), None);
    let answer = request
        .decode(br#"{"id":"_disk1","bdf":"0000:00:06.0"}"#)
        .unwrap();
    assert_eq!(answer, Some(PciDeviceInfo::new("0000:00:06.0", "_disk1")));
    assert!(request.decode(b"{}").is_err());
    api::vmm_shutdown().decode(b"").unwrap();
    assert!(api::vm_info().decode(b"").is_err());
}

#[test]
fn a_field_of_the_wrong_width_is_refused() {
    fn check(info: &str) {
        let body = VM_INFO.replace(r#""cid": 3"#, &format!(r#""cid": {info}"#));
        assert_ne!(body, VM_INFO);
        assert!(api::vm_info().decode(body.as_bytes()).is_err(), "{info}");
    }
    check("4294967296");
    check("-1");
    check("\"3\"");
}
