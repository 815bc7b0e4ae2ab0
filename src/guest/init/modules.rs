//! Loading of the kernel modules that the initramfs brings.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::InitError;
use crate::causes::Causes;

/// Where the modules are.
const FOLDER: &str = "/lib/modules";
/// The list of them: paths below the folder, one a line, each after those that it needs.
const LIST: &str = "/lib/modules/load";

/// Loads every listed module. A kernel that has everything built in comes without a list.
///
/// A module that the kernel refuses is left out with a warning: the packed list may hold drivers for devices that this
/// VM doesn't have. What is really missing shows at the step that needs it.
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
