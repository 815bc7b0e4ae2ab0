//! Edits a snapshot's `state.json` so that a restore maps the memory from a file instead of copying it
//! ([`map_memory`]).
//!
//! Only the memory manager's part of the state is read. The edit changes two things. The list of ranges that a restore
//! fills becomes empty, so that the VMM copies nothing. Each RAM mapping gets its offset in the memory file. Both were
//! read in `vmm/src/memory_manager.rs` (`fill_saved_regions`, `restore_memory_regions_and_zones`) and tested on v51.2,
//! v52.0 and v53.0 ([`maps_memory`]). A guest of more than 3 GiB has two mappings. Without the offsets it would see the
//! bytes of the lower one in both, without an error.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// The releases on which the edit was tested.
const TRIED: [&str; 3] = ["v51.2", "v52.0", "v53.0"];

/// The memory zone of a VM whose configuration has a memory size and no zones.
pub(super) const ZONE: &str = "mem0";

const PAGE: u64 = 4096;

/// Whether a snapshot of the release `release`, such as `v53.0`, can be restored with its memory mapped.
pub(crate) fn maps_memory(release: &str) -> bool {
    TRIED.contains(&release)
}

/// A region of a guest's memory, with its place in the memory file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemoryRegion {
    /// The region's first physical address in the guest.
    pub gpa: u64,
    /// The offset of the region's first byte in the memory file.
    pub offset: u64,
    /// The region's length in bytes.
    pub length: u64,
}

/// A state that was edited so that its memory is mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapped {
    /// The content of the edited `state.json`.
    pub(super) bytes: Vec<u8>,
    /// The regions that the VMM must map, in the order of the memory file.
    pub(super) regions: Vec<MemoryRegion>,
}

/// Edits the `state.json` in `bytes` for a memory file of `memory_bytes` bytes. An error names the place at which the
/// state differs from that of a VM that a mint makes.
pub(super) fn map_memory(bytes: &[u8], memory_bytes: u64) -> Result<Mapped, String> {
    let mut state: State = parse("", bytes)?;
    let at = format!("/snapshots/{MANAGER}");
    let manager = state
        .snapshots
        .remove(MANAGER)
        .ok_or_else(|| format!("{at} is missing"))?;
    let mut manager: ManagerSnapshot = parse(&at, manager.get().as_bytes())?;
    let at = format!("{at}/snapshot_data/state");
    let mut memory: MemoryManager = parse(&at, manager.snapshot_data.state.as_bytes())?;

    let regions = memory
        .place(memory_bytes)
        .map_err(|reason| format!("{at}: {reason}"))?;
    memory.memory_ranges.data.clear();
    manager.snapshot_data.state = to_json(&memory);
    let manager = RawValue::from_string(to_json(&manager)).expect("it was just written as JSON");
    state.snapshots.insert(MANAGER.to_owned(), manager);
    Ok(Mapped {
        bytes: to_json(&state).into_bytes(),
        regions,
    })
}

const MANAGER: &str = "memory-manager";

fn parse<'a, T: Deserialize<'a>>(at: &str, bytes: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| match at {
        "" => format!("it is not a VM's state: {error}"),
        at => format!("{at} is not as the VMM writes it: {error}"),
    })
}

fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("a state has text for its keys")
}

/// `Snapshot` of `vm-migration/src/lib.rs`. The other components' snapshots are copied byte for byte.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct State {
    snapshots: BTreeMap<String, Box<RawValue>>,
    snapshot_data: Option<Box<RawValue>>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ManagerSnapshot {
    snapshots: BTreeMap<String, Box<RawValue>>,
    snapshot_data: SnapshotData,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct SnapshotData {
    state: String,
}

/// `MemoryManagerSnapshotData` of `vmm/src/memory_manager.rs`.
#[derive(Deserialize, Serialize)]
struct MemoryManager {
    memory_ranges: Ranges,
    guest_ram_mappings: Vec<Mapping>,
    boot_ram: u64,
    current_ram: u64,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Ranges {
    data: Vec<Range>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Range {
    gpa: u64,
    length: u64,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Mapping {
    slot: u32,
    gpa: u64,
    size: u64,
    zone_id: String,
    virtio_mem: bool,
    file_offset: u64,
}

impl MemoryManager {
    /// Gives each mapping its offset in a file of `memory_bytes` bytes, in which the ranges follow each other.
    fn place(&mut self, memory_bytes: u64) -> Result<Vec<MemoryRegion>, String> {
        for (field, ram) in [
            ("boot_ram", self.boot_ram),
            ("current_ram", self.current_ram),
        ] {
            if ram != memory_bytes {
                return Err(format!(
                    "/{field} is {ram}, the memory has {memory_bytes} bytes"
                ));
            }
        }
        let ranges = &self.memory_ranges.data;
        if ranges.len() != self.guest_ram_mappings.len() {
            let mappings = self.guest_ram_mappings.len();
            return Err(format!(
                "it has {} ranges and {mappings} mappings",
                ranges.len()
            ));
        }
        let mut regions: Vec<MemoryRegion> = Vec::with_capacity(ranges.len());
        let mut offset = 0_u64;
        for (at, range) in ranges.iter().enumerate() {
            let Range { gpa, length } = *range;
            let refuse = |what: &str| Err(format!("/memory_ranges/data/{at} {what}"));
            if length == 0 || !length.is_multiple_of(PAGE) || !gpa.is_multiple_of(PAGE) {
                return refuse("is empty, or not of whole pages");
            }
            if gpa.checked_add(length).is_none() {
                return refuse("goes past the end of all addresses");
            }
            let overlaps =
                |other: &MemoryRegion| gpa < other.gpa + other.length && other.gpa < gpa + length;
            if regions.iter().any(overlaps) {
                return refuse("overlaps another one");
            }
            regions.push(MemoryRegion {
                gpa,
                offset,
                length,
            });
            offset = match offset.checked_add(length) {
                Some(end) if end <= memory_bytes => end,
                _ => return refuse("goes past the end of the memory file"),
            };
        }
        if offset != memory_bytes {
            return Err(format!(
                "/memory_ranges has {offset} bytes, the memory file {memory_bytes}"
            ));
        }
        for (at, mapping) in self.guest_ram_mappings.iter_mut().enumerate() {
            mapping
                .place(&regions)
                .map_err(|reason| format!("/guest_ram_mappings/{at} {reason}"))?;
        }
        let mut offsets: Vec<_> = self
            .guest_ram_mappings
            .iter()
            .map(|mapping| mapping.file_offset)
            .collect();
        offsets.sort_unstable();
        if offsets.windows(2).any(|two| two[0] == two[1]) {
            return Err("two of /guest_ram_mappings are the same".to_owned());
        }
        Ok(regions)
    }
}

impl Mapping {
    fn place(&mut self, regions: &[MemoryRegion]) -> Result<(), String> {
        if self.zone_id != ZONE {
            return Err(format!("is of the zone {:?}, not {ZONE:?}", self.zone_id));
        }
        if self.virtio_mem {
            return Err("is hotplugged".to_owned());
        }
        let mut same = regions
            .iter()
            .filter(|region| (region.gpa, region.length) == (self.gpa, self.size));
        let region = same.next().ok_or("is not one of /memory_ranges")?;
        if ![0, region.offset].contains(&self.file_offset) {
            return Err(format!(
                "has file_offset {}, and its bytes are at {}",
                self.file_offset, region.offset
            ));
        }
        self.file_offset = region.offset;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
