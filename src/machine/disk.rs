//! The disks of a machine: [`Disk`] names the image that a disk comes from, and this module makes the file that the VMM
//! opens for it.
//!
//! | disk | a VMM that this library spawns | a VMM that another program runs |
//! |---|---|---|
//! | read-only | inherits the image, open for reading | opens the image by its path |
//! | writable | inherits an empty file without a name ([`NamelessFile`]) | opens a copy in the machine's directory |
//!
//! The file of a writable disk is filled from the disk's *origin*: an image, or the copy that a golden snapshot keeps.

use std::fmt;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::Error;
use super::layout::{Layout, utf8};
use crate::mutex::lock;
use crate::offload::blocking;
use crate::overlay::qcow2::{self, Chain, Member};
use crate::overlay::{self, Copied, DiskFormat, NamelessFile};
use crate::vmm::beyond_streams;

/// The role of a disk in the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskRole {
    /// The first disk, `/dev/vda` in the guest.
    Root,
    /// The second disk, `/dev/vdb` in the guest. It receives the guest's writes when the root is read-only.
    Overlay,
}

impl fmt::Display for DiskRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DiskRole::Root => "root",
            DiskRole::Overlay => "overlay",
        })
    }
}

/// A disk as it is given to a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The role of the disk in the VM.
    pub role: DiskRole,
    /// The path of the image. The machine never writes to it: the VMM opens a read-only disk's image itself, and a copy
    /// of a writable disk's.
    pub origin: PathBuf,
    /// Whether the guest may only read the disk.
    pub readonly: bool,
    /// The image's format. The machine sends it to the VMM, so that the VMM does not detect it from the bytes.
    ///
    /// A writable qcow2 image must be of version 2; [`overlay::qcow2`] says why. The VMM must know the property
    /// `backing_files`, which v50.2 and later do.
    pub format: DiskFormat,
}

impl Disk {
    /// Reads the image's chain of backing files, from the nearest to the last, by the header of each. A raw image has
    /// none. The VMM opens them read-only in their places, so their bytes are part of the disk and must be proved like
    /// those of a read-only disk. Blocks while it reads the headers.
    ///
    /// # Errors
    ///
    /// [`Error::Disk`] for a chain that can't be used ([`qcow2::chain()`] says which can), and for a writable image
    /// that a VMM would change by opening it.
    pub fn backing(&self) -> Result<Vec<Member>, Error> {
        let chain = self.chain().map_err(|source| self.error(source))?;
        Ok(chain.map_or_else(Vec::new, |chain| chain.backing().to_vec()))
    }

    /// The greatest length in bytes that the VMM's file of this disk can have.
    fn largest_file(&self) -> Result<u64, Error> {
        let chain = self.chain().map_err(|source| self.error(source))?;
        match chain {
            Some(chain) => Ok(chain.largest_file()),
            None => {
                let length = File::open(&self.origin).and_then(|file| Ok(file.metadata()?.len()));
                length.map_err(Error::file("open", self.origin.as_path()))
            }
        }
    }

    /// How many bytes of memory the file of this disk takes at most if a spawned VMM inherits it. This is 0 unless the
    /// file lies on a filesystem in memory. Blocks.
    pub(crate) fn memory_bytes(&self, run_root: &Path) -> Result<u64, Error> {
        if self.readonly {
            return Ok(0);
        }
        match self.nameless(run_root)?.in_memory() {
            true => self.largest_file(),
            false => Ok(0),
        }
    }

    /// Makes the file for a writable disk: in the origin's directory if possible, where it may share blocks with the
    /// origin, else in `run_root`.
    fn nameless(&self, run_root: &Path) -> Result<NamelessFile, Error> {
        let beside = self.origin.parent().unwrap_or(run_root);
        let file = NamelessFile::create(&[beside, run_root]);
        file.map_err(|source| self.error(source))
    }

    fn chain(&self) -> Result<Option<Chain>, overlay::Error> {
        match self.format {
            DiskFormat::Raw => Ok(None),
            DiskFormat::Qcow2 => {
                let chain = qcow2::chain(&self.origin)?;
                if !self.readonly {
                    chain.check_writable()?;
                }
                Ok(Some(chain))
            }
        }
    }

    /// Makes the path absolute. The VMM would resolve a relative path against its own working directory, and record it
    /// in a snapshot as it is.
    fn absolute(mut self) -> Result<Disk, Error> {
        let absolute = std::path::absolute(&self.origin);
        self.origin = absolute.map_err(Error::file("resolve", &self.origin))?;
        Ok(self)
    }

    fn error(&self, source: overlay::Error) -> Error {
        Error::Disk {
            role: self.role,
            source,
        }
    }
}

/// The file that the VMM opens for a disk.
#[derive(Debug)]
enum Image {
    /// The origin itself, for a read-only disk.
    Origin,
    /// A file without a name that the VMM has inherited.
    Nameless(Arc<NamelessFile>),
    /// A copy at this path.
    Named {
        path: PathBuf,
        /// Held while the copy is made. The copying goes on even if the future of the caller is dropped.
        copying: Arc<Mutex<()>>,
    },
}

/// A disk with the file that the VMM opens for it.
#[derive(Debug)]
pub(super) struct WorkingDisk {
    /// The disk as the caller gave it. For a writable disk, `origin` is the image that it is filled from at present.
    pub(super) given: Disk,
    image: Image,
    /// The path by which the VMM opens the file.
    pub(super) name: String,
    /// The backing files as they were when the machine was started. The VMM must open these very files.
    pub(super) backing: Vec<Member>,
}

/// A disk with the descriptor that a VMM inherits for it.
pub(super) struct Inherited {
    pub(super) disk: WorkingDisk,
    pub(super) descriptor: OwnedFd,
    /// The greatest length in bytes that the VMM may give the file; 0 for a read-only disk.
    pub(super) largest: u64,
}

impl WorkingDisk {
    /// Makes a disk whose file the VMM inherits. Blocks.
    pub(super) fn inherited(disk: Disk, run_root: &Path) -> Result<Inherited, Error> {
        let disk = disk.absolute()?;
        let origin = disk.origin.as_path();
        let (image, descriptor, largest) = match disk.readonly {
            true => {
                let file = File::open(origin).map_err(Error::file("open", origin))?;
                (Image::Origin, OwnedFd::from(file), 0)
            }
            false => {
                let file = disk.nameless(run_root)?;
                let descriptor = file.file().try_clone();
                let descriptor = descriptor.map_err(Error::file("duplicate", origin))?;
                let image = Image::Nameless(Arc::new(file));
                (image, OwnedFd::from(descriptor), disk.largest_file()?)
            }
        };
        let descriptor = beyond_streams(descriptor).map_err(Error::file("duplicate", origin))?;
        Ok(Inherited {
            disk: WorkingDisk {
                name: format!("/proc/self/fd/{}", descriptor.as_raw_fd()),
                backing: disk.backing()?,
                given: disk,
                image,
            },
            descriptor,
            largest,
        })
    }

    /// Makes a disk whose file the VMM opens by its path. The file of a writable disk lies in the machine's directory.
    pub(super) fn named(disk: Disk, layout: &Layout) -> Result<Self, Error> {
        let disk = disk.absolute()?;
        let image = match disk.readonly {
            // Checked here because the VMM's own message for a missing file does not name the file.
            true => {
                let origin = disk.origin.as_path();
                File::open(origin).map_err(Error::file("open", origin))?;
                Image::Origin
            }
            false => Image::Named {
                path: layout.disk(disk.role),
                copying: Arc::default(),
            },
        };
        let path = match &image {
            Image::Named { path, .. } => path,
            _ => &disk.origin,
        };
        Ok(WorkingDisk {
            name: utf8("disk", path)?.to_owned(),
            backing: disk.backing()?,
            given: disk,
            image,
        })
    }

    pub(super) fn role(&self) -> DiskRole {
        self.given.role
    }

    /// Gives a writable disk the bytes of its origin. Does nothing for a read-only disk.
    pub(super) async fn put_back(&self) -> Result<Option<Copied>, Error> {
        let origin = self.given.origin.clone();
        let done = match &self.image {
            Image::Origin => return Ok(None),
            Image::Nameless(file) => {
                let file = Arc::clone(file);
                let fill = move || {
                    let from = File::open(&origin);
                    let from = from.map_err(Error::file("open", origin.as_path()))?;
                    Ok::<_, Error>(file.fill(&from, &origin))
                };
                blocking(fill).await?
            }
            Image::Named { path, copying } => {
                let (path, copying) = (path.clone(), Arc::clone(copying));
                let copy = move || {
                    let _alone = lock(&copying);
                    overlay::put_back(&origin, &path)
                };
                blocking(copy).await
            }
        };
        done.map(Some).map_err(|source| self.given.error(source))
    }

    /// Waits until no copy into the machine's directory is being made. One may still be, after the future of its caller
    /// was dropped.
    pub(super) async fn copied(&self) {
        if let Image::Named { copying, .. } = &self.image {
            let copying = Arc::clone(copying);
            blocking(move || drop(lock(&copying))).await;
        }
    }

    /// The path by which this process opens the disk's file.
    pub(super) fn path(&self) -> PathBuf {
        match &self.image {
            Image::Origin => self.given.origin.clone(),
            Image::Nameless(file) => format!("/proc/self/fd/{}", file.file().as_raw_fd()).into(),
            Image::Named { path, .. } => path.clone(),
        }
    }

    /// Returns a closure that opens the disk's file, to be run on a thread that may block.
    pub(super) fn opener(&self) -> impl FnOnce() -> Result<File, Error> + Send + 'static {
        let nameless = match &self.image {
            Image::Nameless(file) => Some(Arc::clone(file)),
            _ => None,
        };
        let path = self.path();
        move || {
            let opened = match nameless {
                Some(file) => file.file().try_clone(),
                None => File::open(&path),
            };
            opened.map_err(Error::file("open", path))
        }
    }

    /// Writes a copy of the disk's present bytes to the new file `to`. The VM must not be running.
    pub(super) async fn keep(&self, to: PathBuf) -> Result<(), Error> {
        let (open, path) = (self.opener(), self.path());
        let kept = blocking(move || {
            let file = open()?;
            Ok::<_, Error>(overlay::copy_private_of(&file, &path, &to))
        });
        let kept = kept.await?;
        kept.map(drop).map_err(|source| self.given.error(source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_writable_disk_whose_file_lies_in_memory_takes_memory() {
        #[track_caller]
        fn check(folder: &Path, readonly: bool, expected: u64) {
            let origin = folder.join("disk.img");
            File::create(&origin).unwrap().set_len(1 << 20).unwrap();
            let disk = Disk {
                role: DiskRole::Overlay,
                origin,
                readonly,
                format: DiskFormat::Raw,
            };
            assert_eq!(disk.memory_bytes(folder).unwrap(), expected);
        }

        if let Ok(memory) = tempfile::tempdir_in("/dev/shm") {
            check(memory.path(), false, 1 << 20);
            check(memory.path(), true, 0);
        }
    }
}
