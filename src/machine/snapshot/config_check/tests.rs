use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::machine::DiskFormat;
use crate::machine::snapshot::fuzz::{disks, shape};

/// The `config.json` that real VMMs wrote for the VM of [`shape`] and [`disks`].
const WRITTEN: [(&str, &[u8]); 3] = [
    (
        "v51.2",
        include_bytes!("../../../../fixtures/snapshots/v51.2/config.json"),
    ),
    (
        "v52.0",
        include_bytes!("../../../../fixtures/snapshots/v52.0/config.json"),
    ),
    (
        "v53.0",
        include_bytes!("../../../../fixtures/snapshots/v53.0/config.json"),
    ),
];

fn written() -> impl Iterator<Item = (&'static str, Value)> {
    WRITTEN
        .iter()
        .map(|(release, bytes)| (*release, serde_json::from_slice(bytes).unwrap()))
}

fn checked(config: &Value) -> Result<Kept, Unexpected> {
    check(config, &shape(), &disks()).unwrap()
}

/// The pointer of every value in `value`, containers too.
fn pointers(value: &Value) -> Vec<String> {
    let mut all = Vec::new();
    let mut waiting = vec![(String::new(), value)];
    while let Some((pointer, value)) = waiting.pop() {
        match value {
            Value::Object(fields) => {
                let below = fields.iter();
                waiting.extend(below.map(|(key, value)| (format!("{pointer}/{key}"), value)));
            }
            Value::Array(items) => {
                let below = items.iter().enumerate();
                waiting.extend(below.map(|(at, value)| (format!("{pointer}/{at}"), value)));
            }
            _ => {}
        }
        all.push(pointer);
    }
    all
}

fn is_replaced(pointer: &str) -> bool {
    let pattern = pointer.replace("/0", "/*").replace("/1", "/*");
    REPLACED.contains(&&*pattern)
}

#[test]
fn the_config_that_each_release_writes_is_accepted() {
    for (release, config) in written() {
        let kept =
            checked(&config).unwrap_or_else(|unexpected| panic!("{release}: {unexpected:?}"));
        assert_eq!(kept.vsock_id.as_deref(), Some("_vsock0"), "{release}");
    }
}

#[test]
fn the_config_that_was_sent_to_create_the_vm_is_accepted() {
    let files = VmFiles {
        disks: disks(),
        vsock: "/run/vsock.sock".to_owned(),
        console: "/run/console.log".to_owned(),
    };
    let config = serde_json::to_value(vm_config(&shape(), &files).unwrap()).unwrap();
    assert_eq!(checked(&config), Ok(Kept::default()));
}

#[test]
fn every_changed_value_is_refused_with_its_pointer() {
    let hostile = [
        json!("/etc/canary"),
        json!(7_777),
        json!(-1),
        json!(true),
        json!(0.5),
        json!([{ "file": "/etc/canary" }]),
        json!({ "file": "/etc/canary" }),
    ];
    for (release, config) in written() {
        for pointer in pointers(&config) {
            for hostile in &hostile {
                let mut changed = config.clone();
                let place = changed.pointer_mut(&pointer).unwrap();
                if place == hostile || is_replaced(&pointer) && hostile.is_string() {
                    continue;
                }
                *place = hostile.clone();
                let what = format!("{release} {pointer} {hostile}");
                let unexpected = checked(&changed).expect_err(&what);
                // For an object in place of another one, the error points at a key that it has or lacks.
                assert!(
                    unexpected.pointer.starts_with(&pointer),
                    "{what}: {unexpected:?}"
                );
            }
        }
    }
}

#[test]
fn every_field_of_the_api_that_a_mint_does_not_write_is_refused() {
    // Each field of the generated types that a mint does not write, with a value of its type.
    let fields = json!({
        "balloon": { "size": 1 },
        "net": [{ "tap": "tap0" }],
        "fs": [{ "tag": "t", "socket": "/run/fs" }],
        "generic_vhost_user": [{ "socket": "/run/g", "device_type": 1 }],
        "pmem": [{ "file": "/etc/canary" }],
        "devices": [{ "path": "/sys/bus/pci/devices/0" }],
        "user_devices": [{ "socket": "/run/u" }],
        "vdpa": [{ "path": "/dev/vhost-vdpa-0", "num_queues": 1 }],
        "numa": [{ "guest_numa_id": 0 }],
        "pci_segments": [{ "pci_segment": 0 }],
        "platform": { "num_pci_segments": 1 },
        "tpm": { "socket": "/run/tpm" },
        "landlock_rules": [{ "path": "/", "access": "rw" }],
        "rate_limit_groups": [{ "id": "g", "rate_limiter_config": {} }],
        "rtc": { "mode": "On" },
        "ivshmem": { "path": "/etc/canary", "size": 1 },
    });
    for (release, config) in written() {
        for (field, value) in fields.as_object().unwrap() {
            let mut changed = config.clone();
            changed[field] = value.clone();
            let unexpected = checked(&changed).unwrap_err();
            assert_eq!(unexpected.pointer, format!("/{field}"), "{release}");
        }
        let deeper = [
            ("/cpus/topology", json!({ "threads_per_core": 1 })),
            ("/cpus/affinity", json!([{ "vcpu": 0, "host_cpus": [0] }])),
            (
                "/memory/zones",
                json!([{ "id": "mem0", "size": 1, "file": "/etc/canary" }]),
            ),
            ("/memory/hotplug_size", json!(1 << 30)),
            ("/memory/hugepage_size", json!(1 << 21)),
            ("/payload/firmware", json!("/etc/canary")),
            ("/payload/igvm", json!("/etc/canary")),
            ("/disks/0/vhost_socket", json!("/run/disk")),
            ("/disks/1/rate_limiter_config", json!({})),
            ("/disks/1/serial", json!("s")),
            ("/serial/socket", json!("/run/serial")),
            ("/console/socket", json!("/run/console")),
            ("/debug_console/file", json!("/etc/canary")),
            ("/vsock/pci_device_id", json!(9)),
        ];
        for (pointer, value) in deeper {
            let mut changed = config.clone();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            changed.pointer_mut(parent).unwrap()[key] = value.clone();
            let unexpected = checked(&changed).unwrap_err();
            assert_eq!(unexpected.pointer, pointer, "{release}");
        }
    }
}

#[test]
fn a_missing_value_that_a_mint_writes_is_refused() {
    let needed: BTreeSet<_> = [
        "/cpus/boot_vcpus",
        "/memory/size",
        "/payload/kernel",
        "/payload/cmdline",
        "/disks/1/readonly",
        "/disks/0/id",
        "/vsock/cid",
        "/serial/mode",
        "/console/mode",
    ]
    .into();
    for (release, config) in written() {
        for pointer in &needed {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            let mut changed = config.clone();
            let parent = changed.pointer_mut(parent).unwrap();
            parent.as_object_mut().unwrap().remove(key).unwrap();
            let unexpected = checked(&changed).unwrap_err();
            assert_eq!(
                (&*unexpected.pointer, unexpected.found),
                (*pointer, None),
                "{release}"
            );
        }
        let mut changed = config.clone();
        changed["disks"].as_array_mut().unwrap().pop();
        assert_eq!(
            checked(&changed).unwrap_err().pointer,
            "/disks",
            "{release}"
        );
    }
    for nothing in [json!(null), json!([]), json!({}), json!("config")] {
        checked(&nothing).unwrap_err();
    }
}

#[test]
fn a_config_of_another_shape_or_disk_format_is_refused() {
    let (_, config) = written().last().unwrap();
    let another = |change: fn(&mut VmShape, &mut Vec<VmDisk>)| {
        let (mut shape, mut disks) = (shape(), disks());
        change(&mut shape, &mut disks);
        check(&config, &shape, &disks).unwrap().unwrap_err().pointer
    };
    assert_eq!(another(|shape, _| shape.vcpus = 1), "/cpus/boot_vcpus");
    assert_eq!(another(|shape, _| shape.memory_mib = 65), "/memory/size");
    assert_eq!(another(|shape, _| shape.cid = 4), "/vsock/cid");
    assert_eq!(
        another(|shape, _| shape.kernel = "/image/other".into()),
        "/payload/kernel"
    );
    assert_eq!(
        another(|_, disks| disks[1].format = DiskFormat::Qcow2),
        "/disks/1/image_type"
    );
    assert_eq!(
        another(|_, disks| disks[1].has_backing = true),
        "/disks/1/backing_files"
    );
    assert_eq!(
        another(|_, disks| disks[0].readonly = false),
        "/disks/0/readonly"
    );
}

#[test]
fn a_value_in_a_message_is_short_and_harmless() {
    let text = short(&json!(format!("\u{9b}2J{}", "x".repeat(500))));
    assert!(text.len() < 100 && !text.contains('\u{9b}'), "{text}");
}

proptest! {
    #[test]
    fn an_unknown_key_at_any_depth_is_refused_unless_it_is_null(
        release in 0..WRITTEN.len(),
        at in any::<prop::sample::Index>(),
        key in "[a-z_/~.0-9]{1,12}",
        value in prop_oneof![
            Just(json!(null)), Just(json!(false)), Just(json!(0)),
            Just(json!("/etc/canary")), Just(json!({})), Just(json!([])),
        ],
    ) {
        let (_, mut config) = written().nth(release).unwrap();
        let pointers = pointers(&config);
        let objects: Vec<_> = pointers
            .into_iter()
            .filter(|pointer| config.pointer(pointer).unwrap().is_object())
            .collect();
        let parent = at.get(&objects);
        let object = config.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        prop_assume!(!object.contains_key(&key));
        object.insert(key.clone(), value.clone());
        let escaped = key.replace('~', "~0").replace('/', "~1");
        let pattern = format!("{parent}/{escaped}").replace("/0/", "/*/").replace("/1/", "/*/");
        let is_default = default_at(&pattern).as_ref() == Some(&value);
        match checked(&config) {
            Ok(_) => prop_assert!(value.is_null() || is_default),
            Err(unexpected) => prop_assert_eq!(unexpected.pointer, format!("{parent}/{escaped}")),
        }
    }
}
