//! The hashes of a segment's blocks.

use sha2::{Digest as _, Sha256};

use super::Hash;
use crate::overlay::copy::is_zero;
use crate::overlay::segments::{BLOCK, BLOCKS};
use crate::overlay::source::Loaded;

/// The hash that a segment contributes to the tree: the hash over the hashes of its blocks. A file of one block has no
/// such level, and the block's own hash is the root.
pub(super) fn segment_hash(loaded: &Loaded<'_>, file_length: u64) -> Hash {
    let mut hashes = [[0; 32]; BLOCKS];
    let blocks = loaded.segment.blocks();
    hashes[..blocks].fill(zero_block());
    hash_data(loaded, &mut hashes);
    match file_length <= BLOCK as u64 {
        true => hashes[0],
        false => Sha256::digest(hashes.as_flattened()).into(),
    }
}

/// The hash of a block of zeros.
pub(super) fn zero_block() -> Hash {
    static HASH: std::sync::LazyLock<Hash> =
        std::sync::LazyLock::new(|| Sha256::digest([0; BLOCK]).into());
    *HASH
}

/// A block with its number in the segment.
type Numbered<'a> = (usize, &'a [u8]);

/// How many blocks are hashed at once.
const GROUP: usize = 4;

/// Hashes the blocks that have data, several at once if the processor supports it. Blocks of zeros are skipped, because
/// their entry in `hashes` is set already: filesystem images have many such blocks, and the test for zeros costs a
/// small part of a hash.
fn hash_data(loaded: &Loaded<'_>, hashes: &mut [Hash; BLOCKS]) {
    let blocks = loaded.data_blocks();
    let mut blocks = blocks.filter(|(_, bytes)| !is_zero(bytes)).fuse();
    loop {
        let group: [Option<Numbered<'_>>; GROUP] = std::array::from_fn(|_| blocks.next());
        let numbered = group.iter().flatten();
        match hash_at_once(&group) {
            Some(found) => numbered
                .zip(found)
                .for_each(|((number, _), hash)| hashes[*number] = hash),
            None => numbered.for_each(|(number, bytes)| hashes[*number] = hash_one(bytes)),
        }
        if group[GROUP - 1].is_none() {
            return;
        }
    }
}

/// Hashes one block. The last block of a file is padded with zeros.
fn hash_one(bytes: &[u8]) -> Hash {
    if bytes.len() == BLOCK {
        return Sha256::digest(bytes).into();
    }
    let mut block = [0; BLOCK];
    block[..bytes.len()].copy_from_slice(bytes);
    Sha256::digest(block).into()
}

/// The hashes of a group, or `None` if the group isn't full, has a short block, or the processor can't hash several
/// blocks at once.
fn hash_at_once(group: &[Option<Numbered<'_>>; GROUP]) -> Option<[Hash; GROUP]> {
    #[cfg(target_arch = "x86_64")]
    {
        let whole = group.map(|block| block.and_then(|(_, bytes)| bytes.try_into().ok()));
        let [Some(first), Some(second), Some(third), Some(fourth)] = whole else {
            return None;
        };
        super::sha_ni::hash_at_once([first, second, third, fourth])
    }
    #[cfg(not(target_arch = "x86_64"))]
    None
}
