//! The right to use KVM: every VMM opens its device at its start.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// The device of KVM.
pub const KVM_DEVICE: &str = "/dev/kvm";

/// The device of KVM isn't there, or this process has no right to it. Every VMM opens it at its start and exits
/// without it.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be opened for reading and writing", device.display())]
pub struct NoKvm {
    /// The device.
    pub device: PathBuf,
    /// What the kernel says.
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
    fn a_device_that_is_not_there_is_named_with_the_cause() {
        let directory = tempfile::tempdir().unwrap();
        let device = directory.path().join("kvm");
        let error = open_kvm(&device).unwrap_err();
        assert!(error.to_string().contains(&*device.to_string_lossy()));
        assert_eq!(error.source.kind(), io::ErrorKind::NotFound);
        std::fs::write(&device, "").unwrap();
        open_kvm(&device).unwrap();
    }
}
