//! [`Image`]: a packed image, opened for use.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Error, FileRecord, Manifest, stop::Stop};

pub(super) const KERNEL: &str = "kernel";
pub(super) const INITRAMFS: &str = "initramfs";
pub(super) const ROOT: &str = "root.img";
pub(super) const OVERLAY: &str = "overlay.img";
pub(super) const MANIFEST: &str = "image.json";

/// A packed image: its directory and its manifest. When it was opened, all its files existed with the recorded sizes.
#[derive(Clone, Debug)]
pub struct Image {
    dir: PathBuf,
    manifest: Manifest,
}

impl Image {
    /// Opens the image in `dir`: reads its manifest, and checks that its files exist, are regular files, and have the
    /// recorded sizes. Their contents are not read; [`verify`](Image::verify) reads them.
    ///
    /// # Errors
    ///
    /// - [`Error::NoImage`] if `dir` is not a directory that can be entered
    /// - [`Error::FileMissing`] if `image.json` or another file of the image is missing
    /// - [`Error::NotRegular`] if a file is not a regular file; a symbolic link is none
    /// - [`Error::TooLarge`] if `image.json` has more than 64 KiB
    /// - [`Error::ManifestShape`] and [`Error::ManifestValue`] if the manifest is malformed
    /// - [`Error::FileDiffers`] if a file has another size than recorded
    /// - [`Error::Io`] if the system refuses
    pub fn open(dir: impl Into<PathBuf>) -> Result<Image, Error> {
        let dir = dir.into();
        // The dot makes it an error if `dir` is a file.
        if let Err(source) = fs::metadata(dir.join(".")) {
            return Err(Error::NoImage { dir, source });
        }
        check_exists(&dir, MANIFEST)?;
        let manifest = Manifest::read(&dir.join(MANIFEST))?;
        let image = Image { dir, manifest };
        for (file, record) in image.files() {
            let found = check_exists(&image.dir, file)?.len();
            differs(&image.dir.join(file), "size", found, record.size)?;
        }
        Ok(image)
    }

    /// Reads the kernel, the initramfs, the root disk and the overlay disk, in this order, and compares the size and
    /// the digest of each with the manifest that [`open`](Image::open) read.
    ///
    /// Both disks are read to their end, holes included, so this may block for minutes, and it can't be stopped. It
    /// finds damage, not forgery: the manifest itself isn't authenticated.
    ///
    /// # Errors
    ///
    /// [`Error::FileDiffers`] for the first file in this order that was changed since the image was packed, for example
    /// an overlay that a VM wrote to; [`Error::Io`] if a file can't be read. The files after it are not read.
    pub fn verify(&self) -> Result<(), Error> {
        self.files().into_iter().try_for_each(|(file, expected)| {
            let path = self.dir.join(file);
            let found = FileRecord::of(&path, Stop::never())?;
            differs(&path, "size", found.size, expected.size)?;
            differs(&path, "sha256", found.sha256, expected.sha256)
        })
    }

    /// The image's directory, as it was given to [`open`](Image::open) or as [`ImageSpec::out`](super::ImageSpec::out).
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The manifest: the content of `image.json` when the image was opened.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The kernel's command line, from the manifest.
    pub fn cmdline(&self) -> &str {
        &self.manifest.cmdline
    }

    /// The path of the kernel: an uncompressed ELF.
    pub fn kernel(&self) -> PathBuf {
        self.dir.join(KERNEL)
    }

    /// The path of the initramfs: an uncompressed newc archive.
    pub fn initramfs(&self) -> PathBuf {
        self.dir.join(INITRAMFS)
    }

    /// The path of the root disk, a raw image. It must be the VM's first disk, and read-only.
    pub fn root_disk(&self) -> PathBuf {
        self.dir.join(ROOT)
    }

    /// The path of the overlay disk, a raw image. It must be the VM's second disk. A VM writes to it, so give the VM a
    /// copy.
    pub fn overlay_disk(&self) -> PathBuf {
        self.dir.join(OVERLAY)
    }

    fn files(&self) -> [(&'static str, &FileRecord); 4] {
        [
            (KERNEL, &self.manifest.kernel),
            (INITRAMFS, &self.manifest.initramfs),
            (ROOT, &self.manifest.root),
            (OVERLAY, &self.manifest.overlay),
        ]
    }
}

fn check_exists(dir: &Path, file: &'static str) -> Result<fs::Metadata, Error> {
    let path = dir.join(file);
    match fs::symlink_metadata(&path) {
        Ok(metadata) if metadata.is_file() => Ok(metadata),
        Ok(_) => Err(Error::NotRegular { path }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::FileMissing {
            dir: dir.into(),
            file,
        }),
        Err(e) => Err(Error::io("examine", path)(e)),
    }
}

fn differs<T: PartialEq + ToString>(
    path: &Path,
    field: &'static str,
    found: T,
    expected: T,
) -> Result<(), Error> {
    if found == expected {
        return Ok(());
    }
    Err(Error::FileDiffers {
        path: path.into(),
        field,
        found: found.to_string(),
        expected: expected.to_string(),
    })
}
