//! Writes the blocks of a directory, with its names sorted and without an index.

use super::{
    super::tree::{Body, NodeId, Tree},
    BLOCK, Put,
    number::{Numbered, NumberedFile},
};
use crate::image::ext4_size::BLOCK_LEN;

/// An entry before its name: inode, length of the entry, length of the name, kind.
const HEAD: usize = 8;

const REGULAR: u8 = 1;
const DIRECTORY: u8 = 2;
const FIFO: u8 = 5;
const SYMLINK: u8 = 7;

/// The length of a directory's blocks, in bytes.
pub(super) fn length(tree: &Tree, directory: NodeId) -> u64 {
    let mut filling = Filling::default();
    filling.add(1);
    filling.add(2);
    for (name, _) in tree.names(directory) {
        filling.add(name.len());
    }
    (filling.block + 1) * BLOCK_LEN
}

/// The current block and how far it is filled.
#[derive(Default)]
struct Filling {
    block: u64,
    used: usize,
}

impl Filling {
    /// Adds an entry for a name of `name` bytes. Returns its block and its offset there. An entry that doesn't fit
    /// begins the next block.
    fn add(&mut self, name: usize) -> (u64, usize) {
        let needed = HEAD + name.next_multiple_of(4);
        if self.used + needed > BLOCK {
            self.block += 1;
            self.used = 0;
        }
        let start = self.used;
        self.used += needed;
        (self.block, start)
    }
}

/// The blocks of a directory.
pub(super) fn blocks(tree: &Tree, numbered: &Numbered, directory: &NumberedFile) -> Vec<u8> {
    let mut bytes = vec![0; length(tree, directory.node) as usize];
    let mut filling = Filling::default();
    let mut last: Option<usize> = None;
    let mut put = |name: &[u8], number: u32, kind: u8| {
        let (block, within) = filling.add(name.len());
        let start = block as usize * BLOCK + within;
        if let Some(last) = last.replace(start) {
            // An entry extends to the next one, or to the end of its block.
            let end = start.min((last / BLOCK + 1) * BLOCK);
            bytes.put16(last + 4, (end - last) as u16);
        }
        bytes.put32(start, number);
        bytes[start + 6] = name.len() as u8;
        bytes[start + 7] = kind;
        bytes[start + HEAD..start + HEAD + name.len()].copy_from_slice(name);
    };
    put(b".", directory.number, DIRECTORY);
    put(b"..", directory.parent, DIRECTORY);
    for (name, node) in tree.names(directory.node) {
        let kind = match tree.node(node).body {
            Body::Directory(_) => DIRECTORY,
            Body::File { .. } => REGULAR,
            Body::Symlink(_) => SYMLINK,
            Body::Fifo => FIFO,
        };
        put(name, numbered.number(node), kind);
    }
    if let Some(last) = last {
        let end = bytes.len();
        bytes.put16(last + 4, (end - last) as u16);
    }
    bytes
}
