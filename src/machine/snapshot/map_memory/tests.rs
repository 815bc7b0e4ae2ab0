use serde_json::json;

use super::*;

const GIB: u64 = 1 << 30;

/// The state of the memory manager that real VMMs wrote for a VM with 64 MiB.
const WRITTEN: [&[u8]; 3] = [
    include_bytes!("../../../../fixtures/snapshots/v51.2/memory-manager.json"),
    include_bytes!("../../../../fixtures/snapshots/v52.0/memory-manager.json"),
    include_bytes!("../../../../fixtures/snapshots/v53.0/memory-manager.json"),
];

/// A `state.json` with this state of the memory manager.
fn state(manager: &Value) -> Value {
    json!({
        "snapshots": {
            "cpu-manager": { "snapshots": {}, "snapshot_data": { "state": "{\"big\":18446744073709551615}" } },
            "memory-manager": { "snapshots": {}, "snapshot_data": { "state": manager.to_string() } },
        },
        "snapshot_data": null,
    })
}

fn manager_in(bytes: &[u8]) -> Value {
    let state: Value = serde_json::from_slice(bytes).unwrap();
    let manager = &state["snapshots"]["memory-manager"]["snapshot_data"]["state"];
    serde_json::from_str(manager.as_str().unwrap()).unwrap()
}

fn map(manager: &Value, memory_bytes: u64) -> Result<Mapped, String> {
    map_memory(state(manager).to_string().as_bytes(), memory_bytes)
}

/// The state of a guest with 5 GiB, which has two regions.
fn two_regions() -> Value {
    let mut manager: Value = serde_json::from_slice(WRITTEN[2]).unwrap();
    let high = 2 * GIB;
    manager["memory_ranges"]["data"] = json!([
        { "gpa": 0, "length": 3 * GIB },
        { "gpa": 4 * GIB, "length": high },
    ]);
    let mapping = |slot, gpa, size| {
        json!({
            "slot": slot, "gpa": gpa, "size": size, "zone_id": "mem0", "virtio_mem": false, "file_offset": 0,
        })
    };
    manager["guest_ram_mappings"] = json!([mapping(0, 0, 3 * GIB), mapping(1, 4 * GIB, high)]);
    manager["boot_ram"] = json!(5 * GIB);
    manager["current_ram"] = json!(5 * GIB);
    manager
}

#[test]
fn the_edit_clears_the_ranges_and_changes_nothing_else() {
    for written in WRITTEN {
        let manager: Value = serde_json::from_slice(written).unwrap();
        let mapped = map(&manager, 64 << 20).unwrap();
        let region = MemoryRegion {
            gpa: 0,
            offset: 0,
            length: 64 << 20,
        };
        assert_eq!(mapped.regions, [region]);
        let mut expected = manager.clone();
        expected["memory_ranges"]["data"] = json!([]);
        assert_eq!(manager_in(&mapped.bytes), expected);
        let whole: Value = serde_json::from_slice(&mapped.bytes).unwrap();
        let before = state(&manager);
        assert_eq!(
            whole["snapshots"]["cpu-manager"],
            before["snapshots"]["cpu-manager"]
        );
        assert_eq!(whole["snapshot_data"], before["snapshot_data"]);
    }
}

#[test]
fn each_mapping_gets_the_offset_of_its_region() {
    let mut manager = two_regions();
    let check = |manager: &Value, offsets: [u64; 2]| {
        let mapped = map(manager, 5 * GIB).unwrap();
        let places: Vec<_> = mapped.regions.iter().map(|region| region.offset).collect();
        assert_eq!(places, [0, 3 * GIB]);
        let manager = manager_in(&mapped.bytes);
        for (mapping, offset) in manager["guest_ram_mappings"]
            .as_array()
            .unwrap()
            .iter()
            .zip(offsets)
        {
            assert_eq!(mapping["file_offset"], offset);
        }
    };
    check(&manager, [0, 3 * GIB]);
    // A VM that was itself restored with mapped memory has the offset already.
    manager["guest_ram_mappings"][1]["file_offset"] = json!(3 * GIB);
    check(&manager, [0, 3 * GIB]);
    manager["guest_ram_mappings"]
        .as_array_mut()
        .unwrap()
        .swap(0, 1);
    check(&manager, [3 * GIB, 0]);
}

#[test]
fn a_state_that_does_not_fit_is_refused_with_the_place() {
    let check = |change: fn(&mut Value), expected: &str| {
        let mut manager = two_regions();
        change(&mut manager);
        let reason = map(&manager, 5 * GIB).unwrap_err();
        assert!(reason.contains(expected), "{reason}, not {expected}");
    };
    let ranges = "/memory_ranges/data/1";
    check(
        |it| it["memory_ranges"]["data"][1]["gpa"] = json!(2 * GIB),
        ranges,
    );
    check(
        |it| it["memory_ranges"]["data"][1]["gpa"] = json!(u64::MAX - 4095),
        ranges,
    );
    check(
        |it| it["memory_ranges"]["data"][1]["length"] = json!(3 * GIB),
        ranges,
    );
    check(
        |it| it["memory_ranges"]["data"][1]["length"] = json!(0),
        ranges,
    );
    check(
        |it| it["memory_ranges"]["data"][1]["length"] = json!(GIB + 1),
        ranges,
    );
    check(
        |it| it["memory_ranges"]["data"][1]["length"] = json!(GIB),
        "/memory_ranges has",
    );
    check(
        |it| it["memory_ranges"]["data"] = json!([]),
        "0 ranges and 2 mappings",
    );
    let mapping = "/guest_ram_mappings/1";
    check(
        |it| it["guest_ram_mappings"][1]["file_offset"] = json!(4096),
        mapping,
    );
    check(
        |it| it["guest_ram_mappings"][1]["zone_id"] = json!("mem1"),
        mapping,
    );
    check(
        |it| it["guest_ram_mappings"][1]["virtio_mem"] = json!(true),
        mapping,
    );
    check(
        |it| it["guest_ram_mappings"][1]["size"] = json!(GIB),
        mapping,
    );
    check(
        |it| it["guest_ram_mappings"][1] = it["guest_ram_mappings"][0].clone(),
        "are the same",
    );
    check(|it| it["current_ram"] = json!(6 * GIB), "/current_ram");
    check(|it| it["boot_ram"] = json!(0), "/boot_ram");

    let reason = map(&two_regions(), 4 * GIB).unwrap_err();
    assert!(reason.contains("the memory has"), "{reason}");
}

#[test]
fn a_state_of_another_release_is_refused() {
    let good = state(&two_regions());
    let check = |change: fn(&mut Value), expected: &str| {
        let mut state = good.clone();
        change(&mut state);
        let reason = map_memory(state.to_string().as_bytes(), 5 * GIB).unwrap_err();
        assert!(reason.contains(expected), "{reason}, not {expected}");
    };
    check(
        |it| {
            drop(
                it["snapshots"]
                    .as_object_mut()
                    .unwrap()
                    .remove("memory-manager"),
            )
        },
        "/snapshots/memory-manager is missing",
    );
    check(|it| it["another"] = json!(1), "it is not a VM's state");
    check(
        |it| it["snapshots"]["memory-manager"] = json!(1),
        "is not as the VMM writes it",
    );
    let data = |it: &mut Value, text: &str| {
        it["snapshots"]["memory-manager"]["snapshot_data"]["state"] = json!(text);
    };
    let mut changed = good.clone();
    for text in [
        "",
        "{}",
        "[]",
        "{\"memory_ranges\":{\"data\":[],\"more\":1}}",
    ] {
        data(&mut changed, text);
        let reason = map_memory(changed.to_string().as_bytes(), 5 * GIB).unwrap_err();
        assert!(reason.contains("snapshot_data/state"), "{reason}");
    }
    for bytes in [&b""[..], b"{", b"null", b"\xff"] {
        map_memory(bytes, 5 * GIB).unwrap_err();
    }
    for release in ["v50.2", "v51.0", "v54.0", "", "53.0"] {
        assert!(!maps_memory(release), "{release}");
    }
}
