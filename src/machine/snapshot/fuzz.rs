//! Fuzz targets.

use std::path::Path;

use super::{VmDisk, VmShape, check_config, map_memory};
use crate::machine::{DiskFormat, DiskRole};

/// The VM of the recorded snapshots.
pub(super) fn shape() -> VmShape {
    VmShape {
        kernel: "/image/kernel".into(),
        initramfs: None,
        cmdline: "console=hvc0".to_owned(),
        vcpus: 2,
        memory_mib: 64,
        cid: 3,
    }
}

/// The disks of that VM: a root and an overlay.
pub(super) fn disks() -> Vec<VmDisk> {
    let disk = |role, readonly| VmDisk {
        role,
        readonly,
        format: DiskFormat::Raw,
        has_backing: false,
        path: String::new(),
    };
    vec![disk(DiskRole::Root, true), disk(DiskRole::Overlay, false)]
}

/// Checks a snapshot's `config.json`. A refusal has a text.
pub(crate) fn snapshot_config(bytes: &[u8]) {
    if let Err(error) = check_config(Path::new("snapshot"), bytes, &shape(), &disks()) {
        assert!(!error.to_string().is_empty());
    }
}

/// Edits a snapshot's `state.json` so that its memory is mapped. Each region that the VMM would map lies within the
/// memory.
pub(crate) fn snapshot_state(bytes: &[u8]) {
    let memory = shape().memory_bytes();
    let Ok(mapped) = map_memory::map_memory(bytes, memory) else {
        return;
    };
    for region in &mapped.regions {
        let end = region.offset.checked_add(region.length);
        assert!(end.is_some_and(|end| end <= memory), "{region:?}");
    }
}
