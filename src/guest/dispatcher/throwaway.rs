//! The throwaway layer of a warm run: the tool reads the files of the tools' root, and writes to memory that is freed
//! when the layer is removed.
//!
//! A host warms a guest before it takes the golden snapshot: a tool runs once, so that its program and the files that
//! it reads are in the guest's memory after each restore. This run must not change the disk, whose digest is the
//! baseline. So the tool's root is an overlay file system of its own:
//!
//! ```text
//! /throwaway            tmpfs
//!   upper, work         the files that the tool writes
//!   root                overlay: `upper` over the tools' root; `proc`, `sys` and `dev` are those of the tools' root
//! ```
//!
//! The lower layer is the tools' root itself, which is only read. Both file systems share the page cache of the file on
//! the root disk, so a later tool that runs on the tools' root finds the pages in memory. The kernel mounts a lower
//! layer without access times, and `init` mounts the disks without them, so reading doesn't write to the disk either.
//!
//! A layer that was unmounted is proof that no process uses it. Every process whose root is the layer is killed, also
//! one that has left the tool's process group. Then the file systems are unmounted in order and not lazily: the kernel
//! refuses this while a process, an open file or a mapping uses one of them. If it refuses for longer than
//! [`LAYER_REMOVAL`], the run fails.
//!
//! The memory of the layer is free afterwards, but it isn't zeroed: a snapshot contains its old content, like that of
//! all free memory. This makes the snapshot larger. No tool can read the content.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use super::confinement::Prepared;
use super::{Shared, processes};
use crate::causes::Causes;
use crate::files::create_private_directory;
use crate::guest::protocol::LAYER_REMOVAL;

/// The directories of the tools' root that are mount points. They are mounted in the layer, too.
const SUBMOUNTS: [&str; 3] = ["proc", "sys", "dev"];

/// The pause between two attempts to unmount the layer.
const INTERVAL: Duration = Duration::from_millis(5);

impl Shared {
    /// Calls `run` with a confinement whose root is a throwaway layer, and removes the layer. After a success the layer
    /// is gone, with every process that ran on it.
    pub(super) fn on_throwaway_layer<T>(
        &self,
        run: impl FnOnce(&Arc<Prepared>) -> io::Result<T>,
    ) -> io::Result<T> {
        let directory = match self.throwaway.try_lock() {
            Ok(directory) => directory,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other("another warm run has the layer"));
            }
        };
        let Some(directory) = directory.as_deref() else {
            return run(&self.confinement);
        };
        let lower = self.root.as_deref().unwrap_or(Path::new("/"));
        let layer = ThrowawayLayer::mount(directory, lower)?;
        let ran = {
            let confinement = Arc::new(self.confinement.within(&layer.root())?);
            run(&confinement)
        };
        layer.remove()?;
        ran
    }
}

/// A mounted layer. If it is dropped before it was [removed](Self::remove), it is unmounted lazily.
#[derive(Debug)]
struct ThrowawayLayer {
    directory: PathBuf,
    /// In the order in which they were mounted.
    mounted: Vec<PathBuf>,
}

impl ThrowawayLayer {
    /// Creates `directory` and mounts a layer over `lower` in it.
    fn mount(directory: &Path, lower: &Path) -> Result<ThrowawayLayer, LayerError> {
        private_directory(directory)?;
        let mut layer = ThrowawayLayer {
            directory: directory.to_owned(),
            mounted: Vec::new(),
        };
        let plain = MountFlags::NOSUID | MountFlags::NODEV;
        layer.add(directory, |at| {
            rustix::mount::mount("none", at, c"tmpfs", plain, c"mode=755")
        })?;
        let [upper, work] = ["upper", "work"].map(|name| directory.join(name));
        let root = layer.root();
        for path in [&upper, &work, &root] {
            private_directory(path)?;
        }
        // The tools' user must be able to enter both.
        for path in [&upper, &root] {
            let mode = mode(lower)?;
            fs::set_permissions(path, mode).map_err(LayerError::directory(path))?;
        }
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            option(lower)?,
            option(&upper)?,
            option(&work)?
        );
        layer.add(&root, |at| {
            let layers = std::ffi::CString::new(layers).map_err(|_| Errno::INVAL)?;
            rustix::mount::mount("overlay", at, c"overlay", MountFlags::NOATIME, &*layers)
        })?;
        for name in SUBMOUNTS {
            let (from, at) = (lower.join(name), root.join(name));
            // A directory that isn't a mount point is on the disk, and is visible through the overlay.
            if is_elsewhere(&from, lower) {
                layer.add(&at, |at| rustix::mount::mount_bind(&from, at))?;
            }
        }
        Ok(layer)
    }

    fn add(
        &mut self,
        at: &Path,
        mount: impl FnOnce(&Path) -> rustix::io::Result<()>,
    ) -> Result<(), LayerError> {
        mount(at).map_err(|source| LayerError::Mount {
            at: at.to_owned(),
            source,
        })?;
        self.mounted.push(at.to_owned());
        Ok(())
    }

    /// The directory that is `/` for tools.
    fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// Kills every process on the layer, and unmounts and removes the layer.
    fn remove(mut self) -> Result<(), LayerError> {
        let until = Instant::now() + LAYER_REMOVAL;
        let root = self.root();
        loop {
            processes::kill_rooted_at(&root).map_err(LayerError::Processes)?;
            match self.unmount() {
                Ok(()) => break,
                Err(LayerError::Unmount {
                    source: Errno::BUSY,
                    ..
                }) if Instant::now() < until => thread::sleep(INTERVAL),
                Err(error) => return Err(error),
            }
        }
        fs::remove_dir(&self.directory).map_err(LayerError::directory(&self.directory))
    }

    /// Unmounts the file systems that are still mounted, the last one first.
    fn unmount(&mut self) -> Result<(), LayerError> {
        while let Some(at) = self.mounted.last() {
            let unmounted = rustix::mount::unmount(at, UnmountFlags::NOFOLLOW);
            unmounted.map_err(|source| LayerError::Unmount {
                at: at.clone(),
                source,
            })?;
            self.mounted.pop();
        }
        Ok(())
    }
}

impl Drop for ThrowawayLayer {
    fn drop(&mut self) {
        while let Some(at) = self.mounted.pop() {
            if let Err(error) = rustix::mount::unmount(&at, UnmountFlags::DETACH) {
                tracing::warn!(error = %Causes(&error), "a throwaway layer could not be unmounted");
            }
        }
        // This fails if the directory was removed already. If it is left behind, the next warm run fails to create it.
        let _ = fs::remove_dir(&self.directory);
    }
}

fn private_directory(path: &Path) -> Result<(), LayerError> {
    create_private_directory(path).map_err(LayerError::directory(path))
}

fn mode(directory: &Path) -> Result<fs::Permissions, LayerError> {
    let status = fs::metadata(directory).map_err(LayerError::directory(directory))?;
    Ok(status.permissions())
}

/// Whether `path` is on another file system than `lower`, and therefore a mount point.
fn is_elsewhere(path: &Path, lower: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|status| status.dev());
    matches!((device(path), device(lower)), (Ok(one), Ok(other)) if one != other)
}

/// A path for the options of a mount. An error if it has a character with a meaning of its own there.
fn option(path: &Path) -> Result<&str, LayerError> {
    let text = path
        .to_str()
        .filter(|text| !text.contains([',', ':', '\\']));
    text.ok_or_else(|| LayerError::Path {
        path: path.to_owned(),
    })
}

/// A throwaway layer could not be made or removed.
#[derive(Debug, thiserror::Error)]
enum LayerError {
    #[error("the throwaway layer's directory {} could not be made or removed", path.display())]
    Directory { path: PathBuf, source: io::Error },
    #[error("the path {} cannot stand in a mount's options", path.display())]
    Path { path: PathBuf },
    #[error("the throwaway layer could not be mounted on {}", at.display())]
    Mount { at: PathBuf, source: Errno },
    #[error("the throwaway layer is still in use: {} could not be unmounted", at.display())]
    Unmount { at: PathBuf, source: Errno },
    #[error("the processes on the throwaway layer could not be found")]
    Processes(#[source] io::Error),
}

impl LayerError {
    fn directory(path: &Path) -> impl FnOnce(io::Error) -> LayerError {
        let path = path.to_owned();
        move |source| LayerError::Directory { path, source }
    }
}

impl From<LayerError> for io::Error {
    /// The text includes all causes, since the host gets only the text of the `io::Error`.
    fn from(error: LayerError) -> io::Error {
        io::Error::other(Causes(&error).to_string())
    }
}
