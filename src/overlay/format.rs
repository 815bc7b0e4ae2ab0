//! How the bytes of an image make a disk.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How the bytes of an image make a disk. Always said, never guessed: what a guest can write to, it can make look
/// like any format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskFormat {
    /// The bytes are the disk's.
    #[default]
    Raw,
    /// QEMU's format with tables, which can lie over a read-only backing file.
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
