//! The device of KVM, which every VMM opens at its start, and [`NoKvm`], the reason why it can't be opened.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// The path of the device of KVM.
pub(crate) const KVM_DEVICE: &str = "/dev/kvm";

/// The device of KVM doesn't exist, or this process may not open it. Every VMM opens it at its start, and exits if it
/// can't.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be opened for reading and writing", device.display())]
#[non_exhaustive]
pub struct NoKvm {
    /// The path of the device.
    pub device: PathBuf,
    /// The kernel's error.
    pub source: io::Error,
}

/// Opens the device of KVM as a VMM does.
pub(crate) fn open_kvm(device: &Path) -> Result<File, NoKvm> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options.open(device).map_err(|source| NoKvm {
        device: device.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_for_a_missing_device_has_its_path_and_the_cause() {
        let directory = tempfile::tempdir().unwrap();
        let device = directory.path().join("kvm");
        let error = open_kvm(&device).unwrap_err();
        assert!(error.to_string().contains(&*device.to_string_lossy()));
        assert_eq!(error.source.kind(), io::ErrorKind::NotFound);
        std::fs::write(&device, "").unwrap();
        open_kvm(&device).unwrap();
    }
}
