//! [`survey`]: walks a root tree, checks that a guest's root and ext4 can hold its entries, and counts the inodes and
//! blocks that it needs.

use std::{
    collections::HashMap,
    fs::{self, FileType, Metadata},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use rustix::{fs::SeekFrom, io::Errno};

use super::{
    Error,
    ext4_size::{self, Attributes, BLOCK_LEN, Names, Needs},
    input::MIB,
    stop::Stop,
};
use crate::files::{Symlinks, open_for_reading};

/// The most names in a root tree.
const NAME_LIMIT: u64 = 1_000_000;
/// The most bytes that a root tree may need.
const BYTES_LIMIT: u64 = 64 * 1024 * MIB;

/// The most names that one file of an ext4 can have.
const LINK_LIMIT: u64 = 65_000;
/// The most subdirectories of a directory. A directory has one link for itself, one from its parent, and one from each
/// subdirectory. The kernel allows more and stops counting, but `mke2fs` fails.
const SUBDIRECTORY_LIMIT: u64 = LINK_LIMIT - 2;
/// The directory that `mke2fs` adds to the root.
const LOST_AND_FOUND: &str = "lost+found";
/// The longest file that an ext4 of 4 KiB blocks holds, holes included, in bytes.
const FILE_LIMIT: u64 = (1 << 44) - BLOCK_LEN;

/// Counts the inodes and blocks that the tree in `root` needs.
///
/// Holes need no blocks, and a file with several names is counted once.
pub(super) fn survey(root: &Path, stop: Stop<'_>) -> Result<Needs, Error> {
    let mut survey = Survey::default();
    let mut pending = vec![root.to_path_buf()];
    while let Some(dir) = pending.pop() {
        stop.check()?;
        survey.directory(&dir, dir == root, &mut pending)?;
    }
    Ok(survey.needs)
}

#[derive(Default)]
struct Survey {
    needs: Needs,
    names: u64,
    /// For each file with several names: the number of its names so far, by device and inode.
    linked: HashMap<(u64, u64), u64>,
    buffer: AttributeBuffer,
}

impl Survey {
    /// Counts a directory and its entries. Subdirectories are added to `pending`.
    fn directory(
        &mut self,
        dir: &Path,
        is_root: bool,
        pending: &mut Vec<PathBuf>,
    ) -> Result<(), Error> {
        self.needs.inodes += 1;
        self.attributes(dir)?;
        let mut names = Names::default();
        let before = pending.len();
        let mut adds_lost_and_found = is_root;
        for entry in fs::read_dir(dir).map_err(Error::io("read", dir))? {
            let entry = entry.map_err(Error::io("read", dir))?;
            let path = entry.path();
            let metadata = fs::symlink_metadata(&path).map_err(Error::io("examine", &path))?;
            let name = entry.file_name();
            adds_lost_and_found &= name != LOST_AND_FOUND;
            names.add(name.len());
            if metadata.is_dir() {
                pending.push(path);
            } else {
                self.leaf(&path, &metadata)?;
            }
            self.names += 1;
            self.check_limits()?;
        }
        let mut subdirectories = (pending.len() - before) as u64;
        if adds_lost_and_found {
            names.add(LOST_AND_FOUND.len());
            subdirectories += 1;
        }
        self.needs.blocks += names.blocks();
        check_links(dir, "subdirectories", subdirectories, SUBDIRECTORY_LIMIT)
    }

    /// Counts a file or a symbolic link, and refuses everything else.
    fn leaf(&mut self, path: &Path, metadata: &Metadata) -> Result<(), Error> {
        let kind = metadata.file_type();
        if kind.is_file() {
            if metadata.nlink() > 1 && !self.is_first_name(path, metadata)? {
                return Ok(());
            }
            self.needs.blocks += file_blocks(path, metadata)?;
        } else if kind.is_symlink() {
            // mke2fs makes a separate symbolic link for each name, even if the names are hard links to one symbolic
            // link.
            self.needs.blocks += ext4_size::symbolic_link(metadata.len());
        } else {
            return Err(Error::TreeEntry {
                path: path.into(),
                kind: special(kind),
            });
        }
        self.needs.inodes += 1;
        self.attributes(path)
    }

    fn is_first_name(&mut self, path: &Path, metadata: &Metadata) -> Result<bool, Error> {
        let file = (metadata.dev(), metadata.ino());
        let names = self.linked.entry(file).or_default();
        *names += 1;
        check_links(path, "names (hard links)", *names, LINK_LIMIT)?;
        Ok(*names == 1)
    }

    fn attributes(&mut self, path: &Path) -> Result<(), Error> {
        let attributes = self
            .buffer
            .attributes(path)
            .map_err(|errno| Error::io("read the extended attributes of", path)(errno.into()))?;
        self.needs.blocks += attributes.blocks().ok_or_else(|| Error::TreeAttributes {
            path: path.into(),
            bytes: attributes.total(),
        })?;
        Ok(())
    }

    fn check_limits(&self) -> Result<(), Error> {
        let out_of_range = |setting, value: u64, allowed| {
            Err(Error::OutOfRange {
                setting,
                value: format!("{value} or more"),
                allowed,
            })
        };
        if self.names > NAME_LIMIT {
            return out_of_range(
                "the number of entries of the tree",
                self.names,
                "at most 1,000,000",
            );
        }
        let bytes = self.needs.blocks.saturating_mul(BLOCK_LEN);
        if bytes > BYTES_LIMIT {
            return out_of_range(
                "the size in bytes of the tree, without holes,",
                bytes,
                "at most 64 GiB",
            );
        }
        Ok(())
    }
}

fn check_links(path: &Path, what: &'static str, count: u64, limit: u64) -> Result<(), Error> {
    if count <= limit {
        return Ok(());
    }
    Err(Error::TreeLinks {
        path: path.into(),
        what,
        limit,
    })
}

/// The blocks of a regular file.
fn file_blocks(path: &Path, metadata: &Metadata) -> Result<u64, Error> {
    /// The unit of `st_blocks`, in bytes.
    const UNIT: u64 = 512;

    let len = metadata.len();
    if len > FILE_LIMIT {
        return Err(Error::TooLarge {
            path: path.into(),
            size: len,
            limit: FILE_LIMIT,
        });
    }
    // If the blocks hold fewer bytes than the length, the file has holes or is compressed; `st_blocks` doesn't show
    // which.
    let (blocks, pieces) = if metadata.blocks().saturating_mul(UNIT) >= len {
        (len.div_ceil(BLOCK_LEN), 1)
    } else {
        data_blocks(path, len).map_err(Error::io("find the holes of", path))?
    };
    Ok(ext4_size::file(blocks, pieces))
}

/// How many blocks of a file of `len` bytes have data, and in how many pieces. It uses the same system calls as
/// `mke2fs`, so both find the same data.
fn data_blocks(path: &Path, len: u64) -> io::Result<(u64, u64)> {
    let file = open_for_reading(path, Symlinks::Refuse)?;
    let (mut blocks, mut pieces) = (0, 0);
    let mut counted = 0; // All blocks before this one are counted.
    let mut offset = 0;
    while offset < len {
        let start = match rustix::fs::seek(&file, SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        offset = rustix::fs::seek(&file, SeekFrom::Hole(start))?.min(len);
        let (first, end) = (start / BLOCK_LEN, offset.div_ceil(BLOCK_LEN));
        if first > counted || pieces == 0 {
            pieces += 1;
        }
        blocks += end.saturating_sub(first.max(counted));
        counted = end;
    }
    Ok((blocks, pieces))
}

/// Buffers for the list of an inode's extended attributes and for one value. Linux allows 64 KiB for each.
struct AttributeBuffer {
    list: Vec<u8>,
    value: Vec<u8>,
}

impl Default for AttributeBuffer {
    fn default() -> AttributeBuffer {
        const LIMIT: usize = 64 * 1024;
        AttributeBuffer {
            list: vec![0; LIMIT],
            value: vec![0; LIMIT],
        }
    }
}

impl AttributeBuffer {
    fn attributes(&mut self, path: &Path) -> Result<Attributes, Errno> {
        let mut attributes = Attributes::default();
        let len = match rustix::fs::llistxattr(path, &mut self.list[..]) {
            Ok(len) => len,
            Err(Errno::OPNOTSUPP) => 0,
            Err(errno) => return Err(errno),
        };
        for name in self.list[..len]
            .split(|&byte| byte == 0)
            .filter(|name| !name.is_empty())
        {
            let name_as_path = std::ffi::OsStr::from_bytes(name);
            let value = rustix::fs::lgetxattr(path, name_as_path, &mut self.value[..])?;
            attributes.add(name, value);
        }
        Ok(attributes)
    }
}

fn special(kind: FileType) -> &'static str {
    match kind {
        kind if kind.is_block_device() => "block device",
        kind if kind.is_char_device() => "character device",
        kind if kind.is_fifo() => "FIFO",
        _ => "socket",
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::{FileExt, symlink};

    use super::*;

    fn needs(fill: impl FnOnce(&Path)) -> Needs {
        let dir = tempfile::tempdir().expect("a directory");
        fill(dir.path());
        survey(dir.path(), Stop::never()).expect("fit for a root")
    }

    fn check(fill: impl FnOnce(&Path), inodes: u64, blocks: u64) {
        // The root itself has one of each.
        let expected = Needs {
            inodes: 1 + inodes,
            blocks: 1 + blocks,
        };
        assert_eq!(needs(fill), expected);
    }

    #[test]
    fn each_kind_of_entry_takes_its_blocks() {
        check(|_| {}, 0, 0);
        check(
            |dir| fs::write(dir.join("f"), [1; 4097]).expect("written"),
            1,
            2,
        );
        check(|dir| fs::write(dir.join("f"), "").expect("written"), 1, 0);
        check(|dir| fs::create_dir(dir.join("d")).expect("made"), 1, 1);
        let link = |len| move |dir: &Path| symlink("x".repeat(len), dir.join("l")).expect("linked");
        check(link(59), 1, 0);
        check(link(60), 1, 1);
    }

    #[test]
    fn links_are_not_followed() {
        check(|dir| symlink("/", dir.join("loop")).expect("linked"), 1, 0);
    }

    #[test]
    fn a_file_with_several_names_is_counted_once() {
        check(
            |dir| {
                fs::write(dir.join("f"), [1; 8192]).expect("written");
                fs::create_dir(dir.join("d")).expect("made");
                for name in ["g", "h", "d/f"] {
                    fs::hard_link(dir.join("f"), dir.join(name)).expect("linked");
                }
            },
            2,
            2 + 1,
        );
    }

    #[test]
    fn more_names_than_a_file_can_have_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("f");
        fs::write(&path, "").expect("written");
        let metadata = fs::metadata(&path).expect("there");
        let mut survey = Survey::default();
        for name in 0..LINK_LIMIT {
            let first = survey.is_first_name(&path, &metadata);
            assert_eq!(first.expect("few enough"), name == 0);
        }
        let error = survey
            .is_first_name(&path, &metadata)
            .expect_err("must fail");
        assert!(
            matches!(&error, Error::TreeLinks { path: named, limit: 65_000, .. } if *named == path),
            "{error}"
        );
    }

    #[test]
    fn holes_take_no_blocks() {
        check(
            |dir| {
                let file = File::create(dir.join("lastlog")).expect("made");
                file.set_len(70 << 30).expect("sized");
                file.write_all_at(b"x", 10 << 30).expect("written");
                file.write_all_at(b"x", 69 << 30).expect("written");
            },
            1,
            2,
        );
    }

    #[test]
    fn long_names_take_blocks_of_their_directory() {
        // Seven blocks instead of the root's one, and one that lists them.
        check(
            |dir| {
                for index in 0..100 {
                    fs::write(dir.join(format!("{index:0>250}")), "").expect("written");
                }
            },
            100,
            6 + 1,
        );
    }

    #[test]
    fn what_a_root_may_not_hold_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = std::os::unix::net::UnixListener::bind(dir.path().join("s")).expect("bound");
        let error = survey(dir.path(), Stop::never()).expect_err("must fail");
        assert!(
            matches!(error, Error::TreeEntry { kind: "socket", .. }),
            "{error}"
        );
        drop(listener);
    }
}
