//! [`extract`]: extracts a tar stream into a [`Staged`] tree.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, chownat, fchmod, fchown,
    fstat, futimens, mkdirat, openat2, symlinkat, utimensat,
};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::beneath::BENEATH;
use super::entry::Entry;
use super::path::split;
use super::staged::{Staged, Target};
use super::stream::Source;
use super::{Account, ArchiveError, EntryKind, Totals, format};
use crate::digest::Digest;

/// The flags for creating a file.
const NEW: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// The owner of extracted files: user and group id.
pub(crate) type Owner = (u32, u32);

/// Extracts a stream of [`pack`](super::pack()) into a tree beside `target`, which no other user can enter before it is
/// published.
///
/// Neither the stream nor its sender is trusted. Each name, kind and size is checked before the file is created. No
/// link is followed. A size in a header causes no allocation. Entries must come in the order of a walk: a directory
/// before its entries, and these before any other entry.
///
/// `owner` is the owner of the extracted files; this process must have the right to change owners. With `None` the
/// files belong to the user of this process.
///
/// # Errors
///
/// [`ArchiveError`]; the [module](super#what-is-refused) lists the reasons by code. All extracted files are removed.
pub(crate) fn extract(
    input: impl Read,
    target: Target,
    owner: Option<Owner>,
    account: &mut Account,
) -> Result<(Staged, Totals), ArchiveError> {
    let mut source = Source::new(input);
    let Some(mut root) = format::read(&mut source)? else {
        return Err(ArchiveError::damaged("the archive is empty"));
    };
    if root.kind != EntryKind::Directory && !root.path.contains(&b'/') {
        root.path.clear();
    }
    if !root.path.is_empty() {
        return Err(ArchiveError::name(&root.path, OUT_OF_ORDER));
    }
    account.begin(&root)?;
    let mut extractor = Extractor {
        source,
        account,
        owner,
    };
    let staged = match root.kind {
        EntryKind::Directory => {
            let staged = target.stage_directory(Attributes::of(&root, owner))?;
            extractor.account.end(&root, None);
            extractor.tree(&staged)?;
            staged
        }
        EntryKind::File => {
            let staged = target.stage_file(Attributes::of(&root, owner))?;
            extractor.content(staged.object(), &root)?;
            if let Some(entry) = format::read(&mut extractor.source)? {
                return Err(ArchiveError::name(&entry.path, OUT_OF_ORDER));
            }
            staged
        }
        EntryKind::Symlink => return Err(ArchiveError::kind(b"", "a symbolic link")),
    };
    let digest = extractor.source.finish()?;
    Ok((staged, extractor.account.totals(digest)))
}

const OUT_OF_ORDER: &str =
    "does not come right after the directory that it is in, or what is in that";

/// The owner, permissions and time that a file gets when it is complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes {
    mode: Mode,
    mtime: u64,
    owner: Option<(Uid, Gid)>,
}

impl Attributes {
    fn of(entry: &Entry, owner: Option<Owner>) -> Attributes {
        Attributes {
            mode: Mode::from_raw_mode(entry.mode),
            mtime: entry.mtime,
            owner: owner.map(|(user, group)| (Uid::from_raw(user), Gid::from_raw(group))),
        }
    }

    /// Sets the attributes. The owner is set first, since changing the owner clears bits of the mode.
    pub(super) fn apply(&self, file: &OwnedFd, path: &[u8]) -> Result<(), ArchiveError> {
        let apply = || {
            if let Some((user, group)) = self.owner {
                fchown(file, Some(user), Some(group))?;
            }
            fchmod(file, self.mode)?;
            futimens(file, &self.times())
        };
        apply().map_err(ArchiveError::io(SET, path))
    }

    fn apply_to_link(&self, here: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), ArchiveError> {
        let apply = || {
            if let Some((user, group)) = self.owner {
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                chownat(here, name, Some(user), Some(group), flags)?;
            }
            utimensat(here, name, &self.times(), AtFlags::SYMLINK_NOFOLLOW)
        };
        apply().map_err(ArchiveError::io(SET, path))
    }

    fn times(&self) -> Timestamps {
        Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification: Timespec {
                tv_sec: self.mtime as i64,
                tv_nsec: 0,
            },
        }
    }
}

const SET: &str = "given its owner, permissions and time";

struct Extractor<'a, R> {
    source: Source<R>,
    account: &'a mut Account,
    owner: Option<Owner>,
}

/// A directory whose entries aren't all extracted yet.
struct Level {
    attributes: Attributes,
    /// The length of the directory's path.
    path: usize,
}

impl<R: Read> Extractor<'_, R> {
    /// Extracts the entries of the root. Only one directory besides the root is open at a time.
    fn tree(&mut self, staged: &Staged) -> Result<(), ArchiveError> {
        let root = staged.object();
        let mut here = open(root, b".", b"")?;
        // The path of `here`, and the attributes that `here` and its ancestors will get, without those of the root.
        let mut path = Vec::new();
        let mut levels: Vec<Level> = Vec::new();
        while let Some(entry) = format::read(&mut self.source)? {
            let (directory, name) = split(&entry.path);
            if name.is_empty() {
                return Err(ArchiveError::name(&entry.path, "comes twice"));
            }
            if !is_beneath(&path, directory) {
                return Err(ArchiveError::name(&entry.path, OUT_OF_ORDER));
            }
            if path != directory {
                while path.len() > directory.len()
                    && let Some(level) = levels.pop()
                {
                    level.attributes.apply(&here, &path)?;
                    path.truncate(levels.last().map_or(0, |level| level.path));
                    let reached: &[u8] = if path.is_empty() { b"." } else { &path };
                    here = open(root, reached, &path)?;
                }
            }
            self.account.begin(&entry)?;
            let attributes = Attributes::of(&entry, self.owner);
            match entry.kind {
                EntryKind::File => {
                    let mode = Mode::RUSR | Mode::WUSR;
                    let file = openat2(&here, name, NEW, mode, BENEATH)
                        .map_err(|errno| made(errno, &entry.path))?;
                    self.content(&file, &entry)?;
                    attributes.apply(&file, &entry.path)?;
                }
                EntryKind::Symlink => {
                    symlinkat(entry.target.as_slice(), &here, name)
                        .map_err(|errno| made(errno, &entry.path))?;
                    attributes.apply_to_link(&here, name, &entry.path)?;
                    self.account.end(&entry, None);
                }
                EntryKind::Directory => {
                    mkdirat(&here, name, Mode::RWXU).map_err(|errno| made(errno, &entry.path))?;
                    here = open(&here, name, &entry.path)?;
                    levels.push(Level {
                        attributes,
                        path: entry.path.len(),
                    });
                    path.clone_from(&entry.path);
                    self.account.end(&entry, None);
                }
            }
        }
        while let Some(level) = levels.pop() {
            let path = &path[..level.path];
            let directory = open(root, path, path)?;
            level.attributes.apply(&directory, path)?;
        }
        Ok(())
    }

    /// Writes the bytes of a file from the stream.
    fn content(&mut self, file: &OwnedFd, entry: &Entry) -> Result<(), ArchiveError> {
        let mut digest = self.account.lists().then(Sha256::new);
        let mut left = entry.size;
        while left > 0 {
            let mut bytes = self.source.some(left)?;
            left -= bytes.len() as u64;
            self.account.moved(bytes.len());
            if let Some(digest) = &mut digest {
                digest.update(bytes);
            }
            while !bytes.is_empty() {
                match rustix::io::write(file.as_fd(), bytes) {
                    Ok(written) => bytes = &bytes[written..],
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(ArchiveError::io("written", &entry.path)(errno)),
                }
            }
        }
        format::skip_padding(&mut self.source, entry.size)?;
        let digest = digest.map(|digest| Digest::from(digest.finalize()));
        self.account.end(entry, digest);
        Ok(())
    }
}

/// Whether `directory` is `path` or one of its ancestors.
fn is_beneath(path: &[u8], directory: &[u8]) -> bool {
    match path.strip_prefix(directory) {
        Some(rest) => rest.is_empty() || directory.is_empty() || rest.starts_with(b"/"),
        None => false,
    }
}

fn open(from: &OwnedFd, name: &[u8], path: &[u8]) -> Result<OwnedFd, ArchiveError> {
    openat2(from, name, DIRECTORY, Mode::empty(), BENEATH).map_err(ArchiveError::io("opened", path))
}

fn made(errno: Errno, path: &[u8]) -> ArchiveError {
    match errno {
        // The names may differ, on a file system that ignores case.
        Errno::EXIST => ArchiveError::name(path, "comes twice"),
        _ => ArchiveError::io("created", path)(errno),
    }
}

/// A file's identity: its device and inode.
pub(super) fn identity(file: &OwnedFd) -> Result<(u64, u64), Errno> {
    let stat = fstat(file)?;
    Ok((stat.st_dev, stat.st_ino))
}
