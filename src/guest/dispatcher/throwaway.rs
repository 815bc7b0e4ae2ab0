//! A throwaway layer: tools read the root's files, and what they write is in memory and gone with the layer.
//!
//! A host warms a guest before it takes its snapshot: a tool runs once, so that its program and what it reads are in the guest's
//! memory after each restore. Nothing of that run may be on the disk, whose bytes are the baseline. So the tool's root is an
//! overlay file system of its own:
//!
//! ```text
//! /throwaway            tmpfs
//!   upper, work         what the tool writes
//!   root                overlay: `upper` over the tools' root; `proc`, `sys` and `dev` are those of the tools' root
//! ```
//!
//! The lower layer is the tools' root itself, and only read. The pages of a file that is read through both are those of the one
//! file on the root disk: a tool that runs on the tools' root later finds them. The kernel mounts a lower layer without access
//! times, as `init` mounts the disks, so that reading writes nothing either.
//!
//! Removing the layer is its own proof. Each process whose root it is is killed, wherever it went in the meantime, and the file
//! systems are unmounted in order and not lazily: the kernel refuses that while a process, an open file or a mapping uses one of
//! them. What it refuses for too long fails the run.
//!
//! The memory of the layer is free then, but not zero: a snapshot holds what was in it, as it holds other free memory. That
//! costs room in the snapshot. No tool can read it.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use super::confinement::Prepared;
use super::{Shared, processes};
use crate::causes::Causes;
use crate::guest::protocol::LAYER_REMOVAL;

/// What of the tools' root is mounted, and mounted in the layer too.
const SUBMOUNTS: [&str; 3] = ["proc", "sys", "dev"];

/// How often removing it is tried.
const INTERVAL: Duration = Duration::from_millis(5);

impl Shared {
    /// Does `run` in a confinement whose root is a throwaway layer, of which nothing is left when this returns a success.
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

/// A mounted layer. One that is dropped before it was [removed](Self::remove) is taken out of sight at least.
#[derive(Debug)]
struct ThrowawayLayer {
    directory: PathBuf,
    /// In the order in which they were mounted.
    mounted: Vec<PathBuf>,
}

impl ThrowawayLayer {
    /// Makes `directory` and mounts a layer above `lower` there.
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
        // The tools' user has to enter both.
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
            // One that is no mount is a directory of the disk, which the layer shows anyhow.
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

    /// What its tools have as `/`.
    fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// Kills what runs on it, and unmounts it.
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

    /// Unmounts what is still mounted, the last first.
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
                tracing::warn!(error = %Causes(&error), "a throwaway layer stays mounted");
            }
        }
        // Removed already, or left for the next run to be refused by.
        let _ = fs::remove_dir(&self.directory);
    }
}

fn private_directory(path: &Path) -> Result<(), LayerError> {
    let made = fs::DirBuilder::new().mode(0o700).create(path);
    made.map_err(LayerError::directory(path))
}

fn mode(directory: &Path) -> Result<fs::Permissions, LayerError> {
    let status = fs::metadata(directory).map_err(LayerError::directory(directory))?;
    Ok(status.permissions())
}

/// Whether a directory is on another file system than the one that it should be in.
fn is_elsewhere(path: &Path, lower: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|status| status.dev());
    matches!((device(path), device(lower)), (Ok(one), Ok(other)) if one != other)
}

/// A path as it stands in the options of a mount, where some bytes would mean something else.
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
    /// With all of its causes: what the host is told is this error's text alone.
    fn from(error: LayerError) -> io::Error {
        io::Error::other(Causes(&error).to_string())
    }
}
