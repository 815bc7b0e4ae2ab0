//! Snapshots: taking one, and fitting one to a machine.
//!
//! A snapshot is a folder of three files. The VMM stores paths in its description as they were when it was
//! taken, opens them again at restore, and checks nothing. So a machine restores from a folder of its own: the
//! description with its own paths, and links to the two large files, which are never rewritten.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::boot::disk_id;
use super::disk::WorkingDisk;
use super::layout::{Layout, utf8};
use super::{Error, Machine};
use crate::api;
use crate::api::types::VmSnapshotConfig;

/// The files of a snapshot: the VM's description, the devices' state, the guest's memory.
pub const SNAPSHOT_FILES: [&str; 3] = [CONFIG, "state.json", "memory-ranges"];
const CONFIG: &str = "config.json";

/// A description of a VM has a few KiB.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

impl Machine {
    /// Takes a snapshot of the paused VM into `into`, a folder that must exist and be empty. A snapshot holds
    /// no disk.
    ///
    /// # Errors
    ///
    /// [`Error::Api`], with kind `WrongState` when the VM isn't paused.
    pub async fn snapshot(&self, into: &Path) -> Result<(), Error> {
        let request = api::vm_snapshot(&VmSnapshotConfig::new(url("snapshot", into)?));
        self.call("take a snapshot", request).await
    }

    /// Keeps the present bytes of each writable disk of the paused VM under `into`, by the disk's role.
    ///
    /// # Errors
    ///
    /// [`Error::Disk`].
    pub async fn keep_disks(&self, into: &Path) -> Result<(), Error> {
        for disk in self.disks.iter().filter(|disk| !disk.readonly) {
            disk.keep(into.join(format!("{}.img", disk.role))).await?;
        }
        Ok(())
    }

    /// From now on each writable disk is put back from the copies that `keep_disks` made in `golden`.
    pub fn adopt_disks(&mut self, golden: &Path) {
        for disk in self.disks.iter_mut().filter(|disk| !disk.readonly) {
            disk.origin = golden.join(format!("{}.img", disk.role));
        }
    }
}

/// A snapshot's description of its VM: `config.json`, read once and fitted to any number of machines.
#[derive(Clone, Debug)]
pub struct Description {
    snapshot: PathBuf,
    config: Value,
}

impl Description {
    /// Reads the description of the snapshot in the folder `snapshot`.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when there is none, [`Error::Snapshot`] when it is longer than 1 MiB or isn't JSON.
    pub fn read(snapshot: &Path) -> Result<Self, Error> {
        let config = read_config(&snapshot.join(CONFIG))?;
        Ok(Description {
            snapshot: snapshot.to_owned(),
            config,
        })
    }

    /// The same of bytes that were read, and verified, before.
    ///
    /// # Errors
    ///
    /// [`Error::Snapshot`] when they aren't JSON.
    pub fn parse(snapshot: &Path, config: &[u8]) -> Result<Self, Error> {
        let parsed = serde_json::from_slice(config).map_err(|error| Error::Snapshot {
            path: snapshot.join(CONFIG),
            reason: format!("it is not JSON: {error}"),
        })?;
        Ok(Description {
            snapshot: snapshot.to_owned(),
            config: parsed,
        })
    }

    /// The guest's memory in bytes, as far as the description says.
    pub fn memory_bytes(&self) -> Option<u64> {
        self.config.pointer("/memory/size")?.as_u64()
    }
}

/// Lays a folder in the machine's directory from which the snapshot restores with the machine's own paths. The URL of
/// that folder, for the API.
pub(super) fn adapt(
    description: &Description,
    layout: &Layout,
    disks: &[WorkingDisk],
) -> Result<String, Error> {
    let folder = layout.snapshot();
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::file("remove", folder)(error));
        }
        _ => {}
    }
    let made = DirBuilder::new().mode(0o700).create(&folder);
    made.map_err(Error::file("create", folder.as_path()))?;

    let golden = &description.snapshot;
    let mut config = description.config.clone();
    rewrite(&mut config, layout, disks).map_err(|reason| Error::Snapshot {
        path: golden.join(CONFIG),
        reason,
    })?;
    let path = folder.join(CONFIG);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path);
    file.and_then(|mut file| file.write_all(config.to_string().as_bytes()))
        .map_err(Error::file("write", path))?;

    for name in SNAPSHOT_FILES.iter().filter(|name| **name != CONFIG) {
        let target = golden.join(name);
        // A link to nothing would only show as the VMM's refusal to restore.
        File::open(&target).map_err(Error::file("open", target.as_path()))?;
        symlink(&target, folder.join(name)).map_err(Error::file("link to", target))?;
    }
    url("snapshot", &folder)
}

fn read_config(path: &Path) -> Result<Value, Error> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(Error::file("open", path))?;
    let mut file = file.take(MAX_CONFIG_BYTES + 1);
    file.read_to_end(&mut bytes)
        .map_err(Error::file("read", path))?;
    let refused = |reason| Error::Snapshot {
        path: path.to_owned(),
        reason,
    };
    if bytes.len() as u64 > MAX_CONFIG_BYTES {
        return Err(refused(format!(
            "it is larger than {MAX_CONFIG_BYTES} bytes"
        )));
    }
    serde_json::from_slice(&bytes).map_err(|error| refused(format!("it is not JSON: {error}")))
}

/// Puts the machine's paths into a VM's description, and refuses one that isn't of such a machine.
fn rewrite(config: &mut Value, layout: &Layout, disks: &[WorkingDisk]) -> Result<(), String> {
    let path = |path: &Path| {
        path.to_str()
            .map(str::to_owned)
            .ok_or("a path is not UTF-8")
    };
    let stored = config.pointer_mut("/disks").and_then(Value::as_array_mut);
    let stored = stored.ok_or("it has no disks")?;
    if stored.len() != disks.len() {
        let (has, needs) = (stored.len(), disks.len());
        return Err(format!("it has {has} disks, the machine {needs}"));
    }
    for disk in disks {
        let id = disk_id(disk.role);
        let entry = stored.iter_mut().find(|entry| entry["id"] == *id);
        let entry = entry.ok_or_else(|| format!("it has no disk {id}"))?;
        if entry["readonly"] != disk.readonly {
            return Err(format!("its disk {id} is not as writable as the machine's"));
        }
        entry["path"] = path(&disk.path)?.into();
    }
    let vsock = config
        .pointer_mut("/vsock/socket")
        .ok_or("it has no vsock")?;
    *vsock = path(&layout.vsock())?.into();
    for device in ["/serial", "/console"] {
        if let Some(device) = config.pointer_mut(device)
            && device["mode"] == "File"
        {
            device["file"] = path(&layout.console)?.into();
        }
    }
    Ok(())
}

/// The API takes everything after the scheme as the path, byte for byte.
fn url(what: &'static str, path: &Path) -> Result<String, Error> {
    Ok(format!("file://{}", utf8(what, path)?))
}
