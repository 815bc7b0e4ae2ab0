//! Writes the folder in a machine's directory from which its VMM restores ([`write_folder`]).

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::Path;

use super::{CONFIG, MEMORY, STATE, Snapshot};
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
    let made = DirBuilder::new().mode(0o700).create(folder);
    made.map_err(Error::file("create", folder))?;

    let config = snapshot.config(files, memory_path)?;
    let config = serde_json::to_vec(&config).expect("a configuration has text for its keys");
    write(&folder.join(CONFIG), &config)?;
    write(&folder.join(STATE), &snapshot.state)?;
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

/// Writes a new file with mode 0600.
fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    file.and_then(|mut file| file.write_all(bytes))
        .map_err(Error::file("write", path))
}

/// Returns the URL of a folder. The API takes everything after `file://` as the path, without any decoding.
pub(super) fn url(folder: &Path) -> Result<String, Error> {
    Ok(format!("file://{}", utf8("snapshot", folder)?))
}
