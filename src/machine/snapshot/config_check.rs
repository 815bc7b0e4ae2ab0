//! Checks a snapshot's `config.json`: it may only describe the VM that a machine boots.
//!
//! The VMM obeys a `config.json` without any check: it opens, truncates and writes the files that are named in it. So
//! the snapshot's `config.json` is never given to the VMM. A restore gets a configuration that [`vm_config`] builds, as
//! for the boot. The snapshot's own is only compared with that one. Each of its values must be the one that was sent at
//! the boot, a path that the restore replaces anyway ([`REPLACED`]), or a default that the VMM fills in ([`DEFAULTS`]).
//! For any other value, whether a release knows its property or not, the snapshot is refused.

use serde_json::Value;

use crate::machine::Error;
use crate::machine::vm_config::{VmDisk, VmFiles, VmShape, vm_config};

/// The places of paths that belong to the machine that took the snapshot. A restore replaces them by its own.
const REPLACED: &[&str] = &[
    "/disks/*/path",
    "/vsock/socket",
    "/serial/file",
    "/console/file",
];

/// The place of the name that the VMM gave to the vsock device. `state.json` has the device's state under that name, so
/// a restore must keep it.
const VSOCK_ID: &str = "/vsock/id";

/// The defaults that the VMM, v44.0 to v53.0, writes for properties that the configuration lacks, as JSON.
///
/// They were seen in the `config.json` of v51.2, v52.0 and v53.0, and are defined in `vmm/src/vm_config.rs`.
const DEFAULTS: &[(&str, &str)] = &[
    ("/cpus/core_scheduling", r#""Vm""#),
    ("/cpus/features/amx", "false"),
    ("/cpus/kvm_hyperv", "false"),
    ("/cpus/max_phys_bits", "46"),
    ("/cpus/nested", "true"),
    ("/cpus/profile", r#""Host""#),
    ("/memory/hotplug_method", r#""Acpi""#),
    ("/memory/hugepages", "false"),
    ("/memory/mergeable", "false"),
    ("/memory/prefault", "false"),
    ("/memory/reserve", "false"),
    ("/memory/shared", "false"),
    ("/memory/thp", "true"),
    ("/disks/*/backing_files", "false"),
    ("/disks/*/direct", "false"),
    ("/disks/*/disable_aio", "false"),
    ("/disks/*/disable_io_uring", "false"),
    ("/disks/*/iommu", "false"),
    ("/disks/*/lock_granularity", r#""ByteRange""#),
    ("/disks/*/num_queues", "1"),
    ("/disks/*/pci_segment", "0"),
    ("/disks/*/queue_size", "128"),
    ("/disks/*/sparse", "true"),
    ("/disks/*/vhost_user", "false"),
    ("/rng/iommu", "false"),
    ("/rng/pci_segment", "0"),
    ("/rng/src", r#""/dev/urandom""#),
    ("/serial/iommu", "false"),
    ("/console/iommu", "false"),
    ("/console/pci_segment", "0"),
    ("/debug_console/iobase", "233"),
    ("/debug_console/mode", r#""Off""#),
    ("/vsock/iommu", "false"),
    ("/vsock/pci_segment", "0"),
    ("/pvpanic", "false"),
    ("/iommu", "false"),
    ("/watchdog", "false"),
    ("/landlock_enable", "false"),
];

/// The values of a snapshot's `config.json` that a restore keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// The VMM's name for the vsock device.
    pub(super) vsock_id: Option<String>,
}

/// A value of a `config.json` that no mint writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unexpected {
    /// The JSON pointer of the place.
    pub(super) pointer: String,
    /// The value that a mint writes there; `None` if a mint writes nothing there.
    pub(super) expected: Option<String>,
    /// The value that was found there; `None` if there is nothing.
    pub(super) found: Option<String>,
}

/// Compares `found`, a snapshot's `config.json`, with the configuration that a machine sends to boot a VM of `shape`
/// with `disks`.
pub(super) fn check(
    found: &Value,
    shape: &VmShape,
    disks: &[VmDisk],
) -> Result<Result<Kept, Unexpected>, Error> {
    let any = VmFiles {
        disks: disks.to_vec(),
        vsock: String::new(),
        console: String::new(),
    };
    let expected = vm_config(shape, &any)?;
    let expected = serde_json::to_value(expected).expect("a configuration has text for its keys");
    let mut kept = Kept::default();
    Ok(compare("", "", Some(found), Some(&expected), &mut kept).map(|()| kept))
}

/// Compares the value `found` at `pointer` with the value `expected` there. `pattern` is the pointer with `*` in place
/// of each array index.
fn compare(
    pointer: &str,
    pattern: &str,
    found: Option<&Value>,
    expected: Option<&Value>,
    kept: &mut Kept,
) -> Result<(), Unexpected> {
    // The VMM treats null as absent.
    let found = found.filter(|value| !value.is_null());
    match (found, expected) {
        (None, None) => Ok(()),
        (Some(Value::Object(found)), expected) if expected.is_some() || is_container(pattern) => {
            let empty = serde_json::Map::new();
            let expected = expected.and_then(Value::as_object).unwrap_or(&empty);
            let missing = expected.keys().filter(|key| !found.contains_key(*key));
            for key in found.keys().chain(missing) {
                let key_in_pointer = key.replace('~', "~0").replace('/', "~1");
                let below = |parent: &str| format!("{parent}/{key_in_pointer}");
                let (found, expected) = (found.get(key), expected.get(key));
                compare(&below(pointer), &below(pattern), found, expected, kept)?;
            }
            Ok(())
        }
        (Some(Value::Array(found)), Some(Value::Array(expected)))
            if found.len() == expected.len() =>
        {
            let pattern = format!("{pattern}/*");
            for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
                let pointer = format!("{pointer}/{at}");
                compare(&pointer, &pattern, Some(found), Some(expected), kept)?;
            }
            Ok(())
        }
        (Some(Value::String(_)), Some(_)) if REPLACED.contains(&pattern) => Ok(()),
        (Some(Value::String(id)), None) if pattern == VSOCK_ID && is_vsock_id(id) => {
            kept.vsock_id = Some(id.clone());
            Ok(())
        }
        (Some(found), Some(expected)) if found == expected => Ok(()),
        (Some(found), None) if default_at(pattern).as_ref() == Some(found) => Ok(()),
        (found, expected) => {
            let default = default_at(pattern);
            Err(Unexpected {
                pointer: pointer.to_owned(),
                expected: expected.or(default.as_ref()).map(short),
                found: found.map(short),
            })
        }
    }
}

/// Whether any value below `pattern` has a default.
fn is_container(pattern: &str) -> bool {
    let below = |(at, _): &(&str, &str)| {
        at.strip_prefix(pattern)
            .is_some_and(|rest| rest.starts_with('/'))
    };
    DEFAULTS.iter().any(below)
}

fn default_at(pattern: &str) -> Option<Value> {
    let (_, json) = DEFAULTS.iter().find(|(at, _)| *at == pattern)?;
    Some(serde_json::from_str(json).expect("the defaults are JSON"))
}

/// Whether `id` is a name that the VMM gives to a vsock device: its kind and a number, such as `_vsock0`.
fn is_vsock_id(id: &str) -> bool {
    id.strip_prefix("_vsock")
        .is_some_and(|number| number.len() <= 4 && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Returns at most 80 characters of a value's JSON text for an error, without control characters.
fn short(value: &Value) -> String {
    const LONGEST: usize = 80;
    let text = value.to_string();
    let mut short: String = text.chars().take(LONGEST).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short.replace(|char: char| char.is_control(), "\u{fffd}")
}

#[cfg(test)]
mod tests;
