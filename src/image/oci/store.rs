//! [`Store`]: gives access to the blobs of a layout, which is a directory or a tar.
//!
//! The image can't choose a path on the host: a blob is opened by its parsed digest, component by component beneath the
//! layout's directory, and no symbolic link is followed. In a tar, a name is looked up among the tar's own entries.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{CWD, Mode, OFlags},
    io::Errno,
};

use super::{
    error::{ContainerError, LayerError, shown},
    hashing::Hashing,
    tar::{self, Kind},
};
use crate::digest::Digest;
use crate::image::{Error, input::MIB, stop::Stop};

/// The largest JSON document, in bytes.
const DOCUMENT_LIMIT: u64 = 4 * MIB;
/// The most entries of a tar that holds a layout.
const MEMBER_LIMIT: u64 = 100_000;

/// An open layout.
pub(super) enum Store {
    Directory(OwnedFd),
    Archive(Archive),
}

/// A tar that holds a layout.
pub(super) struct Archive {
    file: Arc<File>,
    members: HashMap<Vec<u8>, Member>,
}

enum Member {
    /// The offset of its first byte, and its length.
    File(u64, u64),
    /// The name of another member: older versions of `docker save` write a link for a layer that two images share.
    Link(Vec<u8>),
}

/// A range of a file, which is read from its start to its end.
pub(super) struct Blob {
    file: Arc<File>,
    offset: u64,
    left: u64,
}

impl Store {
    /// Opens the layout at `path`: a directory or a tar.
    pub(super) fn open(path: &Path, stop: Stop<'_>) -> Result<Store, Error> {
        let not_layout = |problem| {
            Error::from(ContainerError::NotLayout {
                path: path.into(),
                problem,
            })
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
            Err(Errno::LOOP) => return Err(not_layout("it is a symbolic link")),
            opened => opened.map_err(|errno| Error::io("open", path)(errno.into()))?,
        };
        let file = File::from(opened);
        let metadata = file.metadata().map_err(Error::io("examine", path))?;
        if metadata.is_dir() {
            return Ok(Store::Directory(file.into()));
        }
        if !metadata.is_file() {
            return Err(not_layout("it is neither a directory nor a regular file"));
        }
        Archive::read(file, stop)
            .map(Store::Archive)
            .map_err(|error| match error {
                LayerError::Stopped => Error::Stopped,
                source => ContainerError::Archive {
                    path: PathBuf::from(path),
                    source,
                }
                .into(),
            })
    }

    /// The document `name` at the top of the layout; `None` if it doesn't exist.
    pub(super) fn document(&self, name: &str) -> Result<Option<Vec<u8>>, ContainerError> {
        match self.find(name)? {
            Some(blob) => read_document(blob, name).map(Some),
            None => Ok(None),
        }
    }

    /// The blob `digest`, which is a document of `size` bytes.
    pub(super) fn checked_document(
        &self,
        digest: &Digest,
        size: u64,
    ) -> Result<Vec<u8>, ContainerError> {
        let name = digest.to_string();
        let bytes = read_document(self.blob(digest, size)?, &name)?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(ContainerError::BlobDigest {
                expected: name,
                found: found.to_string(),
            });
        }
        Ok(bytes)
    }

    /// Opens the blob `digest`, which must have `size` bytes. The caller compares the digest of the bytes.
    pub(super) fn blob(&self, digest: &Digest, size: u64) -> Result<Blob, ContainerError> {
        let blob = self
            .find(&format!("blobs/{}", digest.to_string().replace(':', "/")))?
            .ok_or_else(|| ContainerError::BlobMissing {
                blob: digest.to_string(),
            })?;
        if blob.left != size {
            return Err(ContainerError::BlobSize {
                blob: digest.to_string(),
                found: blob.left,
                expected: size,
            });
        }
        Ok(blob)
    }

    /// The member `name` of a tar.
    pub(super) fn member(&self, name: &str) -> Result<Blob, ContainerError> {
        let found = match self {
            Store::Archive(archive) => archive.find(name.as_bytes())?,
            Store::Directory(_) => None,
        };
        found.ok_or_else(|| ContainerError::BlobMissing {
            blob: shown(name.as_bytes()),
        })
    }

    /// The member `name` of a tar, which is a document.
    pub(super) fn member_document(&self, name: &str) -> Result<Vec<u8>, ContainerError> {
        read_document(self.member(name)?, name)
    }

    /// Opens a file whose name this program chooses, not the image.
    fn find(&self, name: &str) -> Result<Option<Blob>, ContainerError> {
        match self {
            Store::Directory(dir) => beneath(dir, name),
            Store::Archive(archive) => archive.find(name.as_bytes()),
        }
    }
}

/// Opens a file beneath `dir` without following a link.
fn beneath(dir: &OwnedFd, name: &str) -> Result<Option<Blob>, ContainerError> {
    let unreadable = |source| ContainerError::Unreadable {
        name: name.to_owned(),
        source,
    };
    let inside = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let mut parent = None;
    let mut rest = name;
    let file = loop {
        let (component, flags, after) = match rest.split_once('/') {
            Some((component, after)) => (component, inside | OFlags::DIRECTORY, Some(after)),
            None => (rest, inside, None),
        };
        let at = parent.as_ref().unwrap_or(dir);
        let opened = match rustix::fs::openat(at, component, flags, Mode::empty()) {
            Ok(opened) => opened,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::NOTDIR) => {
                return Err(ContainerError::NotInside { name: name.into() });
            }
            Err(errno) => return Err(unreadable(errno.into())),
        };
        match after {
            Some(after) => {
                parent = Some(opened);
                rest = after;
            }
            None => break File::from(opened),
        }
    };
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(ContainerError::NotInside { name: name.into() });
    }
    Ok(Some(Blob {
        left: metadata.len(),
        file: Arc::new(file),
        offset: 0,
    }))
}

fn read_document(blob: Blob, name: &str) -> Result<Vec<u8>, ContainerError> {
    if blob.left > DOCUMENT_LIMIT {
        return Err(ContainerError::Value {
            document: "layout",
            problem: format!(
                "{} has {} bytes, and a document may have {DOCUMENT_LIMIT}",
                shown(name.as_bytes()),
                blob.left
            ),
        });
    }
    let mut bytes = Vec::new();
    let mut blob = blob;
    blob.read_to_end(&mut bytes)
        .map_err(|source| ContainerError::Unreadable {
            name: shown(name.as_bytes()),
            source,
        })?;
    Ok(bytes)
}

impl Archive {
    fn read(file: File, stop: Stop<'_>) -> Result<Archive, LayerError> {
        let mut members = HashMap::new();
        let mut reader = tar::Reader::new(Seeking(&file));
        while let Some(entry) = reader.next()? {
            if stop.is_requested() {
                return Err(LayerError::Stopped);
            }
            if reader.headers() > MEMBER_LIMIT {
                return Err(LayerError::Limit {
                    what: "the entries of the archive",
                    limit: MEMBER_LIMIT,
                });
            }
            let member = match entry.kind {
                Kind::File => Member::File(reader.position(), entry.size),
                Kind::Symlink | Kind::HardLink => Member::Link(target(&entry)),
                Kind::Directory => continue,
                Kind::Fifo | Kind::Device => {
                    return Err(LayerError::Kind {
                        name: shown(&entry.name),
                        kind: "a FIFO or a device",
                    });
                }
            };
            let name = entry.name.strip_prefix(b"./").unwrap_or(&entry.name);
            if members.insert(name.to_vec(), member).is_some() {
                return Err(LayerError::Twice { name: shown(name) });
            }
        }
        Ok(Archive {
            file: Arc::new(file),
            members,
        })
    }

    fn find(&self, name: &[u8]) -> Result<Option<Blob>, ContainerError> {
        let member = match self.members.get(name) {
            // `docker save` makes no link to a link, so only one is followed.
            Some(Member::Link(target)) => self.members.get(target),
            member => member,
        };
        match member {
            None => Ok(None),
            Some(Member::Link(_)) => Err(ContainerError::NotInside { name: shown(name) }),
            Some(&Member::File(offset, left)) => Ok(Some(Blob {
                file: Arc::clone(&self.file),
                offset,
                left,
            })),
        }
    }
}

/// The name that a link of the tar leads to. It is computed as text and only looked up in the tar, so it can't leave
/// the tar.
fn target(entry: &tar::Entry) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    if entry.kind == Kind::Symlink {
        parts.extend(entry.name.split(|&byte| byte == b'/'));
        parts.pop();
    }
    for part in entry.target.split(|&byte| byte == b'/') {
        match part {
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.retain(|part| !matches!(*part, b"" | b"."));
    parts.join(&b'/')
}

impl Blob {
    /// Wraps the blob in a reader that hashes its bytes.
    pub(super) fn hashing(self) -> Hashing<Blob> {
        Hashing::new(self)
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX);
        let most = most.min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.offset)?;
        if read == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.offset += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}

/// A file whose contents are skipped by seeking.
struct Seeking<'a>(&'a File);

impl Read for Seeking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl tar::Input for Seeking<'_> {
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let bytes = i64::try_from(bytes).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        self.0.seek(SeekFrom::Current(bytes)).map(drop)
    }
}
