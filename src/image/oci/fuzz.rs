//! Fuzz targets.

use std::io;

use super::{
    Applier, ContainerError, Disk, Spool, Store, decompress::decompress, select::select, tar::Input,
};
use crate::image::stop::Stop;

/// The largest decompressed layer that is applied, in bytes.
const MOST: usize = 1 << 20;

/// The bytes of a layer, as an [`Input`].
struct Bytes<'a>(&'a [u8]);

impl io::Read for Bytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Input for Bytes<'_> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = self
            .0
            .len()
            .min(usize::try_from(bytes).unwrap_or(usize::MAX));
        self.0 = &self.0[skipped..];
        Ok(())
    }
}

/// Applies a layer, compressed or not, twice, so that whiteouts have an effect, and writes the result to a disk.
pub(crate) fn oci_layer(bytes: &[u8]) {
    let mut layer = Vec::new();
    let unpacked = decompress(bytes, None, &mut |chunk| {
        layer.extend(chunk);
        layer.len() <= MOST
    });
    if unpacked.is_err() || layer.len() > MOST {
        return;
    }
    let scratch = tempfile::tempdir().expect("a directory");
    let mut spool = Spool::new(scratch.path()).expect("a file");
    let mut applier = Applier::new(&mut spool, Stop::never());
    for _ in 0..2 {
        if applier.layer(Bytes(&layer)).is_err() {
            return;
        }
    }
    let Applier { tree, .. } = applier;
    let mut spool = spool.finish().expect("written");
    let file = tempfile::tempfile_in(scratch.path()).expect("a file");
    let disk = Disk {
        file: &file,
        path: scratch.path(),
        size_mib: None,
        stop: Stop::never(),
    };
    // A tree that is too large for a disk is an error.
    let _ = disk.write(&tree, &mut spool);
}

/// Parses the documents of a tar of a layout or of a `docker save` archive.
pub(crate) fn oci_layout(bytes: &[u8]) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("layout");
    std::fs::write(&path, bytes).expect("written");
    let Ok(store) = Store::open(&path, Stop::never()) else {
        return;
    };
    let selected = select(&store, None, |_| ContainerError::NotLayout {
        path: path.clone(),
        problem: "it is none",
    });
    if let Ok(selected) = selected {
        assert!(!selected.layers.is_empty() || selected.config.rootfs.diff_ids.is_empty());
    }
}
