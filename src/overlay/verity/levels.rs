//! [`Levels`]: the levels of the fs-verity tree above the segments.

use sha2::{Digest as _, Sha256};

use super::Hash;
use super::block::zero_block;
use crate::overlay::segments::BLOCKS;

/// All levels above the segments. Each holds its last block, which isn't full yet.
///
/// A file can have 2^63 bytes, so there are at most eight levels.
#[derive(Default)]
pub(super) struct Levels(Vec<Level>);

struct Level {
    block: Box<[Hash; BLOCKS]>,
    /// How many hashes the block has. It is never 128, because a full block is hashed at once and its hash goes to the
    /// next level.
    count: usize,
    /// The hash of an entry of this level whose whole subtree is zeros.
    zero: Hash,
}

impl Levels {
    /// Adds the hash of the next segment.
    pub(super) fn push(&mut self, hash: &Hash) {
        self.push_at(0, hash);
    }

    /// Adds `count` segments of zeros. Costs one or two hashes for each level, whatever `count` is.
    pub(super) fn push_zeros(&mut self, count: u64) {
        self.push_zeros_at(0, count);
    }

    /// The root of the tree. For one segment it is that segment's hash; without segments it is all zeros, as fs-verity
    /// defines it for an empty file.
    pub(super) fn root(mut self) -> Hash {
        let mut at = 0;
        while let Some(level) = self.0.get(at) {
            match level.count {
                0 => {}
                1 if at + 1 == self.0.len() => return level.block[0],
                _ => self.pass_up(at),
            }
            at += 1;
        }
        [0; 32]
    }

    fn push_at(&mut self, at: usize, hash: &Hash) {
        let level = self.level(at);
        level.block[level.count] = *hash;
        level.count += 1;
        if level.count == BLOCKS {
            self.pass_up(at);
        }
    }

    fn push_zeros_at(&mut self, at: usize, mut count: u64) {
        while count > 0 {
            let level = self.level(at);
            let zero = level.zero;
            if level.count == 0 && count >= BLOCKS as u64 {
                self.push_zeros_at(at + 1, count / BLOCKS as u64);
                count %= BLOCKS as u64;
            } else {
                self.push_at(at, &zero);
                count -= 1;
            }
        }
    }

    /// Hashes the block of a level, padded with zeros, adds the hash to the next level, and begins a new block.
    fn pass_up(&mut self, at: usize) {
        let level = self.level(at);
        level.block[level.count..].fill([0; 32]);
        level.count = 0;
        let hash = Sha256::digest(level.block.as_flattened()).into();
        self.push_at(at + 1, &hash);
    }

    /// Returns a level. Creates it, and those below it, if it doesn't exist yet.
    fn level(&mut self, at: usize) -> &mut Level {
        while self.0.len() <= at {
            let zero = match self.0.last() {
                None => full_of(&zero_block()),
                Some(below) => full_of(&below.zero),
            };
            self.0.push(Level {
                block: Box::new([[0; 32]; BLOCKS]),
                count: 0,
                zero,
            });
        }
        &mut self.0[at]
    }
}

/// The hash of a block of the tree that holds the same hash 128 times.
fn full_of(hash: &Hash) -> Hash {
    Sha256::digest([*hash; BLOCKS].as_flattened()).into()
}
