//! Loads the kernel modules that the initramfs contains.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::InitError;
use crate::causes::Causes;

/// The directory with the modules.
const FOLDER: &str = "/lib/modules";
/// The list of the modules: one path below [`FOLDER`] on each line. A module stands after the modules that it needs.
const LIST: &str = "/lib/modules/load";

/// Loads every listed module. An image whose kernel needs no modules has no list.
///
/// If the kernel refuses a module, this logs a warning and goes on: the list may name drivers for devices that this VM
/// doesn't have. If a needed driver is missing, the step that needs it fails.
pub(super) fn load() -> Result<(), InitError> {
    let list = match fs::read_to_string(LIST) {
        Ok(list) => list,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(InitError::File {
                what: "read",
                path: PathBuf::from(LIST),
                source,
            });
        }
    };
    for module in list.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Err(error) = load_one(&Path::new(FOLDER).join(module)) {
            tracing::warn!(error = %Causes(&error), module, "a kernel module could not be loaded");
        }
    }
    Ok(())
}

fn load_one(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    match rustix::system::finit_module(&file, c"", 0) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
