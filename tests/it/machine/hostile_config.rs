//! Sets each field that a release's contract has for a VM's configuration to a hostile value: each must be refused with
//! its JSON pointer.

use std::path::{Path, PathBuf};

use chv_sandbox::compat::Document;
use chv_sandbox::machine::{
    Disk, DiskFormat, DiskRole, Error, GuestMemory, Snapshot, SnapshotBytes, VmShape,
};
use chv_sandbox::spec::{Contract, Schema, Shape};
use serde_json::{Value, json};

/// A restore replaces these fields by paths of its own.
const REPLACED: [&str; 5] = [
    "/disks/0/path",
    "/disks/1/path",
    "/vsock/socket",
    "/serial/file",
    "/console/file",
];

/// The configuration that the real VMM wrote for a VM as a machine boots it.
fn written(release: &str) -> Value {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/snapshots");
    let bytes = std::fs::read(fixtures.join(release).join("config.json")).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn take(config: &Value) -> Result<Snapshot, Error> {
    let disk = |role, readonly| Disk {
        role,
        origin: PathBuf::from("/image/disk"),
        readonly,
        format: DiskFormat::Raw,
    };
    let shape = VmShape {
        kernel: "/image/kernel".into(),
        initramfs: None,
        cmdline: "console=hvc0".to_owned(),
        vcpus: 2,
        memory_mib: 64,
        cid: 3,
    };
    let bytes = SnapshotBytes {
        config: config.to_string().into_bytes(),
        state: Vec::new(),
    };
    let disks = [disk(DiskRole::Root, true), disk(DiskRole::Overlay, false)];
    Snapshot::new(
        Path::new("/golden"),
        bytes,
        shape,
        &disks,
        GuestMemory::ByPath,
    )
}

/// A value of the schema that no mint writes to any field.
fn hostile(contract: &Contract, schema: &Schema, depth: usize) -> Value {
    match &schema.shape {
        Shape::Any | Shape::String { .. } => json!("/etc/canary"),
        Shape::Boolean => json!(true),
        Shape::Integer { .. } | Shape::Number { .. } => json!(7777),
        Shape::Array(items) => json!([hostile(contract, items, depth)]),
        Shape::Map(values) => json!({ "canary": hostile(contract, values, depth) }),
        Shape::Reference(name) => hostile(contract, &contract.schemas[name], depth),
        Shape::Object { .. } if depth == 0 => json!({ "canary": true }),
        Shape::Object { properties, .. } => properties
            .iter()
            .map(|(name, schema)| (name.clone(), hostile(contract, schema, depth - 1)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

/// Every place of the schema below `pointer`, with a hostile value for it. The search descends only where the
/// configuration has an object or a list.
fn places(
    contract: &Contract,
    schema: &Schema,
    pointer: &str,
    config: &Value,
    all: &mut Vec<(String, Value)>,
) {
    if !pointer.is_empty() {
        all.push((pointer.to_owned(), hostile(contract, schema, 2)));
    }
    let here = config.pointer(pointer);
    match &schema.shape {
        Shape::Reference(name) => {
            all.pop();
            places(contract, &contract.schemas[name], pointer, config, all);
        }
        Shape::Object { properties, .. } if here.is_some_and(Value::is_object) => {
            for (name, schema) in properties {
                places(contract, schema, &format!("{pointer}/{name}"), config, all);
            }
        }
        Shape::Array(items) => {
            for at in 0..here.and_then(Value::as_array).map_or(0, Vec::len) {
                places(contract, items, &format!("{pointer}/{at}"), config, all);
            }
        }
        _ => {}
    }
}

#[test]
fn every_field_of_the_contract_is_refused_by_its_pointer() {
    for release in ["v51.2", "v52.0", "v53.0"] {
        let contract = Document::release(release.parse().unwrap())
            .unwrap()
            .contract;
        let config = written(release);
        take(&config).unwrap();
        let mut all = Vec::new();
        places(
            &contract,
            &contract.schemas["VmConfig"],
            "",
            &config,
            &mut all,
        );
        assert!(all.len() > 80, "{release}: {}", all.len());
        for (pointer, value) in all {
            if REPLACED.contains(&&*pointer) {
                continue;
            }
            let mut changed = config.clone();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            let parent = changed.pointer_mut(parent).unwrap();
            match parent {
                Value::Array(items) => items[key.parse::<usize>().unwrap()] = value.clone(),
                parent => parent[key] = value.clone(),
            }
            if changed == config {
                // A mint leaves `true` here, which is also the hostile value of a boolean, so the test uses `false`.
                *changed.pointer_mut(&pointer).unwrap() = json!(false);
            }
            match take(&changed) {
                Err(Error::SnapshotConfig { pointer: found, .. }) => {
                    assert!(
                        found.starts_with(&pointer),
                        "{release} {pointer} {value}: {found}"
                    );
                }
                other => panic!("{release} {pointer} {value}: {other:?}"),
            }
        }
    }
}
