//! [`pack`]: packs a file or a tree as a tar stream.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat, statat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::account::MAX_NAMES;
use super::entry::{Entry, kept_mode};
use super::error::shown;
use super::listing::{Listing, Name};
use super::path::MAX_PATH;
use super::stream::Sink;
use super::symlink_target::check_target;
use super::{Account, ArchiveError, EntryKind, Totals, format};
use crate::digest::Digest;

/// The flags for opening an entry of a tree. No link is followed, and NONBLOCK keeps this from waiting for the other
/// end of a fifo.
const FOUND: OFlags = OFlags::RDONLY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// Writes the regular file or directory `root` with everything in it to `out`, as a tar stream.
///
/// Two trees with the same names, bytes, permissions and times give the same stream. The name of `root` and the owners
/// make no difference. Each hard link becomes a file of its own, and a hole is packed as zeros. Symbolic links are
/// packed and not followed.
///
/// This takes memory for the names in the directories that it is in, which the limits bound, and for one buffer of 256
/// KiB. The depth of a tree is limited only by the longest name.
///
/// # Errors
///
/// The bytes that were written before an error are not an archive.
///
/// - [`Name`](ArchiveError::Name) or [`Kind`](ArchiveError::Kind) for an entry that isn't transferred
/// - [`Limit`](ArchiveError::Limit) if the tree exceeds the account's limits
/// - [`Changed`](ArchiveError::Changed) if a file or directory changed while it was read
/// - [`Truncated`](ArchiveError::Truncated) with the error of `out`
/// - [`Io`](ArchiveError::Io) if the system refused an operation
pub fn pack(root: OwnedFd, out: impl Write, account: &mut Account) -> Result<Totals, ArchiveError> {
    let stat = fstat(&root).map_err(ArchiveError::io("examined", b""))?;
    let mut packer = Packer {
        sink: Sink::new(out),
        account,
        path: Vec::new(),
    };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => packer.file(&root, &stat)?,
        FileType::Directory => packer.tree(root, &stat)?,
        other => return Err(ArchiveError::kind(b"", name_of(other))),
    }
    format::end(&mut packer.sink)?;
    let digest = packer.sink.finish()?;
    Ok(packer.account.totals(digest))
}

struct Packer<'a, W> {
    sink: Sink<W>,
    account: &'a mut Account,
    /// The path of the present entry, or of its directory.
    path: Vec<u8>,
}

/// A directory whose entries aren't all packed yet.
struct Level {
    identity: Identity,
    /// The names that are still to be packed, in reverse order.
    names: Vec<Name>,
    /// The length of the directory's path.
    path: usize,
}

/// A file's device and inode.
type Identity = (u64, u64);

fn identity(stat: &Stat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

impl<W: Write> Packer<'_, W> {
    /// Packs a directory and everything in it. Only one directory is open at a time, so only the longest name limits
    /// the depth of a tree.
    fn tree(&mut self, root: OwnedFd, stat: &Stat) -> Result<(), ArchiveError> {
        let mut listing = Listing::new();
        let mut names = 0;
        let mut here = root;
        let mut levels = vec![self.enter(&here, stat, &mut listing, &mut names)?];
        while let Some(level) = levels.last_mut() {
            self.path.truncate(level.path);
            let Some(name) = level.names.pop() else {
                levels.pop();
                if let Some(parent) = levels.last() {
                    here = self.leave(&here, parent)?;
                }
                continue;
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend(&name.name);
            if self.path.len() > MAX_PATH {
                let fault = "is longer than 4095 bytes";
                return Err(ArchiveError::name(&self.path, fault));
            }
            let kind = match name.kind {
                FileType::Unknown => self.kind_of(&here, &name)?,
                kind => kind,
            };
            match kind {
                FileType::RegularFile => {
                    let file = self.open(&here, &name, OFlags::empty())?;
                    let stat = self.stat(&file)?;
                    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                        return Err(self.swapped());
                    }
                    self.file(&file, &stat)?;
                }
                FileType::Symlink => self.link(&here, &name)?,
                FileType::Directory => {
                    here = self.open(&here, &name, OFlags::DIRECTORY)?;
                    let stat = self.stat(&here)?;
                    levels.push(self.enter(&here, &stat, &mut listing, &mut names)?);
                }
                other => return Err(ArchiveError::kind(&self.path, name_of(other))),
            }
        }
        Ok(())
    }

    fn enter(
        &mut self,
        directory: &OwnedFd,
        stat: &Stat,
        listing: &mut Listing,
        names: &mut u64,
    ) -> Result<Level, ArchiveError> {
        self.whole(&self.entry(EntryKind::Directory, stat))?;
        let mut found = Vec::new();
        let most = self.account.entries_left();
        listing.read(directory, &self.path, |name| {
            *names += name.name.len() as u64;
            let limit = match found.len() as u64 >= most {
                true => Some(("entries", self.account.limits().entries)),
                false => (*names > MAX_NAMES).then_some(("bytes of names", MAX_NAMES)),
            };
            if let Some((what, limit)) = limit {
                let name = shown(&name.name);
                return Err(ArchiveError::Limit { what, limit, name });
            }
            found.push(name);
            Ok(())
        })?;
        found.sort_unstable_by(|a, b| b.name.cmp(&a.name));
        Ok(Level {
            identity: identity(stat),
            names: found,
            path: self.path.len(),
        })
    }

    /// Opens the parent of the present directory, and checks that it is the directory that the walk came from.
    fn leave(&self, here: &OwnedFd, parent: &Level) -> Result<OwnedFd, ArchiveError> {
        let opened = openat(here, c"..", FOUND | OFlags::DIRECTORY, Mode::empty())
            .map_err(ArchiveError::io("opened", &self.path[..parent.path]))?;
        match identity(&self.stat(&opened)?) == parent.identity {
            true => Ok(opened),
            false => Err(ArchiveError::changed(&self.path, "it was moved")),
        }
    }

    fn open(&self, here: &OwnedFd, name: &Name, flags: OFlags) -> Result<OwnedFd, ArchiveError> {
        openat(here, name.name.as_slice(), FOUND | flags, Mode::empty()).map_err(|errno| {
            match errno {
                // The entry had another kind when the directory was read.
                Errno::LOOP | Errno::NOTDIR | Errno::NXIO => self.swapped(),
                _ => self.gone(errno, "opened"),
            }
        })
    }

    fn stat(&self, opened: &OwnedFd) -> Result<Stat, ArchiveError> {
        fstat(opened).map_err(ArchiveError::io("examined", &self.path))
    }

    fn kind_of(&self, here: &OwnedFd, name: &Name) -> Result<FileType, ArchiveError> {
        let stat = self.stat_of(here, name)?;
        Ok(FileType::from_raw_mode(stat.st_mode))
    }

    fn stat_of(&self, here: &OwnedFd, name: &Name) -> Result<Stat, ArchiveError> {
        statat(here, name.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| self.gone(errno, "examined"))
    }

    fn swapped(&self) -> ArchiveError {
        ArchiveError::changed(&self.path, "another file took its place")
    }

    fn gone(&self, errno: Errno, done: &'static str) -> ArchiveError {
        match errno {
            Errno::NOENT => ArchiveError::changed(&self.path, "it is gone"),
            _ => ArchiveError::io(done, &self.path)(errno),
        }
    }

    fn link(&mut self, here: &OwnedFd, name: &Name) -> Result<(), ArchiveError> {
        let stat = self.stat_of(here, name)?;
        let target =
            readlinkat(here, name.name.as_slice(), Vec::new()).map_err(|errno| match errno {
                Errno::INVAL => self.swapped(),
                _ => self.gone(errno, "read"),
            })?;
        let target = target.into_bytes();
        check_target(&self.path, &target)?;
        self.whole(&Entry {
            target,
            ..self.entry(EntryKind::Symlink, &stat)
        })
    }

    fn entry(&self, kind: EntryKind, stat: &Stat) -> Entry {
        Entry {
            path: self.path.clone(),
            kind,
            mode: kept_mode(kind, stat.st_mode),
            size: 0,
            // A header can't hold a time before 1970.
            mtime: u64::try_from(stat.st_mtime).unwrap_or(0),
            target: Vec::new(),
        }
    }

    /// Packs an entry without bytes: a directory or a symbolic link.
    fn whole(&mut self, entry: &Entry) -> Result<(), ArchiveError> {
        self.account.begin(entry)?;
        format::write(&mut self.sink, entry)?;
        self.account.end(entry, None);
        Ok(())
    }

    fn file(&mut self, file: &OwnedFd, stat: &Stat) -> Result<(), ArchiveError> {
        let entry = Entry {
            size: u64::try_from(stat.st_size).unwrap_or(u64::MAX),
            ..self.entry(EntryKind::File, stat)
        };
        self.account.begin(&entry)?;
        format::write(&mut self.sink, &entry)?;
        let mut digest = self.account.lists().then(Sha256::new);
        let mut left = entry.size;
        loop {
            // Asking for one byte more than the file has shows the end of the file without a further call.
            let room = self.sink.room(left + 1)?;
            let read = match rustix::io::read(file.as_fd(), &mut *room) {
                Ok(read) => read,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(ArchiveError::io("read", &self.path)(errno)),
            };
            let at_end = read < room.len();
            let grew = read as u64 > left;
            if grew {
                return Err(ArchiveError::changed(&self.path, "it grew"));
            }
            let bytes = self.sink.take(read);
            if let Some(digest) = &mut digest {
                digest.update(bytes);
            }
            self.account.moved(read);
            left -= read as u64;
            match (left, read) {
                (0, _) if at_end => break,
                (1.., 0) => return Err(ArchiveError::changed(&self.path, "it shrank")),
                _ => {}
            }
        }
        format::pad(&mut self.sink, entry.size)?;
        let digest = digest.map(|digest| Digest::from(digest.finalize()));
        self.account.end(&entry, digest);
        Ok(())
    }
}

fn name_of(kind: FileType) -> &'static str {
    match kind {
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a fifo",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        _ => "of an unknown type",
    }
}
