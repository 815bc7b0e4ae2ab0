//! The fields of a VM's configuration on a real VMM: it keeps the fields that the table says its release knows, and no
//! other.

use std::collections::BTreeSet;
use std::path::Path;

use chv_sandbox::api::support::Kind;
use chv_sandbox::api::{Operation, Request};
use chv_sandbox::client::{Client, Release};
use chv_sandbox::spec::{Contract, Schema, Shape};
use chv_sandbox::vmm::{Vmm, VmmConfig};
use serde_json::{Map, Value, json};

use crate::real;
use crate::spec::contracts;

/// Fields that v53.0 accepts and stores under a new name. The old and the new name can't both be sent.
const RENAMED: [&str; 2] = ["/platform/serial_number", "/platform/uuid"];

/// Sends each field that any release knows by itself. The VMM keeps the field if its release knows it, and drops it if
/// not.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real VMM: set CLOUD_HYPERVISOR"]
async fn a_real_vmm_keeps_what_its_release_knows_and_nothing_else() {
    let Some(binary) = real::vmm_binary() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let vmm = spawn(&binary, folder.path()).await;
    let client = vmm.client();
    let release = client.release().await.unwrap();
    let mut wrong = Vec::new();
    let mut tried = BTreeSet::new();
    // The release's own contract gives the form of a value; for a field that it lacks, the newest contract that has the
    // field does.
    let own = contract_of(release);
    for contract in std::iter::once(own).chain(contracts::corrected().iter().rev()) {
        let schema = contracts::body(contract, "vm.create").unwrap();
        for field in fields(contract, schema) {
            if !tried.insert(field.pointer.clone()) {
                continue;
            }
            let known = knows(release, &field.pointer);
            let outcome = outcome(client, &field).await;
            let expected = match known {
                true => outcome == Outcome::Kept,
                false => matches!(outcome, Outcome::Dropped | Outcome::Refused(_)),
            };
            let renamed = release >= Release::new(53, 0) && RENAMED.contains(&&*field.pointer);
            if !expected && !renamed {
                let known = if known { "known" } else { "unknown" };
                let (pointer, sent) = (&field.pointer, &field.config);
                wrong.push(format!("{pointer} is {known}: {outcome:?}, sent {sent}"));
            }
        }
    }
    vmm.shutdown().await;
    assert!(tried.len() > 150, "only {} fields were found", tried.len());
    assert!(wrong.is_empty(), "{release}:\n{}", wrong.join("\n"));
}

/// Sends one configuration with all fields that the release knows.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real VMM: set CLOUD_HYPERVISOR"]
async fn a_real_vmm_stores_a_full_configuration_as_sent() {
    let Some(binary) = real::vmm_binary() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let vmm = spawn(&binary, folder.path()).await;
    let client = vmm.client();
    let release = client.release().await.unwrap();
    let contract = contract_of(release);
    let schema = contracts::body(contract, "vm.create").unwrap();
    let renamed = release >= Release::new(53, 0);
    let full = contracts::value(contract, "", schema, &mut |name| match name {
        // Landlock takes effect at once, and none of these files exists.
        "landlock_enable" => false,
        "system_serial_number" | "system_uuid" => !renamed,
        name => !DESCRIPTORS.contains(&name),
    });
    let full = serde_json::from_value(full).unwrap();
    let drift = client.create_checked(&full).await.unwrap();
    assert!(drift.is_exact(), "{release}: {drift}");
    vmm.shutdown().await;
}

/// The contract of this release, with which the VMM is compared.
fn contract_of(release: Release) -> &'static Contract {
    let mut contracts = contracts::corrected().iter().rev();
    contracts
        .find(|contract| contracts::release(contract) <= release)
        .expect("a VMM of a supported release")
}

/// Fields that stand for a descriptor. A server shows them, and refuses them in a body.
const DESCRIPTORS: &[&str] = &["fds", "fd", "iommufd_fd"];

async fn spawn(binary: &Path, folder: &Path) -> Vmm {
    let config = VmmConfig {
        binary: binary.to_owned(),
        run_root: folder.join("run"),
        ..VmmConfig::default()
    };
    Vmm::spawn(&config).await.unwrap()
}

/// A field of a configuration, and the smallest configuration that has it.
struct Field {
    pointer: String,
    config: Value,
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Kept,
    Dropped,
    Changed(Value),
    Refused(String),
}

/// Creates a VM with the field's configuration, and reads back whether the field was kept.
async fn outcome(client: &Client, field: &Field) -> Outcome {
    let body = Some(field.config.to_string().into());
    let create = Request::raw(Operation::VmCreate, body).unchecked();
    let created = client.send(create).await;
    let info = client.send(Request::raw(Operation::VmInfo, None)).await;
    // Also after a failure: it may leave something stored.
    client.vm_delete().await.unwrap();
    if let Err(error) = created {
        return Outcome::Refused(error.messages().join(": "));
    }
    let info = info.unwrap().unwrap();
    let sent = field.config.pointer(&field.pointer).unwrap();
    match info["config"].pointer(&field.pointer) {
        None | Some(Value::Null) => Outcome::Dropped,
        Some(stored) if contains(stored, sent) => Outcome::Kept,
        Some(stored) => Outcome::Changed(stored.clone()),
    }
}

/// Whether `stored` has everything that was sent.
fn contains(stored: &Value, sent: &Value) -> bool {
    match (stored, sent) {
        (Value::Object(stored), Value::Object(sent)) => sent.iter().all(|(key, value)| {
            stored
                .get(key)
                .is_some_and(|stored| contains(stored, value))
        }),
        (Value::Array(stored), Value::Array(sent)) => {
            stored.len() == sent.len()
                && stored
                    .iter()
                    .zip(sent)
                    .all(|(stored, sent)| contains(stored, sent))
        }
        _ => stored == sent,
    }
}

/// Whether the table says that the release knows every step of the path `pointer`.
fn knows(release: Release, pointer: &str) -> bool {
    let mut kind = Operation::VmCreate.body().map(Kind::Object);
    for name in pointer.split('/').skip(1) {
        kind = match kind {
            Some(Kind::Object(object)) => {
                let field = object.field(name).unwrap();
                if !field.support.includes(release) {
                    return false;
                }
                Some(field.kind)
            }
            Some(Kind::List(items)) => Some(*items),
            other => panic!("{pointer}: {other:?}"),
        };
    }
    true
}

/// Every field below `schema`.
fn fields(contract: &Contract, schema: &Schema) -> Vec<Field> {
    let schema = contracts::resolved(contract, schema);
    match &schema.shape {
        Shape::Object { properties, .. } => {
            let mut found = Vec::new();
            for (name, property) in properties {
                if DESCRIPTORS.contains(&&**name) {
                    continue;
                }
                let least =
                    |schema: &Schema| contracts::value(contract, name, schema, &mut |_| false);
                let around = least(schema);
                let with = |value: Value| {
                    let mut object: Map<String, Value> = around.as_object().unwrap().clone();
                    object.insert(name.clone(), value);
                    Value::Object(object)
                };
                let below = fields(contract, property);
                found.extend(below.into_iter().map(|field| Field {
                    pointer: format!("/{name}{}", field.pointer),
                    config: with(field.config),
                }));
                found.push(Field {
                    pointer: format!("/{name}"),
                    config: with(least(property)),
                });
            }
            found
        }
        Shape::Array(items) => fields(contract, items)
            .into_iter()
            .map(|field| Field {
                pointer: format!("/0{}", field.pointer),
                config: json!([field.config]),
            })
            .collect(),
        _ => Vec::new(),
    }
}
