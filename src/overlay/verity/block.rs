//! The hashes of a segment's blocks.

use sha2::{Digest as _, Sha256};

use crate::overlay::segments::{BLOCK, BLOCKS};
use crate::overlay::source::Loaded;

/// A SHA-256 inside of the tree.
pub(super) type Hash = [u8; 32];

/// What a segment contributes to the tree: the hash of the block that has the hashes of its blocks. A file of one
/// block has no such level, and the block's own hash is the root.
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

/// Hashes the blocks that have data, two at a time.
fn hash_data(loaded: &Loaded<'_>, hashes: &mut [Hash; BLOCKS]) {
    let mut blocks = loaded.data_blocks();
    while let Some((first, bytes)) = blocks.next() {
        let Ok(bytes) = <&[u8; BLOCK]>::try_from(bytes) else {
            hashes[first] = hash_short(bytes);
            continue;
        };
        match blocks.next() {
            None => hashes[first] = Sha256::digest(bytes).into(),
            Some((second, more)) => match more.try_into() {
                Ok(more) => [hashes[first], hashes[second]] = hash_two(bytes, more),
                Err(_) => {
                    hashes[first] = Sha256::digest(bytes).into();
                    hashes[second] = hash_short(more);
                }
            },
        }
    }
}

/// The last block of a file counts as filled up with zeros.
fn hash_short(bytes: &[u8]) -> Hash {
    let mut block = [0; BLOCK];
    block[..bytes.len()].copy_from_slice(bytes);
    Sha256::digest(block).into()
}

/// The hashes of two blocks, computed at once where the processor can.
fn hash_two(first: &[u8; BLOCK], second: &[u8; BLOCK]) -> [Hash; 2] {
    #[cfg(target_arch = "x86_64")]
    if let Some(hashes) = super::sha_ni::hash_two(first, second) {
        return hashes;
    }
    [first, second].map(|block| Sha256::digest(block).into())
}
