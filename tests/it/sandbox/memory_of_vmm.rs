//! The memory of a stand-in's guest: how a snapshot stores it, and how the process of a VMM maps it, correctly or not.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use chv_sandbox::machine::SNAPSHOT_FILES;
use serde_json::{Value, json};

use super::orders::Orders;
use super::vmm::folder_in;

/// How VMMs that are processes map the memory of a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Mapping {
    /// As the restore asks for it.
    #[default]
    Honest,
    /// Not mapped at all.
    Nothing,
    /// The upper region has the lower region's bytes.
    LowerTwice,
    /// Mapped correctly, and once more.
    OnceMore,
    /// Shared with every other process that maps the file.
    Shared,
    /// The whole memory from a copy of the file.
    AnotherFile,
}

/// Writes the memory part of a snapshot of a VM with this configuration.
pub(super) fn write(folder: &Path, config: &Value) -> io::Result<()> {
    let [_, state, memory] = SNAPSHOT_FILES.map(|name| folder.join(name));
    let bytes = config["memory"]["size"].as_u64();
    let bytes = bytes.ok_or(io::ErrorKind::InvalidInput)?;
    File::create_new(state)?.write_all(state_of(bytes).to_string().as_bytes())?;
    let memory = File::create_new(memory)?;
    memory.set_len(bytes)?;
    memory.write_all_at(&[0x5a; 10_000], 0)?;
    memory.write_all_at(b"the upper half", bytes / 2)
}

/// Makes the VMM's process, if it has one, map the memory or read it.
pub(super) fn take(
    orders: Option<&Orders>,
    mapping: Mapping,
    body: &str,
    config: &Value,
) -> Result<(), &'static str> {
    let order = |command: &dyn Fn(&Orders) -> io::Result<()>| {
        // A process that has ended has nothing mapped; the sandbox has to find that.
        orders
            .map(command)
            .transpose()
            .map_or(Err("the process has ended"), |_| Ok(()))
    };
    let folder = folder_in(body, "source_url").ok_or("there is no source_url")?;
    let memory = folder.join("memory-ranges");
    let Some(file) = config["memory"]["zones"][0]["file"].as_str() else {
        let memory = memory.to_str().ok_or("a path is not UTF-8")?.to_owned();
        if orders.is_none() {
            File::open(&memory).map_err(|_| "a file cannot be opened")?;
        }
        return order(&|orders| orders.open(&memory, "read"));
    };
    if memory.symlink_metadata().is_ok() {
        return Err("the memory is mapped, and there is a file to read");
    }
    let state = fs::read(folder.join("state.json")).map_err(|_| "state.json is missing")?;
    let regions = regions_to_map(&state, config).ok_or("state.json is not one for a mapping")?;
    for (at, (offset, length)) in regions.into_iter().enumerate() {
        let offset = match (mapping, at) {
            (Mapping::Nothing, _) => continue,
            (Mapping::LowerTwice, 1) => 0,
            _ => offset,
        };
        order(&|orders| orders.map(mapping, offset, length, file))?;
        if (mapping, at) == (Mapping::OnceMore, 0) {
            order(&|orders| orders.map(mapping, offset, length, file))?;
        }
    }
    Ok(())
}

/// The `state.json` of a VM with this many bytes of memory, in two regions of the same size.
fn state_of(bytes: u64) -> Value {
    let half = bytes / 2;
    let high = 1_u64 << 32;
    let mapping = |slot, gpa| {
        json!({
            "slot": slot, "gpa": gpa, "size": half, "zone_id": "mem0", "virtio_mem": false, "file_offset": 0,
        })
    };
    let manager = json!({
        "memory_ranges": { "data": [{ "gpa": 0, "length": half }, { "gpa": high, "length": half }] },
        "guest_ram_mappings": [mapping(0, 0), mapping(1, high)],
        "boot_ram": bytes,
        "current_ram": bytes,
        "next_memory_slot": 2,
    });
    json!({
        "snapshots": {
            "memory-manager": { "snapshots": {}, "snapshot_data": { "state": manager.to_string() } },
        },
        "snapshot_data": null,
    })
}

/// The offset and length of each mapping in a state in which nothing has to be filled. `None` for any other state.
fn regions_to_map(state: &[u8], config: &Value) -> Option<Vec<(u64, u64)>> {
    let state: Value = serde_json::from_slice(state).ok()?;
    let manager = &state["snapshots"]["memory-manager"]["snapshot_data"]["state"];
    let manager: Value = serde_json::from_str(manager.as_str()?).ok()?;
    let fills_nothing = manager["memory_ranges"]["data"].as_array()?.is_empty();
    let zone = &config["memory"]["zones"][0];
    let is_private = zone["shared"] == false && config["memory"]["size"] == 0;
    let mappings = manager["guest_ram_mappings"].as_array()?.iter();
    let regions: Option<Vec<_>> = mappings
        .map(|it| Some((it["file_offset"].as_u64()?, it["size"].as_u64()?)))
        .collect();
    let regions = regions.filter(|_| fills_nothing && is_private)?;
    let bytes: u64 = regions.iter().map(|(_, length)| length).sum();
    (zone["size"].as_u64() == Some(bytes)).then_some(regions)
}
