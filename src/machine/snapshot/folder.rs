//! Writes the folder in a machine's directory from which its VMM restores ([`write_folder`]).

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::{CONFIG, MEMORY, STATE, Snapshot};
use crate::files::{create_private_directory, write_private};
use crate::machine::layout::utf8;
use crate::machine::vm_config::VmFiles;
use crate::machine::{Error, GuestMemory};

/// Removes `folder` and makes it anew with the configuration for a VM with `files`, the state, and, if the VMM copies
/// the memory, a symbolic link to the memory file. `memory_path` is the path by which the VMM opens an inherited memory
/// file. Returns the folder's URL for the API. Blocks.
pub(in crate::machine) fn write_folder(
    snapshot: &Snapshot,
    folder: &Path,
    files: &VmFiles,
    memory_path: Option<&str>,
) -> Result<String, Error> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::file("remove", folder)(error));
        }
        _ => {}
    }
    create_private_directory(folder).map_err(Error::file("create", folder))?;

    let config = snapshot.config(files, memory_path)?;
    let config = serde_json::to_vec(&config).expect("a configuration has text for its keys");
    for (name, bytes) in [(CONFIG, &config), (STATE, &snapshot.state)] {
        let path = folder.join(name);
        write_private(&path, bytes).map_err(Error::file("write", path.as_path()))?;
    }
    let target = match (&snapshot.memory, memory_path) {
        (GuestMemory::Mapped(_), _) => None,
        (GuestMemory::Copied(_), Some(path)) => Some(path.into()),
        (GuestMemory::Copied(_), None) | (GuestMemory::ByPath, _) => {
            let target = snapshot.folder.join(MEMORY);
            // Checked here because, for a missing file, the VMM would only refuse the restore without naming the file.
            File::open(&target).map_err(Error::file("open", target.as_path()))?;
            Some(target)
        }
    };
    if let Some(target) = target {
        let linked = symlink(&target, folder.join(MEMORY));
        linked.map_err(Error::file("link to", target))?;
    }
    url(folder)
}

/// Returns the URL of a folder. The API takes everything after `file://` as the path, without any decoding.
pub(super) fn url(folder: &Path) -> Result<String, Error> {
    Ok(format!("file://{}", utf8("snapshot", folder)?))
}
