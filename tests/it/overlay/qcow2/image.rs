//! Writes the smallest qcow2 images.

use std::fs;
use std::path::Path;

/// An empty image of version 2 or 3: the header, then one cluster each for the first-level table, the table of
/// reference counts and the block of reference counts.
pub(crate) struct Image {
    pub(crate) version: u32,
    /// The length of the disk, in bytes.
    pub(crate) length: u64,
    /// The name and format of the backing file, as the header has them.
    pub(crate) backing: Option<(String, Option<&'static str>)>,
}

pub(crate) const CLUSTER: usize = 64 << 10;

impl Image {
    /// An image of 8 MiB over `backing`.
    pub(crate) fn over(backing: &Path, format: &'static str) -> Image {
        Image {
            version: 2,
            length: 8 << 20,
            backing: Some((backing.to_str().unwrap().to_owned(), Some(format))),
        }
    }

    /// An image of 8 MiB without a backing file.
    pub(crate) fn alone() -> Image {
        Image {
            version: 2,
            length: 8 << 20,
            backing: None,
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; 4 * CLUSTER];
        let mut put = |offset: usize, field: &[u8]| {
            bytes[offset..offset + field.len()].copy_from_slice(field);
        };
        put(0, b"QFI\xfb");
        put(4, &self.version.to_be_bytes());
        put(20, &16_u32.to_be_bytes());
        put(24, &self.length.to_be_bytes());
        // Each entry of the first-level table stands for a second-level table of one cluster, which has eight bytes for
        // each cluster of the disk.
        let level_one = self.length.div_ceil(CLUSTER as u64 * (CLUSTER as u64 / 8));
        put(36, &(level_one as u32).to_be_bytes());
        put(40, &(CLUSTER as u64).to_be_bytes());
        put(48, &(2 * CLUSTER as u64).to_be_bytes());
        put(56, &1_u32.to_be_bytes());
        let mut extensions = 72;
        if self.version == 3 {
            put(96, &4_u32.to_be_bytes());
            put(100, &104_u32.to_be_bytes());
            extensions = 104;
        }
        if let Some((name, format)) = &self.backing {
            put(8, &512_u64.to_be_bytes());
            put(16, &(name.len() as u32).to_be_bytes());
            put(512, name.as_bytes());
            if let Some(format) = format {
                put(extensions, &0xe279_2aca_u32.to_be_bytes());
                put(extensions + 4, &(format.len() as u32).to_be_bytes());
                put(extensions + 8, format.as_bytes());
            }
        }
        // Reference counts have 16 bits; there is one for each of the four clusters.
        put(2 * CLUSTER, &(3 * CLUSTER as u64).to_be_bytes());
        for cluster in 0..4 {
            put(3 * CLUSTER + 2 * cluster, &1_u16.to_be_bytes());
        }
        bytes
    }

    pub(crate) fn write(&self, path: &Path) {
        fs::write(path, self.bytes()).unwrap();
    }
}
