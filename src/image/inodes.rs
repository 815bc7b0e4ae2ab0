//! Removes from a new filesystem everything that depends on the packing user and the time of packing ([`settle`]).
//!
//! `mke2fs -d` copies owner and times of each file of its tree. The guest's root must not belong to the user that
//! packed it, whose number may be that of the guest's tools. Times of access and change would make every image differ.
//! So the inodes are edited in place, which is simple because the filesystem has no metadata checksums. Layout: the
//! kernel's Documentation/filesystems/ext4.

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use super::{
    Error,
    input::{u16_at, u32_at},
    mke2fs::EPOCH,
};

/// How times of last modification are treated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Modified {
    /// They are kept, because the tree was given by the caller.
    Keep,
    /// They are set to [`EPOCH`], because the tree was made during packing.
    Fix,
}

/// Changes the owner of the packing user's files to root, and sets the times of all files.
pub(super) fn settle(
    file: &File,
    path: &Path,
    packer: u32,
    modified: Modified,
) -> Result<(), Error> {
    let layout = Layout::read(file, path)?;
    for group in 0..layout.groups {
        let table = layout.inode_table(group, file, path)?;
        let mut inodes = vec![0; layout.inodes_per_group as usize * INODE_LEN];
        file.read_exact_at(&mut inodes, table)
            .map_err(Error::io("read", path))?;
        let before = inodes.clone();
        inodes
            .chunks_exact_mut(INODE_LEN)
            .for_each(|inode| settle_inode(inode, packer, modified));
        // Only changed inodes are written, so that the unused part of a table stays a hole.
        for (index, (new, old)) in inodes
            .chunks_exact(INODE_LEN)
            .zip(before.chunks_exact(INODE_LEN))
            .enumerate()
        {
            if new != old {
                file.write_all_at(new, table + (index * INODE_LEN) as u64)
                    .map_err(Error::io("write", path))?;
            }
        }
    }
    Ok(())
}

const BLOCK_LEN: u64 = 4096;
const INODE_LEN: usize = 256;
const GROUP_DESCRIPTOR_LEN: u64 = 32;

/// The layout of a filesystem's inode tables.
struct Layout {
    groups: u32,
    inodes_per_group: u32,
}

impl Layout {
    fn read(file: &File, path: &Path) -> Result<Layout, Error> {
        let unexpected = |problem| Error::UnexpectedFilesystem {
            path: path.into(),
            problem,
        };
        let mut superblock = [0; 1024];
        file.read_exact_at(&mut superblock, 1024)
            .map_err(Error::io("read", path))?;
        let short = |offset| u16_at(&superblock, offset).unwrap_or_default();
        let word = |offset| u32_at(&superblock, offset).unwrap_or_default();

        const MAGIC: u16 = 0xef53;
        const INCOMPAT_META_BG: u32 = 0x10;
        const INCOMPAT_64BIT: u32 = 0x80;
        const RO_COMPAT_GDT_CSUM: u32 = 0x10;
        const RO_COMPAT_METADATA_CSUM: u32 = 0x400;
        if short(56) != MAGIC {
            return Err(unexpected("it has no ext4 superblock"));
        }
        if 1024u64 << word(24).min(16) != BLOCK_LEN || usize::from(short(88)) != INODE_LEN {
            return Err(unexpected(
                "blocks or inodes have another size than asked for",
            ));
        }
        if word(96) & (INCOMPAT_META_BG | INCOMPAT_64BIT) != 0
            || word(100) & (RO_COMPAT_GDT_CSUM | RO_COMPAT_METADATA_CSUM) != 0
        {
            return Err(unexpected("it has features that were not asked for"));
        }
        let (inodes, inodes_per_group) = (word(0), word(40));
        if inodes_per_group == 0
            || inodes % inodes_per_group != 0
            || u64::from(inodes_per_group) > BLOCK_LEN * 8
        {
            return Err(unexpected("its number of inodes is invalid"));
        }
        Ok(Layout {
            groups: inodes / inodes_per_group,
            inodes_per_group,
        })
    }

    /// The offset of a group's inode table in the file.
    fn inode_table(&self, group: u32, file: &File, path: &Path) -> Result<u64, Error> {
        let mut block = [0; 4];
        // The descriptors follow the superblock's block; the first inode table's block is their third field.
        let offset = BLOCK_LEN + u64::from(group) * GROUP_DESCRIPTOR_LEN + 8;
        file.read_exact_at(&mut block, offset)
            .map_err(Error::io("read", path))?;
        Ok(u64::from(u32::from_le_bytes(block)) * BLOCK_LEN)
    }
}

fn settle_inode(inode: &mut [u8], packer: u32, modified: Modified) {
    const MODE: usize = 0;
    const OWNER: [usize; 2] = [2, 120]; // Low and high half, as for the group.
    const GROUP: [usize; 2] = [24, 122];
    const ACCESSED: [usize; 2] = [8, 140]; // Seconds, and the fraction.
    const CHANGED: [usize; 2] = [12, 132];
    const MODIFIED: [usize; 2] = [16, 136];
    const CREATED: [usize; 2] = [144, 148];

    let half = |inode: &[u8], offset| u32::from(u16_at(inode, offset).unwrap_or_default());
    if half(inode, MODE) == 0 && u32_at(inode, CHANGED[0]) == Some(0) {
        return; // Never used.
    }
    if half(inode, OWNER[0]) | half(inode, OWNER[1]) << 16 == packer && packer != 0 {
        for offset in OWNER.into_iter().chain(GROUP) {
            inode[offset..offset + 2].fill(0);
        }
    }
    let mut fix = |[seconds, finer]: [usize; 2]| {
        inode[seconds..seconds + 4].copy_from_slice(&EPOCH.to_le_bytes());
        inode[finer..finer + 4].fill(0);
    };
    [ACCESSED, CHANGED, CREATED].into_iter().for_each(&mut fix);
    if modified == Modified::Fix {
        fix(MODIFIED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(owner: u32) -> Vec<u8> {
        let mut inode = vec![0xff; INODE_LEN];
        inode[2..4].copy_from_slice(&(owner as u16).to_le_bytes());
        inode[120..122].copy_from_slice(&((owner >> 16) as u16).to_le_bytes());
        inode
    }

    fn owner_after(owner: u32, packer: u32) -> (u32, u32) {
        let mut inode = used(owner);
        settle_inode(&mut inode, packer, Modified::Keep);
        let id = |low, high| {
            u32::from(u16_at(&inode, low).expect("inside"))
                | u32::from(u16_at(&inode, high).expect("inside")) << 16
        };
        (id(2, 120), id(24, 122))
    }

    #[test]
    fn only_the_packers_files_become_roots() {
        assert_eq!(owner_after(1000, 1000), (0, 0));
        assert_eq!(owner_after(100_000, 100_000), (0, 0));
        assert_eq!(owner_after(1001, 1000), (1001, u32::MAX));
        assert_eq!(owner_after(0, 0), (0, u32::MAX));
    }

    #[test]
    fn times_are_fixed_and_modification_times_kept_if_they_are_the_trees() {
        let mut inode = used(0);
        settle_inode(&mut inode, 0, Modified::Keep);
        let seconds = [8, 12, 144].map(|offset| u32_at(&inode, offset));
        assert_eq!(
            (seconds, u32_at(&inode, 16)),
            ([Some(EPOCH); 3], Some(u32::MAX))
        );
        settle_inode(&mut inode, 0, Modified::Fix);
        assert_eq!(
            (u32_at(&inode, 16), u32_at(&inode, 136)),
            (Some(EPOCH), Some(0))
        );
    }

    #[test]
    fn an_unused_inode_stays_empty() {
        let mut inode = vec![0; INODE_LEN];
        settle_inode(&mut inode, 0, Modified::Fix);
        assert_eq!(inode, [0; INODE_LEN]);
    }

    #[test]
    fn another_file_system_is_refused() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(8192).expect("sized");
        let error = settle(&file, Path::new("x"), 0, Modified::Keep).expect_err("must fail");
        assert!(
            matches!(error, Error::UnexpectedFilesystem { .. }),
            "{error}"
        );
    }
}
