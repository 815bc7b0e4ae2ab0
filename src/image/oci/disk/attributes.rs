//! Writes extended attributes: into the inode if they fit, otherwise into a block of their own.

use std::collections::BTreeMap;

use super::{BLOCK, Put};

type Extended = BTreeMap<Vec<u8>, Vec<u8>>;

/// The place of a file's extended attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Nowhere,
    Inode,
    Block,
}

const MAGIC: u32 = 0xea02_0000;
/// The bytes for entries and values in an inode of 256 bytes, after the magic number.
const ROOM_IN_INODE: usize = 256 - 128 - 32 - MAGIC_LEN;
const MAGIC_LEN: usize = 4;
/// The length of the header before a block's entries.
const BLOCK_HEAD: usize = 32;
/// The length of an entry before its name.
const ENTRY: usize = 16;
/// The length of the mark at the end of the entries.
const END: usize = 4;

const USER: (u8, &[u8]) = (1, b"user.");
const SECURITY: (u8, &[u8]) = (6, b"security.");

/// One attribute as the file system has it.
struct Attribute<'a> {
    /// The number of the name's namespace.
    prefix: u8,
    name: &'a [u8],
    value: &'a [u8],
}

/// The attributes in the order that a block requires.
fn sorted(extended: &Extended) -> Vec<Attribute<'_>> {
    let mut sorted: Vec<_> = extended
        .iter()
        .filter_map(|(name, value)| {
            let (prefix, name) = [USER, SECURITY]
                .iter()
                .find_map(|(number, start)| Some((*number, name.strip_prefix(*start)?)))?;
            Some(Attribute {
                prefix,
                name,
                value,
            })
        })
        .collect();
    sorted.sort_by(|one, other| {
        let key = |attribute: &Attribute<'_>| (attribute.prefix, attribute.name.len());
        key(one)
            .cmp(&key(other))
            .then_with(|| one.name.cmp(other.name))
    });
    sorted
}

/// The length of entries and values, in bytes.
pub(super) fn size(extended: &Extended) -> usize {
    let sizes = sorted(extended).into_iter().map(|attribute| {
        ENTRY + attribute.name.len().next_multiple_of(4) + attribute.value.len().next_multiple_of(4)
    });
    sizes.sum::<usize>() + END
}

/// The place for the attributes; `None` if they fit neither into the inode nor into a block.
pub(super) fn place(extended: &Extended) -> Option<Place> {
    if extended.is_empty() {
        return Some(Place::Nowhere);
    }
    match size(extended) {
        size if size <= ROOM_IN_INODE => Some(Place::Inode),
        size if size <= BLOCK - BLOCK_HEAD => Some(Place::Block),
        _ => None,
    }
}

/// Fills the end of an inode.
pub(super) fn in_inode(extended: &Extended, room: &mut [u8]) {
    room.put32(0, MAGIC);
    // The offsets of values count from the first entry.
    fill(&mut room[MAGIC_LEN..], 0, extended);
}

/// A block of attributes.
pub(super) fn block(extended: &Extended) -> Vec<u8> {
    let mut block = vec![0; BLOCK];
    block.put32(0, MAGIC);
    block.put32(4, 1); // The number of inodes that use it.
    block.put32(8, 1); // The number of blocks.
    let hashes = fill(&mut block[..], BLOCK_HEAD, extended);
    let combine = |hash: u32, one: u32| hash.rotate_left(16) ^ one;
    let hash = match hashes.contains(&0) {
        true => 0,
        false => hashes.into_iter().fold(0, combine),
    };
    block.put32(12, hash);
    block
}

/// Writes entries from `start` on, and values from the end towards them. Returns the entries' hashes.
fn fill(room: &mut [u8], start: usize, extended: &Extended) -> Vec<u32> {
    let (mut entry, mut value) = (start, room.len());
    let mut hashes = Vec::new();
    for attribute in sorted(extended) {
        let (name, bytes) = (attribute.name, attribute.value);
        value -= bytes.len().next_multiple_of(4);
        room[value..value + bytes.len()].copy_from_slice(bytes);
        let hash = hash(name, &room[value..value + bytes.len().next_multiple_of(4)]);
        room[entry] = name.len() as u8;
        room[entry + 1] = attribute.prefix;
        // An empty value has the offset 0.
        let offset = if bytes.is_empty() { 0 } else { value };
        room.put16(entry + 2, offset as u16);
        room.put32(entry + 8, bytes.len() as u32);
        room.put32(entry + 12, hash);
        room[entry + ENTRY..entry + ENTRY + name.len()].copy_from_slice(name);
        entry += ENTRY + name.len().next_multiple_of(4);
        hashes.push(hash);
    }
    hashes
}

/// The hash of an entry, over its name and its padded value.
fn hash(name: &[u8], value: &[u8]) -> u32 {
    let named = name
        .iter()
        .fold(0, |hash: u32, &byte| hash.rotate_left(5) ^ u32::from(byte));
    value.chunks_exact(4).fold(named, |hash, word| {
        let word = word
            .iter()
            .rev()
            .fold(0, |sum: u32, &byte| sum << 8 | u32::from(byte));
        hash.rotate_left(16) ^ word
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_lie_in_the_inode_a_block_or_nowhere() {
        let check = |sizes: &[usize], expected: Option<Place>| {
            let extended = sizes
                .iter()
                .enumerate()
                .map(|(index, &size)| (format!("user.{index}").into_bytes(), vec![1; size]))
                .collect();
            assert_eq!(place(&extended), expected, "{sizes:?}");
        };
        check(&[], Some(Place::Nowhere));
        check(&[68], Some(Place::Inode));
        check(&[69], Some(Place::Block));
        check(&[4040], Some(Place::Block));
        check(&[4041], None);
        check(&[3000, 3000], None);
    }

    #[test]
    fn a_capability_fits_into_the_inode() {
        let extended = Extended::from([(b"security.capability".to_vec(), vec![1; 24])]);
        assert_eq!(place(&extended), Some(Place::Inode));
    }
}
