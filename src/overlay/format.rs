//! The image formats of a disk.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The format of a disk image. The caller always states it, and it is never detected from the content: a guest that can
/// write to a raw disk can give it the header of any format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskFormat {
    /// The bytes of the file are the bytes of the disk.
    #[default]
    Raw,
    /// QEMU's copy-on-write format, which can have a read-only backing file. See [`qcow2`](super::qcow2) for the
    /// restrictions.
    Qcow2,
}

impl fmt::Display for DiskFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DiskFormat::Raw => "raw",
            DiskFormat::Qcow2 => "qcow2",
        })
    }
}
